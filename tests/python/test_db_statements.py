"""The db engine's plain statements against Django's ORM, on the same table of each database."""

import datetime
import threading
import time
import uuid
from importlib import import_module
from types import SimpleNamespace
from typing import NamedTuple

import databases
import hypothesis
import pytest
import strategies
from asgiref.sync import SyncToAsync, async_to_sync, sync_to_async
from differential import DjangoStore, RustStore, captured_logs, outcome, same
from django.apps import apps
from django.contrib.sessions.backends import base
from django.contrib.sessions.backends.base import CreateError, UpdateError
from django.contrib.sessions.base_session import AbstractBaseSession, BaseSessionManager
from django.contrib.sessions.models import Session, SessionManager
from django.core.exceptions import SuspiciousOperation
from django.db import connection, connections, models, transaction
from django.db.models import signals
from django.db.models.expressions import Col
from django.db.utils import ConnectionDoesNotExist
from django.test import Client, TestCase
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django_rust_sessions.backends.db import DELETE, SAVE, refuse_database, step_aside
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from project.models import CustomDjangoStore, CustomRustStore


class KeyAt(NamedTuple):
    """Stands for a key, of which each engine has its own."""

    at: int


key_at = st.integers(0, 5).map(KeyAt)

STORES = [DjangoStore, RustStore]
NOW = datetime.datetime(2026, 7, 1, 12, 30, 15, 123456, tzinfo=datetime.UTC)

needs_async = pytest.mark.skipif(
    not hasattr(DjangoStore, "aget"), reason="Django's sessions are async since 5.1"
)


@pytest.fixture
def still(monkeypatch):
    """Time stands still, so that moments can be compared."""
    monkeypatch.setattr(timezone, "now", lambda: NOW)
    monkeypatch.setattr("time.time", NOW.timestamp)


def new_key():
    return uuid.uuid4().hex


def saved(store_class, **values):
    store = store_class()
    store.update(values)
    store.save()
    return store


def queries_of(function, *args, **kwargs):
    """The statements that it sent; those of transactions too."""
    with CaptureQueriesContext(connection) as queries:
        outcome(function, *args, **kwargs)
    return [query["sql"] for query in queries]


def kinds_of(queries):
    return [query.split()[0] for query in queries]


