"""The endpoint of `make bench-web` in Django; settings, views, WSGI and ASGI in one file."""

import os
from urllib.parse import urlsplit

from django.conf import settings

postgres = urlsplit(os.environ["BENCH_POSTGRES"])
ENGINES, ENGINE = os.environ["BENCH_ENGINE"].rsplit(".", 1)
OURS = ENGINES.startswith("django_rust_sessions")
SESSION_MIDDLEWARE = (
    "django_rust_sessions.middleware.SessionMiddleware"
    if OURS
    else "django.contrib.sessions.middleware.SessionMiddleware"
)
if not settings.configured:
    settings.configure(
        SECRET_KEY=os.environ["SECRET_KEY"],
        SESSION_ENGINE=f"{ENGINES}.{ENGINE}",
        CACHES={
            "default": {
                "BACKEND": "django.core.cache.backends.redis.RedisCache",
                "LOCATION": os.environ["BENCH_REDIS"],
            }
        },
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": postgres.path.strip("/"),
                "USER": postgres.username,
                "PASSWORD": postgres.password,
                "HOST": postgres.hostname,
                "PORT": postgres.port,
                # WSGI keeps a connection a worker. Under ASGI each request has a thread of its own,
                # and Django asks for a pool there.
                **(
                    {"OPTIONS": {"pool": {"min_size": 4, "max_size": 16}}}
                    if os.environ.get("BENCH_ASGI")
                    else {"CONN_MAX_AGE": None}
                ),
            }
        },
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        ALLOWED_HOSTS=["127.0.0.1"],
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
            "django_rust_sessions",
        ],
        MIDDLEWARE=[
            SESSION_MIDDLEWARE,
            "django.contrib.auth.middleware.AuthenticationMiddleware",
        ],
        ROOT_URLCONF=__name__,
        USE_TZ=True,
    )

import django  # noqa: E402 (it needs the settings)

django.setup()

from django.core.asgi import get_asgi_application  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import JsonResponse  # noqa: E402
from django.urls import path  # noqa: E402


def me(request):
    user = request.user
    return JsonResponse(
        {
            "username": user.username if user.is_authenticated else None,
            "cart": request.session.get("cart", []),
        }
    )


async def ame(request):
    user = await request.auser()
    return JsonResponse(
        {
            "username": user.username if user.is_authenticated else None,
            "cart": await request.session.aget("cart", []),
        }
    )


urlpatterns = [path("me", ame if os.environ.get("BENCH_ASGI") else me)]
wsgi = get_wsgi_application()
asgi = get_asgi_application()
