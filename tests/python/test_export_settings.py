"""manage.py export_session_settings: what it writes, what it hides and what it refuses.

That Rust opens the store which Django uses, tests/rust/settings.rs shows.
"""

import io
import json
import os
import re
import stat
import subprocess
import sys
import tomllib
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import hypothesis
import pytest
from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.models import UserManager
from django.contrib.sessions.backends import cache, cached_db, db, file, signed_cookies
from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.base_session import AbstractBaseSession
from django.core.cache import caches
from django.core.management import CommandError, call_command
from django.db import connections, models
from django.db.utils import ConnectionHandler
from django.test import override_settings
from django.test.utils import isolate_apps
from django_rust_sessions.backends.cache import SessionStore as RustCache
from django_rust_sessions.backends.file import SessionStore as RustFile
from django_rust_sessions.management.commands.export_session_settings import Command
from django_rust_sessions.management.export import auth as export_auth
from django_rust_sessions.management.export import caches as export_caches
from django_rust_sessions.management.export.common import Refused, Report
from django_rust_sessions.management.export.writers import to_json, to_toml
from hypothesis import given
from hypothesis import strategies as st

DJANGO, OURS = "django.contrib.sessions.backends", "django_rust_sessions.backends"
REDIS = "django.core.cache.backends.redis.RedisCache"
DJANGO_REDIS = "django_redis.cache.RedisCache"
SECRET = "hush"


def run(*arguments, **options):
    """What the command writes to standard output and to standard error."""
    out, err = io.StringIO(), io.StringIO()
    call_command(Command(), *arguments, stdout=out, stderr=err, **options)
    return out.getvalue(), err.getvalue()


def export(**settings):
    """The tree that is exported: it holds no secret, and is the same in TOML and JSON."""
    with override_settings(SECRET_KEY=SECRET, **settings):
        toml, err = run()
        text, _ = run(format="json")
    assert SECRET not in toml + text + err
    assert tomllib.loads(toml) == json.loads(text)
    return json.loads(text)


def refusal(**settings):
    with override_settings(**settings), pytest.raises(CommandError) as refused:
        run()
    assert SECRET not in str(refused.value)
    return str(refused.value)


@pytest.fixture
def database():
    """Gives DATABASES["default"] other settings, with no connection."""
    with ExitStack() as stack:

        def use(**settings):
            filled = ConnectionHandler({"default": settings}).settings["default"]
            before = connections.settings["default"]
            stack.callback(connections.settings.__setitem__, "default", before)
            connections.settings["default"] = filled

        use(ENGINE="django.db.backends.sqlite3", NAME="/srv/db.sqlite3")
        yield use


@pytest.fixture(autouse=True)
def _as_a_new_process(database):
    """The database of the tests is in memory, which is refused, and classes remember the folder."""
    yield
    for store in (file.SessionStore, RustFile):
        if "_storage_path" in vars(store):
            del store._storage_path


def test_the_defaults():
    tree = export()
    assert tree["version"] == 1
    assert tree["secret_key"] == {"env": "SECRET_KEY"}
    assert tree["session_engine"] == "db"
    assert tree["key_salt"] == "django.contrib.sessions.SessionStore"
    assert tree["db_table"] == "django_session"
    assert tree["time_zone"] == "UTC"
    assert tree["databases"] == {"default": {"engine": "sqlite3", "name": "/srv/db.sqlite3"}}
    assert tree["auth"]["table"] == "auth_user"
    assert tree["auth"]["pk_type"] == "integer"
    assert tree["auth"]["login_url"] == "/accounts/login/"
    assert tree["auth"]["password_hashers"][0]["iterations"] >= 600_000
    assert tree["csrf"]["cookie_name"] == "csrftoken"
    assert tree["csrf"]["header_name"] == "X-CSRFToken"
    assert "caches" not in tree
    assert "max_inflated" not in tree
    assert "devices" not in tree


def test_every_cookie_setting():
    tree = export(
        SESSION_COOKIE_NAME="sid",
        SESSION_COOKIE_AGE=60,
        SESSION_COOKIE_DOMAIN=".example.com",
        SESSION_COOKIE_PATH="/shop",
        SESSION_COOKIE_SECURE=True,
        SESSION_COOKIE_HTTPONLY=False,
        SESSION_COOKIE_SAMESITE=False,
        SESSION_EXPIRE_AT_BROWSER_CLOSE=True,
        SESSION_SAVE_EVERY_REQUEST=True,
        USE_TZ=False,
        TIME_ZONE="Europe/Berlin",
        LOGIN_URL="show",
        CSRF_COOKIE_AGE=None,
        CSRF_HEADER_NAME="HTTP_X_SHOP_TOKEN",
    )
    assert {key: value for key, value in tree.items() if key.startswith("session_")} == {
        "session_engine": "db",
        "session_database": "default",
        "session_cookie_name": "sid",
        "session_cookie_age": 60,
        "session_cookie_domain": ".example.com",
        "session_cookie_path": "/shop",
        "session_cookie_secure": True,
        "session_cookie_httponly": False,
        "session_cookie_samesite": False,
        "session_expire_at_browser_close": True,
        "session_save_every_request": True,
    }
    assert tree["time_zone"] == "Europe/Berlin"
    assert "login_url" not in tree["auth"], "no such URL pattern"
    assert tree["csrf"]["cookie_age"] is False
    assert tree["csrf"]["header_name"] == "X-Shop-Token"


