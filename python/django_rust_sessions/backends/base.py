"""What every engine has of django.contrib.sessions.backends.base."""

import asyncio
import contextvars
import math
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

from django.contrib.sessions.backends import base
from django.contrib.sessions.backends.base import CreateError

from .._native import random_session_key

UNAVAILABLE = "Unable to create a new session key. It is likely that the cache is unavailable."
HAS_ASYNC = hasattr(base.SessionBase, "aload")  # since Django 5.1

_djangos_get_random_string = base.get_random_string  # type: ignore[attr-defined]


def get_random_key() -> str:
    # As SessionBase draws one, but whether the key is taken, the store will say.
    if base.get_random_string is not _djangos_get_random_string:  # type: ignore[attr-defined]
        # A test that wants certain keys, for instance.
        return base.get_random_string(32, base.VALID_KEY_CHARS)  # type: ignore[attr-defined,no-any-return]
    return random_session_key()


def create_under_new_key(store: Any, tries: float = math.inf) -> None:
    """SessionBase.create() of an engine whose save() refuses a taken key."""
    while tries > 0:
        store._session_key = get_random_key()
        try:
            store.save(must_create=True)
        except CreateError:
            tries -= 1
            continue
        store.modified = True
        return
    raise RuntimeError(UNAVAILABLE)


async def acreate_under_new_key(store: Any, tries: float = math.inf) -> None:
    while tries > 0:
        store._session_key = get_random_key()
        try:
            await store.asave(must_create=True)
        except CreateError:
            tries -= 1
            continue
        store.modified = True
        return
    raise RuntimeError(UNAVAILABLE)


# Held here, for an event loop does not hold its tasks.
_unfinished: set["asyncio.Task[Any]"] = set()


def finishes(method: Callable[..., Coroutine[Any, Any, Any]]) -> Any:
    """For a method of several steps, which must all be done if one is.

    Who waits may be cancelled meanwhile, as a request is whose client has gone. In Django's
    middleware a thread does such steps, and no one can stop it between them.
    """

    @wraps(method)
    async def call(*args: Any, **kwargs: Any) -> Any:
        context = contextvars.copy_context()
        task = asyncio.get_running_loop().create_task(method(*args, **kwargs), context=context)
        _unfinished.add(task)
        task.add_done_callback(_forget)
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            # Passed on when all is done: with the request its thread ends, which steps may need.
            await asyncio.wait([task])
            raise
        for variable, value in context.items():
            if variable.get(_unfinished) is not value:
                variable.set(value)
        return task.result()

    return call


def _forget(task: "asyncio.Task[Any]") -> None:
    _unfinished.discard(task)
    if not task.cancelled():
        task.exception()  # or asyncio complains, where nobody asks any more
