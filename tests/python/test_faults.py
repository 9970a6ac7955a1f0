"""What goes wrong with servers: it is the same error as with Django's engines, it is in the log,
the next request works again, and nobody is given another's session."""

import asyncio
import contextlib
import pickle
import re
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import databases
import pytest
import redis
from asgiref.sync import async_to_sync
from differential import DjangoStore, RustStore, captured_logs, outcome
from django.contrib.sessions.backends.base import SessionBase, UpdateError
from django.contrib.sessions.backends.cache import SessionStore as DjangoCacheStore
from django.contrib.sessions.backends.cached_db import SessionStore as DjangoCachedDBStore
from django.core.cache import caches
from django.db import close_old_connections, connection, connections, transaction
from django.test import override_settings
from django_rust_sessions.backends.cache import SessionStore as RustCacheStore
from django_rust_sessions.backends.cached_db import SessionStore as RustCachedDBStore
from django_rust_sessions.caches import step_aside

STORES = [DjangoCacheStore, RustCacheStore]
DB_STORES = {"db": [DjangoStore, RustStore], "cached_db": [DjangoCachedDBStore, RustCachedDBStore]}
BACKENDS = {
    "django": "django.core.cache.backends.redis.RedisCache",
    "django-redis": "django_redis.cache.RedisCache",
}
LIMIT, LONG_LIMIT = 0.3, 1.0  # seconds that Redis may take
KEY, OTHER = "k" * 32, "o" * 32

needs_async = pytest.mark.skipif(
    not hasattr(SessionBase, "aget"), reason="Django's sessions are async since 5.1"
)
modes = pytest.mark.parametrize(
    "is_async", [False, pytest.param(True, marks=needs_async)], ids=["sync", "async"]
)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    """redis-py waits between its tries for up to half a minute. We would wait for that."""
    monkeypatch.setattr("redis.backoff.ExponentialWithJitterBackoff.compute", lambda *_: 0)


def using(url, package="django", limit=LIMIT):
    """Sessions are in this Redis, natively."""
    limits = {"socket_timeout": limit, "socket_connect_timeout": limit}
    if package == "django-redis":
        pool = pytest.importorskip("django_redis.pool", reason="django-redis is not installed")
        pool.ConnectionFactory._pools.clear()  # by URL alone, for all tests
        limits = {name.upper(): value for name, value in limits.items()}
    cache = {"BACKEND": BACKENDS[package], "LOCATION": url, "OPTIONS": limits}
    return override_settings(CACHES={"default": cache})


@pytest.fixture(params=BACKENDS)
def own(request, own_redis):
    with using(own_redis.url, request.param):
        assert step_aside("default") is None
        yield own_redis


@pytest.fixture(params=BACKENDS)
def patient(request, own_redis):
    """Enough time also for a busy machine to answer within the limit."""
    with using(own_redis.url, request.param, limit=LONG_LIMIT):
        yield own_redis


def call(is_async, store, method, *args):
    """Of an async method, in a loop of its own."""
    if not is_async:
        return getattr(store, method)(*args)

    async def run():
        return await getattr(store, f"a{method}")(*args)

    return asyncio.run(run())


def saved(store_class, key, **values):
    """A session that carries its own key inside."""
    store = store_class(key)
    store._session_cache = {"key": key, **values}
    store.save(must_create=True)
    return store_class(key)


def causes(logs):
    return [(name, level) for name, level, _ in logs]


READ_FAILED = [("django.contrib.sessions", "ERROR")]


class LogCauses:
    """The exceptions in the log of sessions."""

    def __init__(self, caplog):
        self.caplog = caplog

    def __call__(self):
        return [record.exc_info[0] for record in self.caplog.records if record.exc_info]


@pytest.fixture
def logged(caplog):
    return LogCauses(caplog)


