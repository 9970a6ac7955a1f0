"""The cache engine over each kind of Redis that a site may have in CACHES, beside Django's own."""

import asyncio
import contextlib
import json
import socket
import socketserver
import threading
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

import django_redis
import pytest
import redis
import servers
import switches
from asgiref.sync import async_to_sync, sync_to_async
from differential import outcome
from django.contrib.sessions.backends.cache import SessionStore as DjangoCacheStore
from django.contrib.sessions.models import Session
from django.core.cache import caches
from django.core.cache.backends.redis import RedisSerializer
from django.test import override_settings
from django.utils.functional import SimpleLazyObject
from django_rust_sessions.backends.cache import SessionStore as RustCacheStore
from django_rust_sessions.caches import native, step_aside
from django_rust_sessions.caches.resp import pack

STORES = [DjangoCacheStore, RustCacheStore]
ALIAS = "sessions"
BACKENDS = {
    "django": "django.core.cache.backends.redis.RedisCache",
    "django-redis": "django_redis.cache.RedisCache",
}
PACKAGES = {"msgpack": "msgpack", "lz4": "lz4", "zstd": "pyzstd"}
KEY, OTHER, UNKNOWN = "k" * 32, "o" * 32, "u" * 32
DATA = {"user": 7, "name": "Zoë", "nested": {"list": [1, 2.5, None, True]}, "long": "x" * 3000}

# Of memcached, about the prefix with a space. Here warnings are errors.
pytestmark = pytest.mark.filterwarnings("ignore:Cache key contains characters")
needs_async = pytest.mark.skipif(
    not hasattr(DjangoCacheStore, "aget"), reason="Django's sessions are async since 5.1"
)


class SecondProtocol(RedisSerializer):
    def __init__(self):
        super().__init__(protocol=2)


class JsonSerializer:
    def dumps(self, value):
        return json.dumps(value).encode()

    def loads(self, data):
        return json.loads(data)


class OwnPool(redis.ConnectionPool):
    pass


with contextlib.suppress(ImportError):  # its tests are skipped then
    from django_redis.client import DefaultClient

    class OwnClient(DefaultClient):
        pass


def backwards(key, prefix, version):
    return f"{version}/{key}/{prefix}"


thread = threading.local()


def tenants_key(key, prefix, version):
    """What the thread keeps says whose it is, as django-tenants' make_key does."""
    return f"{getattr(thread, 'tenant', 'nobody')}/{prefix}/{version}/{key}"


class TenantsSerializer(RedisSerializer):
    def dumps(self, value):
        return thread.tenant.encode() + super().dumps(value)

    def loads(self, data):
        return super().loads(data.removeprefix(thread.tenant.encode()))


# ------------------------------------------------------------------------- what stands in CACHES


def pool_options(package, **options):
    """Options that both packages hand to redis-py."""
    return options if package == "django" else {"CONNECTION_POOL_KWARGS": options}


def over_tls(where):
    options = servers.tls_options(where)
    return {**options, "ssl_cert_reqs": "required", "ssl_check_hostname": True}


def login(package, **words):
    if package == "django":
        return words
    if django_redis.VERSION < (7,):  # it has no USERNAME
        return {"CONNECTION_POOL_KWARGS": words}
    return {name.upper(): word for name, word in words.items()}


def at(name, field="url", change=str, **params):
    """A case that needs only an address of that server."""
    return lambda server, package: {"LOCATION": change(server(name)[field]), **params}


def with_options(make):
    """A case on the plain server, with options."""
    return lambda server, package: {
        "LOCATION": server("redis_server")["url"],
        "OPTIONS": make(package),
    }


