"""What a project's settings say about sessions, as a tree of texts, numbers and tables."""

import os
from importlib import import_module
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.sessions.backends import cache, cached_db, db, file, signed_cookies
from django.contrib.sessions.serializers import JSONSerializer
from django.core.cache import caches as django_caches
from django.db import router
from django.utils.module_loading import import_string

from ...backends.fallback import open_store
from ...codec import CodecMixin
from ...conf import option
from . import auth
from .caches import check_backend, databases_of, export_cache
from .common import Refused, Report, as_text, dotted_path, same_site
from .databases import export_database
from .devices import export_devices

VERSION = 1
SERIALIZER = "django.contrib.sessions.serializers.JSONSerializer"

# The first that a class is derived from; cached_db is derived from db.
ENGINES = {
    "cached_db": cached_db.SessionStore,
    "db": db.SessionStore,
    "cache": cache.SessionStore,
    "file": file.SessionStore,
    "signed_cookies": signed_cookies.SessionStore,
}
# What decides what is stored. Classes of Django and of this package have their own.
FORMAT = ("encode", "decode", "serializer", "_hash", "_legacy_decode", "_get_session_key")
# What decides where it is stored, and whether it is there.
PLACE = (
    *("cache_key", "acache_key", "_key_to_file", "_get_session_from_db", "_aget_session_from_db"),
    *("load", "save", "exists", "delete", "aload", "asave", "aexists", "adelete"),
)
# What a field of the session model may do to a value: on its way to the database, and back.
CONVERSIONS = (
    *("pre_save", "get_prep_value", "get_db_prep_value", "get_db_prep_save"),
    *("get_placeholder", "get_col", "get_db_converters"),
)


def export(report: Report, engine_name: str = "") -> dict[str, Any]:
    """All of it, in the order of the file."""
    engine = _engine(engine_name or settings.SESSION_ENGINE)
    store = _store(engine, settings.SESSION_CACHE_ALIAS)
    kind = _kind(engine)
    _check_format(engine, kind)
    databases: set[str] = set()
    caches: dict[str, Any] = {}
    tree: dict[str, Any] = {
        "version": VERSION,
        **_secret_keys(report),
        **_session(kind, store),
        "authentication_backends": list(settings.AUTHENTICATION_BACKENDS),
        # With USE_TZ, the connection of a database says in which zone its times are: UTC.
        "use_tz": settings.USE_TZ,
        "time_zone": "UTC" if settings.USE_TZ else _time_zone(),
    }
    if isinstance(store, CodecMixin):
        tree["max_inflated"] = option("MAX_INFLATED")
        if option("HASH_KEYS"):
            tree["hash_keys"] = option("HASH_KEYS")
        if option("MERGE"):
            tree["merge"] = True
    alias = settings.SESSION_CACHE_ALIAS
    _check_cache(kind, store, alias, "SESSION_CACHE_ALIAS")
    place = _place(kind, store, alias, caches, databases, report)
    fallback = None
    if isinstance(store, CodecMixin) and option("FALLBACK_ENGINE") and not engine_name:
        fallback = _fallback(caches, databases, report)
    devices = export_devices()
    optional = {
        "users": auth.user_database(),
        "devices": devices["database"] if devices else None,
    }
    return {
        **tree,
        **place,
        "fallback": fallback,
        "caches": caches or None,
        "databases": _databases(databases, optional, report) or None,
        "auth": auth.export_auth(report),
        "devices": devices,
        "csrf": auth.export_csrf(),
        "messages": auth.export_messages(),
    }


def _place(
    kind: str,
    store: Any,
    alias: str,
    caches: dict[str, Any],
    databases: set[str],
    report: Report,
) -> dict[str, Any]:
    """Which table and which cache, of which more is to be said then."""
    place: dict[str, Any] = {}
    if kind in ("db", "cached_db"):
        place |= _table(store, report)
        databases.add(place["session_database"])
    if kind in ("cache", "cached_db"):
        place["session_cache_alias"] = alias
        place["cache_key_prefix"] = _cache_key_prefix(store, kind)
        caches[alias] = export_cache(alias, report)
        databases |= databases_of(alias)
    return place


