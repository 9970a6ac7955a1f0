"""manage.py sessions resign: writes every session anew under today's SECRET_KEY.

That is two things: the signature around the session, and the hash of the password in a login, which
is made with the SECRET_KEY too. A session that is saved meanwhile is left as it was saved.
"""

from typing import Any

from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase
from django.core.management.base import CommandError
from django.utils.crypto import constant_time_compare

from ... import codec
from ...conf import option
from .common import Interrupt, many, persist, sentence, store_errors
from .progress import Progress
from .stores import read_batches
from .stores.base import BEGINNING, Record, Store
from .stores.db import DatabaseStore
from .stores.file import FileStore

USER, HASH = "_auth_user_id", "_auth_user_hash"  # of django.contrib.auth


class Resigning:
    def __init__(
        self,
        store: Store,
        *,
        batch: int,
        sleep: float,
        dry_run: bool,
        progress: Progress,
        interrupt: Interrupt,
    ) -> None:
        self.store, self.batch, self.sleep, self.dry_run = store, batch, sleep, dry_run
        self.progress, self.interrupt = progress, interrupt
        names = ("written", "logins", "current", "unreadable", "changed")
        self.numbers = dict.fromkeys(names, 0)
        self.is_signed = isinstance(store, DatabaseStore | FileStore)
        if store.unlisted:
            raise CommandError(
                f"{store} cannot be read through, for {store.unlisted}. Keep the old key in "
                "SECRET_KEY_FALLBACKS for SESSION_COOKIE_AGE seconds: until its sessions are over."
            )
        # Of the batch before: a request that began before it may just have filled the cache.
        self.before: list[str] = []

    def run(self) -> None:
        try:
            self.progress.begin(self.store.count() if self.progress.on_terminal else None)
            for found in read_batches(self.store, BEGINNING, self.batch, self.interrupt):
                self._batch(found.records)
                self.progress.advance(len(found.records))
                if self.interrupt.wait(self.sleep):
                    break
            self._forget([])
        except store_errors() as error:
            raise CommandError(
                f"{self.report()}\nStopped, for a store failed: {sentence(error)}. Nothing is "
                "lost: keep SECRET_KEY_FALLBACKS, and run the same command again when it works."
            ) from None
        finally:
            self.progress.finish()

    def _batch(self, records: list[Record]) -> None:
        readable = [record for record in records if record.data is not None]
        self.numbers["unreadable"] += len(records) - len(readable)
        users = persist(lambda: _users_of(readable), self.interrupt, self.store.reconnect)
        logins = []
        for record in readable:
            login = _new_hash(record, users)
            if HASH in (record.data or {}):
                logins.append(record.name)
            if login is None and (not self.is_signed or self._is_current(record)):
                self.numbers["current"] += 1
                continue
            data = dict(record.data or {})
            if login is not None:
                data[HASH] = login
            raw = self._sign(record, data, login is not None) if self.is_signed else None
            if not self.dry_run and not self._replace(record, data, raw):
                self.numbers["changed"] += 1
                continue
            self.numbers["written"] += 1
            if login is not None:
                self.numbers["logins"] += 1
        if not self.dry_run:
            # Also of those that had it already: a request of before may have filled the cache late.
            self._forget(logins)

    def _replace(self, record: Record, data: dict[str, Any], raw: Any) -> bool:
        return bool(
            persist(
                lambda: self.store.replace(record, data, raw),
                self.interrupt,
                self.store.reconnect,
            )
        )

    def _forget(self, names: list[str]) -> None:
        if both := self.before + names:
            self.store.forget_copies(both)
        self.before = names

    def _is_current(self, record: Record) -> bool:
        session = self.store.session
        if not _is_ordinary(session):
            return False
        try:
            _signer(session, ()).loads_bytes(record.raw)
        except Exception:
            return False
        return True

    def _sign(self, record: Record, data: dict[str, Any], is_changed: bool) -> str:
        session = self.store.session
        if is_changed or not _is_ordinary(session):
            return str(session.encode(data))
        try:
            payload = _signer(session, codec._get_keys()[1]).loads_bytes(record.raw)
        except Exception:
            return str(session.encode(data))  # in a format of before Django 3.1
        if payload[:1] == b"\x80" and option("PICKLE_MIGRATION"):
            return str(session.encode(data))
        # To the letter what it was.
        return codec.dumps(payload, salt=session.key_salt, serializer=_Payload)

    def report(self) -> str:
        numbers = self.numbers
        verb = "would be written" if self.dry_run else "written"
        lines = [
            f"{many(numbers['written'])} of {self.store} {verb} anew under today's SECRET_KEY, "
            f"{many(numbers['logins'], 'login')} among them; "
            f"{many(numbers['current'])} had it already."
        ]
        if numbers["changed"]:
            lines.append(f"{many(numbers['changed'])} saved or ended meanwhile, and left so.")
        if numbers["unreadable"]:
            lines.append(
                f"{many(numbers['unreadable'])} left, for they cannot be read under SECRET_KEY or "
                "any of SECRET_KEY_FALLBACKS."
            )
        if self.interrupt:
            lines.append("Interrupted: run it again for the rest.")
        elif not self.dry_run and (numbers["written"] or numbers["changed"]):
            # A request that loaded a session before this may save it as it was.
            lines.append(
                "Keep the old keys: wait until the requests of now are over, then run it again, "
                "until it writes none."
            )
        elif not self.dry_run:
            lines.append("The old keys can now be taken out of SECRET_KEY_FALLBACKS.")
        return " ".join(lines)


class _Payload:
    """Serializes what is serialized."""

    def dumps(self, payload: bytes) -> bytes:
        return payload


def _is_ordinary(session: Any) -> bool:
    known = (codec.CodecMixin.encode, SessionBase.encode)
    return type(session).encode in known


def _signer(session: Any, fallbacks: tuple[bytes, ...]) -> Any:
    key, _ = codec._get_keys()
    return codec._make_signer(key, fallbacks, session.key_salt, option("MAX_INFLATED"), "sha256")


def _users_of(records: list[Record]) -> dict[str, Any]:
    from django.apps import apps

    if not apps.is_installed("django.contrib.auth"):
        return {}
    from django.contrib.auth import get_user_model
    from django.core.exceptions import ValidationError

    model: Any = get_user_model()
    pk, keys = model._meta.pk, set()
    for record in records:
        try:
            keys.add(pk.to_python((record.data or {})[USER]))
        except (KeyError, ValidationError):
            continue  # no login, or one of another kind of users
    found = model._default_manager.filter(pk__in=keys) if keys else ()
    return {pk.value_to_string(user): user for user in found}


def _new_hash(record: Record, users: dict[str, Any]) -> str | None:
    """The hash of the login under today's key, if the one that is there is of an older key."""
    data = record.data or {}
    user, stored = users.get(str(data.get(USER))), data.get(HASH)
    if user is None or not isinstance(stored, str):
        return None
    if not hasattr(user, "get_session_auth_fallback_hash"):
        return None
    today: str = user.get_session_auth_hash()
    if constant_time_compare(stored, today):
        return None
    old = user.get_session_auth_fallback_hash()
    return today if any(constant_time_compare(stored, each) for each in old) else None


def has_fallbacks() -> bool:
    return any(settings.SECRET_KEY_FALLBACKS)
