"""RUST_SESSIONS["FALLBACK_ENGINE"]: while sessions move to another store, both are looked at.

What is not in the new store is read from the old one, and its next save puts it into the new one.
Nobody is logged out on the way, and a logout holds in both.

Requests and `manage.py sessions migrate` agree on two rules. Whoever adds a session to the new
store then takes it out of the old one, and nobody else does; if it is gone there, it was logged out
meanwhile, and is taken out of the new one as well. And a logout deletes from the old store first:
so whichever way the two cross, the logout wins.
"""

import contextlib
import os
from functools import cache
from importlib import import_module
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.sessions.backends.base import CreateError, UpdateError
from django.contrib.sessions.backends.cache import SessionStore as DjangoCacheStore
from django.contrib.sessions.backends.cached_db import SessionStore as DjangoCachedDBStore
from django.contrib.sessions.backends.db import SessionStore as DjangoDBStore
from django.contrib.sessions.backends.file import SessionStore as DjangoFileStore
from django.contrib.sessions.backends.signed_cookies import SessionStore as DjangoCookieStore
from django.contrib.sessions.exceptions import InvalidSessionKey
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.db import router

from .. import caches as session_caches
from ..conf import option
from . import merge
from .base import HAS_ASYNC, finishes
from .cache import CacheMixin
from .keys import HashedKeysMixin, is_stored_name


def with_fallback(engine: type[Any]) -> type[Any]:
    """The class of the sessions that `engine` makes: with the fallback if it is SESSION_ENGINE."""
    if import_module(settings.SESSION_ENGINE).SessionStore is not engine:
        return engine
    old: Any = _check(engine, option("FALLBACK_ENGINE"))
    return _make_class(engine, old)


def open_store(engine: type[Any], key: str | None = None, cache_alias: str = "") -> Any:
    """A session of that engine without any fallback, in another cache than SESSION_CACHE_ALIAS if
    one is named."""
    store = object.__new__(engine)
    store.__init__(key)
    if cache_alias:
        store._cache = caches[cache_alias]
        if isinstance(store, CacheMixin):
            store._native = session_caches.native(cache_alias)
    return store


def take(store: Any, key: str) -> bool:
    """Deletes the session; False if it was gone. Of several who try, one succeeds."""
    names = store.stored_names(key) if isinstance(store, HashedKeysMixin) else (key,)
    taken = [_take(store, name) for name in names]
    return any(taken)


def _take(store: Any, key: str) -> bool:
    kind = type(store)
    if issubclass(kind, DjangoDBStore):
        rows = store.model._default_manager.using(router.db_for_write(store.model))
        _, by_model = rows.filter(session_key=key).delete()
        if issubclass(kind, DjangoCachedDBStore):
            store.delete(key)
        return bool(by_model.get(store.model._meta.label))
    if issubclass(kind, DjangoCacheStore):
        deleted = store._cache.delete(store.cache_key_prefix + key)
        return deleted is None or bool(deleted)
    if issubclass(kind, DjangoFileStore):
        try:
            os.unlink(store._key_to_file(key))
        except FileNotFoundError:
            return False
        return True
    existed = store.exists(key)
    store.delete(key)
    return bool(existed)


