"""Sessions in the folder of the file engine."""

import contextlib
import datetime
import os
import tempfile
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.contrib.sessions.backends.base import VALID_KEY_CHARS
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError
from django.utils import timezone

from ...._native import read_session_file
from ....backends.keys import is_stored_name
from ....conf import option
from .base import Batch, Place, Record, Store


class FileStore(Store):
    def __init__(self, engine: type[Any], place: Place) -> None:
        try:
            super().__init__(engine, place)
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from None
        if place.path:
            if not os.path.isdir(place.path):
                raise CommandError(f"There is no folder {place.path!r}: make it, or name another.")
            self.session.storage_path = place.path
        self.folder: str = self.session.storage_path
        self.prefix: str = self.session.file_prefix
        self.age = datetime.timedelta(seconds=self.session.get_session_cookie_age())

    def identity(self) -> Any:
        return ("files", os.path.realpath(self.folder), self.prefix)

    def __str__(self) -> str:
        return f"the folder {self.folder}"

    def names(self) -> Iterator[str]:
        with os.scandir(self.folder) as entries:
            for entry in entries:
                name = entry.name.removeprefix(self.prefix)
                # Others are the temporary files of savers, or not ours.
                if name != entry.name and name and set(name) <= set(VALID_KEY_CHARS):
                    # A hashed name has its "$" everywhere but in files.
                    yield f"sha256${name[6:]}" if is_stored_name(name) else name

    def count(self) -> int:
        return sum(1 for _ in self.names())

    def scan(self, position: str, size: int) -> Iterator[Batch]:
        names = sorted(name for name in self.names() if name >= position)
        now = timezone.now()
        for start in range(0, len(names), size):
            page = names[start : start + size]
            records = [record for name in page if (record := self.read(name))]
            yield Batch(
                [each for each in records if each.expires is None or each.expires > now], page[-1]
            )

    def read(self, name: str) -> Record | None:
        """None if it is gone, or the placeholder of a save that is under way."""
        path = self._path(name)
        try:
            version = _version(path)
            contents, modified = read_session_file(path)
        except FileNotFoundError:
            return None
        if not contents:
            return None
        text = contents.decode("ascii", "replace")
        data = self.decode(text)
        zone = datetime.UTC if settings.USE_TZ else None
        expires: Any = (data or {}).get("_session_expiry")
        if isinstance(expires, str):
            try:
                expires = datetime.datetime.fromisoformat(expires)
                _ = expires < timezone.now()
            except (ValueError, TypeError):
                data, expires = None, None
        if isinstance(expires, int | float) and expires:
            # As Django has it: that long after each look.
            expires = timezone.now() + datetime.timedelta(seconds=expires)
        if not isinstance(expires, datetime.datetime):
            expires = datetime.datetime.fromtimestamp(modified, tz=zone) + self.age
        return Record(name, data, expires, text, version)

    def add(self, records: list[Record]) -> list[bool | None]:
        return [self._add(record) for record in records]

    def _add(self, record: Record) -> bool | None:
        if not set(record.name.removeprefix("sha256$")) <= set(VALID_KEY_CHARS):
            return None
        expires = record.expires or timezone.now() + self.age
        text = self.session.encode(record.data or {})
        with self._prepared(record.name, text, (expires - self.age).timestamp()) as prepared:
            path = self._path(record.name)
            for _ in range(2):
                with contextlib.suppress(FileExistsError):
                    os.link(prepared, path)
                    return True
                # One that is over is in nobody's use, and in the way.
                there = self.read(record.name)
                if there is None or there.expires is None or there.expires > timezone.now():
                    return False
                self.delete_if_same(there)
        return False

    @contextlib.contextmanager
    def _prepared(self, name: str, text: str, modified: float) -> Iterator[str]:
        """A file with that content and time, beside the others."""
        handle, path = tempfile.mkstemp(dir=self.folder, prefix=f"{self.prefix}{name}_out_")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(text.encode())
                if option("FILE_FSYNC"):
                    file.flush()
                    os.fsync(file.fileno())
            os.utime(path, (modified, modified))
            yield path
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def present(self, names: list[str]) -> set[str]:
        return {name for name in names if os.path.exists(self._path(name))}

    def delete(self, names: list[str]) -> None:
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path(name))

    def delete_if_same(self, record: Record) -> bool:
        """False if it was saved or deleted meanwhile."""
        path = self._path(record.name)
        try:
            if _version(path) != record.version:
                return False
            os.unlink(path)
        except FileNotFoundError:
            return False
        return True

    def replace(self, record: Record, data: dict[str, Any] | None, raw: Any) -> bool:
        path = self._path(record.name)
        modified = record.version[1] / 1e9  # by which it ends
        with self._prepared(record.name, raw, modified) as prepared:
            os.utime(prepared, ns=(record.version[1], record.version[1]))
            try:
                if _version(path) != record.version:
                    return False
            except FileNotFoundError:
                return False
            os.replace(prepared, path)
        return True

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, self.prefix + name.replace("$", ""))


def _version(path: str) -> tuple[int, int, int]:
    found = os.stat(path)
    return found.st_ino, found.st_mtime_ns, found.st_size
