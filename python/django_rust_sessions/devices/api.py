"""Which sessions a user has, and how to end them. Each function has an async twin."""

from collections.abc import Iterator
from datetime import timedelta
from importlib import import_module
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import HASH_SESSION_KEY, SESSION_KEY
from django.utils import timezone
from django.utils.crypto import constant_time_compare

from ..backends.keys import HashedKeysMixin, is_stored_name
from . import recording
from .models import Device

BATCH = 500


def user_sessions(user: Any) -> list[Device]:
    """The user's live sessions, the last seen first. Each is looked up in the store."""
    rows = Device.objects.filter(user_id=user.pk)
    return [row for row in rows if _belongs_to(read_session(row), user)]


def end_session(device: Device) -> None:
    """Deletes the session from its store, and then the row: the next request is nobody's."""
    _store(device.session_key).delete(device.session_key)
    Device.objects.filter(pk=device.pk).delete()


def end_all_sessions(user: Any, keep: Any = None) -> int:
    """Ends the user's sessions, all but `keep` (request.session); how many rows that were.

    Also those that are not found in the store just now, for a cache may be out of reach.
    """
    if keep is not None and recording.stored_key(keep) is None:
        raise ValueError(
            "The session to keep has no key yet, or is not kept on a server: nothing was ended. "
            "Pass request.session of a request that is logged in."
        )
    # Its row may have the name of before HASH_KEYS was switched, or of before this request's save.
    kept = () if keep is None else recording.names_of(keep, keep.session_key)
    ended = 0
    for device in Device.objects.filter(user_id=user.pk):
        if device.session_key not in kept:
            end_session(device)
            ended += 1
    return ended


def clear_stale(older_than: timedelta = timedelta(days=1)) -> int:
    """Removes rows whose session is gone; how many. Rows seen since `older_than` are not looked at.

    A row that goes by mistake, for a cache was down, is made again at the session's next request.
    """
    last, removed = 0, 0
    rows = Device.objects.filter(last_seen__lt=timezone.now() - older_than).order_by("pk")
    while batch := list(rows.filter(pk__gt=last)[:BATCH]):
        gone = [row.pk for row in batch if SESSION_KEY not in read_session(row)]
        removed += Device.objects.filter(pk__in=gone).delete()[0]
        last = batch[-1].pk
    return removed


def read_session(device: Device) -> dict[str, Any]:
    """What the store has, or nothing."""
    store = _store(device.session_key)
    data: dict[str, Any] = store.load()
    if store.session_key == device.session_key:
        return data
    if store.session_key is not None:
        store.delete()  # Django's file engine puts an empty session in an expired one's place
    return {}


auser_sessions = sync_to_async(user_sessions)
aend_session = sync_to_async(end_session)
aend_all_sessions = sync_to_async(end_all_sessions)
aclear_stale = sync_to_async(clear_stale)


def _store(key: str) -> Any:
    engine: Any = import_module(settings.SESSION_ENGINE).SessionStore
    if is_stored_name(key) and issubclass(engine, HashedKeysMixin):
        return engine.from_stored_name(key)
    return engine(key)


def _belongs_to(data: dict[str, Any], user: Any) -> bool:
    """As Django decides it: a session of before a new password logs nobody in."""
    if data.get(SESSION_KEY) != user._meta.pk.value_to_string(user):
        return False
    if not hasattr(user, "get_session_auth_hash"):
        return True
    found = data.get(HASH_SESSION_KEY, "")
    return any(constant_time_compare(found, one) for one in _hashes(user))


def _hashes(user: Any) -> Iterator[str]:
    yield user.get_session_auth_hash()
    if hasattr(user, "get_session_auth_fallback_hash"):
        yield from user.get_session_auth_fallback_hash()
