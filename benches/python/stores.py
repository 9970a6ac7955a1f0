"""Sessions in Redis, memcached, PostgreSQL, SQLite and files: ours, Django's, and floors."""

import asyncio
import contextlib
import itertools
import os
import socket
import sqlite3
import time
from functools import partial
from types import SimpleNamespace

import databases
import psycopg
import servers
from django.conf import settings
from django.contrib.sessions.backends.cache import SessionStore as DjangoCache
from django.contrib.sessions.backends.cached_db import SessionStore as DjangoCachedDb
from django.contrib.sessions.backends.db import SessionStore as DjangoDb
from django.contrib.sessions.backends.file import SessionStore as DjangoFile
from django.core.cache import caches as django_caches
from django.db import connection
from django.test import override_settings
from django.utils import timezone
from django_rust_sessions import caches
from django_rust_sessions.backends.cache import SessionStore as RustCache
from django_rust_sessions.backends.cached_db import SessionStore as RustCachedDb
from django_rust_sessions.backends.db import SessionStore as RustDb
from django_rust_sessions.backends.file import SessionStore as RustFile
from django_rust_sessions.conf import option
from measure import Contender, compare, single
from payloads import PAYLOADS

AT_ONCE = 1000
# Bytes. Of a megabyte Python would get and give back the memory each time, which takes 10 us.
RECEIVE = 64 * 1024
LOGIN = PAYLOADS["login"]


class Missing(Exception):
    """A server that is not here."""


# Those that this process may use; other systems do not say.
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


@contextlib.contextmanager
def on(cores):
    """This thread, and the processes that it starts, on these cores."""
    if not CORES:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def server(name, apart=True):
    """A server; `apart` on other cores than the contenders, who then pay alike for the way there.
    Else it is a matter of luck whose answers come from the core that asks, in half the time."""
    contenders, its = (CORES[:1], CORES[1:] or CORES) if apart else (CORES, CORES)
    with on(its):
        started = servers.Started(name)
    try:
        if missing := started.servers[name].get("missing"):
            raise Missing(missing)
        with on(contenders):
            yield started.servers[name]
    finally:
        started.stop()


def new_session(store, payload=LOGIN):
    session = store()
    session.update(payload)
    session.create()
    session.update(payload)
    session.save()
    assert dict(store(session.session_key).items()) == payload
    return session.session_key


# ----------------------------------------------------------------------- what a contender does


def load(name, store, key, **more):
    return Contender(name, lambda _: store(key).load(), **more)


def save(name, store, key, **more):
    session = store(key)
    session["visits"] = 0

    def run(visit):
        session["visits"] = visit
        session.save()

    return Contender(name, run, lambda number: list(range(number)), **more)


def create(name, store, _key, **more):
    return Contender(name, lambda _: store().create(), **more)


def delete(name, store, _key, **more):
    def prepare(number):
        sessions = [store() for _ in range(number)]
        for session in sessions:
            session.create()
        return sessions

    return Contender(name, lambda session: session.delete(), prepare, **more)


OPERATIONS = {"load": load, "save": save, "create": create, "delete": delete}


# -------------------------------------------------------------------------------------- Redis


def alias(name):
    settings.SESSION_CACHE_ALIAS = name


class Wire:
    """A socket that sends and receives the bytes of a command and of its answer."""

    def __init__(self, where):
        self.socket = socket.create_connection((where["host"], where["port"]))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def floor(self, *words, beyond=None):
        command = packed(*words)
        self.socket.sendall(command)
        length = len(self.socket.recv(RECEIVE))

        def run(_):
            self.socket.sendall(command)
            got = 0
            while got < length:
                got += len(self.socket.recv(RECEIVE))

        return Contender("floor: the bytes on a socket", run, beyond=beyond)

    def floor_of_new_keys(self, key, stored, beyond=None):
        """As a create: a new key takes the server longer than one that is there."""
        keys = (f"{key[:-10]}{number:010}" for number in itertools.count())

        def prepare(number):
            fresh = itertools.islice(keys, number)
            return [packed("SET", each, stored, "EX", 1209600, "NX") for each in fresh]

        def run(command):
            self.socket.sendall(command)
            assert self.socket.recv(RECEIVE) == b"+OK\r\n"

        return Contender("floor: the bytes on a socket", run, prepare, beyond=beyond)


def packed(*words):
    words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in words)


