"""This package's own settings: the dict RUST_SESSIONS in the project's settings."""

from functools import cache
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.dispatch import receiver

DEFAULTS = {
    # How many bytes a compressed session may inflate to. Django has no such limit.
    "MAX_INFLATED": 16 * 1024 * 1024,
}


@cache  # asking Django for a setting that is missing takes longer than reading a session
def option(name: str) -> Any:
    """RUST_SESSIONS[name], or its default."""
    options = getattr(settings, "RUST_SESSIONS", None)
    if not options:
        return DEFAULTS[name]
    if unknown := options.keys() - DEFAULTS.keys():
        raise ImproperlyConfigured(
            f"RUST_SESSIONS has no option {', '.join(map(repr, sorted(unknown)))}. "
            f"It has {', '.join(map(repr, sorted(DEFAULTS)))}."
        )
    value = options.get(name, DEFAULTS[name])
    if type(value) is not type(DEFAULTS[name]) or value < 0:
        raise ImproperlyConfigured(
            f"RUST_SESSIONS[{name!r}] is {value!r}, and should be like {DEFAULTS[name]!r}."
        )
    return value


@receiver(setting_changed)
def _forget_options(*, setting: str, **kwargs: Any) -> None:
    if setting == "RUST_SESSIONS":
        option.cache_clear()
