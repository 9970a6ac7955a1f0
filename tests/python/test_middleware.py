"""The session middleware against Django's: the same requests through both, sync and async."""

import asyncio
import contextlib
import datetime
import importlib.util
import itertools
import sqlite3
import threading
from importlib import import_module

import databases
import pytest
import switches
from asgiref.sync import ThreadSensitiveContext, async_to_sync, sync_to_async
from differential import captured_logs
from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.middleware import SessionMiddleware as DjangoMiddleware
from django.contrib.sessions.models import Session
from django.contrib.sessions.serializers import JSONSerializer
from django.core.cache import caches
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.db import connections
from django.db.models import signals
from django.http import HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, AsyncRequestFactory, Client
from django.urls import path
from django.utils import timezone
from django_rust_sessions.backends.db import SessionStore as RustStore
from django_rust_sessions.middleware import SessionMiddleware, stays_on_loop

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]

DJANGO, RUST = "django.contrib.sessions", "django_rust_sessions"
NAMES = ["db", "cache", "cached_db", "file", "signed_cookies"]
ENGINES = [f"{package}.backends.{name}" for package in (DJANGO, RUST) for name in NAMES]
OURS = ENGINES[len(NAMES) :]
DATA = {"tea": 2, "text": "é"}

needs_async = pytest.mark.skipif(
    not hasattr(SessionBase, "asave"), reason="Django's sessions are async since 5.1"
)

# ------------------------------------------------------------------------------- what a view may do


def unused(request):
    return HttpResponse()


def read(request):
    return HttpResponse(str(request.session.get("tea")))


def write(request):
    request.session["jam"] = 1
    return HttpResponse()


def pop_all(request):
    for key in list(request.session.keys()):
        request.session.pop(key)
    return HttpResponse()


def clear(request):
    request.session.clear()
    return HttpResponse()


def flush(request):
    request.session.flush()
    return HttpResponse()


def flush_and_write(request):
    request.session.flush()
    return write(request)


def cycle(request):
    request.session.cycle_key()
    return HttpResponse()


def save(request):
    request.session["jam"] = 1
    request.session.save()
    return HttpResponse()


def expires(value):
    def view(request):
        request.session.set_expiry(value() if callable(value) else value)
        return HttpResponse()

    return view


def wrong_expiry(request):
    request.session["_session_expiry"] = "soon"
    return HttpResponse()


def expiry_of_no_type(request):
    request.session["_session_expiry"] = [1]
    return HttpResponse()


def not_serializable(request):
    request.session["jam"] = {1, 2}
    return HttpResponse()


def not_modified(request):
    request.session["jam"] = 1
    request.session.modified = False
    return HttpResponse()


def deleted(request):
    request.session["jam"] = 1
    type(request.session)(request.session.session_key).delete()
    return HttpResponse()


def failed(request):
    request.session["jam"] = 1
    return HttpResponse(status=503)


def failed_unused(request):
    return HttpResponse(status=500)


def raises(request):
    request.session["jam"] = 1
    raise ValueError("the view's own")


def replaced(request):
    request.session = type(request.session)()
    request.session["other"] = 1
    return HttpResponse()


def replaced_by_another_engines(request):
    request.session = import_module(f"{DJANGO}.backends.signed_cookies").SessionStore()
    request.session["other"] = 1
    return HttpResponse()


def replaced_by_ours(request):
    request.session = import_module(f"{RUST}.backends.signed_cookies").SessionStore()
    request.session["other"] = 1
    return HttpResponse()


def removed(request):
    request.session["jam"] = 1
    del request.session
    return HttpResponse()


def none(request):
    request.session = None
    return HttpResponse()


def streamed(request):
    request.session["jam"] = 1
    return StreamingHttpResponse(["a", "b"])


def varies(request):
    request.session["jam"] = 1
    return HttpResponse(headers={"Vary": "Accept-Language, cookie"})


def varies_on_all(request):
    return HttpResponse(str(request.session.get("tea")), headers={"Vary": "*"})


