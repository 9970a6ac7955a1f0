"""Other databases than pytest-django's, in which the session table is made."""

import contextlib

import pytest
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import ConnectionHandler

PREPARED = "postgresql, prepared"
# What lets psycopg prepare statements, from the first time on.
PREPARING = {"server_side_binding": True, "prepare_threshold": 0}
KINDS = ["sqlite", "sqlite-file", "postgresql", PREPARED, "mariadb"]


def settings_of(kind, request):
    """What stands in DATABASES for a private database of that kind."""
    if kind == "sqlite":
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    if kind == "sqlite-file":
        folder = request.getfixturevalue("tmp_path_factory").mktemp("database")
        return sqlite_file(folder / "db.sqlite3")
    if kind in ("postgresql", PREPARED):
        options = PREPARING if kind == PREPARED else {}
        return server_settings("postgresql", request.getfixturevalue("postgres_server"), **options)
    pymysql = pytest.importorskip("pymysql", reason="PyMySQL is not installed")
    pymysql.install_as_MySQLdb()
    return server_settings("mysql", request.getfixturevalue("mariadb_server"))


def server_settings(engine, where, **options):
    return {
        "ENGINE": f"django.db.backends.{engine}",
        "NAME": where["database"],
        "USER": where["user"],
        "PASSWORD": where["password"],
        "HOST": where["host"],
        "PORT": where["port"],
        "OPTIONS": options,
    }


def sqlite_file(path):
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(path),
        "OPTIONS": {"timeout": 60},
    }


@contextlib.contextmanager
def database(alias, settings):
    """The alias means this database, with an empty session table, and then what it meant before."""
    # Not above: conftest.py imports this before there are settings.
    from django.contrib.sessions.models import Session

    missing = object()
    before = connections.settings.get(alias)
    connection_before = getattr(connections._connections, alias, missing)
    # The handler fills in what is left out.
    connections.settings[alias] = ConnectionHandler({"default": settings}).settings["default"]
    with contextlib.suppress(AttributeError):
        del connections[alias]
    connection = connections[alias]
    try:
        with connection.schema_editor() as editor:
            editor.create_model(Session)
        try:
            yield connection
        finally:
            with connection.schema_editor() as editor:
                editor.delete_model(Session)
    finally:
        # Not the subclass's own, which keeps a database in memory.
        BaseDatabaseWrapper.close(connection)
        del connections[alias]
        del connections.settings[alias]
        if before is not None:
            connections.settings[alias] = before
        if connection_before is not missing:
            connections[alias] = connection_before
