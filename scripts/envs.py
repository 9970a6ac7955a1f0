"""The Python environments of this checkout: finds interpreters, makes .venv and .venvs/django-X.Y.

    python3 scripts/envs.py venv          .venv, for developing
    python3 scripts/envs.py build         ... with the package built into it (optimised)
    python3 scripts/envs.py django 4.2    .venvs/django-4.2, with our wheel as users install it

Each environment is made once; a stamp in it says of what, and when that changes it is brought up
to date.
"""

import contextlib
import fcntl
import functools
import hashlib
import os
import subprocess
import sys
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036 (python3 may be any)
    sys.exit("Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 ...")

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
DIST = ROOT / "dist"
# Newest first. .venv is made of the first one that this machine has.
PYTHONS = ["3.14", "3.13", "3.12", "3.11"]
# Django release -> the Python that it is tested on.
DJANGOS = {"4.2": "3.11", "5.2": "3.12", "6.0": "3.12", "6.1": "3.13"}
# Those that meet the Rust crate in the interop matrix: the oldest, the LTS and the newest.
INTEROP = ("4.2", "5.2", "6.1")
# Beside Cargo's own target folder: maturin and cargo pass pyo3 different variables, and in one
# folder each would rebuild what the other just built.
TARGET = ROOT / "target" / "wheel"


class NoInterpreter(Exception):
    """This machine does not have that Python."""


def run(*command: str | Path, **options) -> None:
    print("$", *command, flush=True)
    subprocess.run([str(part) for part in command], check=True, cwd=ROOT, **options)


def python_in(env: Path) -> Path:
    return env / "bin" / "python"


@functools.cache
def find_python(version: str) -> str | None:
    """A working interpreter of that version, which can make environments. pyenv's shims are files
    that exist and fail, so each candidate is run."""
    name = f"python{version}"
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    installed = [str(path) for path in sorted(pyenv.glob(f"{version}.*/bin/{name}"))]
    for candidate in [name, *reversed(installed), "python3"]:
        check = (
            f"import sys, venv, ensurepip; sys.exit('%d.%d' % sys.version_info[:2] != '{version}')"
        )
        with contextlib.suppress(OSError):
            if subprocess.run([candidate, "-c", check], capture_output=True).returncode == 0:
                return candidate
    return None


@contextlib.contextmanager
def lock(env: Path):
    """Two makes at once must not build the same environment."""
    locks = ROOT / "target"
    locks.mkdir(exist_ok=True)
    with open(locks / f"{env.name}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def make(env: Path, interpreter: str, *packages: str) -> None:
    """Creates or updates an environment, unless its stamp says that nothing changed."""
    wanted = "\n".join(
        [interpreter, *packages, hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()]
    )
    stamp = env / "stamp"
    if stamp.exists() and stamp.read_text() == wanted and python_in(env).exists():
        return
    same_interpreter = stamp.exists() and stamp.read_text().split("\n")[0] == interpreter
    run(interpreter, "-m", "venv", *([] if same_interpreter else ["--clear"]), env)
    # Dependency groups need pip 25.1.
    run(python_in(env), "-m", "pip", "install", "--quiet", "--upgrade", "pip>=25.1")
    run(python_in(env), "-m", "pip", "install", "--quiet", *packages)
    stamp.write_text(wanted)


def venv() -> Path:
    interpreter = next(filter(None, map(find_python, PYTHONS)), None)
    if interpreter is None:
        raise NoInterpreter(
            "no Python from 3.11 to 3.14 with venv and ensurepip was found "
            "(Debian and Ubuntu: apt-get install python3 python3-venv)"
        )
    with lock(VENV):
        make(VENV, interpreter, "Django", "--group", "dev")
    return VENV


def build() -> None:
    """Installs the package into .venv, optimised: what users get, and what benchmarks measure."""
    venv()
    with lock(VENV):
        maturin = VENV / "bin" / "maturin"
        env = {**os.environ, "VIRTUAL_ENV": str(VENV), "PIP_QUIET": "1"}
        run(maturin, "develop", "--quiet", "--release", "--target-dir", TARGET, env=env)


def abi3_wheel() -> Path:
    """One wheel for every Python of the matrix."""
    interpreter = python_in(venv())
    with lock(DIST):
        for old in DIST.glob("*.whl"):
            old.unlink()
        features = "python,pyo3/abi3-py311"
        run(
            *(VENV / "bin" / "maturin", "build", "--quiet", "--release", "--features", features),
            *("--interpreter", interpreter, "--target-dir", TARGET, "--out", DIST),
        )
        return next(DIST.glob("*.whl"))


def django(version: str, wheel: Path) -> Path:
    """An environment with that Django release and our wheel in it."""
    interpreter = find_python(DJANGOS[version])
    if interpreter is None:
        raise NoInterpreter(
            f"Python {DJANGOS[version]}, which Django {version} is tested on, is not here"
        )
    env = ROOT / ".venvs" / f"django-{version}"
    with lock(env):
        make(env, interpreter, f"Django=={version}.*", "--group", "test")
        run(
            *(
                python_in(env),
                "-m",
                "pip",
                "install",
                "--quiet",
                "--force-reinstall",
                "--no-deps",
                wheel,
            )
        )
    return env


def main() -> None:
    match sys.argv[1:]:
        case ["venv"]:
            venv()
        case ["build"]:
            build()
        case ["django", version] if version in DJANGOS:
            django(version, abi3_wheel())
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    try:
        main()
    except NoInterpreter as error:
        sys.exit(str(error))
    except subprocess.CalledProcessError as error:
        sys.exit(f"failed: {' '.join(map(str, error.cmd))}")
