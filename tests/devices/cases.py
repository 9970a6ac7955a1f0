"""What devices do, over each engine, on sync and async paths."""

import re
import time
from datetime import timedelta
from importlib import import_module
from io import StringIO

import django
import pytest
from asgiref.sync import async_to_sync
from conftest import ENGINES
from django.conf import settings as site
from django.contrib.auth.models import Permission, User
from django.contrib.sessions.backends.base import UpdateError
from django.core.checks import run_checks
from django.core.management import call_command
from django.db import connection
from django.test import AsyncClient, Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django_rust_sessions.backends.keys import is_stored_name
from django_rust_sessions.devices import api, recording
from django_rust_sessions.devices.admin import MASK, mask
from django_rust_sessions.devices.agents import clean, summarise
from django_rust_sessions.devices.middleware import DevicesMiddleware
from django_rust_sessions.devices.models import MAX_AGENT, Device

pytestmark = pytest.mark.django_db

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
# The views of each mode: Django has no async login before 5.2.
MODES = {"sync": "sync", "async": "async" if django.VERSION >= (5, 2) else "sync"}


class Browser:
    """One client with its cookies, over WSGI's handler or ASGI's."""

    def __init__(self, mode="sync", **options):
        self.mode = mode
        self.client = (Client if mode == "sync" else AsyncClient)(**options)
        self.headers = {"headers": {"user-agent": FIREFOX}}

    def _call(self, method, url, *args):
        call = getattr(self.client, method)
        if self.mode == "sync":
            return call(url, *args, **self.headers)

        async def acall():
            return await call(url, *args, **self.headers)

        return async_to_sync(acall)()

    def get(self, url):
        return self._call("get", url if url.startswith("/") else f"/{MODES[self.mode]}/{url}")

    def post(self, url, data=None):
        return self._call("post", url, data or {})

    def enter(self, name="ada"):
        assert self.get(f"enter/?name={name}").status_code == 200
        return self

    def whoami(self):
        return self.get("whoami/").content.decode()

    @property
    def key(self):
        return self.client.cookies[site.SESSION_COOKIE_NAME].value


class Proxied(DevicesMiddleware):
    def get_ip(self, request):
        return request.headers.get("X-Real-IP")


@pytest.fixture(params=MODES)
def mode(request):
    return request.param


@pytest.fixture
def ada():
    return User.objects.create_user("ada", password="tea")


def in_store(key):
    return bool(import_module(site.SESSION_ENGINE).SessionStore(key).load())


def age(**times):
    Device.objects.update(last_seen=timezone.now() - timedelta(**times))
    recording.memory = recording.Memory()


# ---------------------------------------------------------------------------------------- the rows


def test_a_login_makes_a_row_and_a_logout_removes_it(engine, mode, ada):
    browser = Browser(mode)
    browser.get("/put/?tea=2")
    assert not Device.objects.exists()
    browser.enter()
    [row] = api.user_sessions(ada)
    assert (row.session_key, row.ip, row.summary) == (browser.key, "127.0.0.1", "Firefox on Linux")
    assert row.user_agent == FIREFOX
    key = browser.key
    browser.get("leave/")
    assert not Device.objects.exists()
    assert not in_store(key)


def test_a_new_password_moves_the_row_and_ends_the_others(engine, mode, ada):
    browser, other = Browser(mode).enter(), Browser(mode).enter()
    before = Device.objects.get(session_key=browser.key)
    browser.get("new-password/")
    assert browser.key != before.session_key
    ada.refresh_from_db()
    [after] = api.user_sessions(ada)
    assert (after.pk, after.created) == (before.pk, before.created)
    assert after.session_key == browser.key
    assert other.whoami() == "AnonymousUser"


def test_a_second_login_is_of_the_same_session_and_another_users_is_not(engine, mode, ada):
    browser = Browser(mode).enter()
    [before] = api.user_sessions(ada)
    browser.enter()
    [after] = api.user_sessions(ada)
    assert after.session_key == before.session_key == browser.key  # as Django has it
    User.objects.create_user("eva", password="tea")
    browser.enter("eva")
    assert [row.user.username for row in Device.objects.all()] == ["eva"]


