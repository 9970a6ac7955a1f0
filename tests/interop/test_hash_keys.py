"""HASH_KEYS on both sides: our Python engines and the Rust crate share sessions whose keys no store
sees, while sessions move under their new names and back."""

import ast
import sys

import children
import pytest
import servers
from children import HERE, Child
from configurations import CONFIGURATIONS

NAMES = ["db, SQLite", "cache, Redis", "cached_db, Redis", "file, a folder"]


@pytest.fixture(scope="module")
def where():
    started = servers.Started("redis")
    yield started.servers
    started.stop()


@pytest.fixture(params=NAMES)
def site(request, where, tmp_path):
    """Starts both programs over one store, each with that option."""
    (configuration,) = (each for each in CONFIGURATIONS if each.name == request.param)
    settings = configuration.settings(where, tmp_path)
    settings["SESSION_ENGINE"] = f"django_rust_sessions.backends.{configuration.engine}"
    driver, opened = children.build_driver(), []

    def start(**options):
        settings["RUST_SESSIONS"] = options
        django = Child("Django", sys.executable, HERE / "django_child.py", first=settings)
        opened.append(django)
        django.ask("prepare")
        exported = tmp_path / "sessions.json"
        django.ask("export", path=str(exported))
        opened.append(Child("Rust", driver, exported))
        return opened[-2:]

    yield start
    for child in opened:
        child.close()


def values(who, key):
    if who.who == "Django":
        return {ast.literal_eval(name) for name, *_ in who.ask("read", key=key)["values"]}
    return {value["key"] for value in who.ask("load", key=key)["values"]}


def create(who):
    if who.who == "Django":
        return who.ask("write", text='{"made": 1}')["key"]
    return who.ask("create", json='{"made": 1, "counter": 1}')["key"]


def change(who, key, name):
    value = {"value": 1} if who.who == "Django" else {"json": "1"}
    assert who.ask("change", key=key, name=name, **value)["key"] == key


def test_both_find_what_the_other_stored_and_nobody_is_logged_out(site):
    plain, hashed, back = site(), site(HASH_KEYS="sha256"), site(HASH_KEYS="plain")
    for one, other in ((0, 1), (1, 0)):
        key = create(plain[one])
        # Moved by one, then found by the other, which moves it back.
        change(hashed[one], key, "second")
        assert values(hashed[other], key) == {"made", "counter", "second"}
        assert not values(plain[one], key)
        change(hashed[other], key, "third")
        change(back[other], key, "fourth")
        for who in (back[one], plain[one], plain[other], hashed[one]):
            assert values(who, key) == {"made", "counter", "second", "third", "fourth"}
        # What one has deleted, the other cannot save any more.
        change(hashed[one], key, "fifth")
        hashed[other].ask("hold", key=key)
        hashed[one].ask("delete", key=key)
        assert hashed[other].ask("save_held", key=key)["saved"] is False
        for who in (*hashed, *back, *plain):
            assert not values(who, key)