@pytest.mark.parametrize("word", ["lax", "STRICT", "none"])
def test_same_site_in_any_case(word):
    tree = export(SESSION_COOKIE_SAMESITE=word, CSRF_COOKIE_SAMESITE=word)
    assert tree["session_cookie_samesite"] == word.capitalize()
    assert tree["csrf"]["cookie_samesite"] == word.capitalize()


@pytest.mark.parametrize("zone", [None, ""])
def test_the_zone_of_the_machine_has_to_be_named(zone):
    sentence = refusal(USE_TZ=False, TIME_ZONE=zone)
    assert f"TIME_ZONE is {zone!r}, which is the zone of the machine: name it" in sentence
    assert export(USE_TZ=True, TIME_ZONE=zone)["time_zone"] == "UTC"


@pytest.mark.parametrize("package", [DJANGO, OURS])
@pytest.mark.parametrize("engine", ["db", "cache", "cached_db", "file", "signed_cookies"])
def test_engines(package, engine, tmp_path):
    caches = {"default": {"BACKEND": REDIS, "LOCATION": "redis://a"}}
    tree = export(
        SESSION_ENGINE=f"{package}.{engine}", CACHES=caches, SESSION_FILE_PATH=str(tmp_path)
    )
    assert tree["session_engine"] == engine
    assert ("caches" in tree) == (engine in ("cache", "cached_db"))
    assert ("db_table" in tree) == (engine in ("db", "cached_db"))
    assert tree.get("session_file_path") == (str(tmp_path) if engine == "file" else None)
    # That of our engines, which have a limit.
    assert tree.get("max_inflated") == (16 * 1024 * 1024 if package == OURS else None)


class Aged(db.SessionStore):
    key_salt = "aged"

    @classmethod
    def get_session_cookie_age(cls):
        return 77


class Prefixed(cache.SessionStore):
    cache_key_prefix = "shop.sessions"


class Encoding(db.SessionStore):
    def encode(self, session_dict):
        return "mine"


class Cookies(signed_cookies.SessionStore):
    pass


@pytest.fixture
def engine(monkeypatch):
    """A module with a SessionStore."""

    def use(store):
        module = type(sys)("own_engine")
        module.SessionStore = store
        monkeypatch.setitem(sys.modules, "own_engine", module)
        return {"SESSION_ENGINE": "own_engine"}

    return use


def test_classes_of_the_project(engine):
    from project.models import CustomDjangoStore, CustomRustStore

    for store in (CustomDjangoStore, CustomRustStore):
        tree = export(**engine(store))
        assert tree["session_engine"] == "db"
        assert tree["key_salt"] == "custom"
        assert tree["db_table"] == "project_customsession"
    tree = export(**engine(Aged))
    assert (tree["key_salt"], tree["session_cookie_age"]) == ("aged", 77)
    caches = {"default": {"BACKEND": REDIS, "LOCATION": "redis://a"}}
    assert export(CACHES=caches, **engine(Prefixed))["cache_key_prefix"] == "shop.sessions"
    tree = export(**engine(Cookies))
    assert tree["session_engine"] == "signed_cookies"
    assert "key_salt" not in tree, "this engine's salt is always the same"


def test_engines_that_are_refused(engine):
    assert "'nowhere', which cannot be used: ModuleNotFoundError" in refusal(
        SESSION_ENGINE="nowhere"
    )
    assert "derived from none of Django's engines" in refusal(**engine(SessionBase))
    assert "Encoding has its own encode" in refusal(**engine(Encoding))
    assert "set SESSION_SERIALIZER = 'django.contrib.sessions" in refusal(
        SESSION_SERIALIZER="project.models.CustomSession"
    )
    assert (
        "SESSION_CACHE_ALIAS is 'gone', which is not in CACHES. CACHES has 'default'."
        in refusal(SESSION_ENGINE=f"{DJANGO}.cache", SESSION_CACHE_ALIAS="gone")
    )
    assert "ImproperlyConfigured: The session storage path" in refusal(
        SESSION_ENGINE=f"{DJANGO}.file", SESSION_FILE_PATH="/nowhere/at/all"
    )