VIEWS = {
    view.__name__: view
    for view in (
        *(unused, read, write, pop_all, clear, flush, flush_and_write, cycle, save, not_modified),
        *(wrong_expiry, expiry_of_no_type, not_serializable, deleted, failed, failed_unused),
        *(raises, replaced, replaced_by_another_engines, replaced_by_ours, removed, none),
        *(streamed, varies, varies_on_all),
    )
}
VIEWS |= {
    "expires_with_the_browser": expires(0),
    "expires_in_100_s": expires(100),
    # Its age is cut to whole seconds.
    "expires_at": expires(lambda: timezone.now() + datetime.timedelta(days=1, milliseconds=900)),
    "expires_as_all": expires(None),
    "expired": expires(-5),
}
urlpatterns = [path(name, view) for name, view in VIEWS.items()]


# ------------------------------------------------------------------------------------ differential


@pytest.fixture
def engine(request, settings, tmp_path, monkeypatch):
    """The module; CACHES["default"] is Redis."""
    name = request.param
    if importlib.util.find_spec(name) is None:
        pytest.fail(f"{name} does not exist")
    settings.SESSION_ENGINE = name
    redis = request.getfixturevalue("redis_server")
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": redis["url"],
        }
    }
    settings.SESSION_FILE_PATH = str(tmp_path)
    module = import_module(name)
    if name.endswith("file"):
        monkeypatch.setattr(module.SessionStore, "_storage_path", str(tmp_path), raising=False)
    return module


def cookie_before(engine, kind):
    if kind == "none":
        return None
    if kind == "stale":
        return "0123456789abcdef0123456789abcdef"
    store = engine.SessionStore()
    store.update(DATA)
    store.save()
    return store.session_key


def request_through(middleware, engine, settings, view, kind, client_class):
    """All that came of it: for the client, for the log, and in the store."""
    settings.MIDDLEWARE = [f"{middleware}.middleware.SessionMiddleware"]
    key = cookie_before(engine, kind)
    client = client_class(raise_request_exception=False)
    if key:
        client.cookies["sessionid"] = key

    async def aget(url):
        return await client.get(url)

    get = client.get if client_class is Client else async_to_sync(aget)
    with captured_logs() as logs:
        response = get(f"/{view}")
    cookie = response.cookies.get("sessionid")
    key_after = cookie.value if cookie else key
    exc = response.exc_info[1] if getattr(response, "exc_info", None) else None
    return {
        "status": response.status_code,
        "vary": response.headers.get("Vary"),
        "cookie": cookie and dict(cookie),
        "cookies": list(response.cookies),
        "same key": key_after == key,
        # Its random keys are random; those of the cookie engine are compared by content.
        "key": key_after and len(key_after),
        "content": key_after and dict(engine.SessionStore(key_after).items()),
        "old content": key and dict(engine.SessionStore(key).items()),
        "logs": logs,
        "error": exc and (type(exc), str(exc), type(exc.__context__), exc.__suppress_context__),
    }


# Django's engines go through the thread, whichever they are; under WSGI all is Django's own code.
COMPARED = [
    *((name, AsyncClient) for name in (*OURS, f"{DJANGO}.backends.db", f"{DJANGO}.backends.cache")),
    (f"{RUST}.backends.db", Client),
]


@pytest.mark.parametrize(("engine", "client_class"), COMPARED, indirect=["engine"])
@pytest.mark.parametrize("view", VIEWS)
def test_same_as_django(engine, view, client_class, settings, clock):
    for kind, always in itertools.product(["none", "session", "stale"], [False, True]):
        settings.SESSION_SAVE_EVERY_REQUEST = always
        expected, found = [
            request_through(middleware, engine, settings, view, kind, client_class)
            for middleware in (DJANGO, RUST)
        ]
        for outcome in (expected, found):
            if view == "expires_at":  # it holds microseconds
                for content in ("content", "old content"):
                    (outcome[content] or {}).pop("_session_expiry", None)
                outcome["key"] = bool(outcome["key"])
        assert found == expected, (kind, always)


