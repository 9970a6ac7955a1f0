"""Trees of dicts as TOML and JSON. The same tree is always the same text."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

# TOML has no null: what is None is left out, and the reader takes its default.
Tree = dict[str, Any]

_is_bare = re.compile(r"[A-Za-z0-9_-]+").fullmatch
_ESCAPES = {
    '"': '\\"',
    "\\": "\\\\",
    "\b": "\\b",
    "\t": "\\t",
    "\n": "\\n",
    "\f": "\\f",
    "\r": "\\r",
}


def to_json(tree: Tree, comment: str) -> str:
    """As JSON, which has no comments."""
    return json.dumps(_without_none(tree), indent=2) + "\n"


def to_toml(tree: Tree, comment: str) -> str:
    """As TOML 1.0: single values first, then a table each."""
    head = "".join(f"# {line}".rstrip() + "\n" for line in comment.splitlines())
    return head + "\n" + "\n".join(_table(_without_none(tree), [])) + "\n"


WRITERS: dict[str, Callable[[Tree, str], str]] = {"toml": to_toml, "json": to_json}


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(each) for key, each in value.items() if each is not None}
    if isinstance(value, (list, tuple)):
        return [_without_none(each) for each in value]
    return value


def _is_table(value: Any) -> bool:
    # A variable's name stands in its line.
    return isinstance(value, dict) and value.keys() != {"env"}


def _table(table: Tree, path: list[str]) -> Iterator[str]:
    for key, value in table.items():
        if not _is_table(value):
            yield f"{_key(key)} = {_value(value)}"
    for key, value in table.items():
        if _is_table(value):
            inner = [*path, _key(key)]
            if not value or not all(map(_is_table, value.values())):
                yield ""
                yield f"[{'.'.join(inner)}]"
            yield from _table(value, inner)


def _key(key: str) -> str:
    return key if _is_bare(key) else _text(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        return (
            "{ " + ", ".join(f"{_key(key)} = {_value(each)}" for key, each in value.items()) + " }"
        )
    if isinstance(value, list):
        return _list([_value(each) for each in value])
    raise TypeError(f"{type(value).__name__} has no form in TOML")


def _list(items: list[str]) -> str:
    line = "[" + ", ".join(items) + "]"
    if len(line) <= 80:
        return line
    return "[\n" + "".join(f"    {item},\n" for item in items) + "]"


def _text(text: str) -> str:
    return '"' + "".join(_ESCAPES.get(letter) or _letter(letter) for letter in text) + '"'


def _letter(letter: str) -> str:
    if letter < " " or letter == "\x7f":
        return f"\\u{ord(letter):04x}"
    return letter