def assert_fails_like_django(is_async, kind, logged):
    """On a Redis that does not answer: what each method does."""
    for method, args in (("save", (True,)), ("save", ()), ("exists", (KEY,)), ("delete", (KEY,))):
        stores = [store_class(KEY) for store_class in STORES]
        for store in stores:
            store._session_cache = {"key": KEY}
        theirs, ours = (outcome(call, is_async, store, method, *args) for store in stores)
        assert issubclass(theirs.kind, kind)
        assert issubclass(ours.kind, theirs.kind), (theirs, ours)
    logged.caplog.clear()
    stores = [store_class(KEY) for store_class in STORES]
    theirs, ours = (outcome(call, is_async, store, "load") for store in stores)
    assert theirs.value == ours.value == {}
    assert stores[0].session_key is stores[1].session_key is None
    assert (theirs.logs, causes(ours.logs)) == ([], READ_FAILED)
    assert [issubclass(cause, kind) for cause in logged()] == [True]


# ------------------------------------------------------------------------- killed and started anew


@modes
def test_killed_between_two_requests(own, is_async, logged):
    stores = [saved(store_class, KEY[:-1] + str(n)) for n, store_class in enumerate(STORES)]
    assert all(store["key"] for store in stores)
    own.kill()
    assert_fails_like_django(is_async, redis.ConnectionError, logged)


@modes
@pytest.mark.parametrize("is_native", [True, False], ids=["native", "through Django"])
@pytest.mark.parametrize("merge", [False, True], ids=["no merge", "merge"])
@pytest.mark.parametrize("hash_keys", [None, "sha256", "plain"])
def test_what_could_not_be_loaded_for_a_save_is_not_taken_for_gone(
    own_redis, settings, hash_keys, merge, is_native, is_async
):
    options = {} if is_native else {"pool_class": "redis.BlockingConnectionPool"}
    cache = {"BACKEND": BACKENDS["django"], "LOCATION": own_redis.url, "OPTIONS": options}
    settings.CACHES = {"default": cache}
    assert (step_aside("default") is None) == is_native
    settings.RUST_SESSIONS = {"HASH_KEYS": hash_keys, "MERGE": merge}

    def save_both():
        return [outcome(call, is_async, store, "save").kind for store in stores]

    own_redis.kill()
    stores = [store_class(KEY) for store_class in STORES]
    theirs, ours = save_both()
    assert issubclass(theirs, redis.ConnectionError)
    assert issubclass(ours, theirs)
    states = [(s.session_key, s.accessed, hasattr(s, "_session_cache")) for s in stores]
    assert states[0] == states[1]
    # The same one goes on when it answers again.
    own_redis.start()
    assert save_both() == [UpdateError] * 2
    assert stores[1].session_key == KEY
    saved(RustCacheStore, KEY)
    assert outcome(call, is_async, stores[1], "save").kind is None
    assert stores[1]["key"] == KEY


@modes
def test_killed_while_it_is_asked(patient, is_async, logged):
    saved(RustCacheStore, KEY)
    patient.pause()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(call, is_async, RustCacheStore(KEY), "exists", KEY)
        time.sleep(LONG_LIMIT / 5)
        patient.kill()
        with pytest.raises(redis.ConnectionError):
            waiting.result(LONG_LIMIT * 4)
    assert_fails_like_django(is_async, redis.ConnectionError, logged)


def test_started_anew_it_is_asked_again(own):
    for store_class in STORES:
        # As many connections as threads, all of which are lost.
        together = threading.Barrier(8)

        def ask(number, together=together, store_class=store_class):
            together.wait(10)
            return store_class().exists(KEY)

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(ask, range(8))) == [False] * 8
        own.kill()
        own.start()
        with captured_logs() as logs:
            saved(store_class, KEY, number=1)
            assert store_class(KEY).load() == {"key": KEY, "number": 1}
        assert logs == []
        store_class().delete(KEY)


def is_listening(connection):
    """Whether a process hears there what has changed, of which it has one with LOCAL_CACHE."""
    return "B" in connection["flags"]


