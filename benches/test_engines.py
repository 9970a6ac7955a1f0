"""Operations of the engines on real servers, ours and Django's in turns: both see the same machine.

python -m pytest benches/test_engines.py

A target that is missed is printed as missed, and fails nothing: this machine is not every machine.
"""

import importlib.util
import statistics
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter_ns
from typing import Any, NamedTuple

import psycopg
import pytest
from django.conf import settings
from django.contrib.sessions.backends.cache import SessionStore as DjangoCacheStore
from django.contrib.sessions.backends.db import SessionStore as DjangoStore
from django.test import override_settings
from django.utils import timezone
from django_rust_sessions import caches
from django_rust_sessions.backends.cache import SessionStore as RustCacheStore
from django_rust_sessions.backends.db import SAVE, step_aside
from django_rust_sessions.backends.db import SessionStore as RustStore
from payloads import PAYLOADS

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "python")]

import databases  # noqa: E402
import servers  # noqa: E402

ROUNDS = 41
ROUND_NS = 4_000_000
HAS_HIREDIS = importlib.util.find_spec("hiredis") is not None


class Contender(NamedTuple):
    name: str
    # Makes as many arguments for `run` as it is told. Not timed.
    prepare: Callable[[int], list[Any]]
    run: Callable[[Any], Any]
    # How many times as fast ours should be.
    target: float | None = None
    alias: str = "django"


def timed(contender, number):
    settings.SESSION_CACHE_ALIAS = contender.alias
    arguments, run = contender.prepare(number), contender.run
    start = perf_counter_ns()
    for argument in arguments:
        run(argument)
    return (perf_counter_ns() - start) / number


def quartiles(samples):
    low, middle, high = statistics.quantiles(samples, n=4)
    return f"{middle / 1000:7.1f} ({low / 1000:.1f}-{high / 1000:.1f})"


def compare(title, ours, *others):
    """Lines for the report: ours beside each of the others."""
    contenders = (ours, *others)
    slowest = max(timed(contender, 10) for contender in contenders)
    number = max(3, int(ROUND_NS / slowest))
    samples = [[] for _ in contenders]
    for _ in range(ROUNDS):
        for contender, into in zip(contenders, samples, strict=True):
            into.append(timed(contender, number))
    yield f"{title:36} {ours.name:40} {quartiles(samples[0]):>24}"
    for other, measured in zip(others, samples[1:], strict=True):
        ratios = [one / mine for one, mine in zip(measured, samples[0], strict=True)]
        low, ratio, high = statistics.quantiles(ratios, n=4)
        line = f"{'':36} {other.name:40} {quartiles(measured):>24}"
        line += f"   {ratio:5.2f} times ours ({low:.2f}-{high:.2f})"
        if other.target is not None:
            met = "met" if ratio >= other.target else "MISSED"
            line += f", target {other.target:g}: {met}"
        yield line


# -------------------------------------------------------------------------- what a contender does


def nothing(number):
    return [None] * number


def load(name, store, key, **more):
    return Contender(name, nothing, lambda _: store(key).load(), **more)


def save(name, store, key, **more):
    session = store(key)
    session["visits"] = 0

    def run(visit):
        session["visits"] = visit
        session.save()

    return Contender(name, lambda number: list(range(number)), run, **more)


def create(name, store, _, **more):
    return Contender(name, nothing, lambda _: store().create(), **more)


def delete(name, store, _, **more):
    def prepare(number):
        sessions = [store() for _ in range(number)]
        for session in sessions:
            session.create()
        return sessions

    return Contender(name, prepare, lambda session: session.delete(), **more)


def new_session(store, payload):
    session = store()
    session.update(payload)
    session.create()
    session.update(payload)
    session.save()
    assert dict(store(session.session_key).items()) == payload
    return session.session_key


@contextmanager
def server(name):
    started = servers.Started(name)
    try:
        if missing := started.servers[name].get("missing"):
            pytest.skip(missing)
        yield started.servers[name]
    finally:
        started.stop()


# -------------------------------------------------------------------------------------- databases


def sqlite_settings(path, journal):
    if journal == "no disk":
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    configured = databases.sqlite_file(path / "db.sqlite3")
    if journal == "WAL":
        pragmas = "PRAGMA journal_mode=wal; PRAGMA synchronous=normal"
        configured["OPTIONS"]["init_command"] = pragmas
    return configured


