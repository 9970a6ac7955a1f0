"""Installs what the tests start (`make servers`): Redis, Valkey, PostgreSQL, MariaDB, memcached,
PgBouncer, openssl for their certificates, and Chromium.

On Debian and Ubuntu as root it installs what is missing; elsewhere it says what that is. It fails
only with CI=true. None of the packages' own services are started: the tests start their own.
"""

import contextlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from servers import SERVERS, find_program  # noqa: E402

POLICY = Path("/usr/sbin/policy-rc.d")  # Debian's packages ask it whether they may start a service
DENIED = 101
# Package -> the programs of which one must be there.
WANTED = {server.package: server.programs for server in SERVERS.values()}
WANTED["valkey-server"] = ("valkey-server",)
WANTED["openssl"] = ("openssl",)
WANTED["valgrind"] = ("valgrind",)  # counts instructions
WANTED["wrk"] = ("wrk",)  # for `make bench-web`
WANTED["chromium"] = ("chromium", "chromium-browser", "google-chrome")


def missing() -> list[str]:
    return [package for package, programs in WANTED.items() if find_program(*programs) is None]


@contextlib.contextmanager
def no_services():
    """While this lasts, no package starts a service."""
    if POLICY.exists() and subprocess.run([POLICY, "redis-server", "start"]).returncode == DENIED:
        yield
        return
    theirs = POLICY.with_suffix(".before-tests")
    if POLICY.exists():
        POLICY.rename(theirs)
    try:
        POLICY.write_text(f"#!/bin/sh\nexit {DENIED}\n")
        POLICY.chmod(0o755)
        yield
    finally:
        POLICY.unlink(missing_ok=True)
        if theirs.exists():
            theirs.rename(POLICY)


def apt(*words: str) -> bool:
    command = ["apt-get", "-o", "DPkg::Lock::Timeout=300", "-qq", *words]
    print("$", *command, flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    return subprocess.run(command, env=environment, stdin=subprocess.DEVNULL).returncode == 0


@contextlib.contextmanager
def backports() -> Iterator[list[str]]:
    """Options of apt with which it looks into Debian's backports, too: what is new in the next
    release is there for this one. The machine's own sources stay as they are."""
    release = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    shown = ("--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages")
    known = subprocess.run(["apt-get", "indextargets", *shown], capture_output=True, text=True)
    places = dict(map(str.split, known.stdout.splitlines()))
    own = Path("/etc/apt/sources.list")
    text = own.read_text() if own.exists() else ""
    keys = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    if release in places and keys.exists():
        text += f"\ndeb [signed-by={keys}] {places[release]} {release}-backports main\n"
    with tempfile.NamedTemporaryFile("w", suffix=".list") as sources:
        sources.write(text)
        sources.flush()
        os.chmod(sources.name, 0o644)  # apt reads it as a user of its own
        yield ["-o", f"Dir::Etc::SourceList={sources.name}"]


def install(packages: list[str]) -> None:
    options = ("install", "--yes", "--no-install-recommends")
    with no_services(), backports() as sources:
        apt(*sources, "update")
        if not apt(*sources, *options, *packages):
            # One that this release does not have must not keep the others away.
            for package in packages:
                apt(*sources, *options, package)
    # Nor are they started when this machine starts again.
    if Path("/run/systemd/system").exists():
        for package in packages:
            subprocess.run(["systemctl", "disable", package], capture_output=True)


def main() -> None:
    packages = missing()
    if not packages:
        print("All servers are installed:", *WANTED)
        return
    if shutil.which("apt-get") is None:
        how = "there is no apt-get here; install it your system's way"
    elif os.geteuid() != 0:
        how = f"as root: apt-get install {' '.join(packages)}"
    else:
        how = "apt-get could not install it"
        install(packages)
    for package in missing():
        print(f"SKIPPED: {package} is not installed ({how})")
    if missing() and os.environ.get("CI") == "true":
        sys.exit("With CI=true all of them are needed.")


if __name__ == "__main__":
    # An end from outside must still take our policy-rc.d away.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()