@needs_async
def test_started_anew_it_is_asked_again_by_tasks(own):
    async def story():
        assert not await RustCacheStore().aexists(KEY)
        await asyncio.to_thread(own.kill)
        await asyncio.to_thread(own.start)
        store = RustCacheStore(KEY)
        await store.aupdate({"key": KEY})
        store._session_cache = {"key": KEY}
        await store.asave(must_create=True)
        await asyncio.to_thread(own.kill)
        await asyncio.to_thread(own.start)
        results = await asyncio.gather(*(RustCacheStore().aexists(KEY) for _ in range(50)))
        assert results == [False] * 50
        with redis.Redis.from_url(own.url) as client:
            # One connection for them all; the other is that of the test.
            asking = [each for each in client.client_list() if not is_listening(each)]
            assert len(asking) == 2

    with captured_logs() as logs:
        asyncio.run(story())
    # The first load of an unknown key is no failure.
    assert logs == []


@modes
def test_it_comes_back_in_the_middle_of_many(own, is_async):
    """Requests that are on their way may fail. None gets what is not its own."""
    keys = [f"{number:032}" for number in range(64)]
    for key in keys:
        saved(RustCacheStore, key)
    stop = time.monotonic() + 1.5
    wrong, failed = [], []

    def visit(key):
        while time.monotonic() < stop:
            check(key, RustCacheStore(key).load())
            try:
                saved(RustCacheStore, key)
            except Exception as error:
                failed.append(error)

    async def avisit(key):
        while time.monotonic() < stop:
            check(key, await RustCacheStore(key).aload())
            store = RustCacheStore(key)
            store._session_cache = {"key": key}
            try:
                await store.asave(must_create=True)
            except Exception as error:
                failed.append(error)
            await asyncio.sleep(0)

    async def all_visit():
        await asyncio.gather(*map(avisit, keys))

    def check(key, content):
        if content not in ({}, {"key": key}):
            wrong.append((key, content))

    with ThreadPoolExecutor(65) as pool, captured_logs():
        visits = [pool.submit(asyncio.run, all_visit())] if is_async else []
        visits = visits or [pool.submit(visit, key) for key in keys]
        time.sleep(0.5)
        own.kill()
        own.start()
        for each in visits:
            each.result(30)
    assert wrong == []
    kinds = {type(error).__name__ for error in failed}
    assert kinds <= {"CreateError", "ConnectionError", "TimeoutError"}, kinds
    assert RustCacheStore(KEY).load() == {}
    assert saved(RustCacheStore, KEY).load() == {"key": KEY}


# ------------------------------------------------------------------------------------------ paused


@pytest.mark.not_with("LOCAL_CACHE", "what is known is handed out for another second")
@modes
def test_paused_for_too_long(own, is_async, logged):
    saved(RustCacheStore, KEY)
    saved(RustCacheStore, OTHER)
    call(is_async, RustCacheStore(KEY), "load")
    own.pause()
    start = time.monotonic()
    ours = outcome(call, is_async, RustCacheStore(KEY), "load")
    assert LIMIT * 0.9 < time.monotonic() - start < LIMIT * 3
    assert (ours.value, causes(ours.logs)) == ({}, READ_FAILED)
    assert_fails_like_django(is_async, redis.TimeoutError, logged)
    own.resume()
    # Not the answer to an earlier question.
    for key in (OTHER, KEY, OTHER):
        found = outcome(call, is_async, RustCacheStore(key), "load")
        # The server did the rest of what it was asked before: delete, for one.
        assert found.value in ({"key": key}, {})
        assert found.value or key == KEY


