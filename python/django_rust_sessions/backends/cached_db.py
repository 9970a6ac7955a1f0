"""django.contrib.sessions.backends.cached_db: the db engine with a cache before it.

Redis is asked natively where that is possible. Where the cache fails, the database goes on alone.
"""

import logging
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.sessions.backends.cached_db import KEY_PREFIX as KEY_PREFIX
from django.contrib.sessions.backends.cached_db import SessionStore as DjangoSessionStore

from ..conf import option
from . import merge
from .base import HAS_ASYNC, finishes
from .cache import CacheMixin, log_failed_read
from .db import LOAD, DatabaseSessionStore, Statements, define_hooks, step_aside
from .keys import HashedKeysMixin

logger = logging.getLogger("django.contrib.sessions")


class CachedDatabaseSessionStore(CacheMixin, DatabaseSessionStore, DjangoSessionStore):
    """The cached_db engine."""

    # Django's, which django-stubs does not know.
    _session: Any
    acache_key: Any
    _aget_session_from_db: Any

    def load(self) -> dict[str, Any]:
        cache = self._native or self._cache
        try:
            if option("MERGE"):
                data, fill = merge.get_cached(self, self.cache_key), cache.add
            else:
                data, fill = cache.get(self.cache_key), cache.add
        except Exception as error:
            log_failed_read(error)
            data, fill = None, cache.set
        if data is None:
            found = self._find_in_db()
            if found is None:
                return {}
            data = self.decode(found.session_data)
            merge.note_row(self, found.session_data, data)
            age = self.get_expiry_age(expiry=found.expire_date)
            try:
                # Not over what another request may have saved since.
                fill(self.cache_key, data, age)
            except Exception:
                self._log_failed_write()
        return data  # type: ignore[no-any-return]

    def exists(self, session_key: str) -> Any:
        cache = self._native or self._cache
        return (
            session_key and cache.has_key(self.cache_key_prefix + session_key)
        ) or super().exists(session_key)

    def save(self, must_create: bool = False) -> None:
        super().save(must_create)
        cache = self._native or self._cache
        try:
            if merge.is_on(self, must_create):
                return merge.renew_cached(self, self.cache_key)
            cache.set(self.cache_key, self._session, self.get_expiry_age())
            if option("MERGE"):
                merge.note_cached(self, self._session)
        except Exception:
            self._log_failed_write()

    def delete(self, session_key: str | None = None) -> None:
        super().delete(session_key)
        key = self.session_key if session_key is None else session_key
        if key is not None:
            (self._native or self._cache).delete(self.cache_key_prefix + key)

    if HAS_ASYNC:

        async def aload(self) -> dict[str, Any]:
            cache = self._native or self._cache
            try:
                key = await self.acache_key()
                if option("MERGE"):
                    data, fill = await merge.aget_cached(self, key), cache.aadd
                else:
                    data, fill = await cache.aget(key), cache.aadd
            except Exception as error:
                log_failed_read(error)
                data, fill = None, cache.aset
            if data is None:
                found = await self._afind_in_db()
                if found is None:
                    return {}
                data = self.decode(found.session_data)
                merge.note_row(self, found.session_data, data)
                age = await self.aget_expiry_age(expiry=found.expire_date)
                try:
                    await fill(await self.acache_key(), data, age)
                except Exception:
                    self._log_failed_write()
            return data  # type: ignore[no-any-return]

        async def aexists(self, session_key: str) -> Any:
            cache = self._native or self._cache
            return (
                session_key and await cache.ahas_key(self.cache_key_prefix + session_key)
            ) or await super().aexists(session_key)

        @finishes
        async def asave(self, must_create: bool = False) -> None:
            await super().asave(must_create)
            cache = self._native or self._cache
            try:
                if merge.is_on(self, must_create):
                    return await merge.arenew_cached(self, await self.acache_key())
                data = await self._aget_session()
                await cache.aset(await self.acache_key(), data, await self.aget_expiry_age())
                if option("MERGE"):
                    merge.note_cached(self, data)
            except Exception:
                self._log_failed_write()

        @finishes
        async def adelete(self, session_key: str | None = None) -> None:
            await super().adelete(session_key)
            key = self.session_key if session_key is None else session_key
            if key is not None:
                await (self._native or self._cache).adelete(self.cache_key_prefix + key)

        async def _afind_in_db(self) -> Any:
            if step_aside(self, LOAD, self.session_key):
                return await self._aget_session_from_db()
            return await sync_to_async(self._find)(Statements.select_with_expiry)

    def _move(self, old: str, new: str) -> bool:
        # The save that follows fills the cache under the new name.
        moved = super()._move(old, new)
        try:
            (self._native or self._cache).delete(self.cache_key_prefix + old)
        except Exception:
            self._log_failed_write()
        return moved

    def _find_in_db(self) -> Any:
        if step_aside(self, LOAD, self.session_key):
            return self._get_session_from_db()
        return self._find(Statements.select_with_expiry)

    def _log_failed_write(self) -> None:
        logger.exception("Error saving to cache (%s)", self._cache)


class SessionStore(HashedKeysMixin, CachedDatabaseSessionStore):
    """Cached, database-backed session store."""


define_hooks(SessionStore)
