"""The option LEGACY: sessions of Django 1.x to 3.0, and those that 3.1 signed with sha1."""

import base64
import json
import zlib

import pytest
from asgiref.sync import sync_to_async
from differential import (
    DjangoCookieStore,
    DjangoStore,
    RustCookieStore,
    RustStore,
    captured_logs,
    outcome,
)
from django.contrib.auth import SESSION_KEY, get_user
from django.contrib.auth.models import User
from django.core import signing
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from django.test import override_settings
from django.utils.crypto import salted_hmac
from django_rust_sessions._native import LegacyCodec, Signer
from vectors.reader import load, unique, vectors

SALT = "django.contrib.sessions.SessionStore"
COOKIE_SALT = "django.contrib.sessions.backends.signed_cookies"
CORRUPTED = [("django.security.SuspiciousSession", "WARNING", "Session data corrupted")]
OLD_RELEASES = ["django-1.11", "django-2.2", "django-3.0", "django-3.1-sha1"]
READ_BY_SOME = ("/signed_form/legacy", "/non_ascii_inside/legacy")
ON = {"LEGACY": True}


@pytest.fixture
def legacy(settings):
    settings.RUST_SESSIONS = ON


def text(value):
    return json.dumps(value, separators=(",", ":"))


def surroundings(vector, **more):
    keys = {"SECRET_KEY": vector.secret_key, "SECRET_KEY_FALLBACKS": vector.fallback_keys}
    return override_settings(**keys, **more)


def reading(vector):
    """Ours, reading a vector; None for what no engine reads."""
    if vector.kind in ("db", "legacy") and "class_name" not in vector.fields:
        return lambda: RustStore().decode(vector.token)
    return RustCookieStore(vector.token).load if vector.kind == "cookie" else None


# ----------------------------------------------------------------------------- what releases wrote


@pytest.mark.parametrize("rotated", [False, True], ids=["", "rotated"])
@pytest.mark.parametrize("name", OLD_RELEASES)
def test_sessions_of_old_releases(name, rotated, clock, legacy):
    kinds = set()
    for vector in vectors(name, "valid"):
        if not (call := reading(vector)):
            continue
        clock(vector.now)
        if rotated:
            fallbacks = ("older", vector.secret_key, *vector.fallback_keys)
            vector = vector._replace(secret_key="new", fallback_keys=fallbacks)
        with surroundings(vector), captured_logs() as logs:
            found = call()
            assert text(found) == vector.value, vector.id
            assert logs == []
            written = RustStore().encode(found)
            assert text(DjangoStore().decode(written)) == vector.value
        kinds.add(vector.kind)
    assert kinds == {"legacy", "cookie"}


def test_off_is_django_of_today(clock):
    for name in OLD_RELEASES:
        for vector in vectors(name, "valid"):
            if not (call := reading(vector)):
                continue
            clock(vector.now)
            with surroundings(vector):
                found = outcome(call)
                assert found == ({}, None, [] if vector.kind == "cookie" else CORRUPTED)


def test_nothing_changes_for_todays(clock, legacy):
    """Value, exception and log record of every vector that sha1 has no part in."""
    read = 0
    for section in ("valid", "invalid"):
        for vector in unique(section):
            call = reading(vector)
            # Signed with sha1, whatever its file's other signatures.
            is_sha1 = vector.algorithm != "sha256" or vector.group == "wrong_algorithm"
            is_sha1 = is_sha1 or vector.kind == "legacy"
            if call and not is_sha1 and not vector.fields.get("ours"):
                clock(vector.now)
                with surroundings(vector):
                    django = (
                        DjangoCookieStore(vector.token).load
                        if vector.kind == "cookie"
                        else lambda vector=vector: DjangoStore().decode(vector.token)
                    )
                    expected, found = outcome(django), outcome(call)
                    assert text(found.value) == text(expected.value), vector.id
                    assert found[1:] == expected[1:], vector.id
                    read += 1
    assert read > 1000


def test_what_old_releases_refused(clock, legacy):
    """Never a session out of it, and at most the one record of Django."""
    read = 0
    for name in OLD_RELEASES:
        for vector in vectors(name, "invalid"):
            call = reading(vector)
            if not call or vector.fields.get("ours"):
                continue
            clock(vector.now)
            said = vector.fields.get("decode") or vector.fields.get("load")
            with surroundings(vector):
                found = outcome(call)
            assert found.error is None
            assert found.logs in ([], CORRUPTED)
            # The releases differ: 3.1 looked for both formats, 1.11 skipped what is not ASCII.
            expected = {"a": 1} if vector.id.endswith(READ_BY_SOME) else {}
            if said.get("value") == "{}" or said.get("error"):
                assert found.value == expected, vector.id
            read += 1
    assert read > 500


