"""MERGE: two requests that change different keys of one session both keep what they changed."""

import contextlib
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import databases
import pytest
from asgiref.sync import async_to_sync
from django.contrib.sessions.backends.base import SessionBase, UpdateError
from django.core.cache import caches
from django.db import connection, transaction
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django_rust_sessions import checks

HERE = Path(__file__).parent
CASES = [
    ("db", "sqlite-file"),
    ("db", "postgresql"),
    ("db", "mariadb"),
    ("cache", "redis"),
    ("cached_db", "postgresql"),
    ("file", "folder"),
]
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "default")
PROCESSES, INCREMENTS = {"quick": (4, 40), "default": (6, 100), "full": (16, 10_000)}[PROFILE]
needs_async = pytest.mark.skipif(
    not hasattr(SessionBase, "aget"), reason="Django's sessions are async since 5.1"
)


@pytest.fixture(params=[{}, {"HASH_KEYS": "sha256"}], ids=["plain", "hashed"])
def options(request):
    return {"MERGE": True, **request.param}


@pytest.fixture(params=CASES, ids="-".join)
def site(request, options, tmp_path, django_db_blocker):
    """The settings of a site with that engine over that store, which hold for the test."""
    name, store = request.param
    site = {
        "SESSION_ENGINE": f"django_rust_sessions.backends.{name}",
        "SESSION_FILE_PATH": str(tmp_path),
        "RUST_SESSIONS": options,
    }
    if "cache" in name:
        site["CACHES"] = {
            "default": {
                "BACKEND": "django.core.cache.backends.redis.RedisCache",
                "LOCATION": request.getfixturevalue("redis_server")["url"],
            }
        }
    with contextlib.ExitStack() as stack:
        stack.enter_context(override_settings(**site))
        if "db" in name:
            site["DATABASE"] = databases.settings_of(store, request)
            stack.enter_context(django_db_blocker.unblock())
            stack.enter_context(databases.database("default", site["DATABASE"]))
        # It is asked for once.
        kind = engine(site)
        if "_storage_path" in vars(kind):
            del kind._storage_path
        yield site
        if "_storage_path" in vars(kind):
            del kind._storage_path
        if "CACHES" in site:
            caches["default"].clear()


def engine(site):
    return importlib.import_module(site["SESSION_ENGINE"]).SessionStore


def make(site, **values):
    session = engine(site)()
    session.update(values)
    session.create()
    session.update(values)
    session.save()
    return session.session_key


def test_both_keep_what_they_changed(site):
    key = make(site, cart=["tea"], old=1, both=1)
    one, other = engine(site)(key), engine(site)(key)
    one["mine"], one["both"] = 1, 2
    del one["old"]
    other["cart"].append("jam")  # within a value
    other["both"] = 3
    one.save()
    other.save()
    expected = {"cart": ["tea", "jam"], "both": 3, "mine": 1}
    assert engine(site)(key).load() == expected
    assert dict(other.items()) == expected  # and the request sees it too
    # Once more, from what is known now.
    one["more"] = 1
    one.save()
    other["last"] = 1
    other.save()
    assert engine(site)(key).load() == {**expected, "more": 1, "last": 1}


def test_equal_is_not_the_same(site):
    key = make(site, one=1, nan=float("nan"), kept=float("nan"))
    one, other = engine(site)(key), engine(site)(key)
    one["one"], other["two"] = True, 2
    one.save()
    other.save()
    found = engine(site)(key).load()
    assert found["one"] is True
    assert found["two"] == 2
    assert found["kept"] != found["kept"]


def test_a_logout_wins(site):
    key = make(site, cart=["tea"])
    late, later = engine(site)(key), engine(site)(key)
    late["cart"] = later["cart"] = ["jam"]
    engine(site)(key).delete()
    for session in (late, later):
        with pytest.raises(UpdateError):
            session.save()
    assert not engine(site)().exists(key)


def test_a_login_is_not_mixed_with_what_was_before(site):
    key = make(site, cart=["tea"])
    anonymous, login = engine(site)(key), engine(site)(key)
    anonymous["cart"] = ["jam"]
    login["_auth_user_id"] = "1"
    login.cycle_key()
    login.save()
    with pytest.raises(UpdateError):
        anonymous.save()
    assert engine(site)(login.session_key).load() == {"cart": ["tea"], "_auth_user_id": "1"}
    other = engine(site)(login.session_key)
    other["cart"] = ["cup"]
    login.flush()
    with pytest.raises(UpdateError):
        other.save()


