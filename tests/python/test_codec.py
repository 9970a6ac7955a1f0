"""encode() and decode() of the engines against Django's, and the signer under them."""

import binascii
import datetime
import json
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import patch

import pytest
from conftest import SECRET_KEY
from differential import DjangoStore, RustStore, captured_logs, outcome, same
from django.conf import settings as django_settings
from django.core import signing
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from django.utils.functional import lazystr
from django_rust_sessions._native import Signer, json_dumps
from django_rust_sessions.codec import CodecMixin
from django_rust_sessions.exceptions import SessionTooLarge
from hypothesis import given
from strategies import any_objects, sessions

CORRUPTED = [("django.security.SuspiciousSession", "WARNING", "Session data corrupted")]
SALT = "django.contrib.sessions.SessionStore"
PAYLOADS = {
    "empty": {},
    "login": {
        "_auth_user_id": "1",
        "_auth_user_backend": "django.contrib.auth.backends.ModelBackend",
        "_auth_user_hash": "f" * 64,
    },
    "cart": {"cart": [{"sku": f"SKU-{n}", "price": n + 0.99, "count": n} for n in range(40)]},
    "text": {
        "é": "naïve",
        "日本": "語",
        "🦀": "\U0010ffff",
        "quote": '"\\/',
        "control": "\0\x1f\x7f",
    },
    "surrogates": {"\ud800": "a\udc00b", "pair": "\ud83e\udd80"},
    "numbers": {"big": 2**70, "one": 1.0, "e": 1e16, "small": 1e-7, "zero": -0.0, "least": 5e-324},
    "not finite": {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")},
    "keys": {1: "int", 1.5: "float", False: "bool", None: "none", "1": "twice"},
    "expiry": {"_session_expiry": "2026-01-01T00:00:00+00:00", "zero": {"_session_expiry": 0}},
    "nested": {"a": [{"b": [{"c": [[], {}, [{}]]}]}]},
    "1 byte": {"a": "b"},
    "1 MB": {"blob": "0123456789" * 100_000},
    "1 MB that does not compress": {"blob": "".join(chr(33 + n * n % 89) for n in range(10**6))},
}


@pytest.fixture
def stores():
    return DjangoStore(), RustStore()


def envelope(signed):
    """What a signed string says, whatever the compressor."""
    value, timestamp, _ = signed.rsplit(":", 2)
    data = signing.b64_decode(value.lstrip(".").encode())
    return timestamp, zlib.decompress(data) if value.startswith(".") else data


def assert_encoded_alike(obj):
    django, rust = DjangoStore(), RustStore()
    with patch("time.time", return_value=1_790_000_000.25):
        expected, found = outcome(django.encode, obj), outcome(rust.encode, obj)
    assert found[1:] == expected[1:]
    if expected.error is None:
        assert envelope(found.value) == envelope(expected.value)
        assert same(django.decode(found.value), rust.decode(expected.value))


def assert_decoded_alike(data):
    expected, found = outcome(DjangoStore().decode, data), outcome(RustStore().decode, data)
    assert same(found.value, expected.value)
    assert found[1:] == expected[1:]
    return found


def sign(payload, salt=SALT, compress=False):
    """Properly signed, whatever the payload."""
    value = ("." if compress else "") + signing.b64_encode(payload).decode()
    return signing.TimestampSigner(salt=salt).sign(value)


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_both_ways(payload, stores, clock):
    assert_encoded_alike(payload)
    for writer in stores:
        for reader in stores:
            assert same(reader.decode(writer.encode(payload)), json.loads(json.dumps(payload)))


def test_identical_when_not_compressed(clock):
    """Byte for byte: only zlib's output may differ."""
    payload = {"a": "é", "n": [1, 2.5, None]}
    assert RustStore().encode(payload) == DjangoStore().encode(payload)
    assert not RustStore().encode(payload).startswith(".")


def test_compressed_only_if_shorter(clock):
    for size in range(200):
        payload = {"a": "ab" * size}
        signed = RustStore().encode(payload)
        data = json.dumps(payload, separators=(",", ":")).encode()
        raw = signing.b64_decode(signed.rsplit(":", 2)[0].lstrip(".").encode())
        assert signed.startswith(".") == (len(raw) < len(data) - 1)


@given(sessions)
def test_generated_sessions(session):
    assert_encoded_alike(session)


@given(any_objects)
def test_generated_objects(obj):
    assert_encoded_alike(obj)


def test_a_refused_object_names_what_it_holds():
    with pytest.raises(TypeError, match="Object of type datetime is not JSON serializable"):
        RustStore().encode({"a": [datetime.datetime.now(datetime.UTC)]})


class TestRefused:
    """Whatever Django takes for an empty session is one here, with the same record in the log."""

    @pytest.fixture
    def token(self):
        return DjangoStore().encode(PAYLOADS["cart"])

    def test_every_cut(self, token):
        for end in range(len(token)):
            assert assert_decoded_alike(token[:end]).value == {}
            assert assert_decoded_alike(token[end + 1 :]).value == {}

    def test_every_flipped_bit(self, token):
        for at in range(0, len(token), 7):
            for bit in range(7):
                flipped = token[:at] + chr(ord(token[at]) ^ 1 << bit) + token[at + 1 :]
                assert assert_decoded_alike(flipped) == ({}, None, CORRUPTED)

    def test_other_key(self, token):
        with override_settings(SECRET_KEY="another"):
            assert assert_decoded_alike(token) == ({}, None, CORRUPTED)

    def test_other_salt(self):
        signed = sign(b"{}", salt="django.contrib.sessions.Other")
        assert assert_decoded_alike(signed) == ({}, None, CORRUPTED)

    @pytest.mark.parametrize(
        "data",
        [
            None,
            b"",
            b"a:b:c",
            1,
            [],
            "",
            ":",
            "::",
            "a:b:c",
            "é:b:c",
            "\ud800",
            "\ud800:a:b",
            "a:b:é",
        ],
    )
    def test_not_a_token(self, data):
        assert assert_decoded_alike(data).value == {}

    @pytest.mark.parametrize(
        ("payload", "compress"),
        [
            (b"", False),
            (b"", True),
            (b"not a zlib stream", True),
            (zlib.compress(b"{}")[:-1], True),
            (zlib.compress(b"{}")[:-6] + b"\0" * 6, True),
            (zlib.compress(b"not json"), True),
            (zlib.compress(b"{}", wbits=-15), True),
            (zlib.compress(b"{}", wbits=31), True),
            (b"{", False),
            (b"\xff\xfe", False),
            (b"[" * 100_000, False),
            (b"9" * 5000, False),
        ],
    )
    def test_unreadable_payload(self, payload, compress):
        assert assert_decoded_alike(sign(payload, compress=compress)) == ({}, None, [])

    def test_timestamps(self):
        for timestamp in ["", "-", "!", "é", "z" * 30, "-1", "1-", "0", " 1"]:
            assert_decoded_alike(signing.Signer(salt=SALT).sign(f"e30:{timestamp}"))
        assert assert_decoded_alike(signing.Signer(salt=SALT).sign("e30")) == ({}, None, [])

    def test_read_all_the_same(self):
        """Odd tokens that Django reads are read."""
        for payload in [
            b"[1]",
            b"null",
            b'"text"',
            b'{"\xe9":"\xc3\xa9"}',
            b" {} ",
            b'{"a":1,"a":2}',
        ]:
            assert_decoded_alike(sign(payload))
            assert_decoded_alike(sign(zlib.compress(payload) + b"garbage", compress=True))
        for value in [
            "e30=",
            "e30==",
            "e3 0",
            "e.30",
            "e30=AAAA",
            "eyJhIjoiPz8_In0",
            "eyJhIjoiPz8/In0",
        ]:
            assert_decoded_alike(signing.TimestampSigner(salt=SALT).sign(value))


class TestCap:
    """Django has no such cap: here a bomb is an empty session and a record in the log."""

    def test_default(self):
        bomb = sign(zlib.compress(b" " * (16 * 2**20) + b"{}"), compress=True)
        with captured_logs() as logs:
            assert RustStore().decode(bomb) == {}
        assert logs == [
            (
                "django.security.SuspiciousSession",
                "WARNING",
                "Session data ignored: the signed payload inflates to more than 16777216 bytes",
            )
        ]

    def test_just_below(self):
        payload = b'{"a":1}'.ljust(16 * 2**20)
        assert RustStore().decode(sign(zlib.compress(payload), compress=True)) == {"a": 1}

    def test_setting(self):
        signed = RustStore().encode({"a": "b" * 1000})
        with override_settings(RUST_SESSIONS={"MAX_INFLATED": 500}):
            assert RustStore().decode(signed) == {}
        assert RustStore().decode(signed) == {"a": "b" * 1000}

    def test_a_misspelt_option_is_no_corrupted_data(self):
        signed = RustStore().encode({"a": 1})
        with override_settings(RUST_SESSIONS={"MAX_INFLATE": 500}):
            for call in (RustStore().decode, RustStore().encode):
                with pytest.raises(ImproperlyConfigured, match="no option 'MAX_INFLATE'"):
                    call(signed)

    def test_0_is_no_word_for_no_limit(self):
        wrong = override_settings(RUST_SESSIONS={"MAX_INFLATED": 0})
        with wrong, pytest.raises(ImproperlyConfigured, match="no compressed session could be"):
            RustStore().decode(sign(b'{"a":1}'))

    @pytest.mark.parametrize("value", ["16", 1.5, True, None, -1])
    def test_a_wrong_value_is_no_corrupted_data(self, value):
        signed = RustStore().encode({"a": 1})
        wrong = override_settings(RUST_SESSIONS={"MAX_INFLATED": value})
        with (
            wrong,
            pytest.raises(
                ImproperlyConfigured,
                match="and should be a whole number of bytes, such as 16777216",
            ),
        ):
            RustStore().decode(signed)

    def test_does_not_count_what_was_not_compressed(self):
        with override_settings(RUST_SESSIONS={"MAX_INFLATED": 1}):
            assert RustStore().decode(sign(b'{"a":1}')) == {"a": 1}


class TestKeys:
    def test_rotation(self, stores):
        django, rust = stores
        old = django.encode({"a": 1})
        with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=["older", SECRET_KEY]):
            assert rust.decode(old) == {"a": 1}
            new = rust.encode({"a": 2})
            assert django.decode(new) == {"a": 2}
        assert assert_decoded_alike(new) == ({}, None, CORRUPTED)

    @pytest.mark.parametrize(
        "key",
        ["ключ", b"\xff\0 key", lazystr("lazy"), memoryview(b"view"), bytearray(b"array"), 42],
    )
    def test_types_of_keys(self, key, stores, clock):
        with override_settings(SECRET_KEY=key):
            signed = RustStore().encode({"a": 1})
            assert signed == DjangoStore().encode({"a": 1})
        with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=(key,)):
            assert assert_decoded_alike(signed).value == {"a": 1}

    def test_an_empty_fallback_is_no_key(self):
        with override_settings(SECRET_KEY_FALLBACKS=["", b"", None]):
            assert RustStore().decode(DjangoStore().encode({"a": 1})) == {"a": 1}
            forged = Signer(b"\0", SALT).dumps({"a": 1}, 0)
            assert assert_decoded_alike(forged) == ({}, None, CORRUPTED)

    def test_no_key(self):
        with override_settings(SECRET_KEY=""):
            assert outcome(RustStore().encode, {}).kind is ImproperlyConfigured
            assert assert_decoded_alike("a:b:c") == ({}, None, [])

    def test_settings_changed_without_notice(self, stores, monkeypatch):
        django, rust = stores
        before = rust.encode({"a": 1})
        monkeypatch.setattr(django_settings, "SECRET_KEY", "changed in place")
        assert django.decode(rust.encode({"a": 2})) == {"a": 2}
        assert rust.decode(before) == {}

    @pytest.mark.parametrize("salt", ["", "custom", "é"])
    def test_salts(self, salt, clock):
        class DjangoEngine(DjangoStore):
            key_salt = salt

        class RustEngine(RustStore):
            key_salt = salt

        signed = RustEngine().encode({"a": 1})
        assert signed == DjangoEngine().encode({"a": 1})
        assert RustEngine().decode(signed) == {"a": 1}

    def test_salt_of_a_subclass_is_its_qualname(self):
        class Engine(RustStore):
            pass

        here = "TestKeys.test_salt_of_a_subclass_is_its_qualname.<locals>"
        assert Engine().key_salt == f"django.contrib.sessions.{here}.Engine"
        assert RustStore().key_salt == DjangoStore().key_salt == SALT


