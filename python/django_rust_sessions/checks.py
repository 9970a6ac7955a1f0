"""What `manage.py check` says of the session settings.

Only settings are read: no check opens a connection to Redis or to a database, and none raises.
"""

import contextlib
import difflib
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.sessions.middleware import SessionMiddleware as DjangoMiddleware
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.checks import CheckMessage, Error, Info, Tags, Warning, register
from django.core.checks.security import sessions as django_checks
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, router
from django.utils.encoding import force_bytes
from django.utils.module_loading import import_string

from . import caches
from .backends import cache, cached_db, db, file, merge, signed_cookies
from .backends.keys import HashedKeysMixin
from .codec import CodecMixin
from .conf import DEFAULTS, option
from .middleware import SessionMiddleware

TAG = "sessions"
NAME = "django_rust_sessions"
ENGINES = ["db", "cache", "cached_db", "file", "signed_cookies"]
# NIST's word for a key of HMAC-SHA256. `check --deploy` asks for 50 characters.
SHORT_KEY = 32


def register_all() -> None:
    for check in (
        check_engine,
        check_options,
        check_options_of_ours,
        check_idle_options,
        check_hashed_keys,
        check_merge,
        check_cache,
        check_serializer,
        check_middleware,
    ):
        register(check, TAG)
    register(check_secret_key, TAG, Tags.security)
    for check in (check_cookie, check_migration):
        register(check, TAG, Tags.security, deploy=True)


def check_engine(**kwargs: Any) -> list[CheckMessage]:
    """Whether SESSION_ENGINE can be used, and who does its work."""
    name = settings.SESSION_ENGINE
    try:
        engine = import_module(name).SessionStore
    except Exception as error:
        return [_bad_engine(name, error)]
    if not _is_subclass(engine, CodecMixin):
        return [_not_ours(name)]
    if _lacks_cache(engine):
        return []  # says check_cache
    if issubclass(engine, db.DatabaseSessionStore) and not apps.is_installed(
        "django.contrib.sessions"
    ):
        return [
            Error(
                f"SESSION_ENGINE is {name!r}, whose table belongs to an app that is missing.",
                hint="Add 'django.contrib.sessions' to INSTALLED_APPS, and run migrate.",
                id=f"{NAME}.E003",
            )
        ]
    try:
        store = engine()
        return list(_describe(name, getattr(store, "_plain", store)))  # without the fallback
    except Exception as error:
        return [
            Error(
                f"SESSION_ENGINE {name!r} does not work with these settings: {_sentence(error)}",
                hint=_remedy(engine),
                id=f"{NAME}.E004",
            )
        ]


def check_options(**kwargs: Any) -> list[CheckMessage]:
    """Unknown and wrong options, which would fail the first request."""
    options = getattr(settings, "RUST_SESSIONS", None)
    unknown = set(options) - DEFAULTS.keys() if isinstance(options, dict) else set()
    closest = [match for name in sorted(unknown, key=str) if (match := _closest(name, DEFAULTS))]
    meant = f" Is {', '.join(map(repr, closest))} what you mean?" if closest else ""
    return [
        Error(sentence, hint=f"Correct RUST_SESSIONS.{meant}", id=f"{NAME}.E002")
        for sentence in sorted(set(filter(None, map(_wrong_option, DEFAULTS))))
    ]


def check_options_of_ours(**kwargs: Any) -> list[CheckMessage]:
    """What only our engines know, with another one in SESSION_ENGINE: users are logged out."""
    engine = _import(f"{settings.SESSION_ENGINE}.SessionStore")
    if engine is None or _is_subclass(engine, CodecMixin):
        return []
    return [
        Error(
            f"RUST_SESSIONS[{name!r}] is {option(name)!r}, and SESSION_ENGINE "
            f"{settings.SESSION_ENGINE!r} is none of {NAME}: {what}.",
            hint="Keep the engine of the same name of ours until that is over: 'To go back' in "
            f"{page}. Then take the option out.",
            id=f"{NAME}.E006",
        )
        for name, page, what in (
            (
                "HASH_KEYS",
                "docs/hash-keys.md",
                "sessions are in the store under hashes of their keys, which nobody has, and "
                "whoever reads the store can log in with them",
            ),
            (
                "FALLBACK_ENGINE",
                "docs/migrate.md",
                "sessions that are still in the other store are not found",
            ),
        )
        if not _wrong_option(name) and option(name) not in (None, "", "plain")
    ]