def test_the_cap_holds(clock, legacy):
    stream = zlib.compress(b'{"a":1}' + b" " * (16 * 2**20))
    value = "." + signing.b64_encode(stream).decode()
    for salt in (SALT, COOKIE_SALT):
        token = signing.TimestampSigner(salt=salt, algorithm="sha1").sign(value)
        call = RustCookieStore(token).load if salt is COOKIE_SALT else None
        found = outcome(call) if call else outcome(RustStore().decode, token)
        assert found.value == {}
        assert [log[2] for log in found.logs] == [
            "Session data ignored: the signed payload inflates to more than 16777216 bytes"
        ]


# ------------------------------------------------------------------------------------ single rules


def old_token(payload=b'{"a":1}', class_name="SessionStore", key="not a secret: tests only"):
    salt = f"django.contrib.sessions{class_name}"
    mac = salted_hmac(salt, payload, secret=key, algorithm="sha1").hexdigest()
    return base64.b64encode(mac.encode() + b":" + payload).decode()


def test_the_name_of_the_class_counts(legacy):
    class Engine(RustStore):
        pass

    assert RustStore().decode(old_token()) == {"a": 1}
    assert Engine().decode(old_token(class_name="Engine")) == {"a": 1}
    assert outcome(Engine().decode, old_token()) == ({}, None, CORRUPTED)


def test_every_spoilt_character_is_one_warning(legacy):
    token = old_token()
    for at in range(len(token)):
        spoilt = token[:at] + chr(ord(token[at]) ^ 1) + token[at + 1 :]
        assert outcome(RustStore().decode, spoilt) in (({}, None, CORRUPTED), ({"a": 1}, None, []))
        assert outcome(RustStore().decode, token[:at]) == ({}, None, CORRUPTED)


def test_signed_but_no_json(legacy):
    for payload in (b"", b"{", b"\x80\x04}.", b"\xff"):
        assert outcome(RustStore().decode, old_token(payload)) == ({}, None, [])


@pytest.mark.parametrize("token", [None, 1, [], b"a", "", ":", "a:b:c", "\ud800", "é", "é:é:é"])
def test_no_token_at_all(token, legacy):
    assert outcome(RustStore().decode, token) == outcome(DjangoStore().decode, token)


def test_signed_with_sha1(legacy, clock):
    """As Django 3.1 would have read it from any engine."""
    token = Signer("not a secret: tests only", SALT, algorithm="sha1").dumps({"a": 1}, 1)
    assert RustStore().decode(token) == {"a": 1}
    other = Signer("another", SALT, algorithm="sha1").dumps({"a": 1}, 1)
    assert outcome(RustStore().decode, other) == ({}, None, CORRUPTED)


@pytest.mark.parametrize(("later", "expected"), [(10, {"a": 1}), (11, {})])
def test_old_cookies_expire(later, expected, clock, legacy, settings):
    settings.SESSION_COOKIE_AGE = 10
    signer = Signer("not a secret: tests only", COOKIE_SALT, algorithm="sha1")
    clock(1000 + later)
    store = RustCookieStore(signer.dumps({"a": 1}, 1000))
    assert store.load() == expected
    assert store.modified == (not expected)


def test_own_serializers(legacy):
    with override_settings(SESSION_SERIALIZER="test_codec.HexSerializer"):
        payload = b'{"a": 1}'.hex().encode()
        assert RustStore().decode(old_token(payload)) == {"a": 1}


def test_a_rotated_key_of_each_type(legacy):
    for key in ("older", b"older", "ключ"):
        with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=["x", key]):
            assert RustStore().decode(old_token(key=key)) == {"a": 1}
    assert RustStore().decode(old_token(key="older")) == {}


@pytest.mark.parametrize("value", [1, "yes", None, []])
def test_a_wrong_value(value):
    with override_settings(RUST_SESSIONS={"LEGACY": value}):
        for call in (lambda: RustStore().decode("a:b:c"), RustCookieStore("a:b:c").load):
            with pytest.raises(ImproperlyConfigured, match="'LEGACY'"):
                call()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, "5", True])
def test_wrong_seconds(value):
    from django_rust_sessions.conf import option

    with (
        override_settings(RUST_SESSIONS={"REDIS_TIMEOUT": value}),
        pytest.raises(ImproperlyConfigured, match="REDIS_TIMEOUT"),
    ):
        option("REDIS_TIMEOUT")


