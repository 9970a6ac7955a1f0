"""HASH_KEYS: the store never sees a session's key, nobody is logged out by switching it on and
off, and what a thief finds in a store lets nobody in."""

import asyncio
import contextlib
import threading
from importlib import import_module
from pathlib import Path

import databases
import pytest
from asgiref.sync import async_to_sync
from django.contrib.sessions.backends.base import SessionBase, UpdateError
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.http import HttpResponse
from django.test import RequestFactory, override_settings
from django_rust_sessions import checks
from django_rust_sessions.backends.keys import is_stored_name

ENGINES = ["db", "cache", "cached_db", "file"]
STORES = {
    "db": ["sqlite"],
    "cache": ["redis", "memcached", "locmem"],
    "cached_db": ["redis", "locmem"],
    "file": ["folder"],
}
CASES = [(engine, store) for engine in ENGINES for store in STORES[engine]]
ON, BACK = {"HASH_KEYS": "sha256"}, {"HASH_KEYS": "plain"}
needs_async = pytest.mark.skipif(
    not hasattr(SessionBase, "aget"), reason="Django's sessions are async since 5.1"
)


@pytest.fixture(params=CASES, ids="-".join)
def engine(request, transactional_db, tmp_path):
    """Our engine of that name, over that store."""
    name, store = request.param
    cache = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
    if store == "redis":
        url = request.getfixturevalue("redis_server")["url"]
        cache = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": url}
    elif store == "memcached":
        where = request.getfixturevalue("memcached_server")
        cache = {
            "BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache",
            "LOCATION": f"{where['host']}:{where['port']}",
        }
    with override_settings(
        SESSION_ENGINE=f"django_rust_sessions.backends.{name}",
        SESSION_FILE_PATH=str(tmp_path),
        CACHES={"default": cache},
    ):
        engine = import_module(f"django_rust_sessions.backends.{name}").SessionStore
        engine.kind = store
        for attribute in ("_storage_path",):
            with contextlib.suppress(AttributeError):
                delattr(engine, attribute)
        # Another test's session, under its key, would be a thief's.
        caches["default"].clear()
        yield engine
        caches["default"].clear()
        with contextlib.suppress(AttributeError):
            del engine._storage_path


def hashed(**options):
    return override_settings(RUST_SESSIONS=options)


def make(engine, **values):
    session = engine()
    session.update(values)
    session.save()
    session.modified = True
    session.save()
    return session.session_key


def contents(engine) -> str:
    """All that a thief of the store would read: names and values."""
    found = []
    if "db" in engine.__module__:
        with connection.cursor() as cursor:
            cursor.execute("SELECT session_key, session_data FROM django_session")
            found += [str(each) for row in cursor.fetchall() for each in row]
    if engine.kind == "redis":
        client = caches["default"]._cache.get_client(None)
        for key in client.scan_iter():
            found += [key.decode(), repr(client.get(key))]
    elif engine.kind == "locmem":
        cache = caches["default"]._cache
        found += [str(each) for item in cache.items() for each in item]
    elif engine.kind == "folder":
        for path in Path(engine._get_storage_path()).iterdir():
            found += [path.name, path.read_text()]
    return "\n".join(found)


def run(method, *args):
    """A session's method; its async twin if one is asked for by name."""
    return async_to_sync(method)(*args) if asyncio.iscoroutinefunction(method) else method(*args)


# ------------------------------------------------------------------------------ what the store sees


# As middlewares, logins, and both in async views make one.
WAYS = ["save", "create", "cycle_key"]
WAYS += ["asave", "acreate", "acycle_key"] if hasattr(SessionBase, "aget") else []


@pytest.mark.parametrize("way", WAYS)
def test_a_new_session_is_under_its_hash_alone(engine, way):
    with hashed(**ON):
        session = engine()
        session["cart"] = ["tea"]
        run(getattr(session, way))
        if way in ("create", "acreate"):
            session.save()
        key = session.session_key
        assert engine(key)["cart"] == ["tea"]
        if engine.kind != "memcached":
            assert key not in contents(engine)
        # Nothing else is left of it that would let its browser in.
        engine.from_stored_name(session.stored_name).delete()
        assert engine(key).load() == {}
        with hashed(HASH_KEYS=None):
            assert engine(key).load() == {}


class Strict:
    """A project's engine that looks at keys more closely than Django's."""

    def _validate_session_key(self, key):
        return super()._validate_session_key(key) and key.isalnum()


