"""Sessions of PickleSerializer under JSONSerializer, with the option PICKLE_MIGRATION."""

import collections
import datetime
import decimal
import fractions
import json
import pickle
import struct
import subprocess
import sys
import uuid
import zoneinfo
from pathlib import Path

import pytest
from differential import (
    DjangoCookieStore,
    DjangoStore,
    RustCookieStore,
    RustStore,
    captured_logs,
    same,
)
from django.core import signing
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from django.utils.safestring import mark_safe
from django_rust_sessions.backends import signed_cookies
from django_rust_sessions.exceptions import PickleRefused
from django_rust_sessions.serializers import _MAKERS, MAX_DEPTH, read_pickle
from hypothesis import given
from strategies import sessions

MIGRATION = {"PICKLE_MIGRATION": True}
ROOT = Path(__file__).parents[1]
VECTORS = json.loads((ROOT / "vectors" / "pickled" / "sessions.json").read_text("ascii"))
KEY = "test-vectors-secret-key-that-guards-nothing"
MIB = 2**20
MOMENT = datetime.datetime(2026, 11, 23, 11, 59, 58, 123456)


class Raw:
    """A serializer that signs bytes as they are."""

    def dumps(self, data):
        return data

    loads = dumps


def sign(data, salt="django.contrib.sessions.SessionStore"):
    return signing.dumps(data, salt=salt, serializer=Raw, compress=True)


def read(data, **options):
    """What decode() says of a signed pickle, and what is logged."""
    with override_settings(RUST_SESSIONS=MIGRATION | options), captured_logs() as logs:
        return RustStore().decode(sign(data)), [message for *_, message in logs]


def refusal(data, **options):
    session, logs = read(data, **options)
    assert session == {}
    (message,) = logs
    return message.removeprefix("Session data ignored: ")


def unpickled(value, protocol=pickle.HIGHEST_PROTOCOL):
    session, logs = read(pickle.dumps({"a": value}, protocol))
    assert logs == []
    return session["a"]


# ------------------------------------------------------------------------- what old Djangos wrote


@pytest.mark.parametrize("kind", ["db", "cookie"])
def test_sessions_of_old_releases(kind):
    """From Django 1.11 on Python 2.7 to Django 4.2; both formats of session_data."""
    vectors = [vector for vector in VECTORS if vector["kind"] == kind]
    assert len(vectors) > 100
    keys = {"SECRET_KEY": KEY, "SESSION_COOKIE_AGE": 10**9}
    for vector in vectors:
        for fallbacks in ([], ["older", KEY]):
            rotated = {"SECRET_KEY": "new", "SECRET_KEY_FALLBACKS": fallbacks} if fallbacks else {}
            options = MIGRATION | {"LEGACY": True}
            with override_settings(**keys | rotated, RUST_SESSIONS=options):
                store = RustStore() if kind == "db" else RustCookieStore(vector["token"])
                with captured_logs() as logs:
                    found = store.decode(vector["token"]) if kind == "db" else store.load()
                assert logs == []
                assert json.dumps(found, sort_keys=True) == vector["value"], vector["name"]
                # Written anew, it is for Django of today.
                assert same(DjangoStore().decode(RustStore().encode(found)), found)


def test_each_release_is_in_the_vectors():
    releases = {vector["name"].split(",")[0].rpartition(".")[0] for vector in VECTORS}
    assert releases == {f"Django {n}" for n in ("1.11", "3.0", "3.1", "3.2", "4.2")}


@pytest.mark.parametrize("options", [{}, {"LEGACY": True}], ids=["off", "legacy only"])
def test_off_is_django_of_today(options):
    with override_settings(SECRET_KEY=KEY, SESSION_COOKIE_AGE=10**9, RUST_SESSIONS=options):
        for vector in VECTORS[::5]:
            if vector["kind"] == "cookie":
                assert RustCookieStore(vector["token"]).load() == {}
                continue
            with captured_logs() as expected:
                assert DjangoStore().decode(vector["token"]) == {}
            with captured_logs() as logs:
                assert RustStore().decode(vector["token"]) == {}
            if not options:
                assert logs == expected


