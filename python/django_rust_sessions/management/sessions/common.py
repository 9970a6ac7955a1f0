"""Ctrl-C, tries, words and numbers of `manage.py sessions`."""

import argparse
import contextlib
import datetime
import re
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from django.db import DatabaseError, InterfaceError

from ...events import Event

INTERRUPTED = 130
TRIES = 5
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


class Interrupt:
    """Whether Ctrl-C was pressed: what is under way is finished first. Pressed twice, it is not."""

    def __init__(self) -> None:
        self._event = Event()

    def __bool__(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Waits, but not for longer than until Ctrl-C."""
        return self._event.wait(seconds)

    @contextlib.contextmanager
    def watch(self) -> Iterator["Interrupt"]:
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = signal.getsignal(signal.SIGINT)
        signal.signal(signal.SIGINT, self._press)
        try:
            yield self
        finally:
            signal.signal(signal.SIGINT, before)

    def _press(self, *_: object) -> None:
        if self._event.is_set():
            raise KeyboardInterrupt
        self._event.set()


def store_errors() -> tuple[type[Exception], ...]:
    """What a store raises that is down, or full."""
    errors: tuple[type[Exception], ...] = (DatabaseError, InterfaceError, OSError)
    with contextlib.suppress(ImportError):
        from redis.exceptions import RedisError

        errors = (*errors, RedisError)
    with contextlib.suppress(ImportError):
        from pymemcache.exceptions import MemcacheError

        errors = (*errors, MemcacheError)
    return errors


def persist(do: Callable[[], Any], interrupt: Interrupt, again: Callable[[], None]) -> Any:
    """Does it, and tries again for some seconds if a store does not answer."""
    for attempt in range(TRIES):
        try:
            return do()
        except store_errors() as error:
            if attempt == TRIES - 1 or _is_full(error) or interrupt.wait(0.25 * 2**attempt):
                raise
            with contextlib.suppress(*store_errors()):
                again()


def _is_full(error: Exception) -> bool:
    words = ("no space left", "quota exceeded", "too large", "is full", "maxmemory", "disk full")
    return any(word in str(error).lower() for word in words)


# SQLite's, PostgreSQL's and MySQL's.
NO_TABLE = ("no such table", "does not exist", "doesn't exist")


def sentence(error: Exception) -> str:
    """What the store said. An address of Redis is never in there, and no session either: a
    database quotes what it was given on further lines."""
    first = str(error.args[-1] if error.args else "").strip().split("\n")[0]
    if isinstance(error, OSError) and error.strerror:
        first = error.strerror  # without the path, which has the session key in it
    if isinstance(error, DatabaseError) and any(word in first for word in NO_TABLE):
        first += " (manage.py migrate makes the table)"
    return (first or type(error).__name__).rstrip(".")


def duration(text: str) -> datetime.timedelta:
    match = re.fullmatch(r"(\d+)([smhdw])", text.strip())
    if not match:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no length of time: write 30d, 12h, 15m or 45s, for instance"
        )
    try:
        return datetime.timedelta(seconds=int(match[1]) * UNITS[match[2]])
    except OverflowError:
        raise argparse.ArgumentTypeError(f"{text!r} is too long") from None


def seconds(text: str) -> float:
    """Of a pause: 0.05, or 50ms, or 1s."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s)?", text.strip())
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds, like 0.05")
    return float(match[1]) / (1000 if match[2] == "ms" else 1)


def positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of 1 or more")
    return int(text)


def many(number: int, thing: str = "session") -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
