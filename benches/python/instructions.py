"""How many instructions encode, decode and a load take, beside what they took before.

    python benches/python/instructions.py            compares with benches/instructions.json
    python benches/python/instructions.py --write    ... and writes what is counted there

Counted by callgrind, so nothing else that the machine does matters. Each figure is the difference
of two runs, one with the operation and one without, divided by the number of operations. Counts of
other versions (of Python, Django, Rust, callgrind) or of a processor that knows other instructions
cannot be compared: then they are only printed.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
KEPT = HERE.parent / "instructions.json"
# More than this many times what was kept is a regression.
LIMIT = 1.10
# Operation -> how often it is made. Starting Python takes as much as some thousands of them.
COUNTS = {
    "encode login": 2000,
    "decode login": 2000,
    "encode large": 50,
    "decode large": 50,
    "load login, SQLite": 500,
}


def perform(operation: str, number: int) -> None:
    """What is counted."""
    from bench import configure

    configure()
    from django.contrib.sessions.models import Session
    from django.db import connection
    from django_rust_sessions.backends.db import SessionStore
    from payloads import PAYLOADS

    with connection.schema_editor() as editor:
        editor.create_model(Session)
    verb, name = re.match(r"(\w+) (\w+)", operation).groups()
    store = SessionStore()
    store.update(PAYLOADS[name])
    store.create()
    text = store.encode(PAYLOADS[name])
    acts = {
        "encode": lambda: store.encode(PAYLOADS[name]),
        "decode": lambda: store.decode(text),
        "load": lambda: SessionStore(store.session_key).load(),
    }
    act = acts[verb]
    act()
    for _ in range(number):
        act()


def count(operation: str, number: int) -> int:
    """The instructions of a whole process."""
    with tempfile.TemporaryDirectory(prefix="instructions-") as folder:
        command = [
            *("valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out"),
            *(sys.executable, __file__, "--perform", operation, str(number)),
        ]
        # Hashes of strings, and so the collisions in dicts, are the same each time.
        environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or not found:
        sys.exit(f"callgrind did not count {operation}:\n{done.stderr[-3000:]}")
    return int(found[1])


def measure() -> dict[str, int]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # What does nothing but start, with the same session.
        start = {name: pool.submit(count, f"load {name}", 0) for name in ("login", "large")}
        runs = {each: pool.submit(count, each, number) for each, number in COUNTS.items()}

    def per_operation(operation: str) -> int:
        started = start["large" if "large" in operation else "login"].result()
        return round((runs[operation].result() - started) / COUNTS[operation])

    return {operation: per_operation(operation) for operation in COUNTS}


def about() -> dict[str, str]:
    """What the counts depend on, besides this project."""
    import django

    def first_line(*command: str) -> str:
        return subprocess.check_output(command, text=True).splitlines()[0]

    cpu = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    known = [flag for flag in ("avx2", "bmi2", "pclmulqdq") if re.search(rf"\b{flag}\b", cpu)]
    return {
        "python": platform.python_version(),
        "django": ".".join(map(str, django.VERSION[:2])),
        "rust": first_line("rustc", "--version"),
        "callgrind": first_line("valgrind", "--version"),
        "machine": " ".join([platform.machine(), platform.libc_ver()[1], *known]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--perform", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.perform:
        return perform(arguments.perform[0], int(arguments.perform[1]))
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {"about": {}, "counts": {}}
    here, counts = about(), measure()
    slower = []
    for operation, now in counts.items():
        before = kept["counts"].get(operation)
        ratio = f"{now / before:.3f} times {before:,}" if before else "new"
        print(f"{operation:20}{now:12,} instructions   {ratio}")
        if not before or now > before * LIMIT:
            slower.append(operation)
    if arguments.write:
        KEPT.write_text(json.dumps({"about": here, "counts": counts}, indent=2) + "\n")
    elif here != kept["about"]:
        others = [
            kept["about"].get(name, name) for name in here if here[name] != kept["about"].get(name)
        ]
        print(f"Not compared: the others were counted with {', '.join(others)}.")
    elif slower:
        sys.exit(
            f"more than {LIMIT - 1:.0%} slower: {', '.join(slower)}."
            " If that is the price of something better, `make instructions` keeps the new counts."
        )


if __name__ == "__main__":
    main()
