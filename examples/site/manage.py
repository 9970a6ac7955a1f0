"""The Django site beside the Rust examples: settings, pages and manage.py in one file.

`examples/run.py` starts it. Log in as ada; the cart is in the session, notices are
django.contrib.messages, and `/api/me` answers as the Rust APIs do.
"""

import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

from django.conf import settings

FOLDER = Path(os.environ["EXAMPLE_FOLDER"])
# The addresses of both.
DJANGO, RUST = os.environ["EXAMPLE_DJANGO"], os.environ["EXAMPLE_RUST"]

settings.configure(
    SECRET_KEY=os.environ["SECRET_KEY"],
    DEBUG=True,
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    ROOT_URLCONF=__name__,
    SESSION_ENGINE="django.contrib.sessions.backends." + os.environ.get("EXAMPLE_ENGINE", "db"),
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": FOLDER / "db.sqlite3",
            "OPTIONS": {"timeout": 20},
        }
    },
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django.contrib.messages",
        "django_rust_sessions",  # for `manage.py export_session_settings`
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ],
            },
        }
    ],
    # Two ports are two origins: each side takes the other's forms.
    CSRF_TRUSTED_ORIGINS=[DJANGO, RUST],
    LOGIN_URL="/login/",
    LOGIN_REDIRECT_URL="/",
    LOGOUT_REDIRECT_URL="/",
    USE_TZ=True,
    **(
        {
            "CACHES": {
                "default": {
                    "BACKEND": "django.core.cache.backends.redis.RedisCache",
                    "LOCATION": os.environ["EXAMPLE_REDIS"],
                }
            }
        }
        if "EXAMPLE_REDIS" in os.environ
        else {}
    ),
)

import django  # noqa: E402 (it needs the settings)

django.setup()

from django.contrib import messages  # noqa: E402
from django.contrib.auth.decorators import login_required  # noqa: E402
from django.contrib.auth.views import LoginView, LogoutView  # noqa: E402
from django.http import HttpResponse, JsonResponse  # noqa: E402
from django.shortcuts import redirect  # noqa: E402
from django.template import engines  # noqa: E402
from django.urls import path  # noqa: E402
from django.views.decorators.http import require_POST  # noqa: E402

PAGE = """<!doctype html><html lang="en"><meta name="viewport" content="width=device-width">
<title>Django</title><style>
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem }
.notice { padding: .5rem 1rem; background: #e7f3ea; color: #14361e; border-radius: .4rem }
</style>
{% for message in messages %}<p class="notice {{ message.tags }}">{{ message }}</p>{% endfor %}
<h1>{% if user.is_authenticated %}Hello, {{ user }}{% else %}Hello, stranger{% endif %}</h1>
CONTENT
<p><a href="RUST">The same in Rust</a></p>"""
HOME = """{% if user.is_authenticated %}
<ul>{% for item in request.session.cart %}<li>{{ item }}</li>{% endfor %}</ul>
<form method="post" action="/cart/add/">{% csrf_token %}
  <label>Item <input name="name" required></label> <button>Add in Django</button></form>
<form method="post" action="/logout/">{% csrf_token %}<button>Log out</button></form>
{% else %}<p><a href="/login/">Log in</a></p>{% endif %}"""
FORM = """<form method="post">{% csrf_token %}{{ form.as_p }}<button>Log in</button></form>"""


def page(request, content, **context):
    source = PAGE.replace("CONTENT", content).replace("RUST", RUST)
    return HttpResponse(engines["django"].from_string(source).render(context, request))


class Login(LoginView):
    def render_to_response(self, context, **kwargs):
        return page(self.request, FORM, form=context["form"])


def home(request):
    return page(request, HOME)


def me(request):
    cart = request.session.get("cart", [])
    username = request.user.username if request.user.is_authenticated else None
    return JsonResponse({"username": username, "cart": cart})


@login_required
@require_POST
def cart_add(request):
    name = request.POST["name"]
    request.session["cart"] = [*request.session.get("cart", []), name]
    messages.success(request, f"{name} is in the cart, says Django.")
    return redirect(RUST + "/" if request.POST.get("back") == "rust" else "/")


urlpatterns = [
    path("", home),
    # Who came from the Rust service is sent back to it.
    path("login/", Login.as_view(success_url_allowed_hosts={urlsplit(RUST).netloc})),
    path("logout/", LogoutView.as_view()),
    path("api/me", me),
    path("cart/add/", cart_add),
]


def make_users():
    """Ada, who may see users, and Bob, who may not."""
    from django.contrib.auth.models import Permission, User

    for name in ("ada", "bob"):
        user, _ = User.objects.get_or_create(username=name)
        user.set_password("two-doors")
        user.save()
    permission = Permission.objects.get(codename="view_user")
    User.objects.get(username="ada").user_permissions.add(permission)


if __name__ == "__main__":
    if sys.argv[1:] == ["make_users"]:
        make_users()
    else:
        from django.core.management import execute_from_command_line

        execute_from_command_line(sys.argv)