def test_a_class_that_is_strict_about_keys(engine):
    with hashed(**ON):
        strict = type("SessionStore", (Strict, engine), {"kind": engine.kind})
        key = make(strict, cart=["tea"])
        assert strict(key)["cart"] == engine(key)["cart"] == ["tea"]
        assert strict("not a key!").session_key is None
        session = strict.from_stored_name(strict(key).stored_name)
        session.delete()
        assert strict(key).load() == {}


def test_the_store_never_sees_the_key(engine):
    with hashed(**ON):
        key = make(engine, cart=["tea"])
        session = engine(key)
        assert session["cart"] == ["tea"]
        assert session.session_key == key
        assert is_stored_name(session.stored_name)
        assert len(session.stored_name) <= 40
        session["cart"] = ["jam"]
        session.save()
        assert engine(key)["cart"] == ["jam"]
        assert engine().exists(key)
        if engine.kind != "memcached":  # which cannot be listed
            stored = contents(engine)
            assert key not in stored
            assert engine(key).stored_name in stored
        engine(key).delete()
        assert not engine().exists(key)
        assert engine(key).load() == {}


@needs_async
def test_the_same_async(engine):
    async def live():
        session = engine()
        await session.aset("cart", ["tea"])
        await session.asave()
        key = session.session_key
        again = engine(key)
        assert await again.aget("cart") == ["tea"]
        assert again.session_key == key
        await again.aset("cart", ["jam"])
        await again.asave()
        assert await engine(key).aget("cart") == ["jam"]
        assert await engine().aexists(key)
        await again.acycle_key()
        assert again.session_key != key
        assert not await engine().aexists(key)
        assert await engine(again.session_key).aget("cart") == ["jam"]
        kept = again.session_key
        await again.aflush()
        assert again.session_key is None
        assert not await engine().aexists(kept)

    with hashed(**ON):
        async_to_sync(live)()


@needs_async
def test_tasks_that_share_a_session_read_it_once_more_at_most(engine):
    async def live():
        key = session.session_key
        shared = engine(key)
        values = await asyncio.gather(*(shared.aget("cart") for _ in range(8)))
        assert values == [["tea"]] * 8
        assert shared.session_key == key

    with hashed(**ON):
        session = engine(make(engine, cart=["tea"]))
        async_to_sync(live)()


def test_cycle_key_and_flush(engine):
    with hashed(**ON):
        session = engine(make(engine, cart=["tea"]))
        before = session.session_key
        session.cycle_key()
        assert session.session_key != before
        assert not engine().exists(before)
        session.save()
        assert engine(session.session_key)["cart"] == ["tea"]
        after = session.session_key
        session.flush()
        assert session.session_key is None
        assert not engine().exists(after)


def test_a_session_that_is_over_is_over(engine):
    with hashed(**ON):
        key = make(engine, cart=["tea"])
        session = engine(key)
        session.set_expiry(-1)
        with contextlib.suppress(UpdateError):
            session.save()
        assert "cart" not in engine(key).load()


def test_clear_expired_leaves_the_live_ones(engine):
    with hashed(**ON):
        key = make(engine, cart=["tea"])
        engine.clear_expired()
        assert engine(key)["cart"] == ["tea"]


# -------------------------------------------------------------------------------- nobody logged out


@pytest.mark.parametrize(("one", "other"), [({}, ON), (ON, BACK)], ids=["on", "off again"])
def test_live_sessions_move_at_their_next_save(engine, one, other):
    with hashed(**one):
        key = make(engine, cart=["tea"])
        name = engine(key).stored_name
    with hashed(**other):
        session = engine(key)
        assert session["cart"] == ["tea"]
        assert session.session_key == key
        if engine.kind != "memcached":
            assert name in contents(engine)  # it was only read
        session["cart"] = ["jam"]
        session.save()
        if engine.kind != "memcached":
            stored = contents(engine)
            assert session.stored_name in stored
            assert not any(line.endswith(name) for line in stored.split("\n"))
        assert engine(key)["cart"] == ["jam"]
        # Again, now where it is.
        session["cart"] = ["tea"]
        session.save()
        assert engine(key)["cart"] == ["tea"]


@needs_async
def test_live_sessions_move_async(engine):
    key = make(engine, cart=["tea"])

    async def save():
        session = engine(key)
        assert await session.aget("cart") == ["tea"]
        await session.aset("cart", ["jam"])
        await session.asave()

    with hashed(**ON):
        async_to_sync(save)()
        if engine.kind != "memcached":
            assert key not in contents(engine)
        assert engine(key)["cart"] == ["jam"]


