"""encode() and decode(): ours, Django's, and what one puts together from fast packages."""

import base64
import hashlib
import hmac
import time
from functools import partial

import orjson
from django.conf import settings
from django.contrib.sessions.backends.db import SessionStore as DjangoStore
from django.core import signing
from django_rust_sessions.backends.db import SessionStore as RustStore
from measure import Contender, compare
from payloads import PAYLOADS, size
from zlib_ng import zlib_ng

TARGETS = {  # against Django, and against the best other: encode, decode
    "login": ((6, 2), (6, 2)),
    "cart": ((3.5, 1.5), (3, 1.5)),
    "large": ((3.5, 1.2), (3, 1.2)),
}
# Django's for a payload must not be much shorter than ours.
MOST_TEXT = 1.1


class ByHand:
    """The format of django.core.signing over orjson, zlib-ng and hashlib."""

    def __init__(self) -> None:
        store = DjangoStore()
        self.salt = store.key_salt
        derived = f"{self.salt}signer{settings.SECRET_KEY}".encode()
        self.keyed = hmac.new(hashlib.sha256(derived).digest(), digestmod=hashlib.sha256)

    def sign(self, value: bytes) -> bytes:
        keyed = self.keyed.copy()
        keyed.update(value)
        return base64.urlsafe_b64encode(keyed.digest()).rstrip(b"=")

    def encode(self, session: dict) -> str:
        data = orjson.dumps(session)
        compressed = zlib_ng.compress(data)
        is_shorter = len(compressed) < len(data) - 1
        text = base64.urlsafe_b64encode(compressed if is_shorter else data).rstrip(b"=")
        stamp = signing.b62_encode(int(time.time())).encode()
        value = (b"." if is_shorter else b"") + text + b":" + stamp
        return (value + b":" + self.sign(value)).decode()

    def decode(self, text: str) -> dict:
        value, _, signature = text.encode().rpartition(b":")
        if not hmac.compare_digest(signature, self.sign(value)):
            raise signing.BadSignature
        value = value.rpartition(b":")[0]
        is_compressed = value[:1] == b"."
        data = base64.urlsafe_b64decode(
            value[is_compressed:] + b"=" * (-len(value[is_compressed:]) % 4)
        )
        return orjson.loads(zlib_ng.decompress(data) if is_compressed else data)


def floor(name: str, signed: str) -> Contender:
    """HMAC and inflate alone, of what is stored."""
    key = hashlib.sha256(settings.SECRET_KEY.encode()).digest()
    body = signed.encode()
    data = body.split(b":")[0]
    compressed = data[:1] == b"."
    data = base64.urlsafe_b64decode(data[compressed:] + b"=" * (-len(data[compressed:]) % 4))
    inflate = zlib_ng.decompress if compressed else bytes

    def run(_: object) -> None:
        hmac.digest(key, body, "sha256")
        inflate(data)

    return Contender(name, run)


def repeated(argument: object, number: int) -> list:
    return [argument] * number


def rows(rounds: int):
    ours, django, hand = RustStore(), DjangoStore(), ByHand()
    for name, payload in PAYLOADS.items():
        signed, mine = django.encode(payload), ours.encode(payload)
        assert django.decode(mine) == payload
        assert ours.decode(signed) == payload
        assert django.decode(hand.encode(payload)) == payload
        assert hand.decode(signed) == payload
        longer = len(mine) / len(signed)
        assert longer <= MOST_TEXT, f"{name}: the text is {longer:.2f} times as long as Django's"
        encode, decode = TARGETS[name]
        for operation, what, argument, targets in (
            ("encode", name, payload, encode),
            ("decode", name, signed, decode),
            ("decode", f"ours of {name}", mine, (None, None)),
        ):
            again = partial(repeated, argument)
            contenders = [
                Contender("ours", getattr(ours, operation), again),
                Contender("Django", getattr(django, operation), again, targets[0]),
                Contender("orjson, zlib-ng, hashlib", getattr(hand, operation), again, targets[1]),
            ]
            if operation == "decode":
                contenders.append(floor("floor: HMAC and inflate", argument))
            title = f"{operation} {what}, {size(payload)} bytes"
            yield compare(title, *contenders, rounds=rounds)
