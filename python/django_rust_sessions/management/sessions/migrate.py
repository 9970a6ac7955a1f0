"""manage.py sessions migrate: brings live sessions from one store to another.

While the site reads both stores (RUST_SESSIONS["FALLBACK_ENGINE"]), sessions are moved, by the
rules of backends/fallback.py. Otherwise they are copied, and stay where they are.
"""

import json
import time
from collections import deque
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError
from django.utils import timezone

from ...backends.base import get_random_key
from ...codec import CodecMixin
from ...conf import option
from ..files import replace_file
from .common import Interrupt, many, persist, sentence, store_errors
from .progress import Progress
from .stores import open_place, read_batches
from .stores.base import BEGINNING, Place, Record, Store

# Seconds that a request may take between its two steps, which are: add a session to the new store,
# take it out of the old one.
GRACE = 10.0


def is_on_the_move(source: Store, target: Store) -> bool:
    """Whether the site reads `source` where `target` has nothing."""
    if not option("FALLBACK_ENGINE"):
        return False
    if not issubclass(import_module(settings.SESSION_ENGINE).SessionStore, CodecMixin):
        raise CommandError(
            f"FALLBACK_ENGINE is set, and SESSION_ENGINE {settings.SESSION_ENGINE!r} knows nothing "
            "of it. Let SESSION_ENGINE be this package's engine of that name, then run this again."
        )
    new = open_place(Place(settings.SESSION_ENGINE)).identity()
    old = open_place(Place(option("FALLBACK_ENGINE"), option("FALLBACK_CACHE_ALIAS"))).identity()
    pair = (source.identity(), target.identity())
    if pair == (new, old):
        raise CommandError(
            f"The site itself moves sessions the other way: from {target} to {source}. Swap "
            "SESSION_ENGINE and FALLBACK_ENGINE first, then run this again."
        )
    return pair == (old, new)


