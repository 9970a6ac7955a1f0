"""Sessions in memcached, whose keys can be listed."""

import contextlib
import datetime
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from django.core.cache import caches
from django.core.management.base import CommandError
from django.utils import timezone
from django.utils.encoding import force_str

from .base import Batch, Place, Record
from .cache import CacheStore, seconds_left

# Not "all", which walks the lists of recent use and misses what is moved in them meanwhile.
LIST_KEYS = b"lru_crawler metadump hash\r\n"
SERVER_TIME = b"STAT time "
# A memcached also looks through its memory for itself, and then says that it is busy.
TRIES, PAUSE = 100, 0.1
SECONDS_TO_ANSWER = 5.0


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
        left = seconds_left(record)
        life = None if left is None else max(1, left)
        return bool(client.cas(key, data, number, self.cache.get_backend_timeout(life)))


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
