"""`make bench-migrate`: a million sessions from PostgreSQL to Redis and back, under clients.

    python benches/migrate.py [--sessions 1000000] [--clients 20]

Clients (a process each) count in sessions of their own, and end some, with the FALLBACK_ENGINE of
the migration that is under way. Each looks, at each load, whether it finds what it saved last. At
the end all sessions are compared with what they were: content, and the time that they have left.
Exits with 1 if one was lost, brought back, or is another.
"""

import argparse
import io
import json
import math
import multiprocessing
import os
import platform
import random
import sys
import tempfile
import time
from pathlib import Path

from cleanup import private_servers, say

ROOT = Path(__file__).resolve().parents[1]
OURS = "django_rust_sessions.backends."
THINK = 0.02
OF_A_CLIENT = 200  # sessions
CHUNK = 20_000
FORK = multiprocessing.get_context("fork")


def configure(where: dict, new: str, old: str) -> None:
    import django
    from django.conf import settings

    postgres, redis = where["postgres"], where["redis"]
    settings.configure(
        SECRET_KEY="measured with a key of the usual length, of fifty.",
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": postgres["database"],
                "USER": postgres["user"],
                "PASSWORD": postgres["password"],
                "HOST": postgres["host"],
                "PORT": postgres["port"],
            }
        },
        CACHES={
            "default": {
                "BACKEND": "django.core.cache.backends.redis.RedisCache",
                "LOCATION": redis["url"],
            }
        },
        INSTALLED_APPS=["django.contrib.sessions", "django_rust_sessions"],
        SESSION_ENGINE=OURS + new,
        RUST_SESSIONS={"FALLBACK_ENGINE": OURS + old} if old else {},
        USE_TZ=True,
    )
    django.setup()


def in_a_process(function, *args):
    """Settings are of a process."""
    with tempfile.NamedTemporaryFile("w+") as file:

        def work() -> None:
            file.write(json.dumps(function(*args)))
            file.flush()

        process = FORK.Process(target=work)
        process.start()
        process.join()
        if process.exitcode:
            sys.exit(f"{function.__name__} failed")
        return json.loads(Path(file.name).read_text())


def key_of(number: int) -> str:
    return f"{number * 7919:08d}".rjust(32, "s")


def content_of(number: int, count: int) -> dict:
    cart = [{"article": number + n, "price": "9.90"} for n in range(number % 5)]
    return {"_auth_user_id": str(number), "cart": cart, "count": count}


def fill(where: dict, number: int) -> None:
    configure(where, "db", "")
    from datetime import timedelta

    from django.contrib.sessions.models import Session
    from django.db import connection
    from django.utils import timezone
    from django_rust_sessions.backends.db import SessionStore

    with connection.schema_editor() as editor:
        editor.create_model(Session)
    store, now = SessionStore(), timezone.now()
    for begin in range(0, number, CHUNK):
        Session.objects.bulk_create(
            Session(key_of(n), store.encode(content_of(n, 0)), now + timedelta(days=1, seconds=n))
            for n in range(begin, min(begin + CHUNK, number))
        )
        say(f"  filled {min(begin + CHUNK, number):,} of {number:,}")
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE django_session")
    return now.timestamp()


def client(own: dict[int, int | None], seed: int, stop, answers) -> None:
    """`own` says of each session how often it was counted, None if it was ended."""
    from importlib import import_module

    from django.conf import settings

    engine = import_module(settings.SESSION_ENGINE).SessionStore
    rng, times, problems = random.Random(seed), [], []
    while not stop.is_set():
        number = rng.choice(list(own))
        start = time.monotonic()
        try:
            session = engine(key_of(number))
            if session.get("count") != own[number]:
                problems.append(f"a count is {session.get('count')} and should be {own[number]}")
            if own[number] is not None:
                if rng.random() < 0.01:
                    session.flush()
                    own[number] = None
                else:
                    session["count"] += 1
                    session.save()
                    own[number] += 1
        except Exception as error:
            problems.append(f"{type(error).__name__}: {error}")
        times.append((start, time.monotonic() - start))
        stop.wait(THINK * rng.uniform(0.5, 1.5))
    answers.put((own, times, problems))


