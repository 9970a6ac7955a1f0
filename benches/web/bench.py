"""`make bench-web`: one endpoint in Django and in Rust, side by side under wrk.

    python benches/web/bench.py [--seconds 4] [--rounds 3] [--connections 32]

Starts private Redis and PostgreSQL servers, a Django site behind gunicorn and uvicorn, each with
Django's engine and with ours, and the Rust service on axum. All of them answer `GET /me`: who is
logged in (a row of auth_user) and the cart (of the session), as JSON. Rounds are interleaved, so
that whatever else the machine does meets all of them; each number is the median of the rounds.
wrk, the servers and the databases share this machine's cores.
"""

import argparse
import contextlib
import http.client
import importlib.util
import json
import os
import platform
import re
import secrets
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
DJANGO, OURS = "django.contrib.sessions.backends", "django_rust_sessions.backends"
WORKERS = os.cpu_count() or 1
# The layer's target: microseconds at the median beyond a handler that fetches the bytes itself.
LAYER_TARGET = 15
SETUP = """
import bench_site
from django.core.management import call_command
call_command("migrate", verbosity=0)
from importlib import import_module
from django.conf import settings
from django.contrib.auth import HASH_SESSION_KEY, get_user_model
user, _ = get_user_model().objects.get_or_create(username="ada")
user.set_password("measured"); user.save()
session = import_module(settings.SESSION_ENGINE).SessionStore()
session["_auth_user_id"] = str(user.pk)
session["_auth_user_backend"] = "django.contrib.auth.backends.ModelBackend"
session[HASH_SESSION_KEY] = user.get_session_auth_hash()
session["cart"] = [{"article": n, "name": f"Article {n}", "price": "9.90"} for n in range(5)]
session["greeting"] = "hello"
session.create()
call_command("export_session_settings", verbosity=0, output=settings_file)
print(session.session_key)
"""


