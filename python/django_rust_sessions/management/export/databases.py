"""DATABASES as the Rust crate reads them."""

import os
from typing import Any

from django.db import connections

from .common import Refused, Report, as_text, take_options

VENDORS = {"postgresql": "postgresql", "postgis": "postgresql", "mysql": "mysql"}
VENDORS |= {"sqlite3": "sqlite3", "spatialite": "sqlite3"}

POSTGRESQL = {"sslmode", "sslrootcert", "sslcert", "sslkey", "options", "connect_timeout"}
POSTGRESQL |= {"application_name", "assume_role"}
POSTGRESQL_IRRELEVANT = {"pool", "isolation_level", "server_side_binding", "client_encoding"}
POSTGRESQL_IRRELEVANT |= {"keepalives", "keepalives_idle", "keepalives_interval"}
POSTGRESQL_IRRELEVANT |= {"keepalives_count", "tcp_user_timeout", "cursor_factory"}
POSTGRESQL_IRRELEVANT |= {"prepare_threshold", "context", "fallback_application_name"}

MYSQL = {"init_command", "unix_socket", "charset", "ssl", "ssl_mode", "connect_timeout"}
MYSQL |= {"isolation_level"}
MYSQL_IRRELEVANT = {"sql_mode", "use_unicode", "autocommit", "conv"}
MYSQL_IRRELEVANT |= {"read_timeout", "write_timeout", "compress", "local_infile", "collation"}
MYSQL_IRRELEVANT |= {"program_name", "client_flag"}

SQLITE = {"timeout", "transaction_mode", "init_command"}
SQLITE_IRRELEVANT = {"check_same_thread", "cached_statements", "detect_types", "isolation_level"}
SQLITE_IRRELEVANT |= {"uri"}


def export_database(alias: str, report: Report) -> dict[str, Any]:
    """One of DATABASES."""
    settings = connections.settings[alias]
    where = f"DATABASES[{alias!r}]"
    engine = _engine(settings["ENGINE"], where)
    if engine == "sqlite3":
        found = {"name": _sqlite_file(settings, where)}
    else:
        found = _server(alias, settings, report, where)
    options = dict(settings["OPTIONS"])
    return {
        "engine": engine,
        **found,
        "time_zone": settings["TIME_ZONE"],
        **(_pgbouncer(settings, engine, report, where)),
        "options": _options(engine, options, where) or None,
    }


def _engine(name: str, where: str) -> str:
    # django_prometheus.db.backends.postgresql and others wrap Django's own under the same name.
    engine = VENDORS.get(name.rpartition(".")[2])
    if engine is None:
        raise Refused(
            f"{where}['ENGINE'] is {name!r}. The Rust crate knows PostgreSQL, MySQL, MariaDB and "
            "SQLite: let the sessions be in one of those."
        )
    return engine


def _sqlite_file(settings: dict[str, Any], where: str) -> str:
    name = as_text(settings["NAME"], where)
    if ":memory:" in name or name.startswith("file:"):
        raise Refused(
            f"{where}['NAME'] is {name!r}, which another process cannot open. "
            "Let it be the path of a file."
        )
    return os.path.abspath(name)


def _server(alias: str, settings: dict[str, Any], report: Report, where: str) -> dict[str, Any]:
    options = settings["OPTIONS"]
    for elsewhere in ("service", "passfile", "read_default_file", "read_default_group"):
        if options.get(elsewhere):
            raise Refused(
                f"{where}['OPTIONS'] has {elsewhere!r}: what is in that file is not known here. "
                "Write NAME, USER, PASSWORD, HOST and PORT into the settings in its place."
            )
    name = settings["NAME"] or options.pop("db", None) or options.pop("database", None)
    if not name:
        raise Refused(f"{where} has no 'NAME'. Write the name of the database there.")
    found = {
        "name": as_text(name, where),
        "user": as_text(settings["USER"], where) or None,
        "host": as_text(settings["HOST"], where) or None,
        "port": int(settings["PORT"]) if settings["PORT"] else None,
    }
    password = settings["PASSWORD"]
    if callable(password):
        raise Refused(f"{where}['PASSWORD'] is a function, which Rust cannot call.")
    if password:
        source = f"{where}['PASSWORD']"
        found["password"] = report.secret(password, f"DATABASES_{alias}_PASSWORD", source)
    return found


def _pgbouncer(settings: dict[str, Any], engine: str, report: Report, where: str) -> dict[str, Any]:
    # What Django's documentation asks for behind a pooler in transaction mode.
    if engine != "postgresql" or not settings.get("DISABLE_SERVER_SIDE_CURSORS"):
        return {}
    report.note(
        f"{where} has DISABLE_SERVER_SIDE_CURSORS, so the export says pgbouncer = true: "
        "the Rust crate then keeps nothing on a connection between two transactions."
    )
    return {"pgbouncer": True}


def _options(engine: str, options: dict[str, Any], where: str) -> dict[str, Any]:
    where = f"{where}['OPTIONS']"
    if engine == "postgresql":
        return take_options(options, POSTGRESQL, POSTGRESQL_IRRELEVANT, where)
    if engine == "mysql":
        return take_options(options, MYSQL, MYSQL_IRRELEVANT, where)
    return take_options(options, SQLITE, SQLITE_IRRELEVANT, where)