def _fallback(caches: dict[str, Any], databases: set[str], report: Report) -> dict[str, Any]:
    """The store that sessions were in before."""
    engine = _engine(option("FALLBACK_ENGINE"), "RUST_SESSIONS['FALLBACK_ENGINE']")
    alias = option("FALLBACK_CACHE_ALIAS") or settings.SESSION_CACHE_ALIAS
    kind = _kind(engine)
    _check_format(engine, kind)
    _store(engine, alias)
    store = open_store(engine, None, option("FALLBACK_CACHE_ALIAS"))
    _check_cache(kind, store, alias, "RUST_SESSIONS['FALLBACK_CACHE_ALIAS']")
    return {
        "session_engine": kind,
        "key_salt": store.key_salt,
        "session_file_path": os.path.abspath(store.storage_path) if kind == "file" else None,
        "session_cookie_age": _age(store),
        "hash_keys": (option("HASH_KEYS") or None) if isinstance(store, CodecMixin) else None,
        **_place(kind, store, alias, caches, databases, report),
    }


def _kind(engine: Any) -> str:
    return next(kind for kind, base in ENGINES.items() if issubclass(engine, base))


def _databases(needed: set[str], optional: dict[str, str | None], report: Report) -> dict[str, Any]:
    found = {alias: export_database(alias, report) for alias in sorted(needed)}
    for what, alias in optional.items():
        if alias is None or alias in found:
            continue
        # A service may do without it.
        try:
            found[alias] = export_database(alias, report)
        except Refused as error:
            report.note(f"The export leaves out the database of the {what}: {error}")
    return found


def _engine(name: str, setting: str = "SESSION_ENGINE") -> Any:
    try:
        engine = import_module(name).SessionStore
    except Exception as error:
        raise Refused(
            f"{setting} is {name!r}, which cannot be used: {type(error).__name__}: {error}"
        ) from None
    if not isinstance(engine, type) or not issubclass(engine, tuple(ENGINES.values())):
        raise Refused(
            f"{setting} is {name!r}, which is derived from none of Django's engines. "
            f"The Rust crate knows {', '.join(sorted(ENGINES))} and classes derived from them."
        )
    return engine


def _store(engine: Any, cache_alias: str) -> Any:
    if issubclass(engine, (cache.SessionStore, cached_db.SessionStore)):
        check_backend(cache_alias)
    if issubclass(engine, db.SessionStore) and not apps.is_installed("django.contrib.sessions"):
        raise Refused(
            f"SESSION_ENGINE is {settings.SESSION_ENGINE!r}, whose table belongs to an app that is "
            "missing: add 'django.contrib.sessions' to INSTALLED_APPS."
        )
    try:
        return engine()
    except Exception as error:
        raise Refused(
            f"SESSION_ENGINE is {settings.SESSION_ENGINE!r}, which does not work with these "
            f"settings: {type(error).__name__}: {error}"
        ) from None


def _is_known(module: str) -> bool:
    return module.startswith(("django.", "django_rust_sessions."))


def _check_format(engine: Any, kind: str) -> None:
    """Refuses what would make Rust read or write other bytes than Django, or elsewhere."""
    for each in engine.__mro__:
        own = [name for name in FORMAT if name in vars(each)]
        if own and not _is_known(each.__module__):
            raise Refused(
                f"{dotted_path(each)} has its own {', '.join(own)}, so that it stores sessions "
                "in a format of the project's own, which the Rust crate cannot follow."
            )
        own = [name for name in PLACE if name in vars(each)]
        if isinstance(vars(each).get("cache_key_prefix"), property):
            # What it is now, it may not be for the next session.
            own.append("cache_key_prefix as a property")
        if own and not _is_known(each.__module__):
            raise Refused(
                f"{dotted_path(each)} has its own {', '.join(own)}, so that it looks for sessions "
                "otherwise than Django's engine, which the Rust crate cannot follow. Take it out "
                "for sessions that Rust is to share. The class may have a key_salt, a "
                "cache_key_prefix that is text, a session model and a cookie age of its own."
            )
    if kind == "cache" or import_string(settings.SESSION_SERIALIZER) is JSONSerializer:
        return  # The cache engine has no use for it.
    raise Refused(
        f"SESSION_SERIALIZER is {settings.SESSION_SERIALIZER!r}. The Rust crate reads and writes "
        f"JSON as Django's own serializer does: set SESSION_SERIALIZER = {SERIALIZER!r}. Users "
        "whose session is a pickle stay logged in with RUST_SESSIONS = {'PICKLE_MIGRATION': True}."
    )


def _check_cache(kind: str, store: Any, alias: str, setting: str) -> None:
    """Refuses a class that takes another cache than the settings say."""
    if kind in ("cache", "cached_db") and store._cache is not django_caches[alias]:
        raise Refused(
            f"{dotted_path(type(store))} takes another cache than {alias!r}, which the settings "
            f"name for it. Name the alias of its cache in {setting}."
        )


