"""django.contrib.sessions.middleware that keeps async requests on the event loop.

Under WSGI this is Django's class. Under ASGI, Django's sends each request to a thread twice, also
when nobody looks at the session. Ours does not: what waits is waited for with the session's own
async methods, and the rest, cookie and Vary included, is still Django's code.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NoReturn

from asgiref.sync import sync_to_async
from django.contrib.sessions.middleware import SessionMiddleware as DjangoSessionMiddleware
from django.http import HttpRequest
from django.http.response import HttpResponseBase

# What Django calls in a thread; a subclass may have its own.
HOOKS = {
    "process_request": DjangoSessionMiddleware.process_request,
    "process_response": DjangoSessionMiddleware.process_response,
}
KNOWN = ("django_rust_sessions.", "django.contrib.sessions.", "builtins")


class SessionMiddleware(DjangoSessionMiddleware):
    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        if any(getattr(type(self), name) is not method for name, method in HOOKS.items()):
            return await super().__acall__(request)
        if stays_on_loop(self.SessionStore):
            self.process_request(request)
        else:
            await sync_to_async(self.process_request)(request)
        response = await self.get_response(request)  # type: ignore[misc]  # it is async here
        # The view may have put another session in its place, or taken it away.
        session: Any = getattr(request, "session", None)
        kind: Any = type(session)
        if not stays_on_loop(kind):
            return await sync_to_async(self.process_response)(request, response)
        stand_in: Any = _Request(request, _Session(session))
        while True:
            try:
                return self.process_response(stand_in, response)
            except _Wanted as wanted:
                method = wanted.method
            # Before Django 5.1, or where the project may look at what its thread keeps.
            if not hasattr(session, f"a{method}") or session._calls_project():
                return await sync_to_async(self.process_response)(request, response)
            await stand_in.session.ask(method)


@cache
def stays_on_loop(store: type) -> bool:
    """Whether the event loop can make such a session and use its async methods for the sync ones.

    That is so for our engines. A subclass of theirs must override in pairs: save() with asave().
    """
    if not any(cls.__module__.startswith("django_rust_sessions.") for cls in store.__mro__):
        return False
    known = [cls for cls in store.__mro__ if cls.__module__.startswith(KNOWN)]
    overrides = [
        (name, vars(cls))
        for cls in store.__mro__
        if cls not in known
        for name, value in vars(cls).items()
        if (callable(value) or isinstance(value, property)) and any(name in vars(k) for k in known)
    ]
    return all(_twins(name) & names.keys() for name, names in overrides)


def _twins(name: str) -> set[str]:
    """The async name of a sync method, and the other way round: save, asave; _get_x, _aget_x."""
    bare = name.lstrip("_")
    underscores = name[: len(name) - len(bare)]
    return {f"{underscores}a{bare}", f"{underscores}{bare[1:]}" if bare[0] == "a" else ""}


# Django's process_response is sync, and waits in the middle: for the session's data, for save().
# So it gets a stand-in of the session and runs until it would wait, and again once the session's
# async method has done that. Only after it has waited does it change the response.


class _Wanted(Exception):
    """What this method of the session does was not waited for yet."""

    def __init__(self, method: str) -> None:
        self.method = method


class _Session:
    """Gives the same answer each time, for the session changes while we wait."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._answers: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        if name not in self._answers:
            value = getattr(self._session, name)
            if name == "is_empty":  # never waits
                value = _returning(value())
            elif callable(value):
                return _raising(_Wanted(name))
            self._answers[name] = value
        return self._answers[name]

    async def ask(self, method: str) -> None:
        try:
            self._answers[method] = _returning(await getattr(self._session, f"a{method}")())
        except Exception as error:
            self._answers[method] = _raising(error)


class _Request:
    def __init__(self, request: HttpRequest, session: _Session) -> None:
        self._request = request
        self.session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._request, name)


def _returning(value: Any) -> Callable[[], Any]:
    return lambda: value


def _raising(error: Exception) -> Callable[[], NoReturn]:
    def method() -> NoReturn:
        raise error

    return method
