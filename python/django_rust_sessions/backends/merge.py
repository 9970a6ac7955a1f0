"""RUST_SESSIONS["MERGE"]: a save changes what this request changed, and keeps what others did.

A session remembers what the store gave it. A save takes the place of exactly that; where another
request has written since, what is there now is read, our changes are put over it, and the save is
tried again. So there is nothing to pay without a conflict.
"""

import contextlib
import os
import pickle
import random
import time
from asyncio import sleep
from collections.abc import Callable, Iterator
from typing import Any

from django.contrib.sessions.backends.base import UpdateError
from django.db import connections, router, transaction

from ..conf import option
from ..exceptions import SessionConflict
from .base import HAS_ASYNC

try:
    import fcntl
except ImportError:  # on Windows, where an open file cannot be replaced either
    fcntl = None  # type: ignore[assignment]

# Each time somebody else was quicker, so that all of them together get on.
TRIES = 200
# Seconds within which who has read the table has filled the cache, or will not.
GRACE = 10
SESSION_KEY = "_auth_user_id"
_MISSING: Any = object()
CAN_LOCK_FILES = fcntl is not None


class Base:
    """What this session was when it was loaded or last saved."""

    def __init__(self, stored: Any, read: Callable[[], dict[str, Any]], cached: Any = None) -> None:
        # As the store has it; None if only the values are known.
        self.stored, self.read = stored, read
        # Of cached_db: what its cache has.
        self.cached = cached

    def with_cached(self, cached: Any) -> "Base":
        return Base(self.stored, self.read, cached)


def is_on(store: Any, must_create: bool) -> bool:
    """Whether this save has something to be compared with."""
    return not must_create and option("MERGE") and getattr(store, "_base", None) is not None


def note_loaded(
    store: Any, stored: Any, read: Callable[[], dict[str, Any]], cached: Any = None
) -> None:
    # Who calls load() of a session that is loaded already does not get it into the session.
    if option("MERGE") and not hasattr(store, "_session_cache"):
        store._base = Base(stored, read, cached)


def note_saved(
    store: Any, stored: Any, read: Callable[[], dict[str, Any]], cached: Any = None
) -> None:
    if option("MERGE"):
        store._base = Base(stored, read, cached)


def note_values(store: Any, data: dict[str, Any], cached: Any = None) -> None:
    """Loaded from elsewhere than where it is saved to."""
    if option("MERGE"):
        pickled = pickle.dumps(data)
        note_loaded(store, None, lambda: pickle.loads(pickled), cached)


class MergeMixin:
    """Goes before a session engine in the bases of a class."""

    session_key: Any

    def cycle_key(self) -> None:
        """What others have saved since comes along to the new key. Who was logged out meanwhile
        and logs in now starts with what there was, as with Django."""
        if (loaded := self._as_loaded()) is not None:
            with contextlib.suppress(UpdateError):
                loaded.save()
                self._take_along(loaded)
        super().cycle_key()  # type: ignore[misc]

    if HAS_ASYNC:

        async def acycle_key(self) -> None:
            if (loaded := self._as_loaded()) is not None:
                with contextlib.suppress(UpdateError):
                    await loaded.asave()
                    self._take_along(loaded)
            await super().acycle_key()  # type: ignore[misc]

    def _as_loaded(self) -> Any:
        """This session without our changes. By its save it becomes what is stored where saves go,
        which a replica may not know yet; and nothing of ours gets to the old key."""
        is_stored = self.session_key is not None and hasattr(self, "_session_cache")
        if not (is_stored and is_on(self, must_create=False)):
            return None
        loaded: Any = object.__new__(type(self))
        loaded.__dict__.update(self.__dict__)
        loaded._session_cache = loaded._base.read()
        return loaded

    def _take_along(self, loaded: Any) -> None:
        with contextlib.suppress(Exception):  # of values that cannot be stored: create() says so
            rebase(self, loaded._base.stored, loaded._base.read)

    def _read_back(self, data: dict[str, Any]) -> dict[str, Any]:
        """As it comes out of the store again: lists for tuples, say."""
        return self.decode(self.encode(data))  # type: ignore[attr-defined,no-any-return]