@pytest.mark.not_with("LOCAL_CACHE", "what is known is handed out for another second")
@needs_async
def test_paused_for_too_long_with_many_tasks(patient):
    keys = [f"{number:032}" for number in range(50)]
    for key in keys:
        saved(RustCacheStore, key)

    async def load_all(keys):
        return await asyncio.gather(*(RustCacheStore(key).aload() for key in keys))

    async def story():
        expected = [{"key": key} for key in keys]
        assert await load_all(keys) == expected
        patient.pause()
        start = time.monotonic()
        with captured_logs() as logs:
            assert await load_all(keys) == [{}] * 50
        assert time.monotonic() - start < LONG_LIMIT * 4
        assert causes(logs) == READ_FAILED * 50
        patient.resume()
        assert await load_all(keys[::-1]) == expected[::-1]

        # Within the limit nobody notices, and who was cancelled leaves nothing to the others.
        patient.pause()
        cancelled = [asyncio.ensure_future(RustCacheStore(key).aload()) for key in keys]
        await asyncio.sleep(0.01)
        for task in cancelled[::2]:
            task.cancel()
        waiting = asyncio.ensure_future(load_all(keys))
        await asyncio.sleep(LONG_LIMIT / 5)
        patient.resume()
        assert await waiting == expected
        found = await asyncio.gather(*cancelled, return_exceptions=True)
        assert found[1::2] == expected[1::2]
        assert all(isinstance(error, asyncio.CancelledError) for error in found[::2])

    asyncio.run(story())


@needs_async
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_busy_event_loop_is_not_redis(patient, loop):
    """What other tasks take of the time is not Redis's, before the question goes out or after."""
    new_loop = asyncio.new_event_loop
    if loop == "uvloop":
        new_loop = pytest.importorskip("uvloop", reason="uvloop is not installed").new_event_loop
    keys = [f"{number:032}" for number in range(50)]
    for key in keys:
        saved(RustCacheStore, key, text="x" * 100_000)

    async def keep_busy(turns):
        for _ in range(turns):
            await asyncio.sleep(0)
        time.sleep(LONG_LIMIT * 1.2)

    async def story():
        await RustCacheStore(KEY).aload()
        for turns in range(4):
            loads = [RustCacheStore(key).aload() for key in keys]
            *found, _ = await asyncio.gather(*loads, keep_busy(turns))
            assert [each.get("key") for each in found] == keys, turns

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(story())


def test_paused_within_the_limit(patient):
    saved(RustCacheStore, KEY)
    patient.pause()
    resume = threading.Timer(LONG_LIMIT / 5, patient.resume)
    resume.start()
    assert RustCacheStore(KEY).load() == {"key": KEY}
    resume.join()


@pytest.mark.parametrize("alias_says", [True, False])
def test_the_time_limit_is_the_aliass_or_ours(own_redis, alias_says):
    limits = {"socket_timeout": 0.2} if alias_says else {}
    cache = {"BACKEND": BACKENDS["django"], "LOCATION": own_redis.url, "OPTIONS": limits}
    ours = {"REDIS_TIMEOUT": 30.0 if alias_says else 0.2}
    with override_settings(CACHES={"default": cache}, RUST_SESSIONS=ours):
        assert not RustCacheStore().exists(KEY)
        own_redis.pause()
        start = time.monotonic()
        with pytest.raises(redis.TimeoutError):
            RustCacheStore().exists(KEY)
        assert 0.15 < time.monotonic() - start < 2


# ------------------------------------------------------------------------------------------- full


@pytest.mark.parametrize("package", BACKENDS)
@modes
@pytest.mark.not_with("HASH_KEYS=sha256", "Django's engine finds nothing under hashed names")
def test_out_of_memory(redis_maxmemory_server, package, is_async):
    with (
        using(redis_maxmemory_server["url"], package),
        redis.Redis.from_url(redis_maxmemory_server["url"]) as client,
    ):
        client.flushall()
        saved(RustCacheStore, KEY)
        limit = client.config_get("maxmemory")["maxmemory"]
        client.config_set("maxmemory", "1kb")  # less than it has in use
        for must_create, key in ((True, OTHER), (False, KEY)):
            stores = [store_class(key) for store_class in STORES]
            for store in stores:
                store._session_cache = {"key": key}
            theirs, ours = (outcome(call, is_async, store, "save", must_create) for store in stores)
            assert theirs.kind is ours.kind is redis.OutOfMemoryError
        assert call(is_async, RustCacheStore(KEY), "load") == {"key": KEY}
        assert call(is_async, RustCacheStore(), "delete", KEY) is None
        client.config_set("maxmemory", limit)
        assert saved(RustCacheStore, KEY).load() == {"key": KEY}
        client.flushall()


