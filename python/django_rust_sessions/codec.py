"""What django.core.signing and SessionBase.encode()/decode() do, done in Rust."""

import logging
import time
from datetime import timedelta
from functools import lru_cache
from typing import Any

from django.conf import settings
from django.core.signing import BadSignature, JSONSerializer
from django.utils.encoding import force_bytes

from ._native import Signer
from .conf import option
from .exceptions import SessionTooLarge

logger = logging.getLogger("django.security.SuspiciousSession")


def dumps(obj: Any, *, salt: str, serializer: Any) -> str:
    """django.core.signing.dumps() with compress=True."""
    signer = _get_signer(salt, option("MAX_INFLATED"))
    if serializer is JSONSerializer:
        return signer.dumps(obj, int(time.time()))
    data = serializer().dumps(obj)
    # Serializers may return anything that zlib takes.
    return signer.dumps_bytes(bytes(memoryview(data)), int(time.time()))


def loads(
    signed: Any,
    *,
    salt: str,
    serializer: Any,
    max_inflated: int,
    max_age: float | timedelta | None = None,
) -> Any:
    """django.core.signing.loads(), which here refuses a zip bomb with SessionTooLarge."""
    signer = _get_signer(salt, max_inflated)
    now = None if max_age is None else time.time()
    if serializer is JSONSerializer:
        return signer.loads(signed, max_age=max_age, now=now)
    return serializer().loads(signer.loads_bytes(signed, max_age=max_age, now=now))


class CodecMixin:
    """encode() and decode() of SessionBase. Goes before a SessionBase in the bases of a class."""

    key_salt: str
    serializer: Any

    def encode(self, session_dict: dict[str, Any]) -> str:
        return dumps(session_dict, salt=self.key_salt, serializer=self.serializer)

    def decode(self, session_data: bytes | str) -> dict[str, Any]:
        # Outside of the try: a mistake in RUST_SESSIONS must not look like corrupted data.
        max_inflated = option("MAX_INFLATED")
        try:
            data: dict[str, Any] = loads(
                session_data,
                salt=self.key_salt,
                serializer=self.serializer,
                max_inflated=max_inflated,
            )
            return data
        except BadSignature:
            logger.warning("Session data corrupted")
        except SessionTooLarge as exc:
            logger.warning("Session data ignored: %s", exc)
        except Exception:
            # As in Django, whatever else cannot be read is an empty session.
            pass
        return {}


def _get_signer(salt: str, max_inflated: int) -> Signer:
    # Looked up by the values, so that override_settings() and key rotation need no notice.
    # To Django an empty fallback means SECRET_KEY itself.
    fallbacks = tuple(force_bytes(key) for key in settings.SECRET_KEY_FALLBACKS if key)
    return _make_signer(force_bytes(settings.SECRET_KEY), fallbacks, salt, max_inflated)


@lru_cache(maxsize=64)
def _make_signer(key: bytes, fallbacks: tuple[bytes, ...], salt: str, max_inflated: int) -> Signer:
    # The salt that TimestampSigner has when it is given none.
    salt = salt or "django.core.signing.TimestampSigner"
    return Signer(key, salt, fallbacks, max_inflated=max_inflated)
