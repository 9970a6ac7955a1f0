"""What django.core.signing and SessionBase.encode()/decode() do, done in Rust."""

import logging
import time
from datetime import timedelta
from functools import lru_cache
from json import JSONDecodeError
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signing import BadSignature, JSONSerializer, SignatureExpired
from django.utils.encoding import force_bytes

from ._native import LegacyCodec, Signer, json_loads
from .conf import Options, get_options, option
from .exceptions import PickleRefused, SessionTooLarge
from .lazy import LazyDefaultsMixin

logger = logging.getLogger("django.security.SuspiciousSession")

# One for each engine class. More are classes that come and go, as in tests.
MAX_SIGNERS = 64


_djangos_dumps, _djangos_loads = JSONSerializer.dumps, JSONSerializer.loads


def is_djangos(serializer: Any) -> bool:
    """Whether it is Django's own, of which the project has replaced nothing."""
    return (
        serializer is JSONSerializer
        and JSONSerializer.dumps is _djangos_dumps
        and JSONSerializer.loads is _djangos_loads
    )


def dumps(obj: Any, *, salt: str, serializer: Any) -> str:
    """django.core.signing.dumps() with compress=True."""
    signer = _get_signer(salt, option("MAX_INFLATED"))
    if is_djangos(serializer):
        return signer.dumps(obj, int(time.time()))
    data = serializer().dumps(obj)
    # Serializers may return anything that zlib takes.
    return signer.dumps_bytes(bytes(memoryview(data)), int(time.time()))


def loads(
    signed: Any,
    *,
    salt: str,
    serializer: Any,
    options: Options,
    max_age: float | timedelta | None = None,
    legacy_class: str | None = None,
) -> Any:
    """django.core.signing.loads(), which here refuses a zip bomb with SessionTooLarge.

    With the option LEGACY also what Django before 3.1 signed, and if `legacy_class` is given, what
    that engine class encoded.
    """
    if is_djangos(serializer) and not options.legacy and not options.pickles:
        # The usual case, without what the others need.
        now = None if max_age is None else time.time()
        return _get_signer(salt, options.max_inflated).loads(signed, max_age=max_age, now=now)
    reader = _Reader(signed, serializer, options, max_age)
    try:
        return reader.read_signed(_get_signer(salt, options.max_inflated))
    except SignatureExpired:
        raise
    except BadSignature:
        if not options.legacy:
            raise
        try:
            return reader.read_signed(_get_signer(salt, options.max_inflated, "sha1"))
        except SignatureExpired:
            raise
        except BadSignature:
            if legacy_class is None:
                raise
            codec = _make_legacy_codec(*_get_keys(), legacy_class)
            return reader.read(codec.loads_bytes(signed))


class _Reader:
    def __init__(
        self, signed: Any, serializer: Any, options: Options, max_age: float | timedelta | None
    ) -> None:
        self.signed, self.serializer = signed, serializer
        self.options, self.max_age = options, max_age

    def read_signed(self, signer: Signer) -> Any:
        now = None if self.max_age is None else time.time()
        if not is_djangos(self.serializer):
            return self.read(signer.loads_bytes(self.signed, max_age=self.max_age, now=now))
        try:
            return signer.loads(self.signed, max_age=self.max_age, now=now)
        except JSONDecodeError:
            if not self.options.pickles:
                raise
            return self.read(signer.loads_bytes(self.signed, max_age=self.max_age, now=now))

    def read(self, payload: bytes) -> Any:
        if not is_djangos(self.serializer):
            return self.serializer().loads(payload)
        # All of Django's pickles begin so, and no JSON does.
        if self.options.pickles and payload.startswith(b"\x80"):
            from .serializers import read_pickle  # most sites never need it

            return read_pickle(payload, self.options.max_inflated)
        return json_loads(payload)


def _valid_option(name: str) -> Any:
    try:
        return option(name)
    except ImproperlyConfigured:
        return None  # is raised where a session is read


class CodecMixin(LazyDefaultsMixin):
    """What our engines have beside SessionBase's, before which it goes in the bases of a class."""

    key_salt: str
    serializer: Any

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        if _valid_option("LEGACY"):
            from .legacy import accept_old_logins

            accept_old_logins()
        if _valid_option("FALLBACK_ENGINE"):
            from .backends.fallback import with_fallback

            cls = with_fallback(cls)
        return super().__new__(cls)

    def _calls_project(self) -> bool:
        """Whether a save calls what the project has, and Django's middleware calls in a thread."""
        return not is_djangos(self.serializer)

    def encode(self, session_dict: dict[str, Any]) -> str:
        return dumps(session_dict, salt=self.key_salt, serializer=self.serializer)

    def decode(self, session_data: bytes | str) -> dict[str, Any]:
        # Before the try, so that a mistake in RUST_SESSIONS does not look like bad data.
        options = get_options()
        try:
            data: dict[str, Any] = loads(
                session_data,
                salt=self.key_salt,
                serializer=self.serializer,
                options=options,
                legacy_class=type(self).__name__,
            )
            return data
        except BadSignature:
            logger.warning("Session data corrupted")
        except (SessionTooLarge, PickleRefused) as exc:
            logger.warning("Session data ignored: %s", exc)
        except Exception:
            # As in Django, whatever else cannot be read is an empty session.
            pass
        return {}


def _get_keys() -> tuple[bytes, tuple[bytes, ...]]:
    # To Django an empty fallback means SECRET_KEY itself.
    fallbacks = tuple(force_bytes(key) for key in settings.SECRET_KEY_FALLBACKS if key)
    return force_bytes(settings.SECRET_KEY), fallbacks


# With the SECRET_KEY and the fallbacks that each was made of.
_signers: dict[tuple[str, int, str], tuple[Any, tuple[Any, ...], Signer]] = {}


def _get_signer(salt: str, max_inflated: int, algorithm: str = "sha256") -> Signer:
    known = _signers.get((salt, max_inflated, algorithm))
    # Compared by the values, so that override_settings() and key rotation need no notice.
    if (
        known is not None
        and known[0] == settings.SECRET_KEY
        and known[1] == tuple(settings.SECRET_KEY_FALLBACKS)
    ):
        return known[2]
    made_of = settings.SECRET_KEY, tuple(settings.SECRET_KEY_FALLBACKS)
    signer = _make_signer(*_get_keys(), salt, max_inflated, algorithm)
    if len(_signers) >= MAX_SIGNERS:
        _signers.clear()
    _signers[salt, max_inflated, algorithm] = (*made_of, signer)
    return signer


def _make_signer(
    key: bytes, fallbacks: tuple[bytes, ...], salt: str, max_inflated: int, algorithm: str
) -> Signer:
    # The salt that TimestampSigner has when it is given none.
    salt = salt or "django.core.signing.TimestampSigner"
    return Signer(key, salt, fallbacks, max_inflated=max_inflated, algorithm=algorithm)


@lru_cache(maxsize=64)
def _make_legacy_codec(key: bytes, fallbacks: tuple[bytes, ...], class_name: str) -> LegacyCodec:
    return LegacyCodec(key, class_name, fallbacks)
