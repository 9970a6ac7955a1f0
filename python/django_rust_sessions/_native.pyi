from collections.abc import Sequence
from datetime import timedelta
from typing import Any, final

__all__ = ["DEBUG", "Signer", "__version__", "json_dumps", "json_loads"]

__version__: str
DEBUG: bool

@final
class Signer:
    def __new__(
        cls,
        key: str | bytes,
        salt: str,
        fallback_keys: Sequence[str | bytes] = ...,
        *,
        max_inflated: int = ...,
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
