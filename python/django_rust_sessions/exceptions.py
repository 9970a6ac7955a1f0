"""Exceptions that Django has no counterpart of."""


class SessionTooLarge(ValueError):
    """A properly signed session inflates to more than SESSION_MAX_INFLATED bytes."""
