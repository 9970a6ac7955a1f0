"""clear_expired of the db engines: in batches, on each database, while others hold rows."""

import datetime
import threading
import time

import databases
import pytest
from asgiref.sync import async_to_sync
from differential import DjangoStore, RustStore
from django.contrib.sessions.models import Session
from django.core.management import call_command
from django.db import connection, connections, transaction
from django.db.models import signals
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django_rust_sessions.backends import clear
from django_rust_sessions.backends.cached_db import SessionStore as CachedDBStore
from project.models import CustomRustStore

HOUR = datetime.timedelta(hours=1)


def fill(expired, live, same_moment=False):
    now = timezone.now()
    Session.objects.bulk_create(
        [
            Session(
                session_key=f"{'over' if n < expired else 'live'}{n:028d}",
                session_data="x" * 100,
                expire_date=now - HOUR * (1 if same_moment else 1 + n)
                if n < expired
                else now + HOUR * n,
            )
            for n in range(expired + live)
        ],
        batch_size=500,
    )


def left():
    keys = Session.objects.values_list("session_key", flat=True)
    return sum(key.startswith("over") for key in keys), sum(key.startswith("live") for key in keys)


def deletes(captured):
    return [query["sql"] for query in captured if "DELETE" in query["sql"]]


@pytest.mark.parametrize("same_moment", [False, True])
@pytest.mark.parametrize("engine", [RustStore, CachedDBStore])
def test_what_is_over_goes_in_batches_and_nothing_else(table, engine, same_moment):
    fill(1500, 50, same_moment)
    with CaptureQueriesContext(connection) as captured:
        engine.clear_expired()
    assert left() == (0, 50)
    statements = deletes(captured)
    assert len(statements) >= 3
    assert all("LIMIT" in sql and "OFFSET" not in sql for sql in statements)


@pytest.mark.skipif(
    not hasattr(DjangoStore, "aclear_expired"), reason="Django's sessions are async since 5.1"
)
def test_the_async_method_deletes_the_same(table):
    fill(300, 5)
    async_to_sync(RustStore.aclear_expired)()
    assert left() == (0, 5)


def test_clearsessions_takes_the_batches(table, settings):
    settings.SESSION_ENGINE = "django_rust_sessions.backends.db"
    fill(150, 5)
    with CaptureQueriesContext(connection) as captured:
        call_command("clearsessions")
    assert left() == (0, 5)
    assert len(deletes(captured)) > 1  # how many, depends on the time that each takes


def test_the_batches_follow_the_time_that_they_take(sqlite):
    class Slow:
        using, sizes = "default", []

        def delete(self, limit):
            self.sizes.append(limit)
            return clear.Deleted(limit, True, limit * 0.0005)

    slow = Slow()
    pauses = []
    for batch in clear.delete_in_batches(slow, clear.Options(pause=0.01, max_rows=1000)):
        pauses.append(batch.pause)
    assert slow.sizes[:3] == [clear.FIRST_BATCH, 40, 40]
    assert sum(slow.sizes) == 1000
    # Others have the database for as long as it took.
    assert pauses[:2] == [0.05, 0.02]


def test_a_limit_is_kept_to_the_row(table):
    fill(500, 5)
    expired = clear.find(Session, "default", timezone.now())
    assert expired.count() == 500
    options = clear.Options(batch_size=70, max_rows=205)
    assert sum(batch.deleted for batch in clear.delete_in_batches(expired, options)) == 205
    assert left() == (295, 5)
    # The oldest went first.
    assert Session.objects.order_by("expire_date").first().session_key.endswith("294")


@pytest.mark.parametrize("same_moment", [False, True])
def test_counting_in_steps_counts_all(table, monkeypatch, same_moment):
    monkeypatch.setattr(clear, "COUNTED_AT_ONCE", 10)
    fill(95, 5, same_moment)
    now = timezone.now()
    Session.objects.filter(session_key__endswith="3").update(expire_date=now - 40 * HOUR)
    expired = clear.find(Session, "default", now)
    assert expired.count() == Session.objects.filter(expire_date__lt=now).count()


def test_in_a_transaction_of_the_project_it_is_part_of_it(table):
    fill(300, 5)
    with transaction.atomic():
        RustStore.clear_expired()
        assert left() == (0, 5)
        transaction.set_rollback(True)
    assert left() == (300, 5)
    with transaction.atomic():
        RustStore.clear_expired()
    assert left() == (0, 5)


def test_rows_that_others_hold_are_waited_for_by_nobody(table):
    if table != "postgresql":
        return  # only PostgreSQL can step over locked rows in a DELETE
    fill(300, 5)
    held, done = threading.Event(), threading.Event()

    def hold():
        with transaction.atomic():
            list(Session.objects.select_for_update().filter(session_key=f"over{7:028d}"))
            held.set()
            done.wait(30)
        connections.close_all()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(30)
    try:
        start = time.monotonic()
        RustStore.clear_expired()
        assert time.monotonic() - start < 10
        assert left() == (1, 5)
    finally:
        done.set()
        holder.join()
    RustStore.clear_expired()
    assert left() == (0, 5)


def test_a_session_that_is_saved_meanwhile_stays(table):
    """Batch after batch, a client prolongs the session that would be next."""
    fill(400, 0)
    expired = clear.find(Session, "default", timezone.now())
    saved = set()
    for _ in clear.delete_in_batches(expired, clear.Options(batch_size=50)):
        row = Session.objects.filter(session_key__startswith="over").exclude(session_key__in=saved)
        if key := row.order_by("expire_date").values_list("session_key", flat=True).first():
            Session.objects.filter(pk=key).update(expire_date=timezone.now() + HOUR)
            saved.add(key)
    assert saved
    assert set(Session.objects.values_list("session_key", flat=True)) == saved


def test_receivers_of_signals_see_each_session(sqlite):
    fill(3, 1)
    seen = []

    def receive(instance, **kwargs):
        seen.append(instance.session_key)

    signals.pre_delete.connect(receive, sender=Session)
    try:
        assert clear.step_aside(Session, "default")
        RustStore.clear_expired()
    finally:
        signals.pre_delete.disconnect(receive, sender=Session)
    assert (len(seen), left()) == (3, (0, 1))


def test_a_model_of_the_project_is_left_to_django():
    model = CustomRustStore.get_model_class()
    assert "session model of the project" in clear.step_aside(model, "default")


def test_a_router_says_where(sqlite, settings, django_db_blocker):
    class Router:
        def db_for_write(self, model, **hints):
            return "other"

    fill(2, 1)
    memory = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    settings.DATABASE_ROUTERS = [Router()]
    with databases.database("other", memory):
        Session.objects.using("other").create(
            session_key="o" * 32, session_data="", expire_date=timezone.now() - HOUR
        )
        RustStore.clear_expired()
        assert Session.objects.using("other").count() == 0
    settings.DATABASE_ROUTERS = []
    assert left() == (2, 1)