def test_a_row_is_written_once_a_minute(engine, mode, ada):
    browser = Browser(mode).enter()

    def statements():
        with CaptureQueriesContext(
            connection,
        ) as queries:
            assert browser.whoami() == "ada"
        return [q["sql"] for q in queries if "session_device" in q["sql"]]

    def seen():
        return Device.objects.get().last_seen

    assert statements() == []
    first = seen()
    recording.memory = recording.Memory()  # as another process has it
    assert len(statements()) == 2
    assert seen() == first
    age(seconds=61)
    [update] = statements()
    assert update.startswith("UPDATE")
    assert seen() > first
    assert statements() == []


def test_a_session_that_is_not_used_is_not_touched(engine, mode, ada):
    browser = Browser(mode).enter()
    age(seconds=61)
    with CaptureQueriesContext(connection) as queries:
        browser.get("unused/")
    assert len(queries) == 0
    with CaptureQueriesContext(connection) as queries:
        Browser(mode).get("whoami/")
    assert [q for q in queries if "session_device" in q["sql"]] == []


def test_what_the_docs_say_that_it_costs(ada):
    browser = Browser()
    browser.get("/put/?tea=2")

    def verbs(url):
        with CaptureQueriesContext(connection) as queries:
            browser.get(url)
        return [q["sql"].split()[0] for q in queries if "session_device" in q["sql"]]

    assert verbs("enter/?name=ada") == ["DELETE", "UPDATE", "SELECT", "INSERT"]
    assert verbs("new-password/") == ["UPDATE"]
    assert verbs("leave/") == ["DELETE"]


def test_another_address(ada, settings):
    settings.MIDDLEWARE = ["cases.Proxied", *settings.MIDDLEWARE[1:]]
    for header, ip in (("203.0.113.7", "203.0.113.7"), ("not one", None)):
        browser = Browser()
        browser.headers["headers"] = {"x-real-ip": header}
        browser.enter()
        assert Device.objects.get(session_key=browser.key).ip == ip


def test_a_session_of_before_the_app_gets_its_row(engine, mode, ada):
    browser = Browser(mode).enter()
    Device.objects.all().delete()
    recording.memory = recording.Memory()
    browser.whoami()
    assert [row.session_key for row in api.user_sessions(ada)] == [browser.key]


def test_a_login_without_the_middleware_and_one_that_fails(engine, ada, settings):
    browser = Browser()
    browser.get("/fail/?name=ada")
    assert not Device.objects.exists()
    settings.MIDDLEWARE = settings.MIDDLEWARE[1:]
    browser = Browser().enter()
    assert [row.session_key for row in api.user_sessions(ada)] == [browser.key]


def test_sessions_in_cookies_have_no_rows(ada, settings):
    settings.SESSION_ENGINE = "django_rust_sessions.backends.signed_cookies"
    assert Browser().enter().whoami() == "ada"
    assert not Device.objects.exists()


def test_a_database_that_fails_costs_the_row_and_shows_no_key(ada, monkeypatch, caplog):
    from django.db import DatabaseError

    def fail(visit):
        raise DatabaseError(f"Key (session_key)=({visit.key}) is wrong")

    monkeypatch.setattr(recording, "_record", fail)
    browser = Browser().enter()
    assert browser.whoami() == "ada"
    # Both requests: what was not written is due again.
    records = [r for r in caplog.records if r.name == "django_rust_sessions"]
    assert ["DatabaseError" in record.getMessage() for record in records] == [True, True]
    assert browser.key not in caplog.text
    monkeypatch.undo()
    assert browser.whoami() == "ada"
    assert Device.objects.get().session_key == browser.key