def _secret_keys(report: Report) -> dict[str, Any]:
    current = report.secret(settings.SECRET_KEY, "SECRET_KEY", "SECRET_KEY")
    fallbacks = [
        report.secret(key, f"SECRET_KEY_FALLBACK_{number}", f"SECRET_KEY_FALLBACKS[{number - 1}]")
        for number, key in enumerate(settings.SECRET_KEY_FALLBACKS, 1)
    ]
    return {
        "secret_key": current,
        "secret_key_fallbacks": fallbacks or None,
    }


def _time_zone() -> str:
    if settings.TIME_ZONE:
        return str(settings.TIME_ZONE)
    raise Refused(
        f"TIME_ZONE is {settings.TIME_ZONE!r}, which is the zone of the machine: name it, e.g. "
        "TIME_ZONE = 'Europe/Berlin'. With USE_TZ = False the database has moments in that zone."
    )


def _age(store: Any) -> int:
    # A class may have an age of its own.
    age = store.get_session_cookie_age()
    if age is None:
        raise Refused(
            "SESSION_COOKIE_AGE is None: sessions have no end then, and Rust gives each one. "
            "Let it be the seconds after which a session that nobody uses may go."
        )
    return int(age)


def _session(kind: str, store: Any) -> dict[str, Any]:
    return {
        "session_engine": kind,
        "key_salt": None if kind == "signed_cookies" else store.key_salt,
        "session_file_path": os.path.abspath(store.storage_path) if kind == "file" else None,
        "session_cookie_name": settings.SESSION_COOKIE_NAME,
        "session_cookie_age": _age(store),
        "session_cookie_domain": settings.SESSION_COOKIE_DOMAIN,
        "session_cookie_path": settings.SESSION_COOKIE_PATH,
        "session_cookie_secure": bool(settings.SESSION_COOKIE_SECURE),
        "session_cookie_httponly": bool(settings.SESSION_COOKIE_HTTPONLY),
        "session_cookie_samesite": same_site(settings.SESSION_COOKIE_SAMESITE),
        "session_expire_at_browser_close": bool(settings.SESSION_EXPIRE_AT_BROWSER_CLOSE),
        "session_save_every_request": bool(settings.SESSION_SAVE_EVERY_REQUEST),
    }


def _table(store: Any, report: Report) -> dict[str, Any]:
    model = store.model
    meta = model._meta
    own = {"session_key", "session_data", "expire_date"}
    columns = {field.column for field in meta.concrete_fields}
    if not own <= columns or meta.pk.column != "session_key":
        raise Refused(
            f"The session model {meta.label} has other columns than Django's: the Rust crate needs "
            f"{', '.join(sorted(own))}."
        )
    for field in meta.concrete_fields:
        if field.column in own and _converts(type(field)):
            raise Refused(
                f"{field.name} of the session model {meta.label} is a {type(field).__name__}, "
                "which stores something else than the text or time that Django's field does. The "
                "Rust crate cannot follow that: let it be the field of AbstractBaseSession, or an "
                "engine without this model hold the sessions that Rust is to share."
            )
    more = [field for field in meta.concrete_fields if field.column not in own]
    if needed := [field.name for field in more if not _may_be_left_out(field)]:
        raise Refused(
            f"The session model {meta.label} needs a value for {', '.join(needed)}, which Rust "
            "cannot give when it creates a session. Give the field null=True or a db_default."
        )
    if more:
        names = ", ".join(field.name for field in more)
        report.note(
            f"The session model {meta.label} has {names}, which Rust leaves to the database "
            "(NULL or its default) in sessions that it creates, and does not touch in others."
        )
    write, read = router.db_for_write(model), router.db_for_read(model)
    if write != read:
        report.note(
            f"DATABASE_ROUTERS reads sessions from {read!r} and writes them to {write!r}: the "
            f"export names {write!r} for both, so that no session is read before it has arrived."
        )
    return {"db_table": meta.db_table, "session_database": write}


def _converts(field: type[Any]) -> bool:
    """Whether a field has Python or SQL of its own between the value and its column."""
    methods = [getattr(field, name, None) for name in CONVERSIONS]
    own = any(each is not None and not each.__module__.startswith("django.") for each in methods)
    return own or hasattr(field, "from_db_value")


def _may_be_left_out(field: Any) -> bool:
    from django.db.models.fields import NOT_PROVIDED

    return field.null or getattr(field, "db_default", NOT_PROVIDED) is not NOT_PROVIDED


def _cache_key_prefix(store: Any, kind: str) -> str | None:
    own: str = store.cache_key_prefix
    default = (cache if kind == "cache" else cached_db).KEY_PREFIX
    return None if own == default else as_text(own, "cache_key_prefix")


__all__ = ["Refused", "Report", "export"]
