"""The tests with an option on that is off by default: RUST_SESSIONS in the environment.

    RUST_SESSIONS='{"MERGE": true}' pytest tests/python

A test that asserts what an option changes by its documented meaning says so:
`@pytest.mark.not_with("MERGE", "a save is a script")`. All others hold with each option too.
"""

import json
import math
import os
import time
import uuid

ON = json.loads(os.environ.get("RUST_SESSIONS", "{}"))
# What a process that keeps sessions asks Redis for besides; docs/local-cache.md says so.
LISTENING = {"auth", "select", "hello", "client|tracking", "ping", "pttl"}
LISTENING = LISTENING if ON.get("LOCAL_CACHE") else set()


def is_on(option):
    """Of "HASH_KEYS", whether it has any value; of "HASH_KEYS=sha256", whether it has this one."""
    name, _, value = option.partition("=")
    return str(ON.get(name)) == value if value else bool(ON.get(name))


def hear(alias="default"):
    """Waits until the process knows of all writes until now, where LOCAL_CACHE keeps sessions.

    Redis says in order what has changed. So a last change is made, and waited for.
    """
    if not ON.get("LOCAL_CACHE"):
        return
    from django_rust_sessions.caches import native
    from django_rust_sessions.caches.local import SESSIONS, Entry, _size
    from django_rust_sessions.caches.resp import pack

    cache = native(alias)
    if getattr(cache, "follower", None) is None:
        return  # it keeps nothing
    name, entries = cache._key(f"{SESSIONS}heard-{uuid.uuid4().hex}"), cache.entries
    with entries.lock:
        entries.kept[name] = Entry(b"", math.inf)
        entries.size += _size(name, b"")
    begin = asked = time.monotonic()
    while name in entries.kept:
        now = time.monotonic()
        assert now < begin + 10, "Redis does not say what has changed"
        if now >= asked:  # and again, if it was not listened to yet
            cache._ask(cache.write, pack(b"SET", name, b""), pack(b"DEL", name))
            asked = now + 0.1
        time.sleep(0.0002)
