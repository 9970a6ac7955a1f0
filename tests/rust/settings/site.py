"""A Django site that exports its settings, makes a session, and says what it reads of it later.

In: {"folder": ..., "settings": {...}}, then the keys of sessions. Out, a line each: {"key": ...} of
the session that Django made, then the JSON of the session under each key.
"""

import json
import sys
from importlib import import_module

config = json.loads(sys.stdin.readline())
if "mysql" in json.dumps(config["settings"].get("DATABASES", {})):
    import pymysql

    pymysql.install_as_MySQLdb()

import django  # noqa: E402
from django.conf import settings  # noqa: E402
from django.core.management import call_command  # noqa: E402

settings.configure(
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django_rust_sessions",
    ],
    USE_TZ=True,
    **config["settings"],
)
django.setup()

from django.db import connections  # noqa: E402

if "DATABASES" in config["settings"]:
    call_command("migrate", verbosity=0)
    call_command("createcachetable", verbosity=0)
for name, options in (("named", {}), ("whole", {"with_secrets": True})):
    for suffix in ("toml", "json"):
        output = f"{config['folder']}/{name}.{suffix}"
        call_command("export_session_settings", output=output, verbosity=0, **options)
        call_command("export_session_settings", output=output, check=True, **options)

Store = import_module(settings.SESSION_ENGINE).SessionStore
session = Store()
session["cart"] = ["tea"]
session["größe"] = 1.5
session.save()
print(json.dumps({"key": session.session_key}), flush=True)
for line in sys.stdin:
    print(json.dumps(Store(json.loads(line)).load()), flush=True)
connections.close_all()
