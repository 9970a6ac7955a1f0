"""Redis's protocol, as far as sessions need it: errors are redis-py's, as Django's cache raises."""

from typing import Any

from redis import exceptions
from redis.exceptions import InvalidResponse, RedisError, ResponseError

from .._native import ReplyReader, pack_command


def _class(name: str) -> Any:
    # Releases of redis-py differ in what they tell apart.
    return getattr(exceptions, name, ResponseError)


AuthenticationWrongNumberOfArgsError = _class("AuthenticationWrongNumberOfArgsError")

_ERRORS = {
    "ASK": _class("AskError"),
    "CLUSTERDOWN": _class("ClusterDownError"),
    "CROSSSLOT": _class("ClusterCrossSlotError"),
    "EXECABORT": _class("ExecAbortError"),
    "LOADING": _class("BusyLoadingError"),
    "MASTERDOWN": _class("MasterDownError"),
    "MOVED": _class("MovedError"),
    "NOAUTH": _class("AuthenticationError"),
    "NOPERM": _class("NoPermissionError"),
    "NOSCRIPT": _class("NoScriptError"),
    "OOM": _class("OutOfMemoryError"),
    "READONLY": _class("ReadOnlyError"),
    "TRYAGAIN": _class("TryAgainError"),
    "WRONGPASS": _class("AuthenticationError"),
}
# What begins with ERR is told apart by its text.
_ERR = {
    "max number of clients reached": _class("ConnectionError"),
    "invalid password": _class("AuthenticationError"),
    "wrong number of arguments for 'auth' command": AuthenticationWrongNumberOfArgsError,
    "wrong number of arguments for 'AUTH' command": AuthenticationWrongNumberOfArgsError,
    "Client sent AUTH, but no password is set": _class("AuthenticationError"),
    "AUTH <password> called without any password configured for the default user. "
    "Are you sure your configuration is correct?": _class("AuthenticationError"),
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
    kind: type[RedisError] | None
    kind = _ERR.get(message, ResponseError) if code == "ERR" else _ERRORS.get(code)
    return ResponseError(text) if kind is None else kind(message)
