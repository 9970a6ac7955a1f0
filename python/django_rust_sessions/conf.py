"""This package's own settings: the dict RUST_SESSIONS in the project's settings."""

import sys
from functools import cache
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.dispatch import receiver

DEFAULTS: dict[str, Any] = {
    # How many bytes a compressed session may inflate to. Django has no such limit.
    "MAX_INFLATED": 16 * 1024 * 1024,
    # Read what Django before 3.1 wrote, and what 3.1 signed with sha1. A login in there is checked
    # with the hash of its time, which Django forgot in 4.0. What is saved is in today's format.
    "LEGACY": False,
    # Read the data in sessions that PickleSerializer wrote, when SESSION_SERIALIZER is Django's
    # JSONSerializer. No class of theirs is ever imported or called.
    "PICKLE_MIGRATION": False,
    # The file engine waits until a session is on the disk. Django does not.
    "FILE_FSYNC": False,
    # The db engine's writes do not wait until PostgreSQL's log is on the disk, but for those that
    # end a login.
    "POSTGRES_ASYNC_COMMIT": False,
    # How many seconds Redis may take to accept a connection, and to answer. The options
    # socket_connect_timeout and socket_timeout of the cache alias go first.
    "REDIS_CONNECT_TIMEOUT": 2.0,
    "REDIS_TIMEOUT": 5.0,
    # "sha256": the store knows a session by a hash of its key. "plain": by its key, and sessions
    # that are there under a hash are still found.
    "HASH_KEYS": None,
    # A save changes what this request changed, and keeps what other requests did meanwhile.
    "MERGE": False,
    # The engine that sessions were in before: what the new store does not have, is read from there,
    # and moves with its next save. With another cache than SESSION_CACHE_ALIAS, its alias.
    "FALLBACK_ENGINE": "",
    "FALLBACK_CACHE_ALIAS": "",
    # How many bytes of loaded sessions each process keeps, until Redis says that they have changed,
    # and how many seconds a change may go unnoticed if nothing is heard from Redis.
    "LOCAL_CACHE": 0,
    "LOCAL_CACHE_MAX_STALE": 1.0,
}
# In words, by the type of the default.
KINDS = {
    bool: "True or False",
    int: "a whole number of bytes",
    float: "a number of seconds",
    str: "a name, or '' for none",
}
# Options that have one of these values.
CHOICES = {"HASH_KEYS": (None, "sha256", "plain")}


@cache  # asking Django for a setting that is missing takes longer than reading a session
def option(name: str) -> Any:
    """RUST_SESSIONS[name], or its default."""
    options = getattr(settings, "RUST_SESSIONS", None)
    if not options:
        return DEFAULTS[name]
    if not isinstance(options, dict):
        raise ImproperlyConfigured(f"RUST_SESSIONS must be a dict, not {options!r}.")
    if unknown := options.keys() - DEFAULTS.keys():
        raise ImproperlyConfigured(
            f"RUST_SESSIONS has no option {', '.join(sorted(map(repr, unknown)))}. "
            f"It has {', '.join(map(repr, sorted(DEFAULTS)))}."
        )
    default = DEFAULTS[name]
    value = options.get(name, default)
    if name in CHOICES:
        if value not in CHOICES[name]:
            raise ImproperlyConfigured(
                f"RUST_SESSIONS[{name!r}] is {value!r}, and should be one of "
                f"{', '.join(map(repr, CHOICES[name]))}."
            )
        return value
    kinds = (int, float) if type(default) is float else (type(default),)
    # Not so for NaN, and for what no clock and no memory can hold.
    if type(value) not in kinds or (type(value) is not str and not 0 <= value <= sys.maxsize):
        raise ImproperlyConfigured(
            f"RUST_SESSIONS[{name!r}] is {value!r}, and should be {KINDS[type(default)]}, such as "
            f"{default!r}."
        )
    if name == "MAX_INFLATED" and not value:
        raise ImproperlyConfigured(
            "RUST_SESSIONS['MAX_INFLATED'] is 0, with which no compressed session could be read: "
            f"give the bytes that one may have, such as {default!r}."
        )
    return value


class Options:
    """Those that say what is read."""

    def __init__(self, max_inflated: int, legacy: bool, pickles: bool) -> None:
        self.max_inflated, self.legacy, self.pickles = max_inflated, legacy, pickles


@cache
def get_options() -> Options:
    return Options(option("MAX_INFLATED"), option("LEGACY"), option("PICKLE_MIGRATION"))


@receiver(setting_changed)
def _forget_options(*, setting: str, **kwargs: Any) -> None:
    if setting == "RUST_SESSIONS":
        option.cache_clear()
        get_options.cache_clear()
