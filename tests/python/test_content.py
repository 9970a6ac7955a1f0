"""Nobody is ever given another's session: many tasks, threads and cancellations on one store.

Every session carries its owner inside, and who owns which key is known. What is read under a key
must be of its owner; a session that stays must be found, and one that was deleted must not.
"""

import asyncio
import contextlib
import os
import random
import threading
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor

import databases
import pytest
from asgiref.sync import async_to_sync
from differential import captured_logs
from django.contrib.sessions.backends.base import SessionBase, UpdateError
from django.core.cache import caches
from django.db import connection, connections
from django.db.backends.signals import connection_created
from django.test import override_settings
from django_rust_sessions.backends.cache import SessionStore as CacheStore
from django_rust_sessions.backends.cached_db import SessionStore as CachedDBStore
from django_rust_sessions.backends.db import SessionStore as DBStore
from django_rust_sessions.caches import step_aside
from django_rust_sessions.caches.redis import AsyncConnection

PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "default")
# Operations: over Redis for each alias, and with each database.
ON_REDIS = {"quick": 5_000, "default": 30_000, "full": 300_000}[PROFILE]
ON_DATABASE = {"quick": 1_000, "default": 1_500, "full": 100_000}[PROFILE]
TASKS, THREADS = 200, 64
STAYING = 20
ALIASES = {
    "django": "django.core.cache.backends.redis.RedisCache",
    "django-redis": "django_redis.cache.RedisCache",
}
DATABASES = ["sqlite-file", "postgresql", "mariadb"]

needs_async = pytest.mark.skipif(
    not hasattr(SessionBase, "aget"), reason="Django's sessions are async since 5.1"
)


@contextlib.contextmanager
def redis_cache(package, request):
    if package == "django-redis":
        pytest.importorskip("django_redis", reason="django-redis is not installed")
    url = request.getfixturevalue("redis_server")["url"]
    cache = {"BACKEND": ALIASES[package], "LOCATION": url}
    with override_settings(CACHES={"default": cache}):
        assert step_aside("default") is None
        yield
        caches["default"].clear()


@contextlib.contextmanager
def database(kind, request):
    blocker = request.getfixturevalue("django_db_blocker")
    settings = databases.settings_of(kind, request)
    connection_created.connect(do_not_wait_for_the_disk)
    try:
        with blocker.unblock(), databases.database("default", settings):
            yield
    finally:
        connection_created.disconnect(do_not_wait_for_the_disk)


def do_not_wait_for_the_disk(connection, **kwargs):
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA synchronous = OFF")


@pytest.fixture(params=ALIASES)
def over_redis(request):
    with redis_cache(request.param, request):
        yield


@pytest.fixture(params=DATABASES)
def over_database(request):
    with database(request.param, request):
        yield


@pytest.fixture
def over_both(request):
    with redis_cache("django", request), database("postgresql", request):
        yield


# --------------------------------------------------------------------------------- the operations


class WrongSession(AssertionError):
    pass


def is_of(owner, content):
    """Nothing in there is of anybody else."""
    return (
        isinstance(content, dict)
        and content.keys() <= {"owner", "text", "changed"}
        and content["owner"] == owner
        and not content["text"].replace(owner, "")
    )