def test_a_logout_ends_what_has_not_moved_yet(engine):
    key = make(engine, cart=["tea"])
    with hashed(**ON):
        late = engine(key)
        late["cart"] = ["jam"]
        engine(key).delete()
        with pytest.raises(UpdateError):
            late.save()
        assert not engine().exists(key)
    assert engine(key).load() == {}


def test_a_logout_ends_what_has_moved_meanwhile(engine):
    key = make(engine, cart=["tea"])
    with hashed(**ON):
        late, other = engine(key), engine(key)
        late["cart"], other["cart"] = ["jam"], ["cup"]
        other.save()
        engine(key).delete()
        with pytest.raises(UpdateError):
            late.save()
        assert not engine().exists(key)


def test_two_requests_move_one_session(engine):
    key = make(engine, cart=["tea"])
    with hashed(**ON):
        one, other = engine(key), engine(key)
        one["cart"], other["cart"] = ["jam"], ["cup"]
        one.save()
        other.save()
        assert engine(key)["cart"] == ["cup"]


@pytest.mark.not_with("HASH_KEYS=sha256", "it begins without")
def test_both_names_stored_is_no_trouble(engine):
    """As when a process ends in the middle of a move, or Django's engine wrote meanwhile."""
    with hashed(**ON):
        key = make(engine, cart=["new"])
    # The same key without hashing: an older copy.
    plain = engine(key)
    with contextlib.suppress(UpdateError):
        plain["cart"] = ["old"]
        plain.save(must_create=True)
    with hashed(**ON):
        session = engine(key)
        assert session["cart"] == ["new"]
        session.save()
        session.delete()
        assert not engine().exists(key)


@pytest.mark.parametrize("database", ["sqlite-file", "postgresql", "mariadb"])
def test_a_logout_wins_while_many_move(database, request, django_db_blocker):
    """Threads save a session that has not moved yet, and one of them logs out."""
    from django_rust_sessions.backends.db import SessionStore

    def save(key, start):
        try:
            session = SessionStore(key)
            session["by"] = "somebody"
            start.wait()
            with contextlib.suppress(UpdateError):
                session.save()
        finally:
            connection.close()

    def log_out(key, start):
        try:
            start.wait()
            SessionStore(key).delete()
        finally:
            connection.close()

    settings = databases.settings_of(database, request)
    with django_db_blocker.unblock(), databases.database("default", settings):
        for _ in range(20):
            session = SessionStore()
            session["cart"] = ["tea"]
            session.create()
            session.save()
            key = session.session_key
            with hashed(**ON):
                start = threading.Barrier(4)
                tasks = [save, save, save, log_out]
                threads = [threading.Thread(target=task, args=(key, start)) for task in tasks]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                assert not SessionStore().exists(key)


# ------------------------------------------------------------------------------------------ thieves


def request_with(cookie):
    """The session that a request with that cookie gets, as a view sees it."""
    # As bytes come from a server.
    header = f"sessionid={cookie}".encode().decode("iso-8859-1")
    request = RequestFactory().get("/", headers={"cookie": header})
    seen = {}

    def view(request):
        seen.update(request.session.items())
        return HttpResponse()

    SessionMiddleware(view)(request)
    return seen


def in_other_letters(name):
    """What MySQL takes for the same."""
    return [
        *(
            name.upper(),
            name.capitalize(),
            name.replace("s", "\u015b"),
            name.replace("$", "\uff04"),
        ),
        *(name.replace("6", "\u0666"), "\x01" + name, name + " "),
    ]


@pytest.fixture
def mariadb(request, django_db_blocker, tmp_path):
    settings = databases.settings_of("mariadb", request)
    with django_db_blocker.unblock(), databases.database("default", settings):
        yield


@pytest.mark.parametrize("mode", [ON, BACK], ids=["on", "plain"])
@pytest.mark.parametrize("name", ["db", "cached_db"])
def test_nor_in_letters_that_mariadb_takes_for_the_same(mariadb, name, mode):
    engine = import_module(f"django_rust_sessions.backends.{name}").SessionStore
    with override_settings(SESSION_ENGINE=engine.__module__):
        with hashed(**ON):
            key = make(engine, secret="treasure")
            assert request_with(key) == {"secret": "treasure"}
            stored = engine(key).stored_name
        found = 0
        with connection.cursor() as cursor, hashed(**mode):
            for word in in_other_letters(stored):
                cursor.execute("SELECT 1 FROM django_session WHERE session_key = %s", [word])
                found += cursor.fetchone() is not None
                assert request_with(word) == {}, word
        assert found > 2  # MariaDB does take some of them for it
        with hashed(**ON):
            assert request_with(key) == {"secret": "treasure"}


