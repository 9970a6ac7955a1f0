"""Settings of the demo shop.

`SESSION_ENGINE` is the one line that a site changes to use django-rust-sessions. What is marked
"shared" must be the same in the Rust service.
"""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent

# demo.py makes a key once, keeps it in .demo/ and hands it to both servers. (shared)
SECRET_KEY = os.environ["DJANGO_SECRET_KEY"]

SESSION_ENGINE = "django_rust_sessions.backends.db"

# Cookies know hosts but not ports, so one browser shows the same session to both servers. The name
# is not the usual "sessionid" to leave alone whatever else you run on this machine. (shared)
SESSION_COOKIE_NAME = "two_doors_session"

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["DEMO_DATABASE"],  # (shared)
        "OPTIONS": {"timeout": 20},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# The demo listens on loopback only.
DEBUG = True
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
DEMO_RUST_PORT = int(os.environ["DEMO_RUST_PORT"])

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "shop",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "shop.context_processors.door",
            ],
        },
    },
]

ROOT_URLCONF = "shop.urls"
STATIC_URL = "static/"
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "home"

USE_TZ = True
TIME_ZONE = "UTC"