class OwnCache(cache.SessionStore):
    def __init__(self, session_key=None):
        super().__init__(session_key)
        self._cache = caches["sessions"]


class OwnRustCache(RustCache):
    def __init__(self, session_key=None):
        super().__init__(session_key)
        self._cache = caches["sessions"]


class OwnCacheKey(cached_db.SessionStore):
    @property
    def cache_key(self):
        return "v2-" + self.cache_key_prefix + self._get_or_create_session_key()


class PrefixOfTenant(cache.SessionStore):
    @property
    def cache_key_prefix(self):
        return "tenant"


class OwnAsyncLoad(db.SessionStore):
    async def aload(self):
        return {}


class OwnFile(file.SessionStore):
    def _key_to_file(self, session_key=None):
        return super()._key_to_file(session_key) + ".session"

    def delete(self, session_key=None):
        super().delete(session_key)


TWO_CACHES = {
    alias: {"BACKEND": REDIS, "LOCATION": f"redis://{alias}"} for alias in ("default", "sessions")
}


@pytest.mark.parametrize("store", [OwnCache, OwnRustCache])
def test_an_engine_with_a_cache_of_its_own(engine, store):
    own = engine(store)
    sentence = refusal(CACHES=TWO_CACHES, **own)
    assert f"{store.__name__} takes another cache than 'default'" in sentence
    assert "Name the alias of its cache in SESSION_CACHE_ALIAS." in sentence
    tree = export(CACHES=TWO_CACHES, SESSION_CACHE_ALIAS="sessions", **own)
    assert tree["session_cache_alias"] == "sessions"


@pytest.mark.not_with("HASH_KEYS", "the exported settings say so")
def test_a_fallback_with_a_cache_of_its_own(engine):
    fallback = {"FALLBACK_ENGINE": engine(OwnCache)["SESSION_ENGINE"]}
    settings = {"SESSION_ENGINE": f"{OURS}.db", "CACHES": TWO_CACHES}
    assert "Name the alias of its cache in RUST_SESSIONS['FALLBACK_CACHE_ALIAS']." in refusal(
        RUST_SESSIONS=fallback, **settings
    )
    # In which open_store() then puts them, whatever the class says.
    for alias in TWO_CACHES:
        tree = export(RUST_SESSIONS={**fallback, "FALLBACK_CACHE_ALIAS": alias}, **settings)
        assert tree["fallback"]["session_cache_alias"] == alias


@pytest.mark.parametrize(
    ("store", "names"),
    [
        (OwnCacheKey, "cache_key"),
        (PrefixOfTenant, "cache_key_prefix as a property"),
        (OwnAsyncLoad, "aload"),
        (OwnFile, "_key_to_file, delete"),
    ],
)
def test_engines_that_look_elsewhere(engine, store, names, tmp_path):
    settings = {"CACHES": TWO_CACHES, "SESSION_FILE_PATH": str(tmp_path), **engine(store)}
    assert f"{store.__name__} has its own {names}, so that it looks" in refusal(**settings)


class EncryptedTextField(models.TextField):
    def get_prep_value(self, value):
        return "enc$" + super().get_prep_value(value)[::-1]


class PackedTextField(models.TextField):
    def from_db_value(self, value, expression, connection):
        return value[::-1]


class LongTextField(models.TextField):
    def db_type(self, connection):
        return "longtext"


@pytest.mark.parametrize(
    "field", [EncryptedTextField, PackedTextField, models.JSONField, LongTextField]
)
@isolate_apps("django.contrib.sessions")
def test_a_session_model_that_stores_something_else_than_the_text(engine, field):
    class OwnSession(AbstractBaseSession):
        session_data = field()

        class Meta:
            app_label = "shop"

    class Store(db.SessionStore):
        @classmethod
        def get_model_class(cls):
            return OwnSession

    if field is LongTextField:
        assert export(**engine(Store))["db_table"] == "shop_ownsession"
        return
    sentence = refusal(**engine(Store))
    assert "session_data of the session model shop.OwnSession is a " + field.__name__ in sentence
    assert "which stores something else than the text" in sentence


class Router:
    def db_for_read(self, model, **hints):
        return "replica"

    def db_for_write(self, model, **hints):
        return "default"


