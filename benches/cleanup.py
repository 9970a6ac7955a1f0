"""`make bench-cleanup`: Django's clearsessions beside ours, while clients load and save.

    python benches/cleanup.py [--rows 5000000] [--clients 20] [postgresql mariadb sqlite ...]

Fills a private database with that many expired sessions among a tenth as many live ones, lets
clients (a process each) load and save live sessions through our db engine, and then deletes what is
over: once as Django's engine does, once as ours does. What is told of the clients is what they saw
while it was being deleted and for five seconds more, in which databases tidy up; the line "nobody"
is of the seconds before. A stall is the time from a client's wish to load or save a session until
that was done, or failed. A lock is counted from the statement that takes it to the transaction's
end; outside SQLite that includes what the statement waited for locks of others.

The servers are those of the tests: they do not wait for the disk, in either case. `sqlite` is in
WAL mode; `sqlite-rollback` is as Django opens it, where 20 clients stall each other all the time.
"""

import argparse
import contextlib
import importlib.util
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

ROOT = Path(__file__).resolve().parents[1]
KINDS = ["postgresql", "mariadb", "sqlite"]
ON_DEMAND = ["sqlite-rollback"]
CHUNK = 250_000
DAYS = 100
ALONE = 5.0  # seconds that the clients run before it begins
AFTER = 5.0  # seconds that they go on after it
THINK = 0.02  # seconds of a client between two sessions


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)