def sentinel_over_tls(server, package):
    """As redis-py wants it: of `rediss://mymaster` it makes connections that ask no sentinel."""
    where = server("redis_sentinel_tls_server")
    tls = {"ssl": True, **over_tls(where)}
    options = {
        "CONNECTION_FACTORY": "django_redis.pool.SentinelConnectionFactory",
        "SENTINELS": [("127.0.0.1", port) for port in where["ports"][2:]],
        "SENTINEL_KWARGS": tls,
        "CONNECTION_POOL_KWARGS": tls,
    }
    return {"LOCATION": "redis://mymaster/0", "OPTIONS": options}


# name: what the alias has, for each package
ANY_PACKAGE = {
    "plain": at("redis_server"),
    "database in the path": at("redis_server", change=lambda url: url[:-1] + "3"),
    "database in the query": at("redis_server", change=lambda url: url[:-2] + "?db=4"),
    "database in the options": lambda server, package: {
        "LOCATION": server("redis_server")["url"][:-2],
        "OPTIONS": pool_options(package, db=5),
    },
    "unix socket": at("redis_server", "socket", "unix://{}?db=6".format),
    "prefix": at("redis_server", KEY_PREFIX="this site"),
    "prefix with a colon": at("redis_server", KEY_PREFIX="a:é:b"),
    "version": at("redis_server", VERSION=7),
    "key function": at("redis_server", KEY_FUNCTION=backwards),
    "key function by name": at("redis_server", KEY_FUNCTION="test_redis_servers.backwards"),
    "short timeout": at("redis_server", TIMEOUT=1),
    "no timeout": at("redis_server", TIMEOUT=None),
    "password in the URL": at("redis_password_server"),
    "user in the URL": at("redis_password_server", "user_url"),
    "password in the options": lambda server, package: {
        "LOCATION": "redis://127.0.0.1:{port}".format(**server("redis_password_server")),
        "OPTIONS": login(package, password=server("redis_password_server")["password"]),
    },
    "user in the options": lambda server, package: {
        "LOCATION": "redis://127.0.0.1:{port}".format(**server("redis_password_server")),
        "OPTIONS": login(
            package,
            username=server("redis_password_server")["user"],
            password=server("redis_password_server")["user_password"],
        ),
    },
    "unix socket with a password": lambda server, package: {
        "LOCATION": "unix://:{password}@{socket}".format(
            password=urllib.parse.quote(server("redis_password_server")["password"], ""),
            socket=server("redis_password_server")["socket"],
        ),
    },
    "TLS": lambda server, package: {
        "LOCATION": server("redis_tls_server")["url"],
        "OPTIONS": pool_options(package, **over_tls(server("redis_tls_server"))),
    },
    "TLS in the URL": lambda server, package: {
        "LOCATION": server("redis_tls_server")["url"]
        + "?"
        + urllib.parse.urlencode(over_tls(server("redis_tls_server")))
    },
    "TLS without asking who it is": lambda server, package: {
        "LOCATION": server("redis_tls_server")["url"],
        "OPTIONS": pool_options(
            package,
            **over_tls(server("redis_tls_server"))
            | {"ssl_cert_reqs": None, "ssl_check_hostname": False, "ssl_ca_certs": None},
        ),
    },
    "time limits": with_options(
        lambda package: pool_options(package, socket_timeout=3, socket_connect_timeout=3.5)
    ),
    "matters of redis-py": with_options(
        lambda package: pool_options(
            package, health_check_interval=30, socket_keepalive=True, client_name="site"
        )
    ),
    "few connections": with_options(lambda package: pool_options(package, max_connections=3)),
}
DJANGO_ONLY = {
    "second protocol": with_options(lambda _: {"serializer": SecondProtocol}),
    "serializer by name": with_options(
        lambda _: {"serializer": "test_redis_servers.JsonSerializer"}
    ),
    "serializer made before": with_options(lambda _: {"serializer": JsonSerializer()}),
}
DJANGO_REDIS_ONLY = {
    "PICKLE_VERSION": with_options(lambda _: {"PICKLE_VERSION": 2}),
    "time limits of its own": with_options(
        lambda _: {"SOCKET_TIMEOUT": 3, "SOCKET_CONNECT_TIMEOUT": 3}
    ),
    "exceptions ignored": with_options(lambda _: {"IGNORE_EXCEPTIONS": True}),
    **{
        name: with_options(lambda _, path=path: {"SERIALIZER": f"django_redis.serializers.{path}"})
        for name, path in {
            "json": "json.JSONSerializer",
            "msgpack": "msgpack.MSGPackSerializer",
        }.items()
    },
    **{
        name: with_options(lambda _, path=path: {"COMPRESSOR": f"django_redis.compressors.{path}"})
        for name, path in {
            "zlib": "zlib.ZlibCompressor",
            "gzip": "gzip.GzipCompressor",
            "lzma": "lzma.LzmaCompressor",
            "lz4": "lz4.Lz4Compressor",
            "zstd": "zstd.ZStdCompressor",
        }.items()
    },
}
UNDERSTOOD = [
    *((package, name, make) for package in BACKENDS for name, make in ANY_PACKAGE.items()),
    *(("django", name, make) for name, make in DJANGO_ONLY.items()),
    *(("django-redis", name, make) for name, make in DJANGO_REDIS_ONLY.items()),
]
# Last: what the reason must name.
NOT_UNDERSTOOD = [
    ("django", with_options(lambda _: {"pool_class": OwnPool}), "pool_class"),
    (
        "django",
        with_options(lambda _: {"pool_class": "test_redis_servers.OwnPool"}),
        "pool_class",
    ),
    ("django", with_options(lambda _: {"retry_on_timeout": True}), "retry_on_timeout"),
    ("django", with_options(lambda _: {"encoding": "latin-1"}), "encoding"),
    (
        "django-redis",
        with_options(lambda _: {"CONNECTION_POOL_KWARGS": {"retry_on_timeout": True}}),
        "retry_on_timeout",
    ),
    (
        "django-redis",
        with_options(lambda _: {"CONNECTION_POOL_CLASS": "redis.BlockingConnectionPool"}),
        "CONNECTION_POOL_CLASS",
    ),
    (
        "django-redis",
        with_options(lambda _: {"CLIENT_CLASS": "test_redis_servers.OwnClient"}),
        "CLIENT_CLASS",
    ),
    ("django-redis", with_options(lambda _: {"REPLICA_READ_ONLY": False}), "REPLICA_READ_ONLY"),
    ("django-redis", sentinel_over_tls, "SentinelConnectionFactory"),
]


