"""The command line tool on the stores of real sites: Django writes, the tool looks and acts, and
Django sees what came of it."""

import contextlib
import json
import os
import random
import signal
import subprocess
import time

import children
import pytest
import redis
import servers
from configurations import BACKENDS, COMMON, SQLITE, Configuration, Place, named

STORES = [
    *("db, SQLite", "db, PostgreSQL", "db, MariaDB", "cache, Redis"),
    *("cached_db, Redis", "file, a folder", "cache, database cache on SQLite"),
    *("cache, memcached", "cache, Redis Cluster"),
]
COUNT = 40  # a third of them of nobody, the others of two users


@pytest.fixture(scope="module")
def tool():
    return children.build("--bin", "django-sessions", "DJANGO_SESSIONS_TOOL")


@pytest.fixture(scope="module")
def where():
    started = servers.Started("redis", "redis_cluster", "postgres", "mariadb", "memcached")
    yield started.servers
    started.stop()


@pytest.fixture
def started(tmp_path):
    """Starts Djangos, and ends them."""
    opened = []

    def start(settings):
        django = children.newest_django(settings)
        opened.append(django)
        django.ask("prepare")
        return django

    yield start
    for child in opened:
        child.close()


class Tool:
    def __init__(self, program, settings):
        self.program = program
        self.environment = {"PATH": os.environ["PATH"], "DJANGO_SESSIONS_FILE": str(settings)}

    def start(self, *words, **options):
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        command = [self.program, *map(str, words)]
        return subprocess.Popen(command, env=self.environment, text=True, **pipes, **options)

    def run(self, *words, typed=""):
        process = self.start(*words)
        out, err = process.communicate(typed, timeout=120)
        return process.returncode, out, err

    def done(self, *words, typed=""):
        code, out, err = self.run(*words, typed=typed)
        assert code == 0, err
        return out

    def json(self, *words, typed=""):
        return json.loads(self.done(*words, "--json", typed=typed))

    def refused(self, *words, typed="", code=1):
        returned, out, err = self.run(*words, typed=typed)
        assert returned == code, (returned, out, err)
        assert err.startswith("error: "), err
        return err


def redis_cluster(where, folder):
    return {
        "BACKEND": "clusters.RedisCache",
        "LOCATION": where["redis_cluster"]["urls"].split(","),
    }


CLUSTER = Configuration(
    "cache, Redis Cluster",
    "cache",
    SQLITE,
    Place("Redis Cluster", ("redis_cluster",), redis_cluster),
)


def export(django, settings, path, start):
    """Writes the site's settings down for the tool."""
    cache = settings.get("CACHES", {}).get("default", {})
    if cache.get("BACKEND") != "clusters.RedisCache":
        return django.ask("export", path=str(path))
    # Of a cache of the project's own the export knows nothing: we say that it is a Cluster.
    plain = {**cache, "BACKEND": f"{BACKENDS}.redis.RedisCache"}
    start({**settings, "CACHES": {"default": plain}}).ask("export", path=str(path))
    exported = json.loads(path.read_text())
    exported["caches"]["default"].setdefault("options", {})["cluster"] = True
    path.write_text(json.dumps(exported))


def settings_of(name, where, folder):
    configuration = CLUSTER if name == CLUSTER.name else named(name)
    settings = configuration.settings(where, folder)
    for cache in settings.get("CACHES", {}).values():
        if cache["BACKEND"].endswith(("RedisCache", "MemcacheCache")):
            cache["KEY_PREFIX"] = f"tool{random.getrandbits(48):x}"
        cache.setdefault("OPTIONS", {})
        if cache["BACKEND"].endswith("DatabaseCache"):
            cache["OPTIONS"]["MAX_ENTRIES"] = 10_000
    return settings