class Checkpoint:
    """Where to go on, in a file. It holds no session key and no password."""

    def __init__(self, path: str | None, between: list[str]) -> None:
        self.path = Path(path) if path else None
        self.between = between

    def read(self) -> str:
        if self.path is None or not self.path.exists():
            return BEGINNING
        try:
            found = json.loads(self.path.read_text("utf-8"))
            between, position = found["between"], str(found["position"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CommandError(
                f"{self.path} cannot be read as a checkpoint ({type(error).__name__}). Delete it "
                "to begin at the beginning: what was copied is not copied again."
            ) from None
        if between != self.between:
            raise CommandError(
                f"{self.path} is the checkpoint of another migration. Name another file, or "
                "delete it."
            )
        return position

    def write(self, position: str) -> None:
        if self.path is None:
            return
        text = json.dumps({"between": self.between, "position": position})
        try:
            replace_file(self.path, text)
        except OSError as error:
            raise CommandError(
                f"The checkpoint {self.path} cannot be written: {error.strerror}. Name another "
                "file and run this again: what was copied is not copied again."
            ) from None

    def remove(self) -> None:
        if self.path is not None:
            self.path.unlink(missing_ok=True)


class Migration:
    def __init__(
        self,
        source: Store,
        target: Store,
        *,
        move: bool,
        batch: int,
        sleep: float,
        checkpoint: Checkpoint,
        progress: Progress,
        interrupt: Interrupt,
    ) -> None:
        self.source, self.target, self.move = source, target, move
        self.batch, self.sleep = batch, sleep
        self.checkpoint, self.progress, self.interrupt = checkpoint, progress, interrupt
        self.numbers = dict.fromkeys(("brought", "there", "ended", "unreadable", "refused"), 0)
        # Sessions that are in both stores: a request may be about to take them out of the old one.
        # Each with the position before it: a checkpoint beyond that would forget them.
        self.in_both: deque[tuple[float, list[str], str]] = deque()

    def run(self) -> None:
        try:
            position = self.checkpoint.read()
            self._probe()
            self.progress.begin(self.source.count() if self.progress.on_terminal else None)
            self._scan(position)
            self._settle(GRACE)
        except store_errors() as error:
            raise CommandError(
                f"{self._summary()}\nStopped, for a store failed: {sentence(error)}. Nothing is "
                "lost: when it works again, run the same command again, and it goes on."
            ) from None
        finally:
            self.progress.finish()
        if not self.interrupt:
            self.checkpoint.remove()

    def _probe(self) -> None:
        """One store may have two names, and to move within it would be to delete."""
        probe = Record(get_random_key(), {}, timezone.now() + timedelta(minutes=1))
        self._persist(lambda: self.target.add([probe]))
        try:
            is_same = bool(self._persist(lambda: self.source.present([probe.name])))
        finally:
            self._persist(lambda: self.target.delete([probe.name]))
        if is_same:
            raise CommandError(
                f"{self.source} and {self.target} are the same store, under two names: there is "
                "nothing to copy, and the site can be switched as it is."
            )

    def _scan(self, position: str) -> None:
        for found in read_batches(self.source, position, self.batch, self.interrupt):
            self._bring(found.records, position)
            position = found.position
            self.progress.advance(len(found.records))
            self._settle(0)
            settled = self.in_both[0][2] if self.in_both else position
            self.checkpoint.write(self.source.checkpoint(settled))
            if self.interrupt.wait(self.sleep):
                return

    def _bring(self, records: list[Record], position: str) -> None:
        readable = [record for record in records if record.data is not None]
        self.numbers["unreadable"] += len(records) - len(readable)
        if not readable:
            return
        added = self._persist(lambda: self.target.add(readable))
        ours = [record.name for record, done in zip(readable, added, strict=True) if done]
        there = [record.name for record, done in zip(readable, added, strict=True) if done is False]
        self.numbers["there"] += len(there)
        self.numbers["refused"] += sum(done is None for done in added)
        # Asked after they were added: who logs out from now on deletes both. Copies are made by
        # nobody else; what is there is one of an earlier run, then.
        copies = ours if self.move else ours + there
        present = self._persist(lambda: self.source.present(copies))
        if ended := [name for name in copies if name not in present]:
            self._persist(lambda: self.target.delete(ended))
        self.numbers["ended"] += len(ended)
        self.numbers["brought"] += sum(name in present for name in ours)
        if self.move:
            self._persist(lambda: self.source.delete([n for n in ours if n in present]))
            if there:
                self.in_both.append((time.monotonic(), there, position))

    def _settle(self, wait: float) -> None:
        """Takes out of the old store what was found in both, and not a moment ago."""
        while self.in_both and not self.interrupt:
            since, names, _ = self.in_both[0]
            left = since + GRACE - time.monotonic()
            if left > 0 and (not wait or self.interrupt.wait(left)):
                return
            self.in_both.popleft()
            present = self._persist(lambda names=names: self.target.present(names))
            both = [name for name in names if name in present]
            self._persist(lambda both=both: self.source.delete(both))

    def _persist(self, do: Any) -> Any:
        return persist(do, self.interrupt, self._reconnect)

    def _reconnect(self) -> None:
        self.source.reconnect()
        self.target.reconnect()

    def _summary(self) -> str:
        numbers = self.numbers
        verb = "moved" if self.move else "copied"
        lines = [f"{many(numbers['brought'])} {verb} from {self.source} to {self.target}."]
        if numbers["there"]:
            lines.append(f"{many(numbers['there'])} already there, and left as they are.")
        if numbers["ended"]:
            lines.append(f"{many(numbers['ended'])} ended meanwhile.")
        if numbers["unreadable"]:
            lines.append(
                f"{many(numbers['unreadable'])} left, for they cannot be read: their signature is "
                "of another SECRET_KEY, or their format of another serializer."
            )
        if numbers["refused"]:
            lines.append(
                f"{many(numbers['refused'])} left, for {self.target} does not take them: too "
                "large, perhaps."
            )
        return " ".join(lines)

    def report(self) -> str:
        if self.interrupt:
            return f"{self._summary()} Interrupted: run it again for the rest."
        return self._summary()


def check_pair(source: Store, target: Store) -> None:
    if source.unlisted:
        raise CommandError(
            f"{source} cannot be read from, for {source.unlisted}. Let "
            "RUST_SESSIONS['FALLBACK_ENGINE'] name this engine instead, for SESSION_COOKIE_AGE "
            "seconds: each session then moves with its next save, and nobody is logged out."
        )
    if source.identity() == target.identity():
        raise CommandError(
            f"--from and --to are the same store, {source}: there is nothing to copy. Engines that "
            "share a store (db and cached_db, Django's and ours) can be switched as they are."
        )
