"""Many requests of one session at once, over HTTP, to a WSGI and an ASGI server on PostgreSQL."""

import os
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.cookiejar import CookieJar

import pytest
import uvicorn
from conftest import ENGINES
from django.contrib.auth.models import User
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application
from django.db import connections
from django_rust_sessions.devices import api, recording
from django_rust_sessions.devices.models import Device
from pytest_django.live_server_helper import LiveServer

pytestmark = pytest.mark.django_db(transaction=True)


# The rows are the same for Django's engines: cases.py has them all.
FULL = os.environ.get("HYPOTHESIS_PROFILE") == "full"


@pytest.fixture(params=ENGINES if FULL else ENGINES[len(ENGINES) // 2 :])
def engine(request, settings):
    settings.SESSION_ENGINE = request.param
    return request.param


@pytest.fixture(params=["wsgi", "asgi"])
def site(request, engine):
    """A server of this test's own: the middleware asks for the engine when it is made."""
    if request.param == "wsgi":
        server = LiveServer("127.0.0.1")
        yield f"{server.url}/sync"
        server.stop()
        return
    app = ASGIStaticFilesHandler(get_asgi_application())
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}/async"
    server.should_exit = True
    thread.join()
    connections.close_all()


class Forgetful(recording.Memory):
    """As if each request came to another process."""

    def is_due(self, item):
        return True


def test_many_at_once(site, monkeypatch):
    ada = User.objects.create_user("ada", password="tea")
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
    opener.open(f"{site}/enter/?name=ada").close()
    Device.objects.all().delete()
    monkeypatch.setattr(recording, "memory", Forgetful())

    def whoami(_):
        with opener.open(f"{site}/whoami/") as response:
            return response.read()

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(whoami, range(24))) == {b"ada"}
        [row] = api.user_sessions(ada)
        assert set(pool.map(whoami, range(24))) == {b"ada"}
    [after] = Device.objects.all()
    assert (after.pk, after.last_seen) == (row.pk, row.last_seen)
    api.end_all_sessions(ada)
    assert whoami(0) == b"AnonymousUser"
    assert not Device.objects.exists()
