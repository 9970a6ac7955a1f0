"""Sessions that this process keeps until Redis says that they have changed (CLIENT TRACKING).

Redis tells a connection of each process the names of all session keys that are written, and a
thread of the process drops them. It also asks Redis for a sign of life: what Redis said of a change
comes before the answer. So nothing is handed out that was changed longer ago than `max_stale`
seconds, whatever happens to the connection, the server or the thread.
"""

import contextlib
import logging
import os
import socket
import threading
import weakref
from collections.abc import Iterable
from time import monotonic
from typing import Any, NamedTuple

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse
from redis.exceptions import TimeoutError as RedisTimeoutError

from ..events import Event
from .redis import READ_SIZE, Address, LostConnection, RedisCache, _check_value, limit, redis_errors
from .resp import new_reader, pack

logger = logging.getLogger("django_rust_sessions")

# What all cache engines of Django's put before a session key, theirs and ours.
SESSIONS = "django.contrib.sessions."
# Not longer without a look at Redis, for nobody is told of SWAPDB.
MAX_AGE = 60.0
# What an entry takes beside its name and its data, measured with 64-bit CPython.
OVERHEAD = 300
# Seconds until the next try when Redis does not answer; each doubles the one before.
RETRY, MAX_RETRY = 0.1, 5.0


def step_aside(cache: RedisCache) -> str | None:
    """Why sessions of that cache are not kept in the process; None where they are."""
    if cache.reads != [cache.write]:
        return "more than one server is in LOCATION"
    if not cache._key(f"{SESSIONS}x").startswith(cache._key(SESSIONS)):
        return "KEY_FUNCTION changes more than the beginning of a key"
    return None


# ------------------------------------------------------------------------------- what is kept


class Entry(NamedTuple):
    data: bytes
    ends: float


class Entries:
    """What Redis stores, by the names that it has there."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.lock = threading.Lock()
        self.kept: dict[bytes, Entry] = {}
        self.size = 0
        # Redis is being asked for these. What changes meanwhile is taken out, and not kept.
        self.awaited: dict[bytes, object] = {}
        self.trusted_until = 0.0

    def get(self, name: bytes) -> bytes | None:
        # In this order: what is dropped is dropped before trust goes on.
        trusted_until = self.trusted_until
        entry = self.kept.get(name)
        if entry is None:
            return None
        return entry.data if monotonic() < min(trusted_until, entry.ends) else None

    def expect(self, name: bytes) -> object | None:
        """Before Redis is asked: what keep() wants to see. None if nothing may be kept now."""
        with self.lock:
            if monotonic() >= self.trusted_until:
                return None
            return self.awaited.setdefault(name, object())

    def keep(self, name: bytes, token: object, data: Any, life: Any, asked: float) -> None:
        """Redis's answers, if nothing has changed since expect()."""
        with self.lock:
            if self.awaited.get(name) is not token:
                return
            del self.awaited[name]
            size = _size(name, data) if isinstance(data, bytes) else self.max_bytes + 1
            if size > self.max_bytes or not isinstance(life, int):
                return
            self._drop(name)
            # Without an end, the life is -1; what has ended meanwhile has none left.
            seconds = MAX_AGE if life == -1 else min(life / 1000, MAX_AGE)
            self.kept[name] = Entry(data, asked + seconds)
            self.size += size
            while self.size > self.max_bytes:
                self._drop(next(iter(self.kept)))  # the oldest

    def drop(self, names: Iterable[bytes]) -> None:
        with self.lock:
            for name in names:
                self.awaited.pop(name, None)
                self._drop(name)

    def clear(self) -> None:
        with self.lock:
            self.trusted_until = 0.0
            self._drop_all()

    def drop_all(self) -> None:
        with self.lock:
            self._drop_all()

    def _drop_all(self) -> None:
        self.awaited.clear()
        self.kept.clear()
        self.size = 0

    def _drop(self, name: bytes) -> None:
        entry = self.kept.pop(name, None)
        if entry is not None:
            self.size -= _size(name, entry.data)


