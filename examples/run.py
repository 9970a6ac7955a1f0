"""Starts one of the Rust examples and a Django site on the same sessions (`make example`).

    python examples/run.py axum_api         for you to try; Ctrl-C stops both

The site is `examples/site/manage.py`. The Rust program learns from the file that
`manage.py export_session_settings` wrote where the sessions and the users are.
"""

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
MANAGE = HERE / "site" / "manage.py"
READY_WITHIN = 30  # seconds
FEATURES = {
    "axum_api": "axum,hashers,redis,sqlite,toml",
    "actix_api": "actix,hashers,redis,sqlite,toml",
    "axum_templates": "axum,hashers,redis,sqlite,toml",
}
TRY = {
    "axum_api": """\
  curl {rust}/api/me                                   nobody yet
  Log in at {django}/login/ as ada, password two-doors, and open {rust}/api/me
  {rust}/api/users/ada is for who may see users: ada, and not bob
  POST {rust}/api/cart adds to the cart; without a CSRF token it is 403""",
    "axum_templates": """\
  Log in at {rust}/login/ as ada, password two-doors: Django knows you, too
  The form there posts to Django, whose notice the Rust page then shows""",
}
TRY["actix_api"] = TRY["axum_api"]


class Example:
    """Both processes over one folder, which a `with` statement leaves stopped."""

    def __init__(self, program, folder, django_port, rust_port, **variables):
        self.django, self.rust = (f"http://127.0.0.1:{port}" for port in (django_port, rust_port))
        self.program, self.folder = program, Path(folder)
        self.processes = []
        self.environment = {
            **os.environ,
            "SECRET_KEY": secrets.token_urlsafe(40),
            "EXAMPLE_FOLDER": str(folder),
            "EXAMPLE_RUST": self.rust,
            "EXAMPLE_DJANGO": self.django,
            "EXAMPLE_SETTINGS": str(self.folder / "sessions.toml"),
            "PORT": str(rust_port),
            **variables,
        }

    def manage(self, *words):
        command = [sys.executable, MANAGE, *words]
        subprocess.run(command, env=self.environment, check=True, stdout=subprocess.DEVNULL)

    def __enter__(self):
        self.manage("migrate", "-v0", "--skip-checks")
        self.manage("make_users")
        self.manage("export_session_settings", "-v0", "-o", self.environment["EXAMPLE_SETTINGS"])
        address = self.django.removeprefix("http://")
        try:
            self.start("django", sys.executable, MANAGE, "runserver", "--noreload", address)
            self.start("rust", self.program)
            for address in (self.django, self.rust):
                self.wait_for(address)
        except BaseException:
            self.__exit__()
            raise
        return self

    def start(self, name, *command):
        with open(self.folder / f"{name}.log", "wb") as log:
            process = subprocess.Popen(
                command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us, who then stop both
            )
        self.processes.append((name, process))

    def wait_for(self, address):
        deadline = time.monotonic() + READY_WITHIN
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while True:
            self.check_alive()
            try:
                return opener.open(address + "/api/me", timeout=5).close()
            except urllib.error.HTTPError:
                return None
            except OSError:
                if time.monotonic() > deadline:
                    sys.exit(f"{address} does not answer after {READY_WITHIN} s.")
                time.sleep(0.05)

    def check_alive(self):
        for name, process in self.processes:
            if process.poll() is not None:
                log = (self.folder / f"{name}.log").read_text(errors="replace")[-2000:]
                sys.exit(f"The {name} server stopped with {process.returncode}.\n{log}")

    def __exit__(self, *exc_info):
        for _, process in self.processes:
            process.terminate()
        for _, process in self.processes:
            process.wait()


def build(name):
    command = ["cargo", "build", "--example", name, "--features", FEATURES[name]]
    built = subprocess.run(
        [*command, "--message-format=json-render-diagnostics"],
        cwd=HERE.parent,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=True,
    )
    found = [json.loads(line).get("executable") for line in built.stdout.splitlines()]
    return next(program for program in reversed(found) if program)


def main():
    name = sys.argv[1] if len(sys.argv) == 2 else ""
    if name not in FEATURES:
        sys.exit(f"usage: run.py {'|'.join(FEATURES)}")
    program = build(name)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with (
        tempfile.TemporaryDirectory(prefix=f"{name}-") as folder,
        Example(program, folder, 8000, 8001) as example,
    ):
        print(f"\n  Django  {example.django}\n  Rust    {example.rust}\n\nWhat to try")
        print(TRY[name].format(django=example.django, rust=example.rust))
        print(f"\nLogs are in {folder}. Ctrl-C stops both.", flush=True)
        try:
            while True:
                example.check_alive()
                time.sleep(0.3)
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    main()
