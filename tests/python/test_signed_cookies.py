"""The cookie engine against Django's: the session itself is the cookie."""

import datetime
import time
import zlib

import pytest
from differential import DjangoCookieStore, RustCookieStore, captured_logs, outcome, same
from django.core import signing
from django.test import Client, override_settings

SALT = "django.contrib.sessions.backends.signed_cookies"
STORES = [DjangoCookieStore, RustCookieStore]
ENGINES = [
    "django.contrib.sessions.backends.signed_cookies",
    "django_rust_sessions.backends.signed_cookies",
]
PAYLOAD = {"text": "é\ud800🦀", "n": [1, 1.0, 2**70, 1e16, None, True], "cart": [{"a": "b"}] * 50}
WEEKS = 1209600


def key_of(store_class, **values):
    store = store_class()
    store.update(values)
    store.save()
    return store.session_key


def loaded(store_class, key):
    """Everything that loading tells."""
    store = store_class(key)
    with captured_logs() as logs:
        data = store.load()
    return data, store.modified, store.session_key, logs


def assert_loaded_alike(key):
    expected, found = loaded(DjangoCookieStore, key), loaded(RustCookieStore, key)
    assert same(found[0], expected[0])
    assert found[1:] == expected[1:]
    return found[0]


def test_both_ways(writer, reader):
    store = reader(key_of(writer, **PAYLOAD))
    assert same(dict(store.items()), PAYLOAD)
    assert not store.modified


def test_identical_when_not_compressed(clock):
    assert key_of(RustCookieStore, a=1) == key_of(DjangoCookieStore, a=1)


def test_salt_does_not_depend_on_the_class(clock):
    class Engine(RustCookieStore):
        pass

    assert key_of(Engine, a=1) == key_of(RustCookieStore, a=1)
    assert signing.loads(key_of(Engine, a=1), salt=SALT) == {"a": 1}


def test_api(clock):
    def life(store):
        yield store.session_key, store.is_empty(), store.exists("anything")
        store["a"] = 1
        yield store.modified, store.save(), store.session_key, store.accessed
        yield store.cycle_key(), store.session_key, dict(store.items())
        yield store.create(), store.modified, store.session_key
        yield store.flush(), store.session_key, dict(store.items())
        store["b"] = 2
        yield store.save(must_create=True), store.session_key
        yield store.delete(), store.session_key, dict(store.items()), store.clear_expired()
        store["c"] = object()
        yield outcome(store.save)

    assert list(life(RustCookieStore())) == list(life(DjangoCookieStore()))


@pytest.mark.skipif(
    not hasattr(DjangoCookieStore, "aget"), reason="Django's sessions are async since 5.1"
)
async def test_async_api(clock):
    async def life(store):
        await store.aset("a", 1)
        await store.asave()
        key = store.session_key
        await store.acycle_key()
        answers = [key, store.session_key, await type(store)(key).aload()]
        answers += [await type(store)(key[:-1]).aload(), await store.aexists(key)]
        await store.aflush()
        return [*answers, store.session_key]

    assert await life(RustCookieStore()) == await life(DjangoCookieStore())


@pytest.mark.parametrize("age", [WEEKS, 10, 10.5, 0, -1, datetime.timedelta(seconds=10), "ten"])
@pytest.mark.parametrize("later", [0, 9, 10, 10.5, 10.75, 11, WEEKS, WEEKS + 0.25, WEEKS + 1, -100])
def test_max_age(age, later, clock):
    clock(1_790_000_000)
    key = key_of(DjangoCookieStore, a=1)
    clock(1_790_000_000 + later)
    with override_settings(SESSION_COOKIE_AGE=age):
        assert_loaded_alike(key)


def test_max_age_is_asked_of_the_store(clock):
    """Django calls get_session_cookie_age(), which an engine may override."""

    class Brief(RustCookieStore):
        def get_session_cookie_age(self):
            return 10

    key = key_of(RustCookieStore, a=1)
    clock(time.time() + 11)
    assert loaded(RustCookieStore, key)[0] == {"a": 1}
    assert loaded(Brief, key)[0] == {}


def test_expiry_of_its_own_does_not_shorten_the_signature(clock):
    """Django's ticket 19201: a known gap, which is kept."""
    store = RustCookieStore()
    store["a"] = 1
    store.set_expiry(1)
    store.save()
    clock(time.time() + 100)
    assert assert_loaded_alike(store.session_key)["a"] == 1


def test_spoilt_cookies():
    key = key_of(DjangoCookieStore, **PAYLOAD)
    for at in range(0, len(key), 3):
        assert assert_loaded_alike(key[:at]) == {}
        assert assert_loaded_alike(key[:at] + "!" + key[at + 1 :]) == {}
    for value in ["x" * 8, "a:b:c:d:e", "\ud800" * 8, "é:é:éééé"]:
        assert assert_loaded_alike(value) == {}
    assert assert_loaded_alike(signing.dumps([1], salt=SALT)) == [1]
    assert assert_loaded_alike(signing.dumps({"a": 1}, salt="other")) == {}


def test_bomb():
    value = "." + signing.b64_encode(zlib.compress(b'{"a":1}' + b" " * (16 * 2**20))).decode()
    data, modified, _, logs = loaded(
        RustCookieStore, signing.TimestampSigner(salt=SALT).sign(value)
    )
    assert (data, modified) == ({}, True)
    assert logs == [
        (
            "django.security.SuspiciousSession",
            "WARNING",
            "Session data ignored: the signed payload inflates to more than 16777216 bytes",
        )
    ]


def test_key_rotation():
    key = key_of(DjangoCookieStore, a=1)
    with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=["not a secret: tests only"]):
        assert assert_loaded_alike(key) == {"a": 1}
        new = key_of(RustCookieStore, a=2)
        assert assert_loaded_alike(new) == {"a": 2}
    assert assert_loaded_alike(new) == {}


def test_custom_serializer(clock):
    with override_settings(SESSION_SERIALIZER="test_codec.HexSerializer"):
        assert key_of(RustCookieStore, a=1) == key_of(DjangoCookieStore, a=1)
        assert assert_loaded_alike(key_of(RustCookieStore, a=1)) == {"a": 1}


@pytest.mark.parametrize("engines", [ENGINES, ENGINES[::-1]], ids=["to rust", "back to django"])
def test_site(engines, settings, client):
    settings.SESSION_ENGINE = engines[0]
    client.get("/store", {"tea": "2"})
    settings.SESSION_ENGINE = engines[1]
    other = Client()
    other.cookies = client.cookies
    assert other.get("/show").json() == {"tea": "2"}
    other.get("/store", {"jam": "1"})
    assert other.get("/show").json() == {"tea": "2", "jam": "1"}
    other.get("/flush")
    assert other.get("/show").json() == {}


def test_responses_are_those_of_django(settings, clock):
    """Cookies, headers and all, request by request."""
    answers = []
    for engine in ENGINES:
        settings.SESSION_ENGINE = engine
        client = Client()
        for url in [
            "/show",
            "/store?a=1",
            "/show",
            "/fail",
            "/cycle",
            "/store?b=2",
            "/flush",
            "/show",
        ]:
            response = client.get(url)
            answers.append((response.content, response.headers, response.cookies.output()))
    half = len(answers) // 2
    for django, rust in zip(answers[:half], answers[half:], strict=True):
        assert rust == django
