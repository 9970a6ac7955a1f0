"""The db engine against Django's, on the same table, sync and async."""

import datetime
import re
from importlib import import_module

import pytest
from asgiref.sync import async_to_sync
from differential import DjangoStore, RustStore, captured_logs, outcome, same
from django.contrib.auth import SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.backends.base import CreateError, UpdateError
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from project.models import CustomDjangoStore, CustomRustStore, CustomSession

pytestmark = pytest.mark.django_db

STORES = [DjangoStore, RustStore]
ENGINES = ["django.contrib.sessions.backends.db", "django_rust_sessions.backends.db"]
PAYLOAD = {"text": "é\ud800🦀", "n": [1, 1.0, 2**70, 1e16, None, True], "cart": [{"a": "b"}] * 50}

needs_async = pytest.mark.skipif(
    not hasattr(DjangoStore, "aget"), reason="Django's sessions are async since 5.1"
)


def saved(store_class, **values):
    store = store_class()
    store.update(values)
    store.save()
    return store


@pytest.mark.not_with("HASH_KEYS=sha256", "Django's engine finds nothing under hashed names")
def test_both_ways(writer, reader):
    key = saved(writer, **PAYLOAD).session_key
    store = reader(key)
    assert same(dict(store.items()), PAYLOAD)
    store["more"] = 1
    store.save()
    assert same(dict(writer(key).items()), {**PAYLOAD, "more": 1})
    assert Session.objects.get(pk=key).get_decoded()["more"] == 1


def test_engine_has_a_class_of_djangos_name():
    for engine in ENGINES:
        assert import_module(engine).SessionStore.__qualname__ == "SessionStore"
    assert issubclass(RustStore, DjangoStore)


# Each story is told to both engines, which must give the same answers; ours with fewer queries.


def create_and_save(store):
    yield store.session_key, store.is_empty(), store.accessed, store.modified
    store["a"] = 1
    yield store.modified, store.session_key, store.get("a"), store.get("b", 2), "a" in store
    yield store.save(), bool(re.fullmatch("[a-z0-9]{32}", store.session_key))
    yield store.exists(store.session_key), Session.objects.count()
    again = type(store)(store.session_key)
    yield again.accessed, dict(again.items()), again.accessed, again.modified
    yield again.setdefault("a", 3), again.setdefault("c", 3), again.modified
    yield again.pop("a"), again.pop("x", None), list(again.keys()), list(again.values())
    again.save()
    yield dict(type(store)(store.session_key).items())


def create(store):
    yield store.create(), store.modified, Session.objects.count()
    yield Session.objects.get().get_decoded()


def delete(store):
    yield store.delete(), store.delete("nobody's"), store.exists("nobody's")
    store["a"] = 1
    store.save()
    other = saved(type(store), b=1)
    yield store.delete(other.session_key), Session.objects.count()
    yield store.delete(), Session.objects.count(), type(store)(store.session_key).load()


def flush_and_cycle(store):
    store["a"] = 1
    store.save()
    old = store.session_key
    yield store.cycle_key(), store.session_key == old, store.exists(old), store["a"]
    yield Session.objects.count(), dict(type(store)(store.session_key).items())
    yield store.flush(), store.session_key, dict(store.items()), Session.objects.count()
    store["b"] = 1
    yield store.clear(), store.modified, store.is_empty()


def nobodys_key(store):
    stranger = type(store)("0123456789abcdef")
    yield dict(stranger.items()), stranger.session_key, stranger.modified
    short = type(store)("short")
    yield short.session_key, dict(short.items())
    stranger["a"] = 1
    yield stranger.save(), stranger.session_key == "0123456789abcdef", Session.objects.count()


def must_create(store):
    store["a"] = 1
    store.save()
    twin = type(store)(store.session_key)
    twin["a"] = 2
    yield outcome(twin.save, must_create=True).kind is CreateError
    yield type(store)(store.session_key)["a"]


def deleted_meanwhile(store):
    store["a"] = 1
    store.save()
    Session.objects.all().delete()
    store["a"] = 2
    yield outcome(store.save).kind is UpdateError, Session.objects.count()


