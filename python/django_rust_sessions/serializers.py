"""RUST_SESSIONS["PICKLE_MIGRATION"]: the data in sessions that PickleSerializer wrote.

A pickle is a program; here it runs on a small machine of its own, which knows how to make plain
data and nothing else. CPython's unpickler is not used, no module that a pickle names is imported
and no class that it names is called: the names in `_MAKERS` stand for functions of this module.

What comes out is what JSONSerializer would have brought back, had it written the session: lists for
tuples and sets, text for keys, dates, numbers and ids that JSON does not know. So it can be saved.
"""

import base64
import datetime
import pickletools
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from django.utils.duration import duration_iso_string

from ._native import json_dumps, json_loads
from .exceptions import PickleRefused

MAX_DEPTH = 100
# What a value takes in memory at least, beside its text: by this, MAX_INFLATED limits a pickle.
VALUE_SIZE = 64


def read_pickle(data: bytes, max_size: int) -> dict[str, Any]:
    """The session in a pickle. Raises PickleRefused, by name, where it is more than plain data."""
    try:
        session = _Machine(data, max_size).run()
        if type(session) is not dict:
            raise PickleRefused("the pickle holds no session")
        plain = _Plain(max_size).convert(session, MAX_DEPTH)
        read: dict[str, Any] = json_loads(json_dumps(plain))
        return read
    except PickleRefused:
        raise
    except Exception as error:
        raise PickleRefused(f"the pickle is damaged ({type(error).__name__})") from error


# ----------------------------------------------------------------- names, and what stands for them


class _Global(NamedTuple):
    name: str
    make: Callable[..., Any]


class _Uuid:
    """Made without its number, which a pickle tells later."""

    number: int | None = None


def _make_datetime(state: Any, zone: Any = None) -> datetime.datetime:
    high, low, month, *rest = _bytes(state)
    day, hour, minute, second = rest[:4]
    return datetime.datetime(
        high * 256 + low,
        month & 0x7F,
        day,
        hour,
        minute,
        second,
        int.from_bytes(rest[4:7]),
        zone,
        fold=month >> 7,
    )


def _make_date(state: Any) -> datetime.date:
    high, low, month, day = _bytes(state)
    return datetime.date(high * 256 + low, month, day)


def _make_time(state: Any, zone: Any = None) -> datetime.time:
    hour, minute, second, *micro = _bytes(state)
    return datetime.time(hour & 0x7F, minute, second, int.from_bytes(micro), zone, fold=hour >> 7)


def _make_timezone(offset: Any, name: Any = None) -> datetime.timezone:
    return datetime.timezone(offset)  # its name is not in the text of a date


def _make_pytz_zone(name: Any, seconds: Any = 0, *rest: Any) -> datetime.timezone:
    # The offset that pytz knew for just this moment.
    return datetime.timezone(datetime.timedelta(seconds=seconds))


def _make_zone(key: Any, from_cache: Any = True) -> ZoneInfo:
    return ZoneInfo(_text(key))


def _get_attribute(of: Any, name: Any) -> Any:
    if type(of) is not _Global or (of.name, name) != ("zoneinfo.ZoneInfo", "_unpickle"):
        raise PickleRefused(
            "the pickle needs builtins.getattr, which is not read: only plain data is"
        )
    return of


def _make_decimal(text: Any) -> Decimal:
    return Decimal(_text(text))


def _make_list(items: Any = ()) -> list[Any]:
    return list(_sequence(items))


def _make_dict(items: Any = ()) -> dict[Any, Any]:
    return {_key(key): value for key, value in _sequence(items)}


def _make_bytes(text: Any = "", encoding: Any = "latin1") -> bytes:
    if encoding != "latin1":
        raise PickleRefused("the pickle needs another codec than latin1")
    return _text(text).encode("latin1")


def _make_text(text: Any = "") -> str:
    return str(_text(text))


