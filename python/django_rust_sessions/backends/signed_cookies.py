"""django.contrib.sessions.backends.signed_cookies with its codec in Rust."""

from typing import Any

from django.contrib.sessions.backends.signed_cookies import SessionStore as DjangoSessionStore

from .. import codec
from ..conf import option
from ..exceptions import SessionTooLarge

# Fixed: unlike the key_salt of other engines, it does not depend on the name of the class.
SALT = "django.contrib.sessions.backends.signed_cookies"


class SessionStore(codec.CodecMixin, DjangoSessionStore):
    """Cookie-based session store: the session itself is the signed session key."""

    def load(self) -> dict[str, Any]:
        # Outside of the try: a mistake in RUST_SESSIONS must not look like a forged cookie.
        max_inflated = option("MAX_INFLATED")
        try:
            data: dict[str, Any] = codec.loads(
                self.session_key,
                salt=SALT,
                serializer=self.serializer,
                max_inflated=max_inflated,
                max_age=self.get_session_cookie_age(),
            )
            return data
        except SessionTooLarge as exc:
            codec.logger.warning("Session data ignored: %s", exc)
        except Exception:
            # As in Django, a cookie that is expired, forged or unreadable is an empty session.
            pass
        self.create()
        return {}

    def _get_session_key(self) -> str:
        return codec.dumps(
            self._session,  # type: ignore[attr-defined]  # unknown to django-stubs
            salt=SALT,
            serializer=self.serializer,
        )
