"""manage.py sessions: on real stores, killed, interrupted, and beside clients."""

import contextlib
import datetime
import json
import os
import pty
import random
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from importlib import import_module
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import databases
import pymemcache
import pytest
import redis
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.contrib.sessions.backends.file import SessionStore as DjangoFileStore
from django.contrib.sessions.models import Session
from django.core.cache import caches
from django.core.management import CommandError, call_command
from django.db import connection, connections, transaction
from django.http import HttpResponse
from django.test import Client, override_settings
from django.urls import path
from django.utils import timezone
from django_rust_sessions.backends.fallback import open_store
from django_rust_sessions.backends.file import SessionStore as RustFileStore
from django_rust_sessions.management.commands.sessions import Command
from django_rust_sessions.management.sessions import common, migrate
from django_rust_sessions.management.sessions.progress import Progress
from django_rust_sessions.management.sessions.stores import memcached, open_place
from django_rust_sessions.management.sessions.stores.base import Place, Record
from django_rust_sessions.management.sessions.stores.redis import RedisStore
from project.models import CustomRustStore, CustomSession

OURS = "django_rust_sessions.backends."
DJANGOS = "django.contrib.sessions.backends."
HOUR = datetime.timedelta(hours=1)
DAY = 24 * HOUR
FULL = os.environ.get("HYPOTHESIS_PROFILE") == "full"
HARD = {"nan": float("nan"), "big": 2**80, "text": "ö\ud800", "list": [1.0, 1, {"": None}]}


def run(*words, **options):
    out = StringIO()
    call_command(Command(stdout=out, stderr=StringIO(), no_color=True), *words, **options)
    return out.getvalue()


def refused(*words):
    with pytest.raises(CommandError) as caught:
        run(*words)
    assert caught.value.returncode == 1
    return str(caught.value)


@pytest.mark.parametrize(
    ("engine", "options", "engines"),
    [
        ("db", {"path": "/tmp"}, "file"),
        ("db", {"cache": "default"}, "cache and cached_db"),
        ("file", {"database": "default"}, "db and cached_db"),
        ("cache", {"path": "/tmp"}, "file"),
    ],
)
def test_what_an_engine_does_not_look_at_is_refused(engine, options, engines):
    """Whoever names a folder does not mean the table."""
    words = [f"--{name}={value}" for name, value in options.items()]
    said = refused("prune", f"--engine={engine}", *words)
    assert f"is for the engine {engines}, and here it is '{engine}': name the engine" in said


def test_a_site_before_its_first_migrate(django_db_blocker, tmp_path):
    at = databases.sqlite_file(tmp_path / "empty.sqlite3")
    with django_db_blocker.unblock(), databases.database("default", at) as connection:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE django_session RENAME TO elsewhere")
        try:
            assert "manage.py migrate makes the table" in refused("prune", "--engine=db")
        finally:
            with connection.cursor() as cursor:
                cursor.execute("ALTER TABLE elsewhere RENAME TO django_session")


def test_an_engine_that_knows_nothing_of_the_other_store(tmp_path):
    with override_settings(
        SESSION_ENGINE="django.contrib.sessions.backends.file",
        SESSION_FILE_PATH=str(tmp_path),
        RUST_SESSIONS={"FALLBACK_ENGINE": "django_rust_sessions.backends.db"},
    ):
        said = refused("migrate", "--from=db", "--to=file")
    assert "'django.contrib.sessions.backends.file' knows nothing of it" in said


# ------------------------------------------------------------------------------------------ stores


@pytest.fixture(params=["sqlite-file", "postgresql", "mariadb"], scope="module")
def any_database(request, django_db_blocker):
    at = databases.settings_of(request.param, request)
    with django_db_blocker.unblock(), databases.database("default", at):
        yield request.param


@pytest.fixture
def sqlite(django_db_blocker, tmp_path):
    at = databases.sqlite_file(tmp_path / "db.sqlite3")
    with django_db_blocker.unblock(), databases.database("default", at) as connected:
        yield connected


@pytest.fixture
def folder(settings, monkeypatch, tmp_path):
    made = tmp_path / "files"
    made.mkdir()
    settings.SESSION_FILE_PATH = str(made)
    for kind in (DjangoFileStore, RustFileStore):
        monkeypatch.setattr(kind, "_storage_path", str(made), raising=False)
    return made


def redis_cache(server, prefix, backend="django.core.cache.backends.redis.RedisCache"):
    return {"BACKEND": backend, "LOCATION": server["url"], "KEY_PREFIX": prefix}


@pytest.fixture
def cache(settings, redis_server, tmp_path):
    settings.CACHES = {
        "default": redis_cache(redis_server, f"{tmp_path.name}[*]?"),
        "django-redis": redis_cache(redis_server, tmp_path.name, "django_redis.cache.RedisCache"),
    }
    yield
    with redis.Redis.from_url(redis_server["url"]) as client:
        for key in client.scan_iter(f"*{tmp_path.name}*"):
            client.delete(key)


def store_of(engine, **place):
    return open_place(Place(engine, **place))


def fill(store, number, **more):
    """Live sessions with lives of their own; returns what they are."""
    now = timezone.now()
    made = {}
    for n in range(number):
        expires = now + HOUR * (1 + n) + datetime.timedelta(milliseconds=137 * n)
        made[f"{random.getrandbits(60):015x}".ljust(32, "k")] = ({"n": n, **more}, expires)
    records = [Record(name, *value) for name, value in made.items()]
    assert all(store.add(records))
    return made


def content(store):
    return {
        record.name: (record.data, record.expires)
        for batch in store.scan("", 100)
        for record in batch.records
    }


def assert_same(found, expected, within=0.002):
    assert found.keys() == expected.keys()
    for name, (data, expires) in found.items():
        assert repr(data) == repr(expected[name][0])
        assert abs((expires - expected[name][1]).total_seconds()) <= within


# ------------------------------------------------------------------------------------------- prune


def rows(over, live):
    now = timezone.now()
    ends = [now - DAY * (1 + n) for n in range(over)] + [now + DAY] * live
    Session.objects.bulk_create(
        Session(session_key=f"{n:032d}", session_data="x", expire_date=end)
        for n, end in enumerate(ends)
    )


