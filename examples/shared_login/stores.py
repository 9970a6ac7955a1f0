"""Where the demo's sessions are kept: `make demo STORE=redis`."""

import importlib.util
import urllib.parse
from dataclasses import dataclass


@dataclass(frozen=True)
class Store:
    engine: str  # of django_rust_sessions.backends
    # What a visitor is told: "Your session is ..."
    kept: str
    # Of tests/servers.py, started for the demo alone and gone with it.
    server: str | None = None


STORES = {
    "sqlite": Store("db", "a row of the table django_session"),
    "postgres": Store("db", "a row of the table django_session in PostgreSQL", "postgres"),
    "redis": Store("cache", "a value in Redis", "redis"),
    "cached_db": Store("cached_db", "a row of django_session, with a copy in Redis", "redis"),
    "signed_cookies": Store("signed_cookies", "in the cookie itself"),
    "file": Store("file", "a file"),
    "memcached": Store("cache", "a value in memcached", "memcached"),
}


def find(name):
    from servers import DemoError

    if name not in STORES:
        raise DemoError(f"There is no STORE={name}. Choose one of: {', '.join(STORES)}.")
    return STORES[name]


def start_server(kind):
    """A private server with temporary data, and its address. It ends with `stop()`, or with us."""
    from servers import CHECKOUT, DemoError

    spec = importlib.util.spec_from_file_location("servers_", CHECKOUT / "tests" / "servers.py")
    private = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(private)
    try:
        started = private.Started(kind)
    except private.ServerError as error:
        raise DemoError(str(error)) from None
    address = started.servers[kind]
    if missing := address.get("missing"):
        started.stop()
        raise DemoError(f"{missing}. Or choose another STORE.")
    return started, address["url"]


def environment(store, folder, url):
    """What the settings of both servers read."""
    variables = {
        "DEMO_ENGINE": store.engine,
        "DEMO_KEPT": store.kept,
        "DEMO_SESSION_FOLDER": str(folder / "sessions"),
    }
    if store.server == "postgres":
        # The name is the one that `manage.py export_session_settings` asks for.
        password = urllib.parse.urlsplit(url).password
        return variables | {"DEMO_POSTGRES": url, "DATABASES_DEFAULT_PASSWORD": password}
    return variables | ({"DEMO_CACHE": url} if url else {})
