"""The sessions of an engine, one by one: what the engines themselves never need.

Sessions are known here by the names that their store has for them, and written as the engine would
write them, but with a life that is given. Each method may be called again after an error.
"""

import contextlib
import datetime
import difflib
import math
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from functools import cached_property
from importlib import import_module
from typing import Any, NamedTuple
from urllib.parse import unquote

from django.conf import settings
from django.contrib.sessions.backends.base import VALID_KEY_CHARS, SessionBase
from django.contrib.sessions.backends.cache import SessionStore as DjangoCacheStore
from django.contrib.sessions.backends.cached_db import KEY_PREFIX as CACHED_DB_PREFIX
from django.contrib.sessions.backends.cached_db import SessionStore as DjangoCachedDBStore
from django.contrib.sessions.backends.db import SessionStore as DjangoDBStore
from django.contrib.sessions.backends.file import SessionStore as DjangoFileStore
from django.contrib.sessions.backends.signed_cookies import SessionStore as DjangoCookieStore
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError
from django.db import IntegrityError, connections, router, transaction
from django.utils import timezone
from django.utils.encoding import force_str

from ... import caches as session_caches
from ... import codec
from ..._native import read_session_file
from ...backends.clear import step_aside
from ...backends.db import Row, Statements
from ...backends.fallback import open_store
from ...backends.keys import is_stored_name
from ...conf import get_options, option
from .common import Interrupt, persist, store_errors

OURS = "django_rust_sessions.backends."
SHORT = ("db", "cache", "cached_db", "file", "signed_cookies")
BEGINNING = ""
PYLIBMC_CACHE = "django.core.cache.backends.memcached.PyLibMCCache"


class Place(NamedTuple):
    """Where an engine keeps its sessions, where that is not what the settings say."""

    engine: str
    cache: str = ""
    database: str = ""
    path: str = ""


class Record(NamedTuple):
    name: str
    # None if it cannot be read: signed with another key, for instance.
    data: dict[str, Any] | None
    # None if it never ends.
    expires: datetime.datetime | None
    # As it is stored.
    raw: Any = None
    # Of a file: which one it was.
    version: Any = None


class Batch(NamedTuple):
    records: list[Record]
    # From where to go on after it.
    position: str


class Store:
    """What all have in common."""

    # Why its sessions cannot be listed.
    unlisted: str | None = None

    def __init__(self, engine: type[Any], place: Place) -> None:
        self.engine, self.place = engine, place
        self.session = open_store(engine)

    def identity(self) -> Any:
        """Equal for the same store."""
        raise NotImplementedError

    def __str__(self) -> str:
        raise NotImplementedError

    def count(self) -> int | None:
        raise NotImplementedError

    def scan(self, position: str, size: int) -> Iterator[Batch]:
        """All live sessions from a position on; some twice, perhaps."""
        raise NotImplementedError

    def add(self, records: list[Record]) -> list[bool | None]:
        """True where it was added, False where there was one, None where the store refused it."""
        raise NotImplementedError

    def present(self, names: list[str]) -> set[str]:
        """Those that are there, as whoever writes sees it."""
        raise NotImplementedError

    def delete(self, names: list[str]) -> None:
        raise NotImplementedError

    def checkpoint(self, position: str) -> str:
        """The position as it may be written down: the beginning of a key is none."""
        return position[:8]

    def replace(self, record: Record, data: dict[str, Any] | None, raw: Any) -> bool:
        """Puts the raw value in the place of the record's, unless that has changed meanwhile."""
        raise NotImplementedError

    def forget_copies(self, names: list[str]) -> None:
        """In a cache before the store."""

    def reconnect(self) -> None:
        """Before another try."""

    def decode(self, text: str | bytes) -> dict[str, Any] | None:
        session = self.session
        if type(session).decode not in (codec.CodecMixin.decode, SessionBase.decode):
            return session.decode(text) or None
        options = get_options()
        try:
            data = codec.loads(
                text,
                salt=session.key_salt,
                serializer=session.serializer,
                options=options,
                legacy_class=type(session).__name__,
            )
        except Exception:
            return None
        return data if isinstance(data, dict) else None