@pytest.mark.parametrize("engine", ["db", "cached_db"])
def test_prune_deletes_what_is_over(table, cache, engine):
    rows(40, 3)
    said = run("prune", "--engine", engine, "--batch", "7", "--sleep", "0")
    assert said.startswith("40 sessions that ended deleted from the table django_session of the")
    assert Session.objects.count() == 3


def test_prune_keeps_its_limits(table):
    rows(40, 3)
    said = run("prune", "--engine", "db", "--dry-run")
    assert said.startswith("40 sessions that ended would be deleted")
    assert run("prune", "--engine", "db", "--dry-run", "--limit", "5").startswith("5 sessions")
    assert Session.objects.count() == 43
    said = run("prune", "--engine", "db", "--older-than", "30d", "--batch", "3")
    assert said.startswith("11 sessions that ended 30 days ago or more deleted")
    assert run("prune", "--engine", "db", "--limit", "4").startswith("4 sessions")
    assert Session.objects.count() == 43 - 11 - 4
    with transaction.atomic():
        run("prune", "--engine", "db")
        assert Session.objects.count() == 3


def test_prune_of_files(folder):
    store = store_of("file")
    fill(store, 5)
    now = timezone.now()
    over = [Record(f"over{n:028d}", {"n": n}, now - DAY * (n + 1)) for n in range(20)]
    assert all(store.add(over))
    (folder / f"sessionid{'p' * 32}").touch()  # the placeholder of a save under way
    (folder / f"sessionid{'q' * 32}_out_x").write_text("x")
    (folder / "other").write_text("x")
    assert run("prune", "--engine", "file", "--dry-run").startswith("20 sessions")
    assert run("prune", "--engine", "file", "--limit", "2").startswith("2 sessions")
    assert run("prune", "--engine", "file", "--older-than", "1000d").startswith("0 sessions")
    run("prune", "--engine", "file", "--batch", "3", "--sleep", "1ms")
    assert len(content(store)) == 5
    assert len(list(folder.iterdir())) == 5 + 3


def test_prune_of_a_file_that_is_saved_meanwhile(folder, monkeypatch):
    store = store_of("file")
    over = Record("o" * 32, {"n": 1}, timezone.now() - DAY)
    assert store.add([over]) == [True]
    record = store.read(over.name)
    os.utime(folder / f"sessionid{over.name}")  # prolonged
    assert not store.delete_if_same(record)
    assert store.present([over.name])


def test_prune_has_nothing_to_do_for_caches_and_cookies(cache):
    assert run("prune", "--engine", "cache").startswith("Nothing to do: the cache 'default' forg")
    assert "browsers" in run("prune", "--engine", "signed_cookies")


@pytest.mark.django_db
def test_prune_with_a_model_of_the_project(monkeypatch):
    engine = SimpleNamespace(SessionStore=CustomRustStore)
    monkeypatch.setitem(sys.modules, "an_engine_of_the_project", engine)
    now = timezone.now()
    for n in range(9):
        CustomSession.objects.create(
            session_key=f"{n:032d}", session_data="", expire_date=now + HOUR * (n - 5.5)
        )
    said = run("prune", "--engine", "an_engine_of_the_project", "--batch", "2")
    assert said.startswith("6 sessions that ended deleted from the table project_customsession")
    assert CustomSession.objects.count() == 3


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["prune", "--engine", "fiel"], "no session engine 'fiel'.*Is 'file' what you mean"),
        (["prune", "--engine", "db", "--database", "x"], "no database 'x' in DATABASES"),
        (["prune", "--engine", "cache", "--cache", "x"], "no cache 'x' in CACHES"),
        (["prune", "--engine", "file", "--path", "/nowhere"], "no folder '/nowhere'"),
        (["migrate", "--from", "db", "--to", "nothing.here"], "no session engine 'nothing.here'"),
        (["migrate", "--from", "db", "--to", "signed_cookies"], "in the cookies of browsers"),
        (["migrate", "--from", "db", "--to", DJANGOS + "db"], "are the same store"),
        (["migrate", "--from", "db", "--to", "cached_db"], "can be switched as they are"),
        (["migrate", "--from", "db", "--to", "cache"], "LocMemCache, which lives within a process"),
        (["resign", "--engine", "db"], "SECRET_KEY_FALLBACKS is empty"),
        (["prune", "--engine", "json"], "no session engine 'json'"),
    ],
)
def test_bad_input_gets_a_sentence(words, sentence):
    assert re.search(sentence, refused(*words), re.DOTALL)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["prune", "--batch", "0"],
        ["prune", "--older-than", "30"],
        ["prune", "--sleep", "-1"],
        ["prune", "--limit", "many"],
        ["migrate", "--from", "db"],
    ],
)
def test_a_mistake_in_the_options_is_refused(words):
    with pytest.raises(CommandError, match="Error: "):
        run(*words)


class Terminal(StringIO):
    def isatty(self):
        return True

    def write(self, text, style_func=None, ending="\n"):
        return super().write(text + ending)