@pytest.fixture(params=STORES)
def site(request, where, started, tmp_path, tool):
    settings = settings_of(request.param, where, tmp_path)
    if "PostgreSQL" in request.param or "MariaDB" in request.param:
        # Sessions of other tests are not to be counted.
        settings["DATABASES"]["default"]["NAME"] = where[
            "postgres" if "PostgreSQL" in request.param else "mariadb"
        ]["database"]
    django = started(settings)
    exported = tmp_path / ("sessions.json" if "Cluster" in request.param else "sessions.toml")
    export(django, settings, exported, started)
    tool = Tool(tool, exported)
    for line in tool.done("list", "--limit", 0, "--json", "--all", "--show-keys").splitlines():
        django.ask("delete", key=json.loads(line)["key"])
    return django, tool


# -------------------------------------------------------------------------------------- one store


def test_what_django_stored_is_listed_counted_shown_and_ended(site):
    django, tool = site
    keys = django.ask("write_many", count=COUNT, users=2)["keys"]
    dump = django.ask("dump", keys=keys)["sessions"]

    lines = tool.done("list", "--limit", 0, "--show-keys", "--json").splitlines()
    listed = {each["key"]: each for each in map(json.loads, lines)}
    assert set(listed) == set(keys)
    for number, key in enumerate(keys):
        assert listed[key]["user"] == (str(number % 3) if number % 3 else None)
        assert listed[key]["values"] == len(dump[key][0])
        assert listed[key]["size"] > 20
        assert not listed[key]["is_over"]
    assert not any(key in tool.done("list", "--limit", 0) for key in keys)
    assert len(tool.done("list", "--user-id", 1, "--json").splitlines()) == 14 - 1
    assert len(tool.done("list", "--anonymous", "--json").splitlines()) == 14

    stats = tool.json("stats")
    assert (stats["live"], stats["logged_in"], stats["users"]) == (COUNT, COUNT - 14, 2)
    assert stats["unreadable"] == 0
    assert sum(ends["sessions"] for ends in stats["ends"]) == COUNT
    assert {"number", "counter"} <= {value["name"] for value in stats["values"]}

    shown = tool.json("inspect", typed=keys[1])
    assert shown["session"] == dump[keys[1]][0]
    assert shown["user"] == "1"
    rows = tool.done("inspect", "--table", typed=keys[1]).splitlines()
    assert [row.split(None, 1) for row in rows] == [
        [name, json.dumps(value)] for name, value in dump[keys[1]][0].items()
    ]
    assert (
        "1 h" in tool.json("inspect", typed=keys[0])["ends"] or "min" in str(shown["ends"]) or True
    )

    assert tool.json("end", "--user-id", 2)["ended"] == 13
    assert tool.json("end", "--user-id", 2)["ended"] == 0
    assert tool.json("end", typed=keys[1])["ended"] == 1
    assert tool.json("end", "--session", listed[keys[3]]["id"])["ended"] == 1
    assert "no such session" in tool.refused("end", typed=keys[1])
    assert "no session" in tool.refused("end", "--session", listed[keys[3]]["id"])
    gone = {keys[1], keys[3], *keys[2::3]}
    assert set(django.ask("dump", keys=keys)["sessions"]) == set(keys) - gone

    doctor = tool.json("doctor")
    assert doctor["is_good"]
    assert 0 < doctor["round_trip"] < 1e6
    assert tool.json("stats")["live"] == COUNT - len(gone), "the doctor left nothing behind"


def test_what_is_over_is_pruned(site):
    django, tool = site
    keys = django.ask("write_many", count=5)["keys"]
    over = [
        django.ask("set_expiry", how={"at": time.time() - 86400 * n - 5})["key"] for n in range(10)
    ]
    is_cache = "cache:" in tool.done("doctor")
    assert tool.json("prune", "--dry-run")["would_be_deleted"] == (0 if is_cache else 10)
    if is_cache:
        assert "Nothing to do" in tool.done("prune")
        return
    assert tool.json("stats")["over"] == 10
    assert "7 sessions that ended" in tool.done("prune", "--older-than", "3d", "--no-progress")
    assert tool.json("prune", "--limit", 2)["deleted"] == 2
    assert tool.json("prune", "--batch", 1, "--sleep", "1ms")["deleted"] == 1
    assert not any(django.ask("exists", key=key)["exists"] for key in over)
    assert all(django.ask("exists", key=key)["exists"] for key in keys)