class HexSerializer:
    """Not JSON, and returning whatever bytes-like type it is asked for."""

    returns = bytes

    def dumps(self, obj):
        return self.returns(json.dumps(obj).encode().hex().encode())

    def loads(self, data):
        assert type(data) is bytes
        return json.loads(bytes.fromhex(data.decode()))


class SubclassedSerializer(signing.JSONSerializer):
    def dumps(self, obj):
        return super().dumps({"wrapped": obj})

    def loads(self, data):
        return super().loads(data)["wrapped"]


class TextSerializer(HexSerializer):
    returns = str


class ViewSerializer(HexSerializer):
    returns = memoryview


class BytearraySerializer(HexSerializer):
    returns = bytearray


class TestSerializers:
    @pytest.mark.parametrize(
        "serializer", [HexSerializer, SubclassedSerializer, ViewSerializer, BytearraySerializer]
    )
    def test_custom(self, serializer, clock):
        with override_settings(SESSION_SERIALIZER=f"{__name__}.{serializer.__name__}"):
            for payload in [{"a": 1}, PAYLOADS["cart"]]:
                assert_encoded_alike(payload)
                for writer in [DjangoStore(), RustStore()]:
                    assert assert_decoded_alike(writer.encode(payload)).value == payload

    def test_that_returns_no_bytes(self):
        with override_settings(SESSION_SERIALIZER=f"{__name__}.TextSerializer"):
            assert outcome(RustStore().encode, {}).kind is outcome(DjangoStore().encode, {}).kind

    def test_that_cannot_read(self):
        signed = RustStore().encode({"a": 1})
        with override_settings(SESSION_SERIALIZER=f"{__name__}.HexSerializer"):
            assert assert_decoded_alike(signed) == ({}, None, [])

    def test_set_on_the_class(self):
        class Engine(RustStore):
            def __init__(self):
                super().__init__()
                self.serializer = HexSerializer

        assert Engine().decode(Engine().encode({"a": 1})) == {"a": 1}


