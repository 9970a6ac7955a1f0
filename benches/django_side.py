"""Django's half of `cargo bench --bench codec`: does what it is told on standard input.

payload NAME            prints the session as JSON
encode|decode NAME N    does it N times, prints the nanoseconds that it took
"""

import json
import sys
from time import perf_counter_ns

import django
from django.conf import settings
from django.contrib.sessions.backends.db import SessionStore
from payloads import PAYLOADS

settings.configure(SECRET_KEY="measured with a key of the usual length, of fifty.")


def encode(session, number):
    """A request that changes one value of a session and saves it."""
    start = perf_counter_ns()
    for visit in range(number):
        session["visits"] = visit
        store.encode(session)
    return perf_counter_ns() - start


def decode(session, number):
    """A request that asks who is logged in."""
    signed = store.encode(session)
    start = perf_counter_ns()
    for _ in range(number):
        store.decode(signed)["_auth_user_id"]
    return perf_counter_ns() - start


store = SessionStore()
print(f"Django {django.__version__} on Python {sys.version.split()[0]}", flush=True)
for line in sys.stdin:
    match line.split():
        case ["payload", name]:
            print(json.dumps(PAYLOADS[name], separators=(",", ":")), flush=True)
        case [operation, name, number]:
            run = {"encode": encode, "decode": decode}[operation]
            print(run(dict(PAYLOADS[name]), int(number)), flush=True)
