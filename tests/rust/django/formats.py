"""Django's RedisCache and django-redis, one question a line: what they store, what they read.

Each question has "backend" ("django" or "django_redis") and "options" (OPTIONS of the cache).

In: {"op": "encode", "kinds": ..., "seed": ...}
Out: {"value": hex of what is stored for a generated session}
In: {"op": "check", "kinds": ..., "seed": ..., "set": {...}, "data": hex}
Out: {"value": "same"}, or how what is read differs from that session with these keys set
In: {"op": "is_dict", "data": hex}
Out: {"value": name of the type of what is read}
In: {"op": "same", "one": hex, "other": hex}
Out: {"value": "same"} or how they differ
In: {"op": "decode", "data": hex}
Out: {"value": JSON of what is read}
In: {"op": "eval", "code": ...}
Out: {"value": hex of the bytes that the expression makes}

What Python raised is {"error": class}.
"""

import collections
import datetime
import decimal
import functools
import gzip
import json
import lzma
import pickle
import random
import struct
import sys
import uuid
import zlib

import lz4.frame
import msgpack
import pyzstd
from django.conf import settings

settings.configure(USE_TZ=True)

from django.core.cache.backends.redis import RedisCache  # noqa: E402 (needs settings)
from django.utils.safestring import SafeString  # noqa: E402
from django_redis.cache import RedisCache as DjangoRedisCache  # noqa: E402

sys.setrecursionlimit(10_000)  # for values as deep as msgpack lets them be

SERVER = "redis://127.0.0.1:1/0"  # never connected to


@functools.cache
def codec(backend, options):
    options = json.loads(options)
    if backend == "django":
        serializer = RedisCache(SERVER, {"OPTIONS": options})._cache._serializer
        return serializer.dumps, serializer.loads
    client = DjangoRedisCache(SERVER, {"OPTIONS": options}).client
    return client.encode, client.decode


LETTERS = 'abc "\\/\n\t\x7f\x00\xe9\xff\u20ac\u2028\U0001f980'


class Maker:
    """Generated values of the kinds that a serializer takes: "json", "msgpack" or "pickle"."""

    def __init__(self, kinds, seed):
        self.kinds = kinds
        self.random = random.Random(seed)
        self.made = []

    def text(self):
        letters = LETTERS if self.kinds == "msgpack" else LETTERS + "\ud800\udfff"
        size = self.random.choice([0, 1, 3, 10, 40, 300])
        text = "".join(self.random.choices(letters, k=self.random.randint(0, size)))
        # JSON reads these two as one character.
        return text.replace("\ud800\udfff", "") if self.kinds == "json" else text

    def integer(self):
        bits = self.random.choice([1, 7, 8, 15, 16, 31, 32, 62, 63])
        if self.kinds != "msgpack":
            bits = self.random.choice([bits, bits, 64, 200])
        return self.random.choice([-1, 1]) * self.random.getrandbits(bits)

    def float(self):
        special = [0.0, -0.0, 1.0, 1e16, 1e-7, 5e-324, float("inf"), float("-inf"), float("nan")]
        return self.random.choice([*special, self.random.uniform(-1e9, 1e9)])

    def moment(self):
        zone = self.random.choice(
            [None, datetime.UTC, datetime.timezone(datetime.timedelta(minutes=-90))]
        )
        return datetime.datetime(
            2026, 11, self.random.randint(1, 30), 23, 59, 58, self.random.randrange(10**6), zone
        )

    def only_pickled(self):
        return self.random.choice(
            [
                self.moment,
                lambda: self.moment().date(),
                lambda: self.moment().timetz(),
                lambda: datetime.timedelta(self.integer() % 1000, 1, 2),
                lambda: decimal.Decimal(self.integer()).scaleb(-2),
                lambda: uuid.UUID(int=self.random.getrandbits(128)),
                lambda: self.random.randbytes(self.random.choice([0, 3, 300])),
                lambda: (1, self.value(1)),
                lambda: {1, "two", 3.0},
                lambda: frozenset([self.integer()]),
                lambda: SafeString("<b>"),
                lambda: collections.OrderedDict(z=1, a=self.value(1)),
                lambda: {self.integer(): 1, None: 2, (1, 2): 3},
                lambda: 2 + 3j,
                lambda: self.random.choice(self.made) if self.made else None,
            ]
        )()

    def value(self, depth):
        kinds = [
            self.text,
            self.integer,
            self.float,
            lambda: self.random.choice([None, True, False]),
        ]
        if self.kinds == "pickle":
            kinds += [self.only_pickled, self.only_pickled]
        if self.kinds == "msgpack":
            kinds.append(lambda: self.random.randbytes(self.random.choice([0, 3, 300])))
        if depth:
            size = self.random.choice([0, 1, 3, 20])
            kinds += [
                lambda: [self.value(depth - 1) for _ in range(size)],
                lambda: {self.text(): self.value(depth - 1) for _ in range(size)},
            ]
        value = self.random.choice(kinds)()
        self.made.append(value)
        return value

    def session(self):
        size = self.random.choice([0, 1, 2, 5, 20])
        return {self.text(): self.value(3) for _ in range(size)}


def same(one, other):
    """Whether two values are the same to the type, the sign of zero, and the order of dicts."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return len(one) == len(other) and all(
            same(key, key_of_other) and same(one[key], other[key_of_other])
            for key, key_of_other in zip(one, other, strict=True)
        )
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return struct.pack("d", one) == struct.pack("d", other)
    if isinstance(one, decimal.Decimal):
        return one.as_tuple() == other.as_tuple()
    if isinstance(one, datetime.datetime):
        return one == other and one.tzinfo == other.tzinfo
    return one == other


EVAL = {"gzip": gzip, "lzma": lzma, "zlib": zlib, "pyzstd": pyzstd, "lz4": lz4, "pickle": pickle}
EVAL |= {"msgpack": msgpack, "json": json, "struct": struct, "datetime": datetime}


def answer(question):
    if question["op"] == "eval":
        return eval(question["code"], EVAL).hex()
    encode, decode = codec(question["backend"], json.dumps(question["options"]))
    if question["op"] == "encode":
        stored = encode(Maker(question["kinds"], question["seed"]).session())
        return (stored if isinstance(stored, bytes) else str(stored).encode()).hex()
    if question["op"] == "same":
        one, other = (decode(bytes.fromhex(question[name])) for name in ("one", "other"))
        return "same" if same(one, other) else f"{other!r} in place of {one!r}"
    read = decode(bytes.fromhex(question["data"]))
    if question["op"] == "is_dict":
        return type(read).__name__
    if question["op"] == "decode":
        return json.dumps(read, separators=(",", ":"))
    expected = Maker(question["kinds"], question["seed"]).session() | question["set"]
    return "same" if same(read, expected) else f"{read!r} in place of {expected!r}"


for line in sys.stdin:
    try:
        reply = {"value": answer(json.loads(line))}
    except Exception as error:
        reply = {"error": f"{type(error).__module__}.{type(error).__qualname__}"}
    print(json.dumps(reply), flush=True)