COOKIE_SETTINGS = {
    "SESSION_COOKIE_NAME": "sessionid",
    "SESSION_COOKIE_AGE": 77,
    "SESSION_COOKIE_DOMAIN": "example.com",
    "SESSION_COOKIE_PATH": "/shop",
    "SESSION_COOKIE_SECURE": True,
    "SESSION_COOKIE_HTTPONLY": False,
    "SESSION_COOKIE_SAMESITE": "Strict",
    "SESSION_EXPIRE_AT_BROWSER_CLOSE": True,
}


@pytest.mark.parametrize("engine", [f"{RUST}.backends.cache"], indirect=True)
@pytest.mark.parametrize("name", COOKIE_SETTINGS)
def test_cookie_settings(engine, name, settings, clock):
    setattr(settings, name, COOKIE_SETTINGS[name])
    for view, always in itertools.product(["unused", "write", "flush", "failed"], [False, True]):
        settings.SESSION_SAVE_EVERY_REQUEST = always
        expected, found = [
            request_through(middleware, engine, settings, view, "session", AsyncClient)
            for middleware in (DJANGO, RUST)
        ]
        assert found == expected, (view, always)


# ------------------------------------------------------------------------------ without the handler


def request_with(key=None) -> ASGIRequest:
    request = AsyncRequestFactory().get("/")
    if key:
        request.COOKIES["sessionid"] = key
    return request


def middleware_of(package, view, store=None):
    """It as a site has it, or with sessions of this class."""
    middleware = import_module(f"{package}.middleware").SessionMiddleware(view)
    if store is not None:
        middleware.SessionStore = store
    return middleware


def passed(middleware, key=None):
    return async_to_sync(middleware)(request_with(key))


@pytest.fixture
def hops(monkeypatch):
    """Counts what the event loop gives to threads."""
    count = []
    run_in_executor = asyncio.BaseEventLoop.run_in_executor

    def counting(loop, executor, func, *args):
        count.append(func)
        return run_in_executor(loop, executor, func, *args)

    monkeypatch.setattr(asyncio.BaseEventLoop, "run_in_executor", counting)
    return count


async def aunused(request):
    return HttpResponse()


async def awrite(request):
    await request.session.aset("jam", 1)
    return HttpResponse()


async def write_only(request):
    request.session._session_cache = {"jam": 1}
    request.session.modified = True
    return HttpResponse()


@pytest.mark.parametrize("engine", OURS, indirect=True)
def test_no_hop_when_the_session_is_not_used(engine, hops):
    for key in (None, cookie_before(engine, "session")):
        hops.clear()
        passed(middleware_of(RUST, aunused), key)
        assert len(hops) == 0
        passed(middleware_of(DJANGO, aunused), key)
        assert len(hops) == 2


# To load and save a session; to create one. Redis and cookies need no thread.
HOPS = {
    "db": (2, 1),
    "cache": (0, 0),
    # With MERGE, the save in a transaction before has emptied the cache.
    "cached_db": (2 if switches.ON.get("MERGE") else 1, 1),
    "file": (2, 1),
    "signed_cookies": (0, 0),
}


def hops_of(engine):
    return HOPS[engine.__name__.rpartition(".")[2]]


@needs_async
@pytest.mark.parametrize("engine", OURS, indirect=True)
def test_hops_when_the_session_is_used(engine, hops):
    key = cookie_before(engine, "session")
    hops.clear()
    response = passed(middleware_of(RUST, awrite), key)
    assert len(hops) == hops_of(engine)[0]
    key = response.cookies["sessionid"].value
    assert engine.SessionStore(key).load() == {**DATA, "jam": 1}


@needs_async
@pytest.mark.parametrize("engine", OURS, indirect=True)
def test_hops_when_the_session_is_new(engine, hops):
    response = passed(middleware_of(RUST, write_only))
    assert len(hops) == hops_of(engine)[1]
    assert engine.SessionStore(response.cookies["sessionid"].value).load() == {"jam": 1}


