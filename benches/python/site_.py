"""The site of the request's rows: one view that reads and writes the session."""

import io
import os
import sys

from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse
from django.test import override_settings
from django.urls import path

DJANGO, OURS = "django.contrib.sessions", "django_rust_sessions"


def of(package: str) -> dict:
    """The settings that choose the sessions of this package."""
    return {
        "SESSION_ENGINE": f"{package}.backends.cache",
        "MIDDLEWARE": [f"{package}.middleware.SessionMiddleware"],
        "ROOT_URLCONF": __name__,
    }


def view(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    return HttpResponse(str(request.session["visits"]))


async def aview(request):
    visits = await request.session.aget("visits", 0) + 1
    await request.session.aset("visits", visits)
    return HttpResponse(str(visits))


def wsgi(package: str, key: str):
    """A handler as a WSGI server would call it, and a request that it takes."""
    with override_settings(**of(package)):
        handler = WSGIHandler()
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/",
        "SERVER_NAME": "testserver",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
        "HTTP_COOKIE": f"sessionid={key}",
    }

    def run(_=None):
        status = []
        response = handler(
            {**environ, "wsgi.input": io.BytesIO(), "wsgi.errors": sys.stderr},
            lambda line, headers: status.append(line),
        )
        response.close()
        assert status == ["200 OK"], status

    return run


urlpatterns = [path("", view), path("async", aview)]

if "BENCH_PACKAGE" in os.environ:  # a process of its own
    import django
    from django.conf import settings

    settings.configure(
        SECRET_KEY="measured with a key of the usual length, of fifty.",
        ALLOWED_HOSTS=["127.0.0.1", "testserver"],
        CACHES={
            "default": {
                "BACKEND": "django.core.cache.backends.redis.RedisCache",
                "LOCATION": os.environ["BENCH_REDIS"],
            }
        },
        **of(os.environ["BENCH_PACKAGE"]),
    )
    django.setup()
    from django.core.asgi import get_asgi_application

    asgi = get_asgi_application()
