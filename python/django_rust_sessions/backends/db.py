"""django.contrib.sessions.backends.db with plain SQL in place of the ORM, and its codec in Rust.

Each operation is one statement on Django's own connection: transactions, routers, test databases
and query counts work as ever. Where a project could tell the difference, Django's own code runs
instead, in full: `step_aside` says where and why.
"""

import logging
from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.sessions.backends.base import CreateError, UpdateError
from django.contrib.sessions.backends.db import SessionStore as DjangoSessionStore
from django.core.exceptions import SuspiciousOperation
from django.db import (
    DEFAULT_DB_ALIAS,
    DatabaseError,
    Error,
    IntegrityError,
    connections,
    models,
    router,
    transaction,
)
from django.db.models.signals import (
    ModelSignal,
    post_delete,
    post_init,
    post_save,
    pre_delete,
    pre_init,
    pre_save,
)
from django.db.utils import load_backend
from django.utils import timezone

from ..codec import CodecMixin
from ..conf import option
from . import merge
from .base import HAS_ASYNC, acreate_under_new_key, create_under_new_key
from .keys import HashedKeysMixin

VENDORS = {"postgresql", "mysql", "sqlite"}


# -------------------------------------------------------------------------- plain SQL, or Django's


class Operation:
    """What Django calls on the way to the database, and a plain statement does not."""

    def __init__(self, hooks: tuple[str, ...] = (), signals: tuple[ModelSignal, ...] = ()) -> None:
        self.hooks, self.signals = hooks, signals


_INIT = (pre_init, post_init)
LOAD = Operation(("_get_session_from_db", "_aget_session_from_db"), _INIT)
EXISTS = Operation()
SAVE = Operation(
    ("create_model_instance", "acreate_model_instance"),
    (*_INIT, pre_save, post_save),
)
CREATE = Operation(
    (*SAVE.hooks, "exists", "aexists", "_get_new_session_key", "_aget_new_session_key"),
    SAVE.signals,
)
DELETE = Operation((), (*_INIT, pre_delete, post_delete))


def step_aside(store: "DatabaseSessionStore", operation: Operation, key: Any = "") -> str | None:
    """Why Django's own code must do this; None when a plain statement may.

    Asked at each call, for receivers and models come at any time.
    """
    model, (django_model, manager) = store.model, _django_model()
    if model is not django_model:
        return f"{model.__name__} is a session model of the project"
    if type(model.objects) is not manager:
        return "the session model has another manager"
    if len(model._meta.local_concrete_fields) != 3:
        return "the session model has more fields"
    for name in operation.hooks:
        if getattr(type(store), name, None) not in _DEFINED[name]:
            return f"{type(store).__name__} has its own {name}()"
    for signal in operation.signals:
        if signal.receivers and signal.has_listeners(model):
            return "there are receivers of the session model's signals"
    if operation is DELETE and _has_relations(model):
        return "other models relate to the session model"
    if operation is DELETE and router.routers:
        return "database routers want to see the session that is deleted"
    if not _is_plain_key(key):
        return "databases disagree about such a session key"
    # Which database routers choose is known later. Without them it is this one.
    return None if router.routers else refuse_database(DEFAULT_DB_ALIAS)


def refuse_database(using: str) -> str | None:
    """Why Django's own code must speak to this database."""
    settings = connections.settings.get(using)
    vendor = _vendor(settings["ENGINE"]) if settings else "a database that is not in DATABASES"
    return None if vendor in VENDORS else f"no plain statements are known for {vendor}"


@cache
def _django_model() -> tuple[Any, Any]:
    # As in Django, sessions need not be an installed app for this module to be imported.
    from django.contrib.sessions.models import Session, SessionManager

    return Session, SessionManager


@cache
def _vendor(engine: str) -> str:
    # Not asked of a connection: it belongs to a thread, and this may be the event loop's.
    return str(load_backend(engine).DatabaseWrapper.vendor)


def _has_relations(model: type[models.Model]) -> bool:
    """Whether a session that is deleted may take rows of other models with it."""
    return bool(model._meta.private_fields) or any(
        field.auto_created and not field.concrete
        for field in model._meta.get_fields(include_hidden=True)
    )


def _is_plain_key(key: Any) -> bool:
    """False for NUL, lone surrogates, what is too long: each database has its own answer."""
    return type(key) is str and len(key) <= 40 and key.isascii() and "\0" not in key


# ------------------------------------------------------------------------------------- statements


