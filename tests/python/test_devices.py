"""Starts tests/devices/cases.py in a process of its own, whose site has the app installed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from databases import settings_of

FOLDER = Path(__file__).parents[1] / "devices"


def run(cases, request, kind, cache, tmp_path, **environment):
    result = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "-Werror"),
            *("-c", os.devnull, "--rootdir", FOLDER, "--confcutdir", FOLDER, FOLDER / cases),
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


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mariadb"])
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
    run("cases.py", request, kind, cache, tmp_path)