# --------------------------------------------------------------------------------- in the database


class DatabaseStore(Store):
    def __init__(self, engine: type[Any], place: Place) -> None:
        super().__init__(engine, place)
        self.model: Any = self.session.model
        self.using = place.database or router.db_for_write(self.model)
        if self.using not in connections.settings:
            raise CommandError(_not_one_of("database", self.using, "DATABASES", settings.DATABASES))
        self.rows = self.model._base_manager.using(self.using)
        self.is_plain = step_aside(self.model, self.using) is None

    def identity(self) -> Any:
        database = connections.settings[self.using]
        names = ("ENGINE", "NAME", "HOST", "PORT")
        return ("table", self.model._meta.db_table, *(str(database.get(name)) for name in names))

    def __str__(self) -> str:
        return f"the table {self.model._meta.db_table} of the database {self.using!r}"

    def count(self) -> int:
        return int(self.rows.filter(expire_date__gt=timezone.now()).count())

    def scan(self, position: str, size: int) -> Iterator[Batch]:
        # Of a checkpoint it is the beginning of a key, and that key comes once more.
        live = self.rows.order_by("session_key").values_list(
            "session_key", "session_data", "expire_date"
        )
        while True:
            page = live.filter(session_key__gt=position, expire_date__gt=timezone.now())
            found = [
                Record(key, self.decode(data), expires, data) for key, data, expires in page[:size]
            ]
            if not found:
                return
            position = found[-1].name
            yield Batch(found, position)

    def add(self, records: list[Record]) -> list[bool | None]:
        added = self._add(records)
        if refused := [each.name for each, done in zip(records, added, strict=True) if not done]:
            # One that is over is in nobody's use, and in the way.
            over = self.rows.filter(session_key__in=refused, expire_date__lte=timezone.now())
            if over.delete()[0]:
                again = self._add(records)
                added = [a or b for a, b in zip(added, again, strict=True)]
        return list(added)

    def _add(self, records: list[Record]) -> list[bool]:
        with transaction.atomic(using=self.using):
            if not self.is_plain:
                return [self._insert_model(record) for record in records]
            statements = Statements(self.model, self.using)
            rows = [self._row(record) for record in records]
            if statements.connection.vendor == "mysql":
                return [self._insert(statements, row) for row in rows]
            chunks = [rows[at : at + 300] for at in range(0, len(rows), 300)]
            added = {key for chunk in chunks for key in self._insert_many(statements, chunk)}
            return [record.name in added for record in records]

    def _row(self, record: Record) -> Row:
        return Row(record.name, self.session.encode(record.data or {}), self._expires(record))

    def _expires(self, record: Record) -> datetime.datetime:
        age = datetime.timedelta(seconds=self.session.get_session_cookie_age())
        return record.expires or timezone.now() + age

    def _insert_model(self, record: Record) -> bool:
        session = open_store(self.engine, record.name)
        row = session.create_model_instance(record.data or {})
        row.session_key, row.expire_date = record.name, self._expires(record)
        try:
            with transaction.atomic(using=self.using):
                row.save(force_insert=True, using=self.using)
        except IntegrityError:
            return False
        return True

    # As Statements.insert(), but without a savepoint for each.

    def _insert(self, statements: Statements, row: Row) -> bool:
        """MySQL cannot say which of several rows it took, and an error undoes the INSERT alone."""
        sql = f"INSERT INTO {self._into(statements)} VALUES (%s, %s, %s)"
        return statements._execute(sql, statements._adapt(row), IntegrityError) == 1

    def _insert_many(self, statements: Statements, rows: list[Row]) -> list[str]:
        values = ", ".join(["(%s, %s, %s)"] * len(rows))
        sql = f"INSERT INTO {self._into(statements)} VALUES {values} ON CONFLICT DO NOTHING"
        with statements.connection.cursor() as cursor:
            cursor.execute(
                f"{sql} RETURNING {statements.key}",
                [value for row in rows for value in statements._adapt(row)],
            )
            return [key for (key,) in cursor.fetchall()]

    def _into(self, statements: Statements) -> str:
        names = f"{statements.key}, {statements.data}, {statements.expire_date}"
        return f"{statements.table} ({names})"

    def present(self, names: list[str]) -> set[str]:
        found = self.rows.filter(session_key__in=names)
        return set(found.values_list("session_key", flat=True))

    def delete(self, names: list[str]) -> None:
        self.rows.filter(session_key__in=names).delete()
        self.forget_copies(names)

    def replace(self, record: Record, data: dict[str, Any] | None, raw: Any) -> bool:
        same = self.rows.filter(session_key=record.name, session_data=record.raw)
        return bool(same.update(session_data=raw))

    def forget_copies(self, names: list[str]) -> None:
        if isinstance(self.session, DjangoCachedDBStore):
            alias = self.place.cache or settings.SESSION_CACHE_ALIAS
            prefix = self.session.cache_key_prefix
            caches[alias].delete_many([prefix + name for name in names])

    def reconnect(self) -> None:
        if not connections[self.using].in_atomic_block:
            connections[self.using].close()