@contextlib.contextmanager
def redis_and_memcached():
    with server("redis") as redis, server("memcached") as memcached:
        configured = {
            "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
            "django": {"BACKEND": caches.DJANGO_REDIS_CACHE, "LOCATION": redis["url"]},
            "package": {"BACKEND": caches.DJANGO_REDIS_PACKAGE_CACHE, "LOCATION": redis["url"]},
            "memcached": {
                "BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache",
                "LOCATION": f"{memcached['host']}:{memcached['port']}",
            },
        }
        with override_settings(CACHES=configured, SESSION_CACHE_ALIAS="django"):
            assert caches.step_aside("django") is None
            yield redis


# against Django, against the best other, microseconds beyond the wire
REDIS = {"load": (3, 1.6, 12), "save": (6, 3, 20), "create": (6, 3, 20), "delete": (2.5, 1.5, 12)}
OTHERS = {"package": "Django over django-redis, hiredis", "memcached": "Django over pymemcache"}


def redis_rows(rounds):
    with redis_and_memcached() as where:
        wire = Wire(where)
        for payload in ("login", "cart"):
            keys = {}
            for name in ("django", *OTHERS):
                alias(name)
                keys[name] = new_session(DjangoCache, PAYLOADS[payload])
            alias("django")
            key = f":1:django.contrib.sessions.cache{keys['django']}"
            client = django_caches["django"]._cache.get_client(None)
            stored, empty = client.get(key), django_caches["django"]._cache._serializer.dumps({})
            floors = {
                "load": partial(wire.floor, "GET", key),
                "save": partial(wire.floor, "SET", key, stored, "XX", "EX", 1209600),
                "create": partial(wire.floor_of_new_keys, key, empty),
                "delete": partial(wire.floor, "DEL", "nobody"),
            }
            for operation, (target, best, beyond) in REDIS.items():
                if payload != "login" and operation in ("create", "delete"):
                    continue
                act = OPERATIONS[operation]
                alias("django")
                enter = partial(alias, "django")
                contenders = [
                    act("ours", RustCache, keys["django"], enter=enter),
                    act(
                        "Django over RedisCache, hiredis",
                        DjangoCache,
                        keys["django"],
                        enter=enter,
                        target=target,
                    ),
                ]
                for name, title in OTHERS.items():
                    alias(name)
                    more = {"enter": partial(alias, name), "target": best}
                    contenders.append(act(title, DjangoCache, keys[name], **more))
                contenders.append(floors[operation](beyond=beyond))
                yield compare(f"Redis: {operation} {payload}", *contenders, rounds=rounds)


def local_rows(rounds):
    """A session that the process has loaded before."""

    def keeping(max_bytes):
        settings.RUST_SESSIONS = {"LOCAL_CACHE": max_bytes}
        option.cache_clear()
        settings.SESSION_CACHE_ALIAS = "kept" if max_bytes else "django"
        caches.native(settings.SESSION_CACHE_ALIAS)

    with redis_and_memcached() as where, override_settings(RUST_SESSIONS={}):
        settings.CACHES["kept"] = {**settings.CACHES["django"]}
        for payload in ("login", "cart"):
            keeping(0)
            key = new_session(DjangoCache, PAYLOADS[payload])
            keeping(10_000_000)
            local = caches.native("kept")
            while not local.entries.kept:
                RustCache(key).load()
                time.sleep(0.01)
            yield compare(
                f"Redis: load {payload} again",
                load("ours, LOCAL_CACHE", RustCache, key, enter=partial(keeping, 10_000_000)),
                load("ours", RustCache, key, enter=partial(keeping, 0)),
                load("Django over RedisCache, hiredis", DjangoCache, key),
                Wire(where).floor("GET", local._key(f"django.contrib.sessions.cache{key}")),
                rounds=rounds,
            )
            local.follower.stop()
            caches._found.clear()