class Row(NamedTuple):
    """A session as it is saved: the fields of the model, in their order."""

    session_key: str
    session_data: str
    expire_date: datetime

    def is_plain(self) -> bool:
        """False if a subclass made an expression of a value, for instance."""
        key, data, expire_date = self
        return _is_plain_key(key) and isinstance(data, str) and isinstance(expire_date, datetime)


class Found(NamedTuple):
    """What was read of a session, in the words of Django's model."""

    session_data: str
    # Only cached_db asks for it.
    expire_date: Any = None


# To the end of the statement's own transaction. It is read at the commit, so late is early enough.
ASYNC_COMMIT = " RETURNING set_config('synchronous_commit', 'off', true)"


def in_transaction(connection: Any) -> bool:
    """Whether a statement is now part of a transaction of the project's."""
    if connection.connection is None:
        connection.ensure_connection()
    return connection.in_atomic_block or not connection.autocommit


_quoted: dict[tuple[Any, type, str], list[str]] = {}


def _quoted_names(model: Any, ops: Any) -> list[str]:
    """Of the table and its three columns: kept, for each operation needs them."""
    known = (model, type(ops), model._meta.db_table)
    if known not in _quoted:
        columns = [field.column for field in model._meta.local_concrete_fields]
        _quoted[known] = [ops.quote_name(name) for name in (model._meta.db_table, *columns)]
    return _quoted[known]


class Statements:
    """The session table of one database, on this thread's connection to it."""

    # Whether a write need not wait for the disk, where the database knows how not to.
    may_be_lost = False

    def __init__(self, model: Any, using: str) -> None:
        self.connection = connections[using]
        self.fields = model._meta.local_concrete_fields
        names = _quoted_names(model, self.connection.ops)
        self.table, self.key, self.data, self.expire_date = names

    def select(self, key: str | None) -> Found | None:
        """The session, if there is one that has not expired."""
        row = self._select(self.data, key)
        return None if row is None else Found(row[0])

    def select_with_expiry(self, key: str | None) -> Found | None:
        """The same, and when it expires."""
        row = self._select(f"{self.data}, {self.expire_date}", key)
        return None if row is None else Found(row[0], self._to_datetime(row[1]))

    def _select(self, columns: str, key: str | None) -> Any:
        now = self.connection.ops.adapt_datetimefield_value(timezone.now())
        return self._fetch(
            f"SELECT {columns} FROM {self.table} WHERE {self.expire_date} > %s AND {self.key} = %s",
            (now, key),
        )

    def select_to_merge(self, key: str) -> str | None:
        """The data of the session as it is now, to be written over."""
        sql = f"SELECT {self.data} FROM {self.table} WHERE {self.key} = %s"
        if in_transaction(self.connection) and self.connection.vendor != "sqlite":
            # Else a transaction of MySQL is shown what was there when it began.
            sql += " FOR UPDATE"
        row = self._fetch(sql, (key,))
        return None if row is None else str(row[0])

    def _to_datetime(self, value: Any) -> datetime:
        """As Django reads it: SQLite knows no dates, MySQL no time zones."""
        column = self.fields[2].cached_col
        converters = self.connection.ops.get_db_converters(column)
        for convert in converters + column.get_db_converters(self.connection):
            value = convert(value, column, self.connection)
        return value  # type: ignore[no-any-return]

    def exists(self, key: str) -> bool:
        sql = f"SELECT 1 FROM {self.table} WHERE {self.key} = %s"
        return self._fetch(sql, (key,)) is not None

    def insert(self, row: Row) -> bool:
        """False if the key is taken; an open transaction then goes on."""
        sql = (
            f"INSERT INTO {self.table} ({self.key}, {self.data}, {self.expire_date})"
            " VALUES (%s, %s, %s)"
        )
        if self.connection.vendor != "mysql":
            return self._write(f"{sql} ON CONFLICT DO NOTHING", self._adapt(row)) == 1
        # MySQL's INSERT IGNORE forgives other errors too. But InnoDB undoes a refused INSERT alone
        # and keeps the transaction, so that the error does no harm.
        return self._write(sql, self._adapt(row), forgive=IntegrityError) == 1

    def update(self, row: Row, before: str | None = None) -> bool:
        """False if there is no such session, or not with that data."""
        key, data, expire_date = self._adapt(row)
        sql = (
            f"UPDATE {self.table} SET {self.data} = %s, {self.expire_date} = %s"
            f" WHERE {self.key} = %s"
        )
        if before is None:
            return self._write(sql, (data, expire_date, key)) > 0
        sql += f" AND {self.data} = %s"
        return self._write(sql, (data, expire_date, key, before)) > 0

    def delete(self, key: str) -> None:
        # Django makes no savepoint for this one.
        with transaction.mark_for_rollback_on_error(using=self.connection.alias):
            self._execute(f"DELETE FROM {self.table} WHERE {self.key} = %s", (key,))

    def _adapt(self, row: Row) -> tuple[Any, ...]:
        # Row.is_plain() has looked at the texts.
        key, data, expire_date = row
        if settings.USE_TZ and timezone.is_naive(expire_date):
            # Django's field warns of it and takes it for the time of TIME_ZONE.
            return key, data, self.fields[2].get_db_prep_save(expire_date, self.connection)
        return key, data, self.connection.ops.adapt_datetimefield_value(expire_date)

    def _fetch(self, sql: str, params: tuple[Any, ...]) -> Any:
        with self.connection.cursor() as cursor:
            cursor.execute(sql, params)
            return cursor.fetchone()

    def _write(self, sql: str, params: tuple[Any, ...], forgive: Any = ()) -> int:
        """The number of rows; 0 after an error that is forgiven."""
        connection: Any = self.connection
        if in_transaction(connection):
            # With Django's savepoint around it, an error leaves the transaction usable.
            with transaction.atomic(using=connection.alias):
                return self._execute(sql, params, forgive)
        if self.may_be_lost and connection.vendor == "postgresql":
            sql += ASYNC_COMMIT
        try:
            return self._execute(sql, params, forgive)
        except Error:
            # As Django's transaction.atomic() does with a connection that cannot be rolled back: a
            # process that serves no requests would go on with it for ever.
            connection.close_if_unusable_or_obsolete()
            raise

    def _execute(self, sql: str, params: tuple[Any, ...], forgive: Any = ()) -> int:
        try:
            with self.connection.cursor() as cursor:
                cursor.execute(sql, params)
                return int(cursor.rowcount)
        except forgive:
            return 0


