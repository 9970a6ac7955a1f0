"""A Django site with one of several user models, asked one question a line about its users.

    users.py {"database": {...}, "model": "auth.User", "export": FILE}

In: {"op": name, argument: value...}
Out: {"value": the JSON text of the answer}
"""

import json
import sys
from urllib.parse import unquote_to_bytes

from databases import make_database
from django.conf import settings

config = json.loads(sys.argv[1])
database = config["database"]
make_database(database)

settings.configure(
    SECRET_KEY="the child's key",
    SECRET_KEY_FALLBACKS=["its former key", "the one before"],
    ALLOWED_HOSTS=["*"],
    USE_TZ=True,
    DATABASES={"default": database},
    AUTH_USER_MODEL=config["model"],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    PASSWORD_HASHERS=[
        "accounts.hashers.Quick",
        "accounts.hashers.QuickSha1",
        "django.contrib.auth.hashers.MD5PasswordHasher",
    ],
    INSTALLED_APPS=[
        "django.contrib.contenttypes",
        "django.contrib.auth",
        "django.contrib.sessions",
        "django_rust_sessions",
        "accounts",
    ],
    MIDDLEWARE=[
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
# The app without migrations, whose tables point at those of auth.
call_command("migrate", run_syncdb=True, verbosity=0)
call_command("export_session_settings", output=config["export"], with_secrets=True, verbosity=0)

from accounts.hashers import hashings  # noqa: E402
from django.contrib import auth  # noqa: E402
from django.contrib.auth.decorators import login_required  # noqa: E402
from django.contrib.auth.hashers import make_password  # noqa: E402
from django.contrib.auth.models import Group, Permission  # noqa: E402
from django.contrib.sessions.backends.db import SessionStore  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.test import Client, RequestFactory, override_settings  # noqa: E402
from django.urls import path  # noqa: E402

User = auth.get_user_model()
FIELDS = {field.name for field in User._meta.get_fields()}


def of(pk):
    return User._default_manager.get(pk=pk)


def permission(name):
    app_label, codename = name.split(".", 1)
    return Permission.objects.get(content_type__app_label=app_label, codename=codename)


def create(username, password=None, groups=(), permissions=(), **fields):
    user = User(**{User.USERNAME_FIELD: username})
    for name, value in fields.items():
        if name in FIELDS:
            setattr(user, name, value)
    user.set_password(password)
    user.save()
    if "groups" in FIELDS:
        user.user_permissions.set(map(permission, permissions))
        for names in groups:
            group = Group.objects.create(name=f"group {Group.objects.count()}")
            group.permissions.set(map(permission, names))
            user.groups.add(group)
    return User._meta.pk.value_to_string(user)


def update(pk, **fields):
    user = of(pk)
    for name, value in fields.items():
        setattr(user, name, value)
    user.save()


def make_hash(password, hasher):
    return make_password(password, hasher=hasher)


def hashes(pk):
    """What sessions of this user hold as hash, under each key."""
    user = of(pk)
    return [user.get_session_auth_hash(), *user.get_session_auth_fallback_hash()]


def row(pk):
    user = of(pk)
    login = getattr(user, "last_login", None)
    return {"password": user.password, "last_login": login and login.timestamp()}


def new_session(content):
    store = SessionStore()
    store.update(content)
    store.create()
    return store.session_key


def request_with(content, is_anonymous=False):
    request = RequestFactory().get("/")
    request.session = SessionStore(None if is_anonymous else new_session(content))
    return request, request.session.session_key


def after(request, key):
    session = request.session
    return {
        "key": "none"
        if session.session_key is None
        else ("kept" if session.session_key == key else "new"),
        "content": dict(session.items()),
        "old": None if key is None else SessionStore().exists(key),
        "modified": session.modified,
    }


def get_user(session, backends=None):
    request, key = request_with(session)
    with override_settings(**({"AUTHENTICATION_BACKENDS": backends} if backends else {})):
        try:
            user = auth.get_user(request)
        except Exception as error:
            return {"raised": type(error).__name__}
    name = user.is_authenticated and User._meta.pk.value_to_string(user)
    return {"user": name or None, **after(request, key)}


def login(session, pk, backend=None, backends=None, use_sessions=False):
    request, key = request_with(session or {}, session is None)
    user = of(pk)
    with override_settings(**({"AUTHENTICATION_BACKENDS": backends} if backends else {})):
        try:
            auth.login(request, user, backend=backend)
        except Exception as error:
            return {"raised": type(error).__name__}
    rotated = request.META.get("CSRF_COOKIE_NEEDS_UPDATE", False)
    return {"rotated": rotated, **after(request, key)}


def update_session_auth_hash(session, pk):
    request, key = request_with(session)
    request.user = auth.get_user(request)
    auth.update_session_auth_hash(request, of(pk))
    return after(request, key)


def logout(session):
    request, key = request_with(session)
    request.user = auth.get_user(request)
    auth.logout(request)
    return after(request, key)


def authenticate(username, password, backends=None):
    hashings.clear()
    with override_settings(**({"AUTHENTICATION_BACKENDS": backends} if backends else {})):
        try:
            user = auth.authenticate(None, username=username, password=password)
        except Exception as error:
            return {"raised": type(error).__name__}
    return {
        "user": user and User._meta.pk.value_to_string(user),
        "backend": user and user.backend,
        "hashings": list(hashings),
    }


def check_password(pk, password):
    return of(pk).check_password(password)


def perms(pk, names, modules):
    user = of(pk)
    if not hasattr(user, "has_perm"):
        return {"all": [], "has": [False] * len(names), "modules": [False] * len(modules)}
    return {
        "all": sorted(user.get_all_permissions()),
        "has": [user.has_perm(name) for name in names],
        "modules": [user.has_module_perms(name) for name in modules],
    }


def redirect(login_url, target, host, secure):
    """Where login_required leads to."""
    request_path, _, query = target.partition("?")
    client = Client(raise_request_exception=False)
    with override_settings(LOGIN_URL=login_url):
        # As servers hand it over; the client's own methods take the path for an address.
        response = client.request(
            PATH_INFO=unquote_to_bytes(request_path).decode("latin-1"),
            QUERY_STRING=query,
            HTTP_HOST=host,
            **{"wsgi.url_scheme": "https" if secure else "http"},
        )
    return response.get("Location")


status = 200


def whoami(request):
    return HttpResponse(str(request.user.pk), status=status)


def through_middleware(session, answer_with):
    """The status, what the browser is told of its cookie, and whether that is a login."""
    global status
    status = answer_with
    client = Client(raise_request_exception=False)
    key = new_session(session)
    client.cookies[settings.SESSION_COOKIE_NAME] = key
    response = client.get("/whoami/")
    cookie = response.cookies.get(settings.SESSION_COOKIE_NAME)
    status = 200
    return {
        "status": response.status_code,
        "cookie": bool(cookie and cookie.value),
        "old": SessionStore().exists(key),
        "then": client.get("/whoami/").content.decode(),
    }


urlpatterns = [
    path("whoami/", whoami),
    path("<path:rest>", login_required(lambda request, rest: HttpResponse())),
    path("", login_required(lambda request: HttpResponse())),
]

OPERATIONS = {
    operation.__name__: operation
    for operation in (
        *(create, update, make_hash, hashes, row, get_user, login, update_session_auth_hash),
        *(logout, authenticate, check_password, perms, redirect, through_middleware),
    )
}

for line in sys.stdin:
    question = json.loads(line)
    reply = OPERATIONS[question.pop("op")](**question)
    print(json.dumps({"value": json.dumps(reply)}), flush=True)
