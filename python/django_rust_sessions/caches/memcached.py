"""memcached for RUST_SESSIONS["MERGE"]: Django's PyMemcacheCache, and what it has no word for.

With each value memcached has a number, which changes with each write. `gets` asks for both, and
`cas` writes only where the number is still the same.
"""

import pickle
from typing import Any, NamedTuple

from asgiref.sync import sync_to_async
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured


class Stored(NamedTuple):
    """A value, in place of the bytes that Redis would have."""

    # Not what is in memcached, which pymemcache reads and writes: for copies, and to compare.
    pickled: bytes
    # Under which key it was read, and its number there. What we wrote has one that we do not know.
    name: str = ""
    number: Any = None


class MemcachedCache:
    """What a session engine asks of a cache, with `swap`."""

    calls_project = False

    def __init__(self, alias: str, through_django: str) -> None:
        # Why all but `swap` is.
        self.alias, self.through_django = alias, through_django

    @property
    def _cache(self) -> Any:
        # Each thread and each request of an ASGI server has its own.
        return caches[self.alias]

    def read(self, key: str) -> Stored | None:
        cache = self._cache
        name = cache.make_and_validate_key(key)
        # It is None where a server is down, and pymemcache is told to ignore that.
        value, number = cache._cache.gets(name) or (None, None)
        return None if number is None else Stored(pickle.dumps(value), name, number)

    def swap(self, key: str, before: Stored | None, value: Stored, timeout: Any) -> Any:
        """True if `value` has taken the place of `before`, None if there is no such key; or else
        what is there."""
        cache = self._cache
        name = cache.make_and_validate_key(key)
        number = before.number if before is not None and before.name == name else None
        if number is None:
            now = self.read(key)
            if now is None or before is None or now.pickled != before.pickled:
                return now
            number = now.number
        if int(number) == 0:
            raise ImproperlyConfigured(
                "RUST_SESSIONS['MERGE'] needs a memcached that numbers what it has: start it "
                "without --disable-cas (-C)."
            )
        life = cache.get_backend_timeout(timeout)
        done = cache._cache.cas(name, pickle.loads(value.pickled), number, life)
        if done is not False:
            return done
        now = self.read(key)
        if now is not None and now.number == number:
            # The error was ignored, as pymemcache was told to.
            raise ValueError("memcached did not take the session: is it larger than its limit?")
        return now

    def to_bytes(self, value: Any) -> Stored:
        return Stored(pickle.dumps(value))

    def decode(self, value: Stored) -> Any:
        return pickle.loads(value.pickled)

    def replace(self, key: str, value: Any, timeout: Any) -> bool:
        """False if there is no such key."""
        cache = self._cache
        name, life = cache.make_and_validate_key(key), cache.get_backend_timeout(timeout)
        return bool(cache._cache.replace(name, value, life))

    def get(self, key: str) -> Any:
        return self._cache.get(key)

    def add(self, key: str, value: Any, timeout: Any) -> Any:
        return self._cache.add(key, value, timeout)

    def set(self, key: str, value: Any, timeout: Any) -> None:
        self._cache.set(key, value, timeout)

    def delete(self, key: str) -> Any:
        return self._cache.delete(key)

    def has_key(self, key: str) -> Any:
        return self._cache.has_key(key)

    # As with Django's caches.
    aread, aget = sync_to_async(read), sync_to_async(get)
    aswap, areplace = sync_to_async(swap), sync_to_async(replace)
    aadd, aset = sync_to_async(add), sync_to_async(set)
    adelete, ahas_key = sync_to_async(delete), sync_to_async(has_key)
