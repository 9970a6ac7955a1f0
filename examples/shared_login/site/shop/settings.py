"""Settings of the demo shop.

`SESSION_ENGINE` is the one line that a site changes to use django-rust-sessions. The Rust service
learns what it must know of them from `manage.py export_session_settings`.
"""

import os
from pathlib import Path
from urllib.parse import urlsplit

BASE_DIR = Path(__file__).resolve().parent

# demo.py makes a key once, keeps it in .demo/ and hands it to both servers.
SECRET_KEY = os.environ["SECRET_KEY"]

SESSION_ENGINE = "django_rust_sessions.backends." + os.environ["DEMO_ENGINE"]
SESSION_FILE_PATH = os.environ["DEMO_SESSION_FOLDER"]  # of the file engine

# Cookies know hosts but not ports, so one browser shows the same session to both servers. The name
# is not the usual "sessionid" to leave alone whatever else you run on this machine.
SESSION_COOKIE_NAME = "two_doors_session"

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["DEMO_DATABASE"],  #
        "OPTIONS": {"timeout": 20},
    }
}
if "DEMO_POSTGRES" in os.environ:
    postgres = urlsplit(os.environ["DEMO_POSTGRES"])
    DATABASES["default"] = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": postgres.path.strip("/"),
        "USER": postgres.username,
        "PASSWORD": postgres.password,
        "HOST": postgres.hostname,
        "PORT": postgres.port,
    }
if "DEMO_CACHE" in os.environ:
    cache = urlsplit(os.environ["DEMO_CACHE"])
    is_redis = cache.scheme == "redis"
    kind = "redis.RedisCache" if is_redis else "memcached.PyMemcacheCache"
    CACHES = {
        "default": {
            "BACKEND": f"django.core.cache.backends.{kind}",
            "LOCATION": cache.geturl() if is_redis else cache.netloc,
        }
    }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# The demo listens on loopback only.
DEBUG = True
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
DEMO_RUST_PORT = int(os.environ["DEMO_RUST_PORT"])
DEMO_KEPT = os.environ["DEMO_KEPT"]

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "django_rust_sessions",
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
