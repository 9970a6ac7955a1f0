"""Django's session engines, over whatever the first line says: one command a line.

In: {"op": "configure", "engine": "cache", "settings": {...}}, and then {"op": "save" | "change" |
"load" | "delete" | "expiry" | "clear_expired", "key": ..., "items": Python}
Out: {"value": text} or {"error": class}.
"""

import datetime
import decimal
import http
import json
import sys
import uuid
from importlib import import_module

import django
from django.conf import settings
from django.http import QueryDict
from django.utils import timezone


class Basket:
    """A class that Rust knows nothing of."""

    def __init__(self, *things):
        self.things = list(things)

    def __repr__(self):
        return f"Basket({self.things!r})"


NAMES = {
    **{"Basket": Basket, "datetime": datetime, "decimal": decimal, "uuid": uuid},
    **{"http": http, "QueryDict": QueryDict},
}


def configure(question):
    apps = ["django.contrib.contenttypes", "django.contrib.sessions"]
    settings.configure(
        **{
            "SECRET_KEY": "a key for tests",
            "USE_TZ": True,
            "INSTALLED_APPS": apps,
            **question["settings"],
        }
    )
    django.setup()
    if "DATABASES" in question["settings"]:
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
    return "ready"


def store(key=None):
    engine = settings.SESSION_ENGINE
    return import_module(engine).SessionStore(key)


def save(question):
    session = store()
    session.update(evaluate(question))
    for method, *arguments in evaluate_calls(question):
        getattr(session, method)(*arguments)
    session.save()
    return session.session_key


def change(question):
    session = store(question["key"])
    session.update(evaluate(question))
    session.save()
    return session.session_key


def load(question):
    session = store(question["key"])
    items = dict(session.items())
    return "missing" if session.session_key is None else repr(items)


def expiry(question):
    session = store(question["key"])
    now = datetime.datetime.fromisoformat(question["now"])
    if not settings.USE_TZ:
        now = timezone.make_naive(now, timezone.get_default_timezone())
    date = session.get_expiry_date(modification=now)
    if timezone.is_naive(date):
        date = timezone.make_aware(date, timezone.get_default_timezone())
    age = int(session.get_expiry_age(modification=now))
    return f"{age} {int(date.timestamp())} {session.get_expire_at_browser_close()}"


def delete(question):
    store(question["key"]).delete()
    return "deleted"


def clear_expired(question):
    type(store()).clear_expired()
    return "cleared"


def exists(question):
    return repr(bool(store().exists(question["key"])))


def evaluate(question):
    return eval(question.get("items", "{}"), NAMES)


def evaluate_calls(question):
    return eval(question.get("calls", "[]"), NAMES)


OPERATIONS = {
    function.__name__: function
    for function in (configure, save, change, load, expiry, delete, clear_expired, exists)
}

for line in sys.stdin:
    question = json.loads(line)
    try:
        reply = {"value": OPERATIONS[question["op"]](question)}
    except Exception as error:
        reply = {"error": f"{type(error).__module__}.{type(error).__qualname__}"}
    print(json.dumps(reply), flush=True)
