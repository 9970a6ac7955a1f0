"""The option HASH_KEYS: the store knows a session by a hash of its key, and never sees the key.

The engines are not changed for that. What they do is done on a twin of the session, which differs
in one thing: its key is the name in the store. Under which names a session may be found depends on
the option: "sha256" names it by the hash and "plain" by the key, and each still finds the other.
"""

from base64 import b32encode
from collections.abc import Callable
from hashlib import sha256
from typing import Any, Self

from asgiref.sync import sync_to_async
from django.contrib.sessions.backends.base import UpdateError

from ..conf import option
from .base import HAS_ASYNC, finishes

# 160 bits, as lower-case base32: Django's column holds 40 characters, MySQL does not tell cases
# apart, and a session key has 165 bits.
HASHED_BYTES = 20
BASE32 = frozenset("abcdefghijklmnopqrstuvwxyz234567")


def is_stored_name(key: Any) -> bool:
    """Whether this is what a store has in place of a key, which nobody may log in with."""
    if not isinstance(key, str) or not key.startswith("sha256"):
        return False
    return key[6:7] == "$" or (len(key) == 38 and BASE32.issuperset(key[6:]))


class HashedKeysMixin:
    """Goes before a session engine in the bases of a class."""

    # What stands before the hash. File names have no "$".
    stored_name_prefix = "sha256$"
    # On a twin, and what from_stored_name() makes: the key is the name in the store.
    _has_stored_name = False
    # Under which name it was found or saved, and whether that save gave it another.
    _found_as: str | None = None
    has_moved = False

    # SessionBase's and the engines', which django-stubs does not know.
    _session_key: Any
    session_key: Any
    accessed: bool
    modified: bool
    _read_failed: bool
    _get_session: Any
    _aget_session: Any
    # Gives a stored session another name; False if there is none.
    _move: Callable[[str, str], bool]

    @classmethod
    def from_stored_name(cls, name: str) -> Self:
        """The session that the store knows by that name, to look at it or to end it."""
        store = cls()
        store._take_name(name)
        return store

    def stored_names(self, key: str) -> tuple[str, ...]:
        """All that the store may know a session by, the name of today first."""
        return self._names(key) or (key,)

    @property
    def stored_name(self) -> str | None:
        """What the store knows this session by."""
        key = self.session_key
        if key is None:
            return None
        names = self.stored_names(key)
        return self._found_as if self._found_as in names else names[0]

    def _validate_session_key(self, key: Any) -> Any:
        # In each mode, for a store may hold such names from another time: who read them there must
        # not get in with one.
        if not self._has_stored_name and is_stored_name(key):
            return False
        return super()._validate_session_key(key)  # type: ignore[misc]

    def load(self) -> dict[str, Any]:
        names = self._names(self.session_key)
        if names is None:
            return super().load()  # type: ignore[misc,no-any-return]
        # The first one again: another request may have moved it in between.
        for name in (*names, names[0]):
            twin = self._twin(name)
            data: dict[str, Any] = super(HashedKeysMixin, twin).load()  # type: ignore[misc]
            if self._take_from(twin, name):
                return data
            if getattr(twin, "_read_failed", False):
                self._read_failed = True
                break  # nor would the others be found, and each attempt may take its time
        self._session_key = None
        return {}

    def exists(self, session_key: Any) -> bool:
        names = self._names(session_key)
        if names is None:
            return super().exists(session_key)  # type: ignore[misc,no-any-return]
        twins = map(self._twin, names)
        return any(super(HashedKeysMixin, twin).exists(twin.session_key) for twin in twins)  # type: ignore[misc]

    def create(self) -> None:
        # An engine makes a new session where the old one is over: with a key of its own.
        self._has_stored_name = False
        super().create()  # type: ignore[misc]

    def save(self, must_create: bool = False) -> None:
        if self.session_key is None:
            # Comes back here with its key. What an engine does after that would be done to the
            # session itself, not to its twin, and show the key to the store.
            return self.create()
        names = self._names(self.session_key)
        if names is None:
            return super().save(must_create)  # type: ignore[misc,no-any-return]
        key, accessed = self.session_key, self.accessed
        self._get_session(no_load=must_create)
        if self.session_key is None:
            self._check_found(key, accessed)
        current, *former = names
        try:
            self._save_as(current, must_create)
        except UpdateError as error:
            # A cause is what the database refused: nothing is missing then.
            if must_create or error.__cause__ or not former or not self._move(former[0], current):
                raise
            self._save_as(current, must_create)
            self.has_moved = True
        return None

    def _check_found(self, key: str, accessed: bool) -> None:
        """After a load that found nothing; the cache engine may just not have been answered."""
        check = getattr(self, "_check_loaded", None)
        if check is None:
            raise UpdateError
        check(key, accessed)

    def _save_as(self, name: str, must_create: bool) -> None:
        twin = self._twin(name)
        super(HashedKeysMixin, twin).save(must_create)  # type: ignore[misc]
        self._take_from(twin, name)

    def delete(self, session_key: Any = None) -> None:
        names = self._names(self.session_key if session_key is None else session_key)
        if names is None:
            return super().delete(session_key)  # type: ignore[misc,no-any-return]
        # In this order no other request can move the session out of the way.
        for name in reversed(names):
            super(HashedKeysMixin, self._twin(name)).delete(name)  # type: ignore[misc]
        return None

    if HAS_ASYNC:

        async def aload(self) -> dict[str, Any]:
            names = self._names(self.session_key)
            if names is None:
                return await super().aload()  # type: ignore[misc,no-any-return]
            for name in (*names, names[0]):
                twin = self._twin(name)
                data: dict[str, Any] = await super(HashedKeysMixin, twin).aload()  # type: ignore[misc]
                if self._take_from(twin, name):
                    return data
                if getattr(twin, "_read_failed", False):
                    self._read_failed = True
                    break
            self._session_key = None
            return {}

        async def aexists(self, session_key: Any) -> bool:
            names = self._names(session_key)
            if names is None:
                return await super().aexists(session_key)  # type: ignore[misc,no-any-return]
            for name in names:
                if await super(HashedKeysMixin, self._twin(name)).aexists(name):  # type: ignore[misc]
                    return True
            return False

        async def acreate(self) -> None:
            self._has_stored_name = False
            await super().acreate()  # type: ignore[misc]

        async def asave(self, must_create: bool = False) -> None:
            if self.session_key is None:
                return await self.acreate()
            names = self._names(self.session_key)
            if names is None:
                return await super().asave(must_create)  # type: ignore[misc,no-any-return]
            await self._asave_under(names, must_create)
            return None

        @finishes
        async def _asave_under(self, names: tuple[str, ...], must_create: bool) -> None:
            key, accessed = self.session_key, self.accessed
            await self._aget_session(no_load=must_create)
            if self.session_key is None:
                self._check_found(key, accessed)
            current, *former = names
            try:
                await self._asave_as(current, must_create)
            except UpdateError as error:
                if must_create or error.__cause__ or not former:
                    raise
                if not await self._amoved(former[0], current):
                    raise
                await self._asave_as(current, must_create)
                self.has_moved = True

        async def _amoved(self, old: str, new: str) -> bool:
            # Redis can be asked on the event loop.
            amove = getattr(self, "_amove", None) or sync_to_async(self._move)
            return bool(await amove(old, new))

        async def _asave_as(self, name: str, must_create: bool) -> None:
            twin = self._twin(name)
            await super(HashedKeysMixin, twin).asave(must_create)  # type: ignore[misc]
            self._take_from(twin, name)

        async def adelete(self, session_key: Any = None) -> None:
            names = self._names(self.session_key if session_key is None else session_key)
            if names is None:
                return await super().adelete(session_key)  # type: ignore[misc,no-any-return]
            await self._adelete_under(names)
            return None

        @finishes
        async def _adelete_under(self, names: tuple[str, str]) -> None:
            for name in reversed(names):
                await super(HashedKeysMixin, self._twin(name)).adelete(name)  # type: ignore[misc]

    def _names(self, key: Any) -> tuple[str, ...] | None:
        """What the store may know a session by, the name of today first; None for the key alone."""
        mode = option("HASH_KEYS")
        if mode is None or self._has_stored_name or not isinstance(key, str) or not key:
            return None
        if is_stored_name(key):
            return None
        hashed = b32encode(sha256(key.encode(errors="surrogatepass")).digest()[:HASHED_BYTES])
        names = (self.stored_name_prefix + hashed.decode().lower(), key)
        if "$" in key or not key.isascii():
            # MySQL tells neither cases nor accents apart, and may take it for the name of another
            # session; nothing else in ASCII is a "$" to it. Django makes no such keys.
            return names[:1]
        return names if mode == "sha256" else names[::-1]

    def _twin(self, name: str) -> Self:
        """This session under its name in the store. Not this one itself: while it waits for the
        store, other tasks may ask it for its key."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin._read_failed = False
        twin._take_name(name)
        return twin

    def _take_name(self, name: str) -> None:
        # A name, which a class that looks at keys closely might refuse.
        self._has_stored_name, self._SessionBase__session_key = True, name

    def _take_from(self, twin: Self, name: str) -> bool:
        """What the engine noted on the twin, and under which name. False if it found no session."""
        mine = self.__dict__
        for attribute, value in twin.__dict__.items():
            if attribute not in _OF_EACH and (
                attribute not in mine or mine[attribute] is not value
            ):
                mine[attribute] = value
        if twin.session_key not in (name, None):
            # The engine has made another.
            self._session_key = twin.session_key
            self.modified = True
        if twin.session_key is None:
            return False
        self._found_as = name
        return True


# What a session and its twin have each of their own.
_OF_EACH = {
    *("_SessionBase__session_key", "_has_stored_name", "_read_failed"),
    *("accessed", "modified"),
}


def move_in_cache(cache: Any, old: str, new: str, get_timeout: Callable[[], Any]) -> bool:
    """Gives a value of any of Django's caches another key, though they have no word for that."""
    value = cache.get(old)
    if value is None:
        return False
    if not cache.add(new, value, get_timeout()):
        return True  # another request has just moved it
    if not cache.has_key(old):
        # It was deleted meanwhile, and so must this one be.
        cache.delete(new)
        return False
    cache.delete(old)
    return True
