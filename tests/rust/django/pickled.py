"""CPython, which makes pickles of generated objects and judges those that Rust wrote.

Each line of input is a question in JSON, each line of output its answer; pickles are in base64:
{"op": "make", "seed": ..., "count": ..., "kind": "data" or "objects"},
{"op": "judge", "pairs": [[pickle, pickle], ...], "stubs": whether classes are stood in for},
{"op": "text", "seed": ..., "count": ...}, {"op": "same", "pairs": [[JSON text, pickle], ...]},
{"op": "repr", "pickles": [...]}.
"""

import _compat_pickle
import base64
import collections
import dataclasses
import datetime
import decimal
import enum
import io
import json
import math
import pickle
import random
import resource
import sys
import uuid
import zoneinfo

from django.conf import settings

settings.configure(USE_I18N=False)

from django.utils.functional import Promise  # noqa: E402 (needs settings)
from django.utils.safestring import SafeString, mark_safe  # noqa: E402
from django.utils.translation import gettext_lazy, pgettext_lazy  # noqa: E402

# ----------------------------------------------------------- classes that Rust has never heard of


class Plain:
    pass


class Slotted:
    __slots__ = ("__dict__", "x", "y")


class Stateful:
    def __getstate__(self):
        return ("state", self.__dict__)

    def __setstate__(self, state):
        self.__dict__.update(state[1])


class Reduced:
    def __init__(self, *args):
        self.args = args

    def __reduce__(self):
        state = {name: value for name, value in self.__dict__.items() if name != "args"}
        return Reduced, self.args, state or None


class Keyed:
    def __new__(cls, a=None, *, b=None):
        self = super().__new__(cls)
        self.a, self.b = a, b
        return self

    def __getnewargs_ex__(self):
        return (self.a,), {"b": self.b}


class ListSub(list):
    pass


class DictSub(dict):
    pass


class SetSub(set):
    pass


class StrSub(str):
    __slots__ = ()


class IntSub(int):
    pass


class Color(enum.Enum):
    RED = 1
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1


@dataclasses.dataclass(frozen=True)
class Frozen:
    a: object


class Outer:
    class Inner:
        pass


class Oops(Exception):
    pass


Point = collections.namedtuple("Point", "x y")

# ----------------------------------------------------------- generated objects