def stored(key):
    """The row as the database has it."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT session_data, expire_date FROM django_session WHERE session_key = %s", [key]
        )
        return cursor.fetchone()


def compared(story, *args):
    """What came of a story told with each engine, which must be the same."""
    found = []
    for store_class in STORES:
        Session.objects.all().delete()
        found.append(outcome(lambda cls=store_class: list(story(cls, *args))))
    assert found[1] == found[0]
    return found[0]


# ------------------------------------------------------------------------------------- statements


def load(store):
    return type(store)(store.session_key).load()


def exists(store):
    return store.exists(store.session_key)


def save(store):
    store["more"] = 1
    store.save()


def create(store):
    type(store)().create()


def save_new(store):
    fresh = type(store)()
    fresh["a"] = 1
    fresh.save()


def delete(store):
    store.delete()


OPERATIONS = [
    (load, "SELECT"),
    (exists, "SELECT"),
    (save, "UPDATE"),
    (create, "INSERT"),
    (save_new, "INSERT"),
    (delete, "DELETE"),
]


@pytest.mark.parametrize(("operation", "kind"), OPERATIONS)
@pytest.mark.not_with("HASH_KEYS", "what is not there is looked for under the key too")
def test_one_statement(table, operation, kind):
    assert kinds_of(queries_of(operation, saved(RustStore, a=1))) == [kind]
    # In a transaction of the project's, Django's savepoint stands around what is saved.
    savepoint = kind in ("INSERT", "UPDATE")
    with transaction.atomic():
        queries = kinds_of(queries_of(operation, saved(RustStore, a=1)))
    assert queries == (["SAVEPOINT", kind, "RELEASE"] if savepoint else [kind])
    assert step_aside(RustStore(), SAVE) is None


ASYNC_OPERATIONS = {
    "aload": "SELECT",
    "aexists": "SELECT",
    "asave": "UPDATE",
    "acreate": "INSERT",
    "adelete": "DELETE",
}


@needs_async
@pytest.mark.parametrize("method", ASYNC_OPERATIONS)
@pytest.mark.not_with("HASH_KEYS", "what is not there is looked for under the key too")
def test_one_statement_and_one_hop(table, method, monkeypatch):
    hops = []
    call = SyncToAsync.__call__
    monkeypatch.setattr(
        SyncToAsync,
        "__call__",
        lambda self, *args, **kwargs: hops.append(self) or call(self, *args, **kwargs),
    )
    store = saved(RustStore, a=1)
    args = [store.session_key] if method == "aexists" else []
    queries = queries_of(async_to_sync(getattr(store, method)), *args)
    assert kinds_of(queries) == [ASYNC_OPERATIONS[method]]
    assert len(hops) == 1


@pytest.mark.not_with("HASH_KEYS=sha256", "Django's engine finds nothing under hashed names")
def test_same_rows(table, still):
    def story(store_class):
        store = saved(store_class, a=1)
        yield stored(store.session_key)
        store.set_expiry(datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC))
        store.save()
        yield stored(store.session_key), Session.objects.get().expire_date

    assert compared(story).error is None


@pytest.mark.parametrize("zone", [None, "America/New_York"])
@pytest.mark.not_with("HASH_KEYS=sha256", "Django's engine finds nothing under hashed names")
def test_time_zones(table, settings, zone, monkeypatch):
    settings.USE_TZ = zone is not None
    if table != "postgresql":  # elsewhere times are stored in the zone of the connection
        monkeypatch.setitem(connection.settings_dict, "TIME_ZONE", zone)
    refresh(connection)
    try:
        now = timezone.now()
        monkeypatch.setattr(timezone, "now", lambda: now)
        monkeypatch.setattr("time.time", NOW.timestamp)

        def story(store_class):
            store = saved(store_class, a=1)
            yield stored(store.session_key), Session.objects.get().expire_date
            yield store_class(store.session_key).load()
            for seconds in [1, 0.000001, 0, -1]:
                store.save()
                expiry = now + datetime.timedelta(seconds=seconds)
                Session.objects.update(expire_date=expiry)
                yield store_class(store.session_key).load()

        assert compared(story).value[1:] == [{"a": 1}, {"a": 1}, {"a": 1}, {}, {}]
    finally:
        monkeypatch.undo()
        settings.USE_TZ = True
        refresh(connection)


def refresh(connection):
    """Forgets what it keeps of time zones."""
    for name in ["timezone", "timezone_name"]:
        connection.__dict__.pop(name, None)
    connection.ensure_timezone()


def test_naive_and_aware_mixed_up(table, settings):
    """Warnings and errors of the field come through."""

    def story(store_class):
        class Store(store_class):
            def get_expiry_date(self, **kwargs):
                return datetime.datetime(
                    2030, 1, 1, tzinfo=None if settings.USE_TZ else datetime.UTC
                )

        yield outcome(saved, Store, a=1).error
        yield Session.objects.count()

    for settings.USE_TZ in [True, False]:
        refresh(connection)
        error, _ = compared(story).value
        if settings.USE_TZ:
            assert error[0] is RuntimeWarning
    refresh(connection)


@pytest.mark.not_with("HASH_KEYS=sha256", "Django's engine finds nothing under hashed names")
def test_another_table_name(sqlite, monkeypatch):
    for field in Session._meta.local_concrete_fields:  # Django keeps the table's name there
        monkeypatch.setattr(field, "cached_col", Col("odd name", field))
    monkeypatch.setattr(Session._meta, "db_table", "odd name")
    with sqlite.schema_editor() as editor:
        editor.create_model(Session)
    store = saved(RustStore, a=1)
    assert saved(DjangoStore, b=1).load() == {"b": 1}
    assert DjangoStore(store.session_key).load() == {"a": 1}
    store.save()
    assert store.load() == {"a": 1}
    assert store.exists(store.session_key)
    store.delete()
    assert Session.objects.count() == 1


# ----------------------------------------------------------------------------------- transactions


def store_at(store_class, key, **values):
    """A session with that key, whatever the key. It was not loaded."""
    store = store_class()
    store._SessionBase__session_key = key
    store._session_cache = values
    return store


def take(store_class, key):
    store = store_at(store_class, key, taken=True)
    store.save(must_create=True)
    return store


def test_taken_key(table):
    def story(store_class):
        key = new_key()
        take(store_class, key)
        yield outcome(take, store_class, key).kind is CreateError
        with transaction.atomic():
            saved(store_class, first=1)
            yield outcome(take, store_class, key).kind is CreateError
            yield connection.needs_rollback
            saved(store_class, second=1)
        yield sorted(row.get_decoded().popitem() for row in Session.objects.all())

    found = compared(story)
    assert found.value == [True, True, False, [("first", 1), ("second", 1), ("taken", True)]]


def test_taken_key_is_drawn(table, monkeypatch):
    """create() goes on to another key."""

    def story(store_class):
        taken, free = new_key(), new_key()
        monkeypatch.undo()
        take(store_class, taken)
        draws = iter([taken, taken, free])
        monkeypatch.setattr(base, "get_random_string", lambda *args: next(draws))
        with transaction.atomic():
            store = store_class()
            store.create()
            yield store.session_key == free, store.modified, Session.objects.count()
        yield store_class(taken).load()

    assert compared(story).value == [(True, True, 2), {"taken": True}]


def test_deleted_meanwhile(table):
    def story(store_class):
        store = saved(store_class, a=1)
        Session.objects.all().delete()
        yield outcome(store.save).kind is UpdateError, store.session_key is None
        with transaction.atomic():
            saved(store_class, b=1)
            yield outcome(store.save).kind is UpdateError, connection.needs_rollback
            saved(store_class, c=1)
        yield Session.objects.count()

    assert compared(story).value == [(True, False), (True, False), 2]


def test_rolled_back(table):
    def story(store_class):
        store = saved(store_class, a=1)
        with transaction.atomic():
            saved(store_class, b=1)
            store["a"] = 2
            store.save()
            saved(store_class, c=1).delete()
            transaction.set_rollback(True)
        yield [row.get_decoded() for row in Session.objects.all()]
        with transaction.atomic():
            with transaction.atomic():
                store.delete()
                transaction.set_rollback(True)
            yield store.exists(store.session_key)

    assert compared(story).value == [[{"a": 1}], True]


def test_manual_transactions(table):
    """In set_autocommit(False) nothing is committed, and errors leave the transaction usable."""

    def story(store_class):
        key = new_key()
        take(store_class, key)
        lost = saved(store_class, lost=True)
        lost.delete()
        transaction.set_autocommit(False)
        try:
            yield outcome(take, store_class, key).kind is CreateError
            yield outcome(lost.save).kind is UpdateError
            saved(store_class, a=1)
            yield Session.objects.count()
            transaction.rollback()
            yield Session.objects.count()
            saved(store_class, a=1)
            transaction.commit()
        finally:
            transaction.rollback()
            transaction.set_autocommit(True)
        yield Session.objects.count()

    # On SQLite Django's savepoints are transactions, as long as nobody says BEGIN.
    kept = 2 if connection.vendor == "sqlite" else 1
    assert compared(story).value == [True, True, 2, kept, kept + 1]


@pytest.mark.not_with("HASH_KEYS=sha256", "Django's engine finds nothing under hashed names")
def test_broken_transaction(table):
    def story(store_class):
        store, other = saved(store_class, a=1), new_key()
        with transaction.atomic():
            transaction.set_rollback(True)
            for operation in [
                store.save,
                store.delete,
                store.load,
                lambda: take(store_class, other),
            ]:
                yield outcome(operation).kind
        yield Session.objects.count()

    assert compared(story).value[0] is UpdateError


@pytest.fixture
def no_table(table):
    with connection.schema_editor() as editor:
        editor.alter_db_table(Session, "django_session", "away")
    yield
    with connection.schema_editor() as editor:
        editor.alter_db_table(Session, "away", "django_session")


@pytest.mark.not_with("HASH_KEYS=sha256", "Django's engine finds nothing under hashed names")
def test_errors_of_the_database(no_table):
    kinds = []
    for store_class in STORES:
        store = store_at(store_class, new_key(), a=1)
        found = [
            outcome(operation).kind
            for operation in [
                store.load,
                store.delete,
                store.save,
                lambda store=store: store.save(must_create=True),
                lambda store=store: store.exists("12345678"),
                lambda store_class=store_class: store_class().create(),
            ]
        ]
        kinds.append(found)
    assert kinds[0] == kinds[1]
    assert kinds[0][2] is UpdateError
    assert None not in kinds[0]


@pytest.mark.parametrize("store_class", STORES)
@pytest.mark.not_with("HASH_KEYS=sha256", "Django's engine finds nothing under hashed names")
def test_refused_statement_leaves_the_transaction_usable(no_table, store_class):
    store = store_at(store_class, new_key(), a=1)
    with transaction.atomic():
        assert outcome(store.save).kind is UpdateError
        assert not connection.needs_rollback
        assert outcome(lambda: store.save(must_create=True)).error is not None
        assert not connection.needs_rollback
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")


# ------------------------------------------------------------------------------------- odd values

ODD_KEYS = {
    "NUL": "12345678\0",
    "lone surrogate": "12345678\ud800",
    "beyond ASCII": "é1234567🦀",
    "40 characters": "x" * 40,
    "too long": "x" * 41,
    "percent": "%s%%1234",
    "quotes": "'\"`\\;--12",
    "upper case": "ABCDEFGH",
    "blanks": "12345678  ",
    "int": 12345678,
    "bytes": b"12345678",
}


@pytest.mark.parametrize("key", ODD_KEYS.values(), ids=ODD_KEYS.keys())
@pytest.mark.not_with("HASH_KEYS", "what is not there is looked for under its other name too")
def test_odd_keys(table, key):
    def story(store_class):
        store = store_at(store_class, key)
        yield outcome(store.load), store.session_key
        yield outcome(store.exists, key)
        yield outcome(store.delete, key)
        store = store_at(store_class, key, a=1)
        yield outcome(store.save)
        yield outcome(store.save, must_create=True)
        yield outcome(store.exists, key), outcome(store.save), outcome(store.load)
        store = store_at(store_class, key, a=1)
        with transaction.atomic():
            yield outcome(store.save), outcome(store.exists, key), outcome(store.delete, key)
            yield connection.needs_rollback, outcome(Session.objects.count)
            transaction.set_rollback(True)
        yield outcome(Session.objects.values_list("session_key", flat=True).first)

    found = compared(story)
    assert found.error is None


def test_no_key(table):
    def story(store_class):
        store = store_class()
        yield store.load(), store.delete(), store.exists(None), store.exists("")
        store = store_class("")
        yield store.session_key, store.load(), store.save(), Session.objects.count()

    compared(story)


def test_data_that_is_no_text(table):
    """What a subclass encodes to goes through the model's field."""

    def story(store_class, data):
        class Store(store_class):
            def encode(self, session_dict):
                return data

            def decode(self, session_data):
                return {"read": session_data}

        store = outcome(saved, Store, a=1)
        yield store.error
        if store.value:
            yield Store(store.value.session_key).load()

    for data in [1, "", "é🦀", models.Value("expression")]:
        assert compared(story, data).error is None


