"""Runs the test suites of Django, and of packages that lean on sessions, over each of our engines.

    python3 scripts/suites.py                          the sample that `make test` takes
    python3 scripts/suites.py --full                   everything, as `make test-full`
    python3 scripts/suites.py --django 6.1 --engine cache --suite django

Each suite runs twice: as it is, over Django's engine, and with the names of Django's engines and
of its middleware replaced by ours, in its settings and its tests. No test may fail or be skipped
over ours that does not so over Django's. The suites come from the source archives on PyPI, of the
very versions that are installed, and are kept in target/suites.
"""

import argparse
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import envs
from envs import ROOT

sys.path.insert(0, str(ROOT / "tests"))
from servers import Started

CACHE = ROOT / "target" / "suites"
OURS, DJANGOS = "django_rust_sessions", "django.contrib.sessions"
AT_ONCE = 2  # suites

LOCMEM = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
REDIS = {"BACKEND": "django.core.cache.backends.redis.RedisCache"}
DJANGO_REDIS = {"BACKEND": "django_redis.cache.RedisCache"}
# Title: the engine, and the cache that it and the tests find.
ENGINES = {
    "db": ("db", LOCMEM),
    "cache, locmem": ("cache", LOCMEM),
    "cache, Redis": ("cache", REDIS),
    "cache, django-redis": ("cache", DJANGO_REDIS),
    "cached_db, locmem": ("cached_db", LOCMEM),
    "cached_db, Redis": ("cached_db", REDIS),
    "cached_db, django-redis": ("cached_db", DJANGO_REDIS),
    "file": ("file", LOCMEM),
    "signed_cookies": ("signed_cookies", LOCMEM),
}
NAMES = re.compile(
    r"django\.contrib\.sessions(?=\.(?:backends\.(?:db|cache|cached_db|file|signed_cookies)\b"
    # This is in a message of AuthenticationMiddleware, which remains Django's.
    r"|middleware\b(?!\.SessionMiddleware' before)))"
)


# ------------------------------------------------------------------------------------- the suites


@dataclass
class Suite:
    """Where a package keeps its tests, and how it runs them."""

    package: str
    version: str | None  # None: of Django, the one that is installed
    folder: str  # where to run
    settings: str
    command: list[str]
    path: list[str] = field(default_factory=list)  # for PYTHONPATH

    def title(self) -> str:
        return f"{self.package} {self.version}" if self.version else "own suites"


DJANGO = Suite(
    "Django",
    None,
    "tests",
    "test_sqlite",
    ["runtests.py", "--parallel", "1", "--settings", "suite_settings"],
)
SUITES = {
    "django": DJANGO,
    # A form of several pages, kept in the session.
    "formtools": Suite(
        "django-formtools", "2.7", ".", "tests.settings", ["-m", "django", "test", "tests"], ["."]
    ),
    # Logins with a second factor; the session says which device gave it.
    "otp": Suite(
        *("django-otp", "1.7.5", ".", "test_project.settings"),
        ["-m", "django", "test", "django_otp"],
        ["src", "test"],
    ),
}
LABELS = [
    *("sessions_tests", "signed_cookies_tests", "test_client", "test_client_regress"),
    *("auth_tests", "csrf_tests", "messages_tests"),
]
# In the sample, older Djangos, over the main engines, and other caches run these alone.
FEW_LABELS = ["sessions_tests", "test_client"]
MAIN_ENGINES = {"db", "cache, Redis", "cached_db, Redis", "file", "signed_cookies"}
# The packages' sample.
PACKAGE_ENGINES = {"db", "cache, Redis", "signed_cookies"}
NEWEST = max(envs.DJANGOS)


def labels(suite: Suite, root: Path, django: str, engine: str, full: bool) -> list[str]:
    """Which of Django's tests to run; other packages run all of theirs."""
    if suite is not DJANGO:
        return []
    if full:
        return LABELS
    if django != NEWEST or engine not in MAIN_ENGINES:
        return FEW_LABELS
    # The tests of password hashes take three quarters of the time, and know nothing of sessions.
    auth = sorted(path.stem for path in (root / "tests" / "auth_tests").glob("test_*.py"))
    auth.remove("test_hashers")
    return [
        *(label for label in LABELS if label != "auth_tests"),
        *map("auth_tests.{}".format, auth),
    ]


@dataclass
class Job:
    """One run of a suite."""

    suite: Suite
    django: str
    engine: str
    ours: bool
    report: dict = field(default_factory=dict)
    output: str = ""

    def title(self) -> str:
        kind = "ours" if self.ours else "Django's"
        return f"Django {self.django}, {self.suite.title()}, {self.engine}: {kind}"

    def outcomes(self) -> dict[str, list[str]]:
        return self.report.get("outcomes", {})

    def count(self, *outcomes: str) -> int:
        return sum(outcome in outcomes for outcome, _ in self.outcomes().values())


