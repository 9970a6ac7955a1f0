"""FALLBACK_ENGINE on both sides: our Python engines and the Rust crate move sessions out of one
store into another, side by side, and a logout in either is one in both stores."""

import sys

import children
import pytest
import servers
from children import HERE, Child
from configurations import CONFIGURATIONS
from test_hash_keys import change, create, values

PAIRS = [
    ("db, SQLite", "cache, Redis"),
    ("cache, Redis", "file, a folder"),
    ("file, a folder", "cached_db, Redis"),
]


@pytest.fixture(scope="module")
def where():
    started = servers.Started("redis")
    yield started.servers
    started.stop()


@pytest.fixture(params=PAIRS, ids=" to ".join)
def site(request, where, tmp_path):
    """Starts both programs before the move, and in the midst of it."""
    old, new = (each for name in request.param for each in CONFIGURATIONS if each.name == name)
    settings = old.settings(where, tmp_path) | new.settings(where, tmp_path)
    settings["CACHES"] = (old if old.cache else new).settings(where, tmp_path)["CACHES"]
    driver, opened = children.build_driver(), []

    def start(engine, **options):
        settings["SESSION_ENGINE"] = f"django_rust_sessions.backends.{engine}"
        settings["RUST_SESSIONS"] = options
        django = Child("Django", sys.executable, HERE / "django_child.py", first=settings)
        opened.append(django)
        django.ask("prepare")
        exported = tmp_path / "sessions.json"
        django.ask("export", path=str(exported))
        opened.append(Child("Rust", driver, exported))
        return opened[-2:]

    yield start, old.engine, new.engine
    for child in opened:
        child.close()


@pytest.mark.parametrize("hashed", [{}, {"HASH_KEYS": "sha256"}], ids=["", "hashed"])
def test_both_move_sessions_and_a_logout_holds(site, hashed):
    start, old, new = site
    fallback = f"django_rust_sessions.backends.{old}"
    before = start(old, **hashed)
    during = start(new, FALLBACK_ENGINE=fallback, **hashed)
    after = start(new, **hashed)
    for one, other in ((0, 1), (1, 0)):
        key = create(before[one])
        for who in during:
            assert values(who, key) == {"made", "counter"}
        assert not values(after[one], key), "it was only read"
        # Moved by one, then found by the other.
        change(during[one], key, "second")
        change(during[other], key, "third")
        for who in (*during, *after):
            assert values(who, key) == {"made", "counter", "second", "third"}
        assert not values(before[one], key)

        # Ended by one before it has moved: the other, which had read it, does not bring it back.
        key = create(before[one])
        during[other].ask("hold", key=key)
        during[one].ask("delete", key=key)
        assert during[other].ask("save_held", key=key)["saved"] is False
        for who in (*before, *during, *after):
            assert not values(who, key)

        # Ended after it has moved.
        key = create(before[other])
        change(during[other], key, "second")
        during[one].ask("delete", key=key)
        for who in (*before, *during, *after):
            assert not values(who, key)
