"""POSTGRES_ASYNC_COMMIT: which writes PostgreSQL's log has on the disk when they are answered."""

import contextlib
import signal
from types import SimpleNamespace

import databases
import pytest
import servers
from asgiref.sync import async_to_sync
from django.contrib.sessions.backends.base import CreateError, UpdateError
from django.db import connection, transaction
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django_rust_sessions.backends.base import HAS_ASYNC
from django_rust_sessions.backends.db import SessionStore

TRIES = 20
LOGIN = {"_auth_user_id": "7", "_auth_user_hash": "h" * 64}
# The server's own work may put something into the log, or onto the disk, at any time.
MOST = TRIES * 3 // 4


@contextlib.contextmanager
def connected(where):
    """The default database is this one, whose log waits for who waits for it."""
    settings = databases.settings_of(
        "postgresql", SimpleNamespace(getfixturevalue=lambda name: where)
    )
    with databases.database("default", settings):
        with connection.cursor() as cursor:
            cursor.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
            cursor.execute("SELECT pg_reload_conf()")
        yield


@pytest.fixture
def postgres(postgres_durable_server, django_db_blocker):
    with django_db_blocker.unblock(), connected(postgres_durable_server):
        yield


@pytest.fixture
def on():
    with override_settings(RUST_SESSIONS={"POSTGRES_ASYNC_COMMIT": True}):
        yield


def fetch(sql):
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]


def saved(**data):
    session = SessionStore()
    session.update(data)
    session.create()
    return session


def create(session):
    saved(**session)


def save(session):
    session["visits"] = session.get("visits", 0) + 1
    session.save()


def asave(session):
    async_to_sync(session.asave)()


def delete(session):
    type(session)(saved().session_key).delete()


def cycle_key(session):
    session.cycle_key()


def clear(session):
    session.clear()
    session.save()


def in_transaction(session):
    with transaction.atomic():
        save(session)
        assert fetch("SHOW synchronous_commit") == "on"


def without_autocommit(session):
    transaction.set_autocommit(False)
    try:
        save(session)
        assert fetch("SHOW synchronous_commit") == "on"
        transaction.commit()
    finally:
        transaction.set_autocommit(True)


def count_unflushed(act, data):
    """After how many of the writes something in the log is not on the disk."""
    session, count = saved(**data), 0
    for _ in range(TRIES):
        act(session)
        count += fetch("SELECT pg_current_wal_flush_lsn() < pg_current_wal_insert_lsn()")
        assert fetch("SHOW synchronous_commit") == "on"
    return count


NEED_NOT_WAIT = [(create, LOGIN), (create, {"cart": 1}), (save, LOGIN)]
if HAS_ASYNC:
    NEED_NOT_WAIT.append((asave, LOGIN))
WAIT = [
    *((delete, LOGIN), (cycle_key, LOGIN), (clear, LOGIN), (save, {"cart": 1})),
    *((in_transaction, LOGIN), (without_autocommit, LOGIN)),
]


@pytest.mark.parametrize(("act", "data"), NEED_NOT_WAIT)
def test_what_does_not_wait(act, data, postgres, on):
    assert count_unflushed(act, data) >= MOST
    with override_settings(RUST_SESSIONS={}):
        assert count_unflushed(act, data) <= TRIES - MOST


@pytest.mark.parametrize(("act", "data"), WAIT)
def test_what_waits_all_the_same(act, data, postgres, on):
    assert count_unflushed(act, data) <= TRIES - MOST


def test_what_is_refused_is_refused_as_ever(postgres, on):
    session = saved(**LOGIN)
    nobody = SessionStore("n" * 32)
    nobody._session_cache = dict(LOGIN)
    with pytest.raises(UpdateError):
        nobody.save()
    taken = SessionStore(session.session_key)
    taken.update(LOGIN)
    with pytest.raises(CreateError):
        taken.save(must_create=True)
    assert dict(SessionStore(session.session_key).items()) == LOGIN


def test_one_statement_as_without_it(postgres, on):
    session = saved(**LOGIN)
    with CaptureQueriesContext(connection) as queries:
        save(session)
    assert len(queries) == 1
    assert "synchronous_commit" in queries[0]["sql"]


def test_other_databases_are_spoken_to_as_ever(django_db_blocker, on):
    settings = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    with django_db_blocker.unblock(), databases.database("default", settings):
        with CaptureQueriesContext(connection) as queries:
            save(saved(**LOGIN))
        assert not any("set_config" in query["sql"] for query in queries)


def left_by_a_crash():
    """Another such server, which ends at once, with what it had not written yet."""
    running = {}
    where = servers.start_one("postgres+durable", running)
    server = running["postgres+durable"]
    try:
        with connected(where):
            logged_out, cleared, cycled = saved(**LOGIN), saved(**LOGIN), saved(**LOGIN)
            old_key = cycled.session_key
            logged_out.delete()
            cycled.cycle_key()
            clear(cleared)
            before = saved(**LOGIN)
            SessionStore(saved().session_key).delete()  # writes all that was before
            new = saved(**LOGIN)
            save(before)
            connection.close()
            server.process.send_signal(signal.SIGQUIT)
            server.process.wait()
            assert server.launch(), server.log()
            return {
                name: dict(SessionStore(key).items())
                for name, key in {
                    "logged out": logged_out.session_key,
                    "cleared": cleared.session_key,
                    "old key": old_key,
                    "new key": cycled.session_key,
                    "before": before.session_key,
                    "new": new.session_key,
                }.items()
            }
    finally:
        server.stop()


def test_what_a_crash_leaves(postgres_durable_server, django_db_blocker, on):
    lost = []
    while not any(lost):
        with django_db_blocker.unblock():
            left = left_by_a_crash()
        new, before = left.pop("new"), left.pop("before")
        assert left == {"logged out": {}, "cleared": {}, "old key": {}, "new key": LOGIN}
        assert new in ({}, LOGIN)  # must log in again
        assert before in (LOGIN, {**LOGIN, "visits": 1})  # as it was before the save
        # The server's own work may have put all of it on the disk.
        lost.append(new == {} and before == LOGIN)
        assert len(lost) <= 5
