"""One process of test_merge.py: counts in a key of its own, as so many requests would."""

import importlib
import json
import sys

from django.conf import settings

site, key, name, number = json.loads(sys.argv[1]), *sys.argv[2:4], int(sys.argv[4])
database = site.pop("DATABASE", {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"})
if database["ENGINE"].endswith("mysql"):
    import pymysql

    pymysql.install_as_MySQLdb()
settings.configure(
    SECRET_KEY="not a secret: tests only",
    INSTALLED_APPS=["django.contrib.sessions"],
    DATABASES={"default": database},
    USE_TZ=True,
    **site,
)

import django  # noqa: E402

django.setup()
SessionStore = importlib.import_module(settings.SESSION_ENGINE).SessionStore
for _ in range(number):
    session = SessionStore(key)
    session[name] = session.get(name, 0) + 1
    session.save()
