"""CACHES as the Rust crate reads them."""

import os
import re
from typing import Any

from django.conf import settings
from django.core.cache import caches
from django.core.cache.backends.base import default_key_func
from django.db import router

from .common import Refused, Report, as_text, dotted_path, take_options

DJANGO = "django.core.cache.backends."
SERIALIZERS = {
    "PickleSerializer": "pickle",
    "JSONSerializer": "json",
    "MSGPackSerializer": "msgpack",
}
COMPRESSORS = {
    "identity.IdentityCompressor": "none",
    "zlib.ZlibCompressor": "zlib",
    "gzip.GzipCompressor": "gzip",
    "lz4.Lz4Compressor": "lz4",
    "lzma.LzmaCompressor": "lzma",
    "zstd.ZStdCompressor": "zstd",
}
# Options of redis-py's connections.
REDIS = {"username", "password", "db", "socket_timeout", "socket_connect_timeout"}
REDIS |= {"ssl_cert_reqs", "ssl_check_hostname", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}
REDIS_IRRELEVANT = {
    *("max_connections", "health_check_interval", "retry_on_timeout", "retry_on_error", "retry"),
    *("socket_keepalive", "socket_keepalive_options", "socket_type", "client_name", "protocol"),
    *("lib_name", "lib_version", "driver_info", "parser_class", "timeout", "queue_class"),
    *("socket_read_size", "decode_responses", "encoding", "encoding_errors"),
}
# Options of django-redis.
DJANGO_REDIS = {
    *("CLIENT_CLASS", "USERNAME", "PASSWORD", "SOCKET_TIMEOUT", "SOCKET_CONNECT_TIMEOUT"),
    *("CONNECTION_POOL_KWARGS", "CONNECTION_POOL_CLASS", "CONNECTION_FACTORY", "SERIALIZER"),
    *("COMPRESSOR", "PICKLE_VERSION", "SENTINELS", "SENTINEL_KWARGS", "REPLICA_READ_ONLY"),
}
DJANGO_REDIS_IRRELEVANT = {
    *("IGNORE_EXCEPTIONS", "LOG_IGNORED_EXCEPTIONS", "PARSER_CLASS", "MAX_ENTRIES"),
    *("CULL_FREQUENCY", "CLOSE_CONNECTION", "REDIS_CLIENT_KWARGS", "REDIS_CLIENT_CLASS"),
}
PYMEMCACHE = {"connect_timeout", "timeout", "max_pool_size", "key_prefix"}
PYMEMCACHE_IRRELEVANT = {
    *("use_pooling", "no_delay", "ignore_exc", "pool_idle_timeout", "lock_generator"),
    *("retry_attempts", "retry_timeout", "dead_timeout", "default_noreply", "socket_keepalive"),
    *("allow_unicode_keys", "socket_module", "encoding", "serde"),
}
CULLING = {"MAX_ENTRIES", "CULL_FREQUENCY"}


def check_backend(alias: str) -> None:
    """Refuses what cannot be exported, before Django makes the cache."""
    try:
        params = settings.CACHES[alias]
    except KeyError:
        raise Refused(
            f"SESSION_CACHE_ALIAS is {alias!r}, which is not in CACHES. "
            f"CACHES has {', '.join(map(repr, settings.CACHES))}."
        ) from None
    backend = dotted_path(params["BACKEND"])
    if backend not in _BACKENDS:
        raise _unknown_backend(backend, f"CACHES[{alias!r}]")


def export_cache(alias: str, report: Report) -> dict[str, Any]:
    """One of CACHES."""
    params = settings.CACHES[alias]
    where = f"CACHES[{alias!r}]"
    cache = caches[alias]
    export = _BACKENDS[dotted_path(params["BACKEND"])]
    return {
        "key_prefix": as_text(cache.key_prefix, where),
        # Django's own function shows it in the keys, whatever it is: None becomes "None".
        "version": cache.version if type(cache.version) is int else str(cache.version),
        "key_function": _key_function(cache, report, where),
        **export(alias, cache, params, report, where),
    }


def databases_of(alias: str) -> set[str]:
    """Aliases of the databases that a cache is kept in."""
    cache = caches[alias]
    if hasattr(cache, "cache_model_class"):
        return {router.db_for_write(cache.cache_model_class)}
    return set()


