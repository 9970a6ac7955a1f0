"""Answers questions about the store, and leaves all others to the script.

In: {"make": {...}}, out: the key of a session with that content.
In: {"content": key}, out: what the store holds under it.
"""

import json
import sys

from django.contrib.sessions.backends.db import SessionStore


def content(key):
    store = SessionStore(key)
    return dict(store.items()) if store.exists(key) else None


def make(values):
    store = SessionStore()
    store.update(values)
    store.create()
    return store.session_key


def serve(question, answer):
    """`question` holds the one that is asked when `answer` is called."""
    for line in sys.stdin:
        question.clear()
        question.update(json.loads(line))
        if "make" in question:
            value = make(question["make"])
        elif "content" in question:
            value = content(question["content"])
        else:
            value = answer()
        print(json.dumps({"value": json.dumps(value)}), flush=True)
