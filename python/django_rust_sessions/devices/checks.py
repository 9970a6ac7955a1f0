"""Whether the app is set up."""

from typing import Any

from django.conf import settings
from django.contrib.sessions.backends.signed_cookies import SessionStore as SignedCookies
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.checks import CheckMessage, Error, Warning
from django.utils.module_loading import import_string

from .middleware import DevicesMiddleware

PATH = "django_rust_sessions.devices.middleware.DevicesMiddleware"
HINT = f"Put {PATH!r} into MIDDLEWARE, right before the SessionMiddleware."


def check_devices(**kwargs: Any) -> list[CheckMessage]:
    classes = [_import(path) for path in settings.MIDDLEWARE]
    ours, sessions = (_first(classes, base) for base in (DevicesMiddleware, SessionMiddleware))
    engine = _import(f"{settings.SESSION_ENGINE}.SessionStore")
    messages: list[CheckMessage] = []
    if ours is None:
        messages.append(
            Warning(
                "django_rust_sessions.devices is installed without its middleware: sessions are "
                "recorded at login alone, and never seen again.",
                hint=HINT,
                id="session_devices.W001",
            )
        )
    elif sessions is not None and sessions < ours:
        messages.append(
            Error(
                "DevicesMiddleware is after the SessionMiddleware: it sees sessions before they "
                "are saved, and misses new keys.",
                hint=HINT,
                id="session_devices.E001",
            )
        )
    if isinstance(engine, type) and issubclass(engine, SignedCookies):
        messages.append(
            Warning(
                "SESSION_ENGINE keeps sessions in cookies: there is nothing on the server that "
                "django_rust_sessions.devices could list or end.",
                hint="Take the app out, or use another engine.",
                id="session_devices.W002",
            )
        )
    return messages


def _import(path: str) -> Any:
    try:
        return import_string(path)
    except ImportError:
        return None  # Django says so itself


def _first(classes: list[Any], base: type) -> int | None:
    found = (n for n, cls in enumerate(classes) if isinstance(cls, type) and issubclass(cls, base))
    return next(found, None)
