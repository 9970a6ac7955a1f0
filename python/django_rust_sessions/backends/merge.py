"""The option MERGE: a save writes what this request changed, over what is stored now.

What was changed is found by comparing with what was loaded. A save replaces exactly what was loaded
(compare-and-swap); if another request has saved meanwhile, its session is read, ours is put over
it, and the save tries again. A session that is gone stays gone: a logout wins over everything.
"""

import pickle
from typing import Any

from django.contrib.sessions.backends.base import SessionBase, UpdateError

from ..conf import option

# Each time somebody else has saved, so somebody gets on.
TRIES = 1000


class Conflict(Exception):
    """Something else is stored now."""

    def __init__(self, raw: Any) -> None:
        self.raw = raw


class MergeMixin:
    """Goes before the body of an engine, which has `_swap` and notes `_loaded_raw`."""

    # What each value was, and what the store gave for the whole; None if that is not known.
    _loaded: dict[str, bytes] | None = None
    _loaded_raw: Any = None

    # SessionBase's and the engines', which django-stubs does not know.
    session_key: Any
    _session_cache: Any
    # Whether the store can replace exactly what was loaded.
    _can_merge: Any
    # Stores the session in place of `_loaded_raw`, or raises Conflict or UpdateError.
    _swap: Any
    _aswap: Any
    _read_stored: Any

    def load(self) -> dict[str, Any]:
        data: dict[str, Any] = super().load()  # type: ignore[misc]
        if option("MERGE"):
            self._loaded = _snapshot(data)
        return data

    def clear(self) -> None:
        super().clear()  # type: ignore[misc]
        # All of it, also what others have added: some sites log out so.
        self._loaded = None

    def save(self, must_create: bool = False) -> None:
        if not self._merges(must_create):
            super().save(must_create)  # type: ignore[misc]
            return self._note_saved()
        for _ in range(TRIES):
            try:
                self._swap()
            except Conflict as conflict:
                self._merge(conflict.raw)
            else:
                return self._note_saved()
        raise UpdateError

    if hasattr(SessionBase, "aload"):  # since Django 5.1

        async def aload(self) -> dict[str, Any]:
            data: dict[str, Any] = await super().aload()  # type: ignore[misc]
            if option("MERGE"):
                self._loaded = _snapshot(data)
            return data

        async def asave(self, must_create: bool = False) -> None:
            if not self._merges(must_create):
                await super().asave(must_create)  # type: ignore[misc]
                return self._note_saved()
            for _ in range(TRIES):
                try:
                    await self._aswap()
                except Conflict as conflict:
                    self._merge(conflict.raw)
                else:
                    return self._note_saved()
            raise UpdateError

    def _merges(self, must_create: bool) -> bool:
        return (
            not must_create
            and self._loaded is not None
            and self.session_key is not None
            and option("MERGE")
            and self._can_merge()
        )

    def _note_saved(self) -> None:
        if option("MERGE") and hasattr(self, "_session_cache"):
            self._loaded = _snapshot(self._session_cache)

    def _merge(self, raw: Any) -> None:
        """Puts what this request changed over what is stored now."""
        before, mine = self._loaded or {}, self._session_cache
        changed = {key: mine[key] for key, now in _snapshot(mine).items() if before.get(key) != now}
        stored = self._read_stored(raw)
        self._loaded, self._loaded_raw = _snapshot(stored), raw
        merged = {key: value for key, value in stored.items() if key in mine or key not in before}
        # In place: the request may hold on to it.
        mine.clear()
        mine.update(merged | changed)


def _snapshot(data: dict[str, Any]) -> dict[str, bytes]:
    return {key: _freeze(value) for key, value in data.items()}


def _freeze(value: Any) -> bytes:
    """The same for the same: `==` takes 1 for True, and NaN for something new each time."""
    try:
        return pickle.dumps(value, 5)
    except Exception:
        # What a serializer of the project's own can keep and pickle cannot: counts as changed.
        return b""
