from collections.abc import Callable, Sequence
from datetime import timedelta
from os import PathLike
from typing import Any, final

__all__ = [
    "DEBUG",
    "LegacyCodec",
    "ReplyReader",
    "Signer",
    "__version__",
    "claim_session_file",
    "clear_session_files",
    "create_session_file",
    "json_dumps",
    "json_loads",
    "pack_command",
    "random_session_key",
    "read_session_file",
    "replace_session_file",
]

__version__: str
DEBUG: bool

@final
class LegacyCodec:
    def __new__(
        cls, key: str | bytes, class_name: str, fallback_keys: Sequence[str | bytes] = ...
    ) -> LegacyCodec: ...
    def loads_bytes(self, session_data: object) -> bytes: ...

@final
class ReplyReader:
    def __new__(
        cls,
        to_error: Callable[[str], Exception],
        invalid: type[Exception],
        *,
        resp3: bool = False,
    ) -> ReplyReader: ...
    def feed(self, data: bytes | bytearray) -> list[Any]: ...
    @property
    def is_empty(self) -> bool: ...

@final
class Signer:
    def __new__(
        cls,
        key: str | bytes,
        salt: str,
        fallback_keys: Sequence[str | bytes] = ...,
        *,
        max_inflated: int = ...,
        algorithm: str = ...,
    ) -> Signer: ...
    def dumps(self, obj: object, timestamp: int) -> str: ...
    def dumps_bytes(self, data: bytes | bytearray, timestamp: int) -> str: ...
    def loads(
        self,
        signed: str,
        *,
        max_age: float | timedelta | None = None,
        now: float | None = None,
    ) -> Any: ...
    def loads_bytes(
        self,
        signed: str,
        *,
        max_age: float | timedelta | None = None,
        now: float | None = None,
    ) -> bytes: ...

def json_dumps(obj: object) -> bytes: ...
def json_loads(data: bytes | bytearray) -> Any: ...
def pack_command(*words: bytes) -> bytes: ...
def random_session_key() -> str: ...
def read_session_file(path: str | PathLike[str]) -> tuple[bytes, float]: ...
def claim_session_file(path: str | PathLike[str], must_create: bool) -> None: ...
def create_session_file(path: str | PathLike[str], contents: bytes, fsync: bool) -> None: ...
def replace_session_file(path: str | PathLike[str], contents: bytes, fsync: bool) -> None: ...
def clear_session_files(
    directory: str | PathLike[str],
    prefix: str,
    signer: Signer,
    *,
    now: int,
    is_aware: bool,
    cookie_age: int,
    leave_unsigned: bool,
) -> tuple[int, list[str]]: ...
