"""A Django site with the app of devices, asked one question a line about them.

    devices.py {"database": {...}, "export": FILE, "hash_keys": "off" | "sha256"}

In: {"op": name, argument: value...}
Out: {"value": the JSON text of the answer}
"""

import json
import sys
from datetime import timedelta

from databases import make_database
from django.conf import settings

config = json.loads(sys.argv[1])
make_database(config["database"])

settings.configure(
    SECRET_KEY="the child's key",
    SECRET_KEY_FALLBACKS=["its former key"],
    ALLOWED_HOSTS=["*"],
    USE_TZ=True,
    DATABASES={"default": config["database"]},
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    SESSION_ENGINE="django_rust_sessions.backends.db",
    RUST_SESSIONS={"HASH_KEYS": config["hash_keys"]} if config["hash_keys"] != "off" else {},
    INSTALLED_APPS=[
        "django.contrib.contenttypes",
        "django.contrib.auth",
        "django.contrib.sessions",
        "django_rust_sessions",
        "django_rust_sessions.devices",
    ],
    MIDDLEWARE=[
        "django_rust_sessions.devices.middleware.DevicesMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    ROOT_URLCONF=__name__,
    LOGGING={"version": 1, "loggers": {"django": {"handlers": [], "propagate": False}}},
)

import django  # noqa: E402 (all of these need settings)

django.setup()

from django.core.management import call_command  # noqa: E402

call_command("migrate", verbosity=0)
call_command("export_session_settings", output=config["export"], with_secrets=True, verbosity=0)

from django.contrib import auth  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.test import Client  # noqa: E402
from django.urls import path  # noqa: E402
from django_rust_sessions.devices import agents, api  # noqa: E402
from django_rust_sessions.devices.models import MAX_AGENT, Device  # noqa: E402


def user_view(request):
    return HttpResponse(request.user.username or "stranger")


def login_view(request, username):
    auth.login(request, User.objects.get(username=username))
    return HttpResponse(username)


urlpatterns = [path("user", user_view), path("login/<str:username>", login_view)]


def create(username):
    return str(User.objects.create_user(username, password="correct horse").pk)


def set_password(username):
    user = User.objects.get(username=username)
    user.set_password("battery staple")
    user.save()


def delete_user(username):
    User.objects.get(username=username).delete()


def hashes(username):
    user = User.objects.get(username=username)
    return [user.get_session_auth_hash(), *user.get_session_auth_fallback_hash()]


def visit(where, cookie, agent, ip):
    client = Client(raise_request_exception=False)
    if cookie:
        client.cookies[settings.SESSION_COOKIE_NAME] = cookie
    response = client.get(f"/{where}", HTTP_USER_AGENT=agent, REMOTE_ADDR=ip)
    sent = response.cookies.get(settings.SESSION_COOKIE_NAME)
    return {
        "status": response.status_code,
        "body": response.content.decode(),
        "cookie": sent and sent.value,
    }


def described(row):
    return {
        "id": row.pk,
        "user": row.user.username,
        "key": row.session_key,
        "created": int(row.created.timestamp() * 1_000_000 + 0.5),
        "last_seen": int(row.last_seen.timestamp() * 1_000_000 + 0.5),
        "ip": row.ip,
        "agent": row.user_agent,
        "summary": row.summary,
    }


def rows(username):
    return [described(row) for row in Device.objects.filter(user__username=username)]


def user_sessions(username):
    return [described(row) for row in api.user_sessions(User.objects.get(username=username))]


def end_session(id):
    api.end_session(Device.objects.get(pk=id))


def clear_stale(days):
    return api.clear_stale(timedelta(days=days))


def summaries(headers):
    """What is kept, and shown, of headers as a server hands them over: as latin-1."""
    cleaned = [agents.clean(header, MAX_AGENT) for header in headers]
    return [[text, agents.summarise(text)] for text in cleaned]


OPERATIONS = {
    operation.__name__: operation
    for operation in (
        *(create, set_password, delete_user, hashes, visit, rows, user_sessions),
        *(end_session, clear_stale, summaries),
    )
}

for line in sys.stdin:
    question = json.loads(line)
    reply = OPERATIONS[question.pop("op")](**question)
    print(json.dumps({"value": json.dumps(reply)}), flush=True)
