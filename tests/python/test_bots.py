"""Lazy defaults: what they change, and what a crawl leaves behind beside Django's setdefault()."""

import copy
import os
import re
import time
import unittest
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.auth.signals import user_logged_in
from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.models import Session
from django.http import HttpResponse
from django.test import AsyncClient, Client
from django.urls import path

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]

DJANGO, RUST = "django.contrib.sessions", "django_rust_sessions"
ENGINES = ["db", "cache", "cached_db", "file", "signed_cookies"]
# Django's own middleware too: the engine alone decides.
MIDDLEWARE = {package: f"{package}.middleware.SessionMiddleware" for package in (DJANGO, RUST)}
FULL = os.environ.get("HYPOTHESIS_PROFILE") == "full"

needs_async = pytest.mark.skipif(
    not hasattr(SessionBase, "asave"), reason="Django's sessions are async since 5.1"
)


@pytest.fixture(params=ENGINES)
def engine(request, settings, tmp_path, monkeypatch):
    settings.SESSION_ENGINE = f"{RUST}.backends.{request.param}"
    settings.MIDDLEWARE = [MIDDLEWARE[RUST]]
    settings.SESSION_FILE_PATH = str(tmp_path)
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": request.getfixturevalue("redis_server")["url"],
        }
    }
    module = import_module(settings.SESSION_ENGINE)
    if request.param == "file":
        monkeypatch.setattr(module.SessionStore, "_storage_path", str(tmp_path), raising=False)
    return module


def stored(engine, key):
    return dict(engine.SessionStore(key).items())


def new(engine, **data):
    store = engine.SessionStore()
    store.update(data)
    store.save()
    return store.session_key


# ------------------------------------------------------------------------------- the session itself


def test_the_value_is_there_at_once_and_no_change(engine):
    session = engine.SessionStore()
    assert session.set_default_lazily("lang", "en") == "en"
    assert (session["lang"], session.get("lang"), "lang" in session) == ("en", "en", True)
    assert (dict(session.items()), session.session_key) == ({"lang": "en"}, None)
    assert (session.accessed, session.modified, session.is_empty()) == (True, False, True)
    assert session.set_default_lazily("lang", "de") == "en"
    assert session.setdefault("lang", "de") == "en"
    assert not session.modified


@needs_async
async def test_the_same_in_async_code(engine):
    session = engine.SessionStore()
    assert await session.aset_default_lazily("lang", "en") == "en"
    assert await session.aset_default_lazily("lang", "de") == "en"
    assert await session.aget("lang") == "en"
    assert (session.modified, session.is_empty()) == (False, True)


def test_what_is_stored_goes_first(engine):
    key = new(engine, lang="de")
    session = engine.SessionStore(key)
    assert session.set_default_lazily("lang", "en") == "de"
    assert session.set_default_lazily("size", 3) == 3
    assert (session.modified, session.is_empty()) == (False, False)
    assert stored(engine, key) == {"lang": "de"}


def test_the_next_save_stores_it(engine):
    session = engine.SessionStore()
    session.set_default_lazily("lang", "en")
    session["tea"] = 1
    assert (session.modified, session.is_empty()) == (True, False)
    session.save()
    assert stored(engine, session.session_key) == {"lang": "en", "tea": 1}


