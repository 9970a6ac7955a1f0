"""Django and this project on the same input: what came of it, down to types and log records."""

import contextlib
import logging
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from django.contrib.sessions.backends.db import SessionStore as DjangoStore
from django.contrib.sessions.backends.signed_cookies import SessionStore as DjangoCookieStore
from django_rust_sessions.backends.db import SessionStore as RustStore
from django_rust_sessions.backends.signed_cookies import SessionStore as RustCookieStore

__all__ = ["DjangoCookieStore", "DjangoStore", "RustCookieStore", "RustStore", "outcome", "same"]


class Outcome(NamedTuple):
    value: Any
    error: tuple[type, str, list[str]] | None
    logs: list[tuple[str, str, str]]

    @property
    def kind(self) -> type | None:
        """The class of the exception, if one was raised."""
        return self.error and self.error[0]


def outcome(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Outcome:
    value = error = None
    with captured_logs() as logs:
        try:
            value = function(*args, **kwargs)
        except Exception as exc:
            error = (type(exc), str(exc), getattr(exc, "__notes__", []))
    return Outcome(value, error, logs)


@contextlib.contextmanager
def captured_logs():
    logs = []
    handler = logging.Handler()
    handler.emit = lambda record: logs.append((record.name, record.levelname, record.getMessage()))
    logger = logging.getLogger("django")
    logger.addHandler(handler)
    try:
        yield logs
    finally:
        logger.removeHandler(handler)


def same(left: Any, right: Any) -> bool:
    """Equal, of the same types throughout, with keys in the same order, NaN and -0.0 told apart."""
    pairs = [(left, right)]
    while pairs:
        left, right = pairs.pop()
        if type(left) is not type(right):
            return False
        if isinstance(left, dict):
            if len(left) != len(right):
                return False
            pairs += zip(left, right, strict=True)
            pairs += zip(left.values(), right.values(), strict=True)
        elif isinstance(left, list | tuple):
            if len(left) != len(right):
                return False
            pairs += zip(left, right, strict=True)
        elif isinstance(left, float):
            if struct.pack("d", left) != struct.pack("d", right):
                return False
        elif left != right:
            return False
    return True
