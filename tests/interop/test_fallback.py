"""FALLBACK_ENGINE on both sides: while sessions move to another store, Django and Rust find what
is in either, and a logout by one holds for the other."""

import random

import children
import pytest
import servers
from children import Child, change, names_in
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
        opened.append(children.newest_django({**settings, **more}))
        opened[-1].ask("prepare")
    exported = tmp_path / "sessions.toml"
    opened[-1].ask("export", path=str(exported))
    opened.append(Child("Rust", children.build_driver(), exported))
    yield opened
    for child in opened:
        child.close()


def test_nobody_is_logged_out_and_a_logout_holds(sites):
    old, *both = sites
    for one, other in (both, both[::-1]):
        key = old.ask("write", text='{"made": 1}')["key"]
        assert names_in(one, key) == names_in(other, key) == {"made", "counter"}
        assert names_in(old, key), "who only reads moves nothing"
        change(one, key, "moved")
        assert not names_in(old, key)
        change(other, key, "again")
        assert names_in(one, key) == names_in(other, key) == {"made", "counter", "moved", "again"}

        # Held by one, logged out by the other: before it has moved, and after.
        moved, not_moved = key, old.ask("write", text='{"made": 1}')["key"]
        for key in (moved, not_moved):
            one.ask("hold", key=key)
            other.ask("delete", key=key)
            assert one.ask("save_held", key=key)["saved"] is False
            assert not any(names_in(who, key) for who in sites)
        assert not one.ask("exists", key=moved)["exists"]
