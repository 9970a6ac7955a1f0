"""Reads the vectors for Python tests. The fields are explained in README.md."""

import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
# django-1.11, django-2.2, ...
NAMES = sorted(path.stem for path in HERE.glob("django-*.json"))


class Vector(NamedTuple):
    """One entry, with what the header says for all of them filled in."""

    id: str  # file and name, for messages
    group: str
    kind: str
    salt: str
    algorithm: str
    secret_key: str
    fallback_keys: tuple[str, ...]
    now: float
    max_age: float | None
    token: str
    fields: dict[str, Any]  # the entry itself

    @property
    def payload(self) -> str:
        return whole(self.fields["payload"])

    @property
    def value(self) -> str | None:
        """JSON text of what Django reads, None if it refuses."""
        if "payload" in self.fields:
            return whole(self.fields.get("reads_as", self.fields["payload"]))
        return whole(self.fields["value"]) if self.fields["error"] is None else None


def whole(text: str | list) -> str:
    """Text as it was before long runs were put as {"repeat": [unit, count]}."""
    if isinstance(text, str):
        return text
    parts = (p if isinstance(p, str) else p["repeat"][0] * p["repeat"][1] for p in text)
    return "".join(parts)


@functools.cache
def load(name: str) -> dict[str, Any]:
    return json.loads((HERE / f"{name}.json").read_text("ascii"))


def vectors(name: str, section: str) -> list[Vector]:
    """Vectors of a file; section is "valid" or "invalid"."""
    header = load(name)["header"]
    return [
        Vector(
            id=f"{name} {entry['name']}",
            group=entry["group"],
            kind=entry["kind"],
            salt=entry["salt"],
            algorithm=entry.get("algorithm", header["algorithm"]),
            secret_key=entry.get("secret_key", header["secret_key"]),
            fallback_keys=tuple(entry.get("fallback_keys", ())),
            now=float(entry.get("now", entry.get("time", 0))),  # as time.time() is
            max_age=entry.get("max_age"),
            token=whole(entry["token"]),
            fields=entry,
        )
        for entry in load(name)[section]
    ]


@functools.cache
def unique(section: str) -> list[Vector]:
    """Vectors of all files; where releases made the same one, it is here once."""
    everything = {}
    for name in reversed(NAMES):  # the newest release speaks for the others
        for vector in vectors(name, section):
            everything.setdefault(vector[2:-1], vector)
    return list(everything.values())