@pytest.mark.not_with("HASH_KEYS", "the exported settings say so")
def test_a_fallback_is_exported_with_its_place(settings, tmp_path):
    settings.SESSION_ENGINE = "django_rust_sessions.backends.db"
    before = json.loads(run(format="json")[0])
    settings.SESSION_FILE_PATH = str(tmp_path)
    settings.RUST_SESSIONS = {"FALLBACK_ENGINE": "django.contrib.sessions.backends.file"}
    after = json.loads(run(format="json")[0])
    fallback = after.pop("fallback")
    assert (fallback["session_engine"], fallback["session_file_path"]) == ("file", str(tmp_path))
    assert "hash_keys" not in fallback
    assert after == before
    # As if the former engine were the site's, for a migration: without that.
    assert "fallback" not in json.loads(run(format="json", engine=settings.SESSION_ENGINE)[0])


def test_merge_is_exported():
    assert "merge" not in export(SESSION_ENGINE=f"{OURS}.db")
    tree = export(SESSION_ENGINE=f"{OURS}.db", RUST_SESSIONS={"MERGE": True})
    assert tree["merge"] is True


def test_sessions_without_an_end_are_refused():
    assert "SESSION_COOKIE_AGE is None: sessions have no end" in refusal(SESSION_COOKIE_AGE=None)


def test_routers():
    with override_settings(DATABASE_ROUTERS=[Router()]):
        text, err = run(format="json")
    assert json.loads(text)["session_database"] == "default"
    assert "reads sessions from 'replica' and writes them to 'default'" in err


def test_the_database_of_the_users_may_be_unknown(database):
    database(ENGINE="django.db.backends.dummy")
    cookies = {"SESSION_ENGINE": f"{DJANGO}.signed_cookies"}
    assert "databases" not in export(**cookies)
    database(ENGINE="django.db.backends.oracle", NAME="x")
    with override_settings(**cookies):
        text, err = run(format="json")
    assert "databases" not in json.loads(text)
    assert "Note: The export leaves out the database of the users: DATABASES['default']" in err


# -------------------------------------------------------------------------------------- databases


def test_postgresql(database):
    database(
        ENGINE="django_prometheus.db.backends.postgresql",
        NAME="shop",
        USER="django",
        PASSWORD=SECRET,
        HOST="db.example",
        PORT="5433",
        TIME_ZONE="Asia/Tokyo",
        DISABLE_SERVER_SIDE_CURSORS=True,
        OPTIONS={"sslmode": "require", "options": "-c search_path=shop", "pool": True},
    )
    assert export()["databases"]["default"] == {
        "engine": "postgresql",
        "name": "shop",
        "user": "django",
        "host": "db.example",
        "port": 5433,
        "password": {"env": "DATABASES_DEFAULT_PASSWORD"},
        "time_zone": "Asia/Tokyo",
        "pgbouncer": True,
        "options": {"sslmode": "require", "options": "-c search_path=shop"},
    }


def test_mysql_and_sqlite(database, monkeypatch, tmp_path):
    options = {"init_command": "SET sql_mode=''", "charset": "utf8mb4", "ssl": {"ca": "/ca.pem"}}
    database(ENGINE="django.db.backends.mysql", NAME="shop", HOST="/run/m.sock", OPTIONS=options)
    assert export()["databases"]["default"] == {
        "engine": "mysql",
        "name": "shop",
        "host": "/run/m.sock",
        "options": options,
    }
    monkeypatch.chdir(tmp_path)
    options = {"timeout": 20, "transaction_mode": "IMMEDIATE", "init_command": "PRAGMA x=1;"}
    database(ENGINE="django.db.backends.sqlite3", NAME="db.sqlite3", OPTIONS=options)
    assert export()["databases"]["default"] == {
        "engine": "sqlite3",
        "name": str(tmp_path / "db.sqlite3"),
        "options": options,
    }


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"ENGINE": "django.db.backends.oracle"}, "The Rust crate knows PostgreSQL, MySQL"),
        ({"NAME": ":memory:"}, "which another process cannot open"),
        ({"NAME": "file:x?mode=memory"}, "which another process cannot open"),
        ({"ENGINE": "django.db.backends.postgresql", "NAME": ""}, "has no 'NAME'"),
        (
            {
                "ENGINE": "django.db.backends.postgresql",
                "OPTIONS": {"service": "shop", "passfile": SECRET},
            },
            "has 'service': what is in that file is not known here",
        ),
        (
            {"ENGINE": "django.db.backends.mysql", "OPTIONS": {"read_default_file": "/my.cnf"}},
            "has 'read_default_file'",
        ),
        ({"OPTIONS": {"factory": SECRET}}, "has 'factory', of which the Rust crate knows nothing"),
    ],
)
def test_databases_that_are_refused(database, settings, sentence):
    database(**{"ENGINE": "django.db.backends.sqlite3", "NAME": "x", **settings})
    assert sentence in refusal()