def test_an_old_pickled_cookie_expires():
    vector = next(v for v in VECTORS if v["kind"] == "cookie")
    options = MIGRATION | {"LEGACY": True}
    with override_settings(SECRET_KEY=KEY, SESSION_COOKIE_AGE=0, RUST_SESSIONS=options):
        store = RustCookieStore(vector["token"])
        assert store.load() == {}
        assert store.modified


def test_other_serializers_read_their_own():
    with override_settings(
        SESSION_SERIALIZER=f"{__name__}.Raw", RUST_SESSIONS={"PICKLE_MIGRATION": True}
    ):
        data = pickle.dumps({"a": 1})
        assert RustStore().decode(sign(data)) == data


def test_cookies_too():
    token = sign(pickle.dumps({"a": (1,)}), signed_cookies.SALT)
    with override_settings(RUST_SESSIONS=MIGRATION):
        assert RustCookieStore(token).load() == {"a": [1]}
        bad = sign(pickle.dumps({"a": fractions.Fraction(1, 2)}), signed_cookies.SALT)
        with captured_logs() as logs:
            assert RustCookieStore(bad).load() == {}
    assert "needs fractions.Fraction, which is not read" in logs[0][2]
    assert DjangoCookieStore(token).load() == {}


@pytest.mark.parametrize("value", [1, "yes", None, [True]])
def test_a_wrong_value(value):
    token = sign(pickle.dumps({}))
    with override_settings(RUST_SESSIONS={"PICKLE_MIGRATION": value}):
        for call in (lambda: RustStore().decode(token), RustCookieStore(token).load):
            with pytest.raises(ImproperlyConfigured, match="PICKLE_MIGRATION"):
                call()


# -------------------------------------------------------------------------------------------- data


@given(sessions)
def test_generated_sessions(session):
    """A pickle is read as JSON would have brought the same session back."""
    for protocol in (2, 3, 4, 5):
        found = read_pickle(pickle.dumps(session, protocol), 16 * MIB)
        assert same(found, json.loads(json.dumps(session)))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_data(protocol):
    number = uuid.UUID("12345678-1234-5678-1234-567812345678")
    plus_two = datetime.timezone(datetime.timedelta(hours=2), "name")
    expected = {
        "datetime": (MOMENT, "2026-11-23T11:59:58.123456"),
        "fold": (MOMENT.replace(fold=1), "2026-11-23T11:59:58.123456"),
        "aware": (MOMENT.replace(tzinfo=datetime.UTC), "2026-11-23T11:59:58.123456+00:00"),
        "offset": (MOMENT.replace(tzinfo=plus_two), "2026-11-23T11:59:58.123456+02:00"),
        "date": (MOMENT.date(), "2026-11-23"),
        "time": (MOMENT.time(), "11:59:58.123456"),
        "aware time": (MOMENT.timetz().replace(tzinfo=datetime.UTC), "11:59:58.123456+00:00"),
        "timedelta": (datetime.timedelta(days=1, seconds=2), "P1DT00H00M02S"),
        "decimal": (decimal.Decimal("-1.50"), "-1.50"),
        "uuid": (number, str(number)),
        "uuid1": (uuid.UUID(int=1, is_safe=uuid.SafeUUID.safe), str(uuid.UUID(int=1))),
        "set": ({1}, [1]),
        "frozenset": (frozenset("a"), ["a"]),
        "ordered": (collections.OrderedDict(b=1, a=(2,)), {"b": 1, "a": [2]}),
        "safe": (mark_safe("<b>"), "<b>"),
        "bytes": (b"\x00\xff", "AP8="),
        "no bytes": (b"", ""),
    }
    for name, (value, text) in expected.items():
        assert same(unpickled(value, protocol), text), name
    # The same one twice is a reference in the pickle.
    assert unpickled([number, number, MOMENT, MOMENT], protocol)[1] == str(number)


