"""django.contrib.sessions.backends.file with its disk work and its codec in Rust.

Other threads run while the disk is at work, and so does the event loop: its methods hop to a thread
once an operation. `exists` is Django's own, for it is one system call.
"""

import asyncio
import contextlib
import datetime
import logging
import os
from typing import Any

from django.conf import settings
from django.contrib.sessions.backends.base import CreateError, UpdateError
from django.contrib.sessions.backends.file import SessionStore as DjangoSessionStore
from django.core.exceptions import SuspiciousOperation
from django.utils import timezone

from .. import codec
from .._native import (
    claim_session_file,
    clear_session_files,
    create_session_file,
    read_session_file,
    replace_session_file,
)
from ..conf import option
from . import merge
from .base import HAS_ASYNC, acreate_under_new_key, create_under_new_key
from .keys import HashedKeysMixin

logger = logging.getLogger("django.contrib.sessions")

# Where a project has its own of these, Django's code runs in full.
LOAD = ("decode", "_expiry_date", "_last_modification")
CREATE = ("exists", "_get_new_session_key")
CLEAR = (
    *LOAD,
    "__init__",
    "load",
    "delete",
    "get_expiry_age",
    "get_session_cookie_age",
    "_key_to_file",
    "_validate_session_key",
)
# Django's async methods call these on the event loop, which a project's own may rely on.
SYNC = ("load", "exists", "create", "save", "delete", "clear_expired")


class FileSessionStore(merge.MergeMixin, codec.CodecMixin, DjangoSessionStore):
    """The file engine."""

    # Django's, which django-stubs does not know.
    _key_to_file: Any
    _get_session: Any
    _aget_session: Any
    _aget_or_create_session_key: Any

    def load(self) -> dict[str, Any]:
        if _has_own(type(self), LOAD):
            return super().load()
        data: dict[str, Any] = {}
        try:
            contents, modified = read_session_file(self._key_to_file())
            merge.note_loaded(self, contents, lambda: merge.read_file(self, contents))
            if contents:
                data = self.decode(_read_as_text(contents))
                expiry = data.get("_session_expiry") or self._expire_after(modified)
                if self.get_expiry_age(expiry=expiry) <= 0:
                    data = {}
                    self.delete()
                    self.create()
        except (OSError, SuspiciousOperation):
            self._session_key = None
        return data

    def create(self) -> None:
        if _has_own(type(self), CREATE):
            return super().create()
        return create_under_new_key(self)

    def save(self, must_create: bool = False) -> None:
        if self.session_key is None:
            return self.create()
        data = self._get_session(no_load=must_create)
        path = self._key_to_file()
        return self._store(path, self._encode(data), must_create)

    def _store(self, path: str, encoded: bytes | Exception, must_create: bool) -> None:
        if merge.CAN_LOCK_FILES and merge.is_on(self, must_create):
            return merge.rewrite(self, path, encoded, _write)
        _write(path, encoded, must_create)
        if isinstance(encoded, bytes) and must_create:
            merge.note_saved(self, encoded, lambda: merge.read_file(self, encoded))
        return None

    def delete(self, session_key: str | None = None) -> None:
        key = self.session_key if session_key is None else session_key
        if key is None or not (option("MERGE") and merge.CAN_LOCK_FILES):
            return super().delete(session_key)
        # Not between the look and the write of a save, which would bring it back.
        with contextlib.suppress(OSError), merge.hold(self._key_to_file(key)):
            return super().delete(key)
        return super().delete(key)

    if HAS_ASYNC:
        # Any thread will do: unlike a database connection, a file belongs to none. So sessions do
        # not queue for the one thread of sync_to_async(thread_sensitive=True).

        async def aload(self) -> dict[str, Any]:
            if _has_own(type(self), SYNC):
                return await super().aload()
            return await asyncio.to_thread(self.load)

        async def aexists(self, session_key: str) -> bool:
            if _has_own(type(self), SYNC):
                return await super().aexists(session_key)
            return await asyncio.to_thread(self.exists, session_key)

        async def acreate(self) -> None:
            if _has_own(type(self), SYNC + CREATE):
                return await super().acreate()
            return await acreate_under_new_key(self)

        async def asave(self, must_create: bool = False) -> None:
            if _has_own(type(self), SYNC):
                return await super().asave(must_create)
            if self.session_key is None:
                return await self.acreate()
            data = await self._aget_session(no_load=must_create)
            await self._aget_or_create_session_key()
            path = self._key_to_file()
            # Encoded here and not in the thread: other tasks may change the session meanwhile.
            return await asyncio.to_thread(self._store, path, self._encode(data), must_create)

        async def adelete(self, session_key: str | None = None) -> None:
            if _has_own(type(self), SYNC):
                return await super().adelete(session_key)
            if session_key is None and self.session_key is None:
                return None
            return await asyncio.to_thread(self.delete, session_key)

        @classmethod
        async def aclear_expired(cls) -> None:
            if _has_own(cls, SYNC):
                return await super().aclear_expired()
            return await asyncio.to_thread(cls.clear_expired)

    @classmethod
    def clear_expired(cls) -> None:
        if _has_own(cls, CLEAR):
            return super().clear_expired()
        store = cls()
        cookie_age = store.get_session_cookie_age()
        if not codec.is_djangos(store.serializer) or type(cookie_age) is not int:
            return super().clear_expired()
        now = timezone.now()
        is_aware = timezone.is_aware(now)
        epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC if is_aware else None)
        unsigned, left = clear_session_files(
            store.storage_path,
            store.file_prefix,
            codec._get_signer(store.key_salt, option("MAX_INFLATED")),
            now=(now - epoch) // datetime.timedelta(microseconds=1),
            is_aware=is_aware,
            # Beyond what a date can hold Django raises an error, at each file.
            cookie_age=max(-(2**40), min(cookie_age, 2**40)),
            leave_unsigned=option("LEGACY"),
        )
        for _ in range(unsigned):
            codec.logger.warning("Session data corrupted")
        for session_key in left:
            store = cls(session_key)
            # As in Django: no new session for one that is over.
            store.create = lambda: None
            store.load()
        return None

    def _move(self, old: str, new: str) -> bool:
        old, new = (self._key_to_file(name) for name in (old, new))
        try:
            os.link(old, new)
        except FileNotFoundError:
            return False
        except FileExistsError:
            pass  # and is newer
        with contextlib.suppress(FileNotFoundError):
            os.unlink(old)
        return True

    def _expire_after(self, modified: float) -> datetime.datetime:
        tz = datetime.UTC if settings.USE_TZ else None
        age = datetime.timedelta(seconds=self.get_session_cookie_age())
        return datetime.datetime.fromtimestamp(modified, tz=tz) + age

    def _encode(self, data: dict[str, Any]) -> bytes | Exception:
        """What to write. An error is for later: Django looks for the file first."""
        try:
            return self.encode(data).encode()
        except Exception as error:
            return error