def rebase(store: Any, stored: Any, read: Callable[[], dict[str, Any]]) -> None:
    """The session becomes what is stored now, with our changes over it."""
    data, now = store._session_cache, read()
    # What went the same way can be compared.
    base, ours = store._read_back(store._base.read()), store._read_back(data)
    users = [each.get(SESSION_KEY) for each in (base, ours, now)]
    if users[2] not in users[:2]:
        # It is another's now, or nobody's: a logout wins.
        raise UpdateError
    if users[1] == users[2]:
        for key in base.keys() | now.keys():
            mine, theirs = ours.get(key, _MISSING), now.get(key, _MISSING)
            if not _is_same(base.get(key, _MISSING), mine) or _is_same(mine, theirs):
                continue
            if theirs is _MISSING:
                data.pop(key, None)
            else:
                data[key] = theirs
    # Else we log in or out under the same key: nothing of the one before is kept.
    store._base = Base(stored, read, store._base.cached)


def _is_same(one: Any, other: Any) -> bool:
    # Not "==", to which 1 is True. And equal values may have different pickles, if one of them has
    # the same string in two places.
    if one is _MISSING or other is _MISSING or type(one) is not type(other):
        return one is other
    if isinstance(one, dict):
        return list(one) == list(other) and all(_is_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_is_same, one, other))
    if isinstance(one, set | frozenset):
        # Equal ones may be in another order, and in another still when they are read again.
        return {pickle.dumps(each) for each in one} == {pickle.dumps(each) for each in other}
    return pickle.dumps(one) == pickle.dumps(other)


def _pause(attempt: int) -> float:
    """Seconds; none where few are in the way, and none before each second try, which is at once."""
    return random.random() * min(0.0005 * attempt, 0.03) if attempt > 10 and attempt % 2 else 0


def _give_up() -> Any:
    raise SessionConflict(
        f"A session was not saved: other requests changed it {TRIES} times meanwhile. "
        "Write it less often, or keep in the database what so many requests change."
    )


# ------------------------------------------------------------------------------------ the engines


def update_row(store: Any, statements: Any, row: Any) -> bool:
    """False if there is no such session."""
    for attempt in range(TRIES):
        before = store._base.stored
        if before is not None and statements.update(row, before):
            note_row_saved(store, row.session_data, store._base.cached)
            return True
        time.sleep(_pause(attempt))
        found = statements.select_to_merge(row.session_key)
        if found is None:
            return False
        rebase(store, found, _reader(store, found))
        data, expire_date = store.encode(store._session_cache), store.get_expiry_date()
        row = row._replace(session_data=data, expire_date=expire_date)
    return bool(_give_up())


def note_row_saved(store: Any, data: str, cached: Any = None) -> None:
    note_saved(store, data, _reader(store, data), cached)


def _reader(store: Any, data: str) -> Callable[[], dict[str, Any]]:
    return lambda: store.decode(data)


def replace(store: Any, cache: Any, key: str) -> bool:
    """False if there is no such session."""
    for attempt in range(TRIES):
        value = cache.to_bytes(store._session_cache)
        before = store._base.stored
        if pause := _pause(attempt):
            # What is there by then is not what we know, and has to be asked for.
            time.sleep(pause)
            before = None
        now = cache.swap(key, before, value, store.get_expiry_age())
        if (done := _settle(store, cache, value, now)) is not None:
            return done
    return bool(_give_up())


async def areplace(store: Any, cache: Any, key: str) -> bool:
    for attempt in range(TRIES):
        value = cache.to_bytes(store._session_cache)
        age = await store.aget_expiry_age()
        before = store._base.stored
        if pause := _pause(attempt):
            await sleep(pause)
            before = None
        now = await cache.aswap(key, before, value, age)
        if (done := _settle(store, cache, value, now)) is not None:
            return done
    return bool(_give_up())


