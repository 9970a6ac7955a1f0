"""RUST_SESSIONS["FALLBACK_ENGINE"]: both stores are looked at, and a logout holds in both."""

import threading
from importlib import import_module

import databases
import pytest
from asgiref.sync import async_to_sync
from differential import DjangoStore
from django.contrib.auth.models import User
from django.contrib.sessions.backends.base import CreateError, UpdateError
from django.contrib.sessions.backends.file import SessionStore as DjangoFileStore
from django.contrib.sessions.models import Session
from django.core.cache import caches
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, connections
from django.http import HttpResponse
from django.test import AsyncClient, Client
from django.test.utils import CaptureQueriesContext
from django.urls import path
from django_rust_sessions.backends import fallback
from django_rust_sessions.backends.db import SessionStore as RustDBStore
from django_rust_sessions.middleware import stays_on_loop

OURS = "django_rust_sessions.backends."
DJANGOS = "django.contrib.sessions.backends."
ENGINES = ["db", "cache", "cached_db", "file"]
HAS_ASYNC = hasattr(DjangoStore, "aload")


@pytest.fixture
def sqlite(django_db_blocker, tmp_path):
    """In a file, for the async methods use another thread."""
    at = databases.sqlite_file(tmp_path / "db.sqlite3")
    with django_db_blocker.unblock(), databases.database("default", at) as connected:
        yield connected


@pytest.fixture
def site(sqlite, settings, redis_server, tmp_path, monkeypatch):
    """Says which engine is the new one and which the old; returns the classes of both."""
    redis = {"BACKEND": "django.core.cache.backends.redis.RedisCache"}
    settings.CACHES = {
        "default": {**redis, "LOCATION": redis_server["url"], "KEY_PREFIX": tmp_path.name},
        "old": {**redis, "LOCATION": redis_server["url"], "KEY_PREFIX": f"old-{tmp_path.name}"},
    }
    folder = tmp_path / "files"
    folder.mkdir()
    settings.SESSION_FILE_PATH = str(folder)
    monkeypatch.setattr(DjangoFileStore, "_storage_path", str(folder), raising=False)

    def configure(new, old, **options):
        settings.SESSION_ENGINE = OURS + new if "." not in new else new
        settings.RUST_SESSIONS = {
            "FALLBACK_ENGINE": DJANGOS + old if "." not in old else old,
            **options,
        }
        return (
            import_module(settings.SESSION_ENGINE).SessionStore,
            import_module(settings.RUST_SESSIONS["FALLBACK_ENGINE"]).SessionStore,
        )

    yield configure
    for alias in ("default", "old"):
        caches[alias].clear()


PAIRS = [(new, old) for new in ENGINES for old in ENGINES if new != old]
# They share the table.
PAIRS = [pair for pair in PAIRS if set(pair) != {"db", "cached_db"}]


def in_store(engine, key):
    """Whether that very store has it, without any fallback."""
    return fallback.open_store(engine).exists(key)


def made(engine, **values):
    session = fallback.open_store(engine)
    session.update(values)
    session.create()
    session.update(values)
    session.save()
    return session.session_key


class Sync:
    """The methods of a session by their sync names, done by the sync ones."""

    def __init__(self, session):
        self.session = session

    def __getattr__(self, name):
        return getattr(self.session, name)


class Async(Sync):
    def __getattr__(self, name):
        return async_to_sync(getattr(self.session, f"a{name}"))


WAYS = [Sync, pytest.param(Async, marks=pytest.mark.skipif(not HAS_ASYNC, reason="since 5.1"))]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("new", "old"), PAIRS)
def test_a_session_moves_with_its_next_save(site, new, old, way):
    engine, old_engine = site(new, old)
    key = made(old_engine, who="ada")

    session = engine(key)
    assert way(session).get("who") == "ada"
    assert session.session_key == key
    assert way(session).exists(key)
    # Read, and nothing else.
    assert (in_store(engine, key), in_store(old_engine, key)) == (False, True)

    session["cart"] = [1]
    way(session).save()
    assert (in_store(engine, key), in_store(old_engine, key)) == (True, False)
    assert dict(fallback.open_store(engine, key).items()) == {"who": "ada", "cart": [1]}

    again = engine(key)
    assert way(again).get("cart") == [1]
    way(again).delete()
    assert not in_store(engine, key)
    assert way(engine(key)).get("who") is None


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("new", "old"), PAIRS)
def test_a_logout_holds_in_both(site, new, old, way):
    engine, old_engine = site(new, old)
    key = made(old_engine, who="ada")
    before = engine(key)
    assert way(before).get("who") == "ada"
    way(engine(key)).flush()
    assert (in_store(engine, key), in_store(old_engine, key)) == (False, False)
    before["late"] = True
    with pytest.raises(UpdateError):
        way(before).save()
    assert (in_store(engine, key), in_store(old_engine, key)) == (False, False)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("options", [{}, {"HASH_KEYS": "sha256"}], ids=["plain", "hashed"])