def check_idle_options(**kwargs: Any) -> list[CheckMessage]:
    """Options that are on and do nothing."""
    engine = _our_engine()
    if engine is None:
        return []
    is_database = issubclass(engine, db.DatabaseSessionStore)
    idle = {
        "LOCAL_CACHE": not issubclass(engine, cache.CacheMixin),
        "FILE_FSYNC": not issubclass(engine, file.SessionStore),
        "POSTGRES_ASYNC_COMMIT": not (is_database and _has_vendor("postgresql")),
        "FALLBACK_CACHE_ALIAS": not _wrong_option("FALLBACK_ENGINE")
        and not option("FALLBACK_ENGINE"),
    }
    return [
        Warning(
            f"RUST_SESSIONS[{name!r}] does nothing with these settings.",
            hint=f"Take it out, or see {name} in docs/settings.md for what it needs.",
            id=f"{NAME}.W012",
        )
        for name, is_idle in idle.items()
        if is_idle and not _wrong_option(name) and option(name)
    ]


def check_hashed_keys(**kwargs: Any) -> list[CheckMessage]:
    """HASH_KEYS where no store has keys to hash."""
    engine = _our_engine()
    if engine is None or _wrong_option("HASH_KEYS") or not option("HASH_KEYS"):
        return []
    if issubclass(engine, HashedKeysMixin):
        return []
    return [
        Warning(
            f"RUST_SESSIONS['HASH_KEYS'] is set, and SESSION_ENGINE {settings.SESSION_ENGINE!r} "
            "stores no session on the server.",
            hint="Take HASH_KEYS out, or choose another of the engines.",
            id=f"{NAME}.W010",
        )
    ]


def check_merge(**kwargs: Any) -> list[CheckMessage]:
    """MERGE where sessions are saved as ever."""
    engine = _our_engine()
    if engine is None or _wrong_option("MERGE") or not option("MERGE") or _lacks_cache(engine):
        return []
    try:
        reason = _refuse_to_merge(engine)
    except Exception:
        return []  # says check_engine
    if reason is None:
        return []
    return [
        Warning(
            f"RUST_SESSIONS['MERGE'] does nothing with SESSION_ENGINE "
            f"{settings.SESSION_ENGINE!r}: {reason}. Sessions are saved whole, as ever.",
            hint="Take MERGE out, or choose a database, Redis or memcached for the sessions.",
            id=f"{NAME}.W011",
        )
    ]


def _refuse_to_merge(engine: type[Any]) -> str | None:
    if issubclass(engine, signed_cookies.SessionStore):
        return "the session is in the cookie"
    if issubclass(engine, db.DatabaseSessionStore):
        return db.step_aside(engine(), db.SAVE) or db.refuse_database(DEFAULT_DB_ALIAS)
    if issubclass(engine, cache.CacheMixin):
        return caches.refuse_to_merge(settings.SESSION_CACHE_ALIAS)
    return None if merge.CAN_LOCK_FILES else "this system has no flock()"


