"""A site with devices, for cases.py. tests/python/test_devices.py starts it, on real servers, and
says by the environment which database and cache it has."""

import json
import os
import tempfile

import pytest
from django.conf import settings

ENGINES = [
    f"{package}.backends.{name}"
    for package in ("django.contrib.sessions", "django_rust_sessions")
    for name in ("db", "cache", "cached_db", "file")
]


def pytest_configure():
    database = json.loads(os.environ["DEVICES_DATABASE"])
    if database["ENGINE"].endswith("mysql"):
        import pymysql

        pymysql.install_as_MySQLdb()
    settings.configure(
        SECRET_KEY="not a secret: tests only",
        ALLOWED_HOSTS=["*"],
        DATABASES={"default": database},
        CACHES={"default": json.loads(os.environ["DEVICES_CACHE"])},
        INSTALLED_APPS=[
            "django.contrib.admin",
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
            "django.contrib.messages",
            "django.contrib.staticfiles",
            "django_rust_sessions.devices",
        ],
        MIDDLEWARE=[
            "django_rust_sessions.devices.middleware.DevicesMiddleware",
            "django_rust_sessions.middleware.SessionMiddleware",
            "django.middleware.common.CommonMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request",
                        "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                    ]
                },
            }
        ],
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        ROOT_URLCONF="site_urls",
        LOGIN_URL="/admin/login/",
        STATIC_URL="/static/",
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        SESSION_FILE_PATH=tempfile.mkdtemp(dir=os.environ["DEVICES_FOLDER"]),
        USE_TZ=True,
    )


@pytest.fixture(params=ENGINES)
def engine(request, settings):
    settings.SESSION_ENGINE = request.param
    return request.param
