"""MERGE: requests that change one session at the same time do not undo each other's changes."""

import contextlib
import json
import multiprocessing
import os
import random
import threading
from importlib import import_module

import databases
import hypothesis
import pytest
import redis
from differential import outcome
from django.contrib.sessions.backends.base import SessionBase, UpdateError
from django.contrib.sessions.models import Session
from django.core.cache import InvalidCacheKey, caches
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django_rust_sessions import checks
from django_rust_sessions.backends import merge
from django_rust_sessions.exceptions import SessionConflict

CASES = ["db", "cache-redis", "cached_db-redis", "cached_db-locmem", "file"]
CASES += ["cache-memcached", "cache-memcached_three", "cached_db-memcached"]
HASHED = {"MERGE": True, "HASH_KEYS": "sha256"}
LOCAL = {"MERGE": True, "LOCAL_CACHE": 1_000_000}
is_full = hypothesis.settings().max_examples > 10_000
needs_async = pytest.mark.skipif(
    not hasattr(SessionBase, "aget"), reason="Django's sessions are async since 5.1"
)


@pytest.fixture(params=[{"MERGE": True}, HASHED, LOCAL], ids=["merge", "hashed", "local"])
def options(request):
    return request.param


@pytest.fixture(params=CASES)
def engine(request, options, transactional_db, tmp_path):
    """Our engine of that name, with MERGE on."""
    name, _, where = request.param.partition("-")
    with on(name, options, cache_on(where or "locmem", request), tmp_path) as engine:
        yield engine


def cache_on(store, request):
    """What stands in CACHES."""
    backends = "django.core.cache.backends"
    if store == "locmem":
        return {"BACKEND": f"{backends}.locmem.LocMemCache"}
    server = request.getfixturevalue(f"{store}_server")
    if store == "redis":
        return {"BACKEND": f"{backends}.redis.RedisCache", "LOCATION": server["url"]}
    addresses = [f"{server['host']}:{port}" for port in server.get("ports", [server["port"]])]
    return {"BACKEND": f"{backends}.memcached.PyMemcacheCache", "LOCATION": addresses}


@contextlib.contextmanager
def on(name, options, cache, folder, package="django_rust_sessions"):
    package = "django.contrib.sessions" if package == "django" else package
    with override_settings(
        SESSION_ENGINE=f"{package}.backends.{name}",
        SESSION_FILE_PATH=str(folder),
        CACHES={"default": cache},
        RUST_SESSIONS=options,
    ):
        engine = import_module(f"{package}.backends.{name}").SessionStore
        _forget_path(engine)
        yield engine
        caches["default"].clear()
        caches["default"].close()
        _forget_path(engine)


def _forget_path(engine):
    with contextlib.suppress(AttributeError):
        del engine._storage_path


def make(engine, **values):
    session = engine()
    session.update(values)
    session.save()
    return session.session_key


def two(engine, key):
    """Two requests that have both loaded the session."""
    one, other = engine(key), engine(key)
    one.items(), other.items()
    return one, other


def stored(engine, key):
    return dict(engine(key).items())


# ---------------------------------------------------------------------------------------- what wins


def test_different_keys_both_survive(engine):
    key = make(engine, cart=["tea"], gone=1)
    one, other = two(engine, key)
    one["theme"] = "dark"
    other["lang"] = "de"
    del other["gone"]
    one.save()
    other.save()
    assert stored(engine, key) == {"cart": ["tea"], "theme": "dark", "lang": "de"}
    # And what was merged is here, too: another save must not undo it.
    assert other["theme"] == "dark"
    one["theme"] = "light"
    one.save()
    other.save()
    assert stored(engine, key) == {"cart": ["tea"], "theme": "light", "lang": "de"}


