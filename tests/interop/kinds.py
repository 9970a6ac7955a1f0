"""Values of every kind that a session can hold, and a text that tells any two of them apart.

Runs beside each Django, in django_child.py.
"""

import collections
import copyreg
import datetime
import decimal
import enum
import json
import math
import uuid
import zoneinfo

from django.utils.functional import lazystr
from django.utils.safestring import mark_safe

JSON = {
    "none": None,
    "booleans": [True, False],
    "one": [1, 1.0, True],
    "zeros": [0, -0.0, 0.0, False],
    "bytes' edges": [255, 256, 65535, 65536, 2**31 - 1, 2**31, -(2**31) - 1],
    "words' edges": [2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64, 2**70],
    "long integers": [-(2**3000), 10**600],
    "floats": [0.1, 1e16, 1e22, 1e-7, 5e-324, 1.7976931348623157e308, 123456789.125],
    "not numbers": [math.nan, math.inf, -math.inf],
    "text": ["", "ascii", "\u00e9 \u65e5 \U0001f980", "\x00\x1f\x7f\u2028", '"\\/</script>'],
    "lone surrogates": ["\ud83d", "a\udc80b", "\udd80\ud83e"],
    "long text": "\u00e9\u65e5 and so on. " * 500,
    "lists": [[], [[]], [1, [2, [3, [4]]]], list(range(1100))],
    "dicts": {"z": 1, "a": {"": None}, "\u65e5": [{}], "m": {"z": {"y": {"x": {}}}}},
    "many keys": {f"key {number}": number for number in range(1100)},
    "deep": [],
    "\u00e9 \u65e5 \U0001f980": "a key beyond ASCII",
    "a \ud83d key": "with a lone surrogate",
    "": "no key at all",
    "_private": {"messages": '[["__json_message",0,20,"Saved.",""]]'},
}
for _ in range(60):
    JSON["deep"] = [JSON["deep"]]

# Between 64 bits, and of whole Unicode.
MSGPACK = {
    key: value
    for key, value in JSON.items()
    if key not in ("words' edges", "long integers", "lone surrogates", "a \ud83d key")
} | {"words' edges": [2**63 - 1, 2**63, -(2**63), 2**64 - 1], "bytes": [b"", b"\x00\xff"]}


class Point(collections.namedtuple("Point", "x y")):
    __slots__ = ()


class Colour(enum.Enum):
    RED = "red"


class Weekday(enum.IntEnum):
    MONDAY = 1


class Shop:
    """Of a class that no Rust program knows."""

    def __init__(self):
        self.name, self.prices, self.me = "tea", {"a": decimal.Decimal("1.10")}, self


class Slots:
    __slots__ = ("first", "second")

    def __init__(self):
        self.first, self.second = (1,), {"set"}


class Remade:
    def __init__(self, state=None):
        self.state = state

    def __reduce__(self):
        return Remade, (self.state,)


class Stateful:
    def __init__(self):
        self.state = [1]

    def __getstate__(self):
        return (self.state, {"kept": True})

    def __setstate__(self, state):
        self.state, _ = state


class Basket(list):
    pass


class Lookup(dict):
    pass


def pickled():
    moment = datetime.datetime(2017, 8, 9, 10, 11, 12, 131415)
    berlin = zoneinfo.ZoneInfo("Europe/Berlin")
    shared, tree = [1, {"a": 2}], {}
    tree["left"] = tree["right"] = {"leaf": shared}
    return {
        "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), ((), ((1,), [2]))],
        "sets": [set(), {1, "a", None}, {frozenset(), frozenset([1, (2,)])}, frozenset("abc")],
        "bytes": [b"", b"\x00\xff", bytes(range(256)) * 5, bytearray(b"\x00array")],
        "naive": [
            moment,
            moment.replace(microsecond=0),
            datetime.datetime.min,
            moment.replace(fold=1),
        ],
        "aware": [
            moment.replace(tzinfo=datetime.UTC),
            moment.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=5, minutes=45))),
            moment.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=-3), "named")),
            moment.replace(tzinfo=berlin),
            berlin,
        ],
        "dates": [datetime.date(2017, 8, 9), datetime.date.max],
        "times": [datetime.time(10, 11, 12, 13), datetime.time(tzinfo=datetime.UTC)],
        "timedeltas": [datetime.timedelta(1, 2, 3), -datetime.timedelta(microseconds=1)],
        "decimals": [decimal.Decimal(text) for text in ("1.10", "-0", "NaN", "Infinity", "1E+400")],
        "uuids": [uuid.UUID(int=1), uuid.UUID("12345678-1234-5678-1234-567812345678")],
        "safe": [mark_safe("<b>\u00e9</b>"), mark_safe("")],
        "lazy": lazystr("lazy"),
        "ordered": collections.OrderedDict([("z", 1), ("a", [2])]),
        "default": collections.defaultdict(list, a=[1]),
        "counter": collections.Counter("aab"),
        "deque": collections.deque([1, 2], maxlen=3),
        "keys": {1: "a", None: "b", 1.5: "c", False: "d", (1, 2): "e", b"k": "f", "g": "g"},
        "shared": [shared, shared, {"again": shared}],
        "shared tree": tree,
        "named tuple": Point(1, [2]),
        "enums": [Colour.RED, Weekday.MONDAY],
        "complex": 1 + 2j,
        "range": range(1, 10, 2),
        "class": [Shop, int, datetime.datetime],
        "function": json.dumps,
        "error": ValueError("no", 1),
        "object": Shop(),
        "slots": Slots(),
        "remade": Remade({"a": 1}),
        "stateful": Stateful(),
        "list's child": Basket([1, 2]),
        "dict's child": Lookup(a=1),
        "objects": [Shop()] * 2,
    }