def params_of(request, package, make):
    if package == "django-redis":
        pool = pytest.importorskip("django_redis.pool", reason="django-redis is not installed")
        # It keeps them by URL for all its caches, and would use another test's login.
        pool.ConnectionFactory._pools.clear()
    return {"BACKEND": BACKENDS[package], **make(request.getfixturevalue, package)}


def using(params):
    return override_settings(CACHES={"default": params, ALIAS: params}, SESSION_CACHE_ALIAS=ALIAS)


def raw_client(write=True):
    """redis-py's client as Django's cache has it: the same server, database and login."""
    cache = caches[ALIAS]
    if hasattr(cache, "_cache"):
        return cache._cache.get_client(write=write)
    return cache.client.get_client(write=write)


@pytest.fixture(
    params=[pytest.param(case, id=f"{case[0]}, {case[1]}".replace(" ", "-")) for case in UNDERSTOOD]
)
def understood(request):
    package, name, make = request.param
    if name in PACKAGES:
        pytest.importorskip(PACKAGES[name], reason=f"{PACKAGES[name]} is not installed")
    with using(params_of(request, package, make)):
        raw_client().flushdb()
        yield
        raw_client().flushdb()


@pytest.fixture(
    params=[
        pytest.param(case, id=f"{case[0]}-{case[2]}-{at}") for at, case in enumerate(NOT_UNDERSTOOD)
    ]
)
def not_understood(request):
    package, make, word = request.param
    with using(params_of(request, package, make)):
        raw_client().flushdb()
        yield word
        raw_client().flushdb()