@needs_async
def test_the_same_async(engine, event_loop_runner):
    key = make(engine, cart=["tea"])

    async def both():
        one, other = engine(key), engine(key)
        await one.aset("theme", "dark")
        await other.aset("lang", "de")
        await one.asave()
        await other.asave()
        await one.aset("more", 1)
        await one.asave()

    event_loop_runner(both())
    assert stored(engine, key) == {"cart": ["tea"], "theme": "dark", "lang": "de", "more": 1}


@pytest.fixture
def event_loop_runner():
    from asgiref.sync import async_to_sync

    def run(coroutine):
        async def wait():
            return await coroutine

        return async_to_sync(wait)()

    return run


def test_the_later_one_wins_a_key(engine):
    key = make(engine, cart=["tea"])
    one, other = two(engine, key)
    one["cart"], other["cart"] = ["jam"], ["cup"]
    one.save()
    other.save()
    assert stored(engine, key) == {"cart": ["cup"]}


def test_nested_changes_are_changes(engine):
    key = make(engine, cart={"tea": [1]}, seen=[])
    one, other = two(engine, key)
    one["cart"]["tea"].append(2)
    other["seen"].append(True)
    one.save()
    other.save()
    assert stored(engine, key) == {"cart": {"tea": [1, 2]}, "seen": [True]}


def test_one_and_true_are_not_the_same(engine):
    key = make(engine, flag=1)
    one, other = two(engine, key)
    one["flag"], other["x"] = True, 1
    other.save()
    one.save()
    assert stored(engine, key)["flag"] is True


VALUES = {
    "numbers as keys": ({7: 1}, {7: 2}),
    "a tuple": ((1, 2), (3, 4)),
    "emptied": ({7: 1}, {}),
}


@pytest.mark.parametrize("name", VALUES)
def test_what_comes_back_otherwise_is_no_change(engine, name):
    """JSON makes lists of tuples, and text of keys; the cache of cached_db does not."""
    before, after = VALUES[name]
    key = make(engine, cart=before)
    one, other = two(engine, key)
    other["cart"] = after
    other.save()
    one["lang"] = "de"
    one.save()
    found = json.loads(json.dumps(stored(engine, key)))
    assert found == json.loads(json.dumps({"cart": after, "lang": "de"}))


@pytest.mark.parametrize("engine", ["cache-redis", "cache-memcached"], indirect=True)
def test_a_set_in_another_order_is_no_change(engine):
    numbers = random.Random(1)
    for _ in range(50):
        viewed = {numbers.randrange(1000) for _ in range(20)}
        key = make(engine, viewed=viewed)
        one, other = two(engine, key)
        one["theme"] = "dark"
        one.save()
        other["viewed"] = other["viewed"] | {1000}
        other.save()
        one["lang"] = "de"
        one.save()
        assert stored(engine, key)["viewed"] == viewed | {1000}


def test_what_others_saved_comes_along_to_the_new_key(engine):
    key = make(engine, cart=["tea"], gone=1)
    one, other = two(engine, key)
    other["cart"] = ["tea", "jam"]
    del other["gone"]
    other.save()
    one["theme"] = "dark"
    one.cycle_key()
    one["_auth_user_id"] = "1"
    one.save()
    found = {"cart": ["tea", "jam"], "theme": "dark", "_auth_user_id": "1"}
    assert stored(engine, one.session_key) == found
    assert (one.session_key != key, stored(engine, key)) == (True, {})


@needs_async
def test_what_others_saved_comes_along_to_the_new_key_async(engine, event_loop_runner):
    key = make(engine, cart=["tea"])
    one, other = two(engine, key)
    other["cart"] = ["tea", "jam"]
    other.save()
    event_loop_runner(one.acycle_key())
    assert stored(engine, one.session_key) == {"cart": ["tea", "jam"]}


def test_what_was_loaded_and_not_looked_at_gets_a_new_key(engine):
    key = make(engine, cart=["tea"])
    session = engine(key)
    session.load()
    session.cycle_key()
    assert stored(engine, session.session_key) == {"cart": ["tea"]}