def async_rows(rounds):
    """A thousand sessions loaded, or saved, at once."""
    with redis_and_memcached(), asyncio.Runner() as runner:
        alias("django")
        keys = [new_session(DjangoCache) for _ in range(AT_ONCE)]
        alias("package")
        others = [new_session(DjangoCache) for _ in range(AT_ONCE)]

        async def pass_by():
            pass

        def at_once(name, make, cache="django", **more):
            async def all_of_them():
                await asyncio.gather(*map(make, range(AT_ONCE)))

            def run(_):
                runner.run(all_of_them())

            return Contender(name, run, enter=partial(alias, cache), operations=AT_ONCE, **more)

        def aload(store, keys):
            return lambda number: store(keys[number]).aload()

        def asave(store, keys):
            sessions = [store(key) for key in keys]
            for session in sessions:
                session["visits"] = 0

            return lambda number: sessions[number].asave()

        for operation, target, make in (("aload", 25, aload), ("asave", 40, asave)):
            alias("django")
            ours, django = make(RustCache, keys), make(DjangoCache, keys)
            alias("package")
            package = make(DjangoCache, others)
            yield compare(
                f"Redis: 1,000 {operation} at once",
                at_once("ours", ours),
                at_once("Django over RedisCache, hiredis", django, target=target),
                at_once(OTHERS["package"], package, "package", target=4),
                at_once("floor: the event loop's tasks", lambda _: pass_by(), beyond=12),
                rounds=max(5, rounds // 4),
            )


# ---------------------------------------------------------------------------------- databases


def postgres(where, **options):
    settings = databases.server_settings("postgresql", where, **options)
    return databases.database("default", settings)


def bare_postgres(where):
    """psycopg's own autocommitted statements, prepared."""
    names = {
        "host": "host",
        "port": "port",
        "user": "user",
        "password": "password",
        "dbname": "database",
    }
    return psycopg.connect(
        autocommit=True, prepare_threshold=1, **{name: where[word] for name, word in names.items()}
    )


def database_rows(title, execute, targets, rounds, within=None):
    sql = {
        "load": "SELECT session_data, expire_date FROM django_session"
        " WHERE expire_date > %s AND session_key = %s",
        "save": "UPDATE django_session SET session_data = %s, expire_date = %s"
        " WHERE session_key = %s",
        "create": "INSERT INTO django_session (session_key, session_data, expire_date)"
        " VALUES (%s, %s, %s)",
    }
    key = new_session(DjangoDb)
    text, date = DjangoDb().encode(LOGIN), DjangoDb().get_expiry_date()
    fresh = SimpleNamespace(number=0)

    def arguments():
        fresh.number += 1
        return {
            "load": (timezone.now(), key),
            "save": (text, date, key),
            "create": (f"bare{fresh.number}", text, date),
        }

    for operation, target in targets.items():
        act = OPERATIONS[operation]

        def floor(_, operation=operation):
            return execute(sql[operation], arguments()[operation])

        yield compare(
            f"{title}: {operation} login",
            act("ours", RustDb, key),
            act("Django", DjangoDb, key, target=target),
            Contender("floor: the driver's statement", floor, within=within),
            rounds=rounds,
        )


def postgres_rows(rounds):
    with server("postgres") as where, bare_postgres(where) as bare:
        targets = {"load": 2.4, "save": 2, "create": 2.8}
        # As it is, and with what Django leaves off for the sake of poolers.
        for title, options in (("PostgreSQL", {}), ("PostgreSQL, prepared", databases.PREPARING)):
            with postgres(where, **options):
                yield from database_rows(title, bare.execute, targets, rounds, within=1.25)


EXPIRED_ROWS = 1_000_000


def cleanup_rows(_rounds):
    """How long one statement of clear_expired() holds the locks of the rows that it deletes."""
    with server("postgres") as where, postgres(where):
        longest = {engine: longest_statement(engine) for engine in (RustDb, DjangoDb)}
        ours, theirs = longest[RustDb], longest[DjangoDb]
        yield single(
            f"PostgreSQL: clear_expired of {EXPIRED_ROWS:,}, longest statement",
            *("ms", ours, "Django", theirs, theirs / ours, "at most 100 ms", ours <= 100),
        )


def longest_statement(engine):
    """In milliseconds, of all that its clear_expired() sends."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO django_session SELECT md5(n::text), repeat('x', 200),"
            " now() - interval '1 day' FROM generate_series(1, %s) n",
            (EXPIRED_ROWS,),
        )
        cursor.execute("ANALYZE django_session")
    times = []

    def watch(execute, *args):
        start = time.perf_counter()
        try:
            return execute(*args)
        finally:
            times.append(time.perf_counter() - start)

    with connection.execute_wrapper(watch):
        engine.clear_expired()
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM django_session WHERE expire_date < now()")
        assert cursor.fetchone() == (0,)
    return max(times) * 1000


def durable_rows(rounds):
    """PostgreSQL as on a site: what is committed is on the disk."""

    def waiting(waits):
        settings.RUST_SESSIONS = {"POSTGRES_ASYNC_COMMIT": not waits}
        option.cache_clear()

    with (
        server("postgres+durable") as where,
        postgres(where),
        override_settings(RUST_SESSIONS={}),
    ):
        key = new_session(DjangoDb)
        for operation in ("save", "create"):
            act = OPERATIONS[operation]
            yield compare(
                f"PostgreSQL with fsync: {operation} login",
                act("ours, POSTGRES_ASYNC_COMMIT", RustDb, key, enter=partial(waiting, False)),
                act("ours, waiting for the disk", RustDb, key, enter=partial(waiting, True)),
                act("Django", DjangoDb, key),
                rounds=rounds,
            )


def sqlite_rows(rounds, folder):
    for journal in ("delete", "wal"):
        path = folder / f"{journal}.sqlite3"
        configured = databases.sqlite_file(path)
        pragmas = f"PRAGMA journal_mode={journal}" + "; PRAGMA synchronous=normal" * (
            journal == "wal"
        )
        configured["OPTIONS"]["init_command"] = pragmas
        with databases.database("default", configured):
            bare = sqlite3.connect(path, isolation_level=None)
            for pragma in pragmas.split("; "):
                bare.execute(pragma)

            def execute(sql, values, bare=bare):
                return bare.execute(sql.replace("%s", "?"), list(map(plain, values))).fetchone()

            targets = {"load": 6, "save": 4, "create": 4}
            yield from database_rows(f"SQLite, {journal}", execute, targets, rounds)
            bare.close()


def plain(value):
    return value if isinstance(value, str) else value.strftime("%Y-%m-%d %H:%M:%S.%f")


def cached_db_rows(rounds):
    with (
        redis_and_memcached(),
        server("postgres") as where,
        postgres(where),
    ):
        keys = {}
        for name in ("django", "package"):
            alias(name)
            keys[name] = new_session(DjangoCachedDb)
        for operation, target, best in (("load", 5, 2), ("save", 3, 2)):
            act = OPERATIONS[operation]
            contenders = []
            for title, store, cache, wanted in (
                ("ours", RustCachedDb, "django", None),
                ("Django over RedisCache, hiredis", DjangoCachedDb, "django", target),
                (OTHERS["package"], DjangoCachedDb, "package", best),
            ):
                alias(cache)
                more = {"enter": partial(alias, cache), "target": wanted}
                contenders.append(act(title, store, keys[cache], **more))
            yield compare(
                f"cached_db, Redis and PostgreSQL: {operation}", *contenders, rounds=rounds
            )


# -------------------------------------------------------------------------------------- files

EXPIRED_FILES = 100_000


def file_rows(rounds, folder, expired=EXPIRED_FILES):
    with override_settings(SESSION_FILE_PATH=str(folder)):
        for cls in (DjangoFile, RustFile):
            with contextlib.suppress(AttributeError):
                del cls._storage_path
        key = new_session(DjangoFile)
        path = folder / f"sessionid{key}"
        text = path.read_bytes()
        floors = {"load": lambda _: read_file(path), "save": lambda _: replace_file(path, text)}
        for operation, floor in floors.items():
            act = OPERATIONS[operation]
            yield compare(
                f"file: {operation} login",
                act("ours", RustFile, key),
                act("Django", DjangoFile, key, target=3),
                Contender("floor: the file alone", floor),
                rounds=rounds,
            )
        text = DjangoFile().encode({"_session_expiry": -1, **LOGIN})

        def fill(_):
            for number in range(expired):
                (folder / f"sessionid{number:032}").write_text(text)
            return [None]

        yield compare(
            f"file: clear_expired of {expired:,}",
            Contender("ours", lambda _: RustFile.clear_expired(), fill),
            Contender("Django", lambda _: DjangoFile.clear_expired(), fill, target=20),
            Contender("floor: unlink of each", lambda _: unlink_all(folder), fill),
            rounds=3,
            number=1,
        )


def read_file(path):
    file = os.open(path, os.O_RDONLY)
    os.read(file, 65536)
    os.close(file)


def replace_file(path, contents):
    new = f"{path}.new"
    file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(file, contents)
    os.close(file)
    os.rename(new, path)


def unlink_all(folder):
    for entry in os.scandir(folder):
        os.unlink(entry.path)