def _size(name: bytes, data: bytes) -> int:
    return len(name) + len(data) + OVERHEAD


# --------------------------------------------------------------------------- what Redis says


class Follower:
    """The thread that hears what has changed."""

    def __init__(self, address: Address, prefix: bytes, entries: Entries, max_stale: float) -> None:
        self.address, self.prefix = address, prefix
        self.entries, self.max_stale = entries, max_stale
        self.socket: socket.socket | None = None
        self.is_stopped = Event()  # which the garbage collector may set
        self.last_complaint = ""
        self.retry = RETRY
        threading.Thread(target=self.run, name="django_rust_sessions", daemon=True).start()

    def run(self) -> None:
        while not self.is_stopped.is_set():
            try:
                self._follow()
            except Exception as error:
                if not self.is_stopped.is_set():
                    self._complain(error)
            finally:
                self.entries.clear()
                self.close()
            self.is_stopped.wait(self.retry)
            self.retry = min(self.retry * 2, MAX_RETRY)

    def stop(self) -> None:
        self.is_stopped.set()
        if (connection := self.socket) is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # wakes the thread

    def close(self) -> None:
        if (connection := self.socket) is not None:
            connection.close()

    def _follow(self) -> None:
        with redis_errors("to connect", self.address):
            connection = self.socket = self.address.open()
        with redis_errors("to answer", self.address):
            self._listen(connection)

    def _listen(self, connection: socket.socket) -> None:
        reader = new_reader(resp3=True)
        tracking = (b"CLIENT", b"TRACKING", b"ON", b"BCAST", b"PREFIX", self.prefix)
        commands = [*self.address.greeting, pack(b"HELLO", b"3"), pack(*tracking), pack(b"PING")]
        # The kernel watches the time: else each read would give Python's lock away twice.
        interval = max(self.max_stale / 5, 0.01)
        limit(connection, interval)
        unanswered, asked = len(commands), monotonic()
        connection.sendall(b"".join(commands))
        while not self.is_stopped.is_set():
            now = monotonic()
            if unanswered and now >= asked + max(self.max_stale, 0.1):
                raise RedisTimeoutError(f"Redis at {self.address} took too long to answer")
            if not unanswered and now >= asked + interval:
                unanswered, asked = 1, now
                connection.sendall(pack(b"PING"))
            try:
                data = connection.recv(READ_SIZE)
            except (TimeoutError, BlockingIOError):
                continue
            if not data:
                raise LostConnection(f"Redis at {self.address} closed the connection")
            for reply in reader.feed(data):
                if isinstance(reply, tuple):
                    self._hear(reply)
                    continue
                if isinstance(reply, Exception):
                    raise reply
                unanswered -= 1
                if unanswered < 0:
                    raise InvalidResponse(f"Redis at {self.address} answers more than it was asked")
                if not unanswered:
                    # All that was changed before we asked has been said.
                    self.entries.trusted_until = asked + self.max_stale
                    self.retry, self.last_complaint = RETRY, ""

    def _hear(self, message: tuple[Any, ...]) -> None:
        if message[:1] != (b"invalidate",):
            return
        names = message[1]
        if names is None:  # of FLUSHDB, for instance
            self.entries.drop_all()
        else:
            self.entries.drop(names)

    def _complain(self, error: Exception) -> None:
        """Once, until it works again. A server that is away is everybody's to complain of."""
        complaint = str(error)
        if isinstance(error, RedisConnectionError | RedisTimeoutError):
            return
        if complaint != self.last_complaint:
            self.last_complaint = complaint
            logger.warning(
                "RUST_SESSIONS['LOCAL_CACHE'] does nothing in this process: Redis at %s does not "
                "tell what changes. It must be 6 or newer, and allow HELLO, CLIENT TRACKING and "
                "PING. It says: %s",
                self.address,
                complaint,
            )