# ---------------------------------------------------------------------------------------- in caches


class CacheStore(Store):
    """In a cache whose keys nobody can list: sessions may go there, and not come from there."""

    def __init__(self, engine: type[Any], place: Place) -> None:
        super().__init__(engine, place)
        self.alias = place.cache or settings.SESSION_CACHE_ALIAS
        if self.alias not in settings.CACHES:
            raise CommandError(_not_one_of("cache", self.alias, "CACHES", settings.CACHES))
        self.cache: Any = caches[self.alias]
        self.prefix: str = self.session.cache_key_prefix
        backend = settings.CACHES[self.alias]["BACKEND"]
        self.unlisted = f"{backend} cannot list its keys"
        if backend.rpartition(".")[2] in ("LocMemCache", "DummyCache"):
            raise CommandError(
                f"The cache {self.alias!r} is a {backend.rpartition('.')[2]}, which lives within a "
                "process, and this is another: its sessions cannot be reached from here."
            )

    def identity(self) -> Any:
        params = settings.CACHES[self.alias]
        names = ("BACKEND", "LOCATION", "KEY_PREFIX", "VERSION")
        return ("cache", self.prefix, *(str(params.get(name) or "") for name in names))

    def __str__(self) -> str:
        return f"the cache {self.alias!r}"

    def _list_in(self, kind: str, before: str = "") -> None:
        """Its keys can be listed after all: what stands in each before the name of a session, and
        in those of cached_db, which begin with that of the cache engine. `before` is of the client.
        """
        probe = "0123456789"
        key = before + str(self.cache.make_key(self.prefix + probe))
        self.head = key.removesuffix(probe)
        self.others = before + str(self.cache.make_key(CACHED_DB_PREFIX))
        self.unlisted = None
        if self.head == key:
            self.unlisted = f"its KEY_FUNCTION hides the names of sessions in {kind}"

    def add(self, records: list[Record]) -> list[bool | None]:
        return [self._add(record) for record in records]

    def _add(self, record: Record) -> bool | None:
        key, timeout = self.prefix + record.name, _seconds_left(record)
        if timeout is not None and timeout <= 0:
            return True
        try:
            if self.cache.add(key, record.data, timeout):
                return True
        except store_errors() as error:
            if "too large" in str(error):
                return None
            raise
        # memcached says no to what is too large as well.
        return False if self.cache.has_key(key) else None

    def present(self, names: list[str]) -> set[str]:
        return {name for name in names if self.cache.has_key(self.prefix + name)}

    def delete(self, names: list[str]) -> None:
        self.cache.delete_many([self.prefix + name for name in names])


