"""django.contrib.sessions.backends.cache, over Redis natively where that is possible.

There, each operation is one round trip: a save is a SET that refuses to bring back a session which
was deleted meanwhile, and a create is one that refuses a taken key.
"""

import logging
import pickle
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.sessions.backends.base import CreateError, SessionBase, UpdateError
from django.contrib.sessions.backends.cache import KEY_PREFIX as KEY_PREFIX
from django.contrib.sessions.backends.cache import SessionStore as DjangoSessionStore
from django.core.cache import caches
from django.core.exceptions import SynchronousOnlyOperation

from .. import caches as session_caches
from ..codec import CodecMixin
from ..conf import option
from . import merge
from .base import HAS_ASYNC, acreate_under_new_key, create_under_new_key
from .keys import HashedKeysMixin, move_in_cache

logger = logging.getLogger("django.contrib.sessions")

# Django's number: a cache may fail in silence, and look as if each key were taken.
CREATE_TRIES = 10_000
# What serializers and dates raise; redis-py's errors are others.
CANNOT_BE_STORED = (TypeError, ValueError, AttributeError, pickle.PicklingError)
# Django's, and pymemcache's of what is too long in UTF-8.
KEY_REFUSED = ("InvalidCacheKey", "MemcacheIllegalInputError")


def log_failed_read(error: Exception) -> None:
    """As in Django the request goes on without its session; here the site can find out why. Not of
    a cookie that memcached refuses as a key: any visitor can send one (Django's #17810)."""
    if type(error).__name__ not in KEY_REFUSED:
        logger.exception("Session not read from the cache")


class CacheMixin:
    """The cache of SESSION_CACHE_ALIAS. Goes before a Django engine that keeps it in `_cache`."""

    # None where Django's own cache has to be asked.
    _native: "session_caches.SessionCache | None"
    _own_cache: Any = None
    # Whether load() found nothing because it could not ask.
    _read_failed = False

    def __init__(self, session_key: str | None = None) -> None:
        # Django makes its cache here. That is not needed for Redis, and would cost each request of
        # an ASGI server, where caches live no longer than a request.
        if self._own_cache is None:
            self._native = session_caches.native(settings.SESSION_CACHE_ALIAS)
        SessionBase.__init__(self, session_key)  # type: ignore[arg-type]

    @property
    def _cache(self) -> Any:
        return caches[settings.SESSION_CACHE_ALIAS] if self._own_cache is None else self._own_cache

    @_cache.setter
    def _cache(self, cache: Any) -> None:
        # A subclass knows better which cache it wants.
        self._own_cache = cache
        self._native = None