# ----------------------------------------------------------------------------------- stepping aside


def assert_as_django(operation, *, stores=STORES):
    """Both engines send as many statements, of the same kinds."""
    expected, found = [kinds_of(queries_of(operation, saved(cls, a=1))) for cls in stores]
    assert found == expected


SIGNALS = {
    "pre_init": (load, save, create, delete),
    "post_init": (load, save, create, delete),
    "pre_save": (save, create),
    "post_save": (save, create),
    "pre_delete": (delete,),
    "post_delete": (delete,),
}


@pytest.mark.parametrize("sender", [Session, None], ids=["its sender", "any sender"])
@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.not_with("HASH_KEYS", "what is not there is looked for under the key too")
def test_receivers(sqlite, name, sender):
    signal = getattr(signals, name)
    received = []

    def receiver(sender, **kwargs):
        received.append(sender)

    signal.connect(receiver, sender=sender)
    try:
        for operation in SIGNALS[name]:
            store = saved(RustStore, a=1)
            received.clear()
            operation(store)
            assert Session in received
            assert_as_django(operation)
    finally:
        signal.disconnect(receiver, sender=sender)
    for operation in SIGNALS[name]:
        assert len(queries_of(operation, saved(RustStore, a=1))) == 1


@pytest.mark.not_with("HASH_KEYS", "what is not there is looked for under the key too")
def test_receivers_of_other_models_do_not_matter(sqlite):
    def receiver(**kwargs):
        raise AssertionError

    for name in SIGNALS:
        getattr(signals, name).connect(receiver, sender=models.Model)
    try:
        for operation, kind in OPERATIONS:
            assert kinds_of(queries_of(operation, saved(RustStore, a=1))) == [kind]
    finally:
        for name in SIGNALS:
            getattr(signals, name).disconnect(receiver, sender=models.Model)