def test_without_its_table_logins_and_logouts_go_on_in_a_transaction(
    engine, mode, ada, monkeypatch, caplog
):
    # This test is a transaction, as each request is with ATOMIC_REQUESTS.
    monkeypatch.setattr(Device._meta, "db_table", "not_migrated")
    browser = Browser(mode).enter()
    assert browser.whoami() == "ada"
    key = browser.key
    assert browser.get("leave/").status_code == 200
    assert not in_store(key)
    assert browser.whoami() == "AnonymousUser"
    messages = [r.getMessage() for r in caplog.records if r.name == "django_rust_sessions"]
    assert any("was not removed" in message for message in messages)
    monkeypatch.undo()
    browser.enter()
    assert [row.session_key for row in api.user_sessions(ada)] == [browser.key]


@pytest.mark.django_db(transaction=True)
def test_a_logout_without_the_table_under_atomic_requests(ada, monkeypatch):
    # The request's own transaction, and none around it.
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    browser = Browser().enter()
    monkeypatch.setattr(Device._meta, "db_table", "not_migrated")
    assert browser.get("leave/").status_code == 200
    assert browser.whoami() == "AnonymousUser"
    monkeypatch.undo()


@pytest.mark.django_db(transaction=True)
def test_rows_need_no_transaction_of_their_own(ada):
    browser = Browser()
    browser.get("/put/?tea=2")
    with CaptureQueriesContext(connection) as queries:
        browser.get("enter/?name=ada")
    last = [query["sql"].split()[0] for query in queries][-3:]
    assert last == ["UPDATE", "SELECT", "INSERT"]  # Django itself has one around each DELETE


@pytest.mark.parametrize("hashed", [False, True])
def test_no_cookie_takes_a_live_session_off_the_list(engine, mode, ada, settings, hashed):
    settings.RUST_SESSIONS = {"HASH_KEYS": "sha256"} if hashed else {}
    thief = Browser(mode).enter()
    [row] = api.user_sessions(ada)
    User.objects.create_user("eva", password="tea")

    def send(cookie, url):
        other = Browser(mode)
        other.client.cookies[site.SESSION_COOKIE_NAME] = cookie
        other.get(url)

    # The name in the store, which the thief can work out; and MySQL tells no cases apart, where
    # its own session table finds the session by capitals, too, and ends it.
    is_found = "db" in engine and connection.vendor == "mysql"
    cookies = [row.session_key, row.session_key.upper(), thief.key.upper()]
    for cookie in cookies if not is_found else cookies[:1]:
        if cookie == thief.key:
            continue  # a login with the key itself does end it
        for url in ("enter/?name=eva", "/put/?tea=2"):
            send(cookie, url)
            assert Device.objects.filter(pk=row.pk, session_key=row.session_key).exists(), cookie
    assert thief.whoami() == "ada"
    assert api.end_all_sessions(ada) == 1
    assert thief.whoami() == "AnonymousUser"


@pytest.mark.parametrize(
    "cookie", ["\0aaaaaaaa", "aaaa\0aaaaaaaa", "\xe9" * 9, "a" * 7, "a%_\\" * 9]
)
def test_a_login_with_an_odd_cookie_gets_its_row(mode, ada, settings, cookie):
    settings.SESSION_ENGINE = "django_rust_sessions.backends.cache"
    browser = Browser(mode)
    browser.client.cookies[site.SESSION_COOKIE_NAME] = cookie
    browser.enter()
    assert [row.session_key for row in api.user_sessions(ada)] == [browser.key]


def test_an_old_row_that_cannot_be_removed_does_not_cost_the_new_one(ada, monkeypatch, caplog):
    browser = Browser()
    browser.get("/put/?tea=2")

    def rows(keys):
        return Device.objects.extra(where=["no_such_column = 1"])

    monkeypatch.setattr(recording, "_rows", rows)
    browser.enter()
    assert [row.session_key for row in api.user_sessions(ada)] == [browser.key]
    [record] = [r for r in caplog.records if r.name == "django_rust_sessions"]
    assert "Error" in record.getMessage()


# --------------------------------------------------------------------------------------- ending it