# ------------------------------------------------------------------------------------- the story


def stored():
    """Each key with its bytes and the seconds that it has left."""
    client = raw_client()
    return {
        key: (_without_time(client.get(key)), client.pttl(key) / 1000) for key in client.scan_iter()
    }


def _without_time(value):
    # gzip writes down when it was.
    return value[:4] + value[8:] if value.startswith(b"\x1f\x8b") else value


def same_store(left, right, told_for):
    """A key that was written since a story began has had at most `told_for` seconds to grow old."""
    return left.keys() == right.keys() and all(
        left[key][0] == right[key][0] and abs(left[key][1] - right[key][1]) <= 1 + told_for
        for key in left
    )


class Teller:
    """Calls a store's methods, sync or async, and notes what came of each."""

    def __init__(self, store_class, is_async):
        self.store_class, self.is_async = store_class, is_async
        self.notes = []
        self.start = time.monotonic()

    def open(self, key=None, **values):
        store = self.store_class(key)
        if values:
            store._session_cache = dict(values)
        return store

    async def do(self, store, method, *args):
        value = error = None
        try:
            if self.is_async:
                value = await getattr(store, f"a{method}")(*args)
            else:
                value = getattr(store, method)(*args)
        except Exception as exc:
            error = (type(exc), str(exc))
        key = store.session_key
        self.notes.append((method, value, error, key if key in (KEY, OTHER, None) else "new"))
        await self.note_store()

    async def note_store(self):
        found = await asyncio.to_thread(stored)
        # A key that is drawn at random shall look the same in both stories.
        new = [key for key in found if not any(k.encode() in key for k in (KEY, OTHER))]
        assert len(new) <= 1
        self.notes.append({b"new" if key in new else key: found[key] for key in found})


async def story(teller):
    first = teller.open(KEY, **DATA)
    await teller.do(first, "save")  # not there: UpdateError
    await teller.do(first, "save", True)
    await teller.do(teller.open(KEY, other=1), "save", True)  # taken: CreateError
    for key in (KEY, UNKNOWN):
        await teller.do(teller.open(key), "exists", key)
        await teller.do(teller.open(key), "load")
    changed = teller.open(KEY)
    await teller.do(changed, "set_expiry", 600)
    await teller.do(changed, "save")
    await teller.do(teller.open(KEY), "load")
    eternal = teller.open(KEY)
    await teller.do(eternal, "set_expiry", 0)
    await teller.do(eternal, "save")
    await teller.do(eternal, "get_expiry_age")
    cycled = teller.open(KEY)
    await teller.do(cycled, "cycle_key")
    await teller.do(cycled, "delete")
    other = teller.open(OTHER, **DATA)
    await teller.do(other, "save", True)
    late = teller.open(OTHER)
    await teller.do(late, "get", "name")
    await teller.do(other, "delete")
    await teller.do(late, "save")  # deleted meanwhile: UpdateError
    await teller.do(late, "flush")
    expired = teller.open(OTHER, **DATA, _session_expiry=-5)
    await teller.do(expired, "save", True)
    await teller.do(expired, "load")
    created = teller.open()
    await teller.do(created, "set", "a", 1) if teller.is_async else created.update({"a": 1})
    await teller.do(created, "create")
    await teller.do(created, "delete")


def told(store_class, is_async):
    teller = Teller(store_class, is_async)
    asyncio.run(story(teller))
    assert not raw_client().keys()
    return teller.notes, time.monotonic() - teller.start


def assert_same_story(is_async):
    (expected, long), (found, long_too) = (told(store_class, is_async) for store_class in STORES)
    assert len(expected) == len(found)
    told_for = max(long, long_too)
    for step, (theirs, ours) in enumerate(zip(expected, found, strict=True)):
        same = same_store(theirs, ours, told_for) if isinstance(theirs, dict) else theirs == ours
        assert same, (step, theirs, ours, expected[step - 1])


