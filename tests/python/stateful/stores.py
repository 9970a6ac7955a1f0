"""Where sessions are kept. Each store is there twice: Django's engine writes to one, ours to the
other, and what is in them must be the same after each operation."""

import base64
import contextlib
import pickle
import re
import time
import zlib
from datetime import datetime
from typing import Any, ClassVar, NamedTuple

import databases
import switches
from django.conf import settings
from django.contrib.sessions.backends.cache import KEY_PREFIX
from django.core.cache import caches
from django.core.management import call_command
from django.db import connection
from django.db.models.expressions import Col
from django.utils import timezone

ALIASES = ["django", "native"]  # as long as each other: errors say where in a text something is


class Row(NamedTuple):
    """What is kept of a session, and until when; None for ever."""

    data: Any
    expires: float | None


class Store:
    """One of two is in use at a time: `enter` says which."""

    database = False

    def enter(self, world: int) -> None:
        """From now on both engines use Django's (0) or ours (1)."""

    def clear(self) -> None:
        """Empties the one in use."""

    def evict(self) -> None:
        """Loses what it may lose at any time."""

    def rows(self, keys: set[str]) -> dict[str, Row]:
        """All that is in the one in use. A store that cannot list its keys looks for these."""
        return {}

    def commands(self) -> int:
        """How many it was sent, where it knows."""
        return 0

    def close(self) -> None:
        """Its own connections."""


class Tables(Store):
    """Two session tables in the default database."""

    database = True

    def __init__(self) -> None:
        from django.contrib.sessions.models import Session

        self.model = Session
        # As long as each other: errors may say where in a statement.
        self.names = ["django_session", "django_se_ours"]

    @contextlib.contextmanager
    def second_table(self):
        """`databases.database` has made the first one."""
        self.enter(1)
        with connection.schema_editor() as editor:
            editor.create_model(self.model)
        try:
            yield
        finally:
            self.enter(1)
            with connection.schema_editor() as editor:
                editor.delete_model(self.model)
            self.enter(0)

    def enter(self, world):
        name = self.model._meta.db_table = self.names[world]
        for field in self.model._meta.local_concrete_fields:
            field.__dict__["cached_col"] = Col(name, field)  # Django keeps the table's name there

    def clear(self):
        with connection.cursor() as cursor:
            cursor.execute(f"DELETE FROM {self.model._meta.db_table}")

    def rows(self, keys):
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT * FROM {self.model._meta.db_table}")
            rows = {key: (data, date) for key, data, date in cursor.fetchall()}
        decode = self.model.get_session_store_class()().decode
        return {key: Row(decode(data), timestamp(date)) for key, (data, date) in rows.items()}


def timestamp(date: str | datetime) -> float:
    """Of a moment as the databases keep it: in UTC."""
    date = datetime.fromisoformat(date) if isinstance(date, str) else date
    return (
        timezone.make_aware(date, timezone.get_fixed_timezone(0)).timestamp()
        if (timezone.is_naive(date))
        else date.timestamp()
    )


class Folders(Store):
    """Two folders of the file engine."""

    def __init__(self, folder, engines) -> None:
        self.folders, self.engines = [folder / alias for alias in ALIASES], engines
        for each in self.folders:
            each.mkdir()

    def enter(self, world):
        settings.SESSION_FILE_PATH = str(self.folders[world])
        self.folder = self.folders[world]
        self.forget()

    def forget(self):
        """The classes keep what they found in the settings."""
        for engine in self.engines:
            if "_storage_path" in vars(engine):
                del engine._storage_path

    def clear(self):
        for path in self.folder.iterdir():
            path.unlink()

    def rows(self, keys):
        decode = self.engines[0]().decode
        return {path.name: Row(decode(path.read_text()), None) for path in self.folder.iterdir()}


# ------------------------------------------------------------------------------------------ caches


class Cache(Store):
    """Two aliases of one kind of cache."""

    def setting(self, world: int) -> dict[str, Any]:
        """What stands in CACHES."""
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        return {alias: self.setting(world) for world, alias in enumerate(ALIASES)}

    def enter(self, world):
        self.world, self.alias = world, ALIASES[world]
        settings.SESSION_CACHE_ALIAS = self.alias

    @property
    def cache(self) -> Any:
        return caches[self.alias]

    def clear(self):
        self.cache.clear()

    evict = clear


class Dummy(Cache):
    def setting(self, world):
        return {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}


class LocMem(Cache):
    def setting(self, world):
        return {
            "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
            "LOCATION": f"stateful-{world}",
        }

    def rows(self, keys):
        expiry = self.cache._expire_info
        rows = {
            key: Row(pickle.loads(data), expiry.get(key)) for key, data in self.cache._cache.items()
        }
        return alive(rows)


