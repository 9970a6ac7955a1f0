"""The little of Redis's protocol (RESP 2) that sessions need.

redis-py's exceptions are raised, for they are what Django's cache raises.
"""

from typing import Any

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

# Redis refuses to store longer strings: who announces more is no Redis.
MAX_LENGTH = 512 * 1024 * 1024
# Any other reply than a string is one short line.
MAX_LINE = 64 * 1024

_ERRORS = {
    "LOADING": BusyLoadingError,
    "NOAUTH": AuthenticationError,
    "NOPERM": NoPermissionError,
    "OOM": OutOfMemoryError,
    "READONLY": ReadOnlyError,
    "WRONGPASS": AuthenticationError,
}
_INCOMPLETE = object()


def pack(*words: bytes) -> bytes:
    """A command as it is sent."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        parts.append(b"$%d\r\n%b\r\n" % (len(word), word))
    return b"".join(parts)


class Reader:
    """Cuts replies out of the bytes of a connection, in whatever pieces these come."""

    def __init__(self) -> None:
        self._buffer: bytes | bytearray = b""
        self._needed = 0  # fewer bytes than this hold no whole reply

    def feed(self, data: bytes) -> list[Any]:
        """The replies that are complete now: bytes, int, None; an error is returned, not raised.

        InvalidResponse is raised for what is no reply; the connection is then of no more use.
        """
        if self._buffer:
            self._buffer += data
        else:
            self._buffer = data
        replies = []
        position = 0
        while len(self._buffer) - position > self._needed:
            reply, position = self._parse(position)
            if reply is _INCOMPLETE:
                break
            replies.append(reply)
        # A long string may come in thousands of pieces: the first ones are not copied each time.
        if position or isinstance(self._buffer, bytes):
            self._buffer = bytearray(self._buffer[position:])
        return replies

    @property
    def is_empty(self) -> bool:
        return not self._buffer

    def _parse(self, start: int) -> tuple[Any, int]:
        """The reply that begins at `start`, and where the next one does."""
        buffer = self._buffer
        end = buffer.find(b"\r\n", start, start + MAX_LINE)
        if end < 0:
            if len(buffer) - start >= MAX_LINE or buffer[start] not in b"$+:-":
                raise InvalidResponse("Redis's answer has no end of line")
            return _INCOMPLETE, start
        kind, line = buffer[start : start + 1], bytes(buffer[start + 1 : end])
        after = end + 2
        if kind == b"$":
            return self._parse_string(start, _to_int(line), after)
        self._needed = 0
        if kind == b"+":
            return line, after
        if kind == b":":
            return _to_int(line), after
        if kind == b"-":
            return _to_error(line.decode(errors="replace")), after
        raise InvalidResponse("Redis's answer is of an unknown type")

    def _parse_string(self, start: int, length: int, after: int) -> tuple[Any, int]:
        if length == -1:
            self._needed = 0
            return None, after
        if not 0 <= length <= MAX_LENGTH:
            raise InvalidResponse("Redis's answer has an impossible length")
        end = after + length
        if len(self._buffer) < end + 2:
            self._needed = end + 1 - start
            return _INCOMPLETE, start
        if self._buffer[end : end + 2] != b"\r\n":
            raise InvalidResponse("Redis's answer is longer than announced")
        self._needed = 0
        return bytes(memoryview(self._buffer)[after:end]), end + 2


def _to_int(line: bytes) -> int:
    try:
        return int(line)
    except ValueError:
        raise InvalidResponse("Redis's answer has no number where one must be") from None


def _to_error(text: str) -> RedisError:
    code, _, message = text.partition(" ")
    if code in _ERRORS:
        return _ERRORS[code](message)
    return ResponseError(message if code == "ERR" else text)