# ------------------------------------------------------------------------------------------ tests


@pytest.mark.not_with("HASH_KEYS=sha256", "Django's engine finds nothing under hashed names")
def test_every_operation_leaves_in_redis_what_django_leaves(understood):
    assert step_aside(ALIAS) is None
    assert_same_story(is_async=False)


@needs_async
@pytest.mark.not_with("HASH_KEYS=sha256", "Django's engine finds nothing under hashed names")
def test_every_async_operation_leaves_in_redis_what_django_leaves(understood):
    assert_same_story(is_async=True)


@pytest.mark.not_with("HASH_KEYS=sha256", "Django's engine finds nothing under hashed names")
@needs_async
@pytest.mark.parametrize("own", ["KEY_FUNCTION", "serializer"])
@pytest.mark.parametrize("name", ["cache", "cached_db"])
@pytest.mark.django_db
@pytest.mark.not_with("HASH_KEYS=sha256", "Django's engine finds nothing under hashed names")
def test_what_looks_at_the_thread_is_called_there(redis_server, name, own, monkeypatch):
    monkeypatch.setattr(thread, "tenant", "ada", raising=False)
    params = {"BACKEND": BACKENDS["django"], "LOCATION": redis_server["url"]}
    if own == "KEY_FUNCTION":
        params[own] = tenants_key
    else:
        params["OPTIONS"] = {own: TenantsSerializer}
    stories = []
    with using(params):
        raw_client().flushdb()
        for package in ("django.contrib.sessions", "django_rust_sessions"):
            store_class = import_module(f"{package}.backends.{name}").SessionStore
            teller = Teller(store_class, is_async=True)
            async_to_sync(story)(teller)
            stories.append(teller.notes)
            Session.objects.all().delete()
        raw_client().flushdb()
    for theirs, ours in zip(*stories, strict=True):
        same = same_store(theirs, ours, 60) if isinstance(theirs, dict) else theirs == ours
        assert same, (theirs, ours)
    kept = [note for note in stories[1] if isinstance(note, dict)]
    keys = {key for note in kept for key in note} - {b"new"}
    assert keys
    assert own == "serializer" or all(key.startswith(b"ada/") for key in keys)


@needs_async
@pytest.mark.django_db
def test_a_value_that_asks_the_database_when_it_is_pickled(redis_server):
    async def story(store_class):
        store = store_class()
        await store.aset("lazy", SimpleLazyObject(Session.objects.count))
        await store.acreate()
        await store.aset("rows", Session.objects.all())
        await store.asave()
        found = await store_class(store.session_key).aload()
        return {name: await sync_to_async(repr)(value) for name, value in found.items()}

    params = {"BACKEND": BACKENDS["django"], "LOCATION": redis_server["url"]}
    with using(params):
        expected, found = (async_to_sync(story)(store_class) for store_class in STORES)
    assert found == expected == {"lazy": "0", "rows": "<QuerySet []>"}


def test_what_one_engine_writes_the_other_reads(understood, writer, reader):
    store = writer()
    store.update(DATA)
    store.save()
    read = reader(store.session_key)
    assert dict(read.items()) == DATA
    assert read.exists(store.session_key)
    read["more"] = 1
    read.save()
    switches.hear(ALIAS)
    assert dict(writer(store.session_key).items()) == {**DATA, "more": 1}
    read.delete()
    assert not writer().exists(store.session_key)
    switches.hear(ALIAS)
    assert writer(store.session_key).load() == {}


@pytest.mark.not_with("HASH_KEYS=sha256", "Django's engine finds nothing under hashed names")
def test_options_that_are_not_understood_are_named_and_work(not_understood):
    assert not_understood in step_aside(ALIAS)
    assert_same_story(is_async=False)


@needs_async
@pytest.mark.not_with("HASH_KEYS=sha256", "Django's engine finds nothing under hashed names")
def test_options_that_are_not_understood_work_in_async_code(not_understood):
    assert_same_story(is_async=True)


