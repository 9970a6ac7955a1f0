"""What every engine has of django.contrib.sessions.backends.base."""

from django.contrib.sessions.backends import base

from .._native import random_session_key

HAS_ASYNC = hasattr(base.SessionBase, "aload")  # since Django 5.1

_djangos_get_random_string = base.get_random_string  # type: ignore[attr-defined]


def get_random_key() -> str:
    # As SessionBase draws one, but whether the key is taken, the store will say.
    if base.get_random_string is not _djangos_get_random_string:  # type: ignore[attr-defined]
        # A test that wants certain keys, for instance.
        return base.get_random_string(32, base.VALID_KEY_CHARS)  # type: ignore[attr-defined,no-any-return]
    return random_session_key()