@pytest.mark.parametrize("journal", ["default journal", "WAL", "no disk"])
def test_sqlite(tmp_path, django_db_blocker, report, journal):
    configured = sqlite_settings(tmp_path, journal)
    with django_db_blocker.unblock(), databases.database("default", configured):
        assert step_aside(RustStore(), SAVE) is None
        for name in ("login", "cart"):
            key = new_session(DjangoStore, PAYLOADS[name])
            for operation, target in ((load, 5), (save, 4)):
                rows = compare(
                    f"SQLite, {journal}: {operation.__name__} {name}",
                    operation("ours", RustStore, key),
                    operation("Django's db", DjangoStore, key, target=target),
                )
                for row in rows:
                    report(row)


@pytest.fixture(scope="module")
def postgres():
    with server("postgres") as where:
        yield where


def test_postgresql(postgres, django_db_blocker, report):
    configured = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": postgres["database"],
        "USER": postgres["user"],
        "PASSWORD": postgres["password"],
        "HOST": postgres["host"],
        "PORT": postgres["port"],
    }
    where = {
        "host": postgres["host"],
        "port": postgres["port"],
        "user": postgres["user"],
        "password": postgres["password"],
        "dbname": postgres["database"],
    }
    with (
        django_db_blocker.unblock(),
        databases.database("default", configured),
        psycopg.connect(autocommit=True, cursor_factory=psycopg.ClientCursor, **where) as bare,
    ):
        assert step_aside(RustStore(), SAVE) is None
        for name in ("login", "cart"):
            key = new_session(DjangoStore, PAYLOADS[name])
            for operation, floor, target in ((load, select, 2.4), (save, update, 2)):
                rows = compare(
                    f"PostgreSQL: {operation.__name__} {name}",
                    operation("ours", RustStore, key),
                    operation("Django's db", DjangoStore, key, target=target),
                    floor("psycopg's statement alone: the floor", bare, key),
                )
                for row in rows:
                    report(row)


def select(name, bare, key):
    sql = (
        "SELECT session_data, expire_date FROM django_session"
        " WHERE expire_date > %s AND session_key = %s"
    )
    assert bare.execute(sql, (timezone.now(), key)).fetchone()
    return Contender(name, nothing, lambda _: bare.execute(sql, (timezone.now(), key)).fetchone())


def update(name, bare, key):
    sql = "UPDATE django_session SET session_data = %s, expire_date = %s WHERE session_key = %s"
    data = DjangoStore().encode(DjangoStore(key).load())
    expire_date = DjangoStore().get_expiry_date()
    assert bare.execute(sql, (data, expire_date, key)).rowcount == 1
    return Contender(name, nothing, lambda _: bare.execute(sql, (data, expire_date, key)))


# ------------------------------------------------------------------------------------------ Redis


def test_redis(report):
    pytest.importorskip("django_redis", reason="django-redis is not installed: run `make venv`")
    parser = " with hiredis" if HAS_HIREDIS else " without hiredis"
    with server("redis") as where:
        configured = {
            "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
            "django": {"BACKEND": caches.DJANGO_REDIS_CACHE, "LOCATION": where["url"]},
            "package": {"BACKEND": caches.DJANGO_REDIS_PACKAGE_CACHE, "LOCATION": where["url"]},
        }
        with override_settings(CACHES=configured, SESSION_CACHE_ALIAS="django"):
            assert caches.step_aside("django") is None
            keys = {}
            for name in ("login", "cart"):
                settings.SESSION_CACHE_ALIAS = "django"
                keys[name] = new_session(DjangoCacheStore, PAYLOADS[name])
                settings.SESSION_CACHE_ALIAS = "package"
                keys[name, "package"] = new_session(DjangoCacheStore, PAYLOADS[name])
            rows = [
                *((load, name, 3, 1.6) for name in ("login", "cart")),
                *((save, name, 6, 3) for name in ("login", "cart")),
                (create, "login", None, None),
                (delete, "login", None, None),
            ]
            for operation, name, target, package_target in rows:
                key = keys[name]
                settings.SESSION_CACHE_ALIAS = "django"
                ours = operation("ours", RustCacheStore, key)
                django = operation(
                    f"Django's, RedisCache{parser}", DjangoCacheStore, key, target=target
                )
                settings.SESSION_CACHE_ALIAS = "package"
                package = operation(
                    f"Django's, django-redis{parser}",
                    DjangoCacheStore,
                    keys[name, "package"],
                    target=package_target,
                    alias="package",
                )
                title = f"Redis: {operation.__name__} {name}"
                for row in compare(title, ours, django, package):
                    report(row)
