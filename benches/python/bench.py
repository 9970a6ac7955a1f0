"""`make bench`: the Python engines beside Django's, other packages and the floors, in one run.

    python benches/python/bench.py [--rounds 21] [--json FILE] [--plots FOLDER] [WORD ...]

Servers are private ones. Contenders take turns within each round; a ratio is the median of the
rounds' ratios, with its quartiles. What misses its target is printed as missed and fails nothing:
this machine is not every machine. With words, only the parts that have one in their name.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from django.conf import settings

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE.parent), str(ROOT / "tests"), str(ROOT / "tests" / "python")]
PACKAGES = [
    "Django",
    "django-redis",
    "redis",
    "hiredis",
    "pymemcache",
    "psycopg",
    "orjson",
    "zlib-ng",
    "uvicorn",
]


def configure() -> None:
    import django

    settings.configure(
        SECRET_KEY="measured with a key of the usual length, of fifty.",
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        INSTALLED_APPS=["django.contrib.sessions"],
        USE_TZ=True,
    )
    django.setup()


def parts(folder: Path):
    import codec
    import requests_
    import stores

    files = folder / "sessions"
    files.mkdir()
    return {
        "codec": codec.rows,
        "redis": stores.redis_rows,
        "local": stores.local_rows,
        "async": stores.async_rows,
        "cached_db": stores.cached_db_rows,
        "postgres": stores.postgres_rows,
        "durable": stores.durable_rows,
        "cleanup": stores.cleanup_rows,
        "sqlite": lambda rounds: stores.sqlite_rows(rounds, folder),
        "file": lambda rounds: stores.file_rows(rounds, files),
        "wsgi": requests_.wsgi_rows,
        "asgi": requests_.asgi_rows,
        "memory": requests_.memory_rows,
        "import": requests_.import_rows,
        "wheel": requests_.wheel_rows,
    }


def machine() -> dict:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    model = next(models, platform.processor())
    return {
        "cores": os.cpu_count(),
        "processor": model,
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
        **{package: version(package) for package in PACKAGES},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", metavar="WORD")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--json", type=Path, default=ROOT / "target" / "bench.json")
    parser.add_argument("--plots", type=Path, help="a folder for the plots, light and dark")
    arguments = parser.parse_args()
    configure()
    import django_rust_sessions._native

    if django_rust_sessions._native.DEBUG:
        sys.exit("the native module is not optimised: run `make build` first")
    about = machine()
    print(", ".join(f"{name} {value}" for name, value in about.items()), flush=True)
    rows, skipped = [], []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        chosen = parts(Path(folder))
        words = [word.lower() for word in arguments.words]
        for name, part in chosen.items():
            if words and not any(word in name for word in words):
                continue
            start = time.monotonic()
            try:
                for row in part(arguments.rounds):
                    rows.append(row)
                    print(*row.lines(), sep="\n", flush=True)
            except Exception as error:  # the other parts are worth having
                skipped.append(f"{name}: {type(error).__name__}: {error}")
                print(f"{skipped[-1]}", flush=True)
            print(f"-- {name}: {time.monotonic() - start:.0f} s", flush=True)
    verdicts = [one.met for row in rows for one in row.comparisons if one.met is not None]
    print(f"\n{sum(verdicts)} of {len(verdicts)} targets met")
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    found = {"machine": about, "rounds": arguments.rounds, "rows": [row.as_json() for row in rows]}
    arguments.json.write_text(json.dumps(found, indent=1))
    if arguments.plots:
        import plots

        plots.draw(found, arguments.plots)
    if skipped:
        sys.exit("not measured: " + "; ".join(skipped))


if __name__ == "__main__":
    main()
