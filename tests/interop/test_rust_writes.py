"""Django -> Rust -> Django: every Django release reads what Rust made of every Django's sessions.

Releases are looked for in $DJANGO_VENVS (.venvs by default) as django-X.Y, and installed there if
their Python is on this machine. The Rust program is tests/rust/interop_cli.rs, which cargo builds
unless $DJANGO_SESSIONS_INTEROP says where it is.
"""

import json
import os
import subprocess
from pathlib import Path

import children
import envs
import pytest
from children import VENVS
from vectors.generate import RELEASES, find_python, make_venv
from vectors.reader import unique

READER = Path(__file__).with_name("read_tokens.py")
# How a token is signed -> the releases that read it.
READERS = {
    "sha256": {"3.1", "3.2", "4.2", "5.2", "6.0", "6.1"},
    "sha1": {"1.11", "2.2", "3.0", "3.1", "3.1-sha1", "3.2"},
    "legacy": {"1.11", "2.2", "3.0", "3.1", "3.1-sha1", "3.2"},
}


def lines(program, requests):
    """Asks a program that answers one JSON object a line with one."""
    asked = "".join(json.dumps(request) + "\n" for request in requests)
    # Django settings of this shell must not reach the release under test.
    env = {k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"}
    done = subprocess.run(program, input=asked, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(requests), done.stderr[-2000:]
    return answers


@pytest.fixture(scope="session")
def rust():
    """The program that reads and writes with our crate."""
    return children.build_example("interop_cli", "DJANGO_SESSIONS_INTEROP")


def request(vector, op):
    fields = {
        "op": op,
        "format": vector.kind,
        "salt": vector.salt,
        "secret_key": vector.secret_key,
        "fallback_keys": vector.fallback_keys,
        "algorithm": vector.algorithm,
        "now": vector.fields.get("time", int(vector.now)),
    }
    if op == "write":
        return {**fields, "payload_json": vector.payload}
    if op == "touch":
        fields.update(key="rust_was_here", value=True)
    return {**fields, "token": vector.token}


def touched(text):
    """The JSON text of a session with one key more, at its end."""
    return text[:-1] + ("," if text != "{}" else "") + '"rust_was_here":true}'


@pytest.fixture(scope="session")
def written(rust):
    """All that Rust made of the valid vectors: (vector, op, token, expected text)."""
    asked = [(vector, op) for vector in unique("valid") for op in ("roundtrip", "touch", "write")]
    answers = lines([rust], [request(vector, op) for vector, op in asked])
    wrong = [
        f"{op} {vector.id}: {answer['error']}"
        for (vector, op), answer in zip(asked, answers, strict=True)
        if "error" in answer
    ]
    assert wrong == []
    return [
        (vector, op, answer["token"], touched(vector.value) if op == "touch" else vector.value)
        for (vector, op), answer in zip(asked, answers, strict=True)
    ]


def interpreter(django, python):
    """Python of that release's environment, which is made if need be."""
    env = VENVS / f"django-{django}"
    # Two tests ask for 3.1, and each may be in a process of its own.
    with envs.lock(env):
        if has_django(envs.python_in(env)):
            return envs.python_in(env)
        found = find_python(python)
        if found is None:
            pytest.skip(f"Django {django}: Python {python} is not here")
        try:
            return make_venv(env, found, django)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"Django {django}: it cannot be installed ({error})")


def has_django(python):
    return python.exists() and subprocess.run([python, "-c", "import django"]).returncode == 0


@pytest.mark.parametrize(("name", "django", "python", "algorithm"), RELEASES)
def test_django_reads_what_rust_wrote(name, django, python, algorithm, written):
    program = [interpreter(django, python), READER, algorithm if django == "3.1" else "default"]
    mine = [
        (f"{op} {vector.id}", vector, token, expected)
        for vector, op, token, expected in written
        if name in READERS["legacy" if vector.kind == "legacy" else vector.algorithm]
    ]
    assert len(mine) > 600
    answers = lines(
        program,
        [
            {
                "id": id,
                "kind": vector.kind,
                "token": token,
                "salt": vector.salt,
                "secret_key": vector.secret_key,
                "now": vector.fields.get("time", vector.now),
            }
            for id, vector, token, _ in mine
        ],
    )
    wrong = [
        f"{id}: {answer.get('error') or answer['text'][:200]} instead of {expected[:200]}"
        for (id, _, _, expected), answer in zip(mine, answers, strict=True)
        if answer != {"id": id, "text": expected}
    ]
    assert wrong == []


def test_untouched_and_uncompressed_is_the_same_token(written):
    """Of the same second and key, to the letter: what zlib makes may differ, nothing else may."""
    compared = 0
    for vector, op, token, _ in written:
        # Of equal keys, and of a key that was rotated away, Rust keeps the last and the new one.
        changed = op == "touch" or vector.fields.keys() & {"reads_as", "signed_with"}
        if not changed and not token.startswith("."):
            assert token == vector.token, f"{op} {vector.id}"
            compared += 1
    assert compared > 100


def test_every_invalid_token_is_answered(rust):
    """By an error where Django has one, and never by the end of the program."""
    # The program is not told a max_age: for it, nothing expires.
    spoiled = [v for v in unique("invalid") if v.group != "expired" and v.max_age is None]
    assert len(spoiled) > 1000
    answers = lines([rust], [request(vector, "touch") for vector in spoiled])
    for vector, answer in zip(spoiled, answers, strict=True):
        assert answer.keys() in ({"token"}, {"error"})
        refused = vector.value is None or vector.fields.get("ours")
        assert not refused or "error" in answer, vector.id
        # What Django reads and Rust can hold as a session, it keeps.
        if not refused and vector.value.startswith("{") and "digits_4301" not in vector.id:
            assert "token" in answer, f"{vector.id}: {answer}"