@pytest.mark.parametrize(
    ("package", "join"),
    [
        *((package, list) for package in BACKENDS),
        *((package, tuple) for package in BACKENDS),
        *((package, ",".join) for package in BACKENDS),
        ("django", ";".join),
    ],
)
def test_the_first_server_writes_and_the_others_read(
    request, package, join, redis_server, own_redis
):
    # They do not replicate, so that it shows who is asked.
    params = params_of(
        request, package, lambda *_: {"LOCATION": join([redis_server["url"], own_redis.url])}
    )
    for store_class in STORES:
        with (
            using(params),
            redis.Redis.from_url(redis_server["url"]) as first,
            redis.Redis.from_url(own_redis.url) as second,
        ):
            first.flushdb()
            assert step_aside(ALIAS) is None
            store = store_class()
            store.update(DATA)
            store.save()
            (key,) = first.keys()
            assert not second.keys()
            assert not store_class().exists(store.session_key)
            assert store_class(store.session_key).load() == {}
            second.set(key, first.get(key))
            assert store_class().exists(store.session_key)
            assert store_class(store.session_key).load() == DATA
            store_class().delete(store.session_key)
            assert (first.keys(), second.keys()) == ([], [key])
            second.flushdb()


WRONG = {
    "wrong password": lambda server, package: {
        "LOCATION": "redis://:wrong@127.0.0.1:{port}".format(**server("redis_password_server"))
    },
    "no password": lambda server, package: {
        "LOCATION": "redis://127.0.0.1:{port}".format(**server("redis_password_server"))
    },
    "another authority": lambda server, package: {
        "LOCATION": server("redis_tls_server")["url"],
        "OPTIONS": pool_options(
            package,
            **over_tls(server("redis_tls_server"))
            | {"ssl_ca_certs": server("redis_tls_server")["other_ca_certs"]},
        ),
    },
    "no authority": lambda server, package: {"LOCATION": server("redis_tls_server")["url"]},
    "another name": lambda server, package: {
        "LOCATION": server("redis_tls_server")["url"].replace("127.0.0.1", "localhost"),
        "OPTIONS": pool_options(package, **over_tls(server("redis_tls_server"))),
    },
    "no such database": at("redis_server", change=lambda url: url[:-1] + "99"),
    "no server": at("redis_server", "port", lambda _: "redis://127.0.0.1:1"),
    "no socket": at("redis_server", "port", lambda _: "unix:///no-such-socket"),
    "plain to TLS": at("redis_tls_server", "port", "redis://127.0.0.1:{}".format),
}


@pytest.mark.parametrize("package", BACKENDS)
@pytest.mark.parametrize("make", WRONG.values(), ids=[name.replace(" ", "-") for name in WRONG])
def test_a_server_that_refuses_is_the_same_error(request, package, make, monkeypatch):
    monkeypatch.setattr("redis.backoff.ExponentialWithJitterBackoff.compute", lambda *_: 0)
    with using(params_of(request, package, make)):
        assert step_aside(ALIAS) is None
        for method in (
            lambda store: store(KEY).save(must_create=True),
            lambda store: store().exists(KEY),
            lambda store: store().delete(KEY),
        ):
            theirs, ours = (outcome(method, store) for store in STORES)
            assert theirs.kind is not None
            assert issubclass(ours.kind, theirs.kind), (theirs, ours)
        theirs, ours = (outcome(lambda store: store(KEY).load(), store) for store in STORES)
        assert theirs.value == ours.value == {}
        # Django is silent.
        assert [(name, level) for name, level, _ in ours.logs] == [
            ("django.contrib.sessions", "ERROR")
        ]


def test_what_cannot_be_read_is_an_empty_session(redis_server, writer):
    with using({"BACKEND": BACKENDS["django"], "LOCATION": redis_server["url"]}):
        raw_client().flushdb()
        for value in (b"", b"garbage", b"\x80\x04garbage", b"12"):
            found = []
            for store_class in STORES:
                store = store_class(KEY)
                raw_client().set(caches[ALIAS].make_key(store.cache_key), value)
                found.append((outcome(store.load)[:2], store.session_key))
            assert found[0] == found[1], value