def test_the_bar_says_how_fast_and_how_long(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    out = Terminal()
    progress = Progress(out, "Deleted")
    progress.begin(10_000)
    now[0] += 2
    progress.advance(2_500)
    shown = out.getvalue().rpartition("\r")[2]
    assert shown.startswith("Deleted [#######.....................] 25%, 2,500 of 10,000, 1,250/s")
    assert "0:06 left" in shown
    lines = Terminal()
    lines.isatty = lambda: False
    progress = Progress(lines, "Deleted")
    progress.begin(None)
    for _ in range(4):
        now[0] += 6
        progress.advance(600)
    progress.finish()
    assert lines.getvalue() == "Deleted 1,200, 100/s\nDeleted 2,400, 100/s\n"


# ---------------------------------------------------------------------------------- other processes

SITE = """
import json, os, sys
import django
from django.conf import settings
settings.configure(**json.loads(sys.argv[1]))
if settings.DATABASES["default"]["ENGINE"].endswith("mysql"):
    import pymysql
    pymysql.install_as_MySQLdb()
django.setup()
from django.core.management import execute_from_command_line
from django_rust_sessions.management.sessions import migrate
migrate.GRACE = float(os.environ.get("GRACE", 1))
execute_from_command_line(["manage.py", "sessions", *sys.argv[2:]])
"""


@pytest.fixture
def site(settings, tmp_path):
    """Starts the command in a process of its own, with the settings of the test."""
    started = []

    def start(*words, **more):
        names = ("SECRET_KEY", "CACHES", "SESSION_ENGINE", "USE_TZ")
        chosen = {name: getattr(settings, name) for name in names}
        default = connections.settings["default"]
        keys = ("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT", "OPTIONS")
        chosen["DATABASES"] = {"default": {key: default[key] for key in keys}}
        chosen["RUST_SESSIONS"] = getattr(settings, "RUST_SESSIONS", {})
        chosen["SESSION_FILE_PATH"] = settings.SESSION_FILE_PATH
        chosen["INSTALLED_APPS"] = ["django.contrib.sessions", "django_rust_sessions"]
        more.setdefault("stdout", subprocess.PIPE)
        more.setdefault("stderr", subprocess.PIPE)
        process = subprocess.Popen(
            [sys.executable, "-c", SITE, json.dumps(chosen), *words], text=True, **more
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_ctrl_c_stops_after_the_batch(sqlite, site):
    rows(2000, 2)  # ten seconds: also if this process stands still for some
    process = site("prune", "--engine", "db", "--batch", "10", "--sleep", "0.05")
    deadline = time.monotonic() + 30
    while Session.objects.count() > 1980 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    deleted = int(re.match(r"(\d+) sessions that ended deleted", out)[1])
    assert "Interrupted: run it again for the rest." in out
    assert "Traceback" not in err
    assert 20 <= deleted == 2002 - Session.objects.count() < 2000


PRESSED_AT_ANY_MOMENT = """
import faulthandler, os, random, signal, threading, time
from django_rust_sessions.management.sessions.common import Interrupt

def press():
    time.sleep(random.random() * 2e-4)
    os.kill(os.getpid(), signal.SIGINT)

for _ in range(300):
    faulthandler.dump_traceback_later(20, exit=True)
    with Interrupt().watch() as interrupt:
        threading.Thread(target=press).start()
        while not interrupt.wait(0):
            pass
"""


def test_ctrl_c_is_heard_at_any_moment_of_a_wait():
    # A threading.Event that is set by a handler within its own wait() hung here for ever.
    words = [sys.executable, "-c", PRESSED_AT_ANY_MOMENT]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_the_bar_is_drawn_on_a_terminal_only(sqlite, site):
    rows(50, 0)
    ours, theirs = pty.openpty()
    try:
        process = site("prune", "--engine", "db", stderr=theirs)
        out, _ = process.communicate(timeout=30)
        drawn = os.read(ours, 10_000).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert "100%, 50 of 50" in drawn
    assert out.startswith("50 sessions")
    rows(5, 0)
    out, err = site("prune", "--engine", "db").communicate(timeout=30)
    assert (process.returncode, err) == (0, "")


# ----------------------------------------------------------------------------------------- migrate


PLACES = ["db", "cache", "cached_db", "file"]


@pytest.mark.parametrize(
    ("source", "target"),
    [(s, t) for s in PLACES for t in PLACES if s != t and {s, t} != {"db", "cached_db"}],
)
def test_sessions_are_copied_with_their_life(sqlite, folder, cache, source, target):
    there, here = store_of(source), store_of(target)
    made = fill(there, 30, **HARD)
    said = run("migrate", "--from", source, "--to", target, "--batch", "7")
    assert f"30 sessions copied from {there} to {here}." in said
    assert_same(content(here), made)
    assert_same(content(there), made)
    # And the engine itself reads them.
    key, (data, _) = next(iter(made.items()))
    assert repr(dict(open_store(here.engine, key).items())) == repr(data)
    again = run("migrate", "--from", source, "--to", target)
    assert "0 sessions copied" in again
    assert "30 sessions already there" in again


@pytest.mark.parametrize("alias", ["default", "django-redis"])
def test_each_database_to_redis_and_back(table, cache, alias):
    made = fill(store_of("db"), 150, **HARD)
    run("migrate", "--from", "db", "--to", "cache", "--to-cache", alias)
    assert_same(content(store_of("cache", cache=alias)), made)
    Session.objects.all().delete()
    run("migrate", "--from", "cache", "--from-cache", alias, "--to", "db")
    assert_same(content(store_of("db")), made)


def test_a_redis_that_knows_no_moments(sqlite, cache, monkeypatch):
    """Before Redis 7, and where nobody may ask for its version."""
    monkeypatch.setattr(RedisStore, "clock", None)
    made = fill(store_of("db"), 10)
    run("migrate", "--from", "db", "--to", "cache")
    assert_same(content(store_of("cache")), made, within=5)


def test_a_redis_whose_clock_is_ahead(sqlite, cache, monkeypatch):
    monkeypatch.setattr(RedisStore, "clock", 60.0)
    made = fill(store_of("cache"), 10)
    assert_same(content(store_of("cache")), made)
    with redis.Redis.from_url(store_of("cache").cache._cache._servers[0]) as client:
        key = store_of("cache")._key(next(iter(made)))
        assert client.pexpiretime(key) / 1000 == pytest.approx(
            made[next(iter(made))][1].timestamp() + 60, abs=0.01
        )


def test_between_two_caches_and_two_folders(cache, folder, tmp_path):
    made = fill(store_of("cache"), 20)
    aliases = ["--from-cache", "default", "--to-cache", "django-redis"]
    run("migrate", "--from", "cache", "--to", "cache", *aliases)
    assert_same(content(store_of("cache", cache="django-redis")), made)
    other = tmp_path / "other"
    other.mkdir()
    files = fill(store_of("file"), 20)
    run("migrate", "--from", "file", "--to", "file", "--to-path", str(other))
    assert_same(content(store_of("file", path=str(other))), files)


@pytest.mark.parametrize("move", [False, True])
def test_one_store_under_two_names_is_found_out(sqlite, cache, settings, folder, tmp_path, move):
    """To move within it would be to delete."""
    location = settings.CACHES["default"]["LOCATION"]
    settings.CACHES["other"] = {**settings.CACHES["default"], "LOCATION": f"{location}?x="}
    if move:
        on_the_move(settings, "cache", "cache")
        settings.RUST_SESSIONS["FALLBACK_CACHE_ALIAS"] = "other"
    made = fill(store_of("cache"), 5)
    words = ["--from-cache", "other", "--to-cache", "default"]
    said = refused("migrate", "--from", "cache", "--to", "cache", *words)
    assert "are the same store, under two names" in said
    assert_same(content(store_of("cache")), made)


MEMCACHED = "django.core.cache.backends.memcached.PyMemcacheCache"


@pytest.fixture
def memcached_three(memcached_three_server):
    """LOCATION of three servers."""
    location = [f"127.0.0.1:{port}" for port in memcached_three_server["ports"]]
    yield location
    for where in location:
        with contextlib.closing(pymemcache.Client(where)) as client:
            client.flush_all()


def test_memcached_takes_sessions_and_gives_them_back(sqlite, settings, memcached_three):
    other = {"BACKEND": MEMCACHED, "LOCATION": memcached_three, "KEY_PREFIX": "other"}
    ours = {**other, "KEY_PREFIX": "s/%ö", "OPTIONS": {"key_prefix": b"all:"}}
    settings.CACHES = {"default": ours, "other": other}
    made = fill(store_of("db"), 50)
    big = Record("b" * 32, {"x": os.urandom(2**20).hex()}, timezone.now() + HOUR)
    store_of("db").add([big])
    said = run("migrate", "--from", "db", "--to", "cache")
    assert "50 sessions copied" in said
    assert "1 session left, for the cache 'default' does not take them" in said
    for name, (data, _) in made.items():
        assert open_store(store_of("cache").engine, name)["n"] == data["n"]
    # What is not the engine's own, stays where it is.
    caches["default"].set("n", {"n": 1}, 100)
    caches["other"].set(store_of("cache").prefix + "a" * 32, {"n": 1}, 100)
    caches["default"].set(f"{store_of('cache').prefix}d_db" + "a" * 32, {"n": 1}, 100)
    assert store_of("cache").count() == 50

    Session.objects.all().delete()
    said = run("migrate", "--from", "cache", "--to", "db", "--batch", "7")
    assert "50 sessions copied" in said
    # memcached knows whole seconds, and its clock ticks once in one: a part of a second is lost,
    # up to one more by the clock, and one more if a tick is late.
    assert_same(content(store_of("db")), made, within=3)


def test_a_memcached_that_fails_on_the_way_hides_no_session(sqlite, settings, memcached_three):
    settings.CACHES = {"default": {"BACKEND": MEMCACHED, "LOCATION": memcached_three}}
    made = fill(store_of("cache"), 60)
    source = store_of("cache")
    batches = source.scan("", 20)
    found = [record.name for record in next(batches).records]
    # As pymemcache is after it could not reach two of them for a while: their keys are elsewhere.
    for client in list(source.cache._cache.clients.values())[:2]:
        source.cache._cache._mark_failed_server(client.server)
        source.cache._cache.remove_server(client.server)
    assert source.present(list(made)) == set(made)
    found += [record.name for batch in batches for record in batch.records]
    assert sorted(found) == sorted(made)


def test_a_server_that_took_over_is_read_from_its_beginning(
    sqlite, settings, redis_replicas_server, tmp_path
):
    where = redis_replicas_server
    settings.CACHES = {"default": redis_cache(where, tmp_path.name)}
    made = fill(store_of("cache"), 300)
    source = store_of("cache")
    batch = next(source.scan("", 20))
    assert 0 < len(batch.records) < 100
    assert source.client.wait(2, 5000) == 2
    rest = [record.name for each in source.scan(batch.position, 20) for record in each.records]
    assert {*rest, *(record.name for record in batch.records)} == set(made)
    assert len(rest) < 300
    # Its cursor would pass over keys, which the replica has in another order.
    source.client = redis.Redis(port=where["ports"][1])
    again = [record.name for each in source.scan(batch.position, 20) for record in each.records]
    assert set(again) == set(made)


def test_a_cache_that_cannot_list_its_sessions_says_what_to_do(sqlite, settings, tmp_path):
    backend = "django.core.cache.backends.filebased.FileBasedCache"
    settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": str(tmp_path)}}
    said = refused("migrate", "--from", "cache", "--to", "db")
    assert "cannot list its keys" in said
    assert "FALLBACK_ENGINE" in said


def test_what_does_not_list_its_keys_is_not_taken_for_empty(redis_server):
    with pytest.raises(CommandError, match="does not list all of its keys"):
        list(memcached.list_keys(f"{redis_server['host']}:{redis_server['port']}"))


def test_a_memcached_that_is_silent_is_not_waited_for_longer_than_the_cache_would(
    sqlite, settings, monkeypatch
):
    monkeypatch.setattr(common, "TRIES", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        where = f"127.0.0.1:{silent.getsockname()[1]}"
        cache = {"BACKEND": MEMCACHED, "LOCATION": where, "OPTIONS": {"timeout": 0.2}}
        settings.CACHES = {"default": cache}
        start = time.monotonic()
        assert "timed out" in refused("migrate", "--from", "cache", "--to", "db")
        assert time.monotonic() - start < memcached.SECONDS_TO_ANSWER


def test_what_is_over_or_cannot_be_read_is_left(sqlite, cache, settings):
    made = fill(store_of("db"), 5)
    rows(3, 2)  # 2 live ones with the data "x"
    said = run("migrate", "--from", "db", "--to", "cache")
    assert "5 sessions copied" in said
    assert "2 sessions left, for they cannot be read" in said
    assert_same(content(store_of("cache")), made)
    # One that is over is not in the way of a live one.
    name = next(iter(made))
    Session.objects.filter(pk=name).update(expire_date=timezone.now() - HOUR)
    run("migrate", "--from", "cache", "--to", "db")
    assert content(store_of("db"))[name][0] == made[name][0]


def test_what_was_saved_in_the_new_store_is_not_overwritten(sqlite, cache):
    made = fill(store_of("db"), 3)
    name = next(iter(made))
    newer = Record(name, {"newer": True}, timezone.now() + HOUR)
    assert store_of("cache").add([newer]) == [True]
    assert "1 session already there" in run("migrate", "--from", "db", "--to", "cache")
    assert content(store_of("cache"))[name][0] == {"newer": True}


@pytest.mark.parametrize("target", ["cache", "file"])
def test_sessions_under_hashed_names_are_copied(sqlite, cache, settings, folder, target):
    settings.RUST_SESSIONS = {"HASH_KEYS": "sha256"}
    settings.SESSION_ENGINE = f"{OURS}db"
    session = import_module(settings.SESSION_ENGINE).SessionStore()
    session["cart"] = ["tea"]
    session.save()
    assert "1 session copied" in run("migrate", "--from", "db", "--to", target)
    copied = import_module(OURS + target).SessionStore(session.session_key)
    assert copied["cart"] == ["tea"]
    Session.objects.all().delete()
    assert "1 session copied" in run("migrate", "--from", target, "--to", "db")
    assert content(store_of("db")).keys() == {session.stored_name}


@pytest.mark.parametrize("target", ["cache", "file"])
def test_a_logout_between_the_reading_and_the_copy_holds(
    sqlite, cache, folder, monkeypatch, target
):
    made = fill(store_of("db"), 10)
    gone = sorted(made)[:3]
    kind = type(store_of(target))
    add = kind.add

    def log_out_first(self, records):
        if len(records) > 1:  # and not the probe
            Session.objects.filter(pk__in=gone).delete()
        return add(self, records)

    monkeypatch.setattr(kind, "add", log_out_first)
    said = run("migrate", "--from", "db", "--to", target)
    assert "7 sessions copied" in said
    assert "3 sessions ended meanwhile" in said
    assert content(store_of(target)).keys() == made.keys() - set(gone)


def on_the_move(settings, new, old):
    settings.SESSION_ENGINE = OURS + new
    settings.RUST_SESSIONS = {"FALLBACK_ENGINE": OURS + old}


def test_while_the_site_reads_both_sessions_are_moved(sqlite, cache, settings, monkeypatch):
    monkeypatch.setattr(migrate, "GRACE", 0.3)
    on_the_move(settings, "cache", "db")
    made = fill(store_of("db"), 20)
    # As a process that was killed between its two steps leaves it.
    name = next(iter(made))
    store_of("cache").add([Record(name, *made[name])])
    said = run("migrate", "--from", "db", "--to", "cache")
    assert "19 sessions moved" in said
    assert_same(content(store_of("cache")), made)
    assert Session.objects.count() == 0
    assert "moves sessions the other way" in refused("migrate", "--from", "cache", "--to", "db")
    on_the_move(settings, "db", "cache")
    run("migrate", "--from", "cache", "--to", "db")
    assert_same(content(store_of("db")), made)
    assert content(store_of("cache")) == {}


@pytest.mark.parametrize("move", [False, True])
def test_killed_at_ten_points_and_resumed_it_ends_equal(
    sqlite, cache, settings, site, tmp_path, move
):
    if move:
        on_the_move(settings, "cache", "db")
    else:
        settings.SESSION_ENGINE = f"{OURS}db"
    made = fill(store_of("db"), 1000)
    redis_store = store_of("cache")
    words = ["migrate", "--from", "db", "--to", "cache", "--batch", "10", "--sleep", "10ms"]
    checkpoint = tmp_path / "checkpoint"
    if not move:
        words += ["--checkpoint", str(checkpoint)]
    kills = 0
    while kills < 10:
        before = redis_store.count()
        process = site(*words)
        deadline = time.monotonic() + 60
        while redis_store.count() <= before + 5 and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(random.uniform(0, 0.06))
        process.kill()
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
        if not move and checkpoint.exists():
            found = checkpoint.read_text()
            assert not any(name in found for name in made)
    assert 0 < redis_store.count() < len(made)
    process = site(*words)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert_same(content(redis_store), made)
    assert not checkpoint.exists()
    if move:
        assert Session.objects.count() == 0


def test_ctrl_c_stops_a_migration_and_it_goes_on(sqlite, cache, settings, site):
    settings.SESSION_ENGINE = f"{OURS}db"
    made = fill(store_of("db"), 1000)
    words = ["migrate", "--from", "db", "--to", "cache", "--batch", "10"]
    process = site(*words, "--sleep", "50ms")
    deadline = time.monotonic() + 30
    while not store_of("cache").count() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "Interrupted: run it again for the rest." in out
    assert 0 < store_of("cache").count() < len(made)
    run(*words)
    assert_same(content(store_of("cache")), made)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize(("source", "target"), [("db", "cache"), ("file", "db")])
def test_a_checkpoint_does_not_go_past_what_is_still_in_both(
    sqlite, cache, folder, settings, site, tmp_path, monkeypatch, source, target, end
):
    on_the_move(settings, target, source)
    made = fill(store_of(source), 5)
    for name, value in made.items():
        store_of(target).add([Record(name, *value)])
    fill(store_of(source), 20)
    words = ["migrate", "--from", source, "--to", target, "--batch", "2"]
    words += ["--checkpoint", str(tmp_path / "checkpoint")]
    process = site(*words, env={**os.environ, "GRACE": "20"})
    deadline = time.monotonic() + 30
    while len(content(store_of(source))) > 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)
    process.send_signal(end)  # it waits for what requests may be about to do
    process.communicate(timeout=30)
    assert process.returncode in (130, -signal.SIGKILL)
    assert content(store_of(source)).keys() == made.keys()
    monkeypatch.setattr(migrate, "GRACE", 0.1)
    run(*words)
    assert content(store_of(source)) == {}
    assert len(content(store_of(target))) == 25


def test_a_checkpoint_goes_on_when_what_was_in_both_is_settled(
    sqlite, cache, settings, tmp_path, monkeypatch
):
    monkeypatch.setattr(migrate, "GRACE", 0.05)
    on_the_move(settings, "cache", "db")
    made = fill(store_of("db"), 30)
    first = min(made)
    store_of("cache").add([Record(first, *made[first])])
    written = []
    write = migrate.Checkpoint.write

    def note(self, position):
        written.append(position)
        write(self, position)

    monkeypatch.setattr(migrate.Checkpoint, "write", note)
    file = tmp_path / "checkpoint"
    words = ["migrate", "--from", "db", "--to", "cache", "--checkpoint", str(file)]
    run(*words, "--batch", "1", "--sleep", "10ms")
    assert written[0] == ""
    assert written[-1] == max(made)[:8]
    assert written == sorted(written)
    assert content(store_of("db")) == {}
    assert not file.exists()


def test_a_checkpoint_holds_no_password(
    sqlite, settings, redis_password_server, tmp_path, monkeypatch
):
    server = redis_password_server
    settings.CACHES = {"default": redis_cache(server, tmp_path.name)}
    made = fill(store_of("db"), 3)
    file = tmp_path / "checkpoint"
    words = ["migrate", "--from", "db", "--to", "cache", "--checkpoint", str(file)]
    with monkeypatch.context() as patched:
        patched.setattr(migrate.Checkpoint, "remove", lambda self: None)
        run(*words)
    kept = file.read_text("utf-8")
    for secret in (server["password"], quote(server["password"], ""), server["url"], *made):
        assert secret not in kept
    run(*words)  # goes on with it
    assert not file.exists()
    # What was written before the hashes.
    identities = [str(store_of(engine).identity()) for engine in ("db", "cache")]
    file.write_text(json.dumps({"between": identities, "position": ""}), "utf-8")
    assert "checkpoint of another migration" in refused(*words)


def test_a_checkpoint_of_something_else_is_refused(sqlite, cache, folder, tmp_path):
    file = tmp_path / "checkpoint"
    words = ["migrate", "--from", "db", "--to", "cache", "--checkpoint", str(file)]
    file.write_text("?")
    assert "cannot be read as a checkpoint" in refused(*words)
    file.write_text(json.dumps({"between": ["a", "b"], "position": "x"}))
    assert "checkpoint of another migration" in refused(*words)
    fill(store_of("db"), 3)
    words[-1] = str(tmp_path / "nowhere" / "checkpoint")
    assert "cannot be written" in refused(*words)


def test_a_store_that_is_down_for_a_moment_is_waited_for(sqlite, settings, own_redis, monkeypatch):
    settings.CACHES = {"default": redis_cache({"url": own_redis.url}, "")}
    made = fill(store_of("db"), 60)
    kind, add, calls = RedisStore, RedisStore.add, []

    def break_once(self, records):
        if len(records) > 1:  # and not the probe
            calls.append(len(records))
        if len(calls) == 2:
            own_redis.kill()
        if len(calls) == 4:
            own_redis.start()
        return add(self, records)

    monkeypatch.setattr(kind, "add", break_once)
    run("migrate", "--from", "db", "--to", "cache", "--batch", "20")
    # What it had before it was killed is gone with it, for it keeps nothing on the disk.
    assert len(calls) > 3
    monkeypatch.undo()
    run("migrate", "--from", "db", "--to", "cache")
    assert_same(content(store_of("cache")), made)


def test_a_store_that_stays_down_stops_it_and_nothing_is_lost(
    sqlite, settings, own_redis, monkeypatch
):
    settings.CACHES = {"default": redis_cache({"url": own_redis.url}, "")}
    on_the_move(settings, "cache", "db")
    made = fill(store_of("db"), 60)
    add, calls = RedisStore.add, []

    def pause_after(self, records):
        if len(records) > 1:  # and not the probe
            calls.append(len(records))
        if len(calls) == 2:
            own_redis.kill()
        return add(self, records)

    monkeypatch.setattr(RedisStore, "add", pause_after)
    monkeypatch.setattr("django_rust_sessions.management.sessions.common.TRIES", 2)
    said = refused("migrate", "--from", "db", "--to", "cache", "--batch", "20")
    assert "20 sessions moved" in said
    assert "run the same command again" in said
    assert not any(name in said for name in made)
    assert Session.objects.count() == 40


def test_a_store_that_is_full_stops_it(sqlite, settings, redis_maxmemory_server, tmp_path):
    settings.CACHES = {"default": redis_cache(redis_maxmemory_server, tmp_path.name)}
    made = fill(store_of("db"), 300, text="." * 50_000)
    said = refused("migrate", "--from", "db", "--to", "cache", "--batch", "10")
    assert "maxmemory" in said
    assert not any(name in said for name in made)
    assert "...." not in said
    assert Session.objects.count() == len(made)
    with redis.Redis.from_url(redis_maxmemory_server["url"]) as client:
        client.flushall()


def limit_files():
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))