class Maker:
    """Objects that hold each other, now and then themselves."""

    def __init__(self, rng, kind):
        self.rng = rng
        self.has_objects = kind == "objects"
        self.open = []
        self.made = []

    def text(self):
        rng = self.rng
        length = rng.choice([0, 1, 3, 3, 8, 8, 8, 20, 300])
        alphabet = rng.choice(
            ["abc", "abc\n\t'\"\\", "é\xff\x80", "日本🦀", "\ud800\udc00\ude00a", "\\u\\U0041"]
        )
        return "".join(rng.choice(alphabet) for _ in range(length))

    def integer(self):
        rng = self.rng
        bits = rng.choice([1, 7, 8, 15, 16, 31, 32, 33, 63, 64, 65, 127, 128, 500, 3000])
        return rng.choice([-1, 1]) * (rng.getrandbits(bits) + rng.choice([0, 0, 1, -1, 2**bits]))

    def number(self):
        rng = self.rng
        specials = [0.0, -0.0, 1e16, 1e-5, math.inf, -math.inf, math.nan, 2.0**70, 5e-324, 1.7e308]
        return rng.choice([rng.uniform(-1e3, 1e3), rng.gauss(0, 1e300), rng.choice(specials)])

    def data(self):
        return self.rng.randbytes(self.rng.choice([0, 1, 4, 4, 30, 300]))

    def zone(self):
        rng = self.rng
        seconds = rng.randint(-86399, 86399)
        return rng.choice(
            [
                None,
                None,
                datetime.UTC,
                datetime.timezone(datetime.timedelta(minutes=rng.randint(-1439, 1439))),
                datetime.timezone(datetime.timedelta(seconds=seconds), "named"),
                datetime.timezone(
                    datetime.timedelta(seconds=seconds, microseconds=rng.choice([0, 5]))
                ),
                zoneinfo.ZoneInfo(
                    rng.choice(["Europe/Berlin", "America/New_York", "Asia/Kathmandu", "UTC"])
                ),
            ]
        )

    def time(self):
        rng = self.rng
        micro = rng.choice([0, 0, 1, 131415, 999999])
        return datetime.time(
            rng.randrange(24),
            rng.randrange(60),
            rng.randrange(60),
            micro,
            self.zone(),
            fold=rng.randrange(2),
        )

    def moment(self):
        rng = self.rng
        day = datetime.date.fromordinal(
            rng.choice([1, 3652059, rng.randint(1, 3652059), rng.randint(736000, 740000)])
        )
        time = self.time()
        return rng.choice([day, time, datetime.datetime.combine(day, time), self.duration()])

    def duration(self):
        days = self.rng.choice([0, 1, -1, self.rng.randint(-999999999, 999999998)])
        return datetime.timedelta(
            days, self.rng.randrange(86400), self.rng.choice([0, self.rng.randrange(10**6)])
        )

    def exact(self):
        rng = self.rng
        return decimal.Decimal(
            rng.choice(["1.10", "-0", "NaN", "sNaN12", "-Infinity", "1E+400", str(rng.random())])
        )

    def scalar(self):
        make = self.rng.choice(
            [
                self.text,
                self.text,
                self.integer,
                self.integer,
                self.number,
                self.data,
                lambda: bytearray(self.data()),
                lambda: self.rng.choice([None, True, False]),
                self.moment,
                self.exact,
                lambda: uuid.UUID(int=self.rng.getrandbits(self.rng.choice([8, 63, 64, 127, 128]))),
                lambda: mark_safe(self.text()),
                lambda: gettext_lazy(self.text() or "message"),
                lambda: pgettext_lazy("context", "message"),
            ]
        )
        return make()

    def key(self, depth=2):
        rng = self.rng
        made = [value for value in self.made[-20:] if type(value) in (str, bytes)]
        choices = [self.text, self.text, self.text, self.integer, self.number, self.data]
        choices.append(lambda: rng.choice([None, True, False, 0, 1, 1.0]))
        if made:
            choices.append(lambda: rng.choice(made))
        if depth:
            choices.append(lambda: tuple(self.key(depth - 1) for _ in range(rng.randrange(4))))
            choices.append(lambda: frozenset(self.key(depth - 1) for _ in range(rng.randrange(3))))
        choices.append(lambda: uuid.UUID(int=rng.getrandbits(100)))
        if self.has_objects:
            choices.append(
                lambda: rng.choice([*Color, Level.LOW, Point(1, 2), Frozen("a"), int, Plain, len])
            )
        return rng.choice(choices)()

    def items(self, depth):
        return (self.value(depth - 1) for _ in range(self.rng.choice([0, 1, 2, 3, 4, 5])))

    def value(self, depth):
        rng = self.rng
        if self.made and rng.random() < 0.12:
            return rng.choice(self.made)
        if self.open and rng.random() < 0.02:
            return rng.choice(self.open)
        made = self.compound(depth) if depth and rng.random() < 0.6 else self.scalar()
        self.made.append(made)
        return made

    def compound(self, depth):
        rng = self.rng
        choices = [
            self.list,
            self.list,
            self.dict,
            self.dict,
            self.tuple,
            self.tuple,
            self.set,
            self.ordered,
        ]
        if self.has_objects:
            choices += [self.object] * 6
        return rng.choice(choices)(depth)

    def list(self, depth, kind=list):
        made = kind()
        self.open.append(made)
        if depth == 2 and self.rng.random() < 0.01:
            made.extend(range(self.rng.choice([999, 1000, 1001, 2001])))
        made.extend(self.items(depth))
        self.open.pop()
        return made

    def dict(self, depth, kind=dict):
        made = kind()
        self.open.append(made)
        for value in self.items(depth):
            made[self.key()] = value
        if depth == 2 and self.rng.random() < 0.01:
            made.update((str(n), n) for n in range(self.rng.choice([999, 1000, 1001, 2001])))
        self.open.pop()
        return made

    def tuple(self, depth):
        return tuple(self.items(depth))

    def set(self, depth):
        kind = self.rng.choice([set, frozenset, SetSub] if self.has_objects else [set, frozenset])
        return kind(self.key() for _ in range(self.rng.randrange(6)))

    def ordered(self, depth):
        if self.rng.random() < 0.3:
            made = collections.defaultdict(list)
            made.update(self.dict(depth))
            return made
        return self.dict(depth, collections.OrderedDict)

    def object(self, depth):
        rng = self.rng
        kind = rng.randrange(12)
        if kind == 0:
            return self.list(depth, ListSub)
        if kind == 1:
            return self.dict(depth, DictSub)
        if kind == 2:
            return rng.choice(
                [StrSub("sub"), IntSub(2 ** rng.randrange(80)), Color.BLUE, Level.LOW]
            )
        if kind == 3:
            return Point(self.value(depth - 1), self.value(depth - 1))
        if kind == 4:
            return Frozen(self.value(depth - 1))
        if kind == 5:
            return Oops(*self.items(depth))
        if kind == 6:
            # None contains itself by its keywords: that goes back as read, and Python refuses it.
            return Keyed(self.scalar(), b=self.scalar())
        if kind == 7:
            return collections.deque(self.items(depth), rng.choice([None, 3]))
        if kind == 8:
            return rng.choice(
                [
                    range(3),
                    slice(1, None),
                    complex(1, 2),
                    Ellipsis,
                    NotImplemented,
                    int,
                    Outer.Inner,
                    len,
                ]
            )
        made = rng.choice([Plain, Slotted, Stateful, Reduced, Outer.Inner])()
        self.open.append(made)
        for name in rng.sample("xyzw", rng.randrange(4)):
            setattr(made, name, self.value(depth - 1))
        self.open.pop()
        return made