def _check(engine: type[Any], name: str) -> type[Any]:
    try:
        old: type[Any] = import_module(name).SessionStore
    except (ImportError, AttributeError, ValueError) as error:
        raise ImproperlyConfigured(
            f"RUST_SESSIONS['FALLBACK_ENGINE'] is {name!r}, which cannot be used: {error}. "
            "Name the engine that sessions were in before."
        ) from None
    alias = option("FALLBACK_CACHE_ALIAS")
    if alias and alias not in settings.CACHES:
        raise ImproperlyConfigured(
            f"RUST_SESSIONS['FALLBACK_CACHE_ALIAS'] is {alias!r}, which is not in CACHES."
        )
    if any(issubclass(each, DjangoCookieStore) for each in (engine, old)):
        raise ImproperlyConfigured(
            "RUST_SESSIONS['FALLBACK_ENGINE'] is for engines that keep sessions on the server: "
            "signed_cookies keeps them in the browser."
        )
    if old is engine and alias in ("", settings.SESSION_CACHE_ALIAS):
        raise ImproperlyConfigured(
            f"RUST_SESSIONS['FALLBACK_ENGINE'] is {name!r}, which is SESSION_ENGINE itself. "
            "Name the engine that sessions were in before."
        )
    if _shares_table(engine, old):
        raise ImproperlyConfigured(
            f"RUST_SESSIONS['FALLBACK_ENGINE'] is {name!r}, which has the table of SESSION_ENGINE: "
            "db and cached_db can be switched as they are. Take FALLBACK_ENGINE out."
        )
    return old


def _shares_table(engine: type[Any], old: type[Any]) -> bool:
    if not (issubclass(engine, DjangoDBStore) and issubclass(old, DjangoDBStore)):
        return False
    return bool(engine.get_model_class() is old.get_model_class())


@cache
def _make_class(engine: type[Any], old: type[Any]) -> type[Any]:
    names = {"_engine": engine, "_old_engine": old, "__module__": __name__}
    # Signatures are made with the name of the class.
    return type(
        engine.__name__, (FallbackMixin, engine), {**names, "__qualname__": engine.__qualname__}
    )