class TestSigner:
    """The native class: each row of the table of errors, and the arguments that it takes."""

    signer = Signer(SECRET_KEY, "salt")

    def signed(self, value):
        return signing.TimestampSigner(salt="salt").sign(value)

    def assert_raised_alike(self, token, **kwargs):
        expected = outcome(signing.loads, token, salt="salt", **kwargs)
        now = {"now": time.time()} if kwargs else {}
        found = outcome(self.signer.loads, token, **kwargs, **now)
        assert found.kind is expected.kind
        if expected.kind is not zlib.error:  # zlib-rs has its own words for what is wrong
            assert found.error == expected.error
        return found.kind

    def test_errors_are_those_of_django(self, clock):
        untimed = signing.Signer(salt="salt").sign
        good = self.signer.dumps({"a": 1}, int(time.time()))
        rows = [
            ("no separator", signing.BadSignature),
            ("", signing.BadSignature),
            ("\ud800", signing.BadSignature),
            ("\ud800:a", UnicodeEncodeError),
            (good + "x", signing.BadSignature),
            (good[1:], signing.BadSignature),
            (untimed("e30"), ValueError),
            (untimed("e30:"), IndexError),
            (untimed("e30:!"), ValueError),
            (untimed("e30:1-"), ValueError),
            (self.signed("e"), binascii.Error),
            (self.signed("e30AA.b-c/d"), binascii.Error),
            (self.signed("e3"), json.JSONDecodeError),
            (self.signed("e3=A"), binascii.Error),
            (self.signed(".AAAA"), zlib.error),
            (
                self.signed("." + signing.b64_encode(zlib.compress(b"{}" * 99)[:-9]).decode()),
                zlib.error,
            ),
            (self.signed("."), zlib.error),
            (self.signed(signing.b64_encode(b"{").decode()), json.JSONDecodeError),
            (self.signed(signing.b64_encode(b"9" * 5000).decode()), ValueError),
            (self.signed(signing.b64_encode(b"[" * 200_000).decode()), RecursionError),
        ]
        for token, error in rows:
            assert self.assert_raised_alike(token) is error, token

    @pytest.mark.parametrize(
        "max_age", [10, 10.0, 9.75, 0, -1, True, datetime.timedelta(seconds=10), float("nan")]
    )
    @pytest.mark.parametrize("now", [1000, 1009, 1009.75, 1010, 1010.000001, 1011, -5.5])
    def test_age(self, max_age, now, clock):
        clock(1000.9)
        token = signing.dumps({"a": 1}, salt="salt")
        clock(now)
        expected = outcome(signing.loads, token, salt="salt", max_age=max_age)
        found = outcome(self.signer.loads, token, max_age=max_age, now=now)
        assert found == expected
        assert outcome(self.signer.loads_bytes, token, max_age=max_age, now=now)[1] == expected[1]

    def test_age_of_endless_timestamps(self, clock):
        for timestamp in ["z" * 12, "-" + "z" * 12, "z" * 50, "-" + "z" * 50]:
            token = signing.Signer(salt="salt").sign(f"e30:{timestamp}")
            expected = outcome(signing.loads, token, salt="salt", max_age=10)
            assert outcome(self.signer.loads, token, max_age=10, now=time.time()) == expected

    def test_age_comes_before_the_payload_and_after_the_signature(self, clock):
        clock(1000)
        token = self.signed("e")
        clock(2000)
        assert self.assert_raised_alike(token, max_age=10) is signing.SignatureExpired
        assert self.assert_raised_alike(token + "x", max_age=10) is signing.BadSignature
        assert self.assert_raised_alike(token, max_age=1000) is binascii.Error
        untimed = signing.Signer(salt="salt").sign("e:!")
        assert self.assert_raised_alike(untimed, max_age=10) is ValueError

    def test_max_age_needs_a_clock(self):
        token = self.signer.dumps({}, 0)
        with pytest.raises(TypeError, match="max_age needs now"):
            self.signer.loads(token, max_age=10)
        assert self.signer.loads(token, now=10) == {}

    def test_timestamps(self):
        for timestamp in [0, 1, 61, 62, -1, -62, 1_790_000_000, 253_402_207_200]:
            token = self.signer.dumps({}, timestamp)
            assert token.split(":")[1] == signing.b62_encode(timestamp)
            assert signing.loads(token, salt="salt") == {}
        with pytest.raises(ValueError, match="beyond the year 9999"):
            self.signer.dumps({}, 10**12)
        with pytest.raises(OverflowError):
            self.signer.dumps({}, 2**63)
        with pytest.raises(TypeError):
            self.signer.dumps({}, 1.5)

    def test_too_large(self):
        small = Signer(SECRET_KEY, "salt", max_inflated=100)
        assert small.loads(small.dumps("a" * 98, 0)) == "a" * 98
        with pytest.raises(SessionTooLarge, match="inflates to more than 100 bytes"):
            small.loads(small.dumps("a" * 99, 0))
        with pytest.raises(SessionTooLarge):
            small.loads_bytes(small.dumps_bytes(b"a" * 101, 0))
        assert issubclass(SessionTooLarge, ValueError)

    def test_bytes(self):
        for data in [b"", b"\x00\xff", b"a" * 1000, bytearray(b"array")]:
            token = self.signer.dumps_bytes(data, 0)
            assert self.signer.loads_bytes(token) == data
            assert type(self.signer.loads_bytes(token)) is bytes

    def test_fallback_keys(self):
        token = Signer("old", "salt").dumps({"a": 1}, 0)
        for keys in [["old"], ("older", b"old"), [b"\xff", "old"]]:
            assert Signer("new", "salt", keys).loads(token) == {"a": 1}
        with pytest.raises(signing.BadSignature):
            Signer("new", "salt", ["older"]).loads(token)

    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            (("", "salt"), ValueError),
            ((b"", "salt"), ValueError),
            (("key", "salt", [""]), ValueError),
            (("key", "salt", "abc"), TypeError),
            (("key", "salt", [1]), TypeError),
            ((None, "salt"), TypeError),
            (("key", None), TypeError),
            (("\ud800", "salt"), UnicodeEncodeError),
            (("key",), TypeError),
        ],
    )
    def test_refused_arguments(self, arguments, error):
        with pytest.raises(error):
            Signer(*arguments)

    def test_shows_no_key(self):
        assert SECRET_KEY not in repr(self.signer)
        assert not hasattr(self.signer, "__dict__")