@needs_async
def test_a_subclass_has_its_say_in_key_and_life(redis_server):
    def with_its_own(base):
        class SessionStore(base):
            def get_expiry_age(self, **kwargs):
                return 11

            async def aget_expiry_age(self, **kwargs):
                return 22

            @property
            def cache_key(self):
                return f"sync-{self.session_key}"

            async def acache_key(self):
                return f"async-{self.session_key}"

        return SessionStore

    with using({"BACKEND": BACKENDS["django"], "LOCATION": redis_server["url"]}):
        for store_class in map(with_its_own, STORES):
            raw_client().flushdb()
            store = store_class()
            store["a"] = 1
            store.create()
            asyncio.run(store.asave(must_create=True))
            key = store.session_key
            assert store_class(key).load() == asyncio.run(store_class(key).aload()) == {"a": 1}
            assert raw_client().ttl(f":1:sync-{key}") == pytest.approx(11, abs=1)
            assert raw_client().ttl(f":1:async-{key}") == pytest.approx(22, abs=1)


def test_time_to_live_is_that_of_the_session(redis_server):
    with using({"BACKEND": BACKENDS["django"], "LOCATION": redis_server["url"], "TIMEOUT": 5}):
        left = []
        for store_class in STORES:
            raw_client().flushdb()
            store = store_class()
            store.set_expiry(1234)
            store.save()
            left += [seconds for _, seconds in stored().values()]
        assert left == [pytest.approx(1234, abs=1), pytest.approx(1234, abs=1)]
        start = time.monotonic()
        store.set_expiry(1)
        store.save()
        while RustCacheStore().exists(store.session_key) and time.monotonic() < start + 5:
            time.sleep(0.05)
        assert 0.9 < time.monotonic() - start < 3


def test_threads_have_no_common_limit_in_django(redis_server):
    """There each has a pool of its own, and never waits for another's connection."""
    params = {
        "BACKEND": BACKENDS["django"],
        "LOCATION": redis_server["url"],
        "OPTIONS": {"max_connections": 1},
    }

    def story(store_class):
        store = store_class()
        store["a"] = 1
        store.save()
        for _ in range(50):
            assert store_class(store.session_key)["a"] == 1
        caches[ALIAS].close()

    with using(params):
        for store_class in STORES:
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(story, [store_class] * 8))


def test_no_more_connections_than_the_project_allows(redis_server):
    # Of django-redis, whose pools all threads share.
    pytest.importorskip("django_redis")
    params = {
        "BACKEND": BACKENDS["django-redis"],
        "LOCATION": redis_server["url"],
        "OPTIONS": pool_options("django-redis", max_connections=2),
    }
    with using(params), redis.Redis.from_url(redis_server["url"]) as admin:
        cache = native(ALIAS)
        admin.delete("list")

        def wait():
            # Until somebody pushes to that list, or for so long.
            return cache.write.call(pack(b"BLPOP", b"list", b"3"))

        for _ in range(3):
            with ThreadPoolExecutor(2) as pool:
                waiting = [pool.submit(wait) for _ in range(2)]
                while admin.info("clients")["blocked_clients"] < 2:
                    time.sleep(0.01)
                with pytest.raises(redis.ConnectionError, match="Too many connections"):
                    cache.has_key(KEY)
                admin.rpush("list", "a", "b")
                with pytest.raises(redis.exceptions.InvalidResponse):  # a list is no reply here
                    waiting[0].result()
            # Those connections were given up, and others may take their place; as after this.
            assert not cache.has_key(KEY)
            admin.client_kill_filter(_type="normal", skipme=True)
            assert not cache.has_key(KEY)


