"""What all parts of the export need: its refusals, its secrets, and what is said to the user."""

import re
from typing import Any

from django.core.management.base import CommandError


class Refused(CommandError):
    """The settings cannot be told to Rust; says why, and what to do."""


class Report:
    """Takes secrets out of the export, and collects what the user is to know."""

    def __init__(self, with_secrets: bool) -> None:
        self.with_secrets = with_secrets
        self.variables: dict[str, str] = {}
        self.notes: list[str] = []

    def secret(self, value: Any, name: str, source: str) -> Any:
        """The value; or an environment variable in its place, of which the source is told."""
        text = as_text(value, source)
        if self.with_secrets:
            return text
        name = re.sub(r"[^A-Z0-9]+", "_", name.upper()).strip("_")
        unique, number = name, 2
        while unique in self.variables:
            # Two aliases that differ in other letters only.
            unique, number = f"{name}_{number}", number + 1
        self.variables[unique] = source
        return {"env": unique}

    def note(self, sentence: str) -> None:
        if sentence not in self.notes:
            self.notes.append(sentence)


def as_text(value: Any, source: str) -> str:
    """Text, also of bytes, paths and lazy text."""
    if isinstance(value, bytes):
        try:
            text = value.decode()
        except UnicodeDecodeError:
            raise Refused(
                f"{source} is bytes that are not UTF-8, which a settings file cannot hold. "
                "Let it be text."
            ) from None
    else:
        text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Refused(
            f"{source} has a lone surrogate, which a settings file cannot hold. "
            "Let it be text that UTF-8 can encode."
        ) from None
    return text


def dotted_path(thing: Any) -> str:
    """Where a class or function is; of a path that is text already, the path."""
    return thing if isinstance(thing, str) else f"{thing.__module__}.{thing.__qualname__}"


def same_site(value: Any) -> str | bool:
    """A cookie's attribute as the Rust crate spells it: Django takes it in any case."""
    return str(value).capitalize() if value else False


def take_options(
    options: dict[str, Any], used: set[str], irrelevant: set[str], where: str
) -> dict[str, Any]:
    """The options that Rust knows by the same name. One that nobody knows may change where or how
    sessions are stored, so it is refused."""
    if unknown := sorted(map(str, options.keys() - used - irrelevant)):
        raise Refused(
            f"{where} has {', '.join(map(repr, unknown))}, of which the Rust crate knows nothing. "
            f"It knows {', '.join(sorted(used))}. Take it out for the cache or database "
            "that sessions are in."
        )
    return {name: options[name] for name in options if name in used and options[name] is not None}