def test_a_full_disk_stops_it_and_leaves_no_half_of_a_file(sqlite, folder, cache, site):
    made = fill(store_of("cache"), 3)
    store_of("cache").add([Record("z" * 32, {"x": os.urandom(4000).hex()}, timezone.now() + HOUR)])
    process = site("migrate", "--from", "cache", "--to", "file", preexec_fn=limit_files)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Stopped, for a store failed: File too large. Nothing is lost" in err
    assert "z" * 32 not in err
    assert content(store_of("file")).keys() <= made.keys()
    assert not [each for each in folder.iterdir() if "_out_" in each.name]
    assert content(store_of("cache")).keys() == made.keys() | {"z" * 32}


def test_clients_notice_nothing(table, cache, settings, monkeypatch):
    """Moved to Redis and back under clients that count in their sessions and log out."""
    if table == "sqlite-file":
        return  # its one writer at a time is a test of patience; test_fallback has it
    monkeypatch.setattr(migrate, "GRACE", 1.0)
    settings.SESSION_ENGINE = f"{OURS}db"
    made = fill(store_of("db"), 3000 if FULL else 400, count=0)
    names = list(made)
    clients = 20 if FULL else 6
    leaving, stop, problems = set(names[::7]), threading.Event(), []
    counts = dict.fromkeys(names, 0)
    on_the_move(settings, "cache", "db")
    engine = import_module(f"{OURS}cache").SessionStore
    back = import_module(f"{OURS}db").SessionStore
    use = [engine]

    def work(mine):
        rng = random.Random(mine)
        own = names[mine::clients]
        gone = set()
        try:
            while not stop.is_set():
                name = rng.choice(own)
                session = use[0](name)
                if name in gone:
                    assert session.get("count") is None, "brought back"
                    continue
                assert session.get("count") == counts[name], (session.get("count"), counts[name])
                if name in leaving and rng.random() < 0.3:
                    session.flush()
                    gone.add(name)
                else:
                    session["count"] += 1
                    session.save()
                    counts[name] += 1
        except Exception as error:
            problems.append(repr(error))
        finally:
            leaving_now.update(gone)
            connections.close_all()

    leaving_now = set()

    def during(*words):
        stop.clear()
        threads = [threading.Thread(target=work, args=(n,)) for n in range(clients)]
        for thread in threads:
            thread.start()
        try:
            time.sleep(0.2)
            run(*words)
            time.sleep(0.2)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert problems == []

    pace = ["--batch", "20", "--sleep", "5ms"]
    during("migrate", "--from", "db", "--to", "cache", *pace)
    assert Session.objects.count() == 0
    found = content(store_of("cache"))
    assert {name: data["count"] for name, (data, _) in found.items()} == {
        name: count for name, count in counts.items() if name not in leaving_now
    }
    assert sum(counts.values()) > 100
    assert leaving_now

    names = [name for name in names if name not in leaving_now]
    on_the_move(settings, "db", "cache")
    use[0] = back
    during("migrate", "--from", "cache", "--to", "db", *pace)
    assert content(store_of("cache")) == {}
    found = content(store_of("db"))
    assert {name: data["count"] for name, (data, _) in found.items()} == {
        name: counts[name] for name in names if name not in leaving_now
    }


