"""Django's db engine on an SQLite file with Django's default options, while others write it too.

In: {"path": file}, then {"rounds": number}. Out: "ready", then {"key": session} or {"error": what}.
"""

import json
import sys

import django
from django.conf import settings


def work(rounds):
    from django.contrib.sessions.backends.db import SessionStore

    session = SessionStore()
    for number in range(rounds + 1):
        session["round"] = number
        session.save()
        assert SessionStore(session.session_key)["round"] == number
    return session.session_key


def main():
    settings.configure(
        SECRET_KEY="a key for tests",
        USE_TZ=True,
        INSTALLED_APPS=["django.contrib.sessions"],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": json.loads(sys.stdin.readline())["path"],
            }
        },
    )
    django.setup()
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        try:
            answer = {"key": work(json.loads(line)["rounds"])}
        except Exception as error:
            answer = {"error": repr(error)}
        print(json.dumps(answer), flush=True)


main()
