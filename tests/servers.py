#!/usr/bin/env python3
"""Private servers for tests: each on a free loopback port, with temporary data, gone with its user.

    python tests/servers.py run redis postgres

starts them, prints one line of JSON that says where they are, and stays until its standard input
closes or it is told to end. Then it stops what it started and removes the data. A server that is
not installed is reported as {"redis": {"missing": "..."}}, and the others start all the same.

Python tests use the fixtures of tests/conftest.py, Rust tests `Servers::start` of
tests/rust/servers/.
"""

import contextlib
import ctypes
import functools
import glob
import json
import os
import pwd
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
from pathlib import Path
from typing import ClassVar

READY_WITHIN = 60  # seconds; the first start of a database on a busy machine is slow
STOPPED_WITHIN = 15
PORT_TRIES = 5
HOST = "127.0.0.1"
USER, PASSWORD = "django", secrets.token_hex(8)


class ServerError(Exception):
    """A server is there, but did not start."""


def find_program(*names: str) -> str | None:
    """The first of these programs that is installed. Debian keeps some servers out of PATH."""
    debian = sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True)
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", *debian])
    return next(filter(None, (shutil.which(name, path=path) for name in names)), None)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def ask(address: tuple[str, int] | str, question: bytes = b"") -> bytes:
    """What a server answers first, over TCP or a UNIX socket; nothing if it does not."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    try:
        with socket.socket(family) as connection:
            connection.settimeout(2)
            connection.connect(address)
            connection.sendall(question)
            return connection.recv(4096)
    except OSError:
        return b""


# ---------------------------------------------------------------------------------------- processes


def drop_root() -> dict:
    """Arguments for Popen: databases refuse to run as root, so root runs every server as nobody."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def die_with_parent(how: signal.Signals):
    """Runs in the child: the kernel ends it when we die with no chance to clean up (Linux only)."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl
    set_parent_death_signal = 1
    return lambda: prctl(set_parent_death_signal, int(how))


class Server:
    """One private server. What differs between servers is in the subclasses below."""

    name: str
    programs: tuple[str, ...]  # any of them will do
    package: str  # Debian's
    needs: tuple[str, ...] = ()  # servers that must run before this one
    # What may follow the name, as in "redis+tls", and the program that it needs besides.
    options: ClassVar[dict[str, str | None]] = {}
    stop_signal = signal.SIGTERM

    def __init__(self, program: str, options: set[str], running: dict[str, "Server"]) -> None:
        self.program, self.wanted, self.running = program, options, running
        self.process: subprocess.Popen | None = None
        self.port = 0
        # UNIX socket names may have about 100 characters: not below a long TMPDIR.
        self.folder = Path(tempfile.mkdtemp(prefix=f"test-{self.name}-", dir="/tmp"))
        self.give_away(self.folder)

    def prepare(self) -> None:
        """Makes the data that the server starts on."""

    def command(self) -> list[str]:
        """How to start it on self.port."""
        raise NotImplementedError

    def is_ready(self) -> bool:
        raise NotImplementedError

    def address(self) -> dict:
        raise NotImplementedError

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o600)
        self.give_away(path)
        return path

    def give_away(self, path: Path) -> None:
        if owner := drop_root():
            os.chown(path, owner["user"], owner["group"])

    def run(self, *command: str) -> None:
        result = subprocess.run(
            command,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            **drop_root(),
        )
        if result.returncode:
            raise ServerError(f"{' '.join(command)} failed:\n{result.stdout}{result.stderr}")

    def start(self) -> None:
        self.prepare()
        # Somebody may take the port between our look and the server's bind: then another one.
        for _ in range(PORT_TRIES):
            self.port = self.choose_port()
            if self.launch():
                return
        raise ServerError(
            f"{self.name} ended {PORT_TRIES} times while starting; at last it said:\n{self.log()}"
        )

    def choose_port(self) -> int:
        return free_port()

    def launch(self) -> bool:
        """Starts the program on self.port; False when it ended before it was ready."""
        with open(self.folder / "log", "wb") as log:
            self.process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C in a terminal is for us, and we stop the server.
                start_new_session=True,
                preexec_fn=die_with_parent(self.stop_signal),
                **drop_root(),
            )
        return self.answers()

    def answers(self) -> bool:
        """Waits until it is ready; False when it ended instead."""
        deadline = time.monotonic() + READY_WITHIN
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                return False
            if self.is_ready():
                return self.process.poll() is None
            time.sleep(0.02)
        raise ServerError(
            f"{self.name} did not answer within {READY_WITHIN} s; it said:\n{self.log()}"
        )

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-4000:]

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(self.stop_signal)
            self.process.send_signal(signal.SIGCONT)  # a test may have paused it
            try:
                self.process.wait(STOPPED_WITHIN)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def describe(self) -> dict:
        return {
            "host": HOST,
            "port": self.port,
            "pid": self.process.pid,
            "folder": str(self.folder),
            "program": self.program,
            **self.address(),
        }


# ------------------------------------------------------------------------------------------ servers


def as_words(settings: dict[str, list[str]]) -> list[str]:
    """Settings of a Redis, for its command line."""
    return [word for name, values in settings.items() for word in (f"--{name}", *values)]


class Certificates:
    """An authority in a server's folder, what it signed, and one that signed nothing."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.make_authority("ca")
        self.make_authority("other-ca")
        for owner in ("server", "client"):
            self.make_certificate(owner)

    def make_authority(self, name: str) -> None:
        self.server.run(
            *("openssl", "req", "-x509", *self.new_key(name), "-out", f"{name}.crt"),
            *("-days", "2", "-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        )

    def make_certificate(self, name: str) -> None:
        extensions = (
            f"subjectAltName=IP:{HOST}\n"
            "subjectKeyIdentifier=hash\n"
            "authorityKeyIdentifier=keyid\n"
            "keyUsage=critical,digitalSignature\n"
        )
        self.server.run("openssl", "req", *self.new_key(name), "-out", f"{name}.csr")
        self.server.run(
            *("openssl", "x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.crt"),
            *("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2"),
            *("-extfile", str(self.server.write("extensions", extensions))),
        )

    def new_key(self, name: str) -> list[str]:
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        return [*curve, "-noenc", "-keyout", f"{name}.key", "-subj", f"/CN={name}"]

    def path(self, name: str) -> str:
        return str(self.server.folder / name)

    def settings(self, port: int) -> dict[str, list[str]]:
        """Of a Redis that talks TLS alone, to clients and to other servers."""
        return {
            "port": ["0"],
            "tls-port": [str(port)],
            "tls-cert-file": [self.path("server.crt")],
            "tls-key-file": [self.path("server.key")],
            "tls-ca-cert-file": [self.path("ca.crt")],
            "tls-auth-clients": ["yes"],
            "tls-replication": ["yes"],
            "tls-cluster": ["yes"],
        }

    def address(self) -> dict:
        return {
            "ca_certs": self.path("ca.crt"),
            "certfile": self.path("client.crt"),
            "keyfile": self.path("client.key"),
            "other_ca_certs": self.path("other-ca.crt"),
        }


def tls_options(where: dict) -> dict:
    """What redis-py is to show and to trust, for a server over TLS."""
    names = {"ssl_ca_certs": "ca_certs", "ssl_certfile": "certfile", "ssl_keyfile": "keyfile"}
    return {option: where[name] for option, name in names.items()}


class Redis(Server):
    """As it comes, or

    - redis+password: with a password for the default user, and a user of its own with another;
    - redis+tls: over TLS only, and only to clients that show a certificate of our authority;
    - redis+maxmemory: with little memory, and errors once that is full.
    """

    name, package = "redis", "redis-server"
    # `REDIS_SERVER=valkey-server` runs the tests with that one.
    chosen = os.environ.get("REDIS_SERVER")
    programs = (chosen,) if chosen else ("redis-server", "valkey-server")
    options: ClassVar = {"password": None, "tls": "openssl", "maxmemory": None}
    # Neither may stand in a URL as it is.
    password, user_password = f"{PASSWORD}:/@", f"{PASSWORD}%?#"

    def socket(self) -> str:
        return str(self.folder / "redis.sock")

    @functools.cached_property
    def certificates(self) -> Certificates:
        return Certificates(self)

    def settings(self) -> dict[str, list[str]]:
        settings = {
            "bind": [HOST],
            "port": [str(self.port)],
            "unixsocket": [self.socket()],
            "dir": [str(self.folder)],
            "save": [""],
            "appendonly": ["no"],
        }
        if "password" in self.wanted:
            rights = ["~*", "&*", "+@all"]
            settings["requirepass"] = [self.password]
            settings["user"] = [USER, "on", f">{self.user_password}", *rights]
        if "tls" in self.wanted:
            settings |= self.certificates.settings(self.port)
        if "maxmemory" in self.wanted:
            settings |= {"maxmemory": ["8mb"], "maxmemory-policy": ["noeviction"]}
        return settings

    def command(self) -> list[str]:
        return [self.program, *as_words(self.settings())]

    def is_ready(self) -> bool:
        # Somebody else's may answer on the port, only ours on this socket, which it binds later.
        wanted = b"-NOAUTH" if "password" in self.wanted else b"+PONG"
        return ask(self.socket(), b"PING\r\n").startswith(wanted)

    def url(self, login: str = "") -> str:
        scheme = "rediss" if "tls" in self.wanted else "redis"
        return f"{scheme}://{login}{HOST}:{self.port}/0"

    def address(self) -> dict:
        address = {"url": self.url(), "socket": self.socket()}
        if "password" in self.wanted:
            quoted = [urllib.parse.quote(word, "") for word in (self.password, self.user_password)]
            address |= {
                "url": self.url(f":{quoted[0]}@"),
                "user_url": self.url(f"{USER}:{quoted[1]}@"),
                "password": self.password,
                "user": USER,
                "user_password": self.user_password,
            }
        if "tls" in self.wanted:
            address |= self.certificates.address()
        return address


class Member(Redis):
    """One of the servers of a group below, with settings of its own."""

    def __init__(self, group: "Group", **settings: str) -> None:
        super().__init__(group.program, group.wanted, group.running)
        self.group = group
        self.more = {name.replace("_", "-"): text.split() for name, text in settings.items()}

    @property
    def certificates(self) -> Certificates:
        return self.group.certificates

    def settings(self) -> dict[str, list[str]]:
        login = {"masterauth": [self.password]} if "password" in self.wanted else {}
        return super().settings() | login | self.more

    def say(self, *words: str) -> str:
        """What it answers to a command, or the beginning of it."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(self.socket())
            if "password" in self.wanted:
                connection.sendall(request("AUTH", self.password))
                connection.recv(4096)
            connection.sendall(request(*words))
            return connection.recv(16384).decode()

    def wait_for(self, text: str, *words: str, times: int = 1) -> None:
        """Until the answer to a command has this text so often."""
        deadline = time.monotonic() + READY_WITHIN
        while self.say(*words).count(text) != times:
            if time.monotonic() > deadline:
                raise ServerError(f"{self.name} has no {text} in {' '.join(words)}: {self.log()}")
            time.sleep(0.02)


def request(*words: str) -> bytes:
    """A command in Redis's protocol."""
    parts = (f"${len(word.encode())}\r\n{word}\r\n" for word in words)
    return f"*{len(words)}\r\n{''.join(parts)}".encode()


class Group(Server):
    """Several Redis servers that know each other.

    - GROUP+password: each has the password and the user of redis+password;
    - GROUP+tls: each talks TLS alone, to the others too, with certificates of one authority.
    """

    programs, package = Redis.programs, Redis.package
    options: ClassVar = {"password": None, "tls": "openssl"}

    def __init__(self, program: str, options: set[str], running: dict[str, Server]) -> None:
        super().__init__(program, options, running)
        self.members: list[Server] = []

    @functools.cached_property
    def certificates(self) -> Certificates:
        return Certificates(self)

    def add(self, member: Server) -> Server:
        self.members.append(member)
        member.start()
        return member

    def add_primary_and_replicas(self, replicas: int) -> None:
        primary = self.add(Member(self, repl_diskless_sync_delay="0"))
        for _ in range(replicas):
            self.add(Member(self, replicaof=f"{HOST} {primary.port}")).wait_for(
                "master_link_status:up", "INFO", "replication"
            )

    def stop(self) -> None:
        for member in reversed(self.members):
            member.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def describe(self) -> dict:
        members = [member.describe() for member in self.members]
        names = ("port", "pid", "socket")
        of_all = {f"{name}s": [member[name] for member in members] for name in names}
        urls = [member["url"] for member in members if "url" in member]
        return {**members[0], **of_all, "folder": str(self.folder), "urls": ",".join(urls)}


class RedisReplicas(Group):
    """A primary and two replicas, in this order."""

    name = "redis_replicas"

    def start(self) -> None:
        self.add_primary_and_replicas(2)


class Sentinel(Server):
    """One of those that watch the primary of a RedisSentinel."""

    def __init__(self, group: Group) -> None:
        super().__init__(group.program, group.wanted, group.running)
        self.group, self.primary = group, group.members[0]

    name = "sentinel"

    def prepare(self) -> None:
        watched = "mymaster"
        lines = [
            f"sentinel monitor {watched} {HOST} {self.primary.port} 2",
            f"sentinel down-after-milliseconds {watched} 500",
            f"sentinel failover-timeout {watched} 3000",
        ]
        if "password" in self.wanted:
            lines.append(f'sentinel auth-pass {watched} "{Redis.password}"')
            lines.append(f'requirepass "{PASSWORD}"')
        self.write("sentinel.conf", "\n".join(lines) + "\n")

    def command(self) -> list[str]:
        settings = {
            "port": [str(self.port)],
            "bind": [HOST],
            "dir": [str(self.folder)],
            "unixsocket": [self.socket()],
        }
        if "tls" in self.wanted:
            settings |= self.group.certificates.settings(self.port)
        # It writes what it finds out into this file.
        file = str(self.folder / "sentinel.conf")
        return [self.program, file, "--sentinel", *as_words(settings)]

    def socket(self) -> str:
        return str(self.folder / "sentinel.sock")

    def is_ready(self) -> bool:
        return self.knows("sentinels=1")

    def knows(self, what: str) -> bool:
        login = request("AUTH", PASSWORD) if "password" in self.wanted else b""
        answer = b""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as guest:
            guest.settimeout(2)
            guest.connect(self.socket())
            guest.sendall(login + request("INFO"))
            while b"master0:" not in answer or not answer.endswith(b"\r\n"):
                if not (more := guest.recv(16384)):
                    break
                answer += more
        return f"process_id:{self.process.pid}\r\n".encode() in answer and what.encode() in answer

    def address(self) -> dict:
        return {"socket": None}


class RedisSentinel(Group):
    """A primary and a replica, and three sentinels that call it `mymaster`: two of them are enough
    to make the replica the primary. With a password, theirs is another: `sentinel_password`."""

    name = "redis_sentinel"

    def start(self) -> None:
        self.add_primary_and_replicas(1)
        sentinels = [self.add(Sentinel(self)) for _ in range(3)]
        deadline = time.monotonic() + READY_WITHIN
        while not all(sentinel.knows("slaves=1,sentinels=3") for sentinel in sentinels):
            if time.monotonic() > deadline:
                raise ServerError(f"the sentinels do not find each other: {sentinels[0].log()}")
            time.sleep(0.1)

    def describe(self) -> dict:
        return {**super().describe(), "sentinel_password": PASSWORD}


class ClusterNode(Member):
    """It has a second port for the other nodes, which is 10,000 above its own."""

    def choose_port(self) -> int:
        while True:
            port = free_port()
            with contextlib.suppress(OSError, OverflowError), socket.socket() as probe:
                probe.bind((HOST, port + 10_000))
                return port


class RedisCluster(Group):
    """A Redis Cluster of three primaries; and

    - redis_cluster+replicas: a replica of each, after them and in their order.
    """

    name = "redis_cluster"
    options: ClassVar = {**Group.options, "replicas": None}

    def start(self) -> None:
        slots, count = 16384, 3
        primaries = [self.add_node() for _ in range(count)]
        for number, node in enumerate(primaries):
            own = range(number * slots // count, (number + 1) * slots // count)
            node.say("CLUSTER", "ADDSLOTS", *map(str, own))
            node.say("CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
        replicas = [self.add_node() for _ in primaries] if "replicas" in self.wanted else []
        for node in self.members:
            node.say("CLUSTER", "MEET", HOST, str(self.members[0].port))
        for node in self.members:
            node.wait_for(f"cluster_known_nodes:{len(self.members)}\r\n", "CLUSTER", "INFO")
        for primary, replica in zip(primaries, replicas, strict=False):
            replica.say("CLUSTER", "REPLICATE", primary.say("CLUSTER", "MYID").split()[1])
            replica.wait_for("master_link_status:up", "INFO", "replication")
        for node in self.members:
            node.wait_for("cluster_state:ok", "CLUSTER", "INFO")
            # Clients are told of those replicas only that have begun to copy.
            node.wait_for(HOST, "CLUSTER", "SLOTS", times=len(self.members))

    def add_node(self) -> ClusterNode:
        settings = {"cluster_enabled": "yes", "cluster_node_timeout": "2000"}
        # A replica counts from the first ping on, which by default comes after ten seconds.
        settings |= {"repl_diskless_sync_delay": "0", "repl_ping_replica_period": "1"}
        return self.add(ClusterNode(self, **settings))


class Memcached(Server):
    """As it comes, or

    - memcached+nocas: without numbers of its values.
    """

    name, programs, package = "memcached", ("memcached",), "memcached"
    options: ClassVar = {"nocas": None}

    def command(self) -> list[str]:
        where = ["--listen", HOST, "--port", str(self.port), "--udp-port", "0"]
        return [self.program, *where, *["--disable-cas"] * ("nocas" in self.wanted)]

    def is_ready(self) -> bool:
        return f"STAT pid {self.process.pid}\r\n".encode() in ask((HOST, self.port), b"stats\r\n")

    def address(self) -> dict:
        # It listens on a port or a socket, not on both.
        return {"url": f"memcache://{HOST}:{self.port}", "socket": None}


class MemcachedThree(Group):
    """Three memcached servers, which know nothing of each other."""

    name, programs, package = "memcached_three", Memcached.programs, Memcached.package
    options: ClassVar = {}

    def start(self) -> None:
        for _ in range(3):
            self.add(Memcached(self.program, set(), self.running))


class Postgres(Server):
    """As tests want it, or

    - postgres+durable: what it says is committed is on the disk, as on a site.
    """

    name, programs, package = "postgres", ("postgres",), "postgresql"
    options: ClassVar = {"durable": None}
    stop_signal = signal.SIGINT  # ends at once, whoever is connected

    def data(self) -> Path:
        return self.folder / "data"

    def prepare(self) -> None:
        password = self.write("password", PASSWORD)
        self.run(
            *(
                str(Path(self.program).resolve().parent / "initdb"),
                "--pgdata",
                str(self.data()),
                "--no-sync",
            ),
            *("--username", USER, "--pwfile", str(password), "--auth", "scram-sha-256"),
            *("--encoding", "UTF8", "--locale", "C"),
        )

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": HOST,
            "port": self.port,
            "unix_socket_directories": self.folder,
        }
        if "durable" not in self.wanted:
            # The data dies with the test: nothing needs to reach the disk.
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        options = (word for key, value in settings.items() for word in ("-c", f"{key}={value}"))
        return [self.program, "-D", str(self.data()), *options]

    def is_ready(self) -> bool:
        # This is how pg_ctl knows: the last line of this file is its state.
        with contextlib.suppress(OSError):
            lines = (self.data() / "postmaster.pid").read_text().splitlines()
            return (
                len(lines) >= 8
                and int(lines[0]) == self.process.pid
                and lines[7].strip() == "ready"
            )
        return False

    def address(self) -> dict:
        return {
            "url": f"postgres://{USER}:{PASSWORD}@{HOST}:{self.port}/postgres",
            "socket": str(self.folder),  # a folder: what libpq takes as host
            "user": USER,
            "password": PASSWORD,
            "database": "postgres",
        }


class PgBouncer(Server):
    """In transaction mode, in front of the private PostgreSQL."""

    name, programs, package = "pgbouncer", ("pgbouncer",), "pgbouncer"
    needs = ("postgres",)
    stop_signal = signal.SIGTERM

    def command(self) -> list[str]:
        users = self.write("users", f'"{USER}" "{PASSWORD}"\n')
        settings = {
            "listen_addr": HOST,
            "listen_port": self.port,
            "unix_socket_dir": self.folder,
            "pool_mode": "transaction",
            # Not the slowest, for tests connect often. It is SCRAM with the PostgreSQL behind it.
            "auth_type": "md5",
            "auth_file": users,
            # Fewer servers than clients, so that clients change between servers.
            "default_pool_size": 4,
        }
        text = f"[databases]\n* = host={HOST} port={self.running['postgres'].port}\n[pgbouncer]\n"
        text += "".join(f"{key} = {value}\n" for key, value in settings.items())
        return [self.program, str(self.write("pgbouncer.ini", text))]

    def is_ready(self) -> bool:
        request_tls = bytes.fromhex("0000000804d2162f")
        own_socket = str(self.folder / f".s.PGSQL.{self.port}")
        return all(ask(address, request_tls) == b"N" for address in (own_socket, (HOST, self.port)))

    def address(self) -> dict:
        behind = self.running["postgres"].address()
        url = f"postgres://{USER}:{PASSWORD}@{HOST}:{self.port}/postgres"
        return {**behind, "url": url, "socket": str(self.folder)}


class MariaDB(Server):
    name, programs, package = "mariadb", ("mariadbd", "mysqld"), "mariadb-server"

    def socket(self) -> str:
        return str(self.folder / "mariadb.sock")

    def prepare(self) -> None:
        install = find_program("mariadb-install-db", "mysql_install_db")
        if install is None:
            raise ServerError(
                f"{self.program} is here, but mariadb-install-db, which makes its data, is not"
            )
        self.run(
            *(install, "--no-defaults", f"--datadir={self.folder / 'data'}", "--skip-test-db"),
            *("--auth-root-authentication-method=normal", f"--tmpdir={self.folder}"),
        )
        self.write(
            "first.sql",
            "CREATE DATABASE IF NOT EXISTS django CHARACTER SET utf8mb4;\n"
            f"CREATE USER IF NOT EXISTS '{USER}'@'%' IDENTIFIED BY '{PASSWORD}';\n"
            f"GRANT ALL ON *.* TO '{USER}'@'%' WITH GRANT OPTION;\n",
        )

    def command(self) -> list[str]:
        return [
            *(self.program, "--no-defaults", f"--datadir={self.folder / 'data'}"),
            *(f"--bind-address={HOST}", f"--port={self.port}", f"--socket={self.socket()}"),
            *(f"--init-file={self.folder / 'first.sql'}", "--skip-log-bin", "--skip-name-resolve"),
            # Whoever starts deletes the temporary tables that are there.
            f"--tmpdir={self.folder}",
            # The data dies with the test: nothing needs to reach the disk.
            *("--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=0"),
        ]

    def is_ready(self) -> bool:
        # A connection is greeted with the protocol's version after the init file has run.
        return all(ask(address)[4:5] == b"\x0a" for address in (self.socket(), (HOST, self.port)))

    def address(self) -> dict:
        return {
            "url": f"mysql://{USER}:{PASSWORD}@{HOST}:{self.port}/django",
            "socket": self.socket(),
            "user": USER,
            "password": PASSWORD,
            "database": "django",
        }


SERVERS: dict[str, type[Server]] = {
    server.name: server
    for server in (
        *(Redis, RedisReplicas, RedisSentinel, RedisCluster),
        *(Postgres, MariaDB, Memcached, MemcachedThree, PgBouncer),
    )
}


# -------------------------------------------------------------------------------- the `run` command


def start_one(spec: str, running: dict[str, Server]) -> dict:
    """Starts a server named like "redis" or "redis+option", after its needs. Says where it is."""
    name, *options = spec.split("+")
    kind = SERVERS.get(name)
    if kind is None:
        raise ServerError(f"no server is named {name!r}: there are {', '.join(SERVERS)}")
    if unknown := set(options) - kind.options.keys():
        raise ServerError(f"{name} has no option {', '.join(sorted(unknown))}")
    if spec in running:
        return running[spec].describe()
    for needed in kind.needs:
        if missing := start_one(needed, running).get("missing"):
            return {"missing": missing}
    program = find_program(*kind.programs)
    programs = {kind.programs[0]: program}
    programs |= {tool: find_program(tool) for tool in map(kind.options.get, options) if tool}
    for needed, found in programs.items():
        if found is None:
            return {"missing": f"{needed} is not installed: run `make servers`"}
    running[spec] = server = kind(program, set(options), running)
    server.start()
    return server.describe()


def wait_for_the_end() -> None:
    """Until standard input closes, or the parent is gone (a fork of it may keep the input open)."""
    parent = os.getppid()
    while os.getppid() == parent:
        readable, _, _ = select.select([0], [], [], 1)
        if readable and not os.read(0, 1024):
            return


def run(specs: list[str]) -> None:
    if cores := os.environ.get("SERVER_CORES"):  # for benchmarks: "1" or "2,3"
        os.sched_setaffinity(0, map(int, cores.split(",")))
    running: dict[str, Server] = {}
    for ending in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(ending, lambda *_: sys.exit(0))
    try:
        print(json.dumps({spec: start_one(spec, running) for spec in specs}), flush=True)
        wait_for_the_end()
    finally:
        for ending in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(ending, signal.SIG_IGN)
        for server in reversed(running.values()):
            server.stop()


# --------------------------------------------------------------------------------- for Python tests


class Started:
    """Servers in the care of a child process. They end with `stop`, or with us, however we end."""

    def __init__(self, *specs: str) -> None:
        command = [sys.executable, __file__, "run", *specs]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a Ctrl-C is for pytest, which then stops us
        )
        answer = self.process.stdout.readline()
        if not answer:
            raise ServerError(f"{' '.join(command)} did not start; it said why on standard error")
        self.servers = json.loads(answer)

    def stop(self) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] != "run":
        sys.exit(f"{__doc__}\nServers: {', '.join(SERVERS)}")
    try:
        run(sys.argv[2:])
    except ServerError as error:
        sys.exit(str(error))