# ------------------------------------------------------------------------------------------ resign

OLD, NEW = "the old key of these tests", "the new key of these tests"


def me(request):
    return HttpResponse(f"{request.user.pk} {request.session.get('cart')}")


urlpatterns = [path("me/", me)]


@pytest.fixture
def users(sqlite, settings, cache, folder):
    """Logged in under the old key: what `logged_in()` says of their cookies."""
    settings.ROOT_URLCONF = __name__
    settings.MIDDLEWARE = [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ]
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = OLD, []
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    with connection.schema_editor() as editor:
        for model in (ContentType, Permission, Group, User):
            editor.create_model(model)
    yield [User.objects.create_user(f"user{n}", password="x") for n in range(5)]
    with connection.schema_editor() as editor:
        for model in (User, Group, Permission, ContentType):
            editor.delete_model(model)


def log_in(user, **values):
    client = Client()
    client.force_login(user)
    session = client.session
    session.update(values)
    session.save()
    return client


@pytest.mark.parametrize("maker", [DJANGOS, OURS])
@pytest.mark.parametrize("engine", PLACES)
def test_after_resign_the_old_key_is_needed_no_more(users, settings, engine, maker):
    settings.SESSION_ENGINE = maker + engine
    clients = [log_in(user, cart=[n, "ö"]) for n, user in enumerate(users)]
    expected = [f"{user.pk} [{n}, 'ö']" for n, user in enumerate(users)]
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = NEW, [OLD]
    before = content(store_of(engine))
    dry = run("resign", "--dry-run")
    assert dry.startswith("5 sessions of the")
    assert "5 logins among them" in dry
    assert content(store_of(engine)).keys() == before.keys()

    said = run("resign", "--batch", "2")
    assert re.match(r"5 sessions of the .+ written anew .+ 5 logins among them; 0 sessions", said)
    assert "can now be taken out" not in said
    assert "run it again, until it writes none" in said
    said = run("resign")
    assert "5 sessions had it already" in said
    assert "can now be taken out" in said
    after = content(store_of(engine))
    assert after.keys() == before.keys()
    for name, (_, expires) in after.items():
        assert abs((expires - before[name][1]).total_seconds()) < 0.05

    settings.SECRET_KEY_FALLBACKS = []
    assert [client.get("/me/").content.decode() for client in clients] == expected
    # It is the very same session.
    assert content(store_of(engine)).keys() == before.keys()