@pytest.mark.parametrize("is_loaded", [True, False])
def test_clear_takes_out_everything(site, is_loaded):
    key = make(site, _auth_user_id="1", cart=["tea"])
    one, other, late = (engine(site)(key) for _ in range(3))
    other["late"], late["cart"] = 1, ["jam"]
    if is_loaded:
        assert one["cart"] == ["tea"]
    one.clear()
    one["new"] = 1
    other.save()
    one.save()
    assert engine(site)(key).load() == {"new": 1}
    late.save()
    assert engine(site)(key).load() == {"new": 1, "cart": ["jam"]}


def test_expiry_is_a_key_like_others(site):
    key = make(site, cart=["tea"])
    one, other = engine(site)(key), engine(site)(key)
    one.set_expiry(3600)
    other["cart"] = ["jam"]
    one.save()
    other.save()
    session = engine(site)(key)
    assert session.load() == {"cart": ["jam"], "_session_expiry": 3600}
    assert engine(site)(key).get_expiry_age() == 3600


@needs_async
def test_the_same_async(site):
    async def live():
        one, other, late = engine(site)(key), engine(site)(key), engine(site)(key)
        await one.aset("mine", 1)
        await other.aset("cart", ["jam"])
        await late.aset("late", 1)
        await one.asave()
        await other.asave()
        assert await engine(site)(key).aload() == {"cart": ["jam"], "mine": 1}
        await other.adelete()
        with pytest.raises(UpdateError):
            await late.asave()

    key = make(site, cart=["tea"])
    async_to_sync(live)()


def test_in_a_transaction_that_began_before(site):
    if "DATABASE" not in site:
        return
    key = make(site, cart=["tea"])
    with transaction.atomic():
        late = engine(site)(key)
        late["mine"] = 1
        # Another process, which has saved meanwhile.
        if connection.vendor != "sqlite":  # where it would wait for us
            run(site, key, "other", 1)
        late.save()
    found = engine(site)(key).load()
    assert found["mine"] == 1
    assert found.get("other") == (None if connection.vendor == "sqlite" else 1)


def test_without_a_conflict_it_costs_nothing(site):
    if not site["SESSION_ENGINE"].endswith(".db"):
        return
    session = engine(site)(make(site, cart=["tea"]))
    session["cart"] = ["jam"]
    with CaptureQueriesContext(connection) as queries:
        session.save()
    if "HASH_KEYS" not in site["RUST_SESSIONS"]:
        assert len(queries) == 1


# ----------------------------------------------------------------------------------- many processes


def start(site, key, name, number):
    worker = [sys.executable, HERE / "merge_worker.py", json.dumps(site), key, name, str(number)]
    return subprocess.Popen(worker, cwd=HERE)


def run(site, *args):
    assert start(site, *args).wait() == 0


@pytest.mark.parametrize("options", [{"MERGE": True}], ids=["plain"], indirect=False)
def test_no_increment_is_lost(site, options, capsys):
    """Each process counts in a key of its own. Beside it, Django's engine does the same."""
    lost, ours = {}, site["SESSION_ENGINE"]
    for name in (ours, ours.replace("django_rust_sessions", "django.contrib.sessions")):
        theirs = {**site, "SESSION_ENGINE": name}
        key = make(theirs, made=1)
        workers = [start(theirs, key, f"count{n}", INCREMENTS) for n in range(PROCESSES)]
        assert [worker.wait() for worker in workers] == [0] * PROCESSES
        found = engine(theirs)(key).load()
        counts = [found.get(f"count{n}", 0) for n in range(PROCESSES)]
        lost[name] = PROCESSES * INCREMENTS - sum(counts)
    with capsys.disabled():
        print(f"\nof {PROCESSES * INCREMENTS} increments lost: {lost}")
    ours, theirs = lost.values()
    assert ours == 0
    assert theirs > 0  # or the test shows nothing


# ---------------------------------------------------------------------------------------- settings


def test_the_check_says_where_it_does_nothing():
    with override_settings(RUST_SESSIONS={"MERGE": True}):
        for name, expected in {"cache": 1, "signed_cookies": 1, "db": 0, "file": 0}.items():
            with override_settings(SESSION_ENGINE=f"django_rust_sessions.backends.{name}"):
                assert len(checks.check_merge()) == expected, name