# ----------------------------------------------------------------------------------------- caches


def one_cache(backend, location="", options=None, **more):
    tree = export(
        SESSION_ENGINE=f"{DJANGO}.cache",
        CACHES={
            "default": {
                "BACKEND": backend,
                "LOCATION": location,
                "OPTIONS": options or {},
                **more,
            }
        },
    )
    found = tree["caches"]["default"]
    assert found.pop("key_prefix") == more.get("KEY_PREFIX", "")
    if "VERSION" not in more:
        assert found.pop("version") == 1
    return found


def test_redis():
    assert one_cache(REDIS, "redis://a:1,redis://b:2", KEY_PREFIX="shop", VERSION=2) == {
        "version": 2,
        "backend": "redis",
        "location": ["redis://a:1", "redis://b:2"],
    }
    assert one_cache(REDIS, [f"redis://u:{SECRET}@a", f"redis://a?password={SECRET}"]) == {
        "backend": "redis",
        "location": [{"env": "CACHES_DEFAULT_LOCATION_1"}, {"env": "CACHES_DEFAULT_LOCATION_2"}],
    }
    options = {"password": SECRET, "db": 3, "ssl_cert_reqs": None, "max_connections": 9}
    assert one_cache(REDIS, "rediss://a", options)["options"] == {
        "password": {"env": "CACHES_DEFAULT_PASSWORD"},
        "db": 3,
        "ssl_cert_reqs": "none",
    }
    assert one_cache(REDIS, "redis://a", {"db": "10"})["options"] == {"db": 10}


def test_django_redis():
    pytest.importorskip("django_redis")
    assert one_cache(DJANGO_REDIS, "redis://a") == {
        "backend": "redis",
        "location": ["redis://a"],
        "format": {"serializer": "pickle", "compressor": "none"},
    }
    options = {
        "CLIENT_CLASS": "django_redis.client.SentinelClient",
        "CONNECTION_FACTORY": "django_redis.pool.SentinelConnectionFactory",
        "SENTINELS": [("a", 26379), ("b", "26380")],
        "SENTINEL_KWARGS": {"password": SECRET, "ssl": True},
        "PASSWORD": SECRET,
        "SERIALIZER": "django_redis.serializers.msgpack.MSGPackSerializer",
        "COMPRESSOR": "django_redis.compressors.lz4.Lz4Compressor",
        "REPLICA_READ_ONLY": True,
        "IGNORE_EXCEPTIONS": True,
    }
    assert one_cache(DJANGO_REDIS, "redis://mymaster/0", options) == {
        "backend": "redis",
        "location": ["redis://mymaster/0"],
        "options": {
            "password": {"env": "CACHES_DEFAULT_PASSWORD"},
            "sentinels": [["a", 26379], ["b", 26380]],
            "sentinel_kwargs": {
                "password": {"env": "CACHES_DEFAULT_SENTINEL_PASSWORD"},
                "ssl": True,
            },
        },
        "format": {"serializer": "msgpack", "compressor": "lz4"},
    }
    options["CONNECTION_POOL_KWARGS"] = {"ssl": True, "ssl_ca_certs": "/ca"}
    exported = one_cache(DJANGO_REDIS, "redis://mymaster/0", options)
    assert exported["location"] == ["rediss://mymaster/0"]
    assert exported["options"]["ssl_ca_certs"] == "/ca"


def test_django_redis_reads_from_the_primary_unless_told_of_replicas():
    pytest.importorskip("django_redis")
    options = {
        "CONNECTION_FACTORY": "django_redis.pool.SentinelConnectionFactory",
        "SENTINELS": [("a", 26379)],
    }

    def reads_from_replicas(location, client):
        client = f"django_redis.client.{client}"
        found = one_cache(DJANGO_REDIS, location, {**options, "CLIENT_CLASS": client})
        assert found["location"] == ["redis://mymaster/0"]
        return found["options"].get("read_from_replicas", True)

    one = "redis://mymaster/0"
    both = [f"{one}?is_master=1", f"{one}?is_master=0"]
    assert not reads_from_replicas(one, "DefaultClient")
    assert not reads_from_replicas([one], "DefaultClient")
    assert reads_from_replicas(both, "DefaultClient")
    assert reads_from_replicas(one, "SentinelClient")
    assert reads_from_replicas(both, "SentinelClient")


def test_the_redis_client_of_django_redis():
    pytest.importorskip("django_redis")
    for known in ("redis.client.Redis", "redis.Redis", "redis.StrictRedis"):
        assert one_cache(DJANGO_REDIS, "redis://a", {"REDIS_CLIENT_CLASS": known})["location"]