def _seconds_left(record: Record) -> int | None:
    """Caches take whole seconds."""
    if record.expires is None:
        return None
    return math.ceil((record.expires - timezone.now()).total_seconds())


class RedisStore(CacheStore):
    """The values and keys of Django's RedisCache or of django-redis, over redis-py."""

    def __init__(self, engine: type[Any], place: Place) -> None:
        super().__init__(engine, place)
        if settings.CACHES[self.alias]["BACKEND"] == session_caches.DJANGO_REDIS_CACHE:
            client, serializer = self.cache._cache.get_client(None, write=True), self.cache._cache
            self.dumps, self.loads = serializer._serializer.dumps, serializer._serializer.loads
        else:
            client = self.cache.client.get_client(write=True)
            self.dumps, self.loads = self.cache.client.encode, self.cache.client.decode
        self.client = _with_time_limits(client)
        self._list_in("Redis")

    def _key(self, name: str) -> str:
        return self.head + name

    def checkpoint(self, position: str) -> str:
        return position

    def _pages(self, position: str, size: int) -> Iterator[tuple[list[bytes], str]]:
        """A cursor means something to the process that gave it. Another one, be it the replica that
        took over or the same server after a restart, is asked from its beginning."""
        process, _, cursor = position.rpartition(":")
        pattern = "".join(f"[{each}]" if each in "*?[" else each for each in self.head) + "*"
        pattern = pattern.replace("\\", "\\\\")
        others = self.others.encode()
        while True:
            with self.client.pipeline(transaction=False) as pipeline:
                pipeline.info("server")
                pipeline.scan(cursor or 0, match=pattern, count=size)
                info, (after, keys) = _run(pipeline)
            if cursor and info["run_id"] != process:
                cursor = ""
                continue
            process, cursor = info["run_id"], str(after)
            yield [key for key in keys if not key.startswith(others)], f"{process}:{cursor}"
            if after == 0:
                return

    def count(self) -> int:
        return sum(len(keys) for keys, _ in self._pages(BEGINNING, 1000))

    def scan(self, position: str, size: int) -> Iterator[Batch]:
        for keys, after in self._pages(position, size):
            with self.client.pipeline(transaction=False) as pipeline:
                for key in keys:
                    pipeline.get(key)
                    pipeline.execute_command("PTTL" if self.clock is None else "PEXPIRETIME", key)
                answers = _run(pipeline) if keys else []
            found, now = [], timezone.now()
            for key, raw, end in zip(keys, answers[::2], answers[1::2], strict=True):
                if raw is None or end == -2:
                    continue
                expires = self._from_redis(end, now) if end >= 0 else None
                name = key.decode().removeprefix(self.head)
                found.append(Record(name, self._read(raw), expires, raw))
            yield Batch(found, after)

    def _read(self, raw: bytes) -> dict[str, Any] | None:
        try:
            data = self.loads(raw)
        except Exception:
            return None
        return data if isinstance(data, dict) else None

    def add(self, records: list[Record]) -> list[bool | None]:
        now = timezone.now()
        with self.client.pipeline(transaction=False) as pipeline:
            for record in records:
                ends = () if record.expires is None else self._to_redis(record.expires, now)
                value = self.dumps(record.data)
                pipeline.execute_command("SET", self._key(record.name), value, *ends, "NX")
            return [bool(answer) for answer in _run(pipeline)]

    # To the millisecond, however long an answer takes: as a moment of its clock, where it can.

    @cached_property
    def clock(self) -> float | None:
        """By how many seconds the clock of Redis is ahead; None before Redis 7."""
        import redis

        tries = []
        try:
            version = str(self.client.info("server")["redis_version"])
            if int(version.split(".")[0]) < 7:
                return None
            for _ in range(5):
                before = time.time()
                seconds, micros = self.client.time()
                after = time.time()
                tries.append((after - before, seconds + micros / 1e6 - (before + after) / 2))
        except (redis.ResponseError, KeyError, ValueError):
            return None  # it may not be asked
        ahead = min(tries)[1]
        return ahead if abs(ahead) > 0.1 else 0.0

    def _from_redis(self, end: int, now: datetime.datetime) -> datetime.datetime:
        if self.clock is None:
            return now + datetime.timedelta(milliseconds=end)
        zone = datetime.UTC if settings.USE_TZ else None
        return datetime.datetime.fromtimestamp(end / 1000 - self.clock, tz=zone)

    def _to_redis(self, expires: datetime.datetime, now: datetime.datetime) -> tuple[str, int]:
        if self.clock is None:
            return "PX", max(1, (expires - now) // datetime.timedelta(milliseconds=1))
        return "PXAT", round((expires.timestamp() + self.clock) * 1000)

    def present(self, names: list[str]) -> set[str]:
        with self.client.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.exists(self._key(name))
            answers = _run(pipeline) if names else []
        return {name for name, there in zip(names, answers, strict=True) if there}

    def delete(self, names: list[str]) -> None:
        if names:
            self.client.delete(*map(self._key, names))

    def replace(self, record: Record, data: dict[str, Any] | None, raw: Any) -> bool:
        return bool(
            self.client.eval(
                "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end\n"
                "local life = redis.call('PTTL', KEYS[1])\n"
                "redis.call('SET', KEYS[1], ARGV[2])\n"
                "if life >= 0 then redis.call('PEXPIRE', KEYS[1], life) end\n"
                "return 1",
                *(1, self._key(record.name), record.raw, self.dumps(data)),
            )
        )


def _run(pipeline: Any) -> list[Any]:
    answers: list[Any] = pipeline.execute(raise_on_error=False)
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer  # which redis-py would adorn with the command, the session in it
    return answers


def _with_time_limits(client: Any) -> Any:
    """redis-py would wait forever for a server that does not answer."""
    import redis

    pool = client.connection_pool
    if type(pool) is not redis.ConnectionPool:
        return client
    limits = {
        "socket_connect_timeout": option("REDIS_CONNECT_TIMEOUT") or None,
        "socket_timeout": option("REDIS_TIMEOUT") or None,
    }
    kwargs = {**limits, **{k: v for k, v in pool.connection_kwargs.items() if v is not None}}
    own = redis.ConnectionPool(connection_class=pool.connection_class, **kwargs)
    return redis.Redis(connection_pool=own)


class MemcachedStore(CacheStore):
    """memcached: each server tells which keys it has."""

    def __init__(self, engine: type[Any], place: Place) -> None:
        super().__init__(engine, place)
        self.servers: list[str] = self.cache._servers
        # pymemcache's, which by itself waits for ever.
        self.timeout: float = self.cache._options.get("timeout") or SECONDS_TO_ANSWER
        self._list_in("memcached", force_str(self.cache._options.get("key_prefix") or ""))

    def names(self) -> dict[str, datetime.datetime | None]:
        """All of them, with their ends. A server may hold what is looked for on another."""
        found: dict[str, datetime.datetime | None] = {}
        for server in self.servers:
            now = timezone.now()
            for key, left in list_keys(server, self.timeout):
                if key.startswith(self.head) and not key.startswith(self.others):
                    expires = None if left is None else now + datetime.timedelta(seconds=left)
                    found[key.removeprefix(self.head)] = expires
        return found

    def count(self) -> int:
        return len(self.names())

    def scan(self, position: str, size: int) -> Iterator[Batch]:
        found, now = self.names(), timezone.now()
        names = sorted(name for name in found if name >= position)
        for start in range(0, len(names), size):
            page = names[start : start + size]
            live = [name for name in page if (ends := found[name]) is None or ends > now]
            values = self._read(live)
            yield Batch(
                [
                    Record(name, data if isinstance(data, dict) else None, found[name])
                    for name, data in values.items()
                ],
                page[-1],
            )

    def _read(self, names: list[str]) -> dict[str, Any]:
        values = self._get_many(self.cache, names)
        if missing := [name for name in names if name not in values]:
            # pymemcache says nothing of a server that has just failed, and then asks another.
            for server in self.servers:
                _connect(server, self.timeout).close()
            with contextlib.closing(caches.create_connection(self.alias)) as fresh:
                values |= self._get_many(fresh, missing)
        return values

    def present(self, names: list[str]) -> set[str]:
        return set(self._read(names))

    def _get_many(self, cache: Any, names: list[str]) -> dict[str, Any]:
        values = cache.get_many([self.prefix + name for name in names])
        return {key.removeprefix(self.prefix): value for key, value in values.items()}

    def replace(self, record: Record, data: dict[str, Any] | None, raw: Any) -> bool:
        client = self.cache._cache
        key = self.cache.make_and_validate_key(self.prefix + record.name)
        value, number = client.gets(key) or (None, None)
        if number is None or value != record.data:
            return False
        if int(number) == 0:
            raise CommandError(f"{self} does not number its values: start it without -C.")
        left = _seconds_left(record)
        life = None if left is None else max(1, left)
        return bool(client.cas(key, data, number, self.cache.get_backend_timeout(life)))


# Not "all", which walks the lists of recent use and misses what is moved in them meanwhile.
LIST_KEYS = b"lru_crawler metadump hash\r\n"
SERVER_TIME = b"STAT time "
# A memcached also looks through its memory for itself, and then says that it is busy.
TRIES, PAUSE = 100, 0.1
SECONDS_TO_ANSWER = 5.0


def list_keys(server: str, timeout: float = SECONDS_TO_ANSWER) -> Iterator[tuple[str, int | None]]:
    """What one memcached holds, each with the seconds it has left (None: it never ends)."""
    for _ in range(TRIES):
        with _connect(server, timeout) as connection, connection.makefile("rb") as lines:
            # Its ends are by its own clock, which nobody sets.
            now = _clock(connection, lines)
            connection.sendall(LIST_KEYS)
            line = lines.readline()
            if line.startswith(b"BUSY"):
                time.sleep(PAUSE)
                continue
            while now is not None and line.startswith(b"key="):
                key, ends, *_ = line.split(b" ")
                end = int(ends.removeprefix(b"exp="))
                yield unquote(key[4:].decode("ascii")), end - now if end > 0 else None
                line = lines.readline()
            if line.strip() != b"END":
                said = line.decode("ascii", "replace").strip() or "nothing more"
                raise CommandError(
                    f"memcached at {server} does not list all of its keys: it says {said!r}. "
                    "It must know `lru_crawler metadump hash`, as 1.6.18 does."
                )
            return
    raise CommandError(f"memcached at {server} was busy all the time. Try again later.")


def _clock(connection: socket.socket, lines: Any) -> int | None:
    """Its time, if it is a memcached."""
    connection.sendall(b"stats\r\n")
    found = None
    while (line := lines.readline()).startswith(b"STAT "):
        if line.startswith(SERVER_TIME):
            found = int(line.removeprefix(SERVER_TIME))
    return found


def _connect(server: str, timeout: float) -> socket.socket:
    """To an address as in Django's LOCATION."""
    path = server.removeprefix("unix:")
    if path.startswith("/"):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(timeout)
        connection.connect(path)
        return connection
    host, colon, port = server.rpartition(":")
    if not colon or server.endswith("]"):
        host, port = server, ""
    return socket.create_connection((host.strip("[]"), int(port or 11211)), timeout)


# ----------------------------------------------------------------------------------------- in files


class FileStore(Store):
    def __init__(self, engine: type[Any], place: Place) -> None:
        try:
            super().__init__(engine, place)
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from None
        if place.path:
            if not os.path.isdir(place.path):
                raise CommandError(f"There is no folder {place.path!r}: make it, or name another.")
            self.session.storage_path = place.path
        self.folder: str = self.session.storage_path
        self.prefix: str = self.session.file_prefix
        self.age = datetime.timedelta(seconds=self.session.get_session_cookie_age())

    def identity(self) -> Any:
        return ("files", os.path.realpath(self.folder), self.prefix)

    def __str__(self) -> str:
        return f"the folder {self.folder}"

    def names(self) -> Iterator[str]:
        with os.scandir(self.folder) as entries:
            for entry in entries:
                name = entry.name.removeprefix(self.prefix)
                # Others are the temporary files of savers, or not ours.
                if name != entry.name and name and set(name) <= set(VALID_KEY_CHARS):
                    # A hashed name has its "$" everywhere but in files.
                    yield f"sha256${name[6:]}" if is_stored_name(name) else name

    def count(self) -> int:
        return sum(1 for _ in self.names())

    def scan(self, position: str, size: int) -> Iterator[Batch]:
        names = sorted(name for name in self.names() if name >= position)
        now = timezone.now()
        for start in range(0, len(names), size):
            page = names[start : start + size]
            records = [record for name in page if (record := self.read(name))]
            yield Batch(
                [each for each in records if each.expires is None or each.expires > now], page[-1]
            )

    def read(self, name: str) -> Record | None:
        """None if it is gone, or the placeholder of a save that is under way."""
        path = self._path(name)
        try:
            version = _version(path)
            contents, modified = read_session_file(path)
        except FileNotFoundError:
            return None
        if not contents:
            return None
        text = contents.decode("ascii", "replace")
        data = self.decode(text)
        zone = datetime.UTC if settings.USE_TZ else None
        expires: Any = (data or {}).get("_session_expiry")
        if isinstance(expires, str):
            try:
                expires = datetime.datetime.fromisoformat(expires)
                _ = expires < timezone.now()
            except (ValueError, TypeError):
                data, expires = None, None
        if isinstance(expires, int | float) and expires:
            # As Django has it: that long after each look.
            expires = timezone.now() + datetime.timedelta(seconds=expires)
        if not isinstance(expires, datetime.datetime):
            expires = datetime.datetime.fromtimestamp(modified, tz=zone) + self.age
        return Record(name, data, expires, text, version)

    def add(self, records: list[Record]) -> list[bool | None]:
        return [self._add(record) for record in records]

    def _add(self, record: Record) -> bool | None:
        if not set(record.name.removeprefix("sha256$")) <= set(VALID_KEY_CHARS):
            return None
        expires = record.expires or timezone.now() + self.age
        text = self.session.encode(record.data or {})
        with self._prepared(record.name, text, (expires - self.age).timestamp()) as prepared:
            path = self._path(record.name)
            for _ in range(2):
                with contextlib.suppress(FileExistsError):
                    os.link(prepared, path)
                    return True
                # One that is over is in nobody's use, and in the way.
                there = self.read(record.name)
                if there is None or there.expires is None or there.expires > timezone.now():
                    return False
                self.delete_if_same(there)
        return False

    @contextlib.contextmanager
    def _prepared(self, name: str, text: str, modified: float) -> Iterator[str]:
        """A file with that content and time, beside the others."""
        handle, path = tempfile.mkstemp(dir=self.folder, prefix=f"{self.prefix}{name}_out_")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(text.encode())
                if option("FILE_FSYNC"):
                    file.flush()
                    os.fsync(file.fileno())
            os.utime(path, (modified, modified))
            yield path
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def present(self, names: list[str]) -> set[str]:
        return {name for name in names if os.path.exists(self._path(name))}

    def delete(self, names: list[str]) -> None:
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path(name))

    def delete_if_same(self, record: Record) -> bool:
        """False if it was saved or deleted meanwhile."""
        path = self._path(record.name)
        try:
            if _version(path) != record.version:
                return False
            os.unlink(path)
        except FileNotFoundError:
            return False
        return True

    def replace(self, record: Record, data: dict[str, Any] | None, raw: Any) -> bool:
        path = self._path(record.name)
        modified = record.version[1] / 1e9  # by which it ends
        with self._prepared(record.name, raw, modified) as prepared:
            os.utime(prepared, ns=(record.version[1], record.version[1]))
            try:
                if _version(path) != record.version:
                    return False
            except FileNotFoundError:
                return False
            os.replace(prepared, path)
        return True

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, self.prefix + name.replace("$", ""))