def _unknown_backend(backend: str, where: str) -> Refused:
    if backend.endswith(".LocMemCache"):
        return Refused(
            f"{where} is a LocMemCache, which is in the memory of each process: no other process "
            "can see it. Let SESSION_CACHE_ALIAS name a cache in Redis, Valkey or memcached."
        )
    if backend.endswith(".DummyCache"):
        return Refused(
            f"{where} is a DummyCache, which keeps nothing. "
            "Let SESSION_CACHE_ALIAS name a cache in Redis, Valkey or memcached."
        )
    return Refused(
        f"{where}['BACKEND'] is {backend!r}, of which the Rust crate knows nothing. "
        f"It knows {', '.join(_BACKENDS)}."
    )


def _key_function(cache: Any, report: Report, where: str) -> str | None:
    if cache.key_func is default_key_func:
        return None
    path = dotted_path(cache.key_func)
    report.note(
        f"{where} has the KEY_FUNCTION {path}, which Rust cannot call: the Rust service has to "
        "bring a function that does the same (settings::KeyFunction::Rust)."
    )
    return path


# ------------------------------------------------------------------------------------------ Redis


def _has_secret(url: str) -> bool:
    # Not only where a parser finds a password: in `redis://:pa/ss@host` none does.
    return "@" in url or "password" in url.lower()


def _locations(alias: str, servers: Any, report: Report, where: str) -> list[Any]:
    urls = [as_text(url, where) for url in servers]
    several = len(urls) > 1
    found: list[Any] = []
    for number, url in enumerate(urls):
        source = f"{where}['LOCATION']" + (f", number {number + 1}" if several else "")
        name = f"CACHES_{alias}_LOCATION" + (f"_{number + 1}" if several else "")
        found.append(report.secret(url, name, source) if _has_secret(url) else url)
    return found


def _password(
    alias: str, options: dict[str, Any], report: Report, where: str, name: str = "password"
) -> None:
    if options.get("password"):
        source = f"{where}['{name}']"
        options["password"] = report.secret(options["password"], f"CACHES_{alias}_PASSWORD", source)
    else:
        options.pop("password", None)


def _connection_options(options: dict[str, Any], where: str) -> dict[str, Any]:
    for name, value in (("decode_responses", False), ("encoding", "utf-8")):
        if options.get(name, value) != value:
            raise Refused(f"{where} has {name!r}, which changes what is stored. Take it out.")
    found = take_options(options, REDIS, REDIS_IRRELEVANT, where)
    if "db" in found:
        # Redis takes it as text too, such as that of an environment variable.
        found["db"] = int(found["db"])
    if "ssl_cert_reqs" in found:
        # None, a word, or one of the ssl module's numbers.
        reqs = found["ssl_cert_reqs"]
        found["ssl_cert_reqs"] = reqs if isinstance(reqs, str) else _CERT_REQS[int(reqs)]
    elif "ssl_cert_reqs" in options:
        found["ssl_cert_reqs"] = "none"
    return found


_CERT_REQS = ["none", "optional", "required"]


def _redis(alias: str, cache: Any, params: Any, report: Report, where: str) -> dict[str, Any]:
    options = dict(params.get("OPTIONS") or {})
    in_options = f"{where}['OPTIONS']"
    _refuse_own_class(options, "serializer", in_options)
    _refuse_own_class(options, "pool_class", in_options, "ConnectionPool")
    found = _connection_options(options, in_options)
    _password(alias, found, report, in_options)
    return {
        "backend": "redis",
        "location": _locations(alias, cache._servers, report, where),
        "options": found or None,
    }


def _refuse_own_class(options: dict[str, Any], name: str, where: str, *known: str) -> None:
    value = options.pop(name, None)
    if value is not None and dotted_path(value).rpartition(".")[2] not in known:
        raise Refused(
            f"{where} has {name!r}: {dotted_path(value)}, which Rust cannot follow. Take it out."
        )