def check_cache(**kwargs: Any) -> list[CheckMessage]:
    """A cache that forgets sessions, or that other processes do not see."""
    engine = _our_engine()
    if engine is None or not issubclass(engine, cache.CacheMixin):
        return []
    alias = settings.SESSION_CACHE_ALIAS
    if _lacks_cache(engine):
        closest = _closest(alias, settings.CACHES)
        meant = f" Is {closest!r} what you mean?" if closest else ""
        return [
            Error(
                f"SESSION_CACHE_ALIAS is {alias!r}, which is not in CACHES.",
                hint=f"CACHES has {', '.join(map(repr, settings.CACHES))}.{meant}",
                id=f"{NAME}.E005",
            )
        ]
    backend = _import(settings.CACHES[alias].get("BACKEND"))
    in_database = issubclass(engine, cached_db.SessionStore)
    if _is_subclass(backend, DummyCache) and not in_database:
        problem = "is a DummyCache: it keeps nothing, and each request has a new session"
    elif _is_subclass(backend, LocMemCache) and in_database:
        problem = (
            "is a LocMemCache, of which each process has its own: "
            "who logs out in one may still be logged in in another"
        )
    elif _is_subclass(backend, LocMemCache):
        problem = (
            "is a LocMemCache, of which each process has its own: "
            "sessions are not seen by other processes, and lost when theirs ends"
        )
    else:
        return []
    return [
        Warning(
            f"Sessions are in the cache {alias!r}, which {problem}.",
            hint="Let SESSION_CACHE_ALIAS name a cache in Redis, Valkey or memcached.",
            id=f"{NAME}.W005",
        )
    ]


def check_serializer(**kwargs: Any) -> list[CheckMessage]:
    """Pickles in cookies: who learns SECRET_KEY then runs code on the server."""
    engine = _our_engine()
    if engine is None or not issubclass(engine, signed_cookies.SessionStore):
        return []
    serializer = _import(settings.SESSION_SERIALIZER)
    if serializer is None or not _reads_pickles(serializer):
        return []
    return [
        Warning(
            f"SESSION_SERIALIZER is {settings.SESSION_SERIALIZER!r}, which reads pickles, and "
            "sessions are in cookies: whoever learns SECRET_KEY can run code on your server.",
            hint="Set SESSION_SERIALIZER to 'django.contrib.sessions.serializers.JSONSerializer'. "
            "RUST_SESSIONS = {'PICKLE_MIGRATION': True} then keeps the users logged in.",
            id=f"{NAME}.W004",
        )
    ]


def check_middleware(**kwargs: Any) -> list[CheckMessage]:
    """Two session middlewares: the inner one replaces the session that the outer one saves."""
    found = list(_session_middleware())
    if len(found) < 2 or not any(issubclass(each, SessionMiddleware) for _, each in found):
        return []
    names = " and ".join(repr(path) for path, _ in found)
    return [
        Warning(
            f"MIDDLEWARE has {names}: each makes a session for the request.",
            hint=f"Keep one of them: '{NAME}.middleware.SessionMiddleware' stands in for Django's.",
            id=f"{NAME}.W006",
        )
    ]


def check_secret_key(**kwargs: Any) -> list[CheckMessage]:
    """Of sites that are not being developed. With --deploy, Django asks for more (W009)."""
    try:
        length = len(force_bytes(settings.SECRET_KEY))
    except ImproperlyConfigured:
        return []  # which Django says in each command
    if settings.DEBUG or length >= SHORT_KEY or _our_engine() is None:
        return []
    return [
        Warning(
            f"SECRET_KEY has {length} bytes. Who guesses it can forge sessions.",
            hint=f"Let it be random and have at least {SHORT_KEY} bytes: "
            "django.core.management.utils.get_random_secret_key() makes one. "
            "Until sessions are signed anew, keep the old one in SECRET_KEY_FALLBACKS.",
            id=f"{NAME}.W001",
        )
    ]


