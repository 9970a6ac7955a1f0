"""MERGE on both sides: requests of Django and of Rust change different keys of one session at the
same time, and none of the changes is lost."""

import children
import pytest
import servers
from children import Child, Refused, change, names_in
from configurations import named

NAMES = [
    *("db, SQLite", "db, PostgreSQL", "file, a folder"),
    *("cache, Redis", "cached_db, Redis", "cache, memcached", "cached_db, memcached"),
]
EACH, ROUNDS = 2, 30


@pytest.fixture(scope="module")
def where():
    started = servers.Started("redis", "postgres", "memcached")
    yield started.servers
    started.stop()


@pytest.fixture(params=NAMES)
def start(request, where, tmp_path):
    """Starts programs of both kinds over one store."""
    with children.sharing(request.param, where, tmp_path) as start:
        yield start


def counted(djangos, rusts):
    """The increments that are there after all have made theirs."""
    key = djangos[0].ask("write", text='{"made": 1}')["key"]
    everybody = [*djangos, *rusts]
    for number, who in enumerate(everybody):
        who.begin("count", key=key, name=f"n{number}", rounds=ROUNDS)
    for who in everybody:
        who.end()
    seen = {value["key"]: value for value in rusts[0].ask("load", key=key)["values"]}
    return [int(seen.get(f"n{number}", {"json": 0})["json"]) for number in range(len(everybody))]


def test_none_is_lost(start):
    assert counted(*start(EACH, MERGE=True)) == [ROUNDS] * 2 * EACH


@pytest.mark.parametrize(
    "start", ["db, PostgreSQL", "cache, Redis", "cache, memcached"], indirect=True
)
def test_without_it_some_are(start):
    assert sum(counted(*start(EACH))) < ROUNDS * 2 * EACH


def test_changes_of_one_reach_the_other_and_a_logout_wins(start):
    (django,), (rust,) = start(1, MERGE=True)
    for holder, other in ((django, rust), (rust, django)):
        key = django.ask("write", text='{"made": 1}')["key"]
        holder.ask("hold", key=key)
        change(other, key, "theirs")
        assert holder.ask("save_held", key=key)["saved"] is True
        assert names_in(django, key) == {"made", "counter", "theirs", "late"}

        holder.ask("hold", key=key)
        other.ask("delete", key=key)
        assert holder.ask("save_held", key=key)["saved"] is False
        assert not names_in(django, key)


def test_rust_refuses_what_it_cannot_merge(where, tmp_path):
    settings = named("file, a folder").settings(where, tmp_path)
    settings["SESSION_ENGINE"] = "django_rust_sessions.backends.signed_cookies"
    settings["RUST_SESSIONS"] = {"MERGE": True}
    django = children.newest_django(settings)
    django.ask("prepare")
    django.ask("export", path=str(tmp_path / "sessions.json"))
    rust = Child("Rust", children.build_driver(), tmp_path / "sessions.json")
    with pytest.raises((AssertionError, Refused), match="take MERGE out of RUST_SESSIONS"):
        rust.ask("exists", key="a" * 32)
    rust.close()
    django.close()
