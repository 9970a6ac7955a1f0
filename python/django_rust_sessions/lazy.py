"""Default values that are no reason to store a session: `session.set_default_lazily()`."""

from typing import Any

from .backends.base import HAS_ASYNC


class LazyDefaultsMixin:
    """Goes before a SessionBase in the bases of a class."""

    # Django's, which django-stubs does not know.
    _session: Any
    _session_key: Any
    _session_cache: Any
    _aget_session: Any
    modified: bool

    # The keys of such values; most sessions have none.
    _lazy_defaults: frozenset[str] = frozenset()

    def set_default_lazily(self, key: str, value: Any) -> Any:
        """setdefault(), but for a value that need not be kept: it is here at once, and stored when
        the session is saved for another reason."""
        return self._set_lazily(self._session, key, value)

    if HAS_ASYNC:

        async def aset_default_lazily(self, key: str, value: Any) -> Any:
            return self._set_lazily(await self._aget_session(), key, value)

    def is_empty(self) -> bool:
        """Whether there is nothing to store: the middleware then neither saves nor sends a key."""
        if self.modified or not self._lazy_defaults:
            # Changed, perhaps within such a value, which only `modified` says.
            return bool(super().is_empty())  # type: ignore[misc]
        return not self._session_key and self._session_cache.keys() <= self._lazy_defaults

    def _set_lazily(self, data: dict[str, Any], key: str, value: Any) -> Any:
        if key not in data:
            if self.is_empty():
                # After flush(), for instance. What was changed is gone and needs no saving.
                self.modified = False
            data[key] = value
            self._lazy_defaults |= {key}
        return data[key]
