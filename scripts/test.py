"""Everything that must hold before a change lands (`make test`), and which of it did not hold.

    python3 scripts/test.py              all steps
    python3 scripts/test.py clippy 4.2   only steps with one of these words in their title
    python3 scripts/test.py --lint       only the quick checks of the text
    python3 scripts/test.py --list       what steps there are

A failed step does not keep the others from running. What could not be tested here (a server or an
interpreter is missing) is named at the end; with CI=true that is a failure.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path

import envs
from envs import ROOT, VENV

CI = os.environ.get("CI") == "true"
IS_FULL = os.environ.get("HYPOTHESIS_PROFILE") == "full"  # `make test-full`
PYTHON = envs.python_in(VENV)
# How a test, of Rust or Python, says that something is missing here.
SKIPPED = "SKIPPED: "
# Programs that wait for servers, as most tests do.
AT_ONCE = 2
# Of a program: nothing to read, and one text of all that it prints.
STREAMS = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
STREAMS |= {"text": True, "errors": "replace"}


class Failed(Exception):
    pass


class Skipped(Exception):
    """This machine cannot run the step."""


skips: list[str] = []  # of the step that is running


def note(line: str) -> None:
    """Shows a line that a program printed, and notes what it skipped."""
    print(line, end="", flush=True)
    if line.startswith(SKIPPED):
        skips.append(line.removeprefix(SKIPPED).strip())


def call(*command: str | Path, cwd: Path = ROOT, **variables: str) -> None:
    """Runs a program, shows what it prints and notes what it skipped."""
    print("$", *(f"{name}={value}" for name, value in variables.items()), *command, flush=True)
    with subprocess.Popen(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **variables},
        **STREAMS,
    ) as process:
        for line in process.stdout:
            note(line)
    if process.returncode:
        raise Failed(f"{command[0]} ended with {process.returncode}")


def at_once(*commands: list[str | Path], **variables: str) -> None:
    """Runs programs that do not need each other, AT_ONCE of them at a time, and shows what each
    printed when it has ended."""
    env = {**os.environ, **variables}

    def run_one(command: list[str | Path]) -> subprocess.CompletedProcess:
        return subprocess.run(command, cwd=ROOT, env=env, **STREAMS)

    failed = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for done in pool.map(run_one, commands):
            print("$", *done.args, flush=True)
            for line in done.stdout.splitlines(keepends=True):
                note(line)
            if done.returncode:
                failed.append(" ".join(str(word) for word in done.args))
    if failed:
        raise Failed(f"failed: {'; '.join(failed)}")


def python(*words: str | Path, **variables: str) -> None:
    call(PYTHON, *words, **variables)


# ------------------------------------------------------------------------------------------- cargo


@cache
def manifest() -> dict:
    command = ["cargo", "metadata", "--no-deps", "--format-version", "1"]
    return json.loads(subprocess.check_output(command, cwd=ROOT))["packages"][0]


def features() -> list[str]:
    """What users may choose; a leading underscore marks what is only there for other features."""
    return sorted(f for f in manifest()["features"] if f != "default" and f[0] != "_")


@cache
def libpython() -> Path | None:
    """The folder of the library that a Rust test of the Python bindings is linked with."""
    code = "import sysconfig as s; print(*s.get_config_vars('LIBDIR', 'LDLIBRARY', 'LIBRARY'))"
    folder, *names = subprocess.check_output([PYTHON, "-c", code], text=True).split()
    return Path(folder) if any((Path(folder) / name).exists() for name in names) else None


def libraries() -> str:
    """LD_LIBRARY_PATH of what is linked with libpython."""
    folders = [str(libpython()), os.environ.get("LD_LIBRARY_PATH")] if libpython() else []
    return ":".join(filter(None, folders))


def cargo_env() -> dict[str, str]:
    """The same Python in each step, or pyo3 would be built anew in between."""
    return {"PYO3_PYTHON": str(PYTHON), "LD_LIBRARY_PATH": libraries()}


def cargo(*words: str, **variables: str) -> None:
    call(*("cargo", *words), **cargo_env(), **variables)


def test_programs(*words: str) -> Iterator[list[str | Path]]:
    """Builds the tests of Rust and returns how to run the programs, as `cargo test` would."""
    command = ["cargo", "test", "--no-run", "--message-format=json-render-diagnostics", *words]
    print("$", *command, flush=True)
    built = subprocess.check_output(command, cwd=ROOT, env={**os.environ, **cargo_env()}, text=True)
    for message in map(json.loads, built.splitlines()):
        if not message.get("executable") or not message["profile"]["test"]:
            continue
        # Examples are built, but have no tests.
        if message["target"]["kind"] != ["example"]:
            # Those of Redis wait for failovers, most of the time.
            threads = ["--test-threads=6"] if message["target"]["name"] == "redis" else []
            yield [message["executable"], *threads]


def run_rust_tests(*words: str, **variables: str) -> None:
    """`cargo test`, but with several programs at once: many a test waits for a server."""
    at_once(*test_programs(*words), **for_programs(variables))


def for_programs(variables: dict[str, str]) -> dict[str, str]:
    """The environment of a test program, as `cargo test` would set it."""
    return {**cargo_env(), "CARGO_MANIFEST_DIR": str(ROOT), **variables}


def all_features() -> list[str]:
    """--all-features, where the bindings can be linked."""
    if libpython():
        return ["--all-features"]
    skips.append(
        "Rust tests of the Python bindings: no libpython (Debian has it in libpython3-dev)"
    )
    return ["--features", ",".join(feature for feature in features() if feature != "python")]


def each_feature_alone() -> None:
    for feature in features():
        features_alone = ("--no-default-features", "--features", feature)
        cargo("clippy", "--quiet", "--lib", *features_alone, "--", "-D", "warnings")


def rust_version() -> None:
    """The crate builds with the oldest Rust that it promises."""
    promised = manifest()["rust_version"]
    here = subprocess.check_output(["rustc", "--version"], text=True).split()[1]
    if here.split(".")[:2] == promised.split(".")[:2]:
        print(f"This is Rust {here}: the other steps are the check of rust-version {promised}.")
    elif (
        subprocess.run(["cargo", f"+{promised}", "--version"], capture_output=True).returncode == 0
    ):
        cargo(f"+{promised}", "check", "--all-features", "--target-dir", "target/rust-version")
    else:
        raise Skipped(f"Rust {promised} of Cargo.toml is not installed (this is {here})")


# ------------------------------------------------------------------------------------------ Python


# Steps that need one of these call it: each step can run alone, and none tests an old build.
build = cache(envs.build)
wheel = cache(envs.abi3_wheel)


def pytest(interpreter: Path, *words: str, **variables: str) -> None:
    call(*pytest_command(interpreter, *words), **variables)


def pytest_command(interpreter: Path, *words: str) -> list[str | Path]:
    return [interpreter, "-m", "pytest", "-q", *words]


# Two or three of them wait for a server or a process at any time.
WORKERS = ("-n", "4", "--dist", "worksteal")


# Long ones in which the release of Django has little part.
SEEN_ONCE = (
    *("test_content.py", "test_faults.py", "test_local_cache.py", "test_resp.py"),
    "test_servers.py",
)
# What there is beside Django's own: .venv and the oldest release show it.
OF_OURS = (
    *("test_async_commit.py", "test_bots.py", "test_clear_expired.py", "test_devices.py"),
    *("test_fallback.py", "test_hash_keys.py", "test_merge.py", "test_sessions_command.py"),
)
# The oldest, and the LTS, whose sessions are async. What is between it and .venv's, the newest, has
# little of its own, and beside .venv only the wheel is another: one for all Pythons.
SEEN_WHOLE = ("4.2", "5.2")
OF_THE_WHEEL = ("test_package.py", "test_codec.py", "test_vectors.py", "test_db.py", "test_file.py")


@cache
def django_env(version: str) -> Path:
    """Its Python, in an environment with that Django release and our wheel."""
    try:
        return envs.python_in(envs.django(version, wheel()))
    except envs.NoInterpreter as error:
        raise Skipped(str(error)) from None


def django(version: str) -> None:
    """The Python tests with an older or newer Django and our wheel, as its users have them."""
    interpreter = django_env(version)
    # The main environment has seen the many generated cases; here a part of them is enough.
    profile = os.environ.get("HYPOTHESIS_PROFILE", "quick")
    if IS_FULL:
        tests = ["tests/python"]
    elif version not in SEEN_WHOLE:
        tests = [f"tests/python/{name}" for name in OF_THE_WHEEL]
    else:
        left_out = SEEN_ONCE if version == min(envs.DJANGOS) else (*SEEN_ONCE, *OF_OURS)
        tests = ["tests/python", *(f"--ignore=tests/python/{name}" for name in left_out)]
    pytest(interpreter, *WORKERS, *tests, HYPOTHESIS_PROFILE=profile)


def rust_tests() -> None:
    # Some have a Django site export its settings.
    build()
    run_rust_tests(*TARGETS, *all_features())


def without_features() -> None:
    run_rust_tests(*TARGETS, "--no-default-features")


def stubs() -> None:
    build()
    python("-m", "mypy.stubtest", "django_rust_sessions._native")


def drop_in() -> None:
    build()
    pytest(PYTHON, *WORKERS, "tests/python")


# What is off by default, and how the engines are tested with it.
OPTIONS: tuple[dict[str, object], ...] = (
    {"LOCAL_CACHE": 10_000_000},
    {"MERGE": True},
    {"POSTGRES_ASYNC_COMMIT": True},
    {"HASH_KEYS": "sha256"},
    {"HASH_KEYS": "plain"},
)


def with_option(option: dict[str, object]) -> None:
    """The Python tests with an option on; without `make test-full` a few that show most. Those that
    assert what it changes say so and are skipped: `not_with` in tests/python/conftest.py."""
    build()
    tests, profile = ["tests/python"], "default"  # more generated cases would take hours
    if not IS_FULL:
        caches = "test_cache and (redis or memcached) and not django_redis"
        tests, profile = ["tests/python/test_stateful.py", "-k", caches], "quick"
    variables = {"RUST_SESSIONS": json.dumps(option), "HYPOTHESIS_PROFILE": profile}
    pytest(PYTHON, *WORKERS, *tests, **variables)


def valkey() -> None:
    """What is tested over Redis, over Valkey; without `make test-full` what shows most."""
    if shutil.which("valkey-server") is None:
        raise Skipped("valkey-server is missing: run `make servers`")
    build()
    rust, tests = ["redis"], ["test_redis_servers.py", "test_local_cache.py"]
    if IS_FULL:
        rust += ["cache_django", "caches", "engines", "servers_redis"]
        tests += ["test_content.py", "test_faults.py", "test_merge.py", "test_resp.py"]
        tests += ["test_stateful.py"]
    variables = {"REDIS_SERVER": "valkey-server", "HYPOTHESIS_PROFILE": "quick"}
    names = [word for name in rust for word in ("--test", name)]
    in_python = pytest_command(PYTHON, *WORKERS, *(f"tests/python/{name}" for name in tests))
    at_once(in_python, *test_programs(*names, *all_features()), **for_programs(variables))


def tool_wheel() -> None:
    """The tool as pip installs it. Without `make test-full` it is not optimised, and built of what
    the other steps have built already."""
    how = ["--release"] if IS_FULL else ["--profile", "dev", *all_features()]
    with tempfile.TemporaryDirectory() as folder:
        wheels, programs = Path(folder, "wheels"), Path(folder, "env", "bin")
        call(
            *(PYTHON.with_name("maturin"), "build", *how),
            *("--target-dir", ROOT / "target", "--out", wheels),
            cwd=ROOT / "src" / "bin" / "django-sessions",
            **cargo_env(),
        )
        python("-m", "venv", programs.parent)
        call(programs / "pip", "install", "--quiet", "--no-index", *wheels.iterdir())
        call(programs / "django-sessions", "--version", **cargo_env())


def instructions() -> None:
    """What encode, decode and a load cost, which no other work on this machine can change."""
    if shutil.which("valgrind") is None:
        raise Skipped("valgrind is missing, which counts instructions")
    build()
    python("benches/python/instructions.py")


def suites() -> None:
    """Django's own tests, and those of packages, over our engines."""
    call(sys.executable, "scripts/suites.py", *["--full"] * IS_FULL)


