"""Where Redis and the database are, the environment says."""

import json
import os

SECRET_KEY = "not a secret: tests only, but long enough to be one"
DEBUG = True  # runserver wants it, or a list of hosts
ALLOWED_HOSTS = ["*"]
USE_TZ = True
DATABASES = {"default": json.loads(os.environ["SHOP_DATABASE"])}
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": os.environ["SHOP_REDIS"],
    }
}
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "shop",
]
MIDDLEWARE = [
    "shop.middleware.session_middleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
ROOT_URLCONF = "shop.urls"
SESSION_ENGINE = "django_rust_sessions.backends.cache"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
