"""Each engine against Django's, through the same random operations, each on a store of its own.

Django's engine writes to one store and ours to another that started equal. After each operation
all is compared: what it returned, raised and logged, the session objects, the stores' content and
time to live, the number of queries. And each store is read by the engine that did not write it.
"""

import contextlib
import datetime
import itertools
import json
import re
import time
from importlib import import_module
from typing import Any, NamedTuple

import hypothesis
import pytest
import switches
from asgiref.sync import async_to_sync, sync_to_async
from differential import captured_logs, same
from django.contrib.sessions.backends import base
from django.db import DatabaseError, connection, reset_queries, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django_rust_sessions.backends import merge
from stateful import stores
from stateful.operations import Key, Op, operations

# hypothesis collects garbage in the midst of a test: what threads that ended held of Django's cache
# clients is found in any order, a socket before the client that would close it. Ours has none.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

EXAMPLES = max(5, hypothesis.settings.default.max_examples // 40)
# To explain a failure takes minutes.
HASH_KEYS = switches.ON.get("HASH_KEYS")
MERGE = switches.ON.get("MERGE", False)
PHASES = set(hypothesis.Phase) - {hypothesis.Phase.explain}
# Known before any session is.
UNKNOWN_KEY = "unknown0unknown0"
# Ours says why a session could not be read, where Django says nothing.
CAUSE = ("django.contrib.sessions", "ERROR", "Session not read from the cache")


class World:
    """One of the two stores: who writes to it, who reads it, and the sessions."""

    def __init__(self, number, writer, reader):
        self.number, self.writer, self.reader = number, writer, reader
        self.keys = [UNKNOWN_KEY]
        # The same in both worlds.
        self.fresh_keys = (f"session{count:025}" for count in itertools.count())
        self.taken = self.drawn = None
        self.sessions = []

    def draw(self):
        self.drawn, self.taken = self.taken or next(self.fresh_keys), None
        return self.drawn

    def key(self, arg):
        return self.keys[arg.at % len(self.keys)] if isinstance(arg, Key) else arg


class Outcome(NamedTuple):
    value: Any
    error: tuple[type, str] | None
    logs: list[tuple[str, str, str]]


class Told:
    """What came of an operation in one world."""

    outcome: Outcome
    queries = commands = 0
    broken = False  # the transaction
    end: Any = None


class Theatre:
    """An engine's stores, the clock and the keys that are drawn."""

    def __init__(self, engine, parts, monkeypatch, in_transaction=False):
        self.engine, self.parts, self.in_transaction = engine, parts, in_transaction
        self.pair = engines(engine)
        self.has_database = any(part.database for part in parts)
        # After a save that it cannot compare, cached_db has nothing in its cache for ten seconds.
        self.empties_cache = engine == "cached_db" and MERGE
        monkeypatch.setattr(base, "get_random_string", lambda *args: self.world.draw())
        self.real_time = time.time
        self.now = self.real_time()
        monkeypatch.setattr(time, "time", lambda: self.now)
        monkeypatch.setattr(timezone, "now", self.moment)
        monkeypatch.setattr("django.core.cache.backends.db.tz_now", self.moment)

    def same(self, ours, django):
        if self.empties_cache:
            ours, django = as_from_table(ours), as_from_table(django)
        return same(ours, django)

    def moment(self):
        return datetime.datetime.fromtimestamp(self.now, datetime.UTC)

    def begin(self):
        """Two empty stores, and what is now the time."""
        self.now = self.real_time()
        # Seconds: a machine may stand still between the two worlds, and stores have clocks.
        self.longest_step = 0.0
        self.worlds = []
        for number, pair in enumerate([self.pair, self.pair[::-1]]):
            world = World(number, *pair)
            self.worlds.append(world)
            self.enter(world)
            world.sessions = [world.writer(), world.writer()]
            for part in self.parts:
                part.clear()

    def enter(self, world):
        self.world = world
        for part in self.parts:
            part.enter(world.number)

    # What is no method of a session.

    def open(self, world, op):
        world.sessions[op.session] = world.writer(self.fit(world.key(*op.args)))

    def truth(self, world, op):
        return bool(world.sessions[op.session])

    def recode(self, world, op):
        """What one encodes, the other decodes."""
        return world.reader().decode(world.writer().encode(*op.args))

    def later(self, world, op):
        # Once, for both.
        self.now += op.args[0] if world.number == 0 else 0

    def evict(self, world, op):
        for part in self.parts:
            part.evict()

    # One operation in one world.

    @contextlib.contextmanager
    def scene(self, world, told, atomic=False):
        """Runs in the thread of the database."""
        self.enter(world)
        with contextlib.ExitStack() as stack:
            if self.has_database:
                if atomic or self.in_transaction:
                    stack.enter_context(transaction.atomic())
                reset_queries()  # the log has an end
                queries = stack.enter_context(CaptureQueriesContext(connection))
            before = [part.commands() for part in self.parts]
            yield
            told.commands = sum(part.commands() for part in self.parts) - sum(before)
            if self.has_database:
                told.queries, told.broken = len(queries), connection.needs_rollback

    async def perform(self, world, op):
        told = Told()
        self.enter(world)
        method = op.method
        if method == "create_taken":
            method = "create"
            world.sessions[op.session] = world.writer()
            world.taken = world.drawn
        session = world.sessions[op.session]
        args = [self.fit(world.key(arg)) for arg in op.args]
        kwargs = args.pop() if method.startswith("get_expiry") else {}
        if own := getattr(self, method, None):
            await in_scene(self.scene(world, told), told, own, world, op)
            return told
        twin = "aset" if method == "__setitem__" else f"a{method}"
        scene = self.scene(world, told, op.atomic)
        if op.asynchronous and hasattr(session, twin) and not self.blocks(method, session):
            await sync_to_async(scene.__enter__)()
            with captured_logs() as logs:
                told.outcome = await settled(getattr(session, twin)(*args, **kwargs), logs)
            try:
                await sync_to_async(scene.__exit__)(None, None, None)
            except DatabaseError as error:
                told.end = failed(error, []).error
        else:
            await in_scene(scene, told, getattr(session, method), *args, **kwargs)
        return told

    async def read(self, world, op):
        """What the other engine reads."""
        found = []
        for session in world.sessions:
            self.enter(world)
            told, reader = Told(), world.reader(session.session_key)
            scene = self.scene(world, told)
            if op.asynchronous and hasattr(reader, "aload"):
                await sync_to_async(scene.__enter__)()
                with captured_logs() as logs:
                    told.outcome = await settled(reader.aload(), logs)
                await sync_to_async(scene.__exit__)(None, None, None)
            else:
                await in_scene(scene, told, reader.load)
            found.append([*told.outcome, self.shown(reader.session_key), reader.modified])
        return found

    # Where Django's cached_db cannot be compared with, and ours works.

    def blocks(self, method, session):
        """Django's aexists() asks the cache on the event loop, which a database refuses.

        Of a session without a key, load() draws one, and then asks whether it is taken.
        """
        return (
            self.engine == "cached_db"
            and isinstance(self.parts[-1], stores.DatabaseCache)
            and (
                method in ("save", "create", "exists", "cycle_key")
                or (method == "load" and session.session_key is None)
            )
        )

    def fit(self, key):
        """Django does not load what it cannot write to the cache then."""
        if self.engine == "cached_db" and isinstance(key, bytes):
            return UNKNOWN_KEY
        if self.engine == "cached_db" and isinstance(self.parts[-1], stores.Memcached):
            return UNKNOWN_KEY if isinstance(key, str) and not stores.is_for_memcached(key) else key
        return key

    # What can be seen afterwards.

    def shown(self, key):
        if self.engine == "signed_cookies":
            return None if key is None else "a cookie"
        return key

    def sight(self, world):
        """The session objects."""
        found = []
        for session in world.sessions:
            key = session.session_key
            if key is not None and key not in world.keys:
                world.keys.append(key)
            found.append(
                {
                    "key": self.shown(key),
                    "accessed": session.accessed,
                    "modified": session.modified,
                    "data": getattr(session, "_session_cache", "not loaded"),
                }
            )
        return [*found, len(world.keys)]

    def rows(self, world):
        self.enter(world)
        return [part.rows({key for w in self.worlds for key in w.keys}) for part in self.parts]


async def in_scene(scene, told, function, *args, **kwargs):
    """In one go, for what does not wait."""

    def run():
        with scene, captured_logs() as logs:
            try:
                told.outcome = Outcome(plain(function(*args, **kwargs)), None, logs)
            except Exception as error:
                told.outcome = failed(error, logs)

    try:
        await sync_to_async(run)()
    except DatabaseError as error:  # when the transaction ends
        told.end = failed(error, []).error


async def settled(awaitable, logs):
    try:
        return Outcome(plain(await awaitable), None, logs)
    except Exception as error:
        return failed(error, logs)


def plain(value):
    return (
        list(value)
        if type(value) in (type({}.keys()), type({}.values()), type({}.items()))
        else value
    )


def failed(error, logs):
    return Outcome(None, (type(error), alike(str(error))), logs)


def alike(text):
    """The names of the stores differ, and where objects lie."""
    text = text.replace("django_se_ours", "django_session")
    return re.sub(r"(django|native)(?=:1:)|0x[0-9a-f]+", "", text)


def logged(logs):
    return [
        (name, level, alike(text)) for name, level, text in logs if (name, level, text) != CAUSE
    ]


def engines(name):
    return [
        import_module(f"{package}.{name}").SessionStore
        for package in ("django.contrib.sessions.backends", "django_rust_sessions.backends")
    ]


# ------------------------------------------------------------------------------------- comparison


async def play(theatre, ops):
    await sync_to_async(theatre.begin)()
    start = [Op("__setitem__", ("a", 1)), Op("save"), Op("save", asynchronous=True)]
    for number, op in enumerate([*start, *ops]):
        began = time.monotonic()
        django, ours = [await theatre.perform(world, op) for world in theatre.worlds]
        assert theatre.same(ours.outcome.value, django.outcome.value), (op, "value")
        assert ours.outcome.error == django.outcome.error
        assert logged(ours.outcome.logs) == logged(django.outcome.logs)
        assert (ours.broken, ours.end) == (django.broken, django.end)
        # A drawn key that is taken, which is not met in a lifetime, costs ours a query more.
        # With MERGE, a new key costs a save more. And with HASH_KEYS, what is not there is looked
        # for under both names.
        costs_more = op.method == "create_taken" or (MERGE and op.method == "cycle_key")
        if not (costs_more or theatre.empties_cache or HASH_KEYS):
            assert ours.queries <= django.queries
            if number >= len(start):  # connections were made
                assert ours.commands <= django.commands
        await compare_worlds(theatre, began)
        if op.method not in ("open", "later", "evict"):
            django, ours = [await theatre.read(world, op) for world in theatre.worlds]
            for one, other in zip(django, ours, strict=True):
                assert theatre.same(one[0], other[0])
                assert one[1] == other[1]
                assert logged(one[2]) == logged(other[2])
                assert one[3:] == other[3:]
            await compare_worlds(theatre, began)


def as_from_table(value):
    """With lists for tuples and text for other keys, which a cache would bring back."""
    if isinstance(value, dict):
        return {as_key(key): as_from_table(each) for key, each in value.items()}
    return [as_from_table(each) for each in value] if isinstance(value, list | tuple) else value


def as_key(key):
    if not isinstance(key, int | float | None):
        return key
    (text,) = json.loads(json.dumps({key: 0}))
    return text


def without_emptied(django, ours):
    """The rows of the cache that ours has not emptied, so that the table is asked instead."""
    assert all(
        row.data is not None or row.expires <= time.time() + merge.GRACE for row in ours.values()
    )
    ours = {key: row for key, row in ours.items() if row.data is not None}
    return {key: row for key, row in django.items() if key in ours}, ours


async def compare_worlds(theatre, began):
    django, ours = [theatre.sight(world) for world in theatre.worlds]
    assert theatre.same(ours, django), (ours, django)
    django, ours = [await sync_to_async(theatre.rows)(world) for world in theatre.worlds]
    theatre.longest_step = max(theatre.longest_step, time.monotonic() - began)
    if theatre.empties_cache:
        django[-1], ours[-1] = without_emptied(django[-1], ours[-1])
    for one, other in zip(django, ours, strict=True):
        assert one.keys() == other.keys()
        for key, row in one.items():
            assert theatre.same(other[key].data, row.data)
            left, right = row.expires, other[key].expires
            assert left == right or abs(left - right) <= 1 + theatre.longest_step


@pytest.fixture
def perform(monkeypatch, settings):
    def perform(engine, *parts, in_transaction=False):
        theatre = Theatre(engine, parts, monkeypatch, in_transaction)

        @hypothesis.settings(
            max_examples=EXAMPLES,
            deadline=None,
            suppress_health_check=list(hypothesis.HealthCheck),
            phases=PHASES,
        )
        @hypothesis.given(operations)
        def run(ops):
            with transaction.atomic() if in_transaction else contextlib.nullcontext():
                async_to_sync(play)(theatre, ops)
                if in_transaction:
                    transaction.set_rollback(True)

        run()

    settings.SESSION_CACHE_ALIAS = "default"
    return perform


@pytest.fixture
def database(request, django_db_blocker):
    with django_db_blocker.unblock(), stores.default_database(request.param, request) as tables:
        yield tables


# ------------------------------------------------------------------------------------- each engine


@pytest.mark.parametrize("database", stores.databases.KINDS, indirect=True)
@pytest.mark.parametrize("in_transaction", [False, True], ids=["autocommit", "in a transaction"])
@pytest.mark.not_with("HASH_KEYS=sha256", "Django's engine finds nothing under hashed names")
def test_db(perform, database, in_transaction):
    perform("db", database, in_transaction=in_transaction)


def test_signed_cookies(perform):
    perform("signed_cookies")


@pytest.mark.not_with("HASH_KEYS=sha256", "Django's engine finds nothing under hashed names")
def test_file(perform, tmp_path, settings):
    settings.SESSION_FILE_PATH = str(tmp_path)
    folders = stores.Folders(tmp_path, engines("file"))
    try:
        perform("file", folders)
    finally:
        folders.forget()


CACHES = [
    "locmem",
    "dummy",
    "filebased",
    "database",
    "memcached",
    "redis",
    "django_redis",
    "django_redis_json",
]


@pytest.fixture
def cache(request, settings, tmp_path):
    made = make_cache(request)
    settings.CACHES = {**settings.CACHES, **made.settings()}
    yield made
    made.close()


def make_cache(request):
    get = request.getfixturevalue
    match request.param:
        case "locmem":
            return stores.LocMem()
        case "dummy":
            return stores.Dummy()
        case "filebased":
            return stores.FileBased(get("tmp_path"))
        case "database":
            return stores.DatabaseCache()
        case "memcached":
            pytest.importorskip("pymemcache", reason="pymemcache is not installed")
            return stores.Memcached(get("memcached_server"))
        case "redis":
            return stores.Redis(get("redis_server"))
    pytest.importorskip("django_redis", reason="django-redis is not installed")
    if request.param == "django_redis":
        return stores.DjangoRedis(get("redis_server"))
    return stores.DjangoRedisJSON(get("redis_server"))


@pytest.mark.filterwarnings("ignore::django.core.cache.CacheKeyWarning")
@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("cache", CACHES, indirect=True)
@pytest.mark.parametrize("engine", ["cache", "cached_db"])
@pytest.mark.not_with("HASH_KEYS=sha256", "Django's engine finds nothing under hashed names")
def test_cache(perform, database, cache, engine):
    if isinstance(cache, stores.DatabaseCache):
        cache.create()
    with_table = [database] if engine == "cached_db" or cache.database else []
    perform(engine, *with_table, cache)
