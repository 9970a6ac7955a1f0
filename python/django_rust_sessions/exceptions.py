"""Exceptions that Django has no counterpart of."""


class SessionTooLarge(ValueError):
    """A properly signed session inflates to more than RUST_SESSIONS["MAX_INFLATED"] bytes."""


class SessionConflict(RuntimeError):
    """With RUST_SESSIONS["MERGE"]: others wrote the session each time that this request tried."""


class PickleRefused(ValueError):
    """A properly signed pickle is not read, or holds more than plain data."""