def expiries(store):
    moment = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
    for value in [10, 0, -10, moment, datetime.timedelta(days=1), None]:
        store.set_expiry(value)
        store.save()
        yield store.get("_session_expiry"), store.get_expire_at_browser_close()
        yield store.get_expiry_age(), store.get_expiry_date()
        yield store.get_expiry_age(modification=moment), store.get_expiry_date(expiry=moment)
        yield Session.objects.get(pk=store.session_key).expire_date
        yield dict(type(store)(store.session_key).items())


def expired(store):
    store["a"] = 1
    store.set_expiry(-1)
    store.save()
    kept = saved(type(store), b=1)
    yield dict(type(store)(store.session_key).items()), Session.objects.count()
    yield type(store).clear_expired(), Session.objects.count(), store.exists(kept.session_key)


def test_cookie(store):
    yield store.set_test_cookie(), store.test_cookie_worked(), store.delete_test_cookie()
    yield store.test_cookie_worked(), store.has_key("a") if hasattr(store, "has_key") else None


test_cookie.__test__ = False


def unserializable(store):
    store["a"] = object()
    found = outcome(store.save)
    yield found.error, Session.objects.count()


def corrupted_row(store):
    store["a"] = 1
    store.save()
    for data in ["garbage", "", Session.objects.get().session_data[:-1], "a:b:c"]:
        Session.objects.update(session_data=data)
        yield outcome(dict, type(store)(store.session_key).items())


STORIES = [
    create_and_save,
    create,
    delete,
    flush_and_cycle,
    nobodys_key,
    must_create,
    deleted_meanwhile,
    expiries,
    expired,
    test_cookie,
    unserializable,
    corrupted_row,
]


def told(story, store_class):
    """What the engine answered, and the kinds of the queries that it made."""
    Session.objects.all().delete()
    with (
        CaptureQueriesContext(
            connection,
        ) as queries,
        captured_logs() as logs,
    ):
        answers = list(story(store_class()))
    return answers, [query["sql"].split()[0] for query in queries], logs


@pytest.fixture
def still(monkeypatch):
    """Time stands still, so that moments can be compared."""
    now = timezone.now()
    monkeypatch.setattr(timezone, "now", lambda: now)


def same_story(story):
    """What both engines answered."""
    expected, django_queries, django_logs = told(story, DjangoStore)
    answers, queries, logs = told(story, RustStore)
    assert answers == expected
    assert logs == django_logs
    assert len(queries) <= len(django_queries)
    return answers


@pytest.mark.parametrize("story", STORIES)
@pytest.mark.not_with("HASH_KEYS", "what is not there is looked for under the key too")
def test_story(story, still):
    assert same_story(story)


async def async_life(store):
    await store.aset("a", 1)
    await store.aupdate({"b": 2, "c": [None, "é"]})
    answers = [store.modified, await store.aget("a"), await store.ahas_key("b")]
    await store.asave()
    again = type(store)(store.session_key)
    answers += [dict(await again.aitems()), list(await again.akeys()), list(await again.avalues())]
    answers += [await again.apop("a"), await again.apop("x", None), again.modified]
    answers += [await again.asetdefault("a", 3), await again.aexists(again.session_key)]
    await again.aset_expiry(300)
    answers += [await again.aget_expiry_age(), await again.aget_expire_at_browser_close()]
    await again.asave()
    old = again.session_key
    await again.acycle_key()
    answers += [await again.aexists(old), old == again.session_key, dict(await again.aitems())]
    stranger = type(store)("0123456789abcdef")
    answers += [dict(await stranger.aitems()), stranger.session_key]
    await again.aset_test_cookie()
    answers += [await again.atest_cookie_worked()]
    await again.adelete_test_cookie()
    await again.aflush()
    answers += [again.session_key, await Session.objects.acount()]
    await stranger.acreate()
    answers += [await Session.objects.acount(), stranger.modified]
    await Session.objects.aupdate(session_data="garbage")
    answers += [await type(store)(stranger.session_key).aload()]
    await Session.objects.aupdate(expire_date=timezone.now() - datetime.timedelta(1))
    await type(store).aclear_expired()
    answers += [await Session.objects.acount()]
    try:
        await stranger.asave()
    except UpdateError:
        answers.append(UpdateError)
    return answers


def async_story(store):
    yield from async_to_sync(async_life)(store)


@needs_async
@pytest.mark.not_with("HASH_KEYS", "what is not there is looked for under the key too")
def test_async_story(still):
    assert same_story(async_story)[-1] is UpdateError


