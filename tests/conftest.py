"""For every Python test: private servers as fixtures (`redis_server`, `postgres_server`, ...) and
the sizes of generated samples."""

import os
import signal

import hypothesis
import pytest
import servers

# `make test` takes the default, and for the older and newer Django releases the quick one;
# `make test-full` takes the full one for all.
hypothesis.settings.register_profile("quick", deadline=None, max_examples=200)
hypothesis.settings.register_profile("default", deadline=None, max_examples=500)
hypothesis.settings.register_profile("full", deadline=None, max_examples=20_000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def _there(where: dict) -> dict:
    """Where a server is, unless it is missing."""
    if "missing" in where:
        # Where everything must be tested, a missing server is a failure.
        stop = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        stop(where["missing"])
    return where


def _server_fixture(name: str):
    @pytest.fixture(scope="session", name=f"{name.replace('+', '_')}_server")
    def server():
        """Where the private server is: a dict with url, host, port, socket, pid and folder."""
        started = servers.Started(name)
        try:
            yield _there(started.servers[name])
        finally:
            started.stop()

    return server


redis_server = _server_fixture("redis")
redis_password_server = _server_fixture("redis+password")
redis_tls_server = _server_fixture("redis+tls")
redis_maxmemory_server = _server_fixture("redis+maxmemory")
redis_replicas_server = _server_fixture("redis_replicas")
redis_sentinel_server = _server_fixture("redis_sentinel")
redis_sentinel_tls_server = _server_fixture("redis_sentinel+tls")
redis_cluster_server = _server_fixture("redis_cluster")
redis_cluster_replicas_server = _server_fixture("redis_cluster+replicas")
redis_cluster_tls_server = _server_fixture("redis_cluster+tls")
postgres_server = _server_fixture("postgres")
postgres_durable_server = _server_fixture("postgres+durable")
mariadb_server = _server_fixture("mariadb")
memcached_server = _server_fixture("memcached")
memcached_nocas_server = _server_fixture("memcached+nocas")
memcached_three_server = _server_fixture("memcached_three")
pgbouncer_server = _server_fixture("pgbouncer")


class OwnRedis:
    """A Redis of one test's own, which it may pause, kill and start again where it was."""

    def __init__(self) -> None:
        running: dict[str, servers.Server] = {}
        self.where = _there(servers.start_one("redis", running))
        self.server = running["redis"]
        self.url, self.port = self.where["url"], self.where["port"]

    def kill(self) -> None:
        self.server.process.kill()
        self.server.process.wait()

    def start(self) -> None:
        """On the same port as before, with no data."""
        assert self.server.launch(), self.server.log()

    def pause(self) -> None:
        """It keeps its connections, and the kernel makes new ones, but nothing is answered."""
        process = self.server.process
        process.send_signal(signal.SIGSTOP)
        # The signal is not waited for: a thread of it on another core may answer a last time.
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self) -> None:
        self.server.process.send_signal(signal.SIGCONT)


@pytest.fixture
def own_redis():
    own = OwnRedis()
    yield own
    own.server.stop()


def pytest_terminal_summary(terminalreporter):
    """Says for `make test` what this machine lacks. A test with a skip mark does not apply here (to
    an older Django, say), and nothing is lacking; one that called pytest.skip missed something."""
    for report in terminalreporter.stats.get("skipped", []):
        if not {"skip", "skipif"} & report.keywords.keys():
            reason = report.longrepr[2].removeprefix("Skipped: ")
            terminalreporter.write_line(f"SKIPPED: {reason}")