@pytest.mark.parametrize(("new", "old"), PAIRS)
def test_what_is_in_neither_is_not_made_by_a_save(site, new, old, options, way):
    engine, old_engine = site(new, old, **options)

    def save(session):
        with pytest.raises(UpdateError):
            way(session).save()
        return session.session_key == "n" * 32, session.accessed

    assert save(engine("n" * 32)) == save(fallback.open_store(engine, "n" * 32))
    assert (in_store(engine, "n" * 32), in_store(old_engine, "n" * 32)) == (False, False)
    assert Session.objects.count() == 0


@pytest.mark.parametrize("way", WAYS)
def test_a_new_key_leaves_nothing_behind(site, way):
    engine, old_engine = site("cache", "db")
    key = made(old_engine, who="ada")
    session = engine(key)
    way(session).cycle_key()
    assert session.session_key != key
    assert (in_store(engine, key), in_store(old_engine, key)) == (False, False)
    assert in_store(engine, session.session_key)
    assert way(session).get("who") == "ada"


@pytest.mark.parametrize("way", WAYS)
def test_a_key_of_the_old_store_is_taken(site, way):
    engine, old_engine = site("cache", "db")
    key = made(old_engine, who="ada")
    with pytest.raises(CreateError):
        way(engine(key)).save(must_create=True)
    session = engine()
    way(session).create()
    assert in_store(engine, session.session_key)


@pytest.mark.parametrize("way", WAYS)
def test_a_logout_between_the_two_steps_of_a_save_wins(site, monkeypatch, way):
    engine, old_engine = site("cache", "db")
    key = made(old_engine, who="ada")
    session = engine(key)
    session["x"] = way(session).get("who")
    take = fallback.take

    def logout_first(store, key):
        # From the old store, and not yet from the new one.
        fallback.open_store(old_engine).delete(key)
        return take(store, key)

    monkeypatch.setattr(fallback, "take", logout_first)
    with pytest.raises(UpdateError):
        way(session).save()
    assert (in_store(engine, key), in_store(old_engine, key)) == (False, False)


@pytest.mark.parametrize("way", WAYS)
def test_a_session_that_moves_between_the_two_looks_is_found(site, monkeypatch, way):
    engine, old_engine = site("cache", "db")
    key = made(old_engine, who="ada")
    recall = fallback.FallbackMixin._recall

    def move_first(self, key):
        mover = fallback.open_store(engine, key)
        mover._session_cache = {"who": "ada"}
        mover.save(must_create=True)
        fallback.open_store(old_engine).delete(key)
        return recall(self, key)

    monkeypatch.setattr(fallback.FallbackMixin, "_recall", move_first)
    session = engine(key)
    assert way(session).get("who") == "ada"
    assert session.session_key == key


