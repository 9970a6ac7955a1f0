"""A whole request through Django, what a worker takes of memory, and what the package weighs."""

import os
import re
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import servers
import site_ as site
from django.test import override_settings
from django_rust_sessions.backends.cache import SessionStore as RustCache
from measure import Comparison, Contender, Row, Spread, compare, single
from stores import alias, new_session, redis_and_memcached, server

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ASGI_SECONDS = 1
REQUESTS = 100_000


def wsgi_rows(rounds):
    with redis_and_memcached(), override_settings(ROOT_URLCONF="site_", ALLOWED_HOSTS=["*"]):
        alias("django")
        key = new_session(RustCache)
        yield compare(
            "a request, WSGI, Redis",
            Contender("ours", site.wsgi(site.OURS, key)),
            Contender("Django", site.wsgi(site.DJANGO, key), target=1.5),
            rounds=rounds,
        )


# ------------------------------------------------------------------------------- in processes


# As a site runs: with compiled bytecode. To compile it takes a process megabytes that it keeps.
INSTALLED = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


def environment(redis: str, package: str) -> dict[str, str]:
    return {**INSTALLED, "BENCH_REDIS": redis, "BENCH_PACKAGE": package, "PYTHONPATH": str(HERE)}


class Uvicorn:
    def __init__(self, redis: str, package: str, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/async"
        command = [sys.executable, "-m", "uvicorn", "--port", str(port), "--no-access-log"]
        self.process = subprocess.Popen(
            [*command, "--log-level", "error", "site_:asgi"],
            env=environment(redis, package),
            cwd=HERE,
        )
        for _ in range(200):
            try:
                with urllib.request.urlopen(self.url) as answer:
                    cookie = answer.headers["Set-Cookie"]
                    self.key = re.match("sessionid=([a-z0-9]+)", cookie)[1]
                    return
            except OSError:
                time.sleep(0.05)
        raise TimeoutError(f"uvicorn with {package} does not answer")

    def requests_a_second(self) -> float:
        command = [
            "wrk",
            "-t1",
            "-c16",
            f"-d{ASGI_SECONDS}s",
            "-H",
            f"Cookie: sessionid={self.key}",
        ]
        printed = subprocess.check_output([*command, self.url], text=True)
        assert "Non-2xx" not in printed, printed
        return float(re.search(r"Requests/sec:\s+([\d.]+)", printed)[1])

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


def asgi_rows(rounds):
    if not shutil.which("wrk"):
        raise FileNotFoundError("wrk is not installed: run `make servers`")
    with server("redis", apart=False) as redis:
        sides = [
            Uvicorn(redis["url"], package, servers.free_port())
            for package in (site.OURS, site.DJANGO)
        ]
        try:
            rates = [
                [side.requests_a_second() for side in sides] for _ in range(max(5, rounds // 4))
            ]
        finally:
            for side in sides:
                side.stop()
    ours, django = zip(*rates, strict=True)
    ratio = Spread.of(mine / its for mine, its in rates)
    wanted = Comparison("Django", Spread.of(django), ratio, "at least 3", ratio.median >= 3)
    yield Row("a request, uvicorn, Redis", "requests/s", Spread.of(ours), [wanted])


MEMORY = """
import gc
import site_
from django.conf import settings
from importlib import import_module
store = import_module(settings.SESSION_ENGINE).SessionStore()
store["visits"] = 0
store.create()
run = site_.wsgi(settings.SESSION_ENGINE.partition(".backends")[0], store.session_key)
def resident():
    gc.collect()
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages * 4096 / 1e6
for count in (REQUESTS // 10, REQUESTS - REQUESTS // 10):
    for _ in range(count):
        run()
    print(resident())
"""


def memory_rows(_rounds):
    """Resident megabytes after a tenth of the requests and after all of them."""
    with server("redis") as redis:
        found = {}
        for package in (site.OURS, site.DJANGO):
            for requests in (10, REQUESTS):  # the first run compiles
                code = MEMORY.replace("REQUESTS", str(requests))
                printed = subprocess.check_output(
                    [sys.executable, "-c", code],
                    env=environment(redis["url"], package),
                    cwd=HERE,
                    text=True,
                )
            found[package] = list(map(float, printed.split()))
    (early, late), (_, django) = found[site.OURS], found[site.DJANGO]
    # A page or two come and go.
    yield single(
        f"memory after {REQUESTS:,} requests",
        "MB",
        late,
        "Django",
        django,
        django / late,
        "not above",
        late <= django + 0.5,
    )
    yield single(
        "memory: growth after the first tenth",
        "MB",
        late - early,
        "flat",
        0,
        1,
        "at most 0.5",
        late - early <= 0.5,
    )


IMPORTS = """
import time
from django.conf import settings
settings.configure()
import django.contrib.sessions.backends.cache, django.contrib.sessions.backends.cached_db
import django.contrib.sessions.middleware, django.core.cache.backends.redis, redis
start = time.perf_counter()
import django_rust_sessions.backends.cache, django_rust_sessions.middleware
print((time.perf_counter() - start) * 1000)
"""


def import_rows(_rounds):
    command = [sys.executable, "-c", IMPORTS]
    times = [float(subprocess.check_output(command, cwd=ROOT, env=INSTALLED)) for _ in range(22)]
    del times[0]  # which compiled it
    median = statistics.median(times)
    yield single(
        "import, beyond Django's own", "ms", median, "", 3, 3 / median, "at most 3", median <= 3
    )


def wheel_rows(_rounds):
    wheels = sorted((ROOT / "dist").glob("*.whl"), key=lambda path: path.stat().st_mtime)
    if not wheels:
        raise FileNotFoundError("there is no wheel in dist: run `make test ONLY=wheel`")
    size = wheels[-1].stat().st_size / 1e6
    yield single("the wheel", "MB", size, "", 2, 2 / size, "at most 2", size <= 2)