def private_servers():
    spec = importlib.util.spec_from_file_location("servers_", ROOT / "tests" / "servers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def database(kind: str):
    """What stands in DATABASES."""
    if kind.startswith("sqlite"):
        with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
            wal = {"init_command": "PRAGMA journal_mode=wal; PRAGMA synchronous=normal;"}
            yield {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": f"{folder}/db.sqlite3",
                "OPTIONS": wal if kind == "sqlite" else {},
            }
        return
    name = {"postgresql": "postgres"}.get(kind, kind)
    started = private_servers().Started(name)
    try:
        where = started.servers[name]
        if "missing" in where:
            sys.exit(where["missing"])
        yield {
            "ENGINE": f"django.db.backends.{'mysql' if kind == 'mariadb' else kind}",
            "NAME": where["database"],
            "USER": where["user"],
            "PASSWORD": where["password"],
            "HOST": where["host"],
            "PORT": where["port"],
        }
    finally:
        started.stop()


def configure(settings_of_database: dict) -> None:
    import django
    from django.conf import settings

    if settings_of_database["ENGINE"].endswith("mysql"):
        import pymysql

        pymysql.install_as_MySQLdb()
    settings.configure(
        SECRET_KEY="measured with a key of the usual length, of fifty.",
        DATABASES={"default": settings_of_database},
        INSTALLED_APPS=["django.contrib.sessions"],
        USE_TZ=True,
    )
    django.setup()


# ------------------------------------------------------------------------------------- the session


def live_key(number: int) -> str:
    return f"live{number:028d}"


FILL = {
    # Older rows end earlier, but for a day more or less.
    "postgresql": (
        "INSERT INTO django_session SELECT %s || lpad(n::text, 28, '0'), %s,"
        " now() + (%s + n * %s + random() * 86400) * interval '1 second'"
        " FROM generate_series(%s, %s) n"
    ),
    "mysql": (
        "INSERT INTO django_session SELECT CONCAT(%s, LPAD(seq, 28, '0')), %s,"
        " UTC_TIMESTAMP(6) + INTERVAL (%s + seq * %s + RAND() * 86400) SECOND FROM seq_{}_to_{}"
    ),
    "sqlite": (
        "WITH RECURSIVE numbers(n) AS (SELECT %s UNION ALL SELECT n + 1 FROM numbers WHERE n < %s)"
        " INSERT INTO django_session SELECT %s || printf('%%028d', n), %s,"
        " strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now',"
        " (%s + n * %s + abs(random() %% 86400)) || ' seconds') FROM numbers"
    ),
}


def fill(rows: int, live: int) -> None:
    from django.contrib.sessions.models import Session
    from django.db import connection
    from django_rust_sessions.backends.db import SessionStore

    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS django_session")
    with connection.schema_editor() as editor:
        editor.create_model(Session)
    cart = [{"article": n, "name": f"Article {n}", "price": "9.90"} for n in range(5)]
    text = SessionStore().encode({"_auth_user_id": "7", "cart": cart})
    spread = DAYS * 86400
    start = time.monotonic()
    for word, number, first in (("live", live, 3600), ("over", rows, -spread - 90_000)):
        for begin in range(1, number + 1, CHUNK):
            end = min(begin + CHUNK - 1, number)
            values, numbers = [word, text, first, spread / number], [begin, end]
            sql = FILL[connection.vendor]
            if connection.vendor == "mysql":
                sql, numbers = sql.format(begin, end), []
            if connection.vendor == "sqlite":
                values, numbers = numbers + values, []
            with connection.cursor() as cursor:
                cursor.execute(sql, values + numbers)
            took = time.monotonic() - start
            say(f"  filled {end:,} of {number:,} {word} rows, after {took:.0f} s")
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("VACUUM ANALYZE django_session")
            cursor.execute("CHECKPOINT")
        elif connection.vendor == "mysql":
            cursor.execute("ANALYZE TABLE django_session")
            cursor.fetchall()
    connection.close()


# ------------------------------------------------------------------------------------------ clients


def client(number: int, live: int, stop, answers) -> None:
    """Loads and saves until it is told to stop; then tells how long each took, and when."""
    from django.db import DatabaseError
    from django_rust_sessions.backends.db import SessionStore

    rng, found = random.Random(number), []
    while not stop.is_set():
        key = live_key(rng.randrange(live) + 1)
        start = time.monotonic()
        done = True
        try:
            session = SessionStore(key)
            session["visits"] = session.get("visits", 0) + 1
            middle = time.monotonic()
            found.append((start, middle - start, True))
            start = middle
            session.save()
        except DatabaseError:
            done = False
        except Exception:  # UpdateError: Django's name for a database that did not answer
            done = False
        found.append((start, time.monotonic() - start, done))
        stop.wait(THINK * rng.uniform(0.5, 1.5))
    answers.put(found)


class Clients:
    def __init__(self, number: int, live: int) -> None:
        context = multiprocessing.get_context("fork")
        self.stop, self.answers = context.Event(), context.Queue()
        self.processes = [
            context.Process(target=client, args=(each, live, self.stop, self.answers))
            for each in range(number)
        ]
        for process in self.processes:
            process.start()

    def finish(self) -> list[tuple[float, float, bool]]:
        self.stop.set()
        found = [each for _ in self.processes for each in self.answers.get()]
        for process in self.processes:
            process.join()
        return found


def row(who: str, found: list, begin: float, end: float, longest: float | None) -> dict:
    """Of the clients, what they saw in that time."""
    until = end if longest is None else end + AFTER
    seen = [(took, done) for start, took, done in found if start + took > begin and start < until]
    times = sorted(took for took, _ in seen)

    def quantile(share: float) -> float:
        return times[min(len(times) - 1, math.ceil(share * len(times)) - 1)] if times else math.nan

    return {
        "who": who,
        "duration": None if longest is None else end - begin,
        "longest_lock": longest,
        "operations": len(times),
        "p50": quantile(0.5),
        "p99": quantile(0.99),
        "longest_stall": times[-1] if times else math.nan,
        "failed": sum(not done for _, done in seen),
    }


def clear(engine_name: str) -> float:
    """How long it held a lock at most: a statement, or from a BEGIN's end to its COMMIT's."""
    from importlib import import_module

    from django.db import connection

    longest, begun = 0.0, None

    def measure(execute, sql, params, many, context):
        nonlocal longest, begun
        start = time.monotonic() if begun is None else begun
        try:
            return execute(sql, params, many, context)
        finally:
            end = time.monotonic()
            if sql.startswith("BEGIN"):  # until now it waited for others
                begun = end
            else:
                longest = max(longest, end - start)
                begun = None if sql == "COMMIT" else begun

    connection.ensure_connection()
    with connection.execute_wrapper(measure):
        import_module(engine_name).SessionStore.clear_expired()
    return longest


def measure(kind: str, rows: int, clients: int) -> list[dict]:
    """In a process of its own, for settings are of a process."""
    live = max(rows // 10, 1)
    results = []
    with database(kind) as at:
        configure(at)
        from django.contrib.sessions.models import Session
        from django.db import connection
        from django.utils import timezone

        for who, engine in (
            ("Django", "django.contrib.sessions.backends.db"),
            ("ours", "django_rust_sessions.backends.db"),
        ):
            say(f"{kind}, {who}: filling")
            fill(rows, live)
            started = Clients(clients, live)
            time.sleep(1)
            alone = time.monotonic()
            time.sleep(ALONE)
            say(f"{kind}, {who}: deleting, with {clients} clients")
            begin = time.monotonic()
            longest = clear(engine)
            end = time.monotonic()
            time.sleep(AFTER)
            found = started.finish()
            left = Session.objects.filter(expire_date__lt=timezone.now()).count()
            there = Session.objects.count()
            assert (left, there) == (0, live), (left, there)
            connection.close()
            say(f"{kind}, {who}: {rows:,} rows in {end - begin:.1f} s")
            if not results:
                results.append(row("nobody", found, alone, begin, None))
            results.append(row(who, found, begin, end, longest))
    return results


def in_a_process(kind: str, rows: int, clients: int, folder: str) -> list[dict]:
    path = Path(folder) / f"{kind}.json"

    def work() -> None:
        path.write_text(json.dumps(measure(kind, rows, clients)))

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(f"{kind} could not be measured")
    return json.loads(path.read_text())


def table(found: dict[str, list[dict]], rows: int, clients: int) -> str:
    lines = [
        f"{rows:,} expired among {max(rows // 10, 1):,} live sessions, {clients} clients; "
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "",
        "| database | who deletes | duration | longest lock | clients' p50 | p99 "
        "| longest stall | failed of |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for kind, results in found.items():
        for each in results:
            cells = [
                kind,
                each["who"],
                "" if each["duration"] is None else f"{each['duration']:.1f} s",
                "" if each["longest_lock"] is None else f"{ms(each['longest_lock'])}",
                *(ms(each[name]) for name in ("p50", "p99", "longest_stall")),
                f"{each['failed']:,} of {each['operations']:,}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def ms(seconds: float) -> str:
    return f"{seconds * 1000:,.1f} ms" if seconds < 0.1 else f"{seconds * 1000:,.0f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("kinds", nargs="*", default=KINDS, metavar="DATABASE")
    options = parser.parse_args()
    if unknown := set(options.kinds) - {*KINDS, *ON_DEMAND}:
        parser.error(f"no database {', '.join(unknown)}: there are {', '.join(KINDS + ON_DEMAND)}")
    with tempfile.TemporaryDirectory() as folder:
        found = {
            kind: in_a_process(kind, options.rows, options.clients, folder)
            for kind in options.kinds or KINDS
        }
    text = table(found, options.rows, options.clients)
    (ROOT / "target").mkdir(exist_ok=True)
    (ROOT / "target" / "cleanup.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