def check_cookie(**kwargs: Any) -> list[CheckMessage]:
    """Where Django, which looks for its own middleware by name, does not see that there is ours."""
    if not any(issubclass(each, SessionMiddleware) for _, each in _session_middleware()):
        return []
    messages: list[CheckMessage] = []
    if not settings.SESSION_COOKIE_SECURE and not _already(
        django_checks.check_session_cookie_secure
    ):
        messages.append(
            Warning(
                "SESSION_COOKIE_SECURE is not set to True: browsers send the session's cookie "
                "over plain HTTP too, for everybody on the way to read.",
                hint="Set SESSION_COOKIE_SECURE = True.",
                id=f"{NAME}.W002",
            )
        )
    if not settings.SESSION_COOKIE_HTTPONLY and not _already(
        django_checks.check_session_cookie_httponly
    ):
        messages.append(
            Warning(
                "SESSION_COOKIE_HTTPONLY is not set to True: scripts in your pages can read the "
                "session's cookie.",
                hint="Set SESSION_COOKIE_HTTPONLY = True.",
                id=f"{NAME}.W003",
            )
        )
    return messages


def check_migration(**kwargs: Any) -> list[CheckMessage]:
    """What is meant for the time after an upgrade."""
    what = {
        "LEGACY": "sessions that are signed with sha1 are accepted",
        "PICKLE_MIGRATION": "sessions that are pickles are read",
    }
    return [
        Warning(
            f"RUST_SESSIONS[{name!r}] is on: {text}.",
            hint="Take it out when the sessions of before the upgrade have expired, which takes "
            "SESSION_COOKIE_AGE seconds.",
            id=f"{NAME}.W00{number}",
        )
        for number, (name, text) in enumerate(what.items(), 7)
        if not _wrong_option(name) and option(name)
    ]


# -------------------------------------------------------------------------------- of check_engine


def _bad_engine(name: str, error: Exception) -> CheckMessage:
    names = [f"{NAME}.backends.{engine}" for engine in ENGINES]
    closest = _closest(name, names + [_django_name(engine) for engine in ENGINES])
    return Error(
        f"SESSION_ENGINE is {name!r}, which cannot be used: {_sentence(error)}",
        hint=f"Is {closest!r} what you mean?"
        if closest
        else f"It must be a module with a class SessionStore: {', '.join(names)}, for instance.",
        id=f"{NAME}.E001",
    )


def _not_ours(name: str) -> CheckMessage:
    twin = {_django_name(engine): f"{NAME}.backends.{engine}" for engine in ENGINES}.get(name)
    hint = f"Set SESSION_ENGINE = {twin!r}: nobody is logged out." if twin else None
    return Info(
        f"SESSION_ENGINE is {name!r}: no engine of {NAME} is in use.",
        hint=hint,
        id=f"{NAME}.I003",
    )


def _describe(name: str, store: Any) -> Iterator[CheckMessage]:
    """Which parts of the work are done natively, and which are left to Django, and why."""
    native, left = [], []
    if isinstance(store, db.DatabaseSessionStore):
        operations = _database_operations(store)
        for reason in dict.fromkeys(operations.values()):
            names = ", ".join(each for each in operations if operations[each] == reason)
            if reason is None:
                native.append(f"{names} each send one plain statement to the database")
            else:
                left.append(f"{names} run Django's own code: {reason}")
    if isinstance(store, file.SessionStore):
        own = [f"{each}()" for each in sorted(file._DEFINED) if file._has_own(type(store), (each,))]
        if own:
            left.append(
                f"what uses {', '.join(own)} of {type(store).__name__} is Django's own code"
            )
    if isinstance(store, cache.CacheMixin):
        alias = settings.SESSION_CACHE_ALIAS
        reason = caches.step_aside(alias)
        if reason is None and store._native is None:
            reason = f"{type(store).__name__} has a cache of its own"
        if reason is None:
            native.append(f"the cache {alias!r} is Redis, which is spoken to natively")
        else:
            left.append(f"the cache {alias!r} is asked through Django: {reason}")
        if option("LOCAL_CACHE"):
            if refused := caches.refuse_to_keep(alias):
                left.append(f"RUST_SESSIONS['LOCAL_CACHE'] keeps nothing of {alias!r}: {refused}")
            else:
                native.append("what is loaded stays in the process until Redis says otherwise")
    if native or not left:
        yield Info(
            f"SESSION_ENGINE is {name!r}: {'; '.join(native) or 'all of it is native'}.",
            hint=f"Nothing is to be done. '{NAME}.I001' in SILENCED_SYSTEM_CHECKS hides this.",
            id=f"{NAME}.I001",
        )
    for sentence in left:
        yield Info(
            f"SESSION_ENGINE is {name!r}: {sentence}.",
            hint="Sessions work as with Django's engine, and as fast. "
            f"'{NAME}.I002' in SILENCED_SYSTEM_CHECKS hides this.",
            id=f"{NAME}.I002",
        )