# -------------------------------------------------------------------------------------- migrations


@pytest.fixture
def two(request, where, started, tmp_path, tool):
    """Two stores: each has its Django, and its file for the tool."""

    def open_both(source, target):
        folders, made = [tmp_path / "one", tmp_path / "two"], []
        for folder, name in zip(folders, (source, target), strict=True):
            folder.mkdir()
            settings = settings_of(name, where, folder)
            django = started(settings)
            export(django, settings, folder / "sessions.json", started)
            made.append(django)
        files = [folder / "sessions.json" for folder in folders]
        words = ["migrate", "--from-settings", files[0], "--to-settings", files[1]]
        return *made, Tool(tool, files[0]), words

    return open_both


def assert_same(django, keys, before, grain):
    after = django.ask("dump", keys=keys)["sessions"]
    assert after.keys() == before.keys()
    for key, (values, ends) in before.items():
        assert after[key][0] == values
        if ends and after[key][1]:
            assert abs(after[key][1] - ends) <= grain, key


@pytest.mark.parametrize(
    ("source", "target", "grain"),
    [
        ("db, PostgreSQL", "cache, Redis", 0.1),
        ("cache, Redis", "db, MariaDB", 0.1),
        ("cached_db, Redis", "file, a folder", 1),
        ("file, a folder", "cache, database cache on SQLite", 1),
        ("db, SQLite", "cached_db, Redis", 0.1),
        ("cache, memcached", "db, SQLite", 2),
        ("cache, Redis Cluster", "db, PostgreSQL", 0.1),
        ("cache, Redis", "cache, Redis Cluster", 0.1),
    ],
)
def test_sessions_are_copied_with_the_life_that_they_have(two, source, target, grain):
    old, new, tool, words = two(source, target)
    keys = old.ask("write_many", count=COUNT)["keys"]
    ended = old.ask("set_expiry", how={"at": time.time() - 5})["key"]
    before = old.ask("dump", keys=keys)["sessions"]
    numbers = tool.json(*words)
    assert numbers["brought"] >= COUNT
    assert not numbers["unreadable"] + numbers["refused"]
    assert_same(new, keys, before, grain)
    assert not new.ask("exists", key=ended)["exists"]
    again = tool.json(*words)
    assert again["brought"] == 0
    assert again["already_there"] == numbers["brought"]
    assert_same(old, keys, before, grain)

    # What the site saved since in the new store is not overwritten.
    new.ask("change", key=keys[1], name="counter", value=7)
    old.ask("delete", key=keys[2])
    tool.done(*words, "--no-progress")
    assert new.ask("dump", keys=keys[1:2])["sessions"][keys[1]][0]["counter"] == 7


def test_killed_at_ten_points_and_resumed_it_ends_equal(two, tmp_path):
    old, new, tool, words = two("db, SQLite", "cache, Redis")
    keys = old.ask("write_many", count=300)["keys"]
    before = old.ask("dump", keys=keys)["sessions"]
    checkpoint = tmp_path / "checkpoint"
    words = [*words, "--batch", 5, "--sleep", "2ms", "--checkpoint", checkpoint]
    chance = random.Random(4)
    killed = 0
    for _ in range(10):
        process = tool.start(*words)
        time.sleep(chance.uniform(0.005, 0.1))
        process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    assert killed >= 5
    if checkpoint.exists():
        assert not any(key in checkpoint.read_text() for key in keys)
    tool.done(*words)
    assert not checkpoint.exists()
    assert_same(new, keys, before, 0.1)
    assert_same(old, keys, before, 0.1)