@pytest.mark.parametrize("protocol", [4, 5])
def test_zones_with_a_name(protocol):
    zone = zoneinfo.ZoneInfo("Europe/Berlin")
    assert unpickled(MOMENT.replace(tzinfo=zone), protocol) == "2026-11-23T11:59:58.123456+01:00"


def test_a_name_of_a_zone_is_no_path():
    for name in ["../../../etc/passwd", "/etc/passwd", "No/Where"]:
        data = pickle.dumps({"a": zoneinfo.ZoneInfo("Europe/Berlin")}, 4)
        data = data.replace(b"\x8c\rEurope/Berlin", b"\x8c" + bytes([len(name)]) + name.encode())
        assert "damaged" in refusal(data)


def test_what_was_read_can_be_saved():
    """The expiry that Django before 4.1 put there as a datetime is understood, too."""
    session = {
        "_session_expiry": datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1),
        "seen": {MOMENT},
        7: "number as key",
    }
    found, _ = read(pickle.dumps(session))
    assert found == json.loads(DjangoStore().serializer().dumps(found))
    store = RustCookieStore()
    store.update(found)
    store.save()
    assert 3590 < store.get_expiry_age() <= 3600
    assert dict(DjangoCookieStore(store.session_key).items()) == found


# ------------------------------------------------------------------------------------------ no code


CALLS = []


class Cart:
    """Nobody may call any of this."""

    def __new__(cls):
        CALLS.append("new")
        return super().__new__(cls)

    def __setstate__(self, state):
        CALLS.append("state")

    def __getstate__(self):
        return {"a": 1}


class Called:
    def __reduce__(self):
        return CALLS.append, ("called",)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_class_of_the_project_is_refused_by_name(protocol):
    data = pickle.dumps({"cart": Cart()}, protocol)
    CALLS.clear()
    name = f"{__name__}.Cart"
    assert refusal(data) == f"the pickle needs {name}, which is not read: only plain data is"
    assert "which is not read" in refusal(pickle.dumps({"a": Called()}, protocol))
    assert CALLS == []


@pytest.mark.parametrize(
    "name",
    [
        *("os.system", "posix.system", "builtins.eval", "builtins.exec", "builtins.__import__"),
        *("subprocess.Popen", "builtins.open", "builtins.getattr.x", "copyreg._reconstructor"),
        *("copyreg.__newobj__", "copyreg.add_extension", "operator.attrgetter", "__main__.Cart"),
        *("builtins.bytearray", "builtins.int", "builtins.list", "builtins.object", "sys.exit"),
        *("uuid.UUID.__init__", "datetime.sys", "collections.Counter", "_codecs.decode"),
        *("zoneinfo.ZoneInfo.from_file", "django.contrib.auth.models.User", "a b.c"),
    ],
)
def test_names_that_are_not_read(name):
    module, _, attribute = name.rpartition(".")
    by_line = b"\x80\x02c%s\n%s\n)R." % (module.encode(), attribute.encode())
    stacked = b"\x80\x04" + b"".join(
        b"\x8c%c%s" % (len(part), part.encode()) for part in (module, attribute)
    )
    for data in [stacked + b"\x93)R.", stacked + b"\x93.", *([] if " " in name else [by_line])]:
        expected = f"the pickle needs {name}, which is not read: only plain data is"
        assert refusal(data) == expected


def test_python_2_names():
    assert refusal(b"\x80\x02c__builtin__\neval\n.").startswith("the pickle needs builtins.eval,")


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02(ios\nsystem\nU\x02id.",  # INST
        b"\x80\x02(c__builtin__\nset\no.",  # OBJ
        b"\x80\x02Pid\n.",  # PERSID
        b"\x80\x02NQ.",  # BINPERSID
        b"\x80\x02\x82\x01.",  # EXT1
        b"\x80\x02\x83\x01\x00.",  # EXT2
        b"\x80\x02\x84\x01\x00\x00\x00.",  # EXT4
        b"\x80\x04\x8c\x04uuid\x8c\x04UUID\x93)}\x92.",  # NEWOBJ_EX
        b"\x80\x05\x97.",  # NEXT_BUFFER
        b"\x80\x02I1\n.",  # INT, of protocol 0
        b"\x80\x02N0.",  # POP
        b"\x80\x02N2.",  # DUP
    ],
)
def test_opcodes_that_are_not_read(data):
    assert refusal(data).startswith("the pickle needs the opcode ")


