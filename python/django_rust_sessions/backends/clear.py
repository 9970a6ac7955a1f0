"""Deleting what is over in the session table, in batches.

Each batch is one statement and a transaction of its own, and its size follows the time that it
took: whoever loads or saves a session meanwhile waits for some 20 ms at most, not for all of it.
"""

import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from asgiref.sync import sync_to_async
from django.db import connections, router, transaction
from django.db.models.signals import post_delete, pre_delete
from django.utils import timezone

from .db import Statements, _django_model, _has_relations, in_transaction, refuse_database

FIRST_BATCH = 100
COUNTED_AT_ONCE = 20_000


class Options(NamedTuple):
    """How to go about it."""

    # How many rows a batch deletes at most: fewer, if they take longer than `batch_time`.
    batch_size: int = 500
    # Seconds. SQLite lets nobody else write meanwhile.
    batch_time: float = 0.020
    # Seconds that the database is left to others after each batch: or for as long as that took.
    pause: float = 0.005
    max_rows: int | None = None


class Batch(NamedTuple):
    deleted: int
    # How long to leave the database to others now.
    pause: float


class Deleted(NamedTuple):
    rows: int
    # Whether there may be more.
    more: bool
    # For how many seconds others may have waited for it.
    took: float


class Expired(Protocol):
    """The sessions that were over at a moment."""

    using: str

    def delete(self, limit: int) -> Deleted: ...

    def count(self) -> int: ...


def step_aside(model: Any, using: str) -> str | None:
    """Why Django's own code must delete the sessions; None when plain statements may."""
    django_model, manager = _django_model()
    if model is not django_model:
        return f"{model.__name__} is a session model of the project"
    if type(model.objects) is not manager:
        return "the session model has another manager"
    if any(signal.has_listeners(model) for signal in (pre_delete, post_delete)):
        return "there are receivers of the session model's signals"
    if _has_relations(model):
        return "other models relate to the session model"
    return refuse_database(using)


def find(model: Any, using: str, before: datetime) -> Expired:
    kind: Any = OrmExpired if step_aside(model, using) else _PLAIN[connections[using].vendor]
    expired: Expired = kind(model, using, before)
    return expired


def clear_expired(engine: Any) -> bool:
    """What `engine.clear_expired()` is to do; False where Django's own code must."""
    if (batches := _batches_of(engine)) is None:
        return False
    for batch in batches:
        time.sleep(batch.pause)
    return True


async def aclear_expired(engine: Any) -> bool:
    """The same. Other coroutines use the thread of the connection between the batches."""
    import asyncio

    batches = await sync_to_async(_batches_of)(engine)
    if batches is None:
        return False
    while (batch := await sync_to_async(lambda: next(batches, None))()) is not None:
        await asyncio.sleep(batch.pause)
    return True


def _batches_of(engine: Any) -> Iterator[Batch] | None:
    model = engine.get_model_class()
    using = router.db_for_write(model)
    if step_aside(model, using):
        return None
    return delete_in_batches(find(model, using, timezone.now()), Options())


def delete_in_batches(expired: Expired, options: Options) -> Iterator[Batch]:
    """Deletes a batch at each step. Whoever stops in between leaves the rest for another time."""
    size, left = min(FIRST_BATCH, options.batch_size), options.max_rows
    more = True
    while more and left != 0:
        deleted = expired.delete(size if left is None else min(size, left))
        more = deleted.more
        if left is not None:
            left -= deleted.rows
        # In a transaction of the project's the locks stay to its end: the sooner, the better.
        is_alone = more and not in_transaction(connections[expired.using])
        yield Batch(deleted.rows, max(options.pause, deleted.took) if is_alone else 0)
        fitting = int(size * options.batch_time / max(deleted.took, 1e-6))
        size = max(1, min(fitting, size * 2, options.batch_size))