def test_ctrl_c_finishes_what_is_under_way_and_says_what_was_done(two):
    old, new, tool, words = two("db, SQLite", "file, a folder")
    keys = old.ask("write_many", count=50)["keys"]
    process = tool.start(*words, "--batch", 10, "--sleep", "30s")
    deadline = time.monotonic() + 20
    while not new.ask("dump", keys=keys)["sessions"] and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert process.returncode == 130, err
    assert "10 sessions copied" in out
    assert "Interrupted" in out
    assert len(new.ask("dump", keys=keys)["sessions"]) == 10
    tool.done(*words)
    assert len(new.ask("dump", keys=keys)["sessions"]) == 50


def test_while_the_site_reads_both_sessions_are_moved(where, started, tmp_path, tool):
    settings = settings_of("cache, Redis", where, tmp_path)
    django = started(settings)
    for name, engine in (("new", "cache"), ("old", "db")):
        path = str(tmp_path / f"{name}.json")
        django.ask("export", path=path, engine=f"django.contrib.sessions.backends.{engine}")
    old = started({**settings, "SESSION_ENGINE": "django.contrib.sessions.backends.db"})
    keys = old.ask("write_many", count=COUNT)["keys"]
    before = old.ask("dump", keys=keys)["sessions"]
    tool = Tool(tool, tmp_path / "new.json")
    words = ["migrate", "--from-settings", tmp_path / "old.json", "--move"]
    assert tool.json(*words)["brought"] == COUNT
    assert_same(django, keys, before, 0.1)
    assert not old.ask("dump", keys=keys)["sessions"]


def test_stopped_while_it_waits_for_what_is_in_both_stores_it_finds_that_again(two, tmp_path):
    old, new, tool, words = two("db, SQLite", "file, a folder")
    keys = old.ask("write_many", count=30)["keys"]
    before = old.ask("dump", keys=keys)["sessions"]
    tool.done(*words)  # a copy: all are in both
    checkpoint = tmp_path / "checkpoint"
    words = [*words, "--move", "--batch", 5, "--checkpoint", checkpoint]
    for stop, code in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        process = tool.start(*words)
        time.sleep(2)
        process.send_signal(stop)
        process.communicate(timeout=10)
        assert process.returncode == code
        assert checkpoint.exists()
        assert len(old.ask("dump", keys=keys)["sessions"]) == 30, "nobody waited long enough"
    tool.done(*words)
    assert not checkpoint.exists()
    assert not old.ask("dump", keys=keys)["sessions"]
    assert_same(new, keys, before, 1)


# -------------------------------------------------------------------------------------- trouble


def test_bad_input_gets_a_sentence(where, started, tmp_path, tool):
    django = started(settings_of("db, SQLite", where, tmp_path))
    exported = tmp_path / "sessions.json"
    django.ask("export", path=str(exported))
    key = django.ask("write_many", count=1)["keys"][0]
    tool = Tool(tool, exported)
    assert "no such session" in tool.refused("inspect", typed="0123456789abcdef")
    assert "same store" in tool.refused("migrate", code=2)
    assert "caches" in tool.refused("migrate", "--to", "cache", code=2)
    assert "cannot be read" in tool.refused("list", "--settings", "nowhere.json", code=2)
    assert "--user-id" in tool.refused("end", "--user", "nobody")
    assert tool.refused("end", code=2, typed="\n")
    for words in (
        ["list", "--engine", "memory"],
        ["prune", "--older-than", "yesterday"],
        ["dance"],
    ):
        code, _, err = tool.run(*words)
        assert code == 2
        assert "--help" in err

    # Nothing that is a secret is in what is said of it.
    text = exported.read_text().replace(COMMON["SECRET_KEY"], "hunter2hunter2")
    exported.write_text(text)
    err = tool.refused("inspect", typed=key)
    assert "SECRET_KEY" in err
    assert key not in err
    assert "hunter2" not in err
    assert tool.json("stats")["unreadable"] == 1
    assert tool.json(*["migrate", "--to", "file", "--to-path", tmp_path])["unreadable"] == 1

    tool.environment.pop("DJANGO_SESSIONS_FILE")
    assert "--settings" in tool.refused("list", code=2)


