"""Where a Django site may keep its sessions, as data: each is a row of the interop matrix.

A configuration is an engine with a place; a place is what stands in CACHES or DATABASES, given
where the private servers are (tests/servers.py) and a folder.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import redis as redis_client

# A site has more in its settings than what these rows are about, and a key that was rotated.
COMMON = {
    "SECRET_KEY": "interop-tests-secret-key-that-guards-nothing",
    "SECRET_KEY_FALLBACKS": ["interop-tests-older-key-that-guards-nothing"],
    "INSTALLED_APPS": ["django.contrib.sessions", "django_rust_sessions"],
    "USE_TZ": True,
}
BACKENDS = "django.core.cache.backends"

Servers = dict[str, dict]


@dataclass(frozen=True)
class Place:
    name: str
    servers: tuple[str, ...]
    settings: Callable[[Servers, Path], dict]
    kind: str = "pickle"  # of the values that it takes, as in kinds.py
    # Waits until what was written is read: a replica may be behind.
    settle: Callable[[Servers], None] | None = None


@dataclass(frozen=True)
class Configuration:
    name: str
    engine: str
    database: Place
    cache: Place | None = None
    more: dict = field(default_factory=dict)

    @property
    def servers(self) -> set[str]:
        return {*self.database.servers, *(self.cache.servers if self.cache else ())}

    @property
    def kind(self) -> str:
        if self.cache is None:
            return "json"
        return self.cache.kind if self.engine == "cache" else f"json and {self.cache.kind}"

    def settings(self, servers: Servers, folder: Path) -> dict:
        settings = {
            **COMMON,
            "SESSION_ENGINE": f"django.contrib.sessions.backends.{self.engine}",
            "DATABASES": {"default": self.database.settings(servers, folder)},
            **self.more,
        }
        if self.cache:
            alias = self.more.get("SESSION_CACHE_ALIAS", "default")
            # Other tests' sessions are in the same server, and other caches in the same settings.
            settings["CACHES"] = {
                "default": {"BACKEND": f"{BACKENDS}.locmem.LocMemCache"},
                alias: self.cache.settings(servers, folder),
            }
            if "redis_sentinel" in self.cache.servers:
                factory = "django_redis.pool.SentinelConnectionFactory"
                settings["DJANGO_REDIS_CONNECTION_FACTORY"] = factory
        if self.engine == "file":
            settings["SESSION_FILE_PATH"] = str(folder)
        return settings


# ---------------------------------------------------------------------------------------- databases


def sqlite(servers: Servers, folder: Path) -> dict:
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(folder / "db.sqlite3"),
        "OPTIONS": {"timeout": 60},
    }


def server_database(engine: str, server: str, **more) -> Callable[[Servers, Path], dict]:
    def settings(servers: Servers, folder: Path) -> dict:
        where = servers[server]
        return {
            "ENGINE": f"django.db.backends.{engine}",
            "NAME": where["database"],
            "USER": where["user"],
            "PASSWORD": where["password"],
            "HOST": where["host"],
            "PORT": str(where["port"]),
            **more,
        }

    return settings


def mariadb_socket(servers: Servers, folder: Path) -> dict:
    where = servers["mariadb"]
    settings = server_database("mysql", "mariadb")(servers, folder)
    return {**settings, "HOST": where["socket"], "PORT": "", "OPTIONS": {"charset": "utf8mb4"}}


def postgres_socket(servers: Servers, folder: Path) -> dict:
    where = servers["postgres"]
    settings = server_database("postgresql", "postgres")(servers, folder)
    return {**settings, "HOST": where["socket"]}


SQLITE = Place("SQLite", (), sqlite)
POSTGRES = Place("PostgreSQL", ("postgres",), server_database("postgresql", "postgres"))
MARIADB = Place("MariaDB", ("mariadb",), server_database("mysql", "mariadb"))
PGBOUNCER = Place(
    "PostgreSQL through PgBouncer",
    ("postgres", "pgbouncer"),
    # As Django's documentation has it for a pooler in transaction mode.
    server_database("postgresql", "pgbouncer", DISABLE_SERVER_SIDE_CURSORS=True),
)

# ------------------------------------------------------------------------------------------- caches


def redis(server: str = "redis", **more) -> Callable[[Servers, Path], dict]:
    def settings(servers: Servers, folder: Path) -> dict:
        return {
            "BACKEND": f"{BACKENDS}.redis.RedisCache",
            "LOCATION": servers[server]["url"],
            **more,
        }

    return settings


def redis_tls(servers: Servers, folder: Path) -> dict:
    where = servers["redis+tls"]
    options = {
        "ssl_ca_certs": where["ca_certs"],
        "ssl_certfile": where["certfile"],
        "ssl_keyfile": where["keyfile"],
    }
    return {**redis("redis+tls")(servers, folder), "OPTIONS": options}


def redis_socket(servers: Servers, folder: Path) -> dict:
    return {**redis()(servers, folder), "LOCATION": f"unix://{servers['redis']['socket']}?db=3"}


def redis_user(servers: Servers, folder: Path) -> dict:
    return {**redis()(servers, folder), "LOCATION": servers["redis+password"]["user_url"]}


def redis_password_option(servers: Servers, folder: Path) -> dict:
    where = servers["redis+password"]
    return {
        **redis()(servers, folder),
        "LOCATION": f"redis://{where['host']}:{where['port']}",
        "OPTIONS": {"username": where["user"], "password": where["user_password"], "db": 2},
    }


def django_redis(serializer: str = "", compressor: str = "", **more):
    def settings(servers: Servers, folder: Path) -> dict:
        options = {"CLIENT_CLASS": "django_redis.client.DefaultClient"}
        if serializer:
            options["SERIALIZER"] = f"django_redis.serializers.{serializer}"
        if compressor:
            options["COMPRESSOR"] = f"django_redis.compressors.{compressor}"
        return {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": servers["redis"]["url"],
            "OPTIONS": {**options, **more},
        }

    return settings


def memcached(*servers_wanted: str) -> Callable[[Servers, Path], dict]:
    def settings(servers: Servers, folder: Path) -> dict:
        where = [servers[server] for server in servers_wanted]
        return {
            "BACKEND": f"{BACKENDS}.memcached.PyMemcacheCache",
            "LOCATION": [f"{one['host']}:{one['port']}" for one in where],
        }

    return settings


def in_database(servers: Servers, folder: Path) -> dict:
    return {
        "BACKEND": f"{BACKENDS}.db.DatabaseCache",
        "LOCATION": "cache table",
        "OPTIONS": {"MAX_ENTRIES": 100_000},
    }


def in_files(servers: Servers, folder: Path) -> dict:
    return {
        "BACKEND": f"{BACKENDS}.filebased.FileBasedCache",
        "LOCATION": str(folder / "cache"),
        "OPTIONS": {"MAX_ENTRIES": 100_000},
    }


def redis_replicas(servers: Servers, folder: Path) -> dict:
    """Django writes to the first and reads from the others."""
    return {
        **redis("redis_replicas")(servers, folder),
        "LOCATION": servers["redis_replicas"]["urls"],
    }


def sentinel(servers: Servers, folder: Path) -> dict:
    where = servers["redis_sentinel"]
    return {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": "redis://mymaster/0",
        "OPTIONS": {
            "CLIENT_CLASS": "django_redis.client.SentinelClient",
            "CONNECTION_POOL_CLASS": "redis.sentinel.SentinelConnectionPool",
            "SENTINELS": [[where["host"], port] for port in where["ports"][2:]],
        },
    }


def replicated(server: str, replicas: int) -> Callable[[Servers], None]:
    """A write of our own goes the way of those before it."""

    def settle(servers: Servers) -> None:
        with redis_client.Redis.from_url(servers[server]["url"]) as client:
            client.set("the last write", 1)
            assert client.wait(replicas, 5000) == replicas

    return settle


DATABASE_CACHE = Place("database cache", (), in_database)
CACHES = [
    Place("Redis", ("redis",), redis()),
    Place("Redis, prefix and version", ("redis",), redis(KEY_PREFIX="shop", VERSION=7)),
    Place("Redis over TLS", ("redis+tls",), redis_tls),
    Place("Redis over a UNIX socket", ("redis",), redis_socket),
    Place("Redis, user in the URL", ("redis+password",), redis_user),
    Place("Redis, user in OPTIONS", ("redis+password",), redis_password_option),
    Place("django-redis", ("redis",), django_redis()),
    Place("django-redis, protocol 5", ("redis",), django_redis(PICKLE_VERSION=5)),
    Place("django-redis, JSON", ("redis",), django_redis("json.JSONSerializer"), "json"),
    Place(
        "django-redis, msgpack", ("redis",), django_redis("msgpack.MSGPackSerializer"), "msgpack"
    ),
    *(
        Place(
            f"django-redis, {name}",
            ("redis",),
            django_redis("", f"{name}.{name.capitalize()}Compressor"),
        )
        for name in ("zlib", "gzip", "lzma", "lz4")
    ),
    Place("django-redis, zstd", ("redis",), django_redis("", "zstd.ZStdCompressor")),
    Place(
        "django-redis, JSON and zlib",
        ("redis",),
        django_redis("json.JSONSerializer", "zlib.ZlibCompressor"),
        "json",
    ),
    Place(
        "Redis with two replicas",
        ("redis_replicas",),
        redis_replicas,
        settle=replicated("redis_replicas", 2),
    ),
    Place(
        "django-redis, Sentinel",
        ("redis_sentinel",),
        sentinel,
        settle=replicated("redis_sentinel", 1),
    ),
    Place("memcached", ("memcached",), memcached("memcached")),
    Place("file cache", (), in_files),
]

# --------------------------------------------------------------------------------------- the matrix

CONFIGURATIONS = [
    *(Configuration(f"db, {place.name}", "db", place) for place in (SQLITE, POSTGRES, MARIADB)),
    Configuration("db, PostgreSQL through PgBouncer", "db", PGBOUNCER),
    Configuration(
        "db, PostgreSQL over a UNIX socket",
        "db",
        Place("PostgreSQL over a UNIX socket", ("postgres",), postgres_socket),
    ),
    Configuration(
        "db, MariaDB over a UNIX socket",
        "db",
        Place("MariaDB over a UNIX socket", ("mariadb",), mariadb_socket),
    ),
    *(
        Configuration(
            f"db, {place.name}, USE_TZ = False",
            "db",
            place,
            more={"USE_TZ": False, "TIME_ZONE": "America/New_York", "SESSION_COOKIE_AGE": 3600},
        )
        for place in (SQLITE, POSTGRES, MARIADB)
    ),
    *(Configuration(f"cache, {place.name}", "cache", SQLITE, place) for place in CACHES),
    *(
        Configuration(f"cache, database cache on {place.name}", "cache", place, DATABASE_CACHE)
        for place in (SQLITE, POSTGRES, MARIADB)
    ),
    *(Configuration(f"cached_db, {place.name}", "cached_db", SQLITE, place) for place in CACHES),
    *(
        Configuration(
            f"cached_db, database cache on {place.name}", "cached_db", place, DATABASE_CACHE
        )
        for place in (SQLITE, POSTGRES, MARIADB)
    ),
    Configuration(
        "cached_db, another alias",
        "cached_db",
        POSTGRES,
        CACHES[0],
        more={"SESSION_CACHE_ALIAS": "sessions", "SESSION_COOKIE_NAME": "shop_session"},
    ),
    Configuration("file, a folder", "file", SQLITE),
    Configuration(
        "file, a folder, USE_TZ = False",
        "file",
        SQLITE,
        more={"SESSION_COOKIE_NAME": "shop_session", "USE_TZ": False, "TIME_ZONE": "Asia/Kolkata"},
    ),
    Configuration("signed_cookies, the cookie itself", "signed_cookies", SQLITE),
]
# Of `make test`: these meet each Django, the others one.
ALWAYS = {
    "db, SQLite",
    "db, PostgreSQL",
    "cache, Redis",
    "cached_db, Redis",
    "file, a folder",
    "signed_cookies, the cookie itself",
}


def named(name: str) -> Configuration:
    (found,) = (each for each in CONFIGURATIONS if each.name == name)
    return found