@needs_async
@pytest.mark.not_with("HASH_KEYS=sha256", "Django's engine finds nothing under hashed names")
def test_async_both_ways(writer, reader):
    async def write_and_read():
        store = writer()
        await store.aupdate(PAYLOAD)
        await store.asave()
        return dict(await reader(store.session_key).aitems())

    assert same(async_to_sync(write_and_read)(), PAYLOAD)


class TestCustomSession:
    """The example of Django's documentation, over our engine."""

    @pytest.mark.not_with("HASH_KEYS=sha256", "it looks for the key itself in the store")
    def test_both_ways(self):
        pairs = [(CustomDjangoStore, CustomRustStore), (CustomRustStore, CustomDjangoStore)]
        for writing, reading in pairs:
            store = saved(writing, _auth_user_id="42", a="é")
            row = CustomSession.objects.get(pk=store.session_key)
            assert row.account_id == 42
            assert row.get_decoded() == dict(reading(store.session_key).items())
            assert reading(store.session_key)["a"] == "é"

    def test_salt_of_its_own(self):
        assert CustomRustStore().encode({}) != RustStore().encode({})
        with captured_logs() as logs:
            assert RustStore().decode(CustomRustStore().encode({"a": 1})) == {}
        assert [message for *_, message in logs] == ["Session data corrupted"]

    def test_model(self):
        data = CustomSession.objects.encode({"a": 1})
        assert CustomDjangoStore().decode(data) == {"a": 1}

    def test_overridden_codec(self):
        class Plain(RustStore):
            def encode(self, session_dict):
                return repr(session_dict)

            def decode(self, session_data):
                return {"read": session_data}

        store = saved(Plain, a=1)
        assert Session.objects.get().session_data == "{'a': 1}"
        assert Plain(store.session_key)["read"] == "{'a': 1}"


class TestSite:
    """A whole site whose engine changes under its users, as it does at a deployment."""

    @pytest.fixture(params=[ENGINES, ENGINES[::-1]], ids=["to rust", "back to django"])
    def switch(self, request, settings):
        """Starts on one engine; when it is called, the other takes over."""
        settings.SESSION_ENGINE = request.param[0]

        def switch():
            settings.SESSION_ENGINE = request.param[1]

        return switch

    def client_after(self, client):
        """The same browser, before a server that has just started."""
        other = Client()
        other.cookies = client.cookies
        return other

    @pytest.mark.not_with("HASH_KEYS=sha256", "Django's engine finds nothing under hashed names")
    def test_nobody_is_logged_out(self, switch, client):
        user = User.objects.create_user("ada", password="secret")
        assert client.login(username="ada", password="secret")
        client.get("/store", {"tea": "2"})
        key = client.cookies["sessionid"].value
        switch()
        client = self.client_after(client)
        shown = client.get("/show").json()
        assert shown[SESSION_KEY] == str(user.pk)
        assert shown["tea"] == "2"
        client.get("/store", {"jam": "1"})
        assert client.cookies["sessionid"].value == key
        assert client.get("/show").json()["jam"] == "1"
        client.get("/flush")
        assert client.get("/show").json() == {}
        assert not Session.objects.exists()

    @pytest.mark.not_with("HASH_KEYS=sha256", "Django's engine finds nothing under hashed names")
    def test_cycled_key(self, switch, client):
        client.get("/store", {"tea": "2"})
        key = client.cookies["sessionid"].value
        switch()
        client = self.client_after(client)
        client.get("/cycle")
        assert client.cookies["sessionid"].value != key
        assert client.get("/show").json() == {"tea": "2"}
        assert Session.objects.count() == 1

    def test_nothing_is_saved_on_a_server_error(self, switch, client):
        switch()
        client.get("/fail")
        assert not Session.objects.exists()

    @pytest.mark.not_with("HASH_KEYS=sha256", "Django's engine finds nothing under hashed names")
    def test_interrupted(self, switch, client):
        """Logged out in another tab while the request ran."""
        client.get("/store", {"tea": "2"})
        switch()
        client = self.client_after(client)
        client.raise_request_exception = False
        with captured_logs() as logs:
            assert client.get("/interrupted").status_code == 400
        assert "The request's session was deleted before" in logs[0][2]
        assert not Session.objects.exists()