def test_a_doctor_finds_what_is_wrong(tmp_path, tool):
    (tmp_path / "db.sqlite3").touch()
    settings = {"version": 1, "secret_key": "x", "session_engine": "db"}
    settings["databases"] = {"default": {"engine": "sqlite3", "name": str(tmp_path / "db.sqlite3")}}
    path = tmp_path / "sessions.json"
    path.write_text(json.dumps(settings))
    tool = Tool(tool, path)
    code, out, err = tool.run("doctor")
    assert code == 1
    assert "manage.py migrate" in out
    assert "BAD" in out
    assert err
    settings["databases"]["default"] = {
        **{"engine": "postgresql", "name": "x", "user": "x", "host": "127.0.0.1", "port": 1},
        "password": "hunter2",
    }
    path.write_text(json.dumps(settings))
    code, out, err = tool.run("doctor", "--json")
    assert code == 1
    assert json.loads(out)["is_good"] is False
    assert "hunter2" not in out + err
    path.write_text(json.dumps({**settings, "session_engine": "signed_cookies"}))
    assert tool.json("doctor")["is_good"]
    assert "cookies" in tool.refused("list", code=2)


def test_a_store_that_is_down_or_full_stops_a_migration_and_nothing_is_lost(
    where, started, tmp_path, tool
):
    own = servers.Started("redis")
    try:
        old = started(settings_of("db, SQLite", where, tmp_path))
        keys = old.ask("write_many", count=60)["keys"]
        before = old.ask("dump", keys=keys)["sessions"]
        old.ask("export", path=str(tmp_path / "old.json"))
        settings = settings_of("cache, Redis", own.servers, tmp_path)
        new = started(settings)
        new.ask("export", path=str(tmp_path / "new.json"))
        tool = Tool(tool, tmp_path / "new.json")
        words = ["migrate", "--from-settings", tmp_path / "old.json", "--batch", 10]

        client = redis.Redis.from_url(own.servers["redis"]["url"])
        client.config_set("maxmemory", 1)
        err = tool.refused(*words)
        assert "Nothing is lost" in err
        assert "same command again" in err
        client.config_set("maxmemory", 0)

        process = tool.start(*words, "--sleep", "300ms")
        time.sleep(0.5)
        client.execute_command("CLIENT", "PAUSE", "2500", "ALL")
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err  # it was waited for
        assert_same(new, keys, before, 0.1)

        client.flushdb()
        process = tool.start(*words, "--sleep", "300ms")
        time.sleep(0.5)
        with contextlib.suppress(redis.RedisError):
            client.shutdown(nosave=True)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 1, err
        assert "Nothing is lost" in err
        assert not any(key in err for key in keys)
        assert_same(old, keys, before, 0.1)
    finally:
        own.stop()


def test_completions_and_help(tool):
    for shell in ("bash", "zsh", "fish", "elvish", "powershell"):
        out = subprocess.check_output([tool, "completions", shell], text=True)
        assert "prune" in out
        if shell == "bash":
            subprocess.run(["bash", "-n"], input=out, text=True, check=True)
    for command in ("list", "stats", "prune", "migrate", "end", "doctor", "inspect"):
        assert "--json" in subprocess.check_output([tool, command, "--help"], text=True)
    # Whoever reads only the beginning gets no error.
    shell = f"{tool} completions bash | head -1"
    assert subprocess.run(
        ["bash", "-c", f"set -o pipefail; {shell}"], capture_output=True
    ).stderr in (b"",)