@needs_async
@pytest.mark.parametrize("engine", [f"{RUST}.backends.cache"], indirect=True)
def test_no_hop_when_every_request_saves(engine, hops, settings):
    settings.SESSION_SAVE_EVERY_REQUEST = True
    key = cookie_before(engine, "session")
    response = passed(middleware_of(RUST, aunused), key)
    assert response.cookies["sessionid"].value == key
    assert not hops


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
@pytest.mark.parametrize("package", [DJANGO, RUST])
def test_nothing_is_saved_when_the_request_is_cancelled(engine, package):
    async def view(request):
        request.session._session_cache = {"jam": 1}
        request.session.modified = True
        started.set()
        await asyncio.sleep(60)

    async def cancelled():
        request = asyncio.ensure_future(middleware_of(package, view)(request_with(key)))
        await started.wait()
        request.cancel()
        await asyncio.wait([request])
        return request.cancelled()

    started = asyncio.Event()
    key = cookie_before(engine, "session")
    assert async_to_sync(cancelled)()
    assert engine.SessionStore(key).load() == DATA


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
@pytest.mark.parametrize("package", [DJANGO, RUST])
def test_nothing_is_saved_when_the_view_raises(engine, package):
    async def view(request):
        request.session._session_cache = {"jam": 1}
        request.session.modified = True
        raise KeyError("lost")

    key = cookie_before(engine, "session")
    with pytest.raises(KeyError, match="lost"):
        passed(middleware_of(package, view), key)
    assert engine.SessionStore(key).load() == DATA


# ---------------------------------------------------------------- a client that goes away meanwhile

CACHED = [f"{package}.backends.cached_db" for package in (DJANGO, RUST)]