def interop() -> None:
    """Django's engines and the Rust crate on the same sessions; the README has the table."""
    for version in envs.INTEROP:
        try:
            django_env(version)
        except Skipped as reason:
            skips.append(str(reason))
    # The matrix prints one table, so one process runs it; the others need not wait for each other.
    at_once(
        pytest_command(PYTHON, "tests/interop", "-k", "not matrix", *WORKERS),
        pytest_command(PYTHON, "tests/interop/test_matrix.py"),
        **cargo_env(),
    )
    python("scripts/interop_table.py", "--check")


def demo() -> None:
    # With the features of the tests, whose build is there, instead of those that the demo needs.
    cargo("build", "--example", "shared_login", *all_features())
    call(
        *("make", "--no-print-directory", "demo-check"),
        DEMO_SERVICE=str(ROOT / "target/debug/examples/shared_login"),
        LD_LIBRARY_PATH=libraries(),
    )


# ------------------------------------------------------------------------------------------- steps

# Documentation tests are a step of their own.
TARGETS = ("--lib", "--bins", "--tests", "--examples")
LINT: list[tuple[str, Callable[[], object]]] = [
    ("rustfmt", lambda: cargo("fmt", "--check")),
    (
        "clippy, all features",
        lambda: cargo("clippy", "--all-targets", "--all-features", "--", "-D", "warnings"),
    ),
    (
        "clippy, no features",
        lambda: cargo("clippy", "--all-targets", "--no-default-features", "--", "-D", "warnings"),
    ),
    ("ruff check", lambda: python("-m", "ruff", "check")),
    ("ruff format", lambda: python("-m", "ruff", "format", "--check")),
    ("mypy", lambda: python("-m", "mypy")),
]
TESTS: list[tuple[str, Callable[[], object]]] = [
    ("rust-version", rust_version),
    ("each feature alone", each_feature_alone),
    (
        "rustdoc",
        lambda: cargo("doc", "--no-deps", "--all-features", RUSTDOCFLAGS="-D warnings"),
    ),
    # Without `make test-full`, clippy shows that they compile: the next step runs the same tests.
    *([("cargo test, no features", without_features)] if IS_FULL else []),
    ("cargo test, all features", rust_tests),
    ("cargo test, documentation", lambda: cargo("test", "--doc", *all_features())),
    ("build of the Python package", build),
    ("stubs against the module", stubs),
    ("pytest", drop_in),
    *(
        (f"pytest with {json.dumps(option)[1:-1]}", partial(with_option, option))
        for option in (OPTIONS if IS_FULL else OPTIONS[:2])
    ),
    ("Valkey in place of Redis", valkey),
    ("instruction counts", instructions),
    ("wheel for every Python", wheel),
    *((f"pytest, Django {version}", partial(django, version)) for version in envs.DJANGOS),
    ("suites of Django and of packages over each engine", suites),
    ("interop with each Django", interop),
    ("demo-check", demo),
    ("wheel of the tool", tool_wheel),
]
# What deny.toml allows, where the tool is (`cargo install --locked cargo-deny`).
# Its advisories need the network.
if shutil.which("cargo-deny"):
    LINT.append(("cargo deny", lambda: cargo("deny", "check", "licenses", "bans", "sources")))
