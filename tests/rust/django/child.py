"""Django, answering one question a line: what it makes of a token or of JSON text.

In: {"op": "loads" | "resign" | "json", "salt": ..., "token": ..., "text": ...}
Out: {"value": the JSON text of what it read} or {"error": class}, and for "resign" {"token": ...}.

In: {"op": "session", "key": ..., "text": what is stored, "calls": [[method, argument...], ...],
     "now": seconds}
Out: {"value": the JSON text of flags, content and expiry after these calls}.
"""

import datetime
import json
import sys

from django.conf import settings
from django.core import signing

settings.configure(
    SECRET_KEY="the child's key", SECRET_KEY_FALLBACKS=["its former key"], USE_TZ=True
)

from django.contrib.sessions.backends.base import SessionBase  # noqa: E402 (needs settings)

import contrib  # noqa: E402


class Store(SessionBase):
    """A session whose stored content is given."""

    def __init__(self, key, stored):
        super().__init__(key)
        self.stored = stored

    def load(self):
        return self.stored


def moment(seconds):
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def call(session, method, *arguments):
    if method == "set":
        session[arguments[0]] = arguments[1]
    elif method == "contains":
        return arguments[0] in session
    elif method == "pop":
        return session.pop(arguments[0], None)
    elif method == "expire_at":
        session.set_expiry(moment(arguments[0]))
    else:
        return getattr(session, method)(*arguments)


def play(question):
    session = Store(question["key"], json.loads(question["text"]))
    answers = []
    for method, *arguments in question["calls"]:
        answer = call(session, method, *arguments)
        answers.append(answer if method in READERS else None)
    flags = [session.accessed, session.modified, session.is_empty()]
    now = moment(question["now"])
    expiry = [
        session.get_expiry_age(modification=now),
        session.get_expiry_date(modification=now).timestamp(),
        session.get_expire_at_browser_close(),
    ]
    return [answers, flags, list(session.items()), expiry]


READERS = {"get", "contains", "is_empty", "test_cookie_worked"}


def compact(value):
    return json.dumps(value, separators=(",", ":"))


def answer(question):
    if question["op"] == "session":
        return {"value": compact(play(question))}
    if question["op"] in contrib.OPERATIONS:
        return contrib.answer(question)
    salt = question["salt"]
    if question["op"] == "json":
        # Text is handed over as latin-1, which is how Django turns bytes into it.
        return {
            "value": compact(signing.JSONSerializer().loads(question["text"].encode("latin-1")))
        }
    value = signing.loads(question["token"], salt=salt)
    if question["op"] == "resign":
        return {"token": signing.dumps(value, salt=salt, compress=True)}
    return {"value": compact(value)}


for line in sys.stdin:
    try:
        reply = answer(json.loads(line))
    except Exception as error:
        reply = {"error": f"{type(error).__module__}.{type(error).__qualname__}"}
    print(json.dumps(reply), flush=True)