@pytest.mark.parametrize("engine", PLACES)
@pytest.mark.not_with("MERGE", "a save keeps what others changed")
def test_what_a_request_of_before_saves_after_it_is_written_by_the_next(users, settings, engine):
    settings.SESSION_ENGINE = OURS + engine
    clients = [log_in(user, cart=1) for user in users[:2]]
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = NEW, [OLD]
    late = clients[0].session
    late["cart"] = 2
    assert "can now be taken out" not in run("resign")
    late.save()
    said = run("resign")
    assert said.startswith("1 session")
    assert "can now be taken out" not in said
    said = run("resign")
    assert said.startswith("0 sessions")
    assert "can now be taken out" in said
    settings.SECRET_KEY_FALLBACKS = []
    answers = [client.get("/me/").content.decode() for client in clients]
    assert answers == [f"{users[0].pk} 2", f"{users[1].pk} 1"]


@pytest.mark.not_with("HASH_KEYS=sha256", "it looks for the key itself in the cache")
def test_a_copy_of_before_that_fills_the_cache_after_it_is_forgotten_by_the_next(users, settings):
    settings.SESSION_ENGINE = f"{OURS}cached_db"
    client = log_in(users[0], cart=1)
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = NEW, [OLD]
    late = client.session
    late.load()
    key, copy = late.cache_key, caches["default"].get(late.cache_key)
    run("resign")
    assert caches["default"].get(key) is None
    caches["default"].set(key, copy)
    assert "can now be taken out" in run("resign")
    settings.SECRET_KEY_FALLBACKS = []
    assert client.get("/me/").content.decode() == f"{users[0].pk} 1"