_MAKERS: dict[str, Callable[..., Any]] = {
    "datetime.datetime": _make_datetime,
    "datetime.date": _make_date,
    "datetime.time": _make_time,
    "datetime.timedelta": datetime.timedelta,
    "datetime.timezone": _make_timezone,
    # What Django's own timezone.now() carried before 4.0, and localtime() then and since.
    "pytz._UTC": lambda: datetime.UTC,
    "pytz._p": _make_pytz_zone,
    "zoneinfo.ZoneInfo": _make_zone,
    "builtins.getattr": _get_attribute,  # only ZoneInfo._unpickle
    "decimal.Decimal": _make_decimal,
    "uuid.UUID": _Uuid,
    "collections.OrderedDict": _make_dict,
    "builtins.set": _make_list,
    "builtins.frozenset": _make_list,
    "builtins.bytes": _make_bytes,
    "_codecs.encode": _make_bytes,
    "django.utils.safestring.SafeString": _make_text,
    "django.utils.safestring.SafeText": _make_text,
}
# A name in a pickle may be of Python 2.
_MODULES = {"__builtin__": "builtins"}


def _find(module: Any, name: Any) -> _Global:
    full = f"{_MODULES.get(_text(module), module)}.{_text(name)}"
    if full not in _MAKERS:
        raise PickleRefused(f"the pickle needs {full}, which is not read: only plain data is")
    return _Global(full, _MAKERS[full])


# ------------------------------------------------------------------------------------- the machine