def test_after_a_logout_there_is_nothing_to_take_along(engine):
    key = make(engine, cart=["tea"])
    session = engine(key)
    session.items()
    session.flush()
    saved = []
    session.save = lambda must_create=False: saved.append(type(session).save(session, must_create))
    session.cycle_key()
    assert (len(saved), stored(engine, session.session_key)) == (1, {})


class ToReplica:
    def db_for_read(self, model, **hints):
        return "replica"

    def db_for_write(self, model, **hints):
        return "default"


@pytest.mark.parametrize("name", ["db", "cached_db"])
def test_a_new_key_does_not_go_back_to_what_a_replica_has(
    name, request, tmp_path, django_db_blocker
):
    """What this request has saved itself is not undone because the replica has not heard of it."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(django_db_blocker.unblock())
        for alias in ("default", "replica"):
            at = databases.sqlite_file(tmp_path / alias)
            stack.enter_context(databases.database(alias, at))
        cache = cache_on("locmem", request)
        engine = stack.enter_context(on(name, {"MERGE": True}, cache, tmp_path))
        stack.enter_context(override_settings(DATABASE_ROUTERS=[ToReplica()]))
        key = make(engine, cart=["tea"])
        Session.objects.using("replica").bulk_create(Session.objects.using("default").all())
        session = engine(key)
        session["cart"] = ["tea", "jam"]
        session.save()
        session.cycle_key()
        row = Session.objects.using("default").get(session_key=session.session_key)
        assert row.get_decoded() == {"cart": ["tea", "jam"]}


def test_who_was_logged_out_meanwhile_has_a_new_key_all_the_same(engine):
    key = make(engine, cart=["tea"])
    one, other = two(engine, key)
    other.flush()
    one.cycle_key()
    assert stored(engine, one.session_key) == {"cart": ["tea"]}
    assert stored(engine, key) == {}


def test_the_expiry_is_a_key_like_others(engine):
    key = make(engine, cart=["tea"])
    one, other = two(engine, key)
    one.set_expiry(1000)
    other["lang"] = "de"
    one.save()
    other.save()
    session = engine(key)
    assert session["lang"] == "de"
    assert session.get_expiry_age() == 1000
    if "db" in engine.__module__:
        left = engine.get_model_class().objects.get(session_key=session.stored_name).expire_date
        assert abs((left - session.get_expiry_date()).total_seconds()) < 60


def test_a_logout_wins(engine):
    key = make(engine, _auth_user_id="1")
    one, other = two(engine, key)
    one.flush()
    other["cart"] = ["secret"]
    with pytest.raises(UpdateError):
        other.save()
    assert not engine().exists(key)
    assert stored(engine, key) == {}


def test_a_logout_by_clear_wins(engine):
    key = make(engine, _auth_user_id="1")
    one, other = two(engine, key)
    one.clear()
    other["cart"] = ["secret"]
    one.save()
    with pytest.raises(UpdateError):
        other.save()
    assert stored(engine, key) == {}


def test_a_logout_by_clear_keeps_nothing_of_the_user(engine):
    key = make(engine, _auth_user_id="1")
    one, other = two(engine, key)
    one.clear()
    other["cart"] = ["secret"]
    other.save()
    one.save()
    assert stored(engine, key) == {}


def test_clear_removes_what_was_loaded(engine):
    key = make(engine, cart=["tea"], lang="de")
    one, other = two(engine, key)
    one.clear()
    other["new"] = 1
    other.save()
    one.save()
    assert stored(engine, key) == {"new": 1}


def test_a_login_does_not_mix_sessions(engine):
    key = make(engine, cart=["tea"])
    one, other = two(engine, key)
    one.cycle_key()
    one["_auth_user_id"] = "1"
    one.save()
    other["lang"] = "de"
    with pytest.raises(UpdateError):
        other.save()
    assert stored(engine, one.session_key) == {"cart": ["tea"], "_auth_user_id": "1"}
    # Another user in the same browser: nothing of the first.
    one.flush()
    one["_auth_user_id"] = "2"
    one.save()
    assert stored(engine, one.session_key) == {"_auth_user_id": "2"}


def test_a_session_that_was_not_loaded_is_loaded_to_be_saved(engine):
    key = make(engine, cart=["tea"])
    engine(key).save()
    assert stored(engine, key) == {"cart": ["tea"]}
    with pytest.raises(UpdateError):
        engine("a" * 32).save()


def test_an_error_of_the_cache_is_no_lost_session(own_redis, request, tmp_path):
    cache = {**cache_on("redis", request), "LOCATION": own_redis.url}
    with on("cache", {"MERGE": True}, cache, tmp_path) as engine:
        key = make(engine, cart=["tea"])
        own_redis.kill()
        with pytest.raises(redis.ConnectionError):
            engine(key).save()
        own_redis.start()
    with on("cache", {"MERGE": True}, cache_on("memcached", request), tmp_path) as engine:
        session = engine("z" * 300)
        with pytest.raises(InvalidCacheKey):
            session.save()
        assert (session.session_key, session.accessed) == ("z" * 300, False)


# ------------------------------------------------------------------------------------ at what cost


@pytest.mark.parametrize("options", [{"MERGE": True}], ids=["merge"], indirect=True)
@pytest.mark.parametrize("engine", ["db", "cached_db-redis", "cached_db-memcached"], indirect=True)
def test_no_statement_more_without_a_conflict(engine, options):
    caches["default"].clear()
    key = make(engine, cart=["tea"])
    caches["default"].clear()  # from the table, so that it is known
    one, other = two(engine, key)
    if "cached" in engine.__module__:
        caches["default"].clear()
        other = engine(key)
    one["a"], other["b"] = 1, 2
    with CaptureQueriesContext(
        connection,
    ) as first:
        one.save()
    with CaptureQueriesContext(connection) as second:
        other.save()
    assert [len(first), len(second)] == [1, 3]


@pytest.mark.parametrize("options", [{"MERGE": True}], ids=["merge"], indirect=True)
@pytest.mark.parametrize("engine", ["cache-redis"], indirect=True)
def test_one_round_trip_to_redis_and_one_more_after_a_conflict(engine, options, monkeypatch):
    one, other = two(engine, make(engine, cart=["tea"]))
    asked = []
    server = one._native.write
    call = server.call
    monkeypatch.setattr(server, "call", lambda *words: asked.append(words) or call(*words))
    one["a"], other["b"] = 1, 2
    one.save()
    assert len(asked) == 1
    other.save()
    assert len(asked) == 3


class Memcached:
    """What memcached has been asked since the last look, in its own words."""

    NAMES = ("cmd_get", "cmd_set", "cas_hits", "cas_badval", "cas_misses")

    def __init__(self):
        self.before = self.read()

    def read(self):
        (stats,) = caches["default"]._cache.clients.values()
        found = stats.stats()
        return {name: found[name.encode()] for name in self.NAMES}

    def asked(self):
        now = self.read()
        more = {name: now[name] - self.before[name] for name in self.NAMES}
        self.before = now
        return {name: number for name, number in more.items() if number}


@pytest.mark.parametrize("options", [{"MERGE": True}], ids=["merge"], indirect=True)
@pytest.mark.parametrize("engine", ["cache-memcached"], indirect=True)
def test_one_round_trip_to_memcached_and_two_more_after_a_conflict(engine, options):
    key = make(engine, cart=["tea"])
    memcached = Memcached()
    one, other = two(engine, key)
    assert memcached.asked() == {"cmd_get": 2}
    one["a"], other["b"] = 1, 2
    one.save()
    # memcached counts a cas as a set, too.
    assert memcached.asked() == {"cmd_set": 1, "cas_hits": 1}
    other.save()
    assert memcached.asked() == {"cmd_get": 1, "cmd_set": 2, "cas_badval": 1, "cas_hits": 1}
    # What number the last save got is not said.
    other["c"] = 3
    other.save()
    assert memcached.asked() == {"cmd_get": 1, "cmd_set": 1, "cas_hits": 1}
    one.flush()
    memcached.asked()
    with pytest.raises(UpdateError):
        other.save()
    assert memcached.asked() == {"cmd_get": 1}


@pytest.mark.parametrize("options", [{"MERGE": True}], ids=["merge"], indirect=True)
@pytest.mark.parametrize("engine", ["cache-memcached"], indirect=True)
def test_the_life_in_memcached_is_set_with_the_value(engine, options):
    key = make(engine, cart=["tea"])
    session = engine(key)
    session.set_expiry(3600)
    session.save()
    client = caches["default"]._cache
    name = caches["default"].make_key(session.cache_key)
    (server,) = client.clients.values()
    life = server.raw_command(f"mg {name} t").split()[1]
    assert 3590 < int(life[1:]) <= 3600
    session.set_expiry(-1)
    session.save()
    assert client.get(name) is None


@pytest.mark.parametrize("options", [{"MERGE": True}], ids=["merge"], indirect=True)
@pytest.mark.parametrize("engine", ["cache-memcached_three"], indirect=True)
def test_sessions_are_on_each_of_three_memcached(engine, options):
    keys = [make(engine, n=n) for n in range(30)]
    for key in keys:
        one, other = two(engine, key)
        one["a"], other["b"] = 1, 2
        one.save()
        other.save()
    clients = caches["default"]._cache.clients.values()
    assert len(clients) == 3
    assert all(client.stats()[b"cas_hits"] and client.stats()[b"cas_badval"] for client in clients)
    assert [stored(engine, key) for key in keys] == [{"n": n, "a": 1, "b": 2} for n in range(30)]


@pytest.mark.parametrize("ignored", [False, True], ids=["raised", "ignored"])
def test_memcached_refuses_what_is_too_large(ignored, request, tmp_path):
    cache = {**cache_on("memcached", request), "OPTIONS": {"ignore_exc": ignored}}
    with on("cache", {"MERGE": True}, cache, tmp_path) as engine:
        key = make(engine, cart=["tea"])
        session = engine(key)
        session["large"] = "x" * 2_000_000
        with pytest.raises(Exception, match=r"too large|larger than its limit"):
            session.save()
        assert stored(engine, key) == {"cart": ["tea"]}


def test_memcached_without_numbers_is_refused(memcached_nocas_server, request, tmp_path):
    with on("cache", {"MERGE": True}, cache_on("memcached_nocas", request), tmp_path) as engine:
        session = engine(make(engine, cart=["tea"]))
        session["lang"] = "de"
        with pytest.raises(ImproperlyConfigured, match="--disable-cas"):
            session.save()


@pytest.mark.parametrize("options", [{"MERGE": True}], ids=["merge"], indirect=True)
@pytest.mark.parametrize("engine", [each for each in CASES if "cached_db" in each], indirect=True)
def test_the_cache_does_not_stay_older_than_the_table(engine, options):
    key = make(engine, n=0)
    one, other = two(engine, key)
    one["a"] = 1
    one.save()
    assert stored(engine, key) == {"n": 0, "a": 1}
    other["b"] = 2
    other.save()
    assert stored(engine, key) == {"n": 0, "a": 1, "b": 2}
    with transaction.atomic():
        one["c"] = 3
        one.save()
        assert stored(engine, key)["c"] == 3
    assert stored(engine, key) == {"n": 0, "a": 1, "b": 2, "c": 3}


def test_a_cache_that_fails_after_the_commit_keeps_nothing_from_others(
    own_redis, request, tmp_path, transactional_db
):
    cache = {**cache_on("redis", request), "LOCATION": own_redis.url}
    with on("cached_db", {"MERGE": True}, cache, tmp_path) as engine:
        key = make(engine, n=0)
        session, told = engine(key), []
        session["n"] = 1
        own_redis.kill()

        def request_of_the_site():
            with transaction.atomic():
                session.save()
                transaction.on_commit(lambda: told.append(True))

        found = outcome(request_of_the_site)
        assert found.error is None
        assert told == [True]
        assert any("Error saving to cache" in text for _, _, text in found.logs)
        own_redis.start()
        assert stored(engine, key) == {"n": 1}


@pytest.mark.parametrize("options", [{"MERGE": True}], ids=["merge"], indirect=True)
@pytest.mark.parametrize("engine", ["db", "cache-redis", "cache-memcached"], indirect=True)
def test_who_never_gets_to_write_hears_of_it(engine, options, monkeypatch):
    key = make(engine, n=0)
    session = engine(key)
    session["mine"] = 1
    quick = engine(key)
    quick["n"] = -1
    quick.save()
    rebase = merge.rebase

    def rebase_too_late(*args):
        rebase(*args)
        quick = engine(key)
        quick["n"] += 1
        quick.save()

    monkeypatch.setattr(merge, "TRIES", 5)
    monkeypatch.setattr(merge, "rebase", rebase_too_late)
    with pytest.raises(SessionConflict, match="5 times"):
        session.save()


# ------------------------------------------------------------------------------------- many at once


def count(engine, key, name, times):
    for _ in range(times):
        session = engine(key)
        session[name] = session.get(name, 0) + 1
        session.save()


def lost(engine, processes, times):
    """How many increments are lost, if each process has a key of its own in one session."""
    key = make(engine, begun=True)
    names = [f"n{each}" for each in range(processes)]
    # A connection to the database is one process's, and so is one to memcached.
    BaseDatabaseWrapper.close(connection)
    caches["default"].close()
    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=count, args=(engine, key, name, times)) for name in names]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * processes
    found = stored(engine, key)
    return processes * times - sum(found.get(name, 0) for name in names)


COUNTED = [
    ("cache", "redis"),
    ("cache", "memcached"),
    ("cache", "memcached_three"),
    ("db", "postgresql"),
    ("db", "sqlite-file"),
    ("cached_db", "postgresql"),
    ("file", "folder"),
]


@pytest.mark.parametrize("case", COUNTED, ids="-".join)
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_no_increment_is_lost(case, request, tmp_path, django_db_blocker):
    name, store = case
    many = is_full and store in ("redis", "memcached", "postgresql")
    processes, times = (16, 10_000) if many else (6, 100)
    kind = store if store in databases.KINDS else "sqlite-file"
    cache = cache_on(store if name == "cache" else "redis", request)
    settings = databases.settings_of(kind, request)
    with django_db_blocker.unblock(), databases.database("default", settings):
        with on(name, {"MERGE": True}, cache, tmp_path) as ours:
            assert lost(ours, processes, times) == 0
        if store == "sqlite-file":
            return  # there Django's hardly loses any: its requests wait for the file
        with on(name, {}, cache, tmp_path, "django") as djangos:
            of_django = lost(djangos, processes, times)
    print(f"{name} on {store}: Django's lost {of_django} of {processes * times}")
    assert of_django > 0


def save_while_another_does(engine, key):
    """Between this thread's load and its save another thread saves."""

    def other():
        session = engine(key)
        session["theme"] = "dark"
        session.save()
        connection.close()

    session = engine(key)
    session["lang"] = "de"
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    session.save()