# ------------------------------------------------------------------------ what speaks no such thing


class Peer:
    """A server that may answer as it likes. Without instructions: each GET with its own session."""

    def __init__(self):
        self.answer = None  # bytes, or a function that is given the connection and the key
        self.closed = threading.Semaphore(0)  # one for each connection that the client ended
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self.listener.getsockname()[1]}"
        self.connections = []
        self.listening = threading.Thread(target=self.listen, daemon=True)
        self.listening.start()

    def listen(self):
        with contextlib.suppress(OSError):
            while True:
                connected, _ = self.listener.accept()
                self.connections.append(connected)
                threading.Thread(target=self.serve, args=[connected], daemon=True).start()

    def serve(self, connected):
        found = None
        with contextlib.suppress(OSError):
            while question := connected.recv(65536):
                found = re.search(rb"cache(\w{32})", question)
                # With LOCAL_CACHE there is a connection that asks for no session, but for news.
                key = found[1].decode() if found else OTHER
                if self.answer is None and not found:
                    connected.sendall(b"-ERR unknown command\r\n")
                elif callable(self.answer):
                    self.answer(connected, key)
                elif self.answer is not None:
                    connected.sendall(self.answer)
                else:
                    connected.sendall(session_of(key))
        if found:
            self.closed.release()

    def stop(self):
        self.listener.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self.listening.join()
        self.listener.close()
        for connected in self.connections:
            with contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)
            connected.close()


def session_of(key):
    data = pickle.dumps({"key": key})
    return b"$%d\r\n%b\r\n" % (len(data), data)


@pytest.fixture
def peer():
    peer = Peer()
    with using(peer.url):
        yield peer
    peer.stop()


def close(connected, key):
    connected.shutdown(socket.SHUT_RDWR)


def half_and_close(connected, key):
    connected.sendall(session_of(key)[:-10])
    connected.shutdown(socket.SHUT_RDWR)


def pour(connected, key):
    while True:
        connected.sendall(b"x" * 100_000)


def pour_replies(connected, key):
    while True:
        connected.sendall(session_of(OTHER) * 1000)


def drip(connected, key):
    connected.sendall(b"$400000000\r\n")
    for _ in range(1000):
        connected.sendall(b"x" * 1000)


HOSTILE = {
    "garbage": b"\x00\xff\x17 garbage\r\n",
    "HTTP": b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\r\n",
    "half a line": b"$1",
    "half a reply": session_of(OTHER)[:-10],
    "nothing": b"",
    "longer than announced": session_of(OTHER)[:-2] + b"more\r\n",
    "a huge length": b"$99999999999999\r\n",
    "a length below zero": b"$-7\r\n",
    "no length": b"$many\r\n",
    "a list": b"*1\r\n" + session_of(OTHER),
    "two replies": session_of(OTHER) * 2,
    "an error": b"-ERR not today\r\n",
    "an error of a cluster": b"-MOVED 1 127.0.0.1:1\r\n",
    "still loading": b"-LOADING Redis is loading the dataset in memory\r\n",
    "an error that is no text": b"-\xff\xfe\r\n",
    "it closes": close,
    "half and it closes": half_and_close,
    "no end": pour,
    "replies without end": pour_replies,
    "a long reply that never ends": drip,
    # These are replies, and no answers to what was asked.
    "a number": b":1\r\n",
    "a number that is none": b":x\r\n",
}


