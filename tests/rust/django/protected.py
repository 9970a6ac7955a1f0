"""A Django site behind its own session, CSRF and message middleware, asked one request a line.

    protected.py SQLITE_FILE

In: {"method", "is_secure", "meta": {name: text}, "cookie": header, "body": text in latin-1,
     "content_type", "steps": [[step, argument...], ...], "status": n, "exempt": bool,
     "settings": {name: value}, "has_sessions": bool}
Out: {"value": the JSON text of {"status", "cookies": [Set-Cookie, ...], "vary", "answers", "log"}}

What else it is asked, about_sessions.py answers.
"""

import io
import logging
import sys

from django.conf import settings

SESSIONS = "django.contrib.sessions.middleware.SessionMiddleware"
OTHERS = [
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
settings.configure(
    SECRET_KEY="the child's key",
    SECRET_KEY_FALLBACKS=["its former key"],
    ALLOWED_HOSTS=["*"],
    USE_TZ=True,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[1]}},
    INSTALLED_APPS=["django.contrib.sessions", "django.contrib.messages"],
    MIDDLEWARE=[SESSIONS, *OTHERS],
    ROOT_URLCONF=__name__,
    LOGGING_CONFIG=None,
)

import django  # noqa: E402 (all of these need settings)

django.setup()

from django.core.management import call_command  # noqa: E402

call_command("migrate", verbosity=0)

from about_sessions import serve  # noqa: E402
from django.contrib import messages  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.middleware.csrf import get_token, rotate_token  # noqa: E402
from django.test import Client, override_settings  # noqa: E402
from django.urls import re_path  # noqa: E402
from django.utils.safestring import SafeData, mark_safe  # noqa: E402
from django.views.decorators.csrf import csrf_exempt  # noqa: E402

question = {}
answers = []
log = []


class Log(logging.Handler):
    def emit(self, record):
        log.append(record.getMessage())


logging.getLogger("django.security.csrf").addHandler(Log())
logging.getLogger("django").propagate = False
logging.getLogger("django").addHandler(logging.NullHandler())


def shown(message):
    safe = isinstance(message.message, SafeData)
    return [message.level, str(message.message), message.extra_tags, safe, message.tags]


def step(request, name, *arguments):
    if name == "get_token":
        answers.append(get_token(request))
    elif name == "rotate":
        rotate_token(request)
    elif name == "insert":
        request.session[arguments[0]] = arguments[1]
    elif name == "add":
        level, text, tags, is_safe = arguments
        messages.add_message(request, level, mark_safe(text) if is_safe else text, tags)
    elif name == "take":
        answers.append([shown(message) for message in messages.get_messages(request)])
    elif name == "count":
        answers.append(len(messages.get_messages(request)))
    elif name == "set_level":
        messages.set_level(request, arguments[0])
    else:
        raise ValueError(name)


def view(request):
    for each in question["steps"]:
        step(request, *each)
    return HttpResponse(status=question["status"])


@csrf_exempt
def exempt_view(request):
    return view(request)


urlpatterns = [re_path("^exempt", exempt_view), re_path("^", view)]


def answer():
    answers.clear()
    log.clear()
    client = Client(enforce_csrf_checks=True, raise_request_exception=False)
    body = question["body"].encode("latin-1")
    environ = client._base_environ(
        REQUEST_METHOD=question["method"],
        PATH_INFO="/exempt" if question["exempt"] else "/",
        CONTENT_LENGTH=str(len(body)),
        CONTENT_TYPE=question["content_type"],
        **question["meta"],
    )
    environ["wsgi.input"] = io.BytesIO(body)
    environ["wsgi.url_scheme"] = "https" if question["is_secure"] else "http"
    environ["HTTP_COOKIE"] = question["cookie"]
    middleware = [SESSIONS, *OTHERS] if question["has_sessions"] else OTHERS
    with override_settings(MIDDLEWARE=middleware, **question["settings"]):
        response = client.handler(environ)
    return {
        "status": response.status_code,
        "cookies": [cookie.OutputString() for cookie in response.cookies.values()],
        "vary": response.get("Vary"),
        "answers": answers,
        "log": log,
    }


serve(question, answer)