@pytest.mark.parametrize("package", BACKENDS)
def test_a_password_that_nobody_asks_for(package, redis_server):
    """As in a site whose settings have one, on a machine where Redis has none."""
    address = redis_server["url"].replace("redis://", "redis://:needless@")
    with using({"BACKEND": BACKENDS[package], "LOCATION": address}):
        for store_class in STORES:
            store = store_class()
            store["a"] = 1
            store.save()
            assert store_class(store.session_key)["a"] == 1


class BeforeUsers(socketserver.StreamRequestHandler):
    """Between a client and Redis; answers a login with a name as Redis 5 did."""

    def handle(self):
        with socket.create_connection(self.server.redis) as redis_socket:
            answers = threading.Thread(target=self.pass_on, args=[redis_socket])
            answers.start()
            while line := self.rfile.readline():
                command = line
                for _ in range(int(line[1:])):
                    size = self.rfile.readline()
                    command += size + self.rfile.read(int(size[1:]) + 2)
                if command.startswith(b"*3\r\n$4\r\nAUTH"):
                    self.wfile.write(b"-ERR wrong number of arguments for 'auth' command\r\n")
                elif command.startswith((b"*5\r\n$5\r\nHELLO", b"*2\r\n$5\r\nHELLO")):
                    self.wfile.write(b"-ERR unknown command 'HELLO'\r\n")
                else:
                    redis_socket.sendall(command)
            redis_socket.shutdown(socket.SHUT_RDWR)
            answers.join()

    def pass_on(self, redis_socket):
        while data := redis_socket.recv(65536):
            self.wfile.write(data)


@needs_async
def test_a_server_that_knows_no_users(redis_password_server):
    where = redis_password_server
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), BeforeUsers) as proxy:
        proxy.redis, proxy.daemon_threads = (where["host"], where["port"]), True
        threading.Thread(target=proxy.serve_forever).start()
        password = urllib.parse.quote(where["password"], safe="")
        address = f"redis://:{password}@127.0.0.1:{proxy.server_address[1]}"
        params = {"BACKEND": BACKENDS["django"], "LOCATION": address}
        try:
            with using(params):
                store = RustCacheStore()
                store["a"] = 1
                store.save()
                assert RustCacheStore(store.session_key)["a"] == 1
                again = RustCacheStore(store.session_key)
                assert async_to_sync(again.aget)("a") == 1
        finally:
            proxy.shutdown()


@pytest.mark.parametrize("name", ["cache", "cached_db"])
@pytest.mark.parametrize("is_before", [True, False], ids=["before", "after"])
def test_a_class_that_chose_its_cache(name, is_before, redis_server, sqlite):
    """Also where it leaves out the __init__ of Django's engine, which would choose."""
    params = {"BACKEND": BACKENDS["django"], "LOCATION": redis_server["url"]}
    both = {"default": {**params, "KEY_PREFIX": "own"}, ALIAS: params}
    with override_settings(CACHES=both, SESSION_CACHE_ALIAS=ALIAS):
        raw_client().flushdb()
        for package in ("django.contrib.sessions", "django_rust_sessions"):
            base = import_module(f"{package}.backends.{name}").SessionStore

            class Store(base):
                def __init__(self, session_key=None, base=base):
                    if is_before:
                        self._cache = caches["default"]
                        super(base, self).__init__(session_key)
                    else:
                        super().__init__(session_key)
                        self._cache = caches["default"]

            store = Store()
            store["a"] = 1
            store.save()
            assert caches["default"].get(store.cache_key) == {"a": 1}
            assert all(key.startswith(b"own:") for key in stored())


@pytest.mark.parametrize("name", ["cache", "cached_db"])
def test_the_prefix_of_the_keys_is_in_the_module(name):
    ours, djangos = (
        import_module(f"{package}.backends.{name}")
        for package in ("django_rust_sessions", "django.contrib.sessions")
    )
    assert ours.KEY_PREFIX == djangos.KEY_PREFIX