@pytest.mark.not_with("HASH_KEYS", "what is not there is looked for under its other name too")
def test_custom_session(table):
    with connection.schema_editor() as editor:
        editor.create_model(CustomDjangoStore.get_model_class())
    try:
        assert step_aside(CustomRustStore(), SAVE)
        for operation in [load, exists, save, create, delete]:
            assert_as_django(operation, stores=[CustomDjangoStore, CustomRustStore])
    finally:
        with connection.schema_editor() as editor:
            editor.delete_model(CustomDjangoStore.get_model_class())


@pytest.mark.parametrize("bases", [(Session,), (AbstractBaseSession,)], ids=["proxy", "twin"])
@pytest.mark.not_with("HASH_KEYS=sha256", "it looks for the key itself in the store")
def test_another_model_of_the_same_table(sqlite, bases):
    """Only get_model_class() is overridden; the fields and the manager are Django's."""
    saves = []
    try:

        class Audited(*bases):
            objects = SessionManager()

            class Meta:
                app_label = "project"
                proxy = bases == (Session,)
                db_table = "django_session"

            def save(self, *args, **kwargs):
                saves.append(self.session_key)
                super().save(*args, **kwargs)

        class Store(RustStore):
            @classmethod
            def get_model_class(cls):
                return Audited

        assert saves == [saved(Store, a=1).session_key]
    finally:
        del apps.all_models["project"]["audited"]
        apps.clear_cache()