def test_of_many_savers_none_loses_the_session(site):
    """The first save moves it: each of the others must find it in one place or the other."""
    engine, old_engine = site("cache", "db")
    keys = [made(old_engine, n=0) for _ in range(15)]
    errors = []
    barrier = threading.Barrier(6)

    def save_all():
        for key in keys:
            barrier.wait()
            try:
                session = engine(key)
                assert session["n"] == 0
                session.save()
            except Exception as error:
                errors.append(error)
        connections.close_all()

    threads = [threading.Thread(target=save_all) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert all(in_store(engine, key) and not in_store(old_engine, key) for key in keys)


def test_processes_that_move_it_the_other_way_do_not_bring_it_back(site, monkeypatch):
    """In the midst of a restart of several servers: the one saves, the other logs out."""
    engine, old_engine = site("cache", OURS + "db")
    here = fallback._make_class(engine, old_engine)
    there = fallback._make_class(old_engine, engine)

    def session_of(kind, key=None):
        session = object.__new__(kind)
        session.__init__(key)
        return session

    key = made(engine, who="ada")
    late = session_of(there, key)
    late["x"] = late["who"]
    deletes = []
    delete = here._old_delete

    def save_in_between(self, key):
        delete(self, key)
        deletes.append(key)
        if len(deletes) == 1:
            late.save()
            assert in_store(old_engine, key)

    monkeypatch.setattr(here, "_old_delete", save_in_between)
    session_of(here, key).flush()
    assert (in_store(engine, key), in_store(old_engine, key)) == (False, False)


def test_an_expired_session_of_the_old_store_is_none(site):
    for old in ("db", "file"):
        engine, old_engine = site("cache", old)
        session = fallback.open_store(old_engine)
        session["who"] = "ada"
        session.set_expiry(-60)
        session.create()
        assert engine(session.session_key).get("who") is None


def test_between_two_caches(site):
    engine, old_engine = site("cache", "cache", FALLBACK_CACHE_ALIAS="old")
    old = fallback.open_store(old_engine, None, "old")
    old["who"] = "ada"
    old.create()
    session = engine(old.session_key)
    assert session["who"] == "ada"
    session["x"] = 1
    session.save()
    assert not old.exists(session.session_key)
    assert in_store(engine, session.session_key)


def test_a_store_of_ours_may_be_the_old_one(site):
    engine, old_engine = site("cache", OURS + "db")
    key = made(old_engine, who="ada")
    assert engine(key)["who"] == "ada"
    # Its own class has no fallback.
    assert type(RustDBStore(key)) is RustDBStore


def test_a_mistake_in_another_option_does_not_switch_it_off(site):
    engine, old_engine = site("cache", "db", LEGACY="yes")
    key = made(old_engine, who="ada")
    assert engine(key)["who"] == "ada"


def test_what_is_in_the_new_store_costs_nothing_more(site):
    engine, _ = site("cache", "db")
    session = engine()
    session["a"] = 1
    session.create()
    with CaptureQueriesContext(connection) as captured:
        session = engine(session.session_key)
        session["a"] += 1
        session.save()
    assert captured.captured_queries == []


def test_off_it_is_the_engine_itself(settings):
    settings.SESSION_ENGINE = f"{OURS}db"
    assert type(RustDBStore()) is RustDBStore
    settings.RUST_SESSIONS = {"FALLBACK_ENGINE": f"{DJANGOS}file"}
    kind = type(RustDBStore())
    assert kind is not RustDBStore
    assert issubclass(kind, RustDBStore)
    assert (kind.__name__, kind.__qualname__) == ("SessionStore", "SessionStore")
    assert stays_on_loop(kind)
    settings.RUST_SESSIONS = {}
    assert type(RustDBStore()) is RustDBStore


@pytest.mark.parametrize(
    ("new", "old", "options", "sentence"),
    [
        ("cache", "nothing.here", {}, "cannot be used"),
        ("cache", OURS + "cache", {}, "SESSION_ENGINE itself"),
        ("cache", "signed_cookies", {}, "in the browser"),
        ("cached_db", "db", {}, "can be switched as they are"),
        ("db", OURS + "cached_db", {}, "can be switched as they are"),
        ("db", "cache", {"FALLBACK_CACHE_ALIAS": "nowhere"}, "not in CACHES"),
    ],
)
def test_a_setting_that_cannot_be_is_named(settings, new, old, options, sentence):
    settings.SESSION_ENGINE = OURS + new
    settings.RUST_SESSIONS = {
        "FALLBACK_ENGINE": old if "." in old else DJANGOS + old,
        **options,
    }
    with pytest.raises(ImproperlyConfigured, match=sentence):
        import_module(settings.SESSION_ENGINE).SessionStore()


def test_the_checks_describe_the_engine_as_ever(settings):
    from django_rust_sessions import checks

    settings.SESSION_ENGINE = f"{OURS}file"
    before = checks.check_engine()
    settings.RUST_SESSIONS = {"FALLBACK_ENGINE": f"{DJANGOS}db"}
    assert [str(each) for each in checks.check_engine()] == [str(each) for each in before]
    assert not [each for each in run_checks() if each.id == "django_rust_sessions.E004"]


# ------------------------------------------------------------------------------------ over requests


def who(request):
    if "leave" in request.GET:
        request.session.flush()
    elif "visits" in request.GET:
        request.session["visits"] = request.session.get("visits", 0) + 1
    return HttpResponse(f"{request.session.get('_auth_user_id')} {request.session.get('visits')}")


urlpatterns = [path("who/", who)]


@pytest.mark.parametrize("middleware", ["django.contrib.sessions", "django_rust_sessions"])
@pytest.mark.parametrize("client_class", [Client, AsyncClient])
def test_nobody_is_logged_out_by_the_switch(site, settings, middleware, client_class):
    settings.ROOT_URLCONF = __name__
    settings.MIDDLEWARE = [f"{middleware}.middleware.SessionMiddleware"]
    settings.SESSION_ENGINE = f"{DJANGOS}db"
    settings.RUST_SESSIONS = {}
    user = User(pk=7, password="x")
    key = made(
        import_module(settings.SESSION_ENGINE).SessionStore,
        _auth_user_id=str(user.pk),
        _auth_user_hash=user.get_session_auth_hash(),
    )
    engine, old_engine = site("cache", "db")
    client = client_class()
    client.cookies[settings.SESSION_COOKIE_NAME] = key

    async def aget(path):
        return await client.get(path)

    get = client.get if client_class is Client else async_to_sync(aget)
    for query, answer in [("", "7 None"), ("?visits", "7 1"), ("?visits", "7 2"), ("", "7 2")]:
        assert get(f"/who/{query}").content.decode() == answer
    assert (in_store(engine, key), in_store(old_engine, key)) == (True, False)
    assert get("/who/?leave").content.decode() == "None None"
    assert (in_store(engine, key), Session.objects.count()) == (False, 0)