@pytest.mark.parametrize("protocol", [2, 4])
def test_getattr_gives_one_thing(protocol):
    for of, name in [(str, "format"), (datetime.datetime, "now"), (zoneinfo.ZoneInfo, "no_cache")]:

        class Method:
            def __reduce__(self, of=of, name=name):
                return getattr, (of, name)

        assert "which is not read" in refusal(pickle.dumps({"a": Method()}, protocol))


def test_a_module_is_never_imported(tmp_path, monkeypatch):
    """Not even one that is there; nor a name that stands for something else in its module."""
    (tmp_path / "trap.py").write_text("import pathlib\npathlib.Path(__file__ + '.ran').touch()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for data in (b"\x80\x02ctrap\nCart\n)\x81.", b"\x80\x04\x8c\x04trap\x8c\x04Cart\x93)\x81}b."):
        assert "the pickle needs trap.Cart," in refusal(data)
    assert "trap" not in sys.modules
    assert not (tmp_path / "trap.py.ran").exists()
    import trap  # noqa: F401  (the trap works)

    assert (tmp_path / "trap.py.ran").exists()


def test_no_module_of_the_list_is_imported():
    """pytz and the like: what a name stands for is ours."""
    assert {name.split(".")[0] for name in _MAKERS} & {"pytz"}
    session, logs = read(b"\x80\x02}U\x01acpytz\n_UTC\n)Rs.")
    assert (session, logs) == ({"a": "UTC"}, [])


@pytest.mark.parametrize(
    "arguments",
    [
        b"K\x01\x85",  # a number
        b"U\x01a\x85",
        b"N\x85",
        b")",
        b"U\x0a\x07\xea\x0d\x17\x0b\x3b\x3a\x00\x00\x00\x85",  # month 13
        b"U\x0a\x07\xea\x0b\x17\xff\x3b\x3a\x00\x00\x00\x85",  # hour 255, which Python's own takes
        b"U\x0a\x07\xea\x0b\x17\x0b\x3b\x3a\x00\x00\x00U\x03UTC\x86",
        b"}",
    ],
)
@pytest.mark.parametrize("name", ["datetime", "date", "time", "timezone"])
def test_wrong_arguments(name, arguments):
    if name == "time" and arguments == b")":
        return
    assert "damaged" in refusal(
        b"\x80\x02}U\x01acdatetime\n" + name.encode() + b"\n" + arguments + b"Rs."
    )


def test_bytes_are_not_counted_out():
    """bytes(10**12) is a terabyte of zeros."""
    for arguments in (b"\x8a\x06\x00\x10\xa5\xd4\xe8\x00\x85", b"K\x08\x85"):
        assert "damaged" in refusal(b"\x80\x02}U\x01ac__builtin__\nbytes\n" + arguments + b"Rs.")
    assert "another codec" in refusal(
        b"\x80\x02}U\x01ac_codecs\nencode\nX\x01\x00\x00\x00aU\x04zlib\x86Rs."
    )


# ------------------------------------------------------------------------------------------- bombs


def nested(depth, begin, end):
    return b"\x80\x04}\x8c\x01a" + begin * depth + end * depth + b"s."


def billion_laughs():
    text = b"U\x03lolq\x00"
    for level in range(30):
        reference = b"h" + bytes([level])
        text += b"](" + reference * 10 + b"eq" + bytes([level + 1])
    # A tuple of all, so that the stack ends with one value: the session holds the last.
    return b"\x80\x02}U\x01a(" + text + b"ts."