class _Machine:
    """Runs the opcodes of protocols 2 to 5 that pickle writes for data, in a loop."""

    def __init__(self, data: bytes, max_size: int) -> None:
        self.data = data
        self.steps_left = max_size // VALUE_SIZE
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # what is on the stack below each mark
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        for opcode, argument, _ in pickletools.genops(self.data):
            self.steps_left -= 1
            if self.steps_left < 0:
                raise _too_large()
            if opcode.name == "STOP":
                return self.stack.pop()
            if opcode.name in _PUSHED:
                self.stack.append(argument)
            elif step := _STEPS.get(opcode.name):
                step(self, argument)
            else:
                raise PickleRefused(
                    f"the pickle needs the opcode {opcode.name}, which is not read: "
                    "only plain data is"
                )
        raise AssertionError("genops() ends with STOP, or raises")

    def push_python2_text(self, text: str) -> None:
        # Text in most cases. In dates, bytes that are not.
        data = text.encode("latin1")
        try:
            self.stack.append(data.decode())
        except UnicodeDecodeError:
            self.stack.append(data)

    def mark(self, _: Any) -> None:
        self.below.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def push_marked(self, kind: type[Any]) -> None:
        items = self.pop_mark()
        self.stack.append(kind(items))

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    def make_tuple(self, size: int) -> None:
        items = [self.stack.pop() for _ in range(size)]
        self.stack.append(tuple(reversed(items)))

    def append(self, items: list[Any]) -> None:
        into = self.stack[-1]
        if type(into) is not list:
            raise TypeError
        into.extend(items)

    def append_marked(self, _: Any) -> None:
        self.append(self.pop_mark())

    def set_items(self, items: list[Any]) -> None:
        into = self.stack[-1]
        if type(into) is not dict:
            raise TypeError
        for key, value in zip(items[::2], items[1::2], strict=True):
            into[_key(key)] = value

    def set_item(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])

    def find_on_stack(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(_find(module, name))

    def call(self, _: Any) -> None:
        arguments, called = self.stack.pop(), self.stack.pop()
        if type(called) is not _Global or type(arguments) is not tuple:
            raise TypeError
        self.stack.append(called.make(*arguments))

    def build(self, _: Any) -> None:
        state, made = self.stack.pop(), self.stack[-1]
        if type(made) is str and state == {}:
            return  # a SafeText of Python 2
        if type(made) is not _Uuid or type(state) is not dict or type(state["int"]) is not int:
            raise TypeError
        made.number = state["int"]


# Their argument is the value.
_PUSHED = {
    *("NONE", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_STEPS: dict[str, Callable[[_Machine, Any], Any]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "NEWTRUE": lambda machine, _: machine.stack.append(True),
    "NEWFALSE": lambda machine, _: machine.stack.append(False),
    "BINSTRING": _Machine.push_python2_text,
    "SHORT_BINSTRING": _Machine.push_python2_text,
    "MARK": _Machine.mark,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "EMPTY_TUPLE": lambda machine, _: machine.stack.append(()),
    "TUPLE1": lambda machine, _: machine.make_tuple(1),
    "TUPLE2": lambda machine, _: machine.make_tuple(2),
    "TUPLE3": lambda machine, _: machine.make_tuple(3),
    "TUPLE": lambda machine, _: machine.push_marked(tuple),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "APPEND": lambda machine, _: machine.append([machine.stack.pop()]),
    "APPENDS": _Machine.append_marked,
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "SETITEM": _Machine.set_item,
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_mark()),
    # Sets come out as lists, in the order of the pickle.
    "EMPTY_SET": lambda machine, _: machine.stack.append([]),
    "ADDITEMS": _Machine.append_marked,
    "FROZENSET": lambda machine, _: machine.push_marked(list),
    "GLOBAL": lambda machine, name: machine.stack.append(_find(*name.split(" ", 1))),
    "STACK_GLOBAL": _Machine.find_on_stack,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.call,
    "BUILD": _Machine.build,
}


# ------------------------------------------------------------------------------ as JSON has it


class _Plain:
    """Values as JSON has them. What is shared becomes a copy each, as JSON would write it, so that
    a small pickle can ask for a huge session: the size is counted on the way."""

    def __init__(self, max_size: int) -> None:
        self.bytes_left = max_size

    def convert(self, value: Any, depth: int) -> Any:
        if depth == 0:
            raise PickleRefused(f"the pickle is more than {MAX_DEPTH} levels deep")
        size = VALUE_SIZE + (len(value) if isinstance(value, str | bytes) else 0)
        self.bytes_left -= size
        if self.bytes_left < 0:
            raise _too_large()
        if type(value) is dict:
            return {
                self.convert(key, depth): self.convert(item, depth - 1)
                for key, item in value.items()
            }
        if type(value) is list or type(value) is tuple:
            return [self.convert(item, depth - 1) for item in value]
        return value if type(value) in _JSON_TYPES else _as_text(value)


_JSON_TYPES = {str, int, float, bool, type(None)}


def _as_text(value: Any) -> str:
    match value:
        case datetime.datetime() | datetime.date() | datetime.time():
            return value.isoformat()  # as Django itself puts an expiry date into a session
        case datetime.timedelta():
            return duration_iso_string(value)
        case Decimal():
            return str(value)
        case _Uuid(number=int(number)):
            return str(uuid.UUID(int=number))
        case bytes():
            return base64.b64encode(value).decode()
        case datetime.tzinfo():
            return str(value)
    name = value.name if isinstance(value, _Global) else type(value).__name__
    raise PickleRefused(f"the pickle holds {name} itself, which is not read: only plain data is")


# ------------------------------------------------------------------------------------ small checks


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError
    return value


def _bytes(value: Any) -> bytes:
    data = value.encode() if type(value) is str else value
    if type(data) is not bytes:
        raise TypeError
    return data


def _sequence(value: Any) -> list[Any] | tuple[Any, ...]:
    if type(value) is not list and type(value) is not tuple:
        raise TypeError
    return value


def _key(value: Any) -> Any:
    if type(value) not in _JSON_TYPES:
        name = type(value).__name__
        raise PickleRefused(f"the pickle has a key of type {name}, which JSON cannot have")
    return value


def _too_large() -> PickleRefused:
    return PickleRefused('the pickle holds more than RUST_SESSIONS["MAX_INFLATED"] allows')
