"""Keeps the rows: what a request tells of its session, and when that is worth a write."""

import ipaddress
import logging
import threading
import time
from collections import OrderedDict
from contextlib import nullcontext
from datetime import timedelta
from functools import reduce
from operator import or_
from typing import Any, NamedTuple

from django.conf import settings
from django.contrib.auth import SESSION_KEY, get_user_model
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.backends.signed_cookies import SessionStore as SignedCookies
from django.core.exceptions import ValidationError
from django.db import Error, IntegrityError, router, transaction
from django.db.models import Q
from django.utils import timezone

from ..backends.keys import is_stored_name
from . import agents

logger = logging.getLogger("django_rust_sessions")

INTERVAL = 60  # seconds
REMEMBERED = 10_000  # sessions; about 2 MB a process


class Memory:
    """When this process last wrote a session's row. What it forgets is asked of the database."""

    def __init__(self, size: int = REMEMBERED) -> None:
        self._size = size
        self._times: OrderedDict[Any, float] = OrderedDict()
        self._lock = threading.Lock()

    def is_due(self, item: Any) -> bool:
        """True once in INTERVAL seconds; whoever is told so writes."""
        now = time.monotonic()
        with self._lock:
            last = self._times.get(item)
            if last is not None and now - last < INTERVAL:
                return False
            self._times[item] = now
            self._times.move_to_end(item)
            if len(self._times) > self._size:
                self._times.popitem(last=False)
        return True

    def forget(self, item: Any) -> None:
        with self._lock:
            self._times.pop(item, None)


memory = Memory()


class Note:
    """Goes with a request, from the middleware to the signals."""

    def __init__(self, ip: str | None) -> None:
        self.ip = valid_ip(ip)
        self.logged_in = False
        self.forgotten: str | None = None  # the key whose row went at the logout


class Visit(NamedTuple):
    """What a request said."""

    user_id: Any  # None: nobody is logged in any more
    key: str
    former: tuple[str, ...]  # other names of the same session, with HASH_KEYS
    old_keys: tuple[str, ...]  # of the row that becomes this one
    logged_in: bool
    ip: str | None
    user_agent: str


def stored_key(session: Any) -> str | None:
    """What the row keeps to find the session again, if that is on a server."""
    from .models import MAX_KEY

    if not isinstance(session, SessionBase) or isinstance(session, SignedCookies):
        return None
    # With HASH_KEYS, by the name in the store: a reader of this table must not learn more.
    key: str | None = getattr(session, "stored_name", session.session_key)
    return key if key and len(key) <= MAX_KEY else None


def names_of(session: Any, key: str) -> tuple[str, ...]:
    """All names that a row may have for the session with that key."""
    return session.stored_names(key) if hasattr(session, "stored_names") else (key,)


def look(request: Any, ip: str | None) -> Visit | None:
    """What is to be written after this request; asks no store and no database."""
    from .models import MAX_AGENT

    session: Any = getattr(request, "session", None)
    # Not loaded is not used: then we do nothing either.
    data = getattr(session, "_session_cache", None)
    if data is None or isinstance(session, SignedCookies):
        return None
    key, user_id = stored_key(session), _user_id(data)
    cookie = request.COOKIES.get(settings.SESSION_COOKIE_NAME) or ""
    changed = session.modified and cookie != session.session_key and _is_key(session, cookie)
    note = getattr(request, "_device_note", None)
    if user_id is None or key is None:
        if not changed or (note is not None and note.forgotten == cookie):
            return None
        return Visit(None, cookie, (), names_of(session, cookie), False, None, "")
    logged_in = note is not None and note.logged_in
    due = memory.is_due((key, str(user_id)))
    if not (due or changed or logged_in or getattr(session, "has_moved", False)):
        return None
    agent = agents.clean(request.META.get("HTTP_USER_AGENT", ""), MAX_AGENT)
    former = tuple(name for name in names_of(session, session.session_key) if name != key)
    old_keys = names_of(session, cookie) if changed else ()
    return Visit(user_id, key, former, old_keys, logged_in, ip, agent)


def _is_key(session: Any, cookie: str) -> bool:
    """Whether this, the client's own text, can have been a key: a name in the store cannot, and its
    row is that of a live session; and what no database takes would cost the new row."""
    from .models import MAX_KEY

    if len(cookie) > MAX_KEY or is_stored_name(cookie):
        return False
    plain = cookie.isascii() and cookie.isprintable()
    return plain and bool(session._validate_session_key(cookie))