def session(kind):
    """What to put into a session whose store takes values of that kind."""
    if kind == "json":
        return dict(JSON)
    if kind == "msgpack":
        return dict(MSGPACK)
    if kind == "pickle":
        return {**JSON, **pickled()}
    # cached_db: what both its table and its cache take.
    both = session(kind.removeprefix("json and "))
    return {
        key: value
        for key, value in both.items()
        # A list of a project's own class is one for Python's JSON; Rust refuses to write it.
        if as_json(value) is not None and "kinds." not in Description().of(value)
    }


# What is shared is told by identity, for these only; CPython may share the others as it likes.
_SHARED = (list, dict, set, bytearray)
_ATOMS = (type(None), bool, int, float, complex, str, bytes, range, decimal.Decimal, uuid.UUID)
_MOMENTS = (datetime.datetime, datetime.date, datetime.time, datetime.timedelta)


class Description:
    """Everything that can be seen of a value: types, content, order, and what is shared."""

    def __init__(self):
        self.seen = {}
        self.alive = []  # an id must not be used twice

    def of(self, value):
        kind = type(value)
        name = f"{kind.__module__}.{kind.__qualname__}"
        if kind in _ATOMS:
            return f"{kind.__name__} {value!a}"
        if kind in _MOMENTS:
            return f"{value!r} fold={getattr(value, 'fold', '')}"
        if isinstance(value, type) or kind is type(json.dumps):
            return f"{name} {value.__module__}.{value.__qualname__}"
        if isinstance(value, enum.Enum):
            return f"enum {name}.{value.name}"
        if kind is tuple:
            return f"({self.all(value)})"
        if kind is frozenset:
            return f"frozenset {{{self.unordered(value)}}}"
        if id(value) in self.seen:
            return f"<{self.seen[id(value)]}>"
        self.seen[id(value)] = len(self.seen)
        self.alive.append(value)
        number = self.seen[id(value)]
        if kind is list:
            return f"{number}[{self.all(value)}]"
        if kind is set:
            return f"{number}{{{self.unordered(value)}}}"
        if kind is bytearray:
            return f"{number} {value!r}"
        if kind is dict:
            return f"{number}{{{self.items(value.items())}}}"
        return f"{number} {name} {self.reduced(value)}"

    def all(self, values):
        return ", ".join(map(self.of, values))

    def unordered(self, values):
        return ", ".join(sorted(map(self.of, values)))

    def items(self, items):
        return ", ".join(f"{self.of(key)}: {self.of(value)}" for key, value in items)

    def reduced(self, value):
        """Any object: as it would be pickled."""
        if isinstance(value, str):
            return ascii(str(value))
        reduced = value.__reduce_ex__(4)
        self.alive.append(reduced)
        if isinstance(reduced, str):
            return reduced
        make, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
        made = "" if make in (copyreg.__newobj__, type(value)) else make.__qualname__
        parts = [made, self.of(arguments), self.of(state)]
        parts.append(self.all(items or ()))
        parts.append(self.items(pairs or ()))
        return " ".join(parts)


def as_json(value):
    """As Django's serializer has it, if it does."""
    try:
        return json.dumps(value, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError):
        return None


def describe(data):
    """A list of key, JSON text or null, and description. What two keys share is seen too."""
    description = Description()
    return [[ascii(key), as_json(value), description.of(value)] for key, value in data.items()]
