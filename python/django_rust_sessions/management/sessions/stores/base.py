"""What the stores of all engines have in common."""

import datetime
from collections.abc import Iterator
from typing import Any, NamedTuple

from django.contrib.sessions.backends.base import SessionBase

from .... import codec
from ....backends.fallback import open_store
from ....conf import get_options

# The position of which nothing was read yet.
BEGINNING = ""


class Place(NamedTuple):
    """Where an engine keeps its sessions, where that is not what the settings say."""

    engine: str
    cache: str = ""
    database: str = ""
    path: str = ""


class Record(NamedTuple):
    name: str
    # None if it cannot be read: signed with another key, for instance.
    data: dict[str, Any] | None
    # None if it never ends.
    expires: datetime.datetime | None
    # As it is stored.
    raw: Any = None
    # Of a file: which one it was.
    version: Any = None


class Batch(NamedTuple):
    records: list[Record]
    # From where to go on after it.
    position: str


class Store:
    """What all have in common."""

    # Why its sessions cannot be listed.
    unlisted: str | None = None

    def __init__(self, engine: type[Any], place: Place) -> None:
        self.engine, self.place = engine, place
        self.session = open_store(engine)

    def identity(self) -> Any:
        """Equal for the same store."""
        raise NotImplementedError

    def __str__(self) -> str:
        raise NotImplementedError

    def count(self) -> int | None:
        raise NotImplementedError

    def scan(self, position: str, size: int) -> Iterator[Batch]:
        """All live sessions from a position on; some twice, perhaps."""
        raise NotImplementedError

    def add(self, records: list[Record]) -> list[bool | None]:
        """True where it was added, False where there was one, None where the store refused it."""
        raise NotImplementedError

    def present(self, names: list[str]) -> set[str]:
        """Those that are there, as whoever writes sees it."""
        raise NotImplementedError

    def delete(self, names: list[str]) -> None:
        raise NotImplementedError

    def checkpoint(self, position: str) -> str:
        """The position as it may be written down: the beginning of a key is none."""
        return position[:8]

    def replace(self, record: Record, data: dict[str, Any] | None, raw: Any) -> bool:
        """Puts the raw value in the place of the record's, unless that has changed meanwhile."""
        raise NotImplementedError

    def forget_copies(self, names: list[str]) -> None:
        """In a cache before the store."""

    def reconnect(self) -> None:
        """Before another try."""

    def decode(self, text: str | bytes) -> dict[str, Any] | None:
        session = self.session
        if type(session).decode not in (codec.CodecMixin.decode, SessionBase.decode):
            return session.decode(text) or None
        options = get_options()
        try:
            data = codec.loads(
                text,
                salt=session.key_salt,
                serializer=session.serializer,
                options=options,
                legacy_class=type(session).__name__,
            )
        except Exception:
            return None
        return data if isinstance(data, dict) else None


def not_one_of(what: str, name: str, setting: str, known: Any) -> str:
    return (
        f"There is no {what} {name!r} in {setting}, which has {', '.join(map(repr, known))}. "
        "Name one of these."
    )
