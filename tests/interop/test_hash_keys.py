"""HASH_KEYS on both sides: our Python engines and the Rust crate share sessions whose keys no store
sees, while sessions move under their new names and back."""

import children
import pytest
import servers
from children import change, names_in

NAMES = ["db, SQLite", "cache, Redis", "cached_db, Redis", "file, a folder"]


@pytest.fixture(scope="module")
def where():
    started = servers.Started("redis")
    yield started.servers
    started.stop()


@pytest.fixture(params=NAMES)
def site(request, where, tmp_path):
    """Starts both programs over one store, each with that option."""
    with children.sharing(request.param, where, tmp_path) as start:

        def both(**options):
            (django,), (rust,) = start(1, **options)
            return django, rust

        yield both


def create(who):
    if who.who == "Django":
        return who.ask("write", text='{"made": 1}')["key"]
    return who.ask("create", json='{"made": 1, "counter": 1}')["key"]


def test_both_find_what_the_other_stored_and_nobody_is_logged_out(site):
    plain, hashed, back = site(), site(HASH_KEYS="sha256"), site(HASH_KEYS="plain")
    for one, other in ((0, 1), (1, 0)):
        key = create(plain[one])
        # Moved by one, then found by the other, which moves it back.
        change(hashed[one], key, "second")
        assert names_in(hashed[other], key) == {"made", "counter", "second"}
        assert not names_in(plain[one], key)
        change(hashed[other], key, "third")
        change(back[other], key, "fourth")
        for who in (back[one], plain[one], plain[other], hashed[one]):
            assert names_in(who, key) == {"made", "counter", "second", "third", "fourth"}
        # What one has deleted, the other cannot save any more.
        change(hashed[one], key, "fifth")
        hashed[other].ask("hold", key=key)
        hashed[one].ask("delete", key=key)
        assert hashed[other].ask("save_held", key=key)["saved"] is False
        for who in (*hashed, *back, *plain):
            assert not names_in(who, key)