@pytest.fixture
def busy_for(django_db_blocker, tmp_path):
    """The default database is a file; busy_for(seconds) lets nobody write in it so long."""
    where = databases.sqlite_file(tmp_path / "busy")

    @contextlib.asynccontextmanager
    async def busy(seconds):
        lock = sqlite3.connect(where["NAME"], isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        timer = asyncio.get_running_loop().call_later(seconds, lock.execute, "COMMIT")
        yield
        await asyncio.sleep(timer.when() - asyncio.get_running_loop().time() + 0.5)
        lock.close()

    with django_db_blocker.unblock(), databases.database("default", where):
        yield busy


@needs_async
@pytest.mark.parametrize("engine", CACHED, indirect=True)
@pytest.mark.parametrize("view", ["write_and_read", "awrite_and_read"])
def test_the_client_goes_away_during_the_save(engine, view, settings, busy_for):
    """Table and cache have the same, as a thread of Django's does both."""
    package = DJANGO if engine.__name__ == CACHED[0] else RUST
    settings.MIDDLEWARE = [f"{package}.middleware.SessionMiddleware"]
    key = cookie_before(engine, "session")
    messages = [{"type": "http.request"}, {"type": "http.disconnect"}]

    async def receive():
        if len(messages) == 1:
            await asyncio.sleep(0.2)
        return messages.pop(0)

    async def send(message):
        raise AssertionError("the client is gone")

    async def visit():
        headers = [(b"host", b"testserver"), (b"tenant", b"ada")]
        headers.append((b"cookie", f"sessionid={key}".encode()))
        # Not handed to it: it adds an empty cookie, which Django 5.2 joins with ours.
        scope = {**AsyncRequestFactory()._base_scope(path=f"/{view}"), "headers": headers}
        async with busy_for(0.6):
            await ASGIHandler()(scope, receive, send)

    asyncio.run(visit())
    assert engine.SessionStore(key).load() == {**DATA, "tenant": "ada"}
    caches["default"].clear()
    assert engine.SessionStore(key).load() == {**DATA, "tenant": "ada"}


@needs_async
@pytest.mark.parametrize(
    "options",
    [{}, {"HASH_KEYS": "sha256"}, {"FALLBACK_ENGINE": f"{DJANGO}.backends.cache"}],
    ids=["plain", "HASH_KEYS", "FALLBACK_ENGINE"],
)
@pytest.mark.parametrize("method", ["asave", "adelete"])
@pytest.mark.parametrize("engine", CACHED[1:], indirect=True)
def test_what_has_begun_is_finished(engine, method, options, settings, busy_for):
    settings.RUST_SESSIONS = options
    key = cookie_before(engine, "session")

    store = engine.SessionStore(key)
    store["tea"] = 3

    async def story():
        # With a thread of its own, whose connection is to this database.
        async with ThreadSensitiveContext():
            async with busy_for(0.6):
                waiting = asyncio.ensure_future(getattr(store, method)())
                await asyncio.sleep(0.2)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
            await sync_to_async(connections.close_all)()

    asyncio.run(story())
    expected = {**DATA, "tea": 3} if method == "asave" else {}
    assert engine.SessionStore(key).load() == expected
    caches["default"].clear()
    assert engine.SessionStore(key).load() == expected


# ------------------------------------------------------------- what a thread of the project keeps

thread = threading.local()


def tenant():
    return getattr(thread, "tenant", "nobody")


class TenantRouter:
    """By what the thread keeps, as on a site with tenants."""

    def db_for_read(self, model, **hints):
        return "other" if tenant() == "ada" else "default"

    db_for_write = db_for_read


def tenants_key(key, prefix, version):
    return f"{tenant()}/{prefix}/{version}/{key}"


class TenantsSerializer:
    def dumps(self, data):
        return tenant().encode() + JSONSerializer().dumps(data)

    def loads(self, data):
        return JSONSerializer().loads(data.removeprefix(tenant().encode()))


def tenant_middleware(get_response):
    """Sync, so that all that is sync runs in its thread."""

    def middleware(request):
        thread.tenant = request.headers["tenant"]
        try:
            return get_response(request)
        finally:
            del thread.tenant

    return middleware


async def awrite_and_read(request):
    found = await request.session.aget("tenant")
    await request.session.aset("tenant", request.headers["tenant"])
    return HttpResponse(found)


def write_and_read(request):
    found = request.session.get("tenant")
    request.session["tenant"] = request.headers["tenant"]
    return HttpResponse(found)


urlpatterns += [path("write_and_read", write_and_read), path("awrite_and_read", awrite_and_read)]


@needs_async
@pytest.mark.parametrize("view", ["write_and_read", "awrite_and_read"])
@pytest.mark.parametrize("own", ["routers", "routers and receivers", "key function", "serializer"])
@pytest.mark.parametrize("engine", OURS[:3], indirect=True)
def test_what_looks_at_the_thread(engine, view, own, sqlite, settings, tmp_path, request):
    """Each tenant has its sessions, as with Django's engine and middleware."""
    seen = []

    def note(**kwargs):
        seen.append(tenant())

    if own.startswith("routers"):
        settings.DATABASE_ROUTERS = [TenantRouter()]
    if own == "key function":
        settings.CACHES = {"default": {**settings.CACHES["default"], "KEY_FUNCTION": tenants_key}}
    if own == "serializer":
        settings.SESSION_SERIALIZER = f"{__name__}.TenantsSerializer"
    if own.endswith("receivers"):
        signals.pre_init.connect(note, sender=Session)
        request.addfinalizer(lambda: signals.pre_init.disconnect(note, sender=Session))

    async def visits():
        client = AsyncClient()
        answers = []
        for name in ("ada", "ada", "bob", "ada"):
            response = await client.get(f"/{view}", headers={"tenant": name})
            answers.append((response.status_code, response.content))
        return answers

    djangos = engine.__name__.replace(RUST, DJANGO)
    outcomes = []
    for at, middleware in ((djangos, DJANGO), (engine.__name__, DJANGO), (engine.__name__, RUST)):
        seen.clear()
        settings.SESSION_ENGINE = at
        settings.MIDDLEWARE = [
            f"{__name__}.tenant_middleware",
            f"{middleware}.middleware.SessionMiddleware",
        ]
        with databases.database("other", databases.sqlite_file(tmp_path / at)):
            answers = async_to_sync(visits)()
            rows = [Session.objects.using(alias).count() for alias in ("default", "other")]
        Session.objects.all().delete()
        outcomes.append((answers, rows, set(seen)))
    assert outcomes[1] == outcomes[2] == outcomes[0]
    # Django's aload() itself decodes on the event loop.
    assert own == "serializer" or outcomes[0][0][1] == (200, b"ada")


# ------------------------------------------------------------------------------- a project's own


def own_save(calls):
    class Own(RustStore):
        def save(self, must_create=False):
            calls.append("save")
            super().save(must_create)

    return Own


def own_asave(calls):
    class Own(RustStore):
        async def asave(self, must_create=False):
            calls.append("asave")
            await super().asave(must_create)

    return Own


def own_load(calls):
    class Own(RustStore):
        def load(self):
            calls.append("load")
            return super().load()

    return Own


def own_init(calls):
    class Own(RustStore):
        def __init__(self, session_key=None):
            calls.append("__init__")
            super().__init__(session_key)

    return Own


def own_expiry(calls):
    class Own(RustStore):
        def get_expiry_age(self, **kwargs):
            calls.append("get_expiry_age")
            return 7

    return Own


def own_mixin(calls):
    class Mixin:
        def is_empty(self):
            calls.append("is_empty")
            return super().is_empty()

    class Own(Mixin, RustStore):
        pass

    return Own


OWN_STORES = [own_save, own_asave, own_load, own_init, own_expiry, own_mixin]


@pytest.mark.parametrize("own", OWN_STORES)
def test_own_hooks_of_an_engine(own, settings):
    """Those that Django calls, in a thread; no others."""
    settings.SESSION_SAVE_EVERY_REQUEST = True
    outcomes = []
    for package in (DJANGO, RUST):
        calls = []
        store = RustStore()
        store.update(DATA)
        store.save()
        middleware = middleware_of(package, aunused, own(calls))
        cookie = passed(middleware, store.session_key).cookies["sessionid"]
        outcomes.append((calls, cookie["max-age"]))
    assert outcomes[0] == outcomes[1]


class Paired(RustStore):
    saved = 0

    def save(self, must_create=False):
        raise AssertionError("the event loop has asave()")

    async def asave(self, must_create=False):
        Paired.saved += 1
        await super().asave(must_create)


@needs_async
def test_a_pair_of_own_methods_stays_on_the_loop(hops):
    Paired.saved = 0
    assert passed(middleware_of(RUST, write_only, Paired)).cookies["sessionid"].value
    assert Paired.saved == 2  # asave() without a key is acreate(), which saves
    assert len(hops) == 1


@pytest.mark.parametrize("hook", ["process_request", "process_response"])
def test_own_hooks_of_a_middleware(hook):
    """A subclass may rely on the thread that Django calls these in."""
    outcomes = []
    for base in (DjangoMiddleware, SessionMiddleware):
        calls = []

        class Own(base):
            pass

        def own(self, *args, base=base, calls=calls):
            with pytest.raises(RuntimeError, match="no running event loop"):
                asyncio.get_running_loop()
            calls.append(hook)
            return getattr(base, hook)(self, *args)

        setattr(Own, hook, own)
        response = passed(Own(write_only))
        outcomes.append((calls, list(response.cookies), response.headers.get("Vary")))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][0] == [hook]


def test_which_sessions_stay_on_the_loop(settings):
    for name in NAMES:
        assert stays_on_loop(import_module(f"{RUST}.backends.{name}").SessionStore)
        assert not stays_on_loop(import_module(f"{DJANGO}.backends.{name}").SessionStore)
    assert not stays_on_loop(type(None))
    for own in OWN_STORES:
        if own is not own_asave or hasattr(SessionBase, "asave"):
            assert not stays_on_loop(own([]))
    assert stays_on_loop(Paired)

    class Own(RustStore):
        """The documented way to have another model is nothing to wait for."""

        @classmethod
        def get_model_class(cls):
            return super().get_model_class()

        def own_method(self):
            pass

    assert stays_on_loop(Own)


def test_nothing_of_djangos_sync_path_is_replaced():
    own = {name for name in vars(SessionMiddleware) if not name.startswith("__")}
    assert own == set()
    assert SessionMiddleware.__call__ is DjangoMiddleware.__call__
    assert SessionMiddleware.__init__ is DjangoMiddleware.__init__
    assert SessionMiddleware.async_capable
    assert SessionMiddleware.sync_capable