def test_an_ended_session_is_gone_and_stays_gone(engine, mode, ada):
    browser, other = Browser(mode).enter(), Browser(mode).enter()
    loaded = import_module(engine).SessionStore(browser.key)
    loaded["tea"] = 3
    device = Device.objects.get(session_key=browser.key)
    if mode == "async":
        async_to_sync(api.aend_session)(device)
    else:
        api.end_session(device)
    assert not in_store(browser.key)
    # What was loaded before does not bring it back.
    with pytest.raises(UpdateError):
        loaded.save()
    assert browser.whoami() == "AnonymousUser"
    assert other.whoami() == "ada"
    assert [row.session_key for row in api.user_sessions(ada)] == [other.key]


def test_all_but_one_are_ended(engine, mode, ada):
    eva = User.objects.create_user("eva", password="tea")
    browsers, hers = [Browser(mode).enter() for _ in range(3)], Browser(mode).enter("eva")
    keep = import_module(engine).SessionStore(browsers[0].key)
    end = async_to_sync(api.aend_all_sessions) if mode == "async" else api.end_all_sessions
    assert end(ada, keep=keep) == 2
    assert [b.whoami() for b in browsers] == ["ada", "AnonymousUser", "AnonymousUser"]
    assert hers.whoami() == "eva"
    with pytest.raises(ValueError, match="nothing was ended"):
        end(ada, keep=import_module(engine).SessionStore())
    assert browsers[0].whoami() == "ada"
    assert end(ada) == 1
    assert (len(api.user_sessions(ada)), len(api.user_sessions(eva))) == (0, 1)


def test_sessions_that_are_gone_do_not_show_and_are_cleared(engine, ada):
    gone, expired, alive = (Browser().enter() for _ in range(3))
    store = import_module(engine).SessionStore
    store(gone.key).delete()
    late = store(expired.key)
    late.set_expiry(1 if engine.endswith(".cache") else -60)
    late.save()
    if engine.endswith(".cache"):
        time.sleep(1.1)
    assert [row.session_key for row in api.user_sessions(ada)] == [alive.key]
    assert api.clear_stale() == 0  # seen a moment ago
    age(days=2)
    call_command("clear_devices", stdout=(out := StringIO()))
    assert out.getvalue() == "2 removed\n"
    assert [row.session_key for row in Device.objects.all()] == [alive.key]


# ---------------------------------------------------------------------------------------- the page


def test_the_page(engine, ada):
    browser, other = Browser().enter(), Browser().enter()
    eva = Browser()
    User.objects.create_user("eva", password="tea")
    eva.enter("eva")
    page = browser.get("/devices/").content.decode()
    assert page.index("This device") < page.index("Other devices")
    assert (page.count("Firefox on Linux"), page.count("Sign out</button>")) == (2, 2)
    assert browser.key not in page
    assert other.key not in page
    pk = Device.objects.get(session_key=other.key).pk
    assert eva.post(f"/devices/{pk}/end/").status_code == 404
    assert browser.get(f"/devices/{pk}/end/").status_code == 405
    assert other.whoami() == "ada"
    assert browser.post(f"/devices/{pk}/end/")["Location"] == "/devices/?done=one"
    assert other.whoami() == "AnonymousUser"
    third = Browser().enter()
    assert browser.post("/devices/end-others/").status_code == 302
    assert (third.whoami(), browser.whoami(), eva.whoami()) == ("AnonymousUser", "ada", "eva")
    pk = Device.objects.get(session_key=browser.key).pk
    assert browser.post(f"/devices/{pk}/end/")["Location"] == "/admin/login/"
    assert browser.whoami() == "AnonymousUser"
    assert Browser().get("/devices/").status_code == 302


def test_the_page_shows_this_device_at_once(ada):
    browser = Browser().enter()
    Device.objects.all().delete()
    assert "This device" in browser.get("/devices/").content.decode()


def test_forms_without_a_token_are_refused(ada):
    browser = Browser(enforce_csrf_checks=True).enter()
    pk = Device.objects.get().pk
    for url in (f"/devices/{pk}/end/", "/devices/end-others/"):
        assert browser.post(url).status_code == 403
    assert browser.whoami() == "ada"