@pytest.mark.parametrize("store", ["postgresql", "mariadb"])
def test_in_transactions_too(store, request, tmp_path, django_db_blocker):
    """Where a plain SELECT shows what the transaction saw at first."""
    settings = databases.settings_of(store, request)
    with (
        django_db_blocker.unblock(),
        databases.database("default", settings),
        on("db", {"MERGE": True}, cache_on("locmem", request), tmp_path) as engine,
    ):
        key = make(engine, cart=["tea"])
        with transaction.atomic():
            save_while_another_does(engine, key)
        assert stored(engine, key) == {"cart": ["tea"], "theme": "dark", "lang": "de"}


def test_without_autocommit_too(request, tmp_path, django_db_blocker):
    """MySQL shows such a thread for ever what was there when its transaction began."""
    settings = databases.settings_of("mariadb", request)
    settings["OPTIONS"]["isolation_level"] = "repeatable read"
    with (
        django_db_blocker.unblock(),
        databases.database("default", settings),
        on("db", {"MERGE": True}, cache_on("locmem", request), tmp_path) as engine,
    ):
        key = make(engine, cart=["tea"])
        transaction.set_autocommit(False)
        try:
            save_while_another_does(engine, key)
            transaction.commit()
        finally:
            transaction.rollback()
            transaction.set_autocommit(True)
        assert stored(engine, key) == {"cart": ["tea"], "theme": "dark", "lang": "de"}