def test_other_caches(tmp_path):
    memcached = "django.core.cache.backends.memcached.PyMemcacheCache"
    assert one_cache(memcached, "a:1;b:2", {"connect_timeout": 2, "no_delay": True}) == {
        "backend": "memcached",
        "location": ["a:1", "b:2"],
        "options": {"library": "pymemcache", "connect_timeout": 2},
    }
    # pymemcache's own form of an address, from which it makes the same name.
    assert one_cache(memcached, [("a", 1), ("::1", 2)])["location"] == ["a:1", "[::1]:2"]
    assert one_cache("django.core.cache.backends.db.DatabaseCache", "my cache") == {
        "backend": "database",
        "location": "my cache",
        "options": {"database": "default", "max_entries": 300, "cull_frequency": 3},
    }
    assert one_cache("django.core.cache.backends.filebased.FileBasedCache", tmp_path) == {
        "backend": "filebased",
        "location": str(tmp_path),
        "options": {"max_entries": 300, "cull_frequency": 3},
    }


def make_key(key, key_prefix, version):
    return f"{key_prefix}/{version}/{key}"


@pytest.mark.parametrize(
    ("behaviors", "exported"),
    [
        ({}, {}),
        ({"tcp_nodelay": True, "num_replicas": 0}, {}),
        ({"ketama": True, "ketama_weighted": False}, {"behaviors": {"ketama": True}}),
        ({"ketama_weighted": True}, {"behaviors": {"ketama_weighted": True}}),
    ],
)
def test_behaviors_of_pylibmc(behaviors, exported):
    found = pylibmc({"behaviors": behaviors})
    assert found["options"] == {"library": "pylibmc", **exported}


def test_copies_that_rust_would_not_delete():
    with pytest.raises(Refused, match="'num_replicas': a session has copies"):
        pylibmc({"behaviors": {"num_replicas": 1}})


def pylibmc(options):
    # Of the cache itself only the addresses are asked, and pylibmc need not be installed.
    cache = SimpleNamespace(_servers=["a:1"])
    return export_caches._pylibmc("default", cache, {"OPTIONS": options}, Report(False), "there")


@pytest.mark.parametrize(
    ("version", "exported"), [(3, 3), (None, "None"), ("v7", "v7"), (True, "True"), (1.5, "1.5")]
)
def test_the_version_is_what_stands_in_the_keys(version, exported):
    assert one_cache(REDIS, "redis://a", VERSION=version)["version"] == exported


def test_key_function():
    found = one_cache(REDIS, "redis://a", KEY_FUNCTION=make_key)
    assert found["key_function"] == f"{__name__}.make_key"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
            "no other process can see it",
        ),
        ({"BACKEND": "django.core.cache.backends.dummy.DummyCache"}, "which keeps nothing"),
        ({"BACKEND": "shop.cache.OwnCache"}, "'shop.cache.OwnCache', of which the Rust crate"),
        (
            {"BACKEND": REDIS, "OPTIONS": {"serializer": "json.JSONEncoder"}},
            "has 'serializer': json.JSONEncoder, which Rust cannot follow",
        ),
        ({"BACKEND": REDIS, "OPTIONS": {"decode_responses": True}}, "changes what is stored"),
        ({"BACKEND": REDIS, "OPTIONS": {"pasword": SECRET}}, "has 'pasword', of which"),
        (
            {
                "BACKEND": DJANGO_REDIS,
                "OPTIONS": {"CLIENT_CLASS": "django_redis.client.HerdClient"},
            },
            "is HerdClient, which stores values in its own way",
        ),
        (
            {"BACKEND": DJANGO_REDIS, "OPTIONS": {"SERIALIZER": f"{__name__}.OwnSerializer"}},
            "OwnSerializer, which Rust cannot follow",
        ),
        (
            {"BACKEND": DJANGO_REDIS, "OPTIONS": {"REDIS_CLIENT_CLASS": f"{__name__}.OwnClient"}},
            "OwnClient, which may talk to Redis in its own way",
        ),
        (
            {
                "BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache",
                "LOCATION": "a:1",
                "OPTIONS": {"serde": object()},
            },
            "has a 'serde' of its own",
        ),
    ],
)
def test_caches_that_are_refused(settings, sentence):
    caches = {"default": {"LOCATION": f"redis://:{SECRET}@a", **settings}}
    assert sentence in refusal(SESSION_ENGINE=f"{DJANGO}.cache", CACHES=caches)


class OwnClient:
    pass


class OwnSerializer:
    def __init__(self, options):
        pass


# ---------------------------------------------------------------------------------------- secrets


CACHES = {"default": {"BACKEND": REDIS, "LOCATION": f"redis://:{SECRET}@a"}}