# ----------------------------------------------------------------------------------- the cache


def _then_forgets(name: str, keys: int = 1) -> tuple[Any, Any]:
    """A method of RedisCache that writes, and its async twin. Redis will say so, but who has
    written must not read what was before. The first arguments are the keys."""
    method, amethod = getattr(RedisCache, name), getattr(RedisCache, f"a{name}")

    def write(self: "LocalCache", *args: Any) -> Any:
        try:
            return method(self, *args)
        finally:
            self.forget(*args[:keys])

    async def awrite(self: "LocalCache", *args: Any) -> Any:
        try:
            return await amethod(self, *args)
        finally:
            self.forget(*args[:keys])

    return write, awrite


class LocalCache(RedisCache):
    """A RedisCache whose loaded values stay in the process."""

    entries: Entries
    follower: Follower | None
    end: "weakref.finalize[Any, Any]"

    def __init__(self, cache: RedisCache, max_bytes: int, max_stale: float) -> None:
        vars(self).update(vars(cache))
        self.prefix = self._key(SESSIONS)
        self.max_bytes, self.max_stale = max_bytes, max_stale
        self.begin()
        _caches.add(self)

    def begin(self) -> None:
        self.entries = Entries(self.max_bytes)
        self.follower = None
        self.starting = threading.Lock()

    def read(self, key: str) -> Any:
        name = self._key(key)
        data = self.entries.get(name)
        return _check_value(self._fetch(name)) if data is None else data

    async def aread(self, key: str) -> Any:
        name = self._key(key)
        data = self.entries.get(name)
        return _check_value(await self._afetch(name)) if data is None else data

    def get(self, key: str) -> Any:
        data = self.read(key)
        return None if data is None else self.decode(data)

    async def aget(self, key: str) -> Any:
        data = await self.aread(key)
        return None if data is None else self.decode(data)

    def _fetch(self, name: bytes) -> Any:
        entries, token = self.entries, self._expect(name)
        if token is None:
            return self._ask(self.write, pack(b"GET", name))
        asked, data, life = monotonic(), None, None
        try:
            replies = self._ask(self.write, pack(b"GET", name), pack(b"PTTL", name))
            data, life = replies or (None, None)
        finally:
            entries.keep(name, token, data, life, asked)
        return data

    async def _afetch(self, name: bytes) -> Any:
        entries, token = self.entries, self._expect(name)
        if token is None:
            return await self._aask(self.write, pack(b"GET", name))
        asked, data, life = monotonic(), None, None
        try:
            replies = await self._aask(self.write, pack(b"GET", name), pack(b"PTTL", name))
            data, life = replies or (None, None)
        finally:
            entries.keep(name, token, data, life, asked)
        return data

    def _expect(self, name: bytes) -> object | None:
        if self.follower is None:
            self._follow()
        return self.entries.expect(name) if name.startswith(self.prefix) else None

    def _follow(self) -> None:
        # No thread begins where the interpreter ends.
        with self.starting, contextlib.suppress(RuntimeError):
            if self.follower is None:
                self.follower = Follower(
                    *(self.write.address, self.prefix, self.entries, self.max_stale)
                )
                self.end = weakref.finalize(self, self.follower.stop)

    add, aadd = _then_forgets("add")
    replace, areplace = _then_forgets("replace")
    swap, aswap = _then_forgets("swap")
    set, aset = _then_forgets("set")
    delete, adelete = _then_forgets("delete")
    rename, arename = _then_forgets("rename", keys=2)

    def forget(self, *keys: str) -> None:
        self.entries.drop([self._key(key) for key in keys])


_caches: weakref.WeakSet[LocalCache] = weakref.WeakSet()


def _after_fork() -> None:
    """A child has none of its parent's threads, and must not hear what is meant for the parent."""
    for cache in list(_caches):
        if cache.follower is not None:
            cache.end.detach()
            cache.follower.close()
        cache.begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
