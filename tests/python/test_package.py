"""The package itself: what importing it does, and the memory that a bomb takes."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import django_rust_sessions
import pytest

PACKAGE = Path(django_rust_sessions.__file__).parent


def run(code):
    """Runs code in an interpreter of its own; returns what it printed."""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def test_version():
    assert django_rust_sessions.__version__ == metadata.version("django-rust-sessions")
    assert (PACKAGE / "py.typed").exists()


def test_import_does_nothing():
    """No Django, no thread: other packages may import it in any order."""
    run(
        """
import sys, threading
import django_rust_sessions, django_rust_sessions.exceptions, django_rust_sessions._native
assert not [name for name in sys.modules if name.split(".")[0] == "django"]
assert threading.active_count() == 1
"""
    )


def test_importing_an_engine_reads_no_settings():
    run(
        """
import django_rust_sessions.backends.signed_cookies, django_rust_sessions.codec
from django.conf import settings
assert not settings.configured
"""
    )


MEMORY = """
import resource, zlib
from django.conf import settings
settings.configure(SECRET_KEY="x")
from django.core import signing
from django_rust_sessions.backends.signed_cookies import SALT, SessionStore
compressor = zlib.compressobj(9)
stream = b"".join(compressor.compress(bytes(2**20)) for _ in range({megabytes}))
stream += compressor.flush()
token = signing.TimestampSigner(salt=SALT).sign("." + signing.b64_encode(stream).decode())
for _ in range(3):
    assert SessionStore(token).load() == {{}}
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units elsewhere")
def test_memory_that_a_bomb_takes():
    """256 MiB in a token of 350 KB cost the cap of 16 MiB and a copy of it at the most."""
    idle, small, bomb = (int(run(MEMORY.format(megabytes=size))) for size in [0, 17, 256])
    assert bomb - idle < 40 * 1024
    assert bomb - small < 4 * 1024