def test_resign_waits_for_the_end_of_a_move(users, settings):
    settings.SECRET_KEY_FALLBACKS = ["an older one"]
    on_the_move(settings, "cache", "db")
    for more in ([], ["--dry-run"], ["--engine", "db"]):
        assert "sessions migrate" in refused("resign", *more)


def test_without_resign_they_would_be_logged_out(users, settings):
    settings.SESSION_ENGINE = f"{OURS}db"
    client = log_in(users[0], cart=1)
    settings.SECRET_KEY = NEW
    assert client.get("/me/").content.decode() == "None None"


@pytest.mark.not_with("HASH_KEYS=sha256", "it looks for the key itself in the store")
def test_resign_on_memcached(users, settings, memcached_three):
    settings.CACHES = {"default": {"BACKEND": MEMCACHED, "LOCATION": memcached_three}}
    settings.SESSION_ENGINE = f"{OURS}cache"
    clients = [log_in(user, cart=1) for user in users]
    changed = clients[0].session
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = NEW, [OLD]
    store = store_of("cache")
    (batch,) = store.scan("", 100)
    record = next(each for each in batch.records if each.name == changed.session_key)
    changed["cart"] = 2
    changed.save()
    assert not store.replace(record, {}, None)
    assert "5 logins among them" in run("resign")
    settings.SECRET_KEY_FALLBACKS = []
    answers = [client.get("/me/").content.decode() for client in clients]
    assert not [answer for answer in answers if answer.startswith("None")], answers
    assert changed.__class__(changed.session_key)["cart"] == 2