class _Expired:
    """Walks along the index of `expire_date`, and goes on where it was.

    From the beginning, each batch would step over all that was deleted before and is still there,
    until a vacuum or a purge.
    """

    def __init__(self, model: Any, using: str, before: datetime) -> None:
        self.using = using
        self.statements = statements = Statements(model, using)
        self.connection = statements.connection
        self.names = {
            "table": statements.table,
            "key": statements.key,
            "expires": statements.expire_date,
        }
        field = statements.fields[2]
        # As the database has moments; so are those that it is given back.
        self.before = field.get_db_prep_value(before, self.connection)
        self.position: Any = None

    def delete(self, limit: int) -> Deleted:
        start = time.monotonic()
        rows, more = self._delete(limit)
        return Deleted(rows, more, time.monotonic() - start)

    def _delete(self, limit: int) -> tuple[int, bool]:
        raise NotImplementedError

    def count(self) -> int:
        """In steps, for a reader of SQLite keeps writers waiting."""
        total, position = 0, None
        while True:
            where, params = self._range(position)
            last, found = self._page(where, params, COUNTED_AT_ONCE)
            if found < COUNTED_AT_ONCE:
                return total + int(found)
            if last == position:  # so many end at one moment
                total += self._count("{expires} = %s", (last,))
                more = self._fetch(
                    "SELECT MIN({expires}) FROM {table} WHERE {expires} > %s AND {expires} < %s",
                    (last, self.before),
                )
                if more[0] is None:
                    return total
                position = more[0]
            else:
                total += self._count(f"{where} AND {{expires}} < %s", (*params, last))
                position = last

    def _page(self, where: str, params: tuple[Any, ...], limit: int) -> Any:
        """When the last of the next `limit` rows ends, and how many they are."""
        return self._fetch(
            "SELECT MAX({expires}), COUNT(*) FROM (SELECT {expires} FROM {table}"
            f" WHERE {where} ORDER BY {{expires}} LIMIT {limit:d}) batch",
            params,
        )

    def _range(self, position: Any) -> tuple[str, tuple[Any, ...]]:
        if position is None:
            return "{expires} < %s", (self.before,)
        return "{expires} < %s AND {expires} >= %s", (self.before, position)

    def _count(self, where: str, params: tuple[Any, ...]) -> int:
        return int(self._fetch(f"SELECT COUNT(*) FROM {{table}} WHERE {where}", params)[0])

    def _fetch(self, sql: str, params: tuple[Any, ...]) -> Any:
        with (
            transaction.mark_for_rollback_on_error(using=self.using),
            self.connection.cursor() as cursor,
        ):
            cursor.execute(sql.format(**self.names), params)
            return cursor.fetchone()

    def _execute(self, sql: str, params: tuple[Any, ...]) -> int:
        with transaction.mark_for_rollback_on_error(using=self.using):
            return self.statements._execute(sql.format(**self.names), params)


class _InPostgres(_Expired):
    def _delete(self, limit: int) -> tuple[int, bool]:
        # Rows that another transaction holds are left to the next run. What is locked stays where
        # it is, so that it can be deleted by its place.
        where, params = self._range(self.position)
        deleted, found, last = self._fetch(
            "WITH batch AS (SELECT ctid AS place, {expires} FROM {table}"
            f" WHERE {where} ORDER BY {{expires}} LIMIT {limit:d} FOR UPDATE SKIP LOCKED),"
            " gone AS (DELETE FROM {table} WHERE ctid = ANY(ARRAY(SELECT place FROM batch))"
            " AND {expires} < %s RETURNING 1)"
            " SELECT (SELECT COUNT(*) FROM gone), COUNT(*), MAX({expires}) FROM batch",
            (*params, self.before),
        )
        self.position = last or self.position
        return deleted, found == limit


class _InMySQL(_Expired):
    has_begun = False

    def _delete(self, limit: int) -> tuple[int, bool]:
        where, params = self._range(self.position)
        if self.has_begun:  # most often one batch is enough, and one statement
            self.position = self._page(where, params, limit)[0] or self.position
        self.has_begun = True
        deleted = self._execute(
            f"DELETE FROM {{table}} WHERE {where} ORDER BY {{expires}} LIMIT {limit:d}", params
        )
        return deleted, deleted == limit


class _InSQLite(_Expired):
    def delete(self, limit: int) -> Deleted:
        if in_transaction(self.connection):
            return super().delete(limit)
        # The time that it waits for the lock is not the time that it has it.
        with self.connection.cursor() as cursor:
            cursor.execute("BEGIN IMMEDIATE")
            start = time.monotonic()
            try:
                rows, more = self._delete(limit)
                cursor.execute("COMMIT")
            except BaseException:
                cursor.execute("ROLLBACK")
                raise
        return Deleted(rows, more, time.monotonic() - start)

    def _delete(self, limit: int) -> tuple[int, bool]:
        # What is deleted is out of the index at once.
        where, params = self._range(None)
        deleted = self._execute(
            "DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM {table}"
            f" WHERE {where} ORDER BY {{expires}} LIMIT {limit:d})",
            params,
        )
        return deleted, deleted == limit


_PLAIN: dict[str, type[_Expired]] = {
    "postgresql": _InPostgres,
    "mysql": _InMySQL,
    "sqlite": _InSQLite,
}


class OrmExpired:
    """With the project's model, signals and relations. For `manage.py sessions prune`."""

    def __init__(self, model: Any, using: str, before: datetime) -> None:
        self.using, self.model = using, model
        self.rows = model._default_manager.using(using).filter(expire_date__lt=before)

    def delete(self, limit: int) -> Deleted:
        start = time.monotonic()
        keys = list(self.rows.order_by("expire_date").values_list("pk", flat=True)[:limit])
        # Asked once more, for one may have been saved meanwhile.
        _, by_model = self.rows.filter(pk__in=keys).delete()
        deleted = by_model.get(self.model._meta.label, 0)
        more = len(keys) == limit and deleted > 0
        return Deleted(deleted, more, time.monotonic() - start)

    def count(self) -> int:
        return int(self.rows.count())
