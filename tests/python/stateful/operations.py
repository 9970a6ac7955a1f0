"""What may be done to a session: generated operations, printable and with nothing of an engine."""

import datetime
import decimal
from typing import Any, NamedTuple

import strategies
from hypothesis import strategies as st


class Key(NamedTuple):
    """Stands for one of the keys that sessions have had so far."""

    at: int


class Op(NamedTuple):
    method: str
    args: tuple[Any, ...] = ()
    session: int = 0  # two are open at a time, maybe one and the same in the store
    asynchronous: bool = False
    atomic: bool = False

    def __repr__(self):
        given = {name: value for name, value in self._asdict().items() if value}
        return f"Op({', '.join(f'{name}={value!r}' for name, value in given.items())})"


def never_pickled():
    """Refused by pickle and JSON alike."""


ODD_KEYS = [
    None,
    "",
    "short",
    "é" * 8,
    "e" * 8,
    "12345678\0",
    "with a space",
    "x" * 40,
    "y" * 41,
    "z" * 300,
    "../../../../etc/passwd",
    "UPPERCASE",
    "12345678\ud800",
    "a:b:c:d:e",
    b"12345678",
]
NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)
EXPIRIES = [0, 0, None, None, 60, 3600, -10, 90.5, True, 40 * 86400]
EXPIRIES += [DAY, -DAY, NOW + DAY, NOW - DAY]
# Django stores these, and then can neither save nor read the session.
BAD_EXPIRIES = [datetime.datetime(2030, 1, 1), "2030-01-01T00:00:00", "tomorrow", [1]]
VALUES = [
    *(None, 1, -(2**70), 0.1, float("nan"), "", "é\ud800🦀\0", [1, [2.0]], {"a": {"b": None}}),
    *((1, 2), {1: 2}, "long" * 500, {"cart": [{"sku": f"SKU-{n}"} for n in range(40)]}),
    *({1, 2}, decimal.Decimal("1.10"), DAY, NOW, never_pickled),  # not for JSON
]

key_at = st.integers(0, 5).map(Key)
any_key = st.one_of(key_at, key_at, key_at, st.sampled_from(ODD_KEYS))
name = st.sampled_from(["a", "b", "c", "_session_expiry"])
plain = st.sampled_from(VALUES[:13])
value = st.one_of(plain, plain, st.sampled_from(VALUES), strategies.json_objects)
expiry = st.one_of(*[st.sampled_from(EXPIRIES)] * 5, st.sampled_from(BAD_EXPIRIES))
kwargs = st.sampled_from(
    [{}, {}, {"modification": NOW}, {"expiry": NOW + DAY}, {"modification": NOW, "expiry": None}]
)
garbage = st.sampled_from(["", "a:b:c", "x" * 40, "é", ".eJw:1:x", b"bytes", None, 7])

# Each method with its arguments, and how often it comes in a hundred operations or so.
METHODS = [
    (8, "open", st.tuples(any_key)),
    (3, "later", st.tuples(st.sampled_from([0.5, 31, 1801, 3 * 86400, 15 * 86400]))),
    (2, "evict", st.just(())),
    (2, "recode", st.tuples(st.dictionaries(name, value, max_size=3))),
    (1, "decode", st.tuples(garbage)),
    (10, "__setitem__", st.tuples(name.filter(lambda name: name != "_session_expiry"), value)),
    (2, "__getitem__", st.tuples(name)),
    (1, "__contains__", st.tuples(name)),
    (1, "truth", st.just(())),
    (2, "__delitem__", st.tuples(name)),
    (2, "get", st.tuples(name) | st.tuples(name, plain)),
    (2, "pop", st.tuples(name) | st.tuples(name, plain)),
    (2, "setdefault", st.tuples(name, value)),
    (2, "update", st.tuples(st.dictionaries(name, plain, max_size=2))),
    (1, "has_key", st.tuples(name)),
    (1, "keys", st.just(())),
    (1, "values", st.just(())),
    (2, "items", st.just(())),
    (2, "clear", st.just(())),
    (2, "is_empty", st.just(())),
    (8, "set_expiry", st.tuples(expiry)),
    (2, "get_expiry_age", st.tuples(kwargs)),
    (2, "get_expiry_date", st.tuples(kwargs)),
    (2, "get_expire_at_browser_close", st.just(())),
    (1, "set_test_cookie", st.just(())),
    (1, "test_cookie_worked", st.just(())),
    (1, "delete_test_cookie", st.just(())),
    (5, "load", st.just(())),
    (14, "save", st.just(())),
    (3, "save", st.just((True,))),
    (3, "create", st.just(())),
    (1, "create_taken", st.just(())),  # the key that is drawn first is taken, if that session lives
    (4, "exists", st.tuples(any_key)),
    (4, "delete", st.just(())),
    (4, "delete", st.tuples(any_key)),
    (3, "flush", st.just(())),
    (4, "cycle_key", st.just(())),
    (2, "clear_expired", st.just(())),
]
_often = [(method, args) for times, method, args in METHODS for _ in range(times)]


@st.composite
def operation(draw):
    method, args = draw(st.sampled_from(_often))
    return Op(
        method,
        draw(args),
        draw(st.sampled_from([0, 0, 1])),
        draw(st.booleans()),
        draw(st.booleans()),
    )


operations = st.lists(operation(), min_size=1, max_size=30)