@pytest.mark.parametrize("name", HOSTILE)
@modes
@pytest.mark.not_with("HASH_KEYS=sha256", "the server of the test knows keys, not names")
def test_a_hostile_peer(peer, is_async, name, monkeypatch):
    """An error and no hang; little memory; and the next request is not touched by it."""
    peer.answer = HOSTILE[name]
    tracemalloc.start()
    try:
        start = time.monotonic()
        store = RustCacheStore(KEY)
        found = outcome(call, is_async, store, "load")
        assert found.value == {}, found
        assert store.session_key is None
        assert causes(found.logs) == READ_FAILED
        refused = outcome(call, is_async, RustCacheStore(), "delete", KEY)
        assert time.monotonic() - start < 4 * LIMIT + 2
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
    if name != "a number":
        assert issubclass(refused.kind, redis.RedisError), refused
    peer.answer = None
    for key in (OTHER, KEY):
        assert call(is_async, RustCacheStore(key), "load") == {"key": key}


@modes
@pytest.mark.not_with("HASH_KEYS=sha256", "the server of the test knows keys, not names")
def test_an_answer_to_no_question_is_given_to_nobody(peer, is_async):
    """One more reply comes after the right one, when the connection is idle again."""

    def answer_and_add(connected, key):
        connected.sendall(session_of(key))
        time.sleep(0.05)
        connected.sendall(session_of(OTHER))

    async def load(key):
        return await RustCacheStore(key).aload()

    async def story():
        assert await load(KEY) == {"key": KEY}
        await asyncio.sleep(0.2)
        peer.answer = None
        assert await load(KEY) == {"key": KEY}

    peer.answer = answer_and_add
    with captured_logs() as logs:
        if is_async:
            asyncio.run(story())
        else:
            assert RustCacheStore(KEY).load() == {"key": KEY}
            time.sleep(0.2)
            peer.answer = None
            assert RustCacheStore(KEY).load() == {"key": KEY}
    assert logs == []
    # The connection with more in it is not used again.
    assert peer.closed.acquire(timeout=5)


@pytest.mark.not_with("HASH_KEYS=sha256", "the server of the test knows keys, not names")
def test_what_is_no_reply_ends_the_connection(peer):
    for name in ("garbage", "a huge length", "two replies", "a list", "half a line"):
        peer.answer = HOSTILE[name]
        assert RustCacheStore(KEY).load() == {}
        assert peer.closed.acquire(timeout=5), name


# ------------------------------------------------------------------------------- the database's end


@pytest.fixture(params=["postgresql", "mariadb"])
def database(request, django_db_blocker, redis_server):
    settings = databases.settings_of(request.param, request)
    with (
        django_db_blocker.unblock(),
        databases.database("default", settings),
        using(redis_server["url"]),
    ):
        yield request.param
        caches["default"].clear()


def cut(database):
    """The server ends our connection."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_backend_pid()" if database == "postgresql" else "SELECT CONNECTION_ID()"
        )
        (number,) = cursor.fetchone()
    kill = "SELECT pg_terminate_backend(%s)" if database == "postgresql" else "KILL %s"
    other = connections["default"].copy()
    try:
        with other.cursor() as cursor:
            cursor.execute(kill, [number])
    finally:
        other.close()
    time.sleep(0.1)


# What is called, with which arguments.
ON_DATABASE = {
    "load": lambda store: [store.load],
    "save": lambda store: [store.save],
    "create": lambda store: [store.save, True],
    "exists": lambda store: [store.exists, OTHER],
    "delete": lambda store: [store.delete],
    "in a transaction": lambda store: [in_transaction, store],
}
ASYNC_ON_DATABASE = {
    "load": lambda store: [async_to_sync(store.aload)],
    "save": lambda store: [async_to_sync(store.asave)],
    "create": lambda store: [async_to_sync(store.asave), True],
    "exists": lambda store: [async_to_sync(store.aexists), OTHER],
    "delete": lambda store: [async_to_sync(store.adelete)],
}


def in_transaction(store):
    with transaction.atomic():
        store.save()


@pytest.mark.parametrize("engine", DB_STORES)
@pytest.mark.parametrize(
    ("name", "is_async"),
    [
        *((name, False) for name in ON_DATABASE),
        *(pytest.param(name, True, marks=needs_async) for name in ASYNC_ON_DATABASE),
    ],
)
@pytest.mark.not_with("HASH_KEYS=sha256", "Django's engine finds nothing under hashed names")
def test_the_connection_of_the_database_is_cut(database, engine, name, is_async):
    found = []
    for store_class in DB_STORES[engine]:
        saved(store_class, KEY)
        caches["default"].clear()
        store = store_class(OTHER if name == "create" else KEY)
        if name not in ("load", "exists"):
            store._session_cache = {"key": KEY}
        cut(database)
        happened = outcome(*(ASYNC_ON_DATABASE[name] if is_async else ON_DATABASE[name])(store))
        # As at the end of each request.
        close_old_connections()
        assert store_class(KEY).load() == {"key": KEY}
        found.append((happened.value, happened.kind, happened.logs, store.session_key))
        store_class().delete(KEY)
    assert found[0] == found[1]
    assert found[0][1] is not None


# ------------------------------------------------------------------------------------------- forks

FORK = """
import asyncio, os, sys
from django.conf import settings
settings.configure(
    CACHES={"default": {"BACKEND": sys.argv[1], "LOCATION": sys.argv[2]}},
    INSTALLED_APPS=["django.contrib.sessions"],
)
import django
django.setup()
from django_rust_sessions.backends.cache import SessionStore
from django_rust_sessions.caches import step_aside