def _version(path: str) -> tuple[int, int, int]:
    found = os.stat(path)
    return found.st_ino, found.st_mtime_ns, found.st_size


# ------------------------------------------------------------------------------ opening and reading


def read_batches(store: Store, position: str, size: int, interrupt: Interrupt) -> Iterator[Batch]:
    """store.scan(), which goes on where it was when the store fails for a moment."""
    batches = store.scan(position, size)

    def again() -> None:
        nonlocal batches
        batches = store.scan(position, size)
        store.reconnect()

    while (found := persist(lambda: next(batches, None), interrupt, again)) is not None:
        yield found
        position = found.position


def engine_class(name: str) -> type[Any]:
    """The engine of that name; `db` is django_rust_sessions.backends.db."""
    path = OURS + name if name in SHORT else name
    try:
        found: type[Any] = import_module(path).SessionStore
    except (ImportError, AttributeError, ValueError) as error:
        djangos = [f"django.contrib.sessions.backends.{each}" for each in SHORT]
        known = [*SHORT, *(OURS + each for each in SHORT), *djangos]
        close = difflib.get_close_matches(name, known, 1)
        meant = f"Is {close[0]!r} what you mean?" if close else f"Name {', '.join(SHORT[:4])}, "
        if not close:
            meant += "or a module with a class SessionStore."
        raise CommandError(f"There is no session engine {name!r} ({error}). {meant}") from None
    return found


