"""The cache behind the cache and cached_db engines: Redis natively, or any of Django's caches.

Redis is spoken to natively where each option of the alias is understood; everywhere else Django's
own cache does the work. `step_aside` says which, and why. With MERGE on, memcached is asked through
Django's cache for one thing more.
"""

import importlib.util
import pickle
import random
import sys
import warnings
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.core.cache import caches
from django.core.cache.backends.base import default_key_func
from django.core.signals import setting_changed
from django.dispatch import receiver

from ..conf import option

DJANGO_REDIS_CACHE = "django.core.cache.backends.redis.RedisCache"
DJANGO_REDIS_PACKAGE_CACHE = "django_redis.cache.RedisCache"
PYMEMCACHE_CACHE = "django.core.cache.backends.memcached.PyMemcacheCache"

# What redis-py hands to its connections, and what becomes of it here.
_USED = {
    *("host", "port", "path", "db", "username", "password", "client_name"),
    *("socket_timeout", "socket_connect_timeout", "socket_keepalive"),
    *("ssl_keyfile", "ssl_certfile", "ssl_password", "ssl_cert_reqs", "ssl_check_hostname"),
    *("ssl_ca_certs", "ssl_ca_path", "ssl_ca_data", "ssl_min_version", "ssl_ciphers"),
    *("ssl_include_verify_flags", "ssl_exclude_verify_flags"),
}
# Matters of redis-py's own making, which change no answer.
_IRRELEVANT = {
    *("parser_class", "protocol", "lib_name", "lib_version", "driver_info"),
    *("socket_read_size", "health_check_interval", "himport_registry", "legacy_responses"),
    *("maint_notifications_config", "maint_notifications_pool_handler", "orig_host_address"),
    *("orig_socket_timeout", "orig_socket_connect_timeout", "event_dispatcher"),
}
# Understood at these values alone.
_DEFAULTS = {
    "decode_responses": False,
    "encoding": "utf-8",
    "encoding_errors": "strict",
    "retry_on_timeout": False,
    "ssl_validate_ocsp": False,
    "ssl_validate_ocsp_stapled": False,
}


def _is_plain(key: str) -> bool:
    """Whether memcached would take that key too; Django warns of any other."""
    return 0 < len(key) <= 250 and key.isascii() and key.isprintable() and " " not in key


if TYPE_CHECKING:
    from .memcached import MemcachedCache
    from .redis import RedisCache

    # What the engines ask of it: the methods of Django's caches, `read`, `replace` and `swap`.
    SessionCache = RedisCache | MemcachedCache


def native(alias: str) -> "SessionCache | None":
    """The cache of that alias over Redis natively, or with MERGE over memcached; None where
    Django's own must be asked."""
    found = _find(alias)
    return None if isinstance(found, str) else found


def step_aside(alias: str) -> str | None:
    """Why Django's own cache is asked; None if Redis is spoken to natively."""
    found = _find(alias)
    return found if isinstance(found, str) else getattr(found, "through_django", None)


def refuse_to_merge(alias: str) -> str | None:
    """Why MERGE, which is on, does nothing for that alias."""
    return step_aside(alias) if native(alias) is None else None


def refuse_to_keep(alias: str) -> str | None:
    """Why LOCAL_CACHE, which is on, does nothing for that alias."""
    from . import local

    if step_aside(alias):
        return "it is asked through Django"
    return local.step_aside(native(alias))  # type: ignore[arg-type]


_UNKNOWN = "{} is not one of the Redis caches that are known"


class _NotUnderstood(Exception):
    """Says which setting Django's own cache has to deal with."""


# By alias: the settings that it was made of, and the native cache, or why there is none.
_found: dict[str, tuple[Any, Any]] = {}


def _find(alias: str) -> Any:
    # A dict of its own for each alias, until CACHES changes.
    params = caches.settings.get(alias)
    known = _found.get(alias)
    if known is not None and known[0] is params:
        return known[1]
    if params is None:
        caches[alias]  # raises what Django raises
    try:
        found: Any = _make(alias, params)
    except _NotUnderstood as reason:
        found = str(reason)
    _found[alias] = (params, found)
    return found


@receiver(setting_changed)
def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting in ("CACHES", "RUST_SESSIONS"):
        _found.clear()


def _make(alias: str, params: Any) -> "SessionCache":
    backend = params["BACKEND"]
    if backend == PYMEMCACHE_CACHE and option("MERGE"):
        from .memcached import MemcachedCache

        return MemcachedCache(alias, _UNKNOWN.format(backend))
    if backend not in (DJANGO_REDIS_CACHE, DJANGO_REDIS_PACKAGE_CACHE):
        raise _NotUnderstood(_UNKNOWN.format(backend))
    if library := _monkey_patched():
        raise _NotUnderstood(f"{library} has replaced Python's sockets")
    if importlib.util.find_spec("redis") is None:
        raise _NotUnderstood("redis-py, which reads the addresses of Redis, is not installed")
    make = _from_django if backend == DJANGO_REDIS_CACHE else _from_django_redis
    djangos: Any = caches[alias]
    cache: Any = make(djangos)
    if max_bytes := option("LOCAL_CACHE"):
        from . import local

        if local.step_aside(cache) is None:
            cache = local.LocalCache(cache, max_bytes, option("LOCAL_CACHE_MAX_STALE"))
    if _calls_project(djangos, djangos._cache if make is _from_django else djangos.client):
        # Which may look at what its thread keeps: it is called where Django calls it.
        cache.calls_project = True
        for name in _METHODS:
            setattr(cache, f"a{name}", sync_to_async(getattr(cache, name)))
    return cache  # type: ignore[no-any-return]


