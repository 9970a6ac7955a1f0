"""FALLBACK_ENGINE on both sides: while sessions move to another store, Django and Rust find what
is in either, and a logout by one holds for the other."""

import ast
import random
import sys

import children
import pytest
import servers
from children import HERE, Child
from configurations import BACKENDS, COMMON, MARIADB, POSTGRES, SQLITE

OURS = "django_rust_sessions.backends."
DJANGOS = "django.contrib.sessions.backends."


@pytest.fixture(scope="module")
def where():
    started = servers.Started("redis", "postgres", "mariadb")
    yield started.servers
    started.stop()


@pytest.fixture(
    params=[
        ("cache", DJANGOS + "db", SQLITE, {}),
        ("db", OURS + "cache", POSTGRES, {}),
        ("file", DJANGOS + "cached_db", MARIADB, {}),
        ("cached_db", DJANGOS + "file", SQLITE, {"HASH_KEYS": "sha256"}),
        ("cache", OURS + "cache", SQLITE, {"FALLBACK_CACHE_ALIAS": "old"}),
    ],
    ids=lambda param: f"{param[1].replace('django_rust_sessions', 'ours')} to {param[0]}",
)
def sites(request, where, tmp_path):
    """A site with the old engine alone, and then Django and Rust with both."""
    new, old, database, options = request.param
    marks = [f"fallback{random.getrandbits(40):x}" for _ in range(2)]
    redis = {"BACKEND": f"{BACKENDS}.redis.RedisCache", "LOCATION": where["redis"]["url"]}
    settings = {
        **COMMON,
        "DATABASES": {"default": database.settings(where, tmp_path)},
        "CACHES": {
            "default": {**redis, "KEY_PREFIX": marks[0]},
            "old": {**redis, "KEY_PREFIX": marks[1]},
        },
        "SESSION_FILE_PATH": str(tmp_path),
    }
    alias = options.get("FALLBACK_CACHE_ALIAS", "default")
    both = {"SESSION_ENGINE": OURS + new, "RUST_SESSIONS": {"FALLBACK_ENGINE": old, **options}}
    before = {"SESSION_ENGINE": old, "SESSION_CACHE_ALIAS": alias}
    opened = []
    for more in (before, both):
        opened.append(
            Child("Django", sys.executable, HERE / "django_child.py", first={**settings, **more})
        )
        opened[-1].ask("prepare")
    exported = tmp_path / "sessions.toml"
    opened[-1].ask("export", path=str(exported))
    opened.append(Child("Rust", children.build_driver(), exported))
    yield opened
    for child in opened:
        child.close()


def values(who, key):
    if who.who == "Django":
        return {ast.literal_eval(name) for name, *_ in who.ask("read", key=key)["values"]}
    return {value["key"] for value in who.ask("load", key=key)["values"]}


def change(who, key, name):
    value = {"value": 1} if who.who == "Django" else {"json": "1"}
    assert who.ask("change", key=key, name=name, **value)["key"] == key


def test_nobody_is_logged_out_and_a_logout_holds(sites):
    old, *both = sites
    for one, other in (both, both[::-1]):
        key = old.ask("write", text='{"made": 1}')["key"]
        assert values(one, key) == values(other, key) == {"made", "counter"}
        assert values(old, key), "who only reads moves nothing"
        change(one, key, "moved")
        assert not values(old, key)
        change(other, key, "again")
        assert values(one, key) == values(other, key) == {"made", "counter", "moved", "again"}

        # Held by one, logged out by the other: before it has moved, and after.
        moved, not_moved = key, old.ask("write", text='{"made": 1}')["key"]
        for key in (moved, not_moved):
            one.ask("hold", key=key)
            other.ask("delete", key=key)
            assert one.ask("save_held", key=key)["saved"] is False
            assert not any(values(who, key) for who in sites)
        assert not one.ask("exists", key=moved)["exists"]