def open_place(place: Place) -> Store:
    engine = engine_class(place.engine)
    kind = next((kind for base, kind in _KINDS if issubclass(engine, base)), None)
    if kind is None:
        raise CommandError(
            f"{place.engine!r} is not made of one of Django's engines: "
            "where it keeps its sessions is not known here."
        )
    if issubclass(engine, DjangoCookieStore):
        raise CommandError(
            f"{place.engine!r} keeps sessions in the cookies of browsers, where they cannot be "
            "listed, changed or deleted."
        )
    _check_fits(place, engine)
    if kind is CacheStore:
        alias = place.cache or settings.SESSION_CACHE_ALIAS
        backend = settings.CACHES.get(alias, {}).get("BACKEND")
        if backend in (
            session_caches.DJANGO_REDIS_CACHE,
            session_caches.DJANGO_REDIS_PACKAGE_CACHE,
        ):
            kind = RedisStore
        elif backend in (session_caches.PYMEMCACHE_CACHE, PYLIBMC_CACHE):
            kind = MemcachedStore
    store: Store = kind(engine, place)
    return store


def _check_fits(place: Place, engine: type[Any]) -> None:
    """Refuses what the engine does not look at: who names a folder means no table."""
    for name, engines, bases in [
        ("cache", "cache and cached_db", (DjangoCacheStore, DjangoCachedDBStore)),
        ("database", "db and cached_db", (DjangoDBStore,)),
        ("path", "file", (DjangoFileStore,)),
    ]:
        if getattr(place, name) and not issubclass(engine, bases):
            raise CommandError(
                f"{name} {getattr(place, name)!r} is for the engine {engines}, and here it is "
                f"{place.engine!r}: name the engine, too."
            )


_KINDS: list[tuple[type[Any], type[Store]]] = [
    (DjangoDBStore, DatabaseStore),
    (DjangoCacheStore, CacheStore),
    (DjangoFileStore, FileStore),
    (DjangoCookieStore, Store),
]


def _not_one_of(what: str, name: str, setting: str, known: Any) -> str:
    return (
        f"There is no {what} {name!r} in {setting}, which has {', '.join(map(repr, known))}. "
        "Name one of these."
    )
