"""Sessions in a cache."""

import math
from typing import Any

from django.conf import settings
from django.contrib.sessions.backends.cached_db import KEY_PREFIX as CACHED_DB_PREFIX
from django.core.cache import caches
from django.core.management.base import CommandError
from django.utils import timezone

from ..common import store_errors
from .base import Place, Record, Store, not_one_of


class CacheStore(Store):
    """In a cache whose keys nobody can list: sessions may go there, and not come from there."""

    def __init__(self, engine: type[Any], place: Place) -> None:
        super().__init__(engine, place)
        self.alias = place.cache or settings.SESSION_CACHE_ALIAS
        if self.alias not in settings.CACHES:
            raise CommandError(not_one_of("cache", self.alias, "CACHES", settings.CACHES))
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
        key, timeout = self.prefix + record.name, seconds_left(record)
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


def seconds_left(record: Record) -> int | None:
    """Caches take whole seconds."""
    if record.expires is None:
        return None
    return math.ceil((record.expires - timezone.now()).total_seconds())