HOOKS = {
    "create_model_instance": [save, create],
    "_get_session_from_db": [load],
    "_get_new_session_key": [create],
    "exists": [create],
}


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("how", ["subclass", "patch"])
@pytest.mark.not_with("HASH_KEYS", "what is not there is looked for under the key too")
def test_overridden(sqlite, hook, how, monkeypatch):
    called = []

    def override(original):
        def method(self, *args, **kwargs):
            called.append(hook)
            return original(self, *args, **kwargs)

        return method

    stores = STORES
    if how == "subclass":
        stores = [
            type("SessionStore", (cls,), {hook: override(getattr(cls, hook))}) for cls in STORES
        ]
    else:
        monkeypatch.setattr(DjangoStore, hook, override(getattr(DjangoStore, hook)))
        if hook == "exists":
            monkeypatch.setattr(RustStore, hook, override(getattr(RustStore, hook)))
    for operation in HOOKS[hook]:
        store = saved(stores[1], a=1)
        called.clear()
        operation(store)
        assert called
        if hook not in ["exists", "_get_new_session_key"]:  # the INSERT is ours then
            assert_as_django(operation, stores=stores)


def test_overridden_save_is_called_by_create(sqlite):
    class Store(RustStore):
        def save(self, must_create=False):
            super().save(must_create)
            saves.append((self.session_key, must_create))

    saves = []
    store = Store()
    store.create()
    assert saves == [(store.session_key, True)]


def test_another_manager(sqlite, monkeypatch):
    class Manager(BaseSessionManager):
        def get_queryset(self):
            return super().get_queryset().none()

    saved(RustStore, a=1)
    manager = Manager()
    manager.model = Session
    manager.name = "objects"
    monkeypatch.setitem(Session._meta.managers_map, "objects", manager)
    for store_class in STORES:
        assert store_class(saved(store_class, a=1).session_key).load() == {}
    for operation in [load, save, create]:
        assert_as_django(operation)


@pytest.mark.not_with("HASH_KEYS", "what is not there is looked for under its other name too")
def test_relations(sqlite):
    """Deleting takes the rows of other models with it."""

    class Visit(models.Model):
        session = models.ForeignKey(Session, models.CASCADE, related_name="+")

        class Meta:
            app_label = "project"

    try:
        with sqlite.schema_editor() as editor:
            editor.create_model(Visit)
        store = saved(RustStore, a=1)
        Visit.objects.create(session_id=store.session_key)
        assert step_aside(store, DELETE)
        store.delete()
        assert not Visit.objects.exists()
        assert_as_django(delete)
        assert len(queries_of(save, saved(RustStore, a=1))) == 1
        with sqlite.schema_editor() as editor:
            editor.delete_model(Visit)
    finally:
        del apps.all_models["project"]["visit"]
        apps.clear_cache()
    assert len(queries_of(delete, saved(RustStore, a=1))) == 1


@pytest.mark.not_with("HASH_KEYS", "what is not there is looked for under the key too")
def test_unknown_vendor(django_db_blocker):
    settings = {"ENGINE": "project.unknown_database", "NAME": ":memory:"}
    with django_db_blocker.unblock(), databases.database("default", settings):
        assert "unknown" in refuse_database("default")
        for operation, _ in OPERATIONS:
            assert_as_django(operation)
        if hasattr(DjangoStore, "aload"):
            for method in ["aload", "asave", "acreate", "adelete"]:
                assert_as_django(
                    lambda store, method=method: async_to_sync(getattr(store, method))()
                )
    assert refuse_database("default") is None


@pytest.mark.not_with("HASH_KEYS", "what is not there is looked for under the key too")
def test_suspicious_operation(sqlite):
    def refuse(execute, sql, params, many, context):
        raise SuspiciousOperation("refused")

    def story(store_class):
        store = saved(store_class, a=1)
        with connection.execute_wrapper(refuse), captured_logs() as logs:
            yield store.load(), store.session_key
        yield logs

    found = compared(story).value
    assert found == [({}, None), [("django.security.SuspiciousOperation", "WARNING", "refused")]]


# --------------------------------------------------------------------------------------- databases


class RecordingRouter:
    """Reads from one database and writes to another, as with a replica."""

    calls: list = []  # noqa: RUF012 (settings name the class; there is one instance)
    reads, writes = "default", "other"

    def db_for_read(self, model, **hints):
        self.calls.append(("read", model, self.seen(hints)))
        return self.reads

    def db_for_write(self, model, **hints):
        self.calls.append(("write", model, self.seen(hints)))
        return self.writes

    @staticmethod
    def seen(hints):
        return {
            name: (type(hint), hint.get_decoded(), hint.expire_date, hint._state.db)
            for name, hint in hints.items()
        }


