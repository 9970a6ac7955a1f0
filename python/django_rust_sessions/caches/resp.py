"""Redis's protocol, as far as sessions need it: errors are redis-py's, as Django's cache raises."""

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    InvalidResponse,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from .._native import ReplyReader, pack_command

_ERRORS = {
    "LOADING": BusyLoadingError,
    "NOAUTH": AuthenticationError,
    "NOPERM": NoPermissionError,
    "OOM": OutOfMemoryError,
    "READONLY": ReadOnlyError,
    "WRONGPASS": AuthenticationError,
}

pack = pack_command


def new_reader(*, resp3: bool = False) -> ReplyReader:
    """Cuts replies out of the bytes of a connection: bytes, int, None; an error is one of them, not
    raised. With `resp3` also lists, and tuples for messages that nobody asked for.

    Its `feed` raises InvalidResponse for what is no reply; the connection is then of no more use.
    """
    return ReplyReader(_to_error, InvalidResponse, resp3=resp3)


def _to_error(text: str) -> RedisError:
    code, _, message = text.partition(" ")
    if code in _ERRORS:
        return _ERRORS[code](message)
    return ResponseError(message if code == "ERR" else text)