class Mixed(CodecMixin):
    """Without a SessionBase: what the mixin itself asks for."""

    key_salt = SALT
    serializer = signing.JSONSerializer


def test_the_mixin_needs_a_salt_and_a_serializer_only():
    assert DjangoStore().decode(Mixed().encode({"a": 1})) == {"a": 1}


def test_a_serializer_that_the_project_has_changed(monkeypatch):
    """In place, as some do who want dates in their sessions."""
    moment = datetime.datetime(2026, 11, 27, 12)
    for store_class in (DjangoStore, RustStore):
        with monkeypatch.context() as patch:
            patch.setattr(
                signing.JSONSerializer,
                "dumps",
                lambda self, obj: json.dumps(obj, default=str).encode("latin-1"),
            )
            encoded = store_class().encode({"at": moment})
            patch.setattr(signing.JSONSerializer, "loads", lambda self, data: {"was": len(data)})
            assert store_class().decode(encoded) == {"was": 29}
        assert store_class().decode(encoded) == {"at": str(moment)}


def test_no_panic_is_printed(capfd):
    for data in [b"[" * 100_000, b"1e" + b"9" * 10_000, b"\xff" * 1000, b""]:
        RustStore().decode(sign(data))
        RustStore().decode(sign(data, compress=True))
    assert capfd.readouterr().err == ""