@pytest.fixture
def two_databases(sqlite, settings, tmp_path):
    settings.DATABASE_ROUTERS = [RecordingRouter()]
    with databases.database("other", databases.sqlite_file(tmp_path / "other")) as other:
        yield SimpleNamespace(default=sqlite, other=other, router=RecordingRouter)


@pytest.mark.parametrize(
    ("reads", "writes"),
    [
        ("default", "other"),
        ("other", "default"),
        ("other", "other"),
        (None, "other"),
        ("other", None),
    ],
)
@pytest.mark.not_with("HASH_KEYS", "what is not there is looked for under its other name too")
def test_routers(two_databases, still, monkeypatch, reads, writes):
    monkeypatch.setattr(RecordingRouter, "reads", reads)
    monkeypatch.setattr(RecordingRouter, "writes", writes)

    def rows():
        return {
            alias: [row.get_decoded() for row in Session.objects.using(alias)]
            for alias in ["default", "other"]
        }

    def story(store_class):
        for alias in ["default", "other"]:
            connections[alias].cursor().execute("DELETE FROM django_session")
        RecordingRouter.calls.clear()
        store = saved(store_class, a=1)
        yield rows(), store_class(store.session_key).load(), store.exists(store.session_key)
        # The replica follows.
        for row in list(Session.objects.using(writes or "default")):
            row.save(using=reads or "default")
        RecordingRouter.calls.clear()
        yield store_class(store.session_key).load(), store.exists(store.session_key)
        store["a"] = 2
        store.save()
        yield rows(), list(RecordingRouter.calls)
        RecordingRouter.calls.clear()
        store.delete()
        store.delete()
        yield rows(), list(RecordingRouter.calls)

    found = compared(story)
    assert found.error is None


class ThreadRouter:
    """What the thread keeps says which database it is, as on a site with tenants."""

    thread = threading.local()

    def db_for_read(self, model, **hints):
        return getattr(self.thread, "using", "default")

    db_for_write = db_for_read


@needs_async
@pytest.mark.parametrize("name", ["db", "cached_db"])
def test_routers_that_look_at_the_thread(two_databases, settings, monkeypatch, name):
    """Async methods ask them there, as the sync ones of Django's do."""
    settings.DATABASE_ROUTERS = [ThreadRouter()]
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}
    monkeypatch.setattr(ThreadRouter.thread, "using", "other", raising=False)

    def rows():
        aliases = ["default", "other"]
        return [[row.get_decoded() for row in Session.objects.using(each)] for each in aliases]

    def life(store_class):
        store = store_class()
        store.update({"a": 1})
        store.create()
        yield rows(), store.exists(store.session_key), store_class(store.session_key).load()
        store["a"] = 2
        store.save()
        yield rows(), store_class(store.session_key).load()
        store.cycle_key()
        yield rows(), store.exists(store.session_key)
        store.delete()
        yield rows(), store.exists(store.session_key)

    async def alife(store_class):
        arows = sync_to_async(rows)
        store = store_class()
        store._session_cache = {"a": 1}
        await store.acreate()
        found = await store_class(store.session_key).aload()
        yield await arows(), await store.aexists(store.session_key), found
        await store.aset("a", 2)
        await store.asave()
        yield await arows(), await store_class(store.session_key).aload()
        await store.acycle_key()
        yield await arows(), await store.aexists(store.session_key)
        await store.adelete()
        yield await arows(), await store.aexists(store.session_key)

    async def collect(store_class):
        return [answer async for answer in alife(store_class)]

    djangos, ours = (
        import_module(f"{package}.backends.{name}").SessionStore
        for package in ("django.contrib.sessions", "django_rust_sessions")
    )
    expected = list(life(djangos))
    assert expected[0] == ([[], [{"a": 1}]], True, {"a": 1})
    assert list(life(ours)) == expected
    assert async_to_sync(collect)(ours) == expected


def test_router_to_nowhere(sqlite, settings, monkeypatch):
    monkeypatch.setattr(RecordingRouter, "reads", "nowhere")
    monkeypatch.setattr(RecordingRouter, "writes", "nowhere")

    def story(store_class):
        store = store_at(store_class, new_key(), a=1)
        settings.DATABASE_ROUTERS = [RecordingRouter()]
        for operation in [store.load, store.save, store.delete, store.create]:
            yield outcome(operation).kind
        settings.DATABASE_ROUTERS = []

    assert compared(story).value == [ConnectionDoesNotExist] * 4