# ----------------------------------------------------------- comparison


class Walk:
    """What an object is, by value and by which of its parts are one object."""

    SCALARS = (
        int,
        float,
        bool,
        complex,
        range,
        type(None),
        type,
        type(Ellipsis),
        type(NotImplemented),
        type(len),
    )

    def __init__(self, has_identity=True):
        self.seen = {}
        self.alive = []
        self.has_identity = has_identity

    def of(self, value):
        kind = type(value)
        if isinstance(value, type) or kind in self.SCALARS or isinstance(value, enum.Enum):
            return (kind.__name__, repr(value))
        if self.has_identity and kind is not slice:
            if id(value) in self.seen:
                return ("seen", self.seen[id(value)])
            self.seen[id(value)] = len(self.seen)
            self.alive.append(value)
        if isinstance(value, Promise):
            return ("lazy", value._args, sorted(value._kw.items()))
        return (kind.__module__, kind.__qualname__, *self.parts(value))

    def parts(self, value):
        if isinstance(value, (str, bytes, bytearray, slice)):
            yield repr(value)
        elif isinstance(value, (datetime.date, datetime.time)):
            yield repr(value)
            if isinstance(value, (datetime.datetime, datetime.time)):
                yield value.fold
                yield self.of(value.tzinfo)
        elif isinstance(value, (datetime.timedelta, datetime.tzinfo, decimal.Decimal, uuid.UUID)):
            yield repr(value)
        elif isinstance(value, (set, frozenset)):
            keys = [sort_key(item) for item in value]
            if any(isinstance(item, Stub) for item in value) and len(set(keys)) < len(keys):
                raise RecursionError  # stubs, which only their addresses tell apart
            yield [self.of(item) for item in sorted(value, key=sort_key)]
        elif isinstance(value, dict):
            yield [(self.of(key), self.of(item)) for key, item in value.items()]
        elif isinstance(value, (list, tuple, collections.deque)):
            yield [self.of(item) for item in value]
        elif isinstance(value, BaseException):
            yield self.of(value.args)
        if hasattr(value, "__dict__"):
            yield [(name, self.of(item)) for name, item in value.__dict__.items()]
        for name in getattr(type(value), "__slots__", ()):
            if name != "__dict__" and hasattr(value, name):
                yield (name, self.of(getattr(value, name)))


def sort_key(value):
    # Addresses differ from one load to the next.
    if isinstance(value, (tuple, frozenset)):
        parts = [sort_key(item) for item in value]
        return repr((type(value).__name__, parts if isinstance(value, tuple) else sorted(parts)))
    if isinstance(value, Stub):
        return f"stub {type(value).__name__}"
    return f"{type(value).__name__} {value!r}"


