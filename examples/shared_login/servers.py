"""The demo's two servers: a database, a user, and two processes on loopback."""

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import stores

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
MANAGE = HERE / "site" / "manage.py"

USERNAME = "ada"
PASSWORD = "two-doors"  # the demo's own; it opens nothing but the demo
READY_WITHIN = 30  # seconds

# Of the Rust crate, for every store that the demo has.
FEATURES = "axum,file,memcached,postgres,redis,signed_cookies,sqlite,toml"


class DemoError(Exception):
    """What went wrong and what to do about it."""


class Servers:
    """Django and the Rust service on one store of sessions; leaving it stops both, and the store's
    server. Files are in `folder`."""

    def __init__(self, folder, service, django_port, rust_port, store="sqlite"):
        self.service = service
        self.store = stores.find(store)
        self.folder = Path(folder)
        (self.folder / "sessions").mkdir(parents=True, exist_ok=True)
        # For Rust; made by Django.
        self.settings = self.folder / "sessions.toml"
        self.private = None
        url = None
        if self.store.server:
            self.private, url = stores.start_server(self.store.server)
        self.database = self.folder / "db.sqlite3"
        self.django = f"http://127.0.0.1:{django_port}"
        self.rust = f"http://127.0.0.1:{rust_port}"
        self.processes = {}
        self.environment = {
            **os.environ,
            "SECRET_KEY": secret_key(self.folder / "secret_key"),
            "DJANGO_SETTINGS_MODULE": "shop.settings",
            "DEMO_DATABASE": str(self.database),
            "DEMO_DJANGO_PORT": str(django_port),
            "DEMO_RUST_PORT": str(rust_port),
            "DEMO_SETTINGS": str(self.settings),
            **stores.environment(self.store, self.folder, url),
            "PYTHONUNBUFFERED": "1",
            "PYTHONUTF8": "1",
        }

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.stop()

    def manage(self, *arguments, quiet=False):
        """Runs a command of manage.py; returns what it printed if `quiet`."""
        done = subprocess.run(
            [sys.executable, MANAGE, *arguments],
            env=self.environment,
            stdout=subprocess.PIPE if quiet else None,
            stderr=subprocess.STDOUT if quiet else None,
            encoding="utf-8",
        )
        if done.returncode:
            raise DemoError(f"manage.py {arguments[0]} failed.\n{done.stdout or ''}")
        return done.stdout

    def child(self, command):
        """A command of manage.py that is talked to over its standard input and output."""
        return subprocess.Popen(
            [sys.executable, MANAGE, command],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )

    def prepare(self, quiet=False):
        """The tables and the user, and what Rust is to know of Django's settings."""
        self.manage("migrate", "--no-input", *(["-v0"] if quiet else []), quiet=quiet)
        self.manage("demo_user", USERNAME, PASSWORD, quiet=quiet)
        # Secrets stay out of the file: Rust takes them from the environment.
        self.manage("export_session_settings", "-v0", "--output", self.settings, quiet=quiet)

    def start(self):
        port = self.django.rpartition(":")[2]
        runserver = [sys.executable, MANAGE, "runserver", "--noreload", f"127.0.0.1:{port}"]
        self._spawn("django", runserver)
        self._spawn("rust", [self.service])
        deadline = time.monotonic() + READY_WITHIN
        for address in (self.django, self.rust):
            while not answers(address):
                self.check_alive()
                if time.monotonic() > deadline:
                    raise DemoError(f"{address} does not answer after {READY_WITHIN} s.")
                time.sleep(0.05)
        # Whatever answered there may have been somebody else's server.
        self.check_alive()

    def check_alive(self):
        for name, process in self.processes.items():
            if process.poll() is not None:
                raise DemoError(
                    f"The {name} server stopped with exit code {process.returncode}.\n"
                    f"{tail(self.log(name))}"
                )

    def stop(self):
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()
        if self.private:
            self.private.stop()
            self.private = None

    def log(self, name):
        return self.folder / f"{name}.log"

    def _spawn(self, name, command):
        with self.log(name).open("wb") as log:
            self.processes[name] = subprocess.Popen(
                command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Its own session: Ctrl-C reaches demo.py alone, which then stops both in order.
                start_new_session=True,
            )


def secret_key(path):
    """The key in `path`; a new one is made the first time."""
    try:
        # Nobody else on this machine reads it.
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(50))
    except FileExistsError:
        pass
    return path.read_text()


def find_service():
    """The axum binary: `DEMO_SERVICE`, or what cargo builds now."""
    if service := os.environ.get("DEMO_SERVICE"):
        if not os.access(service, os.X_OK):
            raise DemoError(f"DEMO_SERVICE is {service}, and that is no program.")
        return service
    command = ["cargo", "build", "--example", "shared_login", "--features", FEATURES]
    try:
        # Cargo's progress goes to the terminal, the path of what it built comes back as JSON.
        build = subprocess.run(
            [*command, "--message-format=json-render-diagnostics"],
            cwd=CHECKOUT,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
    except FileNotFoundError:
        raise DemoError("There is no cargo. Install Rust: https://rustup.rs") from None
    if build.returncode:
        raise DemoError(f"`{' '.join(command)}` failed.")
    built = [json.loads(line).get("executable") for line in build.stdout.splitlines()]
    return next(executable for executable in reversed(built) if executable)


def free_port(preferred=0):
    """`preferred` if nobody listens there, else a port that the system picks."""
    with socket.socket() as probe:
        # As servers do: a port whose last connections are still closing is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", preferred))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(address):
    try:
        # Straight to loopback, whatever proxy the environment names.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        opener.open(address, timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def tail(path, lines=15):
    """The last lines of a log, indented."""
    text = path.read_text(errors="replace").splitlines()[-lines:] if path.exists() else []
    return "\n".join(f"    {line}" for line in text) or f"    ({path.name} is empty)"