# ----------------------------------------------------------------------------------- other options


@pytest.mark.parametrize("store", ["redis", "memcached"])
@pytest.mark.not_with("HASH_KEYS=sha256", "it begins without")
def test_from_the_fallback_engine(store, request, tmp_path, transactional_db):
    old = import_module("django_rust_sessions.backends.db").SessionStore
    key = make(old, cart=["tea"])
    options = {"MERGE": True, "FALLBACK_ENGINE": "django_rust_sessions.backends.db"}
    with on("cache", options, cache_on(store, request), tmp_path) as engine:
        one, other = two(engine, key)
        one["a"], other["b"] = 1, 2
        one.save()
        other.save()
        assert stored(engine, key) == {"cart": ["tea"], "a": 1, "b": 2}


@pytest.mark.not_with("HASH_KEYS=sha256", "it begins without")
def test_a_new_key_where_it_does_nothing(request, tmp_path, transactional_db):
    old = import_module("django_rust_sessions.backends.db").SessionStore
    key = make(old, cart=["tea"])
    options = {"MERGE": True, "FALLBACK_ENGINE": "django_rust_sessions.backends.db"}
    with on("cache", options, cache_on("locmem", request), tmp_path) as engine:
        session = engine(key)
        session["a"] = 1
        session.cycle_key()
        assert stored(engine, session.session_key) == {"cart": ["tea"], "a": 1}
        assert stored(engine, key) == {}


