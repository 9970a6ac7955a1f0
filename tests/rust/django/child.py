"""Django, answering one question a line: what it makes of a token or of JSON text.

In: {"op": "loads" | "resign" | "json", "salt": ..., "token": ..., "text": ...}
Out: {"value": the JSON text of what it read} or {"error": class}, and for "resign" {"token": ...}.
"""

import json
import sys

from django.conf import settings
from django.core import signing

settings.configure(SECRET_KEY="the child's key", SECRET_KEY_FALLBACKS=["its former key"])


def compact(value):
    return json.dumps(value, separators=(",", ":"))


def answer(question):
    salt = question["salt"]
    if question["op"] == "json":
        # Text is handed over as latin-1, which is how Django turns bytes into it.
        return {"value": compact(signing.JSONSerializer().loads(question["text"].encode("latin-1")))}
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
