"""Programs that answer one line of JSON with one: a Django release, and the Rust driver."""

import ast
import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
from pathlib import Path

from configurations import named

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = Path(__file__).parent
VENVS = ROOT / os.environ.get("DJANGO_VENVS", ".venvs")
# Longer than any loop, and shorter than a person waits for a hung one.
ANSWERS_WITHIN = 300


class Refused(Exception):
    """The program answered that it could not do what was asked."""

    def __init__(self, who: str, op: str, answer: dict) -> None:
        super().__init__(f"{who}, {op}: {answer['error']}: {answer.get('text', '')}")
        self.error = answer["error"]


class Child:
    """`ask` asks and waits; `begin` asks, and `end` waits, so that two can be at it at once."""

    def __init__(self, who: str, *command: str | Path, first: object = None) -> None:
        self.who, self.asked = who, ""
        # What it says on standard error is shown when it fails.
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env={
                name: value
                for name, value in os.environ.items()
                # Settings of this shell must not reach the release under test.
                if name != "DJANGO_SETTINGS_MODULE"
            },
        )
        if first is not None:
            self.send(first)

    def send(self, line: object) -> None:
        self.process.stdin.write(json.dumps(line) + "\n")
        self.process.stdin.flush()

    def begin(self, op: str, **question) -> None:
        self.asked = op
        with contextlib.suppress(BrokenPipeError):  # `end` says why it is gone
            self.send({"op": op, **question})

    def end(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            self.process.wait(10)
            raise AssertionError(f"{self.who} ended while asked to {self.asked}:\n{self.said()}")
        answer = json.loads(line)
        if "error" in answer:
            raise Refused(self.who, self.asked, answer)
        return answer

    def has_answered(self) -> bool:
        return bool(select.select([self.process.stdout], [], [], 0)[0])

    def ask(self, op: str, **question) -> dict:
        self.begin(op, **question)
        return self.end()

    def said(self) -> str:
        self.errors.seek(0)
        return self.errors.read()[-3000:]

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.errors.close()


def interpreter(django: str) -> Path | None:
    """Python of the environment that `make test` made for that release."""
    found = VENVS / f"django-{django}" / "bin" / "python"
    return found if found.exists() else None


def django(release: str, settings: dict) -> Child:
    return Child(
        f"Django {release}", interpreter(release), HERE / "django_child.py", first=settings
    )


def newest_django(settings: dict) -> Child:
    """With this environment's Django and our engines."""
    return Child("Django", sys.executable, HERE / "django_child.py", first=settings)


def build_example(name: str, variable: str) -> str:
    """A program of tests/rust."""
    return build("--example", name, variable)


def build(kind: str, name: str, variable: str) -> str:
    """Cargo builds a program, unless this variable says where it is."""
    if program := os.environ.get(variable):
        return program
    build = ["cargo", "build", "--quiet", kind, name, "--all-features"]
    build.append("--message-format=json-render-diagnostics")
    env = {"PYO3_PYTHON": sys.executable, **os.environ}
    output = subprocess.check_output(build, cwd=ROOT, text=True, env=env)
    messages = [json.loads(line) for line in output.splitlines()]
    return next(
        message["executable"]
        for message in messages
        if message["reason"] == "compiler-artifact"
        and message["target"]["name"] == name
        and message["executable"]
    )


def build_driver() -> str:
    return build_example("interop_driver", "DJANGO_SESSIONS_DRIVER")


@contextlib.contextmanager
def sharing(name: str, where: dict, folder: Path):
    """What starts as many programs of each kind over the store of that configuration, with options
    of RUST_SESSIONS: Django with our engine, and Rust with what Django exported."""
    configuration = named(name)
    settings = configuration.settings(where, folder)
    settings["SESSION_ENGINE"] = f"django_rust_sessions.backends.{configuration.engine}"
    driver, opened = build_driver(), []

    def start(number: int, **options) -> tuple[list[Child], list[Child]]:
        settings["RUST_SESSIONS"] = options
        exported = folder / "sessions.json"
        djangos = [newest_django(settings) for _ in range(number)]
        opened.extend(djangos)
        djangos[0].ask("prepare")
        djangos[0].ask("export", path=str(exported))
        rusts = [Child("Rust", driver, exported) for _ in range(number)]
        opened.extend(rusts)
        return djangos, rusts

    try:
        yield start
    finally:
        for child in opened:
            child.close()


def names_in(who: Child, key: str) -> set[str]:
    """The names of the values in a session, as that program reads it."""
    if who.who == "Django":
        return {ast.literal_eval(name) for name, *_ in who.ask("read", key=key)["values"]}
    return {value["key"] for value in who.ask("load", key=key)["values"]}


def change(who: Child, key: str, name: str) -> None:
    value = {"value": 1} if who.who == "Django" else {"json": "1"}
    assert who.ask("change", key=key, name=name, **value)["key"] == key
