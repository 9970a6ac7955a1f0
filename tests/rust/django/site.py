"""A Django site behind its own session middleware, asked one request a line.

    site.py SQLITE_FILE

In: {"cookie": header or null, "status": n, "vary": text or null, "settings": {name: value},
     "steps": [[step, argument...], ...]}
Out: {"value": the JSON text of {"status", "cookie": Set-Cookie or null, "vary", "seen",
     "content": {...} or null}}

"content" is what the session store holds afterwards under the key that the browser then has.
"""

import sys

from django.conf import settings

settings.configure(
    SECRET_KEY="the child's key",
    SECRET_KEY_FALLBACKS=["its former key"],
    ALLOWED_HOSTS=["*"],
    USE_TZ=True,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[1]}},
    INSTALLED_APPS=["django.contrib.sessions"],
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
    ROOT_URLCONF=__name__,
    LOGGING={"version": 1, "loggers": {"django": {"handlers": [], "propagate": False}}},
)

import django  # noqa: E402 (all of these need settings)

django.setup()

from django.core.management import call_command  # noqa: E402

call_command("migrate", verbosity=0)

from about_sessions import content, serve  # noqa: E402
from django.contrib.sessions.backends.db import SessionStore  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.test import Client, override_settings  # noqa: E402
from django.urls import path  # noqa: E402

question = {}
seen = []


def step(session, name, *arguments):
    if name == "get":
        seen.append(session.get(*arguments))
    elif name == "insert":
        session[arguments[0]] = arguments[1]
    elif name == "remove":
        seen.append(session.pop(arguments[0], None) is not None)
    elif name == "mark_modified":
        session.modified = True
    elif name == "expire_in":
        session.set_expiry(arguments[0])
    elif name == "ended_elsewhere":
        if session.session_key:
            SessionStore().delete(session.session_key)
    elif name == "raise":
        raise ZeroDivisionError
    else:
        getattr(session, name)()


def view(request):
    for each in question["steps"]:
        step(request.session, *each)
    response = HttpResponse(status=question["status"])
    if question["vary"] is not None:
        response["Vary"] = question["vary"]
    return response


urlpatterns = [path("", view)]


def answer():
    seen.clear()
    client = Client(raise_request_exception=False)
    headers = {"HTTP_COOKIE": question["cookie"]} if question["cookie"] is not None else {}
    with override_settings(**question["settings"]):
        request = client._base_environ(REQUEST_METHOD="GET", PATH_INFO="/", **headers)
        # The client has a jar of its own; this request has the cookies that were asked for.
        request["HTTP_COOKIE"] = question["cookie"] or ""
        response = client.handler(request)
        cookie = response.cookies.get(settings.SESSION_COOKIE_NAME)
    return {
        "status": response.status_code,
        "cookie": cookie and cookie.OutputString(),
        "vary": response.get("Vary"),
        "content": content(cookie.value) if cookie and cookie.value else None,
        "seen": seen,
    }


serve(question, answer)