class Simple:
    """What Rust reads by `to`, in a form that JSON has."""

    def __init__(self):
        self.open = set()
        self.left = 3000

    def of(self, value):
        self.left -= 1
        if id(value) in self.open or self.left < 0:
            raise RecursionError
        if isinstance(value, (bytes, bytearray)):
            return {"bytes": value.hex()}
        if isinstance(value, float):
            return {"float": repr(value)}
        if isinstance(value, int) and not isinstance(value, bool):
            return {"int": str(value)}
        if isinstance(value, datetime.timedelta):
            return {"micros": str(value // datetime.timedelta(microseconds=1))}
        if isinstance(value, (datetime.date, datetime.time)):
            return value.isoformat()
        if isinstance(value, (Promise, decimal.Decimal, uuid.UUID)):
            return str(value)
        if not isinstance(value, (dict, list, tuple, set, frozenset)):
            return value
        self.open.add(id(value))
        if isinstance(value, dict):
            made = {"pairs": [[self.of(key), self.of(item)] for key, item in value.items()]}
        elif isinstance(value, (list, tuple)):
            made = [self.of(item) for item in value]
        else:
            made = {"set": len(value)}
        self.open.discard(id(value))
        return made


# ----------------------------------------------------------- the hostile case


class Stub:
    """Stands for any class. What is done to an object of it is noted."""

    def __new__(cls, *args, **keywords):
        self = super().__new__(cls)
        self.__dict__["made"] = [args, keywords]
        return self

    def __init__(self, *args, **keywords):
        pass

    def __call__(self, *args):
        return Stub(self, *args)

    def extend(self, items):
        self.made.extend(("append", item) for item in items)

    def __setitem__(self, key, value):
        self.made.append(("set", key, value))

    def add(self, item):
        self.made.append(("add", item))

    def __setstate__(self, state):
        self.made.append(("build", state))


REAL = {("builtins", name) for name in ("set", "frozenset", "bytes", "bytearray")} | {
    ("_codecs", "encode")
}


class StubUnpickler(pickle.Unpickler):
    def __init__(self, data):
        super().__init__(io.BytesIO(data))
        self.stubs = {}

    def finds(self, module, name):
        try:
            return bool(super().find_class(module, name))
        except (ImportError, AttributeError):
            return False

    def find_class(self, module, name):
        # CPython's own find_class knows the protocol at this place of the pickle.
        if self.finds("copy_reg", "dispatch_table"):
            module, name = _compat_pickle.NAME_MAPPING.get(
                (module, name), (_compat_pickle.IMPORT_MAPPING.get(module, module), name)
            )
        if "." in name and not self.finds("collections", "OrderedDict.fromkeys"):
            raise AttributeError(name)
        if (module, name) in REAL:
            return getattr(sys.modules[module], name)
        stub = self.stubs.setdefault(
            (module, name), type(repr(name), (Stub,), {"__module__": module})
        )
        return stub


def load(data, stubs):
    return StubUnpickler(data).load() if stubs else pickle.loads(data)


def judge(pair, stubs):
    """None if both pickles are the same object to CPython, otherwise what it says."""
    before, after = (base64.b64decode(data) for data in pair)
    try:
        first = load(before, stubs)
    except Exception as error:
        return f"refused: {type(error).__name__}: {error}"[:200]
    if not after:
        return "accepted"
    try:
        second = load(after, stubs)
    except Exception as error:
        return f"the second is refused: {type(error).__name__}: {error}"[:500]
    try:
        walks = Walk().of(first), Walk().of(second)
    except RecursionError:
        return None
    except Exception as error:
        return f"not to be compared: {error!r}"
    return None if repr(walks[0]) == repr(walks[1]) else f"{walks[0]}\n{walks[1]}"[:3000]


def make(question):
    answers = []
    for index in range(question["count"]):
        maker = Maker(random.Random(f"{question['seed']} {index}"), question["kind"])
        value = maker.compound(3)
        protocol = index % 6
        try:
            data = pickle.dumps(value, protocol)
            value = pickle.loads(data)
        except Exception:  # an object in a cycle through its own arguments, as no real one is
            continue
        try:
            text = json.dumps(value, separators=(",", ":"))
        except (TypeError, ValueError):
            text = None
        try:
            shape = None
            if question["kind"] == "data":
                shape = json.dumps(Simple().of(value), ensure_ascii=False)
                shape.encode()
        except (RecursionError, UnicodeEncodeError):
            shape = None
        answers.append([protocol, base64.b64encode(data).decode(), text, shape])
    return answers


def make_text(rng):
    maker = Maker(rng, "data")

    def value(depth):
        kind = rng.randrange(6 if depth else 4)
        if kind == 4:
            return [value(depth - 1) for _ in range(rng.randrange(4))]
        if kind == 5:
            keys = (rng.choice([maker.text(), "a", "b"]) for _ in range(rng.randrange(4)))
            return {key: value(depth - 1) for key in keys}
        made = [maker.text, maker.integer, maker.number]
        return rng.choice([*made, lambda: rng.choice([None, True, False])])()

    return json.dumps(value(4))


def make_texts(question):
    seed = question["seed"]
    return [make_text(random.Random(f"{seed} {index}")) for index in range(question["count"])]


def compare_json(pair):
    expected = json.loads(pair[0])
    read = pickle.loads(base64.b64decode(pair[1]))
    walks = Walk(has_identity=False).of(expected), Walk(has_identity=False).of(read)
    return None if repr(walks[0]) == repr(walks[1]) else f"{walks[0]}\n{walks[1]}"[:3000]


def answer(question):
    if question["op"] == "make":
        return make(question)
    if question["op"] == "text":
        return make_texts(question)
    if question["op"] == "same":
        return [compare_json(pair) for pair in question["pairs"]]
    if question["op"] == "repr":
        return [repr(pickle.loads(base64.b64decode(data))) for data in question["pickles"]]
    return [judge(pair, question["stubs"]) for pair in question["pairs"]]


if __name__ == "__main__":
    # By this name the classes above are pickled and found again.
    sys.modules["pickled_shop"] = sys.modules["__main__"]
    for thing in list(globals().values()):
        if isinstance(thing, type) and thing.__module__ == "__main__":
            thing.__module__ = "pickled_shop"
    assert SafeString
    sys.setrecursionlimit(20_000)
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))  # a changed byte asks for any index
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