def test_keys_that_django_does_not_make(engine):
    for key in ("with-a-$-in-it", "é" * 8):

        class SessionStore(engine):
            __qualname__ = "SessionStore"  # which is part of the salt

            def _get_new_session_key(self, key=key):
                return key

        with hashed(**ON):
            session = SessionStore()
            session["cart"] = ["tea"]
            session.save()
            assert session.session_key == key
            session["cart"] = ["jam"]
            session.save()
            assert engine(key)["cart"] == ["jam"]
        with hashed(**BACK):
            assert engine(key)["cart"] == ["jam"]
            engine(key).delete()
            with pytest.raises(UpdateError):
                session.save()


LISTED = [case for case in CASES if "memcached" not in case]  # which cannot be listed


@pytest.mark.parametrize("engine", LISTED, ids="-".join, indirect=True)
@pytest.mark.parametrize("mode", [{}, ON, BACK], ids=["off", "on", "plain"])
def test_what_a_thief_finds_lets_nobody_in(engine, mode):
    with hashed(**ON):
        key = make(engine, secret="treasure")
        assert request_with(key) == {"secret": "treasure"}
        stored = contents(engine)
    prefixes = (
        ":1:django.contrib.sessions.cache",
        ":1:django.contrib.sessions.cached_db",
        "sessionid",
    )
    loot = set(stored.split())
    loot |= {word.removeprefix(prefix) for word in loot for prefix in prefixes}
    loot |= {word.replace("$", "") for word in loot}
    loot |= {word.removeprefix("sha256").removeprefix("$") for word in loot}
    assert any(is_stored_name(word) for word in loot)
    assert key not in loot
    with hashed(**mode):
        for word in loot:
            assert request_with(word) == {}, word


def test_a_stored_name_is_no_key_in_any_mode():
    from django_rust_sessions.backends.db import SessionStore

    for name in ("sha256$" + "a" * 32, "sha256" + "a" * 32, "sha256$", "sha256$\n"):
        for mode in ({}, ON, BACK):
            with hashed(**mode):
                assert SessionStore(name).session_key is None
    assert SessionStore("sha256" + "a" * 26).session_key  # as long as Django's keys are


def test_who_administers_may_look_by_the_name_in_the_store(engine):
    with hashed(**ON):
        key = make(engine, cart=["tea"])
        name = engine(key).stored_name
        assert engine.from_stored_name(name).load() == {"cart": ["tea"]}
        engine.from_stored_name(name).delete()
        assert not engine().exists(key)


# ----------------------------------------------------------------------------------------- settings


def test_a_wrong_value_is_refused():
    from django_rust_sessions.backends.db import SessionStore

    with hashed(HASH_KEYS="md5"):
        with pytest.raises(ImproperlyConfigured, match="None, 'sha256', 'plain'"):
            SessionStore("a" * 32).load()
        assert [each.id for each in checks.check_options()] == ["django_rust_sessions.E002"]


def test_the_check_says_where_it_does_nothing():
    cookies = "django_rust_sessions.backends.signed_cookies"
    with override_settings(SESSION_ENGINE=cookies), hashed(**ON):
        (message,) = checks.check_hashed_keys()
    assert message.id == "django_rust_sessions.W010"


# --------------------------------------------------------------------------- with other options on


def test_sessions_come_from_the_fallback_engine_under_their_hashes(engine):
    """FALLBACK_ENGINE: the old store's sessions may be hashed already, or not yet."""
    if engine.__module__.endswith("db"):
        return  # db and cached_db have the old one's table
    old = import_module("django_rust_sessions.backends.db").SessionStore
    for before in ({}, ON):
        with hashed(**before):
            keys = [make(old, cart=["tea"]) for _ in range(2)]
        with hashed(**ON, FALLBACK_ENGINE="django_rust_sessions.backends.db"):
            for key in keys:
                session = engine(key)
                assert session["cart"] == ["tea"]
                session["cart"] = ["jam"]
                session.save()
            engine(keys[0]).delete()
            assert engine(keys[0]).load() == {}
            assert engine(keys[1]).load() == {"cart": ["jam"]}
        with hashed(**ON):
            assert engine(keys[0]).load() == {}
            assert engine(keys[1]).load() == {"cart": ["jam"]}
            assert old(keys[1]).load() == {}
