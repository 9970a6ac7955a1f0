"""Mutated tokens, and payloads that were mutated before they were signed: as Django has it."""

import pytest
from conftest import SECRET_KEY
from differential import DjangoCookieStore, DjangoStore, RustCookieStore, RustStore, outcome, same
from django.core import signing
from django_rust_sessions._native import Signer
from hypothesis import given
from hypothesis import strategies as st
from strategies import SESSIONS, b64, bad_base64, bad_deflate, bad_json, deflated, mutated

SALT = "django.contrib.sessions.SessionStore"
COOKIE_SALT = "django.contrib.sessions.backends.signed_cookies"

tokens = st.sampled_from(SESSIONS).map(lambda session: DjangoStore().encode(session).encode())
token_bytes = st.sampled_from(b"AZaz09-_:.= \xe9") | st.integers(0, 127)
spoiled_tokens = mutated(tokens, token_bytes).map(lambda data: data.decode("latin-1"))
values = (
    bad_json.map(b64)
    | bad_base64
    | bad_base64.map(lambda text: "." + text)
    | bad_deflate.map(lambda data: "." + b64(data))
    | deflated.map(lambda data: "." + b64(data))
)


def assert_decoded_alike(token):
    expected, found = outcome(DjangoStore().decode, token), outcome(RustStore().decode, token)
    assert same(found.value, expected.value)
    assert found[1:] == expected[1:]
    # decode() hides which exception it was.
    expected = outcome(signing.loads, token, salt=SALT)
    found = outcome(Signer(SECRET_KEY, SALT).loads, token)
    assert same(found.value, expected.value)
    assert found.kind is expected.kind


def sign(value, salt=SALT):
    return signing.TimestampSigner(salt=salt).sign(value)


@given(spoiled_tokens)
def test_mutated_tokens(token):
    assert_decoded_alike(token)


@given(tokens, tokens, st.data())
def test_spliced_tokens(one, other, data):
    """The parts of two good tokens, put together anew."""
    parts = one.decode().split(":") + other.decode().split(":")
    chosen = data.draw(st.lists(st.sampled_from(parts), min_size=1, max_size=5))
    assert_decoded_alike(":".join(chosen))


@given(bad_json)
def test_signed_bad_json(payload):
    assert_decoded_alike(sign(b64(payload)))


@given(bad_base64, st.booleans())
def test_signed_bad_base64(text, compressed):
    assert_decoded_alike(sign("." * compressed + text))


@given(bad_deflate)
def test_signed_bad_deflate(data):
    assert_decoded_alike(sign("." + b64(data)))


@given(st.text(max_size=20), st.text("0Zz-!é: ", max_size=12))
def test_signed_bad_values_and_timestamps(value, timestamp):
    assert_decoded_alike(signing.Signer(salt=SALT).sign(f"{value}:{timestamp}"))
    assert_decoded_alike(signing.Signer(salt=SALT).sign(f"e30:{timestamp}"))


@given(st.text(st.characters(exclude_categories=()), max_size=60))
def test_text(text):
    assert_decoded_alike(text)


@given(spoiled_tokens | values.map(lambda value: sign(value, COOKIE_SALT)))
def test_cookies(token):
    expected, found = DjangoCookieStore(token), RustCookieStore(token)
    expected_load, found_load = outcome(expected.load), outcome(found.load)
    assert same(found_load.value, expected_load.value)
    assert found_load[1:] == expected_load[1:]
    assert found.modified == expected.modified
    assert found.session_key == expected.session_key


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_every_short_base64(size):
    """All texts of a few characters of each kind, against CPython's tolerant reader."""
    from itertools import product

    for characters in product("Ag_=/!", repeat=size):
        assert_decoded_alike(sign("".join(characters)))