# ----------------------------------------------------------------------------------- the archives


def installed_django(python: Path) -> str:
    code = "import django; print(django.__version__)"
    return subprocess.check_output([python, "-c", code], text=True).strip()


def fetch(package: str, version: str, python: Path) -> Path:
    """The unpacked source archive."""
    kept = CACHE / f"{package}-{version}"
    with envs.lock(kept):
        if not kept.exists():
            with tempfile.TemporaryDirectory(dir=CACHE) as folder:
                envs.run(
                    *(python, "-m", "pip", "download", "--quiet", "--no-deps"),
                    *("--no-binary", ":all:", "--dest", folder, f"{package}=={version}"),
                )
                archive = next(Path(folder).glob("*.tar.gz"))
                with tarfile.open(archive) as tar:
                    tar.extractall(folder, filter="data")
                archive.unlink()
                next(Path(folder).iterdir()).rename(kept)
    return kept


def with_our_names(source: Path) -> Path:
    """A copy of a suite in which Django's engines and middleware are replaced by ours."""
    copy = source.with_name(f"{source.name}-ours")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("docs", "__pycache__"))
    changed = 0
    for path in copy.rglob("*.py"):
        text = path.read_text(errors="surrogateescape")
        replaced, count = NAMES.subn(OURS, text)
        if count:
            path.write_text(replaced, errors="surrogateescape")
            changed += count
    print(f"{source.name}: {changed} names replaced", flush=True)
    return copy


# ---------------------------------------------------------------------------------------- the runs