def test_the_variables_are_listed_and_never_their_values():
    with override_settings(
        SECRET_KEY_FALLBACKS=[SECRET], SESSION_ENGINE=f"{DJANGO}.cache", CACHES=CACHES
    ):
        _, err = run()
        _, silent = run(verbosity=0)
    assert err.splitlines() == [
        "The Rust service needs these environment variables:",
        "  SECRET_KEY               SECRET_KEY",
        "  SECRET_KEY_FALLBACK_1    SECRET_KEY_FALLBACKS[0]",
        "  CACHES_DEFAULT_LOCATION  CACHES['default']['LOCATION']",
    ]
    assert silent == ""


def test_with_secrets(tmp_path):
    path = tmp_path / "session.toml"
    path.write_text("the old one")
    path.chmod(0o644)
    with override_settings(SECRET_KEY=SECRET, SESSION_ENGINE=f"{DJANGO}.cache", CACHES=CACHES):
        _, err = run(output=str(path), with_secrets=True)
    tree = tomllib.loads(path.read_text("utf-8"))
    assert tree["secret_key"] == SECRET
    assert tree["caches"]["default"]["location"] == [f"redis://:{SECRET}@a"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert SECRET not in err
    assert list(tmp_path.iterdir()) == [path], "nothing is left beside it"


def test_secrets_that_no_file_holds():
    assert "SECRET_KEY is bytes that are not UTF-8" in refusal(SECRET_KEY=b"\xff")
    assert "SECRET_KEY has a lone surrogate" in refusal(SECRET_KEY="\ud800")


# ------------------------------------------------------------------------------------------ files


def test_format_check_and_mode(tmp_path):
    path = tmp_path / "session.json"
    before = os.umask(0o027)
    try:
        run(output=str(path))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert json.loads(path.read_text("utf-8"))["version"] == 1
    assert run(output=str(path), check=True)[0] == ""
    with override_settings(SESSION_COOKIE_AGE=5), pytest.raises(CommandError, match="is not what"):
        run(output=str(path), check=True)
    assert json.loads(path.read_text("utf-8"))["session_cookie_age"] != 5, "a check writes nothing"
    with pytest.raises(CommandError, match="cannot be read"):
        run(output=str(tmp_path / "gone.toml"), check=True)
    with pytest.raises(CommandError, match=r"ends neither with \.toml nor with \.json"):
        run(output=str(tmp_path / "session.yaml"))
    with pytest.raises(CommandError, match="cannot be written"):
        run(output=str(tmp_path / "no folder" / "session.toml"))
    with pytest.raises(CommandError, match="--check needs --output"):
        run(check=True)


def test_as_a_user_runs_it(tmp_path):
    """manage.py finds the command in INSTALLED_APPS; --check exits with 1."""
    (tmp_path / "shop_settings.py").write_text(
        f"SECRET_KEY = {SECRET!r}\n"
        "INSTALLED_APPS = ['django_rust_sessions']\n"
        f"SESSION_ENGINE = '{OURS}.signed_cookies'\n"
    )
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "shop_settings"}

    def manage(*words):
        return subprocess.run(
            [sys.executable, "-m", "django", "export_session_settings", *words],
            **{"cwd": tmp_path, "env": environment, "capture_output": True, "text": True},
        )

    ended = manage("--output", "session.toml")
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr
    assert (
        tomllib.loads((tmp_path / "session.toml").read_text())["session_engine"] == "signed_cookies"
    )
    assert manage("--output", "session.toml", "--check").returncode == 0
    (tmp_path / "session.toml").write_text("version = 1")
    ended = manage("--output", "session.toml", "--check")
    assert ended.returncode == 1
    assert "is not what this project's settings say" in ended.stderr