BOMBS = {
    "lists in lists": nested(100_000, b"](", b"e")[:-2] + b"s.",
    "tuples in tuples": b"\x80\x04}\x8c\x01a)" + b"\x85" * 100_000 + b"s.",
    "tuples as keys": b"\x80\x04})" + b"\x85" * 100_000 + b"Ns.",
    "marks": b"\x80\x02" + b"(" * 1_000_000 + b".",
    "many lists": b"\x80\x02" + b"]" * 16_000_000 + b".",
    "huge memo index": b"\x80\x02}r\xff\xff\xff\xff.",
    "memo never put": b"\x80\x02j\xff\xff\xff\x7f.",
    "laughs": billion_laughs(),
    "long text of nothing": b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"a.",
    "long bytes of nothing": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"a.",
    "long frame": b"\x80\x04\x95" + struct.pack("<Q", 2**63) + b"}.",
    "a list in itself": b"\x80\x02}U\x01a]q\x00h\x00as.",
    "a dict in itself": b"\x80\x02}q\x00U\x01ah\x00s.",
    "an integer of a megabyte": b"\x80\x02}U\x01a\x8b"
    + struct.pack("<i", MIB)
    + b"\x7f" * MIB
    + b"s.",
    "text a thousand times": b"\x80\x02}U\x01a](X\x00\x00\x10\x00"
    + b"x" * MIB
    + b"q\x00"
    + b"h\x00" * 1000
    + b"es.",
}


HARMLESS = {"huge memo index", "long frame"}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(name):
    session, logs = read(BOMBS[name])
    assert session == {}
    assert len(logs) == (name not in HARMLESS)


CHILD = """
import resource, sys
from django.conf import settings
settings.configure(SECRET_KEY="x")
from django_rust_sessions.exceptions import PickleRefused
from django_rust_sessions.serializers import read_pickle
data = sys.stdin.buffer.read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_pickle(data, 16 * 2**20)
except PickleRefused:
    pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units elsewhere")
@pytest.mark.parametrize("name", ["laughs", "many lists", "marks", "text a thousand times"])
def test_memory_that_a_bomb_takes(name):
    child = subprocess.run(
        [sys.executable, "-c", CHILD], input=BOMBS[name], capture_output=True, check=True
    )
    assert int(child.stdout) < 96 * 1024


def test_depth_is_exact():
    def session(depth):
        value = []
        for _ in range(depth - 2):
            value = [value]
        return pickle.dumps({"a": value})

    assert read(session(MAX_DEPTH))[0]["a"]
    assert refusal(session(MAX_DEPTH + 1)) == "the pickle is more than 100 levels deep"


def test_the_cap():
    data = pickle.dumps({"a": "b" * 1000})
    assert read(data, MAX_INFLATED=3000)[0] == {"a": "b" * 1000}
    assert refusal(data, MAX_INFLATED=1100) == (
        'the pickle holds more than RUST_SESSIONS["MAX_INFLATED"] allows'
    )


def test_every_cut_and_every_changed_byte():
    """Whatever it is, it ends in a session or in PickleRefused."""
    data = pickle.dumps({"a": [1, MOMENT, uuid.UUID(int=5), {1}, (2, "x")], "b": b"\xff"})
    ends = collections.Counter()
    cuts = [data[:end] for end in range(len(data))]
    changed = [
        data[:at] + bytes([new]) + data[at + 1 :]
        for at in range(len(data))
        for new in range(0, 256, 5)
    ]
    for broken in cuts + changed:
        try:
            read_pickle(broken, MIB)
            ends["read"] += 1
        except PickleRefused:
            ends["refused"] += 1
    assert ends["refused"] > 1000
    assert ends["read"] > 100


@pytest.mark.parametrize("value", [[], "text", None, 1, (), MOMENT])
def test_no_session(value):
    assert refusal(pickle.dumps(value)) == "the pickle holds no session"


@pytest.mark.parametrize("key", [(1, 2), MOMENT, b"bytes", frozenset(), decimal.Decimal(1)])
def test_keys_that_json_cannot_have(key):
    assert "key of type" in refusal(pickle.dumps({key: 1}))