CHANGES = {
    "set": (lambda session: session.__setitem__("lang", "de"), {"lang": "de", "size": [3]}),
    "set to the same": (
        lambda session: session.__setitem__("lang", session["lang"]),
        {"lang": "en", "size": [3]},
    ),
    "update": (lambda session: session.update({"lang": "fr"}), {"lang": "fr", "size": [3]}),
    "pop": (lambda session: session.pop("lang"), {"size": [3]}),
    "del": (lambda session: session.__delitem__("lang"), {"size": [3]}),
    "set_expiry": (
        lambda session: session.set_expiry(77),
        {"lang": "en", "size": [3], "_session_expiry": 77},
    ),
    "in place": (
        lambda session: (session["size"].append(4), setattr(session, "modified", True)),
        {"lang": "en", "size": [3, 4]},
    ),
    "save": (lambda session: session.save(), {"lang": "en", "size": [3]}),
    "cycle_key": (lambda session: session.cycle_key(), {"lang": "en", "size": [3]}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_any_change_of_the_session_behaves_as_ever(engine, name):
    """As in a session where the same stood without being lazy, and was not saved yet."""
    change, expected = CHANGES[name]
    session, ordinary = engine.SessionStore(), engine.SessionStore()
    for key, value in {"lang": "en", "size": [3]}.items():
        session.set_default_lazily(key, copy.copy(value))
        ordinary[key] = copy.copy(value)
    ordinary.modified = False
    change(session)
    change(ordinary)
    assert session.modified == ordinary.modified
    assert session.is_empty() == ordinary.is_empty() == False  # noqa: E712
    assert dict(session.items()) == dict(ordinary.items()) == expected
    session.save()
    assert stored(engine, session.session_key) == expected


def test_in_place_without_saying_so_is_not_seen_as_ever(engine):
    session = engine.SessionStore()
    session.set_default_lazily("seen", []).append(7)
    assert session["seen"] == [7]
    assert session.is_empty()


@pytest.mark.parametrize("end", ["pop", "flush", "clear"])
def test_a_session_that_was_emptied_is_empty(engine, end):
    session = engine.SessionStore()
    session.set_default_lazily("lang", "en")
    session["tea"] = 1
    if end == "pop":
        session.pop("tea")
        session.pop("lang")
    else:
        getattr(session, end)()
    assert session.is_empty()
    session.set_default_lazily("lang", "en")
    session.set_default_lazily("size", 3)
    assert (session.modified, session.is_empty()) == (False, True)
    session["tea"] = 1
    assert (session.modified, session.is_empty()) == (True, False)


# ------------------------------------------------------------------------------ with the middleware


def lazy(request):
    request.session.set_default_lazily("lang", "en")
    return HttpResponse(request.session["lang"])


async def alazy(request):
    await request.session.aset_default_lazily("lang", "en")
    return HttpResponse(await request.session.aget("lang"))


def eager(request):
    request.session.setdefault("lang", "en")
    return HttpResponse(request.session["lang"])


def read(request):
    return HttpResponse(request.session.get("lang", "en"))


def add(request):
    request.session.set_default_lazily("lang", "en")
    request.session["cart"] = [7]
    return HttpResponse()


def logout(request):
    request.session.flush()
    return lazy(request)


VIEWS = [lazy, alazy, eager, read, add, logout]
urlpatterns = [path(view.__name__, view) for view in VIEWS]


def answer(view, key=None, client_class=Client):
    client = client_class()
    if key:
        client.cookies["sessionid"] = key

    async def aget():
        return await client.get(f"/{view.__name__}")

    response = client.get(f"/{view.__name__}") if client_class is Client else async_to_sync(aget)()
    cookie = response.cookies.get("sessionid")
    return SimpleNamespace(
        vary=response.headers.get("Vary"), cookie=cookie, key=cookie and cookie.value
    )


def cases():
    for package in MIDDLEWARE:
        yield pytest.param(MIDDLEWARE[package], lazy, Client, id=f"{package}-sync")
        yield pytest.param(
            *(MIDDLEWARE[package], alazy, AsyncClient), id=f"{package}-async", marks=needs_async
        )


@pytest.mark.parametrize(("middleware", "view", "client_class"), list(cases()))
@pytest.mark.parametrize("always", [False, True])
def test_the_browser_sees_what_it_sees_where_a_session_is_only_read(
    engine, middleware, view, client_class, always, settings
):
    settings.MIDDLEWARE = [middleware]
    settings.SESSION_SAVE_EVERY_REQUEST = always
    session_key = new(engine, tea=1)
    for key in (None, "0123456789abcdef0123456789abcdef", session_key):
        expected, found = (answer(each, key, client_class) for each in (read, view))
        assert found.vary == expected.vary == "Cookie"
        assert (found.cookie is None) == (expected.cookie is None)
        # A stale cookie is taken away (signed_cookies: replaced, as ever).
        assert (found.key == "") == (expected.key == "")
        if key is session_key:
            # One that there is gets it when it is saved anyway.
            content = stored(engine, found.key or key)
            assert content == ({"tea": 1, "lang": "en"} if always else {"tea": 1})


def test_a_change_in_the_same_request_stores_both(engine):
    assert stored(engine, answer(add).key) == {"lang": "en", "cart": [7]}


def test_after_logout_no_session_is_made_for_it(engine):
    key = new(engine, tea=1)
    assert answer(logout, key).key == ""


# ------------------------------------------------------------------------------------------ a crawl


def crawl(package, middleware, view, requests, settings):
    """Each request comes without a cookie, as those of a crawler do. Rows made, and seconds."""
    settings.SESSION_ENGINE = f"{package}.backends.db"
    settings.MIDDLEWARE = [MIDDLEWARE[middleware]]
    Session.objects.all().delete()
    client = Client()
    start = time.perf_counter()
    for _ in range(requests):
        client.cookies.clear()
        assert client.get(f"/{view.__name__}").content == b"en"
    return Session.objects.count(), time.perf_counter() - start


def test_a_crawl(settings, capsys):
    requests = 10_000 if FULL else 500
    lines = [f"A crawl of {requests:,} requests, db engine on SQLite in memory:"]
    for title, *args, expected in [
        ("Django, setdefault()", DJANGO, DJANGO, eager, requests),
        ("ours, setdefault()", RUST, RUST, eager, requests),
        ("ours, set_default_lazily()", RUST, RUST, lazy, 0),
        ("ours under Django's middleware", RUST, DJANGO, lazy, 0),
    ]:
        rows, seconds = crawl(*args, requests, settings)
        lines.append(f"  {title:31} {rows:6,} rows  {seconds / requests * 1e6:4.0f} us a request")
        assert rows == expected
    with capsys.disabled():
        print("", *lines, sep="\n")


# ------------------------------------------------------------------------------------- docs/bots.md

TEXT = (Path(__file__).parents[2] / "docs" / "bots.md").read_text("utf-8")
SNIPPETS = dict(re.findall(r"<!-- test: (.+?) -->\n```python\n(.*?)```", TEXT, re.DOTALL))


def snippet(name):
    found = {}
    exec(SNIPPETS[name], found)
    return found


def test_every_snippet_has_a_test():
    assert list(SNIPPETS) == ["lazily", "find", "short"]
    assert TEXT.count("```python") == len(SNIPPETS)


def test_docs_lazily(engine):
    session = engine.SessionStore()
    snippet("lazily")["view"](SimpleNamespace(session=session))
    assert session["lang"] == "en"
    assert session.is_empty()


@pytest.mark.parametrize(("page", "failures"), [("/lazy", 0), ("/eager", 1)])
def test_docs_find(page, failures, settings):
    settings.SESSION_ENGINE = f"{RUST}.backends.db"
    found = snippet("find")
    found["PAGES"][:] = [page]
    result = unittest.TestResult()
    found["CrawlerTests"]("test_pages_make_no_sessions")(result)
    assert len(result.failures) == failures, result.failures
    assert not result.errors


def test_docs_short(engine):
    found = snippet("short")
    forget = found["forget_short_life"]
    try:
        request = SimpleNamespace(session=engine.SessionStore(), user=AnonymousUser())
        found["add_to_cart"](request, 7)
        request.session.set_expiry(77)
        found["add_to_cart"](request, 8)
        assert request.session["cart"] == [7, 8]
        assert request.session.get_expiry_age() == 77
        user_logged_in.send(None, request=request, user=User.objects.create(username="a"))
        assert request.session.get_expiry_age() == 60 * 60 * 24 * 14
    finally:
        user_logged_in.disconnect(forget)