def test_the_check_says_where_it_does_nothing(request, tmp_path):
    locmem = cache_on("locmem", request)
    for store in ("redis", "memcached"):
        with on("cache", {"MERGE": True}, cache_on(store, request), tmp_path):
            assert checks.check_merge() == []
    for name in ("cache", "signed_cookies"):
        with on(name, {"MERGE": True}, locmem, tmp_path):
            (message,) = checks.check_merge()
            assert message.id == "django_rust_sessions.W011"
    with on("cache", {}, locmem, tmp_path):
        assert checks.check_merge() == []


def test_with_memcached_the_checks_name_what_is_native(request, tmp_path):
    """Nothing more than without the option, and LOCAL_CACHE does nothing there."""
    cache = cache_on("memcached", request)
    for options in ({}, {"MERGE": True}):
        with on("cache", options, cache, tmp_path):
            (message,) = checks.check_engine()
            assert "PyMemcacheCache is not one of the Redis caches" in message.msg
    with on("cache", {"MERGE": True, "LOCAL_CACHE": 1_000_000}, cache, tmp_path):
        assert any("'LOCAL_CACHE'] keeps nothing" in each.msg for each in checks.check_engine())


@pytest.mark.parametrize("case", ["db-locmem", "cache-memcached"])
def test_without_it_nothing_is_remembered(case, request, tmp_path, transactional_db):
    assert not os.listdir(tmp_path)
    name, _, store = case.partition("-")
    with on(name, {}, cache_on(store, request), tmp_path) as engine:
        session = engine(make(engine, cart=["tea"]))
        session["cart"].append("jam")
        session.save()
        assert not hasattr(session, "_base")
