"""Sessions under real servers: processes that fork, threads, greenlets, event loops, reloads.

Each session holds its own key and each answer carries it, so that a session which reaches somebody
else is seen.
"""

import contextlib
import http.client
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "processes"
BIN = Path(sys.prefix) / "bin"
PROGRAMS = ["daphne", "granian", "gunicorn", "hypercorn", "uvicorn", "uwsgi"]
ENGINES = ["cache", "db"]
SESSIONS, VISITS = 20, 5  # of each engine
SECONDS = 60  # for anything; what hangs fails

pytestmark = pytest.mark.skipif(
    Path(sys.prefix).name != ".venv", reason="the servers are in .venv only"
)


# --------------------------------------------------------------------------------------- the shop


@pytest.fixture(scope="module")
def sqlite_database(tmp_path_factory):
    path = tmp_path_factory.mktemp("shop") / "db.sqlite3"
    pragmas = "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF"
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(path),
        "OPTIONS": {"timeout": SECONDS, "init_command": pragmas},
    }


@pytest.fixture(scope="module")
def postgresql_database(postgres_server):
    """A database of the shop's own, for other tests make tables in theirs."""
    import psycopg

    # Not under one name: where workers share their tests, a module may begin twice.
    name = f"shop_{uuid.uuid4().hex}"
    where = {name: postgres_server[name] for name in ("host", "port", "user", "password")}
    with psycopg.connect(dbname=postgres_server["database"], autocommit=True, **where) as admin:
        admin.execute(f"CREATE DATABASE {name}")
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": name,
        **{name.upper(): value for name, value in where.items()},
    }


@pytest.fixture(scope="module")
def shop(tmp_path_factory, redis_server):
    """A copy of the site, for runserver to see it change."""
    folder = tmp_path_factory.mktemp("processes")
    shutil.copytree(HERE, folder, dirs_exist_ok=True)
    return Shop(folder, redis_server["url"])


