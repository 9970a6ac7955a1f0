"""Lets one Django release read what Rust wrote. Called by test_rust_writes.py; runs on Python 3.6.

Tokens come in on stdin, one JSON object a line; what Django reads goes out the same way, as
{"id": ..., "text": JSON text of the value} or {"id": ..., "error": ...}.
"""

import json
import sys
import time
import traceback
import warnings

from django.conf import settings

warnings.simplefilter("ignore")
algorithm = sys.argv[1]
settings.configure(
    SECRET_KEY="set for each token",
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.sessions"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    LOGGING_CONFIG=None,
    **({"DEFAULT_HASHING_ALGORITHM": "sha1"} if algorithm == "sha1" else {}),
)

import django  # noqa: E402

django.setup()

from django.contrib.sessions.backends import db, signed_cookies  # noqa: E402
from django.core import signing  # noqa: E402


def read(token, kind, salt, now):
    # Whoever signed at that second reads it at that second.
    time.time = lambda: now
    if kind == "cookie":
        return signed_cookies.SessionStore(token).load()
    if kind == "legacy":
        # The class is named after the salt, not the other way round as in life.
        name = salt[len("django.contrib.sessions") :]
        return type(name, (db.SessionStore,), {})().decode(token)
    if kind == "db" and salt == "django.contrib.sessions.SessionStore":
        return db.SessionStore().decode(token)
    return signing.loads(token, salt=salt)


for line in sys.stdin:
    request = json.loads(line)
    settings.SECRET_KEY = request["secret_key"]
    answer = {"id": request["id"]}
    try:
        value = read(request["token"], request["kind"], request["salt"], request["now"])
        answer["text"] = json.dumps(value, separators=(",", ":"))
    except Exception:
        answer["error"] = traceback.format_exc().splitlines()[-1]
    print(json.dumps(answer))