@pytest.mark.not_with("HASH_KEYS", "what is not there is looked for under the key too")
def test_router_to_an_unknown_vendor(sqlite, settings, monkeypatch):
    settings.DATABASE_ROUTERS = [RecordingRouter()]
    monkeypatch.setattr(RecordingRouter, "reads", "other")
    unknown = {"ENGINE": "project.unknown_database", "NAME": ":memory:"}
    with databases.database("other", unknown) as other:
        for operation in [load, exists, save, create, delete]:
            found = []
            for store_class in STORES:
                store = saved(store_class, a=1)
                with CaptureQueriesContext(other) as queries:
                    operation(store)
                found.append(kinds_of(query["sql"] for query in queries))
            if operation is create:  # which database it will be is not known in time
                found[0].remove("SELECT")
            assert found[0] == found[1]
            assert found[0]


# ----------------------------------------------------------------------------------------- projects


class TestInATestCase(TestCase):
    """A project's own tests."""

    @pytest.mark.not_with("HASH_KEYS", "what is not there is looked for under the key too")
    def test_queries_are_counted(self):
        store = RustStore()
        with self.assertNumQueries(3):  # with the savepoint
            store.create()
        with self.assertNumQueries(3):
            store.save()
        with self.assertNumQueries(1):
            RustStore(store.session_key).load()
        with self.assertNumQueries(1):
            store.delete()

    def test_undone_after_each_test(self):
        assert not Session.objects.exists()
        saved(RustStore, a=1)

    test_undone_after_this_test_too = test_undone_after_each_test


def test_atomic_requests(sqlite, monkeypatch, settings):
    monkeypatch.setitem(sqlite.settings_dict, "ATOMIC_REQUESTS", True)
    found = []
    for engine in ["django.contrib.sessions.backends.db", "django_rust_sessions.backends.db"]:
        settings.SESSION_ENGINE = engine
        Session.objects.all().delete()
        client = Client()
        answers = [client.get("/store", {"tea": "2"}).status_code]
        answers += [client.get("/show").json(), client.get("/cycle").status_code]
        answers += [Session.objects.count(), client.get("/show").json()]
        answers += [client.get("/flush").status_code, Session.objects.count()]
        found.append(answers)
    assert found[0] == found[1] == [200, {"tea": "2"}, 200, 1, {"tea": "2"}, 200, 0]


@needs_async
def test_async_outcomes(table):
    async def life(store_class):
        store = store_class(new_key())
        await store.aset("a", 1)
        lost = store_class()
        await lost.acreate()
        await lost.adelete()
        for awaitable in [lost.asave(), lost.aload(), lost.adelete(), lost.aexists(new_key())]:
            try:
                yield await awaitable
            except Exception as error:
                yield type(error)
        await store.acreate()
        yield store.modified, await store.aexists(store.session_key)
        await store.aset("b", 2)
        await store.asave()
        yield await store_class(store.session_key).aload()
        try:
            await store.asave(must_create=True)
        except CreateError:
            yield "taken"

    def story(store_class):
        async def collect():
            return [answer async for answer in life(store_class)]

        yield from async_to_sync(collect)()

    found = compared(story).value
    assert found == [UpdateError, {}, None, False, (True, True), {"a": 1, "b": 2}, "taken"]


@pytest.mark.parametrize("any_database", databases.KINDS[2:], indirect=True)
@pytest.mark.not_with("HASH_KEYS", "it asks twice, and is refused once")
def test_a_connection_that_the_server_ended_is_given_up(table):
    """As in Django: a process that serves no requests goes on after one error."""

    def story(store_class):
        store = saved(store_class, a=1)
        for operation in (store.save, store.load, store.delete):
            end_connection()
            yield outcome(operation).kind
            yield outcome(store.save).kind
            connection.close()

    django, ours = (list(story(store_class)) for store_class in STORES)
    # On MySQL Django's goes on with the broken one after a save, too.
    assert all(mine in (its, None) for mine, its in zip(ours, django, strict=True)), (ours, django)
    assert ours[:2] == [UpdateError, None]


def end_connection():
    """The server ends this thread's connection."""
    other = connection.copy()
    with connection.cursor() as cursor, other.cursor() as admin:
        if connection.vendor == "postgresql":
            cursor.execute("SELECT pg_backend_pid()")
            admin.execute("SELECT pg_terminate_backend(%s, 5000)", cursor.fetchone())
        else:
            cursor.execute("SELECT connection_id()")
            admin.execute("KILL %s", cursor.fetchone())
    other.close()
    time.sleep(0.2)


# Threads do not share a database in memory.
@pytest.mark.parametrize("any_database", databases.KINDS[1:], indirect=True)
def test_threads(table):
    """Each session carries its own key: nobody is given the session of another."""
    errors = []

    def work():
        try:
            mine = [saved(RustStore) for _ in range(3)]
            for turn in range(10):
                for store in mine:
                    store.update({"key": store.session_key, "turn": turn})
                    store.save()
                    again = RustStore(store.session_key)
                    assert dict(again.items()) == {"key": store.session_key, "turn": turn}
            mine.pop().delete()
        except BaseException as error:
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert Session.objects.count() == 24