class Site:
    """Sessions, and who owns them. Its operations are awaited, also where they never wait."""

    def __init__(self, store_class, *, is_async, seed=1):
        self.store_class, self.is_async = store_class, is_async
        self.random = random.Random(seed)
        self.owners = {}  # of every key that was ever given out
        self.alive: list[str] = []  # those that come and go
        self.staying: list[str] = []
        self.deleted: list[str] = []
        self.lock = threading.Lock()
        self.done = Counter()
        # A late answer of the cached_db engine's two stores may be older than a logout, in Django
        # as well as here: see its save().
        self.forgets = store_class is not CachedDBStore

    async def call(self, store, method, *args):
        if self.is_async:
            return await getattr(store, f"a{method}")(*args)
        return getattr(store, method)(*args)

    def new_content(self):
        owner = f"{self.random.getrandbits(128):032x}"
        return {"owner": owner, "text": owner * self.random.choice([0, 1, 10, 100, 1000])}

    def check(self, key, content):
        owner = self.owners[key]
        if content and not is_of(owner, content):
            raise WrongSession(f"{key} is of {owner}, and has {str(content)[:200]}")

    async def start(self):
        for _ in range(STAYING):
            await self.create(self.staying)
        for _ in range(STAYING):
            await self.create(self.alive)

    def choose(self):
        """A key, and whether its session must be there: True, False or None."""
        with self.lock:
            chance = self.random.random()
            if chance < 0.4:
                return self.random.choice(self.staying), True
            if chance < 0.5 and self.deleted:
                return self.random.choice(self.deleted[-100:]), False if self.forgets else None
            return self.random.choice(self.alive), None

    def take(self):
        """A session that may be deleted."""
        with self.lock:
            if len(self.alive) < 10:
                return None
            return self.alive.pop(self.random.randrange(len(self.alive)))

    async def load(self):
        key, is_there = self.choose()
        store = self.store_class(key)
        content = await self.call(store, "load")
        self.check(key, content)
        if is_there is not None and bool(content) is not is_there:
            raise WrongSession(f"{key} is there: {is_there}, but was read as {content}")
        if not content and store.session_key is not None and self.forgets:
            raise WrongSession("the key of a session that is not there was kept")

    async def save(self):
        key, is_there = self.choose()
        store = self.store_class(key)
        if await self.call(store, "get", "owner") is None:
            if is_there:
                raise WrongSession(f"{key} was lost")
            return
        self.check(key, store._session_cache)
        if self.is_async:
            await asyncio.sleep(0)
        await self.call(store, "update", {"changed": self.random.random()})
        try:
            await self.call(store, "save")
        except UpdateError:
            if is_there:
                raise WrongSession(f"{key} was lost before it was saved") from None

    async def create(self, where=None):
        store = self.store_class()
        content = self.new_content()
        await self.call(store, "create")
        await self.call(store, "update", content)
        await self.call(store, "save")
        key = store.session_key
        if self.owners.setdefault(key, content["owner"]) != content["owner"]:
            raise WrongSession("a new session has a known key")
        (self.alive if where is None else where).append(key)

    async def delete(self):
        if key := self.take():
            store = self.store_class(key)
            await self.call(store, self.random.choice(["delete", "flush"]))
            self.deleted.append(key)

    async def cycle_key(self):
        if key := self.take():
            store = self.store_class(key)
            if await self.call(store, "get", "owner") is None:
                return
            self.check(key, store._session_cache)
            await self.call(store, "cycle_key")
            if store.session_key == key:
                raise WrongSession("a cycled session has its old key")
            self.deleted.append(key)
            await self.call(store, "save")
            self.owners[store.session_key] = self.owners[key]
            self.alive.append(store.session_key)

    async def exists(self):
        key, is_there = self.choose()
        found = await self.call(self.store_class(), "exists", key)
        if is_there is not None and bool(found) is not is_there:
            raise WrongSession(f"{key} is there: {is_there}, but exists: {found}")
        if await self.call(self.store_class(), "exists", f"{self.random.getrandbits(128):032x}"):
            raise WrongSession("a session exists that never was")

    def choose_operation(self):
        name = self.random.choices(
            ["load", "save", "create", "delete", "cycle_key", "exists"], [40, 30, 9, 6, 5, 10]
        )[0]
        if name == "create" and len(self.alive) > 2 * STAYING:
            name = "delete"
        with self.lock:
            self.done[name] += 1
        return getattr(self, name)


# ------------------------------------------------------------------------------- tasks and threads


async def with_interruptions(site, operation):
    """Most are left in peace; others are cancelled at some moment, or soon out of time."""
    chance = site.random.random()
    if chance < 0.1:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(operation(), site.random.random() * 0.005)
    elif chance < 0.25:
        task = asyncio.ensure_future(operation())
        for _ in range(site.random.randrange(6)):
            await asyncio.sleep(0)
        if site.random.random() < 0.5:
            await asyncio.sleep(site.random.random() * 0.005)
        site.done["cancelled"] += task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    else:
        await operation()


async def play_async(site, operations):
    await site.start()
    left = iter(range(operations))

    async def visitor():
        for _ in left:
            await with_interruptions(site, site.choose_operation())

    visitors = [asyncio.ensure_future(visitor()) for _ in range(TASKS)]
    try:
        await asyncio.gather(*visitors)
    finally:
        for task in visitors:
            task.cancel()
    await check_all(site)


async def check_all(site):
    """In the end the sessions that stay are there, and those that were deleted are not."""
    for key in site.staying:
        content = await site.call(site.store_class(key), "load")
        assert content
        site.check(key, content)
    if site.forgets:
        for key in site.deleted[-1000:]:
            assert not await site.call(site.store_class(), "exists", key)


def run_now(operation):
    """Runs what never waits."""
    with contextlib.suppress(StopIteration):
        operation.send(None)
        raise AssertionError("it waits")


