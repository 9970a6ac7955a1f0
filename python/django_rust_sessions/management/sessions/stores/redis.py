"""Sessions in Redis, whose keys can be listed."""

import datetime
import time
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from django.conf import settings
from django.utils import timezone

from .... import caches as session_caches
from ....conf import option
from .base import BEGINNING, Batch, Place, Record
from .cache import CacheStore


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