def _database_operations(store: Any) -> dict[str, str | None]:
    read, write = router.db_for_read(store.model), router.db_for_write(store.model)
    operations = {
        "load": (db.LOAD, read),
        "save": (db.SAVE, write),
        "create": (db.CREATE, write),
        "delete": (db.DELETE, DEFAULT_DB_ALIAS),
    }
    return {
        name: db.step_aside(store, operation) or db.refuse_database(using)
        for name, (operation, using) in operations.items()
    }


# ----------------------------------------------------------------------------------------- helpers


def _our_engine() -> type[Any] | None:
    """The class of SESSION_ENGINE if it is one of ours, or made of one."""
    engine = _import(f"{settings.SESSION_ENGINE}.SessionStore")
    return engine if _is_subclass(engine, CodecMixin) else None


def _lacks_cache(engine: type[Any]) -> bool:
    uses_cache = issubclass(engine, cache.CacheMixin)
    return uses_cache and settings.SESSION_CACHE_ALIAS not in settings.CACHES


def _session_middleware() -> Iterator[tuple[str, type]]:
    for path in settings.MIDDLEWARE:
        middleware = _import(path)
        if _is_subclass(middleware, DjangoMiddleware):
            yield path, middleware


def _reads_pickles(serializer: Any) -> bool:
    """PickleSerializer was Django's until 4.2, and projects have theirs. So it is asked: `}.` is
    the pickle of an empty dict, and nothing else."""
    with contextlib.suppress(Exception):
        return bool(serializer().loads(b"}.") == {})
    return False


def _already(django_check: Callable[..., Any]) -> bool:
    return bool(django_check(None))


def _wrong_option(name: str) -> str | None:
    try:
        option(name)
    except ImproperlyConfigured as error:
        return str(error)
    return None


def _remedy(engine: type[Any]) -> str:
    if str(settings.SESSION_SERIALIZER).endswith(".PickleSerializer"):
        return (
            "If the serializer is what is missing, take SESSION_SERIALIZER out, and set "
            "RUST_SESSIONS = {'PICKLE_MIGRATION': True}: the users stay logged in."
        )
    if issubclass(engine, cache.CacheMixin):
        # An address has a password in it: the error is not shown.
        return (
            f"See CACHES[{settings.SESSION_CACHE_ALIAS!r}]: its LOCATION, as in "
            "'redis://127.0.0.1:6379/1', and its OPTIONS."
        )
    return "Correct the setting that is named, or see how Django's engine takes it."


def _has_vendor(vendor: str) -> bool:
    with contextlib.suppress(Exception):
        return any(db._vendor(each["ENGINE"]) == vendor for each in settings.DATABASES.values())
    return True


def _sentence(error: Exception) -> str:
    # Others may quote a setting: an address of Redis has its password in it.
    known = isinstance(error, ImproperlyConfigured | ImportError | AttributeError)
    return str(error) if known and str(error) else f"it raises {type(error).__name__}."


def _import(path: Any) -> Any:
    with contextlib.suppress(Exception):
        return import_string(path)
    return None


def _is_subclass(cls: Any, base: type) -> bool:
    return isinstance(cls, type) and issubclass(cls, base)


def _django_name(engine: str) -> str:
    return f"django.contrib.sessions.backends.{engine}"


def _closest(name: Any, names: Any) -> str | None:
    return next(iter(difflib.get_close_matches(str(name), list(names), 1)), None)