def test_devices(tmp_path):
    """In a process of its own: the app listens to logins from then on."""
    (tmp_path / "shop_settings.py").write_text(
        f"SECRET_KEY = {SECRET!r}\n"
        "INSTALLED_APPS = [*(f'django.contrib.{app}' for app in ('auth', 'contenttypes')),\n"
        "                  'django_rust_sessions', 'django_rust_sessions.devices']\n"
        f"SESSION_ENGINE = '{OURS}.signed_cookies'\n"
        "DATABASES = {name: {'ENGINE': 'django.db.backends.sqlite3', 'NAME': f'/srv/{name}'}\n"
        "             for name in ('default', 'other')}\n"
        "DATABASE_ROUTERS = ['shop_settings.Router']\n"
        "class Router:\n"
        "    def db_for_write(self, model, **hints):\n"
        "        return 'other' if model._meta.app_label == 'session_devices' else None\n"
    )
    ended = subprocess.run(
        [sys.executable, "-m", "django", "export_session_settings", "--format", "json"],
        cwd=tmp_path,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "shop_settings"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    tree = json.loads(ended.stdout)
    assert tree["devices"] == {"database": "other", "table": "django_session_device"}
    assert tree["databases"]["other"] == {"engine": "sqlite3", "name": "/srv/other"}


# ---------------------------------------------------------------------------------------- writers

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@hypothesis.settings(max_examples=hypothesis.settings.default.max_examples // 10)
@given(st.dictionaries(texts, values, max_size=5))
def test_what_is_written_is_read(tree):
    assert tomllib.loads(to_toml(tree, "A comment\nof two lines")) == tree
    assert json.loads(to_json(tree, "")) == tree


# ------------------------------------------------------------------------------------- user models


class Hidden(UserManager):
    def get_queryset(self):
        return super().get_queryset().filter(is_active=True)

    def get_by_natural_key(self, username):
        return self.get(**{f"{self.model.USERNAME_FIELD}__iexact": username})


def exported_users(model):
    """What is exported of a user model, and what the user is told."""
    report = Report(with_secrets=False)
    with mock.patch.object(export_auth, "_user_model", return_value=model):
        return export_auth._users(report), " ".join(report.notes)


@isolate_apps("django.contrib.auth", "django.contrib.contenttypes")
def test_a_derived_user_model():
    class Person(AbstractBaseUser):
        name = models.CharField(max_length=20, unique=True)
        USERNAME_FIELD = "name"
        objects = BaseUserManager()

        class Meta:
            app_label = "shop"

    class Clerk(Person):
        class Meta:
            app_label = "shop"

    class Manager(Clerk):
        class Meta:
            app_label = "shop"

    class Late(Person):
        is_active = models.BooleanField(default=True)

        class Meta:
            app_label = "shop"

    users, notes = exported_users(Manager)
    assert (users["table"], users["pk_column"], users["pk_type"]) == (
        "shop_person",
        "id",
        "integer",
    )
    assert users["derived_tables"] == [
        {"table": "shop_manager", "pk_column": "clerk_ptr_id"},
        {"table": "shop_clerk", "pk_column": "person_ptr_id"},
    ]
    assert not notes
    assert "derived_tables" not in exported_users(Person)[0]
    with pytest.raises(Refused, match="shop_late, shop_person"):
        exported_users(Late)


@isolate_apps("django.contrib.auth", "django.contrib.contenttypes")
def test_what_a_user_model_decides_in_python_is_told():
    class Own(AbstractBaseUser):
        name = models.CharField(max_length=20, unique=True)
        USERNAME_FIELD = "name"
        objects = Hidden()

        class Meta:
            app_label = "shop"

        @property
        def is_active(self):
            return self.name != "mallory"

        def get_session_auth_hash(self):
            return "always the same"

    _, notes = exported_users(Own)
    for what in (
        "is_active is no column",
        "get_session_auth_hash of its own",
        "get_queryset of its own",
        "get_by_natural_key of its own",
    ):
        assert what in notes


# ------------------------------------------------------------------------------------------- docs

PAGE = (Path(__file__).parents[2] / "docs" / "rust-settings.md").read_text("utf-8")
SNIPPETS = dict(re.findall(r"<!-- test: (\w+) -->\n```\w+\n(.*?)```", PAGE, re.DOTALL))


def test_the_page_shows_the_file_that_is_written(database):
    """Each key of the page's file is one that the command writes."""
    database(
        ENGINE="django.db.backends.postgresql",
        **{"NAME": "x", "USER": "x", "PASSWORD": "x", "HOST": "x", "PORT": 1},
        OPTIONS={"sslmode": "require"},
    )
    cache = {
        "BACKEND": DJANGO_REDIS,
        "LOCATION": "redis://:x@a",
        "OPTIONS": {"SOCKET_TIMEOUT": 2},
    }
    tree = export(
        SESSION_ENGINE=f"{DJANGO}.cached_db",
        SECRET_KEY_FALLBACKS=["x"],
        CACHES={"default": cache},
    )

    def keys(table, path=""):
        for key, value in table.items():
            yield path + key
            if isinstance(value, dict):
                yield from keys(value, f"{path}{key}.")

    # As test_devices has it.
    tree["devices"] = {"database": "other", "table": "django_session_device"}
    assert set(keys(tomllib.loads(SNIPPETS["file"]))) <= set(keys(tree))
    options = set(re.findall(r"^\| `(--[a-z-]+)", PAGE, re.MULTILINE))
    assert options == {"--output", "--format", "--engine", "--with-secrets", "--check"}
