#!/usr/bin/env python3
"""Make the vectors again: each Django release in a virtual environment of its own writes its file here.

usage: python tests/vectors/generate.py [RELEASE ...]     e.g. 5.2 3.1-sha1; without a release, all of them
       --venvs DIR   keep the virtual environments there for the next time
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent

# Name of the file, Django, Python, hashing algorithm of its signatures.
RELEASES = [
    ("1.11", "1.11", "3.6", "sha1"),
    ("2.2", "2.2", "3.7", "sha1"),
    ("3.0", "3.0", "3.8", "sha1"),
    ("3.1", "3.1", "3.8", "sha256"),
    ("3.1-sha1", "3.1", "3.8", "sha1"),
    ("3.2", "3.2", "3.9", "sha256"),
    ("4.2", "4.2", "3.11", "sha256"),
    ("5.2", "5.2", "3.12", "sha256"),
    ("6.0", "6.0", "3.12", "sha256"),
    ("6.1", "6.1", "3.13", "sha256"),
]


def find_python(version: str) -> str:
    """The interpreter on PATH, or pyenv's. A pyenv shim may exist and still refuse to run."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    installed = sorted(pyenv.glob(f"versions/{version}.*/bin/python{version}"))
    for python in [f"python{version}", *map(str, reversed(installed))]:
        try:
            run = subprocess.run([python, "--version"], capture_output=True, text=True)
        except FileNotFoundError:
            continue
        if run.returncode == 0 and f" {version}." in run.stdout:
            return python
    raise SystemExit(f"Python {version} is needed: install it, for example with `pyenv install {version}`.")


def make_venv(folder: Path, python: str, django: str) -> Path:
    interpreter = folder / "bin" / "python"
    if not interpreter.exists():
        subprocess.run([python, "-m", "venv", folder], check=True)
    pip = [interpreter, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", f"Django=={django}.*"]
    subprocess.run(pip, check=True)
    return interpreter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("releases", nargs="*", metavar="RELEASE", help="default: all")
    parser.add_argument("--venvs", type=Path, help="keep the virtual environments in this folder")
    options = parser.parse_args()
    unknown = set(options.releases) - {name for name, *_ in RELEASES}
    if unknown:
        parser.error(f"no such release: {', '.join(sorted(unknown))}; known: {', '.join(name for name, *_ in RELEASES)}")

    wanted = [release for release in RELEASES if not options.releases or release[0] in options.releases]
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.venvs or Path(temporary)
        for number, (name, django, python, algorithm) in enumerate(wanted, 1):
            print(f"[{number}/{len(wanted)}] Django {django} on Python {python}, {algorithm}", flush=True)
            start = time.monotonic()
            interpreter = make_venv(folder.resolve() / f"django-{django}", find_python(python), django)
            output = HERE / f"django-{name}.json"
            made_by = f"tests/vectors/generate.py {name}: Django=={django}.* from pip on Python {python}"
            # A fixed hash seed and UTC: two runs write the same file.
            env = {**os.environ, "PYTHONHASHSEED": "0", "TZ": "UTC"}
            env.pop("DJANGO_SETTINGS_MODULE", None)
            subprocess.run([interpreter, HERE / "worker.py", output, algorithm, made_by], check=True, env=env)
            seconds = time.monotonic() - start
            print(f"  {output.name}: {output.stat().st_size / 1024:.0f} KiB in {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