class Shop:
    def __init__(self, folder, redis):
        self.folder = folder
        self.redis = redis
        self.ready = set()

    def environment(self, database):
        environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "shop.settings",
            "PYTHONPATH": str(self.folder),
            "PYTHONUNBUFFERED": "1",
            "SHOP_REDIS": self.redis,
            "SHOP_DATABASE": json.dumps(database),
        }
        if database["NAME"] not in self.ready:
            self.ready.add(database["NAME"])
            self.run(environment, "-m", "django", "migrate", "--verbosity=0")
            add = "from django.contrib.auth.models import User; User.objects.create_user('ada')"
            self.run(environment, "-m", "django", "shell", "--command", add)
        return environment

    def run(self, environment, *words):
        done = subprocess.run(
            [sys.executable, *words],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextlib.contextmanager
    def serve(self, database, *command):
        """The port of a server, which ends with the block. PORT in its command is that."""
        environment = self.environment(database)
        port = free_port()
        command = [word.replace("PORT", str(port)) for word in command]
        if command[0] in PROGRAMS:
            command[0] = str(BIN / command[0])
            if not Path(command[0]).exists():
                missing(f"{command[0]} is not installed: run python3 scripts/envs.py venv")
        log = self.folder / "log"
        with log.open("w") as output:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            wait_for(lambda: accepts(port) or process.poll() is not None)
            yield port
            assert process.poll() is None, "the server has ended"
        except BaseException as error:
            error.add_note(log.read_text(errors="replace")[-5000:])
            raise
        finally:
            end(process)


def missing(what):
    stop = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
    stop(what)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def accepts(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def wait_for(condition):
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)


def end(process):
    """With all that it has started: the group is ours alone."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=5)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


# ---------------------------------------------------------------------------------------- visitors


class Visitor:
    def __init__(self, port, engine, kind, name):
        self.port, self.name = port, name
        self.path = f"/{engine}/{kind}"
        self.cookie = None
        self.visits = 0
        self.pids = set()
        self.step_aside = None

    def enter(self):
        self.check(self.get(f"{self.path}/enter/{self.name}"))

    def more(self):
        self.visits += 1
        self.check(self.get(f"{self.path}/more"))

    def get(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        with contextlib.closing(connection):
            connection.request("GET", path, headers=self.headers())
            response = connection.getresponse()
            body = response.read()
            assert response.status == 200, body[:2000].decode(errors="replace")
            if cookie := response.getheader("Set-Cookie"):
                self.cookie = cookie.split(";")[0]
            return json.loads(body)

    def headers(self):
        return {"Cookie": self.cookie} if self.cookie else {}

    def check(self, answer):
        assert answer["user"] == "ada"
        assert answer["session"]["name"] == self.name
        assert answer["session"]["key"] == answer["session_key"] == self.cookie.split("=")[1]
        assert answer["session"]["count"] == self.visits
        self.pids.add(answer["pid"])
        self.step_aside = answer["step_aside"]


def visit(port, kinds=("sync",)):
    """Many visitors at the same time, all of whom find their own sessions."""
    visitors = [
        Visitor(port, engine, kind, f"{engine}-{kind}-{number}")
        for engine, kind, number in itertools.product(ENGINES, kinds, range(SESSIONS // len(kinds)))
    ]

    def stroll(visitor):
        visitor.enter()
        for _ in range(VISITS - 1):
            visitor.more()

    with ThreadPoolExecutor(16) as pool:
        for done in [pool.submit(stroll, visitor) for visitor in visitors]:
            done.result(timeout=SECONDS)
    return visitors


def pids(visitors):
    return set().union(*(visitor.pids for visitor in visitors))


# ----------------------------------------------------------------------------------------- servers

WSGI = "shop.wsgi:application"
ASGI = "shop.asgi:application"
GUNICORN = ("gunicorn", "--bind=127.0.0.1:PORT", "--no-control-socket", WSGI)
UWSGI = (
    *("uwsgi", "--http-socket=127.0.0.1:PORT", "--module=shop.wsgi", "--master", "--need-app"),
    *("--processes=3", "--die-on-term", f"--home={sys.prefix}"),
)
UVICORN = ("uvicorn", "--port=PORT", ASGI)

FORKING = {
    # The master has used the sessions (shop/wsgi.py) when it forks.
    "gunicorn --preload": (*GUNICORN, "--preload", "--workers=3"),
    "uwsgi": UWSGI,
    "uwsgi --lazy-apps": (*UWSGI, "--lazy-apps"),
}
ASYNC = {
    "uvicorn asyncio": (*UVICORN, "--loop=asyncio"),
    "uvicorn uvloop": (*UVICORN, "--loop=uvloop"),
    "daphne": ("daphne", "--port=PORT", ASGI),
    "granian": ("granian", "--interface=asgi", "--port=PORT", ASGI),
    "hypercorn": ("hypercorn", "--bind=127.0.0.1:PORT", ASGI),
}


@pytest.mark.parametrize("server", FORKING)
def test_forked_workers(shop, server, request):
    kind = "postgresql" if "gunicorn" in server else "sqlite"
    database = request.getfixturevalue(f"{kind}_database")
    with shop.serve(database, *FORKING[server]) as port:
        visitors = visit(port)
    assert len(pids(visitors)) > 1
    assert {visitor.step_aside for visitor in visitors} == {None}


def test_threads_of_gunicorn(shop, sqlite_database):
    command = (*GUNICORN, "--worker-class=gthread", "--threads=8")
    with shop.serve(sqlite_database, *command) as port:
        visitors = visit(port)
    assert len(pids(visitors)) == 1
    assert {visitor.step_aside for visitor in visitors} == {None}


def test_gevent(shop, sqlite_database):
    """Patched sockets are left to Django's own cache."""
    command = (*GUNICORN, "--worker-class=gevent", "--workers=2")
    with shop.serve(sqlite_database, *command) as port:
        visitors = visit(port)
    (reason,) = {visitor.step_aside for visitor in visitors}
    assert "gevent" in reason


@pytest.mark.parametrize("server", ASYNC)
def test_event_loop(shop, server, request):
    kind = "postgresql" if "uvloop" in server else "sqlite"
    database = request.getfixturevalue(f"{kind}_database")
    with shop.serve(database, *ASYNC[server]) as port:
        visitors = visit(port, ["async", "sync"])
    assert {visitor.step_aside for visitor in visitors} == {None}


def test_runserver_reloads(shop, sqlite_database):
    command = (sys.executable, "-m", "django", "runserver", "127.0.0.1:PORT")
    with shop.serve(sqlite_database, *command) as port:
        visitors = visit(port)
        before = pids(visitors)
        # Its reloader compares the times of files, which it first has to have seen.
        (shop.folder / "shop" / "urls.py").touch()

        def reloaded():
            visitor = Visitor(port, "cache", "sync", "look")
            with contextlib.suppress(OSError, http.client.HTTPException):
                visitor.enter()
            return visitor.pids - before

        wait_for(reloaded)
        for visitor in visitors:
            visitor.more()
        assert not pids(visitors) <= before


# --------------------------------------------------------------------------------- other processes


def test_xdist(shop, sqlite_database):
    environment = shop.environment(sqlite_database)
    printed = shop.run(
        environment,
        *("-m", "pytest", "xdist_project.py", "-q", "-n2", "--nomigrations"),
        *("-p", "no:cacheprovider", f"--rootdir={shop.folder}", "-c", os.devnull),
    )
    assert "20 passed" in printed


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_fork_in_use(shop, kind, request):
    environment = shop.environment(request.getfixturevalue(f"{kind}_database"))
    assert "all went on" in shop.run(environment, "-m", "django", "fork_in_use")


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_many_threads(shop, kind, request):
    environment = shop.environment(request.getfixturevalue(f"{kind}_database"))
    assert "all kept" in shop.run(environment, "-m", "django", "many_threads")


IMPORTS = """
import gc, os, sys, threading
from asyncio import AbstractEventLoop
import django
django.setup()

def running():
    loops = [found for found in gc.get_objects() if isinstance(found, AbstractEventLoop)]
    return len(os.listdir("/proc/self/fd")), threading.active_count(), len(loops)

before = running()
from django_rust_sessions import middleware
from django_rust_sessions.backends import cache, cached_db, db, file, signed_cookies
from shop.urls import urlpatterns
assert running() == before == (before[0], 1, 0), (before, running())
cache.SessionStore("0123456789abcdef").load()
cache.SessionStore("0123456789abcdef").exists("0123456789abcdef")
print(running()[0] - before[0], running()[1:])
"""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are counted in /proc")
def test_imports_start_nothing(shop, sqlite_database):
    printed = shop.run(shop.environment(sqlite_database), "-c", IMPORTS)
    # The count sees a socket, once there is one.
    assert printed.split() == ["1", "(1,", "0)"]