def migrate(where: dict, old: str, new: str, clients: list[dict]) -> dict:
    configure(where, new, old)
    from django.core.management import call_command

    stop, answers = FORK.Event(), FORK.Queue()
    processes = [
        FORK.Process(target=client, args=(own, seed, stop, answers))
        for seed, own in enumerate({int(k): v for k, v in own.items()} for own in clients)
    ]
    for process in processes:
        process.start()
    time.sleep(2)
    out = io.StringIO()
    start = time.monotonic()
    call_command("sessions", "migrate", f"--from={old}", f"--to={new}", stdout=out)
    took = time.monotonic() - start
    time.sleep(1)
    stop.set()
    found = [answers.get() for _ in processes]
    for process in processes:
        process.join()
    # Before, they open their connections.
    times = sorted(t for _, some, _ in found for begin, t in some if start <= begin < start + took)
    return {
        "said": out.getvalue(),
        "took": took,
        "clients": [own for own, _, _ in found],
        "operations": len(times),
        "p50": times[len(times) // 2],
        "p99": times[math.ceil(len(times) * 0.99) - 1],
        "longest": times[-1],
        "problems": [each for _, _, some in found for each in some],
    }


def compare(where: dict, number: int, clients: list[dict], now: float) -> list[str]:
    configure(where, "db", "")
    from django_rust_sessions.management.sessions.stores import open_place
    from django_rust_sessions.management.sessions.stores.base import Place

    counts = {key_of(int(n)): count for own in clients for n, count in own.items()}
    expected = {key_of(n): n for n in range(number) if counts.get(key_of(n), 0) is not None}
    problems = []
    for batch in open_place(Place("db")).scan("", 1000):
        for record in batch.records:
            n = expected.pop(record.name, None)
            if n is None:
                problems.append("a session was brought back, or is there twice")
                continue
            if record.data != content_of(n, counts.get(record.name, 0)):
                problems.append("the content of a session has changed")
            life = record.expires.timestamp() - now - 86400 - n
            if record.name not in counts and abs(life) > 0.1:
                problems.append(f"the life of a session has changed by {life:.3f} s")
    if expected:
        problems.append(f"{len(expected):,} sessions were lost")
    if open_place(Place("cache")).count():
        problems.append("sessions were left behind in Redis")
    return problems


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sessions", type=int, default=1_000_000)
    parser.add_argument("--clients", type=int, default=20)
    options = parser.parse_args()
    started = private_servers().Started("postgres", "redis")
    try:
        where = started.servers
        for server in where.values():
            if "missing" in server:
                sys.exit(server["missing"])
        now = in_a_process(fill, where, options.sessions)
        each = max(1, min(OF_A_CLIENT, options.sessions // options.clients))
        step = options.sessions // (each * options.clients)
        numbers = list(range(0, each * options.clients * step, step))
        clients = [dict.fromkeys(numbers[n :: options.clients], 0) for n in range(options.clients)]
        rows, problems = [], []
        for old, new in (("db", "cache"), ("cache", "db")):
            say(f"from {old} to {new}, with {options.clients} clients")
            found = in_a_process(migrate, where, old, new, clients)
            clients = found["clients"]
            problems += found["problems"]
            say(found["said"].strip())
            rows.append((old, new, found))
        say("comparing")
        problems += in_a_process(compare, where, options.sessions, clients, now)
    finally:
        started.stop()
    counted = sum(count or 0 for own in clients for count in own.values())
    ended = sum(count is None for own in clients for count in own.values())
    lines = [
        f"{options.sessions:,} sessions, {options.clients} clients, who saved {counted:,} times "
        f"and ended {ended:,} sessions; {platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}",
        "",
        "| from | to | duration | sessions a second | clients' p50 | p99 | longest |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    names = {"db": "PostgreSQL", "cache": "Redis"}
    for old, new, found in rows:
        times = " | ".join(f"{found[name] * 1000:,.1f} ms" for name in ("p50", "p99", "longest"))
        rate = options.sessions / found["took"]
        lines.append(
            f"| {names[old]} | {names[new]} | {found['took']:.0f} s | {rate:,.0f} | {times} |"
        )
    lines.append("")
    if problems:
        lines += [f"{len(problems):,} problems:", *sorted(set(problems))[:20]]
    else:
        lines.append("All sessions are what they should be: none lost, changed or brought back.")
    text = "\n".join(lines)
    (ROOT / "target").mkdir(exist_ok=True)
    (ROOT / "target" / "migrate.md").write_text(text + "\n")
    print(text)
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