# Without these nothing else can run.
FIRST: list[tuple[str, Callable[[], object]]] = [
    ("servers", lambda: call(sys.executable, "scripts/install_servers.py")),
    ("environment", envs.venv),
]


def work_of_children() -> float:
    """Seconds of a processor that the programs which have ended took: a step that waits took fewer
    than it lasted."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(title: str, step: Callable[[], object]) -> str:
    """Runs one step and returns its outcome: ok, failed or skipped."""
    skips.clear()
    try:
        step()
    except Skipped as reason:
        skips.append(str(reason))
        outcome = "skipped"
    except (Failed, OSError, subprocess.CalledProcessError, envs.NoInterpreter) as error:
        print(f"{title}: {error}", flush=True)
        outcome = "failed"
    else:
        outcome = "ok"
    return "failed" if CI and skips else outcome


def main() -> None:
    words = sys.argv[1:]
    if words in (["--help"], ["-h"]):
        sys.exit(__doc__)
    steps = LINT if words == ["--lint"] else [*LINT, *TESTS]
    if words == ["--list"]:
        print(*(title for title, _ in [*FIRST, *steps]), sep="\n")
        return
    if words and words != ["--lint"]:
        steps = [step for step in steps if any(word.lower() in step[0].lower() for word in words)]
    if not steps:
        sys.exit(
            f"no step has {' or '.join(words)} in its title: see python3 scripts/test.py --list"
        )

    results: list[tuple[str, float, float, str]] = []
    all_skips: dict[str, list[str]] = {}
    steps = [*(FIRST[1:] if words else FIRST), *steps]
    for number, (title, step) in enumerate(steps, 1):
        print(f"\n===== {number}/{len(steps)} {title}", flush=True)
        start, worked = time.monotonic(), work_of_children()
        outcome = run(title, step)
        results.append((outcome, time.monotonic() - start, work_of_children() - worked, title))
        for skip in dict.fromkeys(skips):
            all_skips.setdefault(skip, []).append(title)
        if outcome == "failed" and title == "environment":
            break

    minutes = sum(seconds for _, seconds, *_ in results) / 60
    print(f"\n===== {minutes:.1f} minutes; in the second column, of a processor")
    for outcome, seconds, work, title in results:
        print(f"{outcome:8}{seconds:7.1f} s {work:7.1f} s  {title}")
    if all_skips:
        print("\nNot tested here" + (", which CI=true makes a failure:" if CI else ":"))
        for skip, titles in all_skips.items():
            print(f"- {skip} ({', '.join(titles)})")
    count = [outcome for outcome, *_ in results].count
    print(
        f"\n{count('ok')} passed, {count('failed')} failed, {count('skipped')} skipped", flush=True
    )
    sys.exit(1 if count("failed") else 0)


if __name__ == "__main__":
    main()
