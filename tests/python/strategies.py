"""Generated sessions, and ways to spoil what was made of them."""

import base64
import collections
import datetime
import decimal
import enum
import json
import uuid
import zlib

from django.utils.functional import lazystr
from django.utils.safestring import SafeString
from hypothesis import strategies as st


class Colour(enum.IntEnum):
    RED = 1


class Loud(str):
    def __str__(self):
        return self.upper()

    def encode(self, *args):
        return self.upper().encode(*args)


class Percent(float):
    def __repr__(self):
        return "percent"


class Answer(int):
    def __repr__(self):
        return "forty-two"


class Doubled(list):
    def __iter__(self):
        return iter([item for item in list.__iter__(self) for _ in range(2)])


class Backwards(dict):
    def items(self):
        return reversed(dict.items(self))

    def keys(self):
        return reversed(dict.keys(self))


Point = collections.namedtuple("Point", "x y")

# Lone surrogates too: Python's strings and JSON have them.
text = st.text(st.characters(exclude_categories=()), max_size=30)
integers = st.integers() | st.sampled_from([2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**70])
scalars = st.none() | st.booleans() | integers | st.floats() | text
# What json.dumps knows by a rule of its own, or refuses.
oddities = st.sampled_from(
    [
        SafeString("<b>safe</b>"),
        Loud("loud"),
        Percent(0.5),
        Answer(42),
        Colour.RED,
        Point(1, 2),
        Doubled([1, 2]),
        Backwards(a=1, b=2),
        collections.OrderedDict(b=1, a=2),
        collections.defaultdict(list, a=[1]),
        collections.Counter("aab"),
        datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
        decimal.Decimal("1.10"),
        uuid.UUID(int=1),
        lazystr("lazy"),
        b"bytes",
        {1, 2},
        1 + 2j,
        object,
    ]
)
keys = text | integers | st.floats() | st.booleans() | st.none()
odd_keys = st.sampled_from([SafeString("safe"), Colour.RED, Loud("k"), Percent(1.5), (1, 2), b"k"])


def objects(leaves, keys):
    return st.recursive(
        leaves,
        lambda children: (
            st.lists(children, max_size=4)
            | st.dictionaries(keys, children, max_size=4)
            | st.lists(children, max_size=3).map(tuple)
        ),
        max_leaves=12,
    )


json_objects = objects(scalars, keys)
any_objects = objects(st.one_of(scalars, scalars, oddities), st.one_of(keys, keys, odd_keys))
sessions = st.dictionaries(text, json_objects, max_size=5)

# JSON, or nearly, that parsers disagree about.
_WORDS = r"""
NaN -NaN Infinity -Infinity +Infinity nan inf -0 -0.0 0.0 00 01 -01 1. .5 1.e5 1e 1e+ 1e5 1E+05
1e400 -1e400 1e-400 5e-324 2.2250738585072011e-308 1.7976931348623159e308 0.30000000000000004
1e99999999999999999999 0e99999999999999999999 0.1e-99999999999999999999 9007199254740993
9007199254740993.0 9223372036854775807 9223372036854775808 -9223372036854775809 -
18446744073709551616 123456789012345678901234567890 1_000 0x10 + . 1 tru true false null True None
undefined "" "a" "\" "\x41" "\" "\u" "\u12" "\u00e9" "\u00E9" "\u+123" "\ud800" "\udc00"
"\ud83e\udd80" "\ud83e\u0041" "\ud83ex" "\ud83e\n" "\ud83e\ud83e\udd80" "\u0000" "\/"
"\b\f\n\r\t" 'a' [] [,] [1,] {} {,} {"a":} {"a"} {a:1} {"a":1,} {"a":1,"a":2} [1] [1,2]] [[] {{}
{"a":1,"b":2,"a":3} {"":{"":{}}} /**/1 "a"b "a":1
"""
_BLANKS = ["", " ", "[1\n,\t2\r]", "[1\f]", "[1\x0b]", "[1\xa0]", "[\x00]", '"\x00"', '"\t"', "1 2"]
_BEYOND_ASCII = ["\ufeff{}", '"\xe9"', '"\x7f"', '"\U0001f980"', '"\ud800"', "\u0663", "\xb2"]
_LONG = [
    "9" * 639,
    "-" + "9" * 640,
    "9" * 4300,
    "9" * 4301,
    "9" * 4301 + ".5",
    "0." + "1" * 5000,
    "1e" + "0" * 5000 + "1",
    "[" * 150 + "]" * 150,
    "[" * 201 + "]" * 201,
    '{"a":' * 250 + "1" + "}" * 250,
    "[" * 300,
    "[" * 100_000,
    '{"a":' * 100_000,
    '"\\ud83e' + "\\udd80" * 50 + '"',
]
LITERALS = [
    literal.encode("utf-8", "surrogatepass")
    for literal in _WORDS.split() + _BLANKS + _BEYOND_ASCII + _LONG
]

# Good material to spoil; drawn from a list, so that the time goes into what is done to it.
SESSIONS = [
    {},
    {"a": "b"},
    {"n": [0, -1, 2**70, 1.0, 1e16, -0.0, float("nan"), float("inf")], "": None, "true": True},
    {"text": 'é \ud800 🦀 "\\/\0\x7f', "日本": {"a": [{}, [], [[]]]}},
    {"_auth_user_id": "1", "_auth_user_hash": "f" * 64, "_session_expiry": "2026-01-01T00:00:00"},
    {"cart": [{"sku": f"SKU-{n}", "price": n + 0.99, "count": n} for n in range(8)]},
]
json_text = st.sampled_from([json.dumps(s, separators=(",", ":")).encode() for s in SESSIONS])

MUTATIONS = ["replace", "flip", "delete", "insert", "repeat", "cut", "splice"]


@st.composite
def mutated(draw, source, alphabet):
    """Bytes with up to four flips, cuts, insertions, repetitions, or the end of another sample."""
    data = bytearray(draw(source))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(MUTATIONS)):
            case "replace" if at < len(data):
                data[at] = draw(alphabet)
            case "flip" if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "delete":
                del data[at : at + draw(st.integers(1, 5))]
            case "insert":
                data[at:at] = bytes(draw(st.lists(alphabet, max_size=3)))
            case "repeat":
                data[at:at] = data[at : at + 8] * draw(st.integers(1, 3))
            case "cut":
                del data[at:]
            case "splice":
                other = draw(source)
                data[at:] = other[draw(st.integers(0, len(other))) :]
    return bytes(data)


json_bytes = st.sampled_from(b'{}[]",:\\/ue0123456789.+-NaInfty \n\t\x00\x1f\x7f\xe9')
wrapped_literals = st.builds(
    lambda literal, wrap: wrap[0] + literal + wrap[1],
    st.sampled_from(LITERALS),
    st.sampled_from([(b"", b""), (b"[", b"]"), (b'{"a":', b',"b":2}'), (b"[1,", b"")]),
)
bad_json = mutated(json_text | wrapped_literals, json_bytes) | wrapped_literals

deflated = st.builds(zlib.compress, json_text | st.binary(max_size=200), st.integers(0, 9))
bad_deflate = mutated(deflated, st.integers(0, 255))


def b64(data):
    return base64.urlsafe_b64encode(data).strip(b"=").decode()


base64_bytes = st.sampled_from(b"AZaz09-_+/=. :\n\x80")
bad_base64 = mutated(json_text.map(b64).map(str.encode), base64_bytes).map(
    lambda data: data.decode("latin-1")
)