class SessionStore(HashedKeysMixin, FileSessionStore):
    """File-based session store."""

    stored_name_prefix = "sha256"


def _has_own(store: type[FileSessionStore], names: tuple[str, ...]) -> bool:
    return any(_get_function(store, name) is not _DEFINED[name] for name in names)


def _get_function(store: type[FileSessionStore], name: str) -> Any:
    function = getattr(store, name)
    return getattr(function, "__func__", function)


def _read_as_text(contents: bytes) -> str:
    text = contents.decode("ascii")
    # As Python's text files do; only a codec of the project's own can have written such a thing.
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _write(path: str, encoded: bytes | Exception, must_create: bool) -> None:
    fsync = option("FILE_FSYNC")
    if must_create and isinstance(encoded, bytes):
        try:
            return create_session_file(path, encoded, fsync)
        except FileExistsError:
            raise CreateError from None
        except OSError:
            # A full disk, for instance: then a placeholder, as in Django.
            pass
    try:
        claim_session_file(path, must_create)
    except FileNotFoundError:
        if not must_create:
            raise UpdateError from None
    except FileExistsError:
        raise CreateError from None
    try:
        if isinstance(encoded, Exception):
            raise encoded
        replace_session_file(path, encoded, fsync)
    except (EOFError, OSError) as error:
        # Django says nothing, and goes on. The path is left out, for it holds the session key.
        reason = getattr(error, "strerror", None) or type(error).__name__
        logger.error("A session may not have been saved: %s", reason)


# As they are now; what is not the same later was overridden or replaced.
_DEFINED = {name: _get_function(SessionStore, name) for name in {*CREATE, *CLEAR, *SYNC}}
