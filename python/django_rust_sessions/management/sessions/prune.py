"""manage.py sessions prune: deletes what is over, in batches."""

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, NamedTuple

from django.utils import timezone

from ...backends import clear
from .common import Interrupt, many
from .progress import Progress
from .stores.base import Store
from .stores.db import DatabaseStore
from .stores.file import FileStore


class Options(NamedTuple):
    batch: int
    sleep: float | None
    limit: int | None
    older_than: timedelta
    dry_run: bool


class Done(NamedTuple):
    deleted: int
    sentence: str


def prune(store: Store, options: Options, progress: Progress, interrupt: Interrupt) -> Done:
    if isinstance(store, DatabaseStore):
        work: Any = _InDatabase(store, options)
    elif isinstance(store, FileStore):
        work = _InFiles(store, options)
    else:
        return Done(0, f"Nothing to do: {store} forgets by itself what is over.")
    age = f" {_words(options.older_than)} ago or more" if options.older_than else ""
    if options.dry_run:
        number = _limited(work.count(), options.limit)
        verb = "would be" if options.limit is None else "would be (--limit)"
        return Done(0, f"{many(number)} that ended{age} {verb} deleted from {store}.")
    start, deleted = time.monotonic(), 0
    progress.begin(_limited(work.count(), options.limit) if progress.on_terminal else None)
    for batch in work.batches():
        deleted += batch.deleted
        progress.advance(batch.deleted)
        if interrupt.wait(batch.pause):
            break
    progress.finish()
    took = time.monotonic() - start
    left = " Interrupted: run it again for the rest." if interrupt else ""
    sentence = f"{many(deleted)} that ended{age} deleted from {store} in {took:.1f} s.{left}"
    return Done(deleted, sentence)


class _InDatabase:
    def __init__(self, store: DatabaseStore, options: Options) -> None:
        before = timezone.now() - options.older_than
        self.expired = clear.find(store.model, store.using, before)
        self.options = clear.Options(batch_size=options.batch, max_rows=options.limit)
        if options.sleep is not None:
            self.options = self.options._replace(pause=options.sleep)

    def count(self) -> int:
        return self.expired.count()

    def batches(self) -> Iterator[clear.Batch]:
        return clear.delete_in_batches(self.expired, self.options)


class _InFiles:
    def __init__(self, store: FileStore, options: Options) -> None:
        self.store, self.options = store, options
        self.before = timezone.now() - options.older_than

    def count(self) -> int:
        return sum(1 for record in self._records() if self._is_over(record))

    def batches(self) -> Iterator[clear.Batch]:
        pause = 0.0 if self.options.sleep is None else self.options.sleep
        deleted = left = 0
        total = 0
        for record in self._records():
            if total == self.options.limit:
                break
            left += 1
            if self._is_over(record) and self.store.delete_if_same(record):
                deleted += 1
                total += 1
            if left == self.options.batch:
                yield clear.Batch(deleted, pause)
                deleted = left = 0
        yield clear.Batch(deleted, 0)

    def _records(self) -> Iterator[Any]:
        for name in self.store.names():
            if record := self.store.read(name):
                yield record

    def _is_over(self, record: Any) -> bool:
        # As Django does with a file that it cannot read: its time decides.
        return record.expires is not None and record.expires <= self.before


def _limited(number: int, limit: int | None) -> int:
    return number if limit is None else min(number, limit)


def _words(length: timedelta) -> str:
    for seconds, unit in ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        number, rest = divmod(int(length.total_seconds()), seconds)
        if number and not rest:
            return many(number, unit)
    return str(length)