_METHODS = ("read", "get", "add", "replace", "swap", "set", "delete", "has_key", "rename")


def _calls_project(cache: Any, client: Any) -> bool:
    """Whether the project has a function of its own for the keys or the values of that cache."""
    parts = [client._serializer, getattr(client, "_compressor", client._serializer)]
    return cache.key_func is not default_key_func or any(
        not type(part).__module__.startswith(("django.", "django_redis.")) for part in parts
    )


def _monkey_patched() -> str | None:
    if (gevent := sys.modules.get("gevent.monkey")) and gevent.is_module_patched("socket"):
        return "gevent"
    if (eventlet := sys.modules.get("eventlet.patcher")) and eventlet.is_monkey_patched("socket"):
        return "eventlet"
    return None


def _from_django(cache: Any) -> "SessionCache":
    import redis
    from django.core.cache.backends.base import CacheKeyWarning, memcache_key_warnings
    from django.core.cache.backends.redis import RedisSerializer

    from .redis import RedisCache

    client = cache._cache
    is_djangos = type(client._serializer) is RedisSerializer
    if client._pool_class is not redis.ConnectionPool:
        raise _NotUnderstood("the option pool_class is the project's own")
    pools = [client._pool_class.from_url(url, **client._pool_options) for url in client._servers]
    # Django has pools for each thread, so that no thread waits for another's connection.
    servers = [_server(pool, is_shared=False) for pool in pools]

    def make_key(key: str) -> Any:
        made = cache.make_key(key)
        if type(made) is not str or not _is_plain(made):
            for warning in memcache_key_warnings(made):
                warnings.warn(warning, CacheKeyWarning, stacklevel=6)
        return made

    def decode(data: bytes) -> Any:
        # Django asks first whether it is a number; what begins so is a pickle and no number.
        if is_djangos and data[:1] == b"\x80":
            return pickle.loads(data)
        return client._serializer.loads(data)

    def life(timeout: Any) -> tuple[bytes, int] | None:
        return None if timeout is None else (b"EX", int(timeout))

    return RedisCache(
        write=servers[0],
        reads=servers[1:] or servers,
        choose=random.choice,
        make_key=make_key,
        encode=client._serializer.dumps,
        decode=decode,
        life=life,
    )


def _from_django_redis(cache: Any) -> "SessionCache":
    import redis
    from django_redis.client import DefaultClient
    from django_redis.pool import ConnectionFactory

    from .redis import RedisCache

    client = cache.client
    if type(client) is not DefaultClient:
        raise _NotUnderstood(f"the option CLIENT_CLASS is {type(client).__name__}")
    factory = client.connection_factory
    if type(factory) is not ConnectionFactory:
        raise _NotUnderstood(f"the connection factory is {type(factory).__name__}")
    if factory.pool_cls is not redis.ConnectionPool:
        raise _NotUnderstood("the option CONNECTION_POOL_CLASS is the project's own")
    if factory.redis_client_cls is not redis.Redis or factory.redis_client_cls_kwargs:
        raise _NotUnderstood("the option REDIS_CLIENT_CLASS or REDIS_CLIENT_KWARGS is set")
    if not client._replica_read_only:
        raise _NotUnderstood("the option REPLICA_READ_ONLY is off")
    params = [factory.make_connection_params(url) for url in client._server]
    servers = [_server(factory.get_connection_pool(each)) for each in params]
    ignored = (redis.ConnectionError, redis.TimeoutError, redis.ResponseError)

    def life(timeout: Any) -> tuple[bytes, int] | None:
        return None if timeout is None else (b"PX", int(timeout * 1000))

    def forgive(error: Exception) -> bool:
        if not cache._ignore_exceptions or not isinstance(error, ignored):
            return False
        if cache._log_ignored_exceptions:
            cache.logger.exception("Exception ignored")
        return True

    return RedisCache(
        write=servers[0],
        reads=servers[1:] or servers,
        choose=random.choice,
        make_key=cache.make_key,
        encode=client.encode,
        decode=client.decode,
        life=life,
        forgive=forgive,
    )


def _server(pool: Any, *, is_shared: bool = True) -> Any:
    """The server that a pool of redis-py would connect to, which threads share or not."""
    from redis import connection

    from .redis import Address, Server

    known = (connection.Connection, connection.SSLConnection, connection.UnixDomainSocketConnection)
    if pool.connection_class not in known:
        raise _NotUnderstood("the option connection_class is the project's own")
    options = pool.connection_kwargs
    for name, value in options.items():
        if name in _USED or name in _IRRELEVANT:
            continue
        if name not in _DEFAULTS or _DEFAULTS[name] != value:
            raise _NotUnderstood(f"the option {name} is set")
    address = Address(
        pool.connection_class(**options),
        options.get("socket_connect_timeout", option("REDIS_CONNECT_TIMEOUT")) or None,
        options.get("socket_timeout", option("REDIS_TIMEOUT")) or None,
    )
    # redis-py's word for "as many as there are threads" is a very large number.
    limit = pool.max_connections
    return Server(address, limit if is_shared and limit and limit < 2**16 else None)
