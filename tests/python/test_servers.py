"""The private servers of the tests: they answer, they are ours alone, and nothing of them stays."""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
import redis
import redis.sentinel
import servers

ON_LINUX = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="needs the kernel's death signal"
)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def accepts_connections(where: dict) -> bool:
    try:
        socket.create_connection((where["host"], where["port"]), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


def wait_until_gone(where: dict, *, with_data: bool = True) -> None:
    def traces() -> list[str]:
        return [
            *(["process"] if is_running(where["pid"]) else []),
            *(["port"] if accepts_connections(where) else []),
            *(["data"] if with_data and Path(where["folder"]).exists() else []),
        ]

    deadline = time.monotonic() + 20
    while traces() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert traces() == []


@pytest.fixture
def started(redis_server):
    """A Redis of this test's own, which the test may end as it likes."""
    started = servers.Started("redis")
    yield started
    started.stop()


def test_redis_answers_over_tcp_and_its_socket(redis_server):
    with redis.Redis.from_url(redis_server["url"]) as over_tcp:
        assert over_tcp.set("greeting", "hello")
    with redis.Redis(unix_socket_path=redis_server["socket"]) as over_socket:
        assert over_socket.get("greeting") == b"hello"
        assert over_socket.info("server")["process_id"] == redis_server["pid"]


def test_redis_with_a_password_answers_to_nobody_without(redis_password_server):
    where = redis_password_server
    for url, name in ((where["url"], "default"), (where["user_url"], where["user"])):
        with redis.Redis.from_url(url) as client:
            assert client.acl_whoami() == name
    for login in ({}, {"password": "wrong"}, {"username": where["user"], "password": "wrong"}):
        for way in ({"port": where["port"]}, {"unix_socket_path": where["socket"]}):
            with (
                redis.Redis(**way, **login, retry=None) as client,
                pytest.raises(redis.AuthenticationError),
            ):
                client.ping()


def test_redis_over_tls_answers_to_its_certificates_alone(redis_tls_server):
    where = redis_tls_server
    ours = servers.tls_options(where)
    with redis.Redis.from_url(where["url"], **ours) as client:
        assert client.set("greeting", "hello")
    for wrong in (
        {"ssl_ca_certs": where["ca_certs"]},
        {**ours, "ssl_ca_certs": where["other_ca_certs"]},
        {**ours, "ssl_ca_certs": None},
    ):
        with (
            redis.Redis.from_url(where["url"], **wrong, retry=None) as client,
            pytest.raises(redis.ConnectionError),
        ):
            client.ping()
    with (
        redis.Redis(port=where["port"], retry=None) as client,
        pytest.raises(redis.ConnectionError),
    ):
        client.ping()


def filled(client):
    """What it answers once it is full."""
    for number in range(1_000):
        try:
            client.set(f"big {number}", b"." * 20_000)
        except redis.ResponseError as error:
            return error
    return None


def test_redis_with_little_memory_refuses_what_does_not_fit(redis_maxmemory_server):
    with redis.Redis.from_url(redis_maxmemory_server["url"]) as client:
        client.set("small", "1")
        refused = filled(client)
        assert isinstance(refused, redis.OutOfMemoryError)
        assert client.get("small") == b"1"
        client.flushall()
        client.set("small", "2")


def test_redis_replicas_have_what_the_primary_has(redis_replicas_server):
    where = redis_replicas_server
    primary, *replicas = map(redis.Redis.from_url, where["urls"].split(","))
    assert primary.role()[0] == b"master"
    assert primary.set("greeting", "hello")
    assert primary.wait(2, 5_000) == 2
    for replica in replicas:
        assert replica.role()[:3] == [b"slave", b"127.0.0.1", where["port"]]
        assert replica.get("greeting") == b"hello"
    for client in (primary, *replicas):
        client.close()


def test_redis_sentinels_agree_about_the_primary(redis_sentinel_server):
    primary, replica, *sentinels = redis_sentinel_server["ports"]
    assert len(sentinels) == 3
    for port in sentinels:
        sentinel = redis.sentinel.Sentinel([("127.0.0.1", port)], min_other_sentinels=2)
        assert sentinel.discover_master("mymaster") == ("127.0.0.1", primary)
        assert sentinel.discover_slaves("mymaster") == [("127.0.0.1", replica)]


def test_redis_cluster_has_all_slots_and_redirects(redis_cluster_server):
    where = redis_cluster_server
    with redis.RedisCluster.from_url(where["url"]) as cluster:
        assert {node.port for node in cluster.get_primaries()} == set(where["ports"])
        for number in range(20):
            assert cluster.set(f"key {number}", number)
    with redis.Redis.from_url(where["url"]) as node:
        moved = 0
        for number in range(20):
            try:
                node.get(f"key {number}")
            except redis.exceptions.MovedError:
                moved += 1
    assert 0 < moved < 20


def test_each_replica_of_a_cluster_has_what_its_primary_has(redis_cluster_replicas_server):
    where = redis_cluster_replicas_server
    primaries, replicas = where["ports"][:3], where["ports"][3:]
    for primary, replica in zip(primaries, replicas, strict=True):
        with redis.Redis(port=replica) as client:
            assert client.role()[:4] == [b"slave", b"127.0.0.1", primary, b"connected"]
    with redis.RedisCluster.from_url(where["url"]) as cluster:
        assert {node.port for node in cluster.get_replicas()} == set(replicas)
        assert {node.port for node in cluster.get_primaries()} == set(primaries)


def test_sentinels_over_tls_agree_about_the_primary(redis_sentinel_tls_server):
    where = redis_sentinel_tls_server
    primary, replica, *sentinels = where["ports"]
    ours = {"ssl": True, **servers.tls_options(where)}
    strangers = [{}, {"ssl": True}, {**ours, "ssl_ca_certs": where["other_ca_certs"]}]
    strangers.append({"ssl": True, "ssl_ca_certs": where["ca_certs"]})
    for port in sentinels:
        sentinel = redis.sentinel.Sentinel([("127.0.0.1", port)], 2, ours)
        assert sentinel.discover_master("mymaster") == ("127.0.0.1", primary)
        assert sentinel.discover_slaves("mymaster") == [("127.0.0.1", replica)]
    for port, stranger in itertools.product(where["ports"], strangers):
        with (
            redis.Redis(port=port, **stranger, retry=None) as client,
            pytest.raises(redis.ConnectionError),
        ):
            client.ping()


def test_a_cluster_over_tls_redirects(redis_cluster_tls_server):
    where = redis_cluster_tls_server
    tls = {"ssl": True, **servers.tls_options(where)}
    with redis.RedisCluster(host="127.0.0.1", port=where["port"], **tls) as cluster:
        for number in range(20):
            assert cluster.set(f"key {number}", number)
    for port in where["ports"]:
        with (
            redis.Redis(port=port, retry=None) as client,
            pytest.raises(redis.ConnectionError),
        ):
            client.ping()


def test_the_options_of_a_group_are_those_of_its_members():
    for name in ("redis_replicas", "redis_sentinel", "redis_cluster"):
        started = servers.Started(f"{name}+password")
        try:
            where = started.servers[f"{name}+password"]
            with (
                redis.Redis(port=where["port"], retry=None) as client,
                pytest.raises(redis.AuthenticationError),
            ):
                client.get("anything")
            with redis.Redis.from_url(where["url"]) as client:
                assert client.ping()
        finally:
            started.stop()
        for pid, port in zip(where["pids"], where["ports"], strict=True):
            wait_until_gone({**where, "pid": pid, "port": port})


def test_own_redis_is_paused_killed_and_started_again_where_it_was(own_redis):
    with redis.Redis(port=own_redis.port, socket_timeout=0.1, retry=None) as client:
        client.set("greeting", "hello")
        own_redis.pause()
        with pytest.raises(redis.TimeoutError):
            client.get("greeting")
        own_redis.resume()
        assert client.get("greeting") == b"hello"
        own_redis.kill()
        with pytest.raises(redis.ConnectionError):
            client.get("greeting")
        own_redis.start()
        assert client.get("greeting") is None


def test_each_server_has_its_own_port_and_data(redis_server, started):
    where = started.servers["redis"]
    assert where["port"] != redis_server["port"]
    assert where["folder"] != redis_server["folder"]
    with (
        redis.Redis.from_url(redis_server["url"]) as one,
        redis.Redis.from_url(where["url"]) as other,
    ):
        one.set("only here", "1")
        assert other.get("only here") is None
        assert other.config_get("dir") == {"dir": where["folder"]}
        # Nothing but loopback.
        assert other.config_get("bind") == {"bind": "127.0.0.1"}


def test_nothing_is_left_after_stop(started):
    where = started.servers["redis"]
    assert is_running(where["pid"])
    assert accepts_connections(where)
    assert Path(where["folder"]).is_dir()
    started.stop()
    wait_until_gone(where)


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_after_a_signal(started, ending):
    started.process.send_signal(ending)
    assert started.process.wait(20) == 0
    wait_until_gone(started.servers["redis"])


def test_nothing_is_left_when_the_user_is_killed(redis_server):
    program = (
        "import json, servers, time\n"
        "print(json.dumps(servers.Started('redis').servers['redis']), flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=Path(servers.__file__).parent
    ) as user:
        where = json.loads(user.stdout.readline())
        assert accepts_connections(where)
        user.kill()
    wait_until_gone(where)


@ON_LINUX
def test_no_process_is_left_when_its_keeper_is_killed(started):
    started.process.kill()
    # Who is killed cannot remove the data; we do it.
    wait_until_gone(started.servers["redis"], with_data=False)
    for file in Path(started.servers["redis"]["folder"]).iterdir():
        file.unlink()
    Path(started.servers["redis"]["folder"]).rmdir()


def test_a_missing_server_is_reported_and_the_others_start(redis_server):
    program = (
        "import servers\n"
        "servers.Memcached.programs = ('no-such-memcached',)\n"
        "servers.run(['memcached', 'redis'])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=Path(servers.__file__).parent,
        check=True,
    )
    answer = json.loads(result.stdout)
    assert answer["memcached"] == {
        "missing": "no-such-memcached is not installed: run `make servers`"
    }
    assert answer["redis"]["pid"]


def test_a_missing_tool_of_an_option_is_reported(redis_server, monkeypatch):
    monkeypatch.setitem(servers.Redis.options, "tls", "no-such-openssl")
    missing = {"missing": "no-such-openssl is not installed: run `make servers`"}
    assert servers.start_one("redis+tls", {}) == missing


def test_a_taken_port_is_tried_again(redis_server, monkeypatch):
    ports = iter([redis_server["port"]])
    real = servers.free_port
    monkeypatch.setattr(servers, "free_port", lambda: next(ports, None) or real())
    running = {}
    try:
        where = servers.start_one("redis", running)
        assert where["port"] != redis_server["port"]
        assert accepts_connections(where)
    finally:
        running["redis"].stop()
    wait_until_gone(where)


@pytest.mark.parametrize("spec", ["redis+no-such-option", "oracle"])
def test_what_does_not_exist_is_refused_by_name(spec):
    with pytest.raises(servers.ServerError, match=spec.split("+")[-1]):
        servers.start_one(spec, {})


def test_postgres_answers_over_tcp_and_its_socket(postgres_server):
    with psycopg.connect(postgres_server["url"]) as connection:
        folder = connection.execute("SHOW data_directory").fetchone()[0]
    assert Path(folder).parent == Path(postgres_server["folder"])
    names = ("user", "password", "port")
    with psycopg.connect(
        host=postgres_server["socket"],
        dbname=postgres_server["database"],
        **{name: postgres_server[name] for name in names},
    ) as connection:
        assert connection.execute("SHOW server_encoding").fetchone() == ("UTF8",)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(postgres_server["url"], password="wrong")


def test_pgbouncer_shares_one_backend_between_transactions(pgbouncer_server):
    def backend(connection):
        return connection.execute("SELECT pg_backend_pid()").fetchone()

    # Both clients are connected: only a pool in transaction mode serves them from one backend.
    with (
        psycopg.connect(pgbouncer_server["url"], autocommit=True) as one,
        psycopg.connect(pgbouncer_server["url"], autocommit=True) as other,
    ):
        assert backend(one) == backend(other)


def test_memcached_answers(memcached_server):
    with socket.create_connection(
        (memcached_server["host"], memcached_server["port"]), timeout=5
    ) as client:
        client.sendall(b"set greeting 0 0 5\r\nhello\r\nget greeting\r\n")
        answer = b""
        while not answer.endswith(b"END\r\n"):
            answer += client.recv(1024)
    assert answer == b"STORED\r\nVALUE greeting 0 5\r\nhello\r\nEND\r\n"


def test_mariadb_answers_over_tcp_and_its_socket(mariadb_server):
    client = servers.find_program("mariadb", "mysql")
    for way in (["--protocol=tcp"], [f"--socket={mariadb_server['socket']}"]):
        answer = subprocess.run(
            [
                *(
                    client,
                    "--no-defaults",
                    *way,
                    "--host=127.0.0.1",
                    f"--port={mariadb_server['port']}",
                ),
                *(f"--user={mariadb_server['user']}", f"--database={mariadb_server['database']}"),
                *("--skip-column-names", "--execute=SELECT @@datadir"),
            ],
            env={**os.environ, "MYSQL_PWD": mariadb_server["password"]},
            capture_output=True,
            text=True,
            check=True,
        )
        assert Path(answer.stdout.strip()).parent == Path(mariadb_server["folder"])
