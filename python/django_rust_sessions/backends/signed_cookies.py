"""django.contrib.sessions.backends.signed_cookies with its codec in Rust."""

import logging
from typing import Any

from django.conf import settings
from django.contrib.sessions.backends.signed_cookies import SessionStore as DjangoSessionStore

from .. import codec
from ..conf import get_options
from ..exceptions import PickleRefused, SessionTooLarge

# Fixed: unlike the key_salt of other engines, it does not depend on the name of the class.
SALT = "django.contrib.sessions.backends.signed_cookies"

# What every browser keeps. RFC 6265bis and most of them allow 4096 bytes of name and value together
# (attributes are not counted), some count the "=" too, and Safari has been seen to stop at 4093.
# A browser says nothing when it drops a cookie: to the site, the session is as it was before.
MAX_COOKIE = 4093

logger = logging.getLogger("django_rust_sessions")
_warned: dict[int, object] = {}


class SessionStore(codec.CodecMixin, DjangoSessionStore):
    """Cookie-based session store: the session itself is the signed session key."""

    _session: Any  # Django's, which django-stubs does not know

    def load(self) -> dict[str, Any]:
        options = get_options()
        try:
            data: dict[str, Any] = codec.loads(
                self.session_key,
                salt=SALT,
                serializer=self.serializer,
                options=options,
                max_age=self.get_session_cookie_age(),
            )
            return data
        except (SessionTooLarge, PickleRefused) as exc:
            codec.logger.warning("Session data ignored: %s", exc)
        except Exception:
            # As in Django, a cookie that is expired, forged or unreadable is an empty session.
            pass
        self.create()
        return {}

    def _get_session_key(self) -> str:
        cookie = codec.dumps(self._session, salt=SALT, serializer=self.serializer)
        size = len(settings.SESSION_COOKIE_NAME) + len("=") + len(cookie)
        if size > MAX_COOKIE:
            self._warn(size)
        return cookie

    def _warn(self, size: int) -> None:
        # Once a process for cookies of up to twice the limit, once up to four times, and so on:
        # a site where every cookie is too large fills no log.
        this = object()
        if _warned.setdefault((size // MAX_COOKIE).bit_length(), this) is this:
            logger.warning(
                "The session cookie is %d bytes, and browsers drop one of more than %d: "
                "the user's session does not change. Largest keys, before compression: %s.",
                size,
                MAX_COOKIE,
                ", ".join(self._describe_largest_keys()),
            )

    def _describe_largest_keys(self) -> list[str]:
        sizes = {key: self._measure(key) for key in self._session}
        largest = sorted(sizes, key=sizes.__getitem__, reverse=True)[:3]
        return [f"{str(key)[:50]!r} ({sizes[key]} bytes)" for key in largest]

    def _measure(self, key: Any) -> int:
        try:
            return len(self.serializer().dumps({key: self._session[key]}))
        except Exception:
            return (
                0  # A serializer that wants the session whole. The cookie is written all the same.
            )