def alive(rows: dict[str, Row]) -> dict[str, Row]:
    """Caches throw out what has expired when they come across it."""
    now = time.time()
    return {k: row for k, row in rows.items() if row.expires is None or row.expires > now}


class FileBased(Cache):
    def __init__(self, folder) -> None:
        self.folder = folder

    def setting(self, world):
        return {
            "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
            "LOCATION": str(self.folder / ALIASES[world]),
        }

    def rows(self, keys):
        rows = {}
        for path in (self.folder / self.alias).glob("*.djcache"):
            with path.open("rb") as file:
                expires = pickle.load(file)
                rows[path.name] = Row(pickle.loads(zlib.decompress(file.read())), expires)
        return alive(rows)


class DatabaseCache(Cache):
    database = True

    def setting(self, world):
        return {
            "BACKEND": "django.core.cache.backends.db.DatabaseCache",
            "LOCATION": f"cache_{ALIASES[world]}",
        }

    def create(self) -> None:
        call_command("createcachetable", verbosity=0)

    def rows(self, keys):
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT cache_key, value, expires FROM {self.cache._table}")
            rows = cursor.fetchall()
        return alive(
            {
                key: Row(pickle.loads(base64.b64decode(data)), timestamp(expires))
                for key, data, expires in rows
            }
        )


def is_for_memcached(key: Any) -> bool:
    """Others are refused by Django's cache."""
    return isinstance(key, str) and bool(re.fullmatch(r"[!-~]{0,200}", key))


class Memcached(Cache):
    def __init__(self, server) -> None:
        from pymemcache.client.base import Client

        self.address = f"{server['host']}:{server['port']}"
        self.client = Client(self.address)

    def close(self):
        self.client.close()

    def setting(self, world):
        return {
            "BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache",
            "LOCATION": self.address,
            "KEY_PREFIX": ALIASES[world],
        }

    def clear(self):
        self.client.flush_all()

    evict = clear

    def rows(self, keys):
        rows = {}
        for key in keys:
            if not is_for_memcached(key):
                continue
            made = self.cache.make_key(KEY_PREFIX + key)
            answer = self.client.raw_command(f"mg {made} t")
            if answer.startswith(b"HD"):
                left = int(answer.split(b" t")[1])
                expires = None if left < 0 else time.time() + left
                rows[key] = Row(self.cache.get(KEY_PREFIX + key), expires)
        return rows


class Redis(Cache):
    """Two databases of one Redis."""

    backend = "django.core.cache.backends.redis.RedisCache"
    options: ClassVar[dict[str, Any]] = {}

    def __init__(self, server) -> None:
        import redis

        self.urls = [f"redis://{server['host']}:{server['port']}/{10 + db}" for db in range(2)]
        self.clients = [redis.Redis.from_url(url) for url in self.urls]

    def close(self):
        for client in self.clients:
            client.close()

    def setting(self, world):
        return {"BACKEND": self.backend, "LOCATION": self.urls[world], "OPTIONS": self.options}

    def enter(self, world):
        super().enter(world)
        # Each operation finds what the ones before have done.
        switches.hear(self.alias)

    def clear(self):
        self.clients[self.world].flushdb()

    evict = clear

    def decode(self, value: bytes) -> Any:
        return self.cache._cache._serializer.loads(value)

    def rows(self, keys):
        pipeline = self.clients[self.world].pipeline()
        found = sorted(self.clients[self.world].keys())
        for key in found:
            pipeline.get(key).pttl(key)
        answers = pipeline.execute()
        rows = {}
        for key, value, left in zip(found, answers[::2], answers[1::2], strict=True):
            if left != -2:
                expires = None if left == -1 else time.time() + left / 1000
                rows[key.decode()] = Row(self.decode(value), expires)
        return rows

    def commands(self):
        stats = self.clients[0].info("commandstats")
        calls = {name.removeprefix("cmdstat_"): each["calls"] for name, each in stats.items()}
        if switches.ON.get("MERGE"):
            calls["get"] = calls.get("get", 0) - calls.pop("eval", 0)  # each script has one in it
        return sum(calls[name] for name in calls.keys() - switches.LISTENING)


class DjangoRedis(Redis):
    backend = "django_redis.cache.RedisCache"

    def decode(self, value):
        return self.cache.client.decode(value)


class DjangoRedisJSON(DjangoRedis):
    options: ClassVar[dict[str, Any]] = {
        "COMPRESSOR": "django_redis.compressors.zlib.ZlibCompressor",
        "SERIALIZER": "django_redis.serializers.json.JSONSerializer",
    }


# ------------------------------------------------------------------------------------- all of them


@contextlib.contextmanager
def default_database(kind, request):
    """Two session tables in a database of that kind."""
    with databases.database("default", databases.settings_of(kind, request)):
        tables = Tables()
        with tables.second_table():
            yield tables