def _django_redis(
    alias: str, cache: Any, params: Any, report: Report, where: str
) -> dict[str, Any]:
    options = dict(params.get("OPTIONS") or {})
    in_options = f"{where}['OPTIONS']"
    take_options(options, DJANGO_REDIS, DJANGO_REDIS_IRRELEVANT, in_options)
    client = cache.client
    kind = _client_kind(client, in_options)
    _refuse_own_class(options, "CONNECTION_POOL_CLASS", in_options, *_POOLS)
    connection = dict(options.get("CONNECTION_POOL_KWARGS") or {})
    for name in ("USERNAME", "PASSWORD", "SOCKET_TIMEOUT", "SOCKET_CONNECT_TIMEOUT"):
        if options.get(name) and name.lower() not in connection:
            connection[name.lower()] = options[name]
    # Of connections that sentinels lead to, this says what elsewhere the scheme says.
    over_tls = kind == "SentinelClient" and bool(connection.pop("ssl", False))
    found = _connection_options(connection, in_options)
    _password(alias, found, report, in_options, "PASSWORD")
    found |= _sentinels(alias, kind, options, report, in_options)
    if kind == "SentinelClient":
        servers = [params["LOCATION"]]
        if not isinstance(servers[0], str):
            servers = list(dict.fromkeys(_without_role(url) for url in servers[0]))
    else:
        servers = client._server
    if over_tls:
        servers = [re.sub("^(redis|valkey)://", r"\1s://", as_text(url, where)) for url in servers]
    if not options.get("REPLICA_READ_ONLY", True) or _reads_from_primary(kind, client):
        found["read_from_replicas"] = False
    return {
        "backend": "redis",
        "location": _locations(alias, servers, report, where),
        "options": found or None,
        "format": _format(client, options, in_options),
    }


_POOLS = ("ConnectionPool", "BlockingConnectionPool", "SentinelConnectionPool")


def _client_kind(client: Any, where: str) -> str:
    from django_redis.client import DefaultClient, SentinelClient
    from django_redis.pool import ConnectionFactory, SentinelConnectionFactory
    from redis import Redis

    if type(client) not in (DefaultClient, SentinelClient):
        raise Refused(
            f"{where}['CLIENT_CLASS'] is {type(client).__name__}, which stores values in its own "
            "way. Let it be django_redis.client.DefaultClient or SentinelClient."
        )
    if type(client.connection_factory) not in (ConnectionFactory, SentinelConnectionFactory):
        factory = dotted_path(type(client.connection_factory))
        raise Refused(f"{where}['CONNECTION_FACTORY'] is {factory}, which Rust cannot follow.")
    if (own := client.connection_factory.redis_client_cls) is not Redis:
        raise Refused(
            f"{where}['REDIS_CLIENT_CLASS'] is {dotted_path(own)}, which may talk to Redis in its "
            "own way. Take it out for the cache that sessions are in."
        )
    is_sentinel = type(client.connection_factory) is SentinelConnectionFactory
    return "SentinelClient" if is_sentinel else "DefaultClient"


def _reads_from_primary(kind: str, client: Any) -> bool:
    """Of one LOCATION, SentinelClient makes two: of the primary and of its replicas."""
    return kind == "SentinelClient" and len(client._server) == 1


def _without_role(url: str) -> str:
    return re.sub(r"[?&]is_master=[^&]*", "", url)


def _sentinels(
    alias: str, kind: str, options: dict[str, Any], report: Report, where: str
) -> dict[str, Any]:
    if kind != "SentinelClient":
        return {}
    kwargs = dict(options.get("SENTINEL_KWARGS") or {})
    ssl = bool(kwargs.pop("ssl", False))
    inner = f"{where}['SENTINEL_KWARGS']"
    kwargs = _connection_options(kwargs, inner)
    if kwargs.get("password"):
        kwargs["password"] = report.secret(
            kwargs["password"], f"CACHES_{alias}_SENTINEL_PASSWORD", f"{inner}['password']"
        )
    for name in ("db", "socket_timeout", "socket_connect_timeout"):
        kwargs.pop(name, None)
    if ssl:
        kwargs["ssl"] = True
    sentinels = [[host, int(port)] for host, port in options["SENTINELS"]]
    return {"sentinels": sentinels, "sentinel_kwargs": kwargs or None}


def _format(client: Any, options: dict[str, Any], where: str) -> dict[str, Any]:
    serializer = dotted_path(type(client._serializer))
    compressor = dotted_path(type(client._compressor))
    package = "django_redis."
    kind = SERIALIZERS.get(serializer.rpartition(".")[2])
    squeeze = COMPRESSORS.get(compressor.removeprefix(package + "compressors."))
    if kind is None or not serializer.startswith(package):
        raise Refused(
            f"{where}['SERIALIZER'] is {serializer}, which Rust cannot follow. "
            f"Let it be one of django-redis's: {', '.join(SERIALIZERS)}."
        )
    if squeeze is None:
        raise Refused(
            f"{where}['COMPRESSOR'] is {compressor}, which Rust cannot follow. "
            f"Let it be one of django-redis's: {', '.join(COMPRESSORS)}."
        )
    version = options.get("PICKLE_VERSION")
    return {
        "serializer": kind,
        "compressor": squeeze,
        "pickle_version": int(version) if version is not None and kind == "pickle" else None,
    }