@pytest.mark.parametrize("value", [2**64, 2**63])
def test_a_cap_beyond_all_memory(value):
    wrong = override_settings(RUST_SESSIONS={"MAX_INFLATED": value})
    with wrong, pytest.raises(ImproperlyConfigured, match="MAX_INFLATED"):
        RustStore().decode("a:b:c")


@pytest.mark.parametrize("value", [["LEGACY"], "LEGACY", 7])
def test_no_dict(value):
    wrong = override_settings(RUST_SESSIONS=value)
    with wrong, pytest.raises(ImproperlyConfigured, match="must be a dict"):
        RustStore().decode("a:b:c")


def test_the_native_classes():
    codec = LegacyCodec("new", "SessionStore", ["not a secret: tests only"])
    assert codec.loads_bytes(old_token()) == b'{"a":1}'
    for token in ("", "A", "!", "aGVsbG8=", old_token()[:-4], b"bytes", "\ud800", None):
        with pytest.raises(signing.BadSignature):
            codec.loads_bytes(token)
    with pytest.raises(ValueError, match="empty"):
        LegacyCodec("", "SessionStore")
    with pytest.raises(ValueError, match='must be "sha256" or "sha1"'):
        Signer("key", "salt", algorithm="md5")
    assert "secret" not in repr(codec)
    token = Signer("key", "salt", algorithm="sha1").dumps({"a": 1}, 1)
    assert signing.TimestampSigner(key="key", salt="salt", algorithm="sha1").unsign_object(
        token
    ) == {"a": 1}


# -------------------------------------------------------------------------------------- logged in


def login_of(name):
    """The user that the vectors of a release know, and the session of the login."""
    auth = load(name)["header"]["auth"]
    vector = next(v for v in vectors(name, "valid") if v.group == "login" and v.kind == "legacy")
    user = User.objects.create(pk=int(auth["user_id"]), username="ada", password=auth["password"])
    return user, vector


def visitor(vector, store_class=RustStore):
    request = HttpRequest()
    request.session = store_class("a" * 32)
    request.session._session_cache = store_class().decode(vector.token)
    return request


@pytest.mark.django_db
@pytest.mark.parametrize("name", OLD_RELEASES)
def test_nobody_is_logged_out(name, legacy):
    """Django forgot in 4.0 how releases before 3.1 hashed the password into the session."""
    user, vector = login_of(name)
    with surroundings(vector):
        request = visitor(vector)
        assert get_user(request) == user
        # From now on, it is a session as any other.
        with override_settings(RUST_SESSIONS={}):
            saved = RustStore().encode(dict(request.session.items()))
            request.session = DjangoStore("b" * 32)
            request.session._session_cache = DjangoStore().decode(saved)
            assert get_user(request) == user


@pytest.mark.django_db
def test_another_password_logs_out(legacy):
    user, vector = login_of("django-3.0")
    user.set_password("new")
    user.save()
    with surroundings(vector):
        request = visitor(vector)
        assert request.session[SESSION_KEY] == str(user.pk)
        assert not get_user(request).is_authenticated
        assert request.session.is_empty()


@pytest.mark.django_db
def test_login_after_key_rotation(legacy):
    user, vector = login_of("django-2.2")
    old = vector.secret_key
    with surroundings(vector._replace(secret_key="new", fallback_keys=("x", old))):
        assert get_user(visitor(vector)) == user
    with surroundings(vector._replace(secret_key=old)):
        session = dict(visitor(vector).session.items())
    with surroundings(vector._replace(secret_key="new")):
        request = visitor(vector)
        request.session.update(session)
        assert not get_user(request).is_authenticated


@pytest.mark.django_db
def test_old_logins_end_with_the_option():
    """The hook stays in the process, and does nothing."""
    user, vector = login_of("django-3.0")
    with surroundings(vector, RUST_SESSIONS=ON):
        session = dict(visitor(vector).session.items())
        assert len(list(user.get_session_auth_fallback_hash())) == 1
    with surroundings(vector, RUST_SESSIONS={}):
        assert list(user.get_session_auth_fallback_hash()) == []
        request = visitor(vector)
        request.session.update(session)
        assert not get_user(request).is_authenticated


@pytest.mark.skipif(not hasattr(DjangoStore, "aget"), reason="async sessions came with Django 5.1")
@pytest.mark.django_db(transaction=True)
async def test_nobody_is_logged_out_async(legacy):
    from django.contrib.auth import aget_user

    user, vector = await sync_to_async(login_of)("django-1.11")
    with surroundings(vector):
        request = visitor(vector)
        assert await aget_user(request) == user