class CacheSessionStore(merge.MergeMixin, CodecMixin, CacheMixin, DjangoSessionStore):
    """The cache engine."""

    # Django's, which django-stubs does not know.
    _session_key: Any
    _session_cache: Any
    accessed: bool
    _get_session: Any
    _aget_session: Any
    acache_key: Any

    def load(self) -> dict[str, Any]:
        if self._native is None:
            return super().load()
        try:
            data = self._note(self._native.read(self.cache_key))
        except Exception as error:
            log_failed_read(error)
            self._read_failed, data = True, None
        return self._or_empty(data)

    def exists(self, session_key: str) -> bool:
        if self._native is None:
            return super().exists(session_key)
        return bool(session_key) and self._native.has_key(self.cache_key_prefix + session_key)

    def create(self) -> None:
        if self._native is None or self._chooses_keys_itself():
            return super().create()
        return create_under_new_key(self, CREATE_TRIES)

    def save(self, must_create: bool = False) -> None:
        if self.session_key is None:
            return self.create()
        if self._has_to_be_loaded(must_create):
            key, accessed = self.session_key, self.accessed
            self._get_session()
            self._check_loaded(key, accessed)
        if self._native is None or not (must_create or self._is_loaded()):
            return super().save(must_create)
        cache, key = self._native, self.cache_key
        store = cache.add if must_create else cache.replace
        try:
            data = self._get_session(no_load=must_create)
            if merge.is_on(self, must_create):
                done = merge.replace(self, cache, key)
            else:
                age = self._plain_age(data, "get_expiry_age") or self.get_expiry_age()
                done = store(key, data, age)
        except CANNOT_BE_STORED:
            # Django, which reads first, would not have come to this.
            if must_create or cache.has_key(key):
                raise
            done = False
        if not done:
            raise CreateError if must_create else UpdateError
        if must_create:
            self._note_created(cache, data)
        return None

    def delete(self, session_key: str | None = None) -> None:
        if self._native is None:
            return super().delete(session_key)
        key = self.session_key if session_key is None else session_key
        if key is not None:
            self._native.delete(self.cache_key_prefix + key)
        return None

    if HAS_ASYNC:

        async def aload(self) -> dict[str, Any]:
            if self._native is None:
                return await super().aload()
            if self._native.calls_project:
                return await sync_to_async(CacheSessionStore.load)(self)
            try:
                key = self._known_key() or await self.acache_key()
                data = self._note(await self._native.aread(key))
            except Exception as error:
                log_failed_read(error)
                self._read_failed, data = True, None
            return self._or_empty(data)

        async def aexists(self, session_key: str) -> bool:
            if self._native is None:
                return await super().aexists(session_key)
            key = self.cache_key_prefix + session_key if session_key else None
            return key is not None and await self._native.ahas_key(key)

        async def acreate(self) -> None:
            if self._native is None or self._chooses_keys_itself():
                return await super().acreate()
            return await acreate_under_new_key(self, CREATE_TRIES)

        async def asave(self, must_create: bool = False) -> None:
            if self.session_key is None:
                return await self.acreate()
            if self._native is not None and self._native.calls_project:
                return await sync_to_async(CacheSessionStore.save)(self, must_create)
            if self._has_to_be_loaded(must_create):
                key, accessed = self.session_key, self.accessed
                await self._aget_session()
                self._check_loaded(key, accessed)
            if self._native is None or not (must_create or self._is_loaded()):
                return await super().asave(must_create)
            cache, key = self._native, self._known_key() or await self.acache_key()
            store = cache.aadd if must_create else cache.areplace
            try:
                # Nothing is read here: it is there, or new.
                data = self._get_session(no_load=must_create)
                if merge.is_on(self, must_create):
                    done = await merge.areplace(self, cache, key)
                else:
                    age = self._plain_age(data, "aget_expiry_age") or await self.aget_expiry_age()
                    done = await store(key, data, age)
            except CANNOT_BE_STORED:
                if must_create or await cache.ahas_key(key):
                    raise
                done = False
            except SynchronousOnlyOperation:
                # A value that asks the database when it is pickled, as a lazy user does.
                return await sync_to_async(CacheSessionStore.save)(self, must_create)
            if not done:
                raise CreateError if must_create else UpdateError
            if must_create:
                self._note_created(cache, data)
            return None

        async def adelete(self, session_key: str | None = None) -> None:
            if self._native is None:
                return await super().adelete(session_key)
            key = self.session_key if session_key is None else session_key
            if key is not None:
                await self._native.adelete(self.cache_key_prefix + key)
            return None

    def _as_loaded(self) -> Any:
        return None if self._native is None else super()._as_loaded()

    def _read_back(self, data: dict[str, Any]) -> dict[str, Any]:
        cache: Any = self._native
        return cache.decode(cache.to_bytes(data))  # type: ignore[no-any-return]

    def _move(self, old: str, new: str) -> bool:
        old, new = self.cache_key_prefix + old, self.cache_key_prefix + new
        rename = getattr(self._native, "rename", None)
        if rename is not None:
            return bool(rename(old, new))
        return move_in_cache(self._cache, old, new, self.get_expiry_age)

    async def _amove(self, old: str, new: str) -> bool:
        arename = getattr(self._native, "arename", None)
        if arename is None:
            return await sync_to_async(self._move)(old, new)
        return bool(await arename(self.cache_key_prefix + old, self.cache_key_prefix + new))

    def _calls_project(self) -> bool:
        return False  # the cache has a serializer of its own

    def _known_key(self) -> str | None:
        """What Django's acache_key() says of a session that has a key, without two coroutines."""
        key = self.session_key
        if key is None or type(self).acache_key is not DjangoSessionStore.acache_key:
            return None
        name: str = self.cache_key_prefix + key
        return name

    def _plain_age(self, data: dict[str, Any], method: str) -> int | None:
        """What Django's get_expiry_age() or its async twin says of a session without an expiry of
        its own, without looking at the clock."""
        if data.get("_session_expiry") or getattr(type(self), method) is not _AGES[method]:
            return None
        return self.get_session_cookie_age()

    def _is_loaded(self) -> bool:
        # If it is not, then Django asks whether it exists before it loads it for the save.
        return hasattr(self, "_session_cache")

    def _chooses_keys_itself(self) -> bool:
        """Whether a subclass wants a say in new keys, which Django would give it."""
        cls = type(self)
        return [getattr(cls, name, None) for name in _DEFINED] != [*_DEFINED.values()]

    def _note(self, value: Any) -> Any:
        if value is None or self._native is None:
            return None
        decode = self._native.decode
        data = decode(value)
        merge.note_loaded(self, value, lambda: decode(value))
        return data

    def _has_to_be_loaded(self, must_create: bool) -> bool:
        """Whether this save needs something that it can be compared with."""
        return (
            not (must_create or self._is_loaded())
            and self._native is not None
            and bool(option("MERGE"))
        )

    def _check_loaded(self, key: Any, accessed: bool) -> None:
        if self.session_key is None:
            # As Django leaves a session that it did not find, and so did not load.
            self._session_key, self.accessed = key, accessed
            del self._session_cache
            if self._native is not None and not self._read_failed:
                raise UpdateError
            # It could not be asked, or Django asked it and does not say. Django asks once more, and
            # what the cache raises then is raised.
            self._read_failed = False

    def _note_created(self, cache: Any, data: Any) -> None:
        if option("MERGE"):
            value = cache.to_bytes(data)
            merge.note_saved(self, value, lambda: cache.decode(value))

    def _or_empty(self, data: Any) -> dict[str, Any]:
        if data is not None:
            return data  # type: ignore[no-any-return]
        self._session_key = None
        return {}


class SessionStore(HashedKeysMixin, CacheSessionStore):
    """Cache-based session store."""


_AGES = {name: getattr(SessionBase, name, None) for name in ("get_expiry_age", "aget_expiry_age")}
_DEFINED = {
    name: getattr(SessionStore, name, None)
    for name in ("exists", "aexists", "_get_new_session_key", "_aget_new_session_key")
}