class Bench:
    """What the jobs run with."""

    def __init__(self, pythons: dict[str, Path], redis: str | None, full: bool) -> None:
        self.pythons, self.redis, self.full = pythons, redis, full
        self.trees: dict[tuple[str, str, bool], Path] = {}
        # What runs at the same time has another of Redis' databases.
        self.databases: queue.Queue[int] = queue.Queue()
        for number in range(AT_ONCE):
            self.databases.put(number)

    def unpack(self, name: str, django: str) -> None:
        suite, python = SUITES[name], self.pythons[django]
        source = fetch(suite.package, suite.version or installed_django(python), python)
        self.trees[suite.package, django, False] = source
        self.trees[suite.package, django, True] = with_our_names(source)

    def run(self, job: Job) -> None:
        """Fills in the job's report."""
        start = time.monotonic()
        root = self.trees[job.suite.package, job.django, job.ours]
        database = self.databases.get()
        with tempfile.TemporaryDirectory() as folder:
            result = subprocess.run(
                [
                    *(self.pythons[job.django], *job.suite.command),
                    *labels(job.suite, root, job.django, job.engine, self.full),
                ],
                cwd=root / job.suite.folder,
                env={**os.environ, **self.variables(job, root, folder, database)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
            self.databases.put(database)
            job.output = result.stdout
            report = Path(folder) / "report.json"
            if report.exists():
                job.report = json.loads(report.read_text())
        print(f"{time.monotonic() - start:6.1f} s  {job.title()}", flush=True)

    def variables(self, job: Job, root: Path, folder: str, database: int) -> dict[str, str]:
        module, cache = ENGINES[job.engine]
        if cache is not LOCMEM:
            cache = {**cache, "LOCATION": f"{self.redis}/{database}"}
        path = [ROOT / "tests" / "suites", *(root / part for part in job.suite.path)]
        return {
            "PYTHONPATH": os.pathsep.join(map(str, path)),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": folder,
            "DJANGO_SETTINGS_MODULE": "suite_settings",
            "SUITE_SETTINGS": job.suite.settings,
            "SUITE_ENGINE": f"{OURS if job.ours else DJANGOS}.backends.{module}",
            "SUITE_CACHE": json.dumps(cache),
            "SUITE_REPORT": f"{folder}/report.json",
        }


def differences(base: Job, ours: Job) -> list[str]:
    """What is worse over ours."""
    if not base.outcomes() or not ours.outcomes():
        return [
            f"{job.title()} ran no test:\n{job.output}" for job in (base, ours) if not job.report
        ]
    found = []
    for test, (outcome, why) in ours.outcomes().items():
        before = base.outcomes().get(test, ["not run", ""])[0]
        if outcome not in ("passed", before):
            found.append(f"{test}: {before} over Django's, {outcome} over ours\n{why}")
    for test, (outcome, _) in base.outcomes().items():
        if test not in ours.outcomes() and outcome in ("passed", "expected failure"):
            found.append(f"{test}: {outcome} over Django's, not run over ours")
    return found + not_used(ours)


def not_used(job: Job) -> list[str]:
    """What says that it was not our engine that was tested, or not the code that was meant."""
    module, cache = ENGINES[job.engine]
    used, found = job.report["used"], []
    if not used.get(f"{OURS}.backends.{module}"):
        found.append(f"no session of our engine {module} was made")
    for name, count in used.items():
        # Nothing replaces the base class: tests make sessions of it, or of their own.
        if name.startswith(DJANGOS) and not name.endswith(".base"):
            found.append(f"{count} sessions of {name} were made")
    if module in ("db", "cached_db") and not used.get("plain SQL"):
        found.append("no plain statement was used")
    why = job.report["why_not_native"]
    if (cache is LOCMEM) != bool(why):
        found.append(f"Redis was {'not ' if why else ''}spoken to natively: {why}")
    return found


# -------------------------------------------------------------------------------------------- main


def wanted(args: argparse.Namespace, djangos: list[str], redis: bool) -> list[tuple[Job, Job]]:
    return [
        (Job(suite, django, engine, False), Job(suite, django, engine, True))
        for name, suite in SUITES.items()
        if not args.suite or name in args.suite
        for django in djangos
        if suite is DJANGO or args.full or django == NEWEST
        for engine, (module, cache) in ENGINES.items()
        if suite is DJANGO or args.full or engine in PACKAGE_ENGINES
        if django == NEWEST or args.full or engine in MAIN_ENGINES
        if not args.engine or module in args.engine or engine in args.engine
        if cache is LOCMEM or redis
    ]


def find_pythons(versions: list[str], installed: bool) -> dict[str, Path]:
    wheel = None if installed else envs.abi3_wheel()
    pythons = {}
    for version in versions:
        try:
            env = envs.django(version, wheel) if wheel else ROOT / ".venvs" / f"django-{version}"
            pythons[version] = envs.python_in(env)
        except envs.NoInterpreter as error:
            print(f"SKIPPED: {error}")
    return pythons


def run_all(pairs: list[tuple[Job, Job]], bench: Bench) -> None:
    names = {suite.package: name for name, suite in SUITES.items()}
    archives = dict.fromkeys((names[base.suite.package], base.django) for base, _ in pairs)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for name, django in archives:
            bench.unpack(name, django)
        list(pool.map(bench.run, (job for pair in pairs for job in pair)))


def show(pairs: list[tuple[Job, Job]]) -> bool:
    """Prints what came of it; False if anything is worse over ours."""
    found = [differences(base, ours) for base, ours in pairs]
    for (_, ours), texts in zip(pairs, found, strict=True):
        for text in texts:
            print(f"\n----- {ours.title()}\n{text}")
    for base, ours in pairs:
        for test, outcome in ours.outcomes().items():
            if (
                outcome[0] in ("failed", "error")
                and base.outcomes().get(test, [""])[0] == outcome[0]
            ):
                print(f"{outcome[0]} over both, {ours.title().removesuffix(': ours')}: {test}")
    head = f"{'tests':>7}{'passed':>8}{'failed':>8}{'skipped':>8}"
    print(f"\n{'':62}{'over Django':>31}{'over ours':>31}{'sessions':>10}")
    print(f"{'':62}{head}{head}{'of ours':>10}")
    for (base, ours), texts in zip(pairs, found, strict=True):
        cells = "".join(
            f"{len(job.outcomes()):7}{job.count('passed', 'expected failure'):8}"
            f"{job.count('failed', 'error'):8}{job.count('skipped'):8}"
            for job in (base, ours)
        )
        engine = f"{OURS}.backends.{ENGINES[ours.engine][0]}"
        sessions = ours.report.get("used", {}).get(engine, 0)
        worse = f"  {len(texts)} worse" if texts else ""
        print(f"{ours.title().removesuffix(': ours'):62}{cells}{sessions:10}{worse}")
    return not any(found)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--django", action="append", choices=envs.DJANGOS)
    parser.add_argument("--engine", action="append", help="db, cache, 'cache, Redis', ...")
    parser.add_argument("--suite", action="append", choices=SUITES)
    parser.add_argument("--full", action="store_true", help="all suites with each Django")
    parser.add_argument(
        "--installed", action="store_true", help="with what .venvs has, without a new wheel"
    )
    args = parser.parse_args()
    CACHE.mkdir(parents=True, exist_ok=True)
    pythons = find_pythons(args.django or list(envs.DJANGOS), args.installed)
    servers = Started("redis")
    try:
        redis = servers.servers["redis"]
        if "missing" in redis:
            print(f"SKIPPED: {redis['missing']}")
        pairs = wanted(args, list(pythons), "url" in redis)
        if not pairs:
            sys.exit("nothing to run")
        run_all(pairs, Bench(pythons, redis.get("url"), args.full))
    finally:
        servers.stop()
    sys.exit(0 if show(pairs) else 1)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"failed: {' '.join(map(str, error.cmd))}")
