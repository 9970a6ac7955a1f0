#!/usr/bin/env python3
"""Make the vectors again: each Django release writes its file here, in an environment of its own.

python3 tests/vectors/generate.py               all releases
python3 tests/vectors/generate.py 5.2 3.1-sha1  these two
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


def find_python(version: str) -> str | None:
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
    return None


def make_venv(folder: Path, python: str, django: str) -> Path:
    interpreter = folder / "bin" / "python"
    if not interpreter.exists():
        subprocess.run([python, "-m", "venv", folder], check=True)
    install = ["install", "--quiet", "--disable-pip-version-check", f"Django=={django}.*"]
    subprocess.run([interpreter, "-m", "pip", *install], check=True)
    return interpreter


def main() -> None:
    known = [name for name, *_ in RELEASES]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("releases", nargs="*", metavar="RELEASE", help="default: all")
    parser.add_argument("--venvs", type=Path, help="keep the environments in this folder")
    options = parser.parse_args()
    if unknown := set(options.releases).difference(known):
        parser.error(f"no release {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    names = options.releases or known

    wanted = [release for release in RELEASES if release[0] in names]
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.venvs or Path(temporary)
        for number, (name, django, python, algorithm) in enumerate(wanted, 1):
            title = f"Django {django} on Python {python}, {algorithm}"
            print(f"[{number}/{len(wanted)}] {title}", flush=True)
            start = time.monotonic()
            env = folder.resolve() / f"django-{django}"
            found = find_python(python)
            if found is None:
                sys.exit(f"Python {python} is needed; one way to get it: pyenv install {python}")
            interpreter = make_venv(env, found, django)
            output = HERE / f"django-{name}.json"
            made_by = f"tests/vectors/generate.py {name}: {title}, from pip"
            worker = [interpreter, HERE / "worker.py", output, algorithm, made_by]
            # A fixed hash seed and UTC: two runs write the same file.
            variables = {**os.environ, "PYTHONHASHSEED": "0", "TZ": "UTC"}
            subprocess.run(worker, check=True, env=variables)
            size, seconds = output.stat().st_size / 1024, time.monotonic() - start
            print(f"  {output.name}: {size:.0f} KiB in {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