# -------------------------------------------------------------------------------- random operations


class Twins(RuleBasedStateMachine):
    """Django's engine and ours do the same, each to its own sessions in one table."""

    def __init__(self):
        super().__init__()
        Session.objects.all().delete()
        self.keys = [(new_key(), new_key())]  # of Django's session and of ours; these two of nobody
        self.pair = tuple(store_class() for store_class in STORES)
        self.blocks = []

    def teardown(self):
        while self.blocks:
            self.blocks.pop().__exit__(None, None, None)

    def both(self, action, *args):
        """What came of an action, which is the same for both."""
        expected = outcome(action, self.pair[0], *[self.of(arg, 0) for arg in args])
        found = outcome(action, self.pair[1], *[self.of(arg, 1) for arg in args])
        # Keys differ, and are compared by where they point to.
        assert same(found.value, expected.value)
        assert found[1:] == expected[1:]
        keys = tuple(store.session_key for store in self.pair)
        assert (keys[0] is None) == (keys[1] is None)
        if keys[0] is not None and keys not in self.keys:
            self.keys.append(keys)
        return found

    def of(self, arg, twin):
        return self.keys[arg.at % len(self.keys)][twin] if isinstance(arg, KeyAt) else arg

    @invariant()
    def same_sessions_and_rows(self):
        django, ours = self.pair
        for name in ["accessed", "modified"]:
            assert getattr(django, name) == getattr(ours, name)
        caches = [getattr(store, "_session_cache", None) for store in self.pair]
        assert same(*caches)
        rows = {row.session_key: row for row in Session.objects.all()}
        for keys in self.keys:
            pair = [rows.pop(key, None) for key in keys]
            assert (pair[0] is None) == (pair[1] is None)
            if pair[0]:
                assert same(*[row.get_decoded() for row in pair])
                assert pair[0].expire_date == pair[1].expire_date
        assert not rows
        assert not connection.needs_rollback

    @rule(key=key_at)
    def open(self, key):
        at = self.keys[key.at % len(self.keys)]
        self.pair = tuple(cls(own) for cls, own in zip(STORES, at, strict=True))

    @rule()
    def open_new(self):
        self.pair = tuple(store_class() for store_class in STORES)

    @rule(name=st.sampled_from(["a", "b"]), value=strategies.json_objects)
    def put(self, name, value):
        self.both(lambda store: store.__setitem__(name, value))

    @rule(name=st.sampled_from(["a", "b"]))
    def pop(self, name):
        self.both(lambda store: store.pop(name, None))

    @rule(seconds=st.sampled_from([None, 0, 10, -10]))
    def set_expiry(self, seconds):
        self.both(lambda store: store.set_expiry(seconds))

    @rule(
        method=st.sampled_from(
            ["load", "save", "create", "delete", "flush", "clear", "cycle_key", "is_empty"]
        ),
        asynchronous=st.booleans(),
    )
    def call(self, method, asynchronous):
        if asynchronous and hasattr(DjangoStore, f"a{method}"):
            self.both(lambda store: async_to_sync(getattr(store, f"a{method}"))())
        else:
            self.both(lambda store: getattr(store, method)())

    @rule()
    def must_create(self):
        self.both(lambda store: store.save(must_create=True))

    @rule(key=key_at)
    def exists(self, key):
        self.both(lambda store, key: store.exists(key), key)

    @rule(key=key_at)
    def delete_other(self, key):
        self.both(lambda store, key: store.delete(key), key)

    @rule(key=key_at)
    def deleted_elsewhere(self, key):
        Session.objects.filter(pk__in=self.keys[key.at % len(self.keys)]).delete()

    @rule(key=key_at)
    def swap_engines(self, key):
        """Each goes on with what the other wrote."""
        at = self.keys[key.at % len(self.keys)]
        found = [cls(own).load() for cls, own in zip(reversed(STORES), at, strict=True)]
        assert same(*found)

    @precondition(lambda self: len(self.blocks) < 3)
    @rule()
    def begin(self):
        self.blocks.append(transaction.atomic())
        self.blocks[-1].__enter__()

    @precondition(lambda self: self.blocks)
    @rule(commit=st.booleans())
    def end(self, commit):
        if not commit:
            transaction.set_rollback(True)
        self.blocks.pop().__exit__(None, None, None)


@pytest.mark.not_with("HASH_KEYS", "what is not there is looked for under its other name too")
def test_random_operations(table, still):
    share = 10 if table == "sqlite" else 40
    run_state_machine_as_test(
        Twins,
        settings=hypothesis.settings(
            max_examples=max(5, hypothesis.settings.default.max_examples // share),
            deadline=None,
            stateful_step_count=30,
        ),
    )