@pytest.mark.not_with("HASH_KEYS=sha256", "it looks for the key itself in the store")
def test_resign_leaves_what_it_cannot_read_and_who_changed_the_password(users, settings):
    settings.SESSION_ENGINE = f"{OURS}db"
    clients = [log_in(user, cart=1) for user in users]
    users[0].set_password("y")
    users[0].save()
    users[1].delete()
    unread = Session.objects.get(pk=clients[2].session.session_key)
    Session.objects.filter(pk=unread.pk).update(session_data="not signed")
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = NEW, [OLD]
    said = run("resign")
    assert said.startswith("4 sessions of the table")
    assert "2 logins among them" in said
    assert "1 session left, for they cannot be read" in said
    assert Session.objects.get(pk=unread.pk).session_data == "not signed"
    settings.SECRET_KEY_FALLBACKS = []
    answers = [client.get("/me/").content.decode() for client in clients]
    assert answers[0].startswith("None")
    assert answers[1].startswith("None")
    assert [answer[0] for answer in answers[3:]] == ["4", "5"]


@pytest.mark.parametrize("engine", PLACES)
@pytest.mark.not_with("HASH_KEYS=sha256", "it looks for the key itself in the store")
def test_what_is_saved_or_ended_meanwhile_is_left_so(users, settings, monkeypatch, engine):
    settings.SESSION_ENGINE = OURS + engine
    clients = [log_in(user, cart=1) for user in users]
    keys = [client.session.session_key for client in clients]
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = NEW, [OLD]
    kind = type(store_of(engine))
    replace = kind.replace

    def after_others(self, record, data, raw):
        session = open_store(self.engine, record.name)
        if record.name == keys[0]:
            session["cart"] = "newer"
            session.save()
        if record.name == keys[1]:
            session.delete()
        return replace(self, record, data, raw)

    with monkeypatch.context() as patched:
        patched.setattr(kind, "replace", after_others)
        said = run("resign")
    assert "2 sessions saved or ended meanwhile" in said
    assert "run it again, until it writes none" in said
    assert "can now be taken out" not in said
    assert open_store(store_of(engine).engine, keys[0])["cart"] == "newer"
    assert not store_of(engine).present([keys[1]])


def test_what_nobody_touched_is_the_same_to_the_letter(users, settings):
    store = store_of("db")
    text = store.session.encode(HARD)
    now = timezone.now()
    Session.objects.create(session_key="h" * 32, session_data=text, expire_date=now + HOUR)
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = NEW, [OLD]
    run("resign", "--engine", "db")
    after = Session.objects.get(pk="h" * 32).session_data
    payload = text.partition(":")[0]
    assert after != text
    assert after.partition(":")[0] == payload
    settings.SECRET_KEY_FALLBACKS = []
    assert repr(store_of("db").decode(after)) == repr(HARD)


# ------------------------------------------------------------------------------------------- pages

DOCS = Path(__file__).parents[2] / "docs"
SNIPPETS = [
    (name, code)
    for page in ("cleanup.md", "migrate.md")
    for name, code in re.findall(
        r"<!-- test: (.+?) -->\n```\w+\n(.*?)```", (DOCS / page).read_text("utf-8"), re.DOTALL
    )
]


def test_the_commands_of_the_pages_are_accepted():
    lines = [line for name, code in SNIPPETS if name == "command" for line in code.splitlines()]
    assert len(lines) == 6
    parser = Command().create_parser("manage.py", "sessions")
    for line in lines:
        words = shlex.split(line, comments=True)[2:]
        if words != ["clearsessions"]:
            assert words[0] == "sessions"
            assert parser.parse_args(words[1:]).subcommand in ("prune", "migrate", "resign")


def test_the_options_of_the_page_are_those_of_the_command():
    parser = Command().create_parser("manage.py", "sessions")
    known = vars(parser.parse_args(["prune"]))
    page = (DOCS / "cleanup.md").read_text("utf-8")
    table = page[page.index("| option |") : page.index("The bar, with")]
    options = set(re.findall(r"--([a-z][a-z-]+)", table))
    assert {name.replace("-", "_") for name in options} == {
        *("batch", "sleep", "limit", "older_than", "dry_run", "engine", "database", "path"),
        "no_progress",
    }
    assert {name.replace("-", "_") for name in options} <= known.keys()


def test_the_settings_of_the_pages_are_accepted(settings, sqlite, cache):
    found = {}
    exec(dict(SNIPPETS)["settings"], found)
    settings.SESSION_ENGINE, settings.RUST_SESSIONS = (
        found["SESSION_ENGINE"],
        found["RUST_SESSIONS"],
    )
    assert import_module(settings.SESSION_ENGINE).SessionStore("k" * 32).get("who") is None
    exec(dict(SNIPPETS)["key"], found)
    assert found["SECRET_KEY_FALLBACKS"] == ["the old one"]