def play_threads(site, operations):
    run_now(site.start())
    left = iter(range(operations))

    def visitor():
        try:
            while True:
                with site.lock:
                    if next(left, None) is None:
                        return
                run_now(site.choose_operation()())
        finally:
            connections.close_all()

    with ThreadPoolExecutor(THREADS) as pool:
        for visit in [pool.submit(visitor) for _ in range(THREADS)]:
            visit.result()
    run_now(check_all(site))


def assert_right(play, store_class, operations, *, is_async):
    site = Site(store_class, is_async=is_async)
    # A session that could not be read would look as one that is not there.
    with captured_logs() as logs:
        play(site, operations)
    assert logs == []
    cancelled = site.done.pop("cancelled", 0)
    assert cancelled > operations / 20 or not is_async
    assert len(site.done) == 6
    assert site.done.total() == operations


def run_async(site, operations):
    asyncio.run(play_async(site, operations))


def run_async_with_database(site, operations):
    # The connection of this thread, as that of a request.
    async_to_sync(play_async)(site, operations)


# ------------------------------------------------------------------------------------------ tests


@needs_async
def test_tasks_over_redis(over_redis):
    assert_right(run_async, CacheStore, ON_REDIS, is_async=True)


def test_threads_over_redis(over_redis):
    assert_right(play_threads, CacheStore, ON_REDIS // 5, is_async=False)


@needs_async
def test_tasks_over_each_database(over_database):
    assert_right(run_async_with_database, DBStore, ON_DATABASE, is_async=True)


def test_threads_over_each_database(over_database):
    # Writers of an SQLite file wait for each other with a growing pause.
    operations = ON_DATABASE // (10 if connection.vendor == "sqlite" else 1)
    assert_right(play_threads, DBStore, operations, is_async=False)


@needs_async
def test_tasks_over_cache_and_database(over_both):
    assert_right(run_async_with_database, CachedDBStore, ON_DATABASE, is_async=True)


def test_threads_over_cache_and_database(over_both):
    assert_right(play_threads, CachedDBStore, ON_DATABASE, is_async=False)


@needs_async
def test_an_answer_that_slips_to_the_next_is_seen(over_redis, monkeypatch):
    """These tests can fail: here a task that is cancelled gives up its place in the line."""
    real_call = AsyncConnection.call

    def call(self, command):
        future = real_call(self, command)

        def give_up(future):
            if future.cancelled():
                self.waiting = deque(entry for entry in self.waiting if entry[0] is not future)

        future.add_done_callback(give_up)
        return future

    monkeypatch.setattr(AsyncConnection, "call", call)
    with pytest.raises(WrongSession):
        assert_right(run_async, CacheStore, 2_000, is_async=True)


class Logout:
    """One visitor's session in two requests, one of which logs out."""

    def __init__(self, store_class):
        self.saved = store_class()
        self.saved["owner"] = "me"
        self.saved.save()
        self.key = self.saved.session_key
        self.late, self.leaving = store_class(self.key), store_class(self.key)
        assert self.late["owner"] == self.leaving["owner"] == "me"
        self.late["changed"] = 1

    def assert_gone(self):
        assert not type(self.saved)().exists(self.key)
        assert type(self.saved)(self.key).load() == {}


def assert_late_save_is_refused(store_class):
    logout = Logout(store_class)
    logout.leaving.flush()
    with pytest.raises(UpdateError):
        logout.late.save()
    logout.assert_gone()


async def race(logouts):
    for logout in logouts:
        both = [logout.late.asave(), logout.leaving.aflush()]
        random.shuffle(both)
        for result in await asyncio.gather(*both, return_exceptions=True):
            assert result is None or isinstance(result, UpdateError)


def assert_late_save_loses_each_race(store_class):
    logouts = [Logout(store_class) for _ in range(100)]
    async_to_sync(race)(logouts)
    for logout in logouts:
        logout.assert_gone()


def test_a_late_save_does_not_undo_a_logout_over_redis(over_redis):
    assert_late_save_is_refused(CacheStore)


def test_a_late_save_does_not_undo_a_logout_in_a_database(over_database):
    assert_late_save_is_refused(DBStore)


def test_a_late_save_does_not_undo_a_logout_in_cache_and_database(over_both):
    assert_late_save_is_refused(CachedDBStore)


@needs_async
def test_a_save_and_a_logout_at_once_over_redis(over_redis):
    assert_late_save_loses_each_race(CacheStore)


@needs_async
def test_a_save_and_a_logout_at_once_in_a_database(over_database):
    assert_late_save_loses_each_race(DBStore)
