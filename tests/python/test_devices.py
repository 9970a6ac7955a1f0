"""Starts tests/devices/cases.py in a process of its own, whose site has the app installed."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from databases import settings_of

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
FOLDER = Path(__file__).parents[1] / "devices"


PROFILE = os.environ.get("HYPOTHESIS_PROFILE")
# What `make test` runs with the older and newer Django releases.
QUICK = PROFILE == "quick"
# The app over Django's own engines does the same in each database: one of them shows it.
WITHOUT_DJANGOS = ["-k", "not django.contrib.sessions"]


def needs(package):
    """Only .venv has it, and not the environments of the Django matrix."""
    return pytest.mark.skipif(not find_spec(package), reason=f"{package} is not installed")


def run(cases, request, kind, cache, tmp_path, *words, warnings="error", **environment):
    result = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-n0", "-W", warnings),
            *("-p", "no:cacheprovider", "-p", "no:asyncio"),
            *("-c", os.devnull, "--rootdir", FOLDER, "--confcutdir", FOLDER, FOLDER / cases),
            *words,
        ],
        cwd=FOLDER,
        env={
            **os.environ,
            **environment,
            "DEVICES_DATABASE": json.dumps(settings_of(kind, request)),
            "DEVICES_CACHE": json.dumps(cache),
            "DEVICES_FOLDER": str(tmp_path),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert result.returncode == 0, result.stdout
    assert " skipped" not in result.stdout, result.stdout


@pytest.mark.parametrize("kind", ["sqlite"] if QUICK else ["sqlite", "postgresql", "mariadb"])
def test_devices(kind, request, redis_server, memcached_server, tmp_path):
    cache = {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": redis_server["url"],
        "KEY_PREFIX": kind,
    }
    if kind == "postgresql":
        cache = {
            "BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache",
            "LOCATION": f"{memcached_server['host']}:{memcached_server['port']}",
        }
    words = [] if kind == "sqlite" or PROFILE == "full" else WITHOUT_DJANGOS
    run("cases.py", request, kind, cache, tmp_path, *words)


@needs("uvicorn")
def test_many_requests_at_once(request, redis_server, tmp_path):
    cache = {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": redis_server["url"],
        "KEY_PREFIX": "at once",
    }
    # The server's threads keep their connections until the process ends.
    run("server_cases.py", request, "postgresql", cache, tmp_path, warnings="default")


@needs("playwright")
def test_the_page_in_a_browser(request, tmp_path):
    if not any(map(shutil.which, CHROMIUM_NAMES)):
        pytest.skip("Chromium is not installed")
    cache = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
    # Playwright's own event loop is in the thread of the test.
    run(
        *("browser_cases.py", request, "sqlite-file", cache, tmp_path),
        warnings="default",  # Playwright leaves sockets to the end of the process
        DJANGO_ALLOW_ASYNC_UNSAFE="1",
    )
    for scheme in ("light", "dark"):
        assert (tmp_path / f"devices-{scheme}.png").stat().st_size > 5_000