# --------------------------------------------------------------------------------------- the admin


def staff(*codenames):
    user = User.objects.create_user("boss", password="tea", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    return Browser().enter("boss")


def test_the_admin_lists_inspects_and_ends(engine, ada):
    browser, other = Browser().enter(), Browser().enter()
    browser.get("/put/?cart=teapot&api_token=hush&pin=7")
    boss = staff("view_device", "delete_device")
    url = "/admin/session_devices/device/"
    assert boss.get(f"{url}?q=ada").content.decode().count(">Firefox on Linux<") == 2
    device = Device.objects.get(session_key=browser.key)
    page = boss.get(f"{url}{device.pk}/change/").content.decode()
    assert "teapot" in page
    assert "End this session" in page
    data = import_module(engine).SessionStore(browser.key).load()
    for secret in ("hush", data["_auth_user_hash"], browser.key):
        assert secret not in page
    assert boss.post(f"{url}{device.pk}/delete/", {"post": "yes"}).status_code == 302
    assert browser.whoami() == "AnonymousUser"
    pk = Device.objects.get(session_key=other.key).pk
    boss.post(url, {"action": "delete_selected", "_selected_action": [pk]})
    assert other.whoami() == "AnonymousUser"
    assert boss.whoami() == "boss"


def test_the_admin_asks_for_permissions(ada):
    browser, boss = Browser().enter(), staff("view_device")
    device = Device.objects.get(session_key=browser.key)
    url = "/admin/session_devices/device/"
    page = boss.get(f"{url}{device.pk}/change/").content.decode()
    assert "End this session" not in page
    assert boss.post(f"{url}{device.pk}/delete/", {"post": "yes"}).status_code == 403
    boss.post(url, {"action": "delete_selected", "_selected_action": [device.pk]})
    assert boss.get(f"{url}add/").status_code == 403
    assert browser.whoami() == "ada"
    User.objects.get(username="boss").user_permissions.clear()
    assert boss.get(url).status_code == 403


@pytest.mark.parametrize("may", [True, False])
def test_who_may_delete_users_may_do_so_with_their_devices(ada, may):
    browser, boss = Browser().enter(), staff("view_user", *["delete_user"] * may)
    eva = User.objects.create_user("eva", password="tea")
    Browser().enter("eva")
    [device], pks = Device.objects.filter(user=ada), [ada.pk, eva.pk]
    # The devices by themselves are not theirs to end.
    assert boss.get("/admin/").content.decode().count("session_devices") == 0
    url = "/admin/session_devices/device/"
    for permissions, status in ((), 403), (("view_device",), 200):
        found = Permission.objects.filter(codename__in=permissions)
        User.objects.get(username="boss").user_permissions.add(*found)
        assert boss.get(url).status_code == status
        assert boss.post(f"{url}{device.pk}/delete/", {"post": "yes"}).status_code == 403
        boss.post(url, {"action": "delete_selected", "_selected_action": [device.pk]})
        assert browser.whoami() == "ada"
    users = "/admin/auth/user/"
    boss.post(f"{users}{ada.pk}/delete/", {"post": "yes"})
    data = {"action": "delete_selected", "_selected_action": [eva.pk], "post": "yes"}
    boss.post(users, data)
    assert User.objects.filter(pk__in=pks).count() == (0 if may else 2)
    assert Device.objects.filter(user_id__in=pks).count() == (0 if may else 2)
    # Nobody's: what is left in the store logs nobody in.
    assert browser.whoami() == ("AnonymousUser" if may else "ada")


def test_what_is_masked():
    secrets = dict.fromkeys(
        ["_auth_user_hash", "_csrftoken", "password", "Secret", "api_key", "refresh-token"], "hush"
    )
    data = {"a": [secrets, ("b",)], "token": {"deep": "hush"}, "o": object(), "keyboard": "k"}
    shown = mask(data)
    assert "hush" not in str(shown)
    assert shown["a"][0] == dict.fromkeys(secrets, MASK)
    assert (shown["o"], shown["keyboard"], shown["a"][1]) == ("<object>", "k", ["b"])
    deep = nested = {}
    for _ in range(100):
        nested["x"] = nested = {}
    assert str(mask(deep)).endswith("'…'" + "}" * 9)


# ----------------------------------------------------------------------------------- smaller parts


def test_the_memory_is_bounded(monkeypatch):
    memory = recording.Memory(size=2)
    assert [memory.is_due(item) for item in "aab"] == [True, False, True]
    assert memory.is_due("c")
    assert [memory.is_due(item) for item in "cb"] == [False, False]
    assert memory.is_due("a")
    monkeypatch.setattr("time.monotonic", lambda: 1e12)
    assert memory.is_due("a")


@pytest.mark.parametrize(
    ("agent", "summary"),
    [
        (FIREFOX, "Firefox on Linux"),
        ("Mozilla/5.0 (Windows NT 10.0) Chrome/140.0 Safari/537.36 Edg/140.0", "Edge on Windows"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Safari/604.1", "Safari on iPhone"),
        ("Mozilla/5.0 (Linux; Android 15) Chrome/140.0 Mobile Safari/537.36", "Chrome on Android"),
        ("curl/8.5.0", "curl"),
        ("<script>", "Unknown device"),
        ("", "Unknown device"),
    ],
)
def test_what_a_browser_is_called(agent, summary):
    assert summarise(agent) == summary


def test_what_a_browser_says_is_capped_and_plain():
    assert clean("a\x00b\n\u202ec  d", MAX_AGENT) == "a b c d"
    assert len(clean("x" * 10_000_000, MAX_AGENT)) == MAX_AGENT


@pytest.mark.parametrize(
    ("text", "ip"), [("::1", "::1"), ("fe80::1%eth0", "fe80::1"), ("", None), ("unix:", None)]
)
def test_which_address_is_kept(rf, text, ip):
    assert recording.get_ip(rf.get("/", REMOTE_ADDR=text)) == ip


def test_the_migration_is_complete():
    call_command("makemigrations", "session_devices", check=True, dry_run=True, verbosity=0)


def ids():
    return [m.id for m in run_checks() if re.match("session_devices", m.id)]


def test_the_checks(settings):
    ours, sessions, *rest = settings.MIDDLEWARE
    assert ids() == []
    settings.MIDDLEWARE = [sessions, *rest]
    assert ids() == ["session_devices.W001"]
    settings.MIDDLEWARE = [sessions, *rest, ours]
    assert ids() == ["session_devices.E001"]
    settings.MIDDLEWARE = [ours, sessions, *rest]
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    assert ids() == ["session_devices.W002"]


# -------------------------------------------------------------------------------------- hashed keys


@pytest.mark.parametrize("engine", [each for each in ENGINES if "rust" in each], indirect=True)
def test_with_hash_keys_the_table_has_the_names_in_the_store(engine, mode, ada, settings):
    before = Browser(mode).enter()
    key = before.key
    assert Device.objects.get().session_key == key
    settings.RUST_SESSIONS = {"HASH_KEYS": "sha256"}
    # It is still under its key, until it is saved: so the row must say, or could not end it.
    age(minutes=2)
    assert before.whoami() == "ada"
    assert Device.objects.get().session_key == key
    before.get("/put/?tea=2")
    assert is_stored_name(Device.objects.get().session_key)
    other = Browser(mode).enter()
    rows = Device.objects.values_list("session_key", flat=True)
    assert len(set(rows)) == 2
    assert all(is_stored_name(name) for name in rows)
    assert {key, other.key}.isdisjoint(rows)
    assert len(api.user_sessions(ada)) == 2
    # With the name in the store as the cookie nobody gets in.
    thief = Browser(mode)
    thief.client.cookies[site.SESSION_COOKIE_NAME] = rows[0]
    assert thief.whoami() == "AnonymousUser"
    # A new password moves the row, a logout removes it, and each can be ended.
    other.get("new-password/")
    ada.refresh_from_db()
    [row] = api.user_sessions(ada)
    assert is_stored_name(row.session_key)
    other.get("leave/")
    assert api.user_sessions(ada) == []
    ada.set_password("tea")
    ada.save()
    third = Browser(mode).enter()
    [row] = api.user_sessions(ada)
    api.end_session(row)
    assert third.whoami() == "AnonymousUser"
    # And the way back.
    fourth = Browser(mode).enter()
    settings.RUST_SESSIONS = {"HASH_KEYS": "plain"}
    fourth.get("/put/?tea=3")
    [row] = api.user_sessions(ada)
    assert row.session_key == fourth.key
    api.end_session(row)
    assert fourth.whoami() == "AnonymousUser"


@pytest.mark.parametrize("engine", [each for each in ENGINES if "rust" in each], indirect=True)
@pytest.mark.parametrize("modes", [("plain", "sha256"), ("sha256", "plain"), (None, "sha256")])
@pytest.mark.parametrize("saves", [False, True])
def test_the_session_to_keep_is_kept_when_hash_keys_was_switched(
    engine, ada, settings, modes, saves
):
    before, after = modes
    settings.RUST_SESSIONS = {"HASH_KEYS": before} if before else {}
    browser, other = Browser().enter(), Browser().enter()
    settings.RUST_SESSIONS = {"HASH_KEYS": after}
    keep = import_module(engine).SessionStore(browser.key)
    keep["tea"] = 2
    if saves:
        keep.save()  # from here on it has another name than its row
    assert api.end_all_sessions(ada, keep=keep) == 1
    assert (browser.whoami(), other.whoami()) == ("ada", "AnonymousUser")
    # One that nobody has looked at has no other name than today's.
    keep = import_module(engine).SessionStore(browser.key)
    assert api.end_all_sessions(ada, keep=keep) == 0
    assert browser.whoami() == "ada"


def is_one_store(new, old):
    names = {each.rpartition(".")[2] for each in (new, old)}
    return len(names) == 1 or names == {"db", "cached_db"}


# From where, to where, and whether it was hashed there.
MOVES = [
    (new, old, was_hashed)
    for new in ENGINES
    for old in ENGINES
    for was_hashed in (False, True)
    if "rust" in new and not is_one_store(new, old) and ("rust" in old or not was_hashed)
]


@pytest.mark.parametrize(("engine", "old", "was_hashed"), MOVES, indirect=["engine"])
def test_what_is_in_the_fallback_engine_only_is_listed_and_ended(
    engine, mode, ada, settings, old, was_hashed
):
    hashed = {"HASH_KEYS": "sha256"}
    settings.RUST_SESSIONS = hashed if was_hashed else {}
    settings.SESSION_ENGINE = old
    cookies = [Browser(mode).enter().client.cookies for _ in range(3)]
    Device.objects.all().delete()
    settings.SESSION_ENGINE = engine
    settings.RUST_SESSIONS = {**hashed, "FALLBACK_ENGINE": old}
    recording.memory = recording.Memory()
    browsers = here, other, _ = [Browser(mode) for _ in cookies]
    for browser, kept in zip(browsers, cookies, strict=True):
        browser.client.cookies = kept
    assert [browser.whoami() for browser in browsers] == ["ada"] * 3
    store = import_module(engine).SessionStore
    hashes, keys = zip(*(store().stored_names(browser.key) for browser in browsers), strict=True)
    names = hashes if was_hashed else keys
    rows = {row.session_key: row for row in api.user_sessions(ada)}
    assert rows.keys() == set(names)
    api.end_session(rows[names[1]])
    assert other.whoami() == "AnonymousUser"
    # When it moves its row moves with it.
    here.get("/put/?tea=2")
    rows = {row.session_key for row in api.user_sessions(ada)}
    assert rows == {hashes[0], names[2]}
    keep = store(here.key)
    keep.load()
    assert api.end_all_sessions(ada, keep=keep) == 1
    assert [browser.whoami() for browser in browsers] == ["ada", *["AnonymousUser"] * 2]
    assert api.end_all_sessions(ada) == 1
    assert here.whoami() == "AnonymousUser"