def _user_id(data: Any) -> Any:
    if SESSION_KEY not in data:
        return None
    try:
        return get_user_model()._meta.pk.to_python(data[SESSION_KEY])
    except ValidationError:
        return None


def record(visit: Visit) -> None:
    """A failure costs the row, and not the response."""
    try:
        with _savepoint():
            _record(visit)
    except IntegrityError:
        pass  # another request was first, or the user is gone
    except Error as error:
        # Not the message: databases quote values in theirs, and the key is one.
        logger.error("The device of a session was not recorded: %s", type(error).__name__)
        memory.forget((visit.key, str(visit.user_id)))


def _record(visit: Visit) -> None:
    from .models import Device

    if visit.user_id is None:
        forget(*visit.old_keys)
        return
    if visit.former:
        _rename(visit.former, visit.key)
    now = timezone.now()
    seen = {"last_seen": now, "ip": visit.ip, "user_agent": visit.user_agent}
    row = Device.objects.filter(session_key=visit.key)
    if visit.old_keys and _replace(visit, seen):
        return
    due = Q(last_seen__lt=now - timedelta(seconds=INTERVAL)) | ~Q(user_id=visit.user_id)
    if row.filter(due).update(user_id=visit.user_id, **seen) or row.exists():
        return
    Device.objects.create(user_id=visit.user_id, session_key=visit.key, created=now, **seen)


def _replace(visit: Visit, seen: dict[str, Any]) -> bool:
    """What becomes of the old key's row; whether it is this session's now."""
    old = _rows(visit.old_keys)
    try:
        with _savepoint():
            if not visit.logged_in:
                mine = old.filter(user_id=visit.user_id)
                return bool(mine.update(session_key=visit.key, **seen))
            old.delete()
    except IntegrityError:
        pass  # this session has a row already
    except Error as error:
        # It must not cost the new row.
        logger.error("The device of an old session was not removed: %s", type(error).__name__)
    return False


def _savepoint() -> Any:
    """A site's transaction goes on if ours fails; without one a statement stands alone."""
    from .models import Device

    using = router.db_for_write(Device)
    return nullcontext() if transaction.get_autocommit(using) else transaction.atomic(using)


def record_now(request: Any) -> None:
    """Before the response, for who wants to show the row."""
    note = getattr(request, "_device_note", None)
    key, user_id = stored_key(request.session), _user_id(request.session)
    memory.forget((key, str(user_id)))
    if visit := look(request, note.ip if note else get_ip(request)):
        record(visit)


def _rename(former: tuple[str, ...], key: str) -> None:
    """The store has another name for the session: so has its row."""
    from .models import Device

    rows = Device.objects.filter(session_key__in=former)
    try:
        with _savepoint():
            rows.update(session_key=key)
    except IntegrityError:
        rows.delete()  # the other row is there already


def forget(*keys: str) -> None:
    _rows(keys).delete()


def _rows(keys: tuple[str, ...]) -> Any:
    """The rows of these keys alone: on MySQL "in" takes capitals for the same, "startswith" not."""
    from .models import Device

    exactly = reduce(or_, (Q(session_key__startswith=key) for key in keys), Q())
    return Device.objects.filter(exactly, session_key__in=keys)


def get_ip(request: Any) -> str | None:
    return valid_ip(request.META.get("REMOTE_ADDR"))


def valid_ip(text: Any) -> str | None:
    """What databases take: behind a UNIX socket the address is "", and headers say anything."""
    try:
        return str(ipaddress.ip_address(str(text or "").strip().partition("%")[0]))
    except ValueError:
        return None


# Django sends these in a thread when the login is async: here the database may be waited for.


def _on_login(sender: Any, request: Any, user: Any, **kwargs: Any) -> None:
    note = getattr(request, "_device_note", None)
    if note is not None:
        # The middleware writes when the session is saved: it may have no key yet.
        note.logged_in = True
    elif request is not None and (visit := look(request, get_ip(request))):
        record(visit._replace(logged_in=True))


def _on_logout(sender: Any, request: Any, user: Any, **kwargs: Any) -> None:
    session: Any = getattr(request, "session", None)
    if user is None or stored_key(session) is None:
        return
    try:
        with _savepoint():
            forget(*names_of(session, session.session_key))
        if note := getattr(request, "_device_note", None):
            note.forgotten = session.session_key
    except Error as error:
        logger.error("The device of a session was not removed: %s", type(error).__name__)


def connect() -> None:
    user_logged_in.connect(_on_login, dispatch_uid="django_rust_sessions.devices")
    user_logged_out.connect(_on_logout, dispatch_uid="django_rust_sessions.devices")