def _settle(store: Any, cache: Any, value: Any, now: Any) -> bool | None:
    """Whether it was saved; None if that has to be tried again."""
    if now is None:
        return False
    if now is True:
        note_saved(store, value, lambda: cache.decode(value))
        return True
    rebase(store, now, lambda: cache.decode(now))
    return None


def rewrite(store: Any, path: str, encoded: Any, write: Callable[..., None]) -> None:
    """Writes the session file, if it is still there."""
    try:
        with hold(path) as file:
            stored = file.read()
            if stored != store._base.stored:
                rebase(store, stored, lambda: read_file(store, stored))
                encoded = store._encode(store._session_cache)
            write(path, encoded, False)
    except FileNotFoundError:
        raise UpdateError from None
    note_saved(store, encoded, lambda: read_file(store, encoded))


def read_file(store: Any, contents: bytes) -> dict[str, Any]:
    return store.decode(contents.decode("ascii")) if contents else {}


@contextlib.contextmanager
def hold(path: str) -> Iterator[Any]:
    """The file, while nobody else who asks so may have it: the Rust crate does the same."""
    while True:
        with open(path, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                # Else it was replaced while we waited.
                is_there = os.path.samestat(os.fstat(file.fileno()), os.stat(path))
            except FileNotFoundError:
                raise
            except OSError:
                is_there = True  # a file system without locks
            if is_there:
                yield file
                return


# ------------------------------------------------------------------------- the cache of cached_db


def get_cached(store: Any, key: str) -> Any:
    """What cached_db has in its cache."""
    if store._native is None:
        data = store._cache.get(key)
        if data is not None:
            note_values(store, data)
        return data
    return _note_cached(store, store._native.read(key))


async def aget_cached(store: Any, key: str) -> Any:
    if store._native is None:
        data = await store._cache.aget(key)
        if data is not None:
            note_values(store, data)
        return data
    return _note_cached(store, await store._native.aread(key))


def _note_cached(store: Any, value: Any) -> Any:
    if value is None:
        return None
    decode = store._native.decode
    data = decode(value)
    if data is not None:
        note_loaded(store, None, lambda: decode(value), value)
    return data


def note_row(store: Any, stored: str, data: dict[str, Any]) -> None:
    """What cached_db read from the table, and fills its cache with."""
    if option("MERGE"):
        cached = None if store._native is None else store._native.to_bytes(data)
        note_loaded(store, stored, _reader(store, stored), cached)


def note_cached(store: Any, data: Any) -> None:
    """What cached_db has put there itself, with the new session."""
    if store._native is not None and getattr(store, "_base", None) is not None:
        store._base = store._base.with_cached(store._native.to_bytes(data))


def renew_cached(store: Any, key: str) -> None:
    """After the table. The cache must not stay older: if it is not what we know, it has to go.

    None takes its place, which Django too reads as nothing: over it no request can fill the cache
    with what it read from the table before.
    """
    cache, data, cached = store._native or store._cache, store._session_cache, store._base.cached
    using = router.db_for_write(store.model)
    if connections[using].in_atomic_block:
        # What others read from the table is still the old one.
        transaction.on_commit(lambda: _forget_cached(store, cache, key), using=using)
    elif store._native is not None and cached is not None:
        value = cache.to_bytes(data)
        if cache.swap(key, cached, value, store.get_expiry_age()) is True:
            store._base = store._base.with_cached(value)
            return
    cache.set(key, None, GRACE)


def _forget_cached(store: Any, cache: Any, key: str) -> None:
    """After the commit, when the table is right already, and others still have to hear of it."""
    try:
        cache.set(key, None, GRACE)
    except Exception:
        store._log_failed_write()


async def arenew_cached(store: Any, key: str) -> None:
    cache, data, cached = store._native or store._cache, store._session_cache, store._base.cached
    if store._native is not None and cached is not None:
        value = cache.to_bytes(data)
        if await cache.aswap(key, cached, value, await store.aget_expiry_age()) is True:
            store._base = store._base.with_cached(value)
            return
    await cache.aset(key, None, GRACE)
