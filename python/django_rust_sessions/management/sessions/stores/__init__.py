"""The sessions of an engine, one by one: what the engines themselves never need.

Sessions are known here by the names that their store has for them, and written as the engine would
write them, but with a life that is given. Each method may be called again after an error.
"""

import difflib
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from django.conf import settings
from django.contrib.sessions.backends.cache import SessionStore as DjangoCacheStore
from django.contrib.sessions.backends.cached_db import SessionStore as DjangoCachedDBStore
from django.contrib.sessions.backends.db import SessionStore as DjangoDBStore
from django.contrib.sessions.backends.file import SessionStore as DjangoFileStore
from django.contrib.sessions.backends.signed_cookies import SessionStore as DjangoCookieStore
from django.core.management.base import CommandError

from .... import caches as session_caches
from ....checks import ENGINES
from ..common import Interrupt, persist
from .base import Batch, Place, Store
from .cache import CacheStore
from .db import DatabaseStore
from .file import FileStore
from .memcached import MemcachedStore
from .redis import RedisStore

OURS = "django_rust_sessions.backends."


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
    path = OURS + name if name in ENGINES else name
    try:
        found: type[Any] = import_module(path).SessionStore
    except (ImportError, AttributeError, ValueError) as error:
        djangos = [f"django.contrib.sessions.backends.{each}" for each in ENGINES]
        known = [*ENGINES, *(OURS + each for each in ENGINES), *djangos]
        close = difflib.get_close_matches(name, known, 1)
        if close:
            meant = f"Is {close[0]!r} what you mean?"
        else:
            meant = "Name db, cache, cached_db or file, or a module with a class SessionStore."
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
        kind = _LISTED.get(settings.CACHES.get(alias, {}).get("BACKEND"), CacheStore)
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
# The caches that can list their keys.
_LISTED: dict[str | None, type[CacheStore]] = {
    session_caches.DJANGO_REDIS_CACHE: RedisStore,
    session_caches.DJANGO_REDIS_PACKAGE_CACHE: RedisStore,
    session_caches.PYMEMCACHE_CACHE: MemcachedStore,
    "django.core.cache.backends.memcached.PyLibMCCache": MemcachedStore,
}