# ------------------------------------------------------------------------------------- the engine


class DatabaseSessionStore(merge.MergeMixin, CodecMixin, DjangoSessionStore):
    """The db engine, and the part of the cached_db engine that keeps sessions in the database."""

    # Django's, which django-stubs does not know.
    _session_key: Any
    _session_cache: Any
    _get_session: Any
    _aget_session: Any
    _get_session_from_db: Any
    _get_or_create_session_key: Any
    _aget_or_create_session_key: Any

    def load(self) -> dict[str, Any]:
        if step_aside(self, LOAD, self.session_key):
            return DjangoSessionStore.load(self)
        return self._decode_row(self._find(Statements.select))

    def exists(self, session_key: str) -> bool:
        if step_aside(self, EXISTS, session_key):
            return DjangoSessionStore.exists(self, session_key)
        return self._is_there(session_key)

    def create(self) -> None:
        if step_aside(self, CREATE):
            return DjangoSessionStore.create(self)
        return create_under_new_key(self)

    def save(self, must_create: bool = False) -> None:
        if self.session_key is None:
            return self.create()
        if step_aside(self, SAVE, self.session_key):
            return DjangoSessionStore.save(self, must_create)
        data = self._get_session(no_load=must_create)
        row = Row(self._get_or_create_session_key(), self.encode(data), self.get_expiry_date())
        if not row.is_plain():
            return DjangoSessionStore.save(self, must_create)
        return self._write(row, must_create)

    def delete(self, session_key: str | None = None) -> None:
        key = self.session_key if session_key is None else session_key
        if key is None:
            return None
        if step_aside(self, DELETE, key):
            return DjangoSessionStore.delete(self, key)
        return Statements(self.model, DEFAULT_DB_ALIAS).delete(key)

    # The same once more, with one hop to the thread of the connection, where routers are asked as
    # well: they may look at what it keeps. What Django asks of the async methods of a subclass is
    # asked of them here too.
    if HAS_ASYNC:

        async def aload(self) -> dict[str, Any]:
            if step_aside(self, LOAD, self.session_key):
                return await DjangoSessionStore.aload(self)
            return self._decode_row(await sync_to_async(self._find)(Statements.select))

        async def aexists(self, session_key: str) -> bool:
            if step_aside(self, EXISTS, session_key):
                return await DjangoSessionStore.aexists(self, session_key)
            return await sync_to_async(self._is_there)(session_key)

        async def acreate(self) -> None:
            if step_aside(self, CREATE):
                return await DjangoSessionStore.acreate(self)
            return await acreate_under_new_key(self)

        async def asave(self, must_create: bool = False) -> None:
            if self.session_key is None:
                return await self.acreate()
            if step_aside(self, SAVE, self.session_key):
                return await DjangoSessionStore.asave(self, must_create)
            data = await self._aget_session(no_load=must_create)
            row = Row(
                await self._aget_or_create_session_key(),
                self.encode(data),
                await self.aget_expiry_date(),
            )
            if not row.is_plain():
                return await DjangoSessionStore.asave(self, must_create)
            return await sync_to_async(self._write)(row, must_create)

        async def adelete(self, session_key: str | None = None) -> None:
            key = self.session_key if session_key is None else session_key
            if key is None:
                return None
            if step_aside(self, DELETE, key):
                return await DjangoSessionStore.adelete(self, key)
            return await sync_to_async(
                lambda: Statements(self.model, DEFAULT_DB_ALIAS).delete(key)
            )()

        @classmethod
        async def aclear_expired(cls) -> None:
            from .clear import aclear_expired

            if not await aclear_expired(cls):
                await super().aclear_expired()

    @classmethod
    def clear_expired(cls) -> None:
        from .clear import clear_expired  # only a command needs it

        if not clear_expired(cls):
            super().clear_expired()

    def _move(self, old: str, new: str) -> bool:
        rows = self.model._base_manager.using(router.db_for_write(self.model))
        try:
            with transaction.atomic(using=rows.db):
                return bool(rows.filter(session_key=old).update(session_key=new))
        except IntegrityError:
            if not rows.filter(session_key=new).exists():
                raise
            # It is there already, and newer.
            rows.filter(session_key=old).delete()
            return True

    def _calls_project(self) -> bool:
        # Django's asave() makes the model's instance and asks routers on the event loop.
        return super()._calls_project() or step_aside(self, SAVE) is not None

    # These ask routers, and belong to the thread of the connection.

    def _find(self, select: Callable[[Statements, Any], Found | None]) -> Any:
        using = self._get_read_alias()
        if using is None:
            return self._get_session_from_db()
        found = None
        try:
            found = select(Statements(self.model, using), self.session_key)
        except SuspiciousOperation as error:
            logger = logging.getLogger(f"django.security.{type(error).__name__}")
            logger.warning(str(error))
        if found is None:
            self._session_key = None
        return found

    def _is_there(self, session_key: str) -> bool:
        using = self._get_read_alias()
        if using is None:
            return DjangoSessionStore.exists(self, session_key)
        return Statements(self.model, using).exists(session_key)

    def _get_read_alias(self) -> str | None:
        """Where to read with a plain statement; None where Django's own code must."""
        if not router.routers:
            return DEFAULT_DB_ALIAS
        using = router.db_for_read(self.model)
        return None if refuse_database(using) else using

    def _decode_row(self, found: Any) -> dict[str, Any]:
        if found is None:
            return {}
        data = found.session_data
        merge.note_loaded(self, data, lambda: self.decode(data))
        return self.decode(data)

    def _write(self, row: Row, must_create: bool) -> None:
        using = DEFAULT_DB_ALIAS
        if router.routers:
            # They may choose by what is in the session.
            using = router.db_for_write(self.model, instance=self.model(*row))
            if refuse_database(using):
                return DjangoSessionStore.save(self, must_create)
        statements = Statements(self.model, using)
        # A session without a user may be one whose user has logged out: that must not come back.
        if must_create or "_auth_user_id" in self._session_cache:
            statements.may_be_lost = option("POSTGRES_ASYNC_COMMIT")
        try:
            if merge.is_on(self, must_create):
                done = merge.update_row(self, statements, row)
            else:
                done = statements.insert(row) if must_create else statements.update(row)
        except IntegrityError:
            if must_create:
                raise CreateError from None
            raise
        except DatabaseError as error:
            if not must_create:
                raise UpdateError from error
            raise
        if not done:
            raise CreateError if must_create else UpdateError
        if must_create:
            merge.note_row_saved(self, row.session_data)
        return None


class SessionStore(HashedKeysMixin, DatabaseSessionStore):
    """Database session store. Custom session models subclass it as they would Django's."""


# As they are now; what is not the same later was overridden or replaced.
_DEFINED: dict[str, set[Any]] = {name: set() for name in (*LOAD.hooks, *CREATE.hooks)}


def define_hooks(engine: type[DatabaseSessionStore]) -> None:
    """These hooks are an engine's of ours, not a project's."""
    for name, defined in _DEFINED.items():
        defined.add(getattr(engine, name, None))


define_hooks(SessionStore)
