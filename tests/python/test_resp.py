"""Redis's protocol: replies are the same in whatever pieces they come, and garbage ends it."""

import pytest
from django_rust_sessions.caches.resp import new_reader, pack
from hypothesis import given
from hypothesis import strategies as st
from redis._parsers.base import BaseParser
from redis.connection import Connection
from redis.exceptions import InvalidResponse

# Redis's own limit of a string, and ours of any other line.
MAX_LENGTH, MAX_LINE = 512 * 1024 * 1024, 64 * 1024

# What a server sends, and what it means.
LINES = st.from_regex(r"[ -~]{0,40}", fullmatch=True)
STRINGS = st.binary(max_size=300).map(lambda data: (b"$%d\r\n%b\r\n" % (len(data), data), data))
REPLIES = st.one_of(
    STRINGS,
    st.just((b"$-1\r\n", None)),
    st.integers(-(2**63), 2**63 - 1).map(lambda number: (b":%d\r\n" % number, number)),
    LINES.map(lambda text: (f"+{text}\r\n".encode(), text.encode())),
)


@given(st.lists(REPLIES, min_size=1, max_size=6), st.data())
def test_replies_in_any_pieces(replies, data):
    stream = b"".join(sent for sent, _ in replies)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader, got = new_reader(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += reader.feed(stream[start:end])
    assert got == [meant for _, meant in replies]
    assert reader.is_empty


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=7))
def test_commands_are_packed_as_redis_py_packs_them(words):
    packed = Connection().pack_command("SET", *words)
    assert pack(b"SET", *words) == b"".join(packed)


# Not of commands that sessions never send.
OTHERS = ("extension", "module", "LDAP", "fieldset")
CODES = {code: text for code, text in BaseParser.EXCEPTION_CLASSES.items() if code != "ERR"}
ERRORS = [
    *(f"ERR {text}" for text in BaseParser.EXCEPTION_CLASSES["ERR"]),
    *(f"{code} 3999 127.0.0.1:6381" for code in CODES),
    *("ERR wrong number", "WRONGTYPE not a string", "ERR", "", "\ufffd", "MOVED1 here"),
]


@pytest.mark.parametrize(
    "text", [text for text in ERRORS if not any(map(text.__contains__, OTHERS))]
)
def test_errors_are_those_of_redis_py(text):
    (error,) = new_reader().feed(f"-{text}\r\n".encode())
    expected = BaseParser.parse_error(text)
    assert (type(error), str(error)) == (type(expected), str(expected))


GARBAGE = {
    "HTTP": b"HTTP/1.1 400 Bad Request\r\n",
    "no type": b"\r\n",
    "text": b"hello",
    "an array": b"*1\r\n$1\r\na\r\n",
    "a length that is no number": b"$abc\r\n",
    "a negative length": b"$-2\r\n",
    "a huge length": b"$%d\r\n" % (MAX_LENGTH + 1),
    "a length of many digits": b"$" + b"9" * 5000 + b"\r\n",
    "no number": b":one\r\n",
    "longer than announced": b"$3\r\nabcdef\r\n",
    "a line without end": b"+" + b"a" * MAX_LINE,
}


@pytest.mark.parametrize("sent", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_is_refused(sent):
    with pytest.raises(InvalidResponse, match="Redis's answer"):
        new_reader().feed(sent)


def test_a_long_string_in_small_pieces():
    data = bytes(range(256)) * 40_000
    stream = b"$%d\r\n%b\r\n:7\r\n" % (len(data), data)
    reader, got = new_reader(), []
    for start in range(0, len(stream), 1000):
        got += reader.feed(stream[start : start + 1000])
    assert got == [data, 7]