# -------------------------------------------------------------------------------------- memcached


def _pymemcache(alias: str, cache: Any, params: Any, report: Report, where: str) -> dict[str, Any]:
    import pymemcache.serde

    options = dict(params.get("OPTIONS") or {})
    in_options = f"{where}['OPTIONS']"
    found = take_options(options, PYMEMCACHE, PYMEMCACHE_IRRELEVANT, in_options)
    if isinstance(found.get("key_prefix"), bytes):
        found["key_prefix"] = as_text(found["key_prefix"], in_options)
    serde = options.get("serde", pymemcache.serde.pickle_serde)
    if serde is pymemcache.serde.compressed_serde:
        found["serde"] = "compressed"
    elif serde is not pymemcache.serde.pickle_serde:
        raise Refused(f"{in_options} has a 'serde' of its own, which Rust cannot follow.")
    return {
        "backend": "memcached",
        "location": [_memcached_server(server, where) for server in cache._servers],
        "options": {"library": "pymemcache", **found},
    }


def _memcached_server(server: Any, where: str) -> str:
    if isinstance(server, tuple):
        # pymemcache's own form, from which it makes this name, too.
        host, port = server
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return as_text(server, where)


def _pylibmc(alias: str, cache: Any, params: Any, report: Report, where: str) -> dict[str, Any]:
    options = dict(params.get("OPTIONS") or {})
    in_options = f"{where}['OPTIONS']"
    if options.get("username") or options.get("password"):
        raise Refused(
            f"{in_options} has a login to memcached (SASL), which the Rust crate does not speak."
        )
    for name in ("username", "password"):
        options.pop(name, None)
    take_options(options, {"behaviors"}, {"binary"}, in_options)
    in_behaviors = f"{in_options}['behaviors']"
    # How to talk to a server, not where a key is.
    irrelevant = {"tcp_nodelay", "no_block", "connect_timeout", "send_timeout", "receive_timeout"}
    irrelevant |= {"remove_failed", "retry_timeout", "dead_timeout", "failure_limit", "cas"}
    irrelevant |= {"tcp_keepalive", "verify_keys", "auto_eject"}
    behaviors = dict(options.get("behaviors") or {})
    if behaviors.pop("num_replicas", 0):
        raise Refused(
            f"{in_behaviors} has 'num_replicas': a session has copies then, of which the Rust "
            "crate knows nothing, and which it would leave after a logout. Take it out."
        )
    behaviors = take_options(behaviors, {"ketama", "ketama_weighted"}, irrelevant, in_behaviors)
    behaviors = {name: True for name, value in behaviors.items() if value}
    found = {"library": "pylibmc"} | ({"behaviors": behaviors} if behaviors else {})
    return {
        "backend": "memcached",
        "location": [as_text(server, where) for server in cache._servers],
        "options": found,
    }


# ------------------------------------------------------------------------------ databases and files


def _culling(cache: Any) -> dict[str, Any]:
    return {"max_entries": cache._max_entries, "cull_frequency": cache._cull_frequency}


def _database(alias: str, cache: Any, params: Any, report: Report, where: str) -> dict[str, Any]:
    return {
        "backend": "database",
        "location": as_text(cache._table, where),
        "options": {"database": router.db_for_write(cache.cache_model_class), **_culling(cache)},
    }


def _filebased(alias: str, cache: Any, params: Any, report: Report, where: str) -> dict[str, Any]:
    return {
        "backend": "filebased",
        "location": os.path.abspath(cache._dir),
        "options": _culling(cache),
    }


_BACKENDS = {
    DJANGO + "redis.RedisCache": _redis,
    "django_redis.cache.RedisCache": _django_redis,
    DJANGO + "memcached.PyMemcacheCache": _pymemcache,
    DJANGO + "memcached.PyLibMCCache": _pylibmc,
    DJANGO + "db.DatabaseCache": _database,
    DJANGO + "filebased.FileBasedCache": _filebased,
}