def test_64_threads():
    """Signers shared by many threads, each of which has its own sessions."""
    start = threading.Barrier(64)
    payloads = [{"thread": n, "text": "é🦀" * n, "cart": PAYLOADS["cart"]} for n in range(64)]

    def work(number):
        signer = Signer(f"key {number % 5}", "salt", ["old"])
        store = RustStore()
        start.wait()
        for round_ in range(40):
            payload = {**payloads[number], "round": round_}
            assert store.decode(store.encode(payload)) == payload
            assert signer.loads(signer.dumps(payload, 0)) == payload
            assert store.decode(store.encode(payload)[:-1]) == {}
        return DjangoStore().decode(store.encode(payloads[number]))

    with ThreadPoolExecutor(64) as pool:
        assert list(pool.map(work, range(64))) == payloads


def test_a_dict_that_other_threads_change():
    """What another thread changes meanwhile is in the result or is not, and nothing breaks."""
    shared = {str(n): n for n in range(200)}
    stop = threading.Event()

    def change(number):
        while not stop.is_set():
            shared[f"new {number}"] = [number]
            shared.pop(f"new {number}", None)

    with ThreadPoolExecutor(4) as pool:
        for number in range(4):
            pool.submit(change, number)
        try:
            for _ in range(50):
                decoded = json.loads(json_dumps(shared))
                assert {key: decoded[key] for key in map(str, range(200))} == {
                    str(n): n for n in range(200)
                }
        finally:
            stop.set()