assert step_aside("default") is None

def use(who):
    for number in range(200):
        store = SessionStore()
        store["who"] = f"{who} {number}"
        store.save()
        assert SessionStore(store.session_key).load() == {"who": f"{who} {number}"}

async def ause(who):
    async def one(number):
        store = SessionStore()
        await store.aset("who", f"{who} {number}")
        await store.asave()
        assert await SessionStore(store.session_key).aload() == {"who": f"{who} {number}"}
    await asyncio.gather(*(one(number) for number in range(50)))

def fork(*uses):
    child = os.fork()
    try:
        for use in uses:
            use("child" if child == 0 else "parent")
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)
    if child == 0:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0

use("before")
fork(use)
if hasattr(SessionStore, "aload"):
    run = lambda who: asyncio.run(ause(who))
    run("before")
    fork(run, use)
    # The loop was used, and is still open. Parent and child each go on in one of their own.
    loop = asyncio.new_event_loop()
    loop.run_until_complete(ause("before"))
    fork(run, use)
    loop.run_until_complete(ause("parent"))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()

    # In the middle: the parent waits for an answer while the child asks with its own connection.
    async def in_the_middle():
        await ause("before")
        waiting = [asyncio.ensure_future(ause("parent")) for _ in range(5)]
        await asyncio.sleep(0)
        child = os.fork()
        if child == 0:
            try:
                use("child")
            except BaseException:
                os._exit(1)
            os._exit(0)
        await asyncio.gather(*waiting)
        await ause("parent")
        assert os.waitpid(child, 0)[1] == 0
    asyncio.run(in_the_middle())