class FallbackMixin:
    """Goes before the engine of the new store. What the engine does, it does as ever: on `_plain`,
    which is this very session without the fallback."""

    _engine: type[Any]
    _old_engine: type[Any]
    # Django's.
    session_key: Any
    accessed: bool
    _session_key: Any
    _session_cache: Any
    _get_session: Any
    _aget_session: Any

    @property
    def _plain(self) -> Any:
        plain = object.__new__(self._engine)
        plain.__dict__ = self.__dict__
        return plain

    def _open_old(self, key: Any) -> Any:
        old = open_store(self._old_engine, key, option("FALLBACK_CACHE_ALIAS"))
        if isinstance(old, HashedKeysMixin) and getattr(self, "_has_stored_name", False):
            old._has_stored_name, old._session_key = True, key
        if isinstance(old, DjangoFileStore):
            # As in clear_expired(): no new session for one that is over.
            old.create = lambda: None  # type: ignore[method-assign]
        return old

    def load(self) -> Any:
        key = self.session_key
        data = self._plain.load()
        if not self._is_miss(key):
            return data
        if (found := self._recall(key)) is not None:
            return found
        # It may have moved between the two looks.
        self._session_key = key
        return self._plain.load()

    def exists(self, session_key: Any) -> Any:
        return self._plain.exists(session_key) or self._old_exists(session_key)

    def create(self) -> None:
        plain = self._plain
        plain.create()
        while self._old_exists(self.session_key):
            plain.delete(self.session_key)
            plain.create()

    def save(self, must_create: bool = False) -> None:
        key, accessed = self.session_key, self.accessed
        if key is None:
            return self.create()
        if must_create and self._old_exists(key):
            raise CreateError
        # Before the engine does, which would not look into the old store.
        self._get_session(no_load=must_create)
        plain = self._plain
        if self._is_nowhere(key, accessed):
            return plain.save()  # type: ignore[no-any-return]
        try:
            return plain.save(must_create)  # type: ignore[no-any-return]
        except UpdateError:
            if not self._old_exists(key):
                # It is gone, or has moved between the two looks.
                return plain.save()  # type: ignore[no-any-return]
        try:
            plain.save(must_create=True)
        except CreateError:
            return plain.save()  # type: ignore[no-any-return]  # another request was quicker
        if not self._take(key):
            plain.delete(key)
            raise UpdateError
        return None

    def _is_nowhere(self, key: Any, accessed: bool) -> bool:
        """Whether neither store has it. Then it is again as before the look: the engine finds that
        out itself, and what it makes of it is as without a fallback."""
        if self.session_key is not None:
            return False
        self._session_key, self.accessed = key, accessed
        del self._session_cache
        return True

    def delete(self, session_key: Any = None) -> None:
        key = self.session_key if session_key is None else session_key
        if key is None:
            return
        try:
            self._old_delete(key)
        finally:
            self._plain.delete(key)
        # Other processes may still have the settings of before, and move it the other way.
        self._old_delete(key)

    if HAS_ASYNC:
        # The old store is asked in a thread: whichever engine it is, and only on a miss.

        async def aload(self) -> Any:
            key = self.session_key
            data = await self._plain.aload()
            if not self._is_miss(key):
                return data
            if (found := await sync_to_async(self._recall)(key)) is not None:
                return found
            self._session_key = key
            return await self._plain.aload()

        async def aexists(self, session_key: Any) -> Any:
            return await self._plain.aexists(session_key) or await sync_to_async(self._old_exists)(
                session_key
            )

        async def acreate(self) -> None:
            plain = self._plain
            await plain.acreate()
            while await sync_to_async(self._old_exists)(self.session_key):
                await plain.adelete(self.session_key)
                await plain.acreate()

        @finishes
        async def asave(self, must_create: bool = False) -> None:
            key, accessed = self.session_key, self.accessed
            if key is None:
                return await self.acreate()
            if must_create and await sync_to_async(self._old_exists)(key):
                raise CreateError
            await self._aget_session(no_load=must_create)
            plain = self._plain
            if self._is_nowhere(key, accessed):
                return await plain.asave()  # type: ignore[no-any-return]
            try:
                return await plain.asave(must_create)  # type: ignore[no-any-return]
            except UpdateError:
                if not await sync_to_async(self._old_exists)(key):
                    return await plain.asave()  # type: ignore[no-any-return]
            try:
                await plain.asave(must_create=True)
            except CreateError:
                return await plain.asave()  # type: ignore[no-any-return]
            if not await sync_to_async(self._take)(key):
                await plain.adelete(key)
                raise UpdateError
            return None

        @finishes
        async def adelete(self, session_key: Any = None) -> None:
            key = self.session_key if session_key is None else session_key
            if key is None:
                return
            try:
                await sync_to_async(self._old_delete)(key)
            finally:
                await self._plain.adelete(key)
            await sync_to_async(self._old_delete)(key)

    def _is_miss(self, key: Any) -> bool:
        # The file engine makes a new session for one that is over.
        return key is not None and self._session_key is None

    def _recall(self, key: Any) -> Any:
        """The session of the old store; None if there is none."""
        name = self._old_name(key)
        old = self._open_old(name)
        data = old.load()
        if old.session_key != name or not (data or old.exists(name)):
            return None
        self._session_key = key
        self._note_name(old)
        merge.note_values(self, data)
        return data

    def _note_name(self, old: Any) -> None:
        """By which its row of devices finds it: in both stores, so with the prefix of the new."""
        if isinstance(self, HashedKeysMixin):
            is_hashed = is_stored_name(getattr(old, "stored_name", None))
            names = self.stored_names(self.session_key)
            self._found_as = next((n for n in names if is_stored_name(n) == is_hashed), None)

    def _old_name(self, key: Any) -> Any:
        """What the old store has for a name of the new one: their prefixes may differ."""
        if is_stored_name(key) and issubclass(self._old_engine, HashedKeysMixin):
            return self._old_engine.stored_name_prefix + key[len("sha256") :].removeprefix("$")
        return key

    # The file engine has an opinion on the letters of a key, which others do not share.

    def _old_exists(self, key: Any) -> bool:
        with contextlib.suppress(InvalidSessionKey):
            return bool(self._open_old(None).exists(self._old_name(key)))
        return False

    def _old_delete(self, key: Any) -> None:
        with contextlib.suppress(InvalidSessionKey):
            self._open_old(None).delete(self._old_name(key))

    def _take(self, key: Any) -> bool:
        return take(self._open_old(None), self._old_name(key))
