"""Sessions in the table of the db engine, and of cached_db."""

import datetime
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.contrib.sessions.backends.cached_db import SessionStore as DjangoCachedDBStore
from django.core.cache import caches
from django.core.management.base import CommandError
from django.db import IntegrityError, connections, router, transaction
from django.utils import timezone

from ....backends.clear import step_aside
from ....backends.db import Row, Statements
from ....backends.fallback import open_store
from .base import Batch, Place, Record, Store, not_one_of


class DatabaseStore(Store):
    def __init__(self, engine: type[Any], place: Place) -> None:
        super().__init__(engine, place)
        self.model: Any = self.session.model
        self.using = place.database or router.db_for_write(self.model)
        if self.using not in connections.settings:
            raise CommandError(not_one_of("database", self.using, "DATABASES", settings.DATABASES))
        self.rows = self.model._base_manager.using(self.using)
        self.is_plain = step_aside(self.model, self.using) is None

    def identity(self) -> Any:
        database = connections.settings[self.using]
        names = ("ENGINE", "NAME", "HOST", "PORT")
        return ("table", self.model._meta.db_table, *(str(database.get(name)) for name in names))

    def __str__(self) -> str:
        return f"the table {self.model._meta.db_table} of the database {self.using!r}"

    def count(self) -> int:
        return int(self.rows.filter(expire_date__gt=timezone.now()).count())

    def scan(self, position: str, size: int) -> Iterator[Batch]:
        # Of a checkpoint it is the beginning of a key, and that key comes once more.
        live = self.rows.order_by("session_key").values_list(
            "session_key", "session_data", "expire_date"
        )
        while True:
            page = live.filter(session_key__gt=position, expire_date__gt=timezone.now())
            found = [
                Record(key, self.decode(data), expires, data) for key, data, expires in page[:size]
            ]
            if not found:
                return
            position = found[-1].name
            yield Batch(found, position)

    def add(self, records: list[Record]) -> list[bool | None]:
        added = self._add(records)
        if refused := [each.name for each, done in zip(records, added, strict=True) if not done]:
            # One that is over is in nobody's use, and in the way.
            over = self.rows.filter(session_key__in=refused, expire_date__lte=timezone.now())
            if over.delete()[0]:
                again = self._add(records)
                added = [a or b for a, b in zip(added, again, strict=True)]
        return list(added)

    def _add(self, records: list[Record]) -> list[bool]:
        with transaction.atomic(using=self.using):
            if not self.is_plain:
                return [self._insert_model(record) for record in records]
            statements = Statements(self.model, self.using)
            rows = [self._row(record) for record in records]
            if statements.connection.vendor == "mysql":
                return [self._insert(statements, row) for row in rows]
            chunks = [rows[at : at + 300] for at in range(0, len(rows), 300)]
            added = {key for chunk in chunks for key in self._insert_many(statements, chunk)}
            return [record.name in added for record in records]

    def _row(self, record: Record) -> Row:
        return Row(record.name, self.session.encode(record.data or {}), self._expires(record))

    def _expires(self, record: Record) -> datetime.datetime:
        age = datetime.timedelta(seconds=self.session.get_session_cookie_age())
        return record.expires or timezone.now() + age

    def _insert_model(self, record: Record) -> bool:
        session = open_store(self.engine, record.name)
        row = session.create_model_instance(record.data or {})
        row.session_key, row.expire_date = record.name, self._expires(record)
        try:
            with transaction.atomic(using=self.using):
                row.save(force_insert=True, using=self.using)
        except IntegrityError:
            return False
        return True

    # As Statements.insert(), but without a savepoint for each.

    def _insert(self, statements: Statements, row: Row) -> bool:
        """MySQL cannot say which of several rows it took, and an error undoes the INSERT alone."""
        sql = f"INSERT INTO {self._into(statements)} VALUES (%s, %s, %s)"
        return statements._execute(sql, statements._adapt(row), IntegrityError) == 1

    def _insert_many(self, statements: Statements, rows: list[Row]) -> list[str]:
        values = ", ".join(["(%s, %s, %s)"] * len(rows))
        sql = f"INSERT INTO {self._into(statements)} VALUES {values} ON CONFLICT DO NOTHING"
        with statements.connection.cursor() as cursor:
            cursor.execute(
                f"{sql} RETURNING {statements.key}",
                [value for row in rows for value in statements._adapt(row)],
            )
            return [key for (key,) in cursor.fetchall()]

    def _into(self, statements: Statements) -> str:
        names = f"{statements.key}, {statements.data}, {statements.expire_date}"
        return f"{statements.table} ({names})"

    def present(self, names: list[str]) -> set[str]:
        found = self.rows.filter(session_key__in=names)
        return set(found.values_list("session_key", flat=True))

    def delete(self, names: list[str]) -> None:
        self.rows.filter(session_key__in=names).delete()
        self.forget_copies(names)

    def replace(self, record: Record, data: dict[str, Any] | None, raw: Any) -> bool:
        same = self.rows.filter(session_key=record.name, session_data=record.raw)
        return bool(same.update(session_data=raw))

    def forget_copies(self, names: list[str]) -> None:
        if isinstance(self.session, DjangoCachedDBStore):
            alias = self.place.cache or settings.SESSION_CACHE_ALIAS
            prefix = self.session.cache_key_prefix
            caches[alias].delete_many([prefix + name for name in names])

    def reconnect(self) -> None:
        if not connections[self.using].in_atomic_block:
            connections[self.using].close()