print("fine")
"""


@pytest.mark.parametrize("package", BACKENDS)
def test_a_fork_in_the_middle_of_use(redis_server, package):
    if package == "django-redis":
        pytest.importorskip("django_redis", reason="django-redis is not installed")
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORK, BACKENDS[package], redis_server["url"]],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parent,
    )
    assert (result.stdout, result.stderr, result.returncode) == ("fine\n", "", 0)


# ------------------------------------------------------------------ cached_db without its cache


@pytest.fixture
def cache_down(own_redis, django_db_blocker):
    settings = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    with (
        django_db_blocker.unblock(),
        databases.database("default", settings),
        using(own_redis.url, limit=LONG_LIMIT),
    ):
        yield own_redis


@modes
@pytest.mark.not_with("HASH_KEYS=sha256", "Django's engine finds nothing under hashed names")
def test_the_database_goes_on_without_the_cache(cache_down, is_async):
    def run(store, method, *args):
        if is_async:
            return outcome(async_to_sync(getattr(store, f"a{method}")), *args)
        return outcome(getattr(store, method), *args)

    for store_class in DB_STORES["cached_db"]:
        saved(store_class, KEY if store_class is RustCachedDBStore else OTHER)
    cache_down.kill()
    stories = []
    for store_class, key in zip(DB_STORES["cached_db"], (OTHER, KEY), strict=True):
        story = []
        for method, args in (
            ("save", ()),
            ("exists", (key,)),
            ("save", (True,)),
            ("delete", ()),
        ):
            store = store_class(key)
            store._session_cache = {"key": key, "changed": 1}
            found = run(store, method, *args)
            story.append((method, found.value, found.kind, causes(found.logs)))
        stories.append(story)
    assert stories[1][0] == ("save", None, None, [("django.contrib.sessions", "ERROR")])
    if not hasattr(SessionBase, "aget"):
        # Django fails here before 5.1. The session is in the database: ours goes on.
        stories = [[note for note in story if note[0] != "save"] for story in stories]
    assert stories[0] == stories[1]

    # Django fails when it fills the cache; here the request goes on.
    for key in ("e" * 32, "f" * 32):
        saved(RustStore, key)
    theirs = run(DjangoCachedDBStore("e" * 32), "load")
    ours = run(RustCachedDBStore("f" * 32), "load")
    assert issubclass(theirs.kind, redis.ConnectionError)
    assert ours.value == {"key": "f" * 32}
    assert {record[:2] for record in ours.logs} == {("django.contrib.sessions", "ERROR")}
    assert any("Error saving to cache" in text for _, _, text in ours.logs)


NO_KEYS = ["a" * 300, "bad key\x01xxxx", "é" * 120]  # by the rules of memcached


@modes
@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("stores", [STORES, DB_STORES["cached_db"]], ids=["cache", "cached_db"])
def test_a_cookie_that_is_no_key_of_memcached_is_no_error(
    memcached_server, db, settings, stores, merge, is_async
):
    """Or each visitor could fill the log, and the mailbox of the admins."""

    def load(store):
        found = outcome(async_to_sync(store.aload)) if is_async else outcome(store.load)
        return found, store.session_key

    backend = "django.core.cache.backends.memcached.PyMemcacheCache"
    where = f"{memcached_server['host']}:{memcached_server['port']}"
    settings.RUST_SESSIONS = {**settings.RUST_SESSIONS, "MERGE": merge}
    settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": where}}
    for key in NO_KEYS:
        theirs, ours = (load(store(key)) for store in stores)
        assert theirs == ours == (({}, None, []), None)
    # One that is down is another matter.
    settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": "127.0.0.1:1"}}
    if stores[1] is RustCachedDBStore or merge:
        assert causes(load(stores[1](KEY))[0].logs) == READ_FAILED


@needs_async
@pytest.mark.parametrize("engine", [RustCacheStore, RustCachedDBStore])
@pytest.mark.parametrize("method", ["exists", "load", "save", "delete"])
def test_the_event_loop_goes_on_while_redis_does_not_answer(cache_down, engine, method):
    saved(engine, KEY)

    async def story():
        longest = 0.0

        async def tick():
            nonlocal longest
            last = time.monotonic()
            while True:
                await asyncio.sleep(0.005)
                longest = max(longest, time.monotonic() - last)
                last = time.monotonic()

        ticking = asyncio.ensure_future(tick())
        store = engine(KEY)
        store._session_cache = {"key": KEY}
        cache_down.pause()
        start = time.monotonic()
        with contextlib.suppress(redis.TimeoutError), captured_logs():
            await getattr(store, f"a{method}")(*([KEY] if method == "exists" else []))
        waited = time.monotonic() - start
        ticking.cancel()
        cache_down.resume()
        return waited, longest

    waited, longest = async_to_sync(story)()
    assert waited > LONG_LIMIT * 0.9
    assert longest < LONG_LIMIT * 0.7