def private_servers():
    spec = importlib.util.spec_from_file_location("servers_", ROOT / "tests" / "servers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    started = module.Started("redis", "postgres")
    for name, address in started.servers.items():
        if "missing" in address:
            sys.exit(f"{name}: {address['missing']}")
    return module, started


class Side:
    """A running server. Its memory is what its processes have of their own, and their part of what
    they share (Pss)."""

    def __init__(self, name, command, environment, port):
        self.name, self.port = name, port
        self.process = subprocess.Popen(
            command,
            env=environment,
            cwd=HERE / "site",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def wait(self):
        for _ in range(300):
            if self.process.poll() is not None:
                sys.exit(f"{self.name} ended with {self.process.returncode}")
            with contextlib.suppress(OSError):
                self.get("/me", "nobody-s-key")
                return
            time.sleep(0.1)
        sys.exit(f"{self.name} does not answer")

    def get(self, path, key):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", path, headers={"Cookie": f"sessionid={key}"})
            response = connection.getresponse()
            return response.status, response.read()

    def megabytes(self):
        total = 0
        for status in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                session = int(status.read_text().rpartition(")")[2].split()[3])
                if session == self.process.pid:
                    rollup = (status.parent / "smaps_rollup").read_text()
                    total += int(re.search(r"^Pss:\s+(\d+)", rollup, re.M)[1])
        return total / 1024

    def stop(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def wrk(side, path, key, connections, seconds):
    """Requests a second, p50 and p99 in microseconds."""
    output = subprocess.run(
        [
            *("wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"),
            *("-H", f"Cookie: sessionid={key}", f"http://127.0.0.1:{side.port}{path}"),
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    if "Non-2xx" in output:
        sys.exit(f"{side.name} answered {path} with errors:\n{output}")
    units = {"us": 1, "ms": 1e3, "s": 1e6}
    latency = {
        share: float(number) * units[unit]
        for share, number, unit in re.findall(r"^\s+(50|99)%\s+([\d.]+)(us|ms|s)$", output, re.M)
    }
    return float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1]), latency["50"], latency["99"]


def build_service():
    features = "axum,postgres,redis,toml"
    command = ["cargo", "build", "--release", "--example", "bench_web", "--features", features]
    subprocess.run(command, cwd=ROOT, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return target / "release/examples/bench_web"


def start(engine, environment, service, free_port, stack):
    """All sides over this engine, and the key of the session that they share."""

    def variables(engines, **more):
        return {**environment, "BENCH_ENGINE": f"{engines}.{engine}", **more}

    script = f"settings_file = {environment['BENCH_SETTINGS']!r}" + SETUP
    key = subprocess.run(
        [sys.executable, "-c", script],
        env=variables(OURS),
        cwd=HERE / "site",
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()

    sides = []
    python = [sys.executable, "-m"]
    for engines, name in ((DJANGO, "Django's engine"), (OURS, "our engine")):
        port = free_port()
        gunicorn = ["gunicorn", "-b", f"127.0.0.1:{port}", "-w", str(WORKERS), "bench_site:wsgi"]
        gunicorn += ["--keep-alive", "60", "-k", "gthread", "--threads", "4"]
        sides.append(Side(f"gunicorn, {name}", python + gunicorn, variables(engines), port))
        port = free_port()
        uvicorn = ["uvicorn", "--port", str(port), "--workers", str(WORKERS)]
        uvicorn += ["--no-access-log", "--log-level", "error", "bench_site:asgi"]
        sides.append(
            Side(f"uvicorn, {name}", python + uvicorn, variables(engines, BENCH_ASGI="1"), port)
        )
    port = free_port()
    sides.append(Side("axum, this crate", [service], variables(DJANGO, PORT=str(port)), port))
    for side in sides:
        stack.callback(side.stop)
    expected = None
    for side in sides:
        side.wait()
        status, body = side.get("/me", key)
        answer = json.loads(body) if status == 200 else {}
        if answer.get("username") != "ada" or len(answer["cart"]) != 5:
            sys.exit(f"{side.name} answered {status} {body[:500]!r}")
        if expected not in (None, answer):
            sys.exit(f"{side.name} answers {answer}, others {expected}")
        expected = answer
    return sides, key


def table(sides, key, arguments):
    results = {side: [] for side in sides}
    for side in sides:
        wrk(side, "/me", key, arguments.connections, 1)  # warm
    for _ in range(arguments.rounds):
        for side in sides:
            results[side].append(wrk(side, "/me", key, arguments.connections, arguments.seconds))
    rows = []
    for side, rounds in results.items():
        rate, p50, p99 = (statistics.median(column) for column in zip(*rounds, strict=True))
        rows.append((side.name, rate, p50, p99, side.megabytes()))
    return rows


def layer(side, key, arguments):
    """Microseconds at p50 that the layer adds for one client at a time: rounds' differences."""
    rounds = []
    for _ in range(arguments.rounds + 2):
        bare = wrk(side, "/bare", key, 1, arguments.seconds)[1]
        layered = wrk(side, "/session", key, 1, arguments.seconds)[1]
        rounds.append((bare, layered))
    bare, layered = (statistics.median(column) for column in zip(*rounds, strict=True))
    return bare, layered, statistics.median(layered - bare for bare, layered in rounds)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=4, help="of one run of wrk")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=32)
    arguments = parser.parse_args()
    if not shutil.which("wrk"):
        sys.exit("wrk is not installed: run `make servers`")
    service = build_service()
    module, started = private_servers()
    import django

    versions = f"Django {django.__version__}, Python {platform.python_version()}"
    print(f"\n{versions}; {WORKERS} cores, shared with wrk and the databases; {WORKERS} workers")
    print(f"wrk -t1 -c{arguments.connections} -d{arguments.seconds}s, {arguments.rounds} rounds")
    with tempfile.TemporaryDirectory(prefix="bench-web-") as folder:
        environment = {
            **os.environ,
            "PYTHONPATH": str(HERE / "site"),
            "SECRET_KEY": secrets.token_urlsafe(40),
            "BENCH_REDIS": started.servers["redis"]["url"],
            "BENCH_POSTGRES": started.servers["postgres"]["url"],
            "BENCH_SETTINGS": f"{folder}/sessions.toml",
            "DATABASES_DEFAULT_PASSWORD": started.servers["postgres"]["password"],
        }
        try:
            for engine, store in (("cache", "Redis"), ("db", "PostgreSQL")):
                with contextlib.ExitStack() as stack:
                    sides, key = start(engine, environment, service, module.free_port, stack)
                    print(f"\nSession in {store}\n")
                    print("| server | requests/s | p50, ms | p99, ms | memory, MB |")
                    print("| --- | ---: | ---: | ---: | ---: |")
                    for name, rate, p50, p99, memory in table(sides, key, arguments):
                        print(
                            f"| {name} | {rate:,.0f} | {p50 / 1e3:.2f} | {p99 / 1e3:.2f} "
                            f"| {memory:.0f} |",
                            flush=True,
                        )
                    bare, layered, added = layer(sides[-1], key, arguments)
                    verdict = "met" if added <= LAYER_TARGET else "MISSED"
                    print(
                        f"\nThe layer, one client at a time: p50 {layered:.0f} us beside "
                        f"{bare:.0f} us of a handler that fetches the bytes, {added:+.0f} us; "
                        f"at most {LAYER_TARGET}: {verdict}",
                        flush=True,
                    )
        finally:
            started.stop()


if __name__ == "__main__":
    main()
