"""One Django release with the settings of one configuration, to be asked by test_matrix.py.

The first line on standard input is the settings as JSON; each further one is a question, answered
with one line of JSON: what the function of that name below returns, or an error.
Only Django's own engines and caches, and django-redis, are at work here.
"""

import base64
import datetime
import hashlib
import io
import json
import os
import pickle
import re
import socket
import sys
import time
import warnings
import zlib
from importlib import import_module

try:
    import pymysql
except ImportError:  # then nobody asks for MariaDB
    pass
else:
    pymysql.install_as_MySQLdb()

from django.conf import settings

warnings.simplefilter("error")
configured = json.loads(sys.stdin.readline())
# Django does this for a settings module, which here is none: `datetime.now()` is of TIME_ZONE.
os.environ["TZ"] = configured.get("TIME_ZONE", "UTC")
time.tzset()
settings.configure(LOGGING_CONFIG=None, **configured)

import django  # noqa: E402

django.setup()

from django.contrib.sessions.backends.base import UpdateError  # noqa: E402
from django.contrib.sessions.models import Session  # noqa: E402
from django.core import management, signing  # noqa: E402
from django.core.cache import caches  # noqa: E402
from django.db import connection  # noqa: E402

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
kinds = import_module("kinds")

SessionStore = import_module(settings.SESSION_ENGINE).SessionStore
ENGINE = settings.SESSION_ENGINE.rpartition(".")[2]
held = {}
RETRIED = re.compile("locked|deadlock|Record has changed", re.IGNORECASE)


def prepare():
    """Makes the tables, unless another Django made them."""
    tables = connection.introspection.table_names()
    if Session._meta.db_table not in tables:
        with connection.schema_editor() as editor:
            editor.create_model(Session)
    for cache in settings.CACHES.values():
        if cache["BACKEND"].endswith("DatabaseCache"):
            management.call_command("createcachetable", verbosity=0)
    return {"django": django.get_version()}


def export(path, **options):
    """What a service opens: all that there is to know of these settings, secrets too."""
    # In a process of its own it would be `python manage.py export_session_settings`.
    written = io.StringIO()
    management.call_command(
        *("export_session_settings", "--with-secrets", "--output", path), **options, stdout=written
    )
    return {"said": written.getvalue()}


def loaded(key):
    """As a request has it. Its values are loaded, so that a save writes those."""
    store = SessionStore(key)
    store._get_session()
    return store


def answer_of(store):
    return {"key": store.session_key, "values": kinds.describe(store._session)}


# --------------------------------------------------------------------------- writing and reading


def write(kind=None, text=None, key=None):
    """A new session with all values of a kind, or with those of a JSON text."""
    store = SessionStore(key)
    store.update(kinds.session(kind) if kind else json.loads(text))
    store["counter"] = 1
    store.save()
    return {"key": store.session_key}


def write_many(count, users=1):
    """Sessions of some users and of nobody, some of which end at a moment of their own."""
    keys = []
    for number in range(count):
        store = SessionStore()
        store["number"] = number
        store["counter"] = 1
        if owner := number % (users + 1):
            store["_auth_user_id"] = str(owner)
        if number % 5 == 0:
            store.set_expiry(3600 + number)
        store.save()
        keys.append(store.session_key)
    return {"keys": keys}


def dump(keys):
    """Each session with its end; none for one that is not there."""
    found = {}
    for key in keys:
        store = loaded(key)
        if store.session_key is not None:
            ends = dict(stored_expiry(key))
            found[key] = [store._session, next(iter(ends.values()))[0] if ends else None]
    return {"sessions": found}


def read(key):
    return answer_of(loaded(key))


def change(key, name, value):
    store = loaded(key)
    store[name] = value
    store.save()
    return {"key": store.session_key}


def delete(key):
    SessionStore(key).delete()
    return {}


def exists(key):
    return {"exists": bool(SessionStore().exists(key))}


def hold(key):
    """As a request that began before the session is deleted."""
    held[key] = loaded(key)
    return {"values": len(held[key].keys())}


def save_held(key):
    store = held.pop(key)
    store["late"] = True
    try:
        store.save()
    except UpdateError:
        return {"saved": False}
    return {"saved": True}


def raw_pickles():
    """Pickles of older Djangos and Pythons, stored to the letter."""
    path = os.path.join(os.path.dirname(__file__), "../vectors/pickled/sessions.json")
    with open(path) as file:
        vectors = json.load(file)
    keys = []
    for vector in vectors:
        payload = payload_of(vector)
        try:
            pickle.loads(payload)
        except (ImportError, UnicodeDecodeError, AttributeError):
            # pytz, Python 2's texts and older SafeStrings: this Django fails on them itself.
            continue
        store = SessionStore()
        store.create()
        key = store.cache_key
        cache = caches[settings.SESSION_CACHE_ALIAS]
        made = cache.make_key(key)
        cache._cache.get_client(made, write=True).set(made, payload, ex=3600)
        keys.append([vector["name"], store.session_key])
    return {"keys": keys}


def payload_of(vector):
    token = vector["token"]
    if ":" not in token:  # as Django wrote it before 3.1
        return base64.b64decode(token).split(b":", 1)[1]
    body = token.rsplit(":", 2)[0]
    payload = signing.b64_decode(body.removeprefix(".").encode())
    return zlib.decompress(payload) if body.startswith(".") else payload


# -------------------------------------------------------------------------------------- expiry


def set_expiry(how, key=None):
    """A session that ends so: {"seconds": n}, {"at": seconds since 1970}, {"delta": n} or {}."""
    store = loaded(key) if key else SessionStore()
    store["counter"] = 1
    before = time.time()
    if "seconds" in how:
        store.set_expiry(how["seconds"])
    elif "at" in how:
        zone = datetime.UTC if settings.USE_TZ else None
        store.set_expiry(datetime.datetime.fromtimestamp(how["at"], zone))
    elif "delta" in how:
        store.set_expiry(datetime.timedelta(seconds=how["delta"]))
    else:
        store.set_expiry(None)
    store.save()
    return {"key": store.session_key, "before": before, "after": time.time()}


def expiry(key, now):
    """What the session says at that moment, and when the store will drop it."""
    store = loaded(key)
    zone = datetime.UTC if settings.USE_TZ else None
    moment = datetime.datetime.fromtimestamp(now, zone)
    return {
        "there": store.session_key is not None and "counter" in store,
        "age": store.get_expiry_age(modification=moment),
        "date": store.get_expiry_date(modification=moment).timestamp(),
        "at_browser_close": store.get_expire_at_browser_close(),
        "stored": {name: when for name, when in stored_expiry(key) if when is not None},
    }


def stored_expiry(key):
    """By store: no earlier than, and no later than. How long a question took is not known."""
    if ENGINE in ("db", "cached_db"):
        row = Session.objects.filter(pk=key).first()
        yield "row", row and [row.expire_date.timestamp()] * 2
    if ENGINE in ("cache", "cached_db"):
        store = SessionStore(key)
        cache = caches[settings.SESSION_CACHE_ALIAS]
        made = cache.make_key(store.cache_key)
        name = settings.CACHES[settings.SESSION_CACHE_ALIAS]["BACKEND"].rpartition(".")[2]
        yield name, globals()[f"ttl_{name}"](cache, made)


def ttl_RedisCache(cache, made):
    try:
        client = cache._cache.get_client(made, write=True)
    except AttributeError:  # django-redis
        client = cache.client.get_client(write=True)
    asked = time.time()
    left = client.pttl(str(made)) / 1000
    return [asked + left, time.time() + left] if left >= 0 else None


def ttl_PyMemcacheCache(cache, made):
    """By the meta command, of whichever server has it."""
    for server in cache._servers:
        host, port = server.rsplit(":", 1)
        with socket.create_connection((host, int(port))) as link:
            asked = time.time()
            link.sendall(f"mg {made} t\r\n".encode())
            answer = link.makefile("rb").readline().split()
        if answer[0] == b"HD":
            return [when + int(answer[1][1:]) for when in (asked, time.time())]
    return None


def ttl_DatabaseCache(cache, made):
    table = connection.ops.quote_name(cache._table)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT expires FROM {table} WHERE cache_key = %s", [made])
        row = cursor.fetchone()
    if row is None:
        return None
    expires = row[0]
    if isinstance(expires, str):
        expires = datetime.datetime.fromisoformat(expires)
    if expires.tzinfo is None and settings.USE_TZ:
        expires = expires.replace(tzinfo=datetime.UTC)
    return [expires.timestamp()] * 2


def ttl_FileBasedCache(cache, made):
    name = hashlib.md5(made.encode(), usedforsecurity=False).hexdigest() + cache.cache_suffix
    try:
        with open(os.path.join(cache._dir, name), "rb") as file:
            return [pickle.load(file)] * 2
    except FileNotFoundError:
        return None


# -------------------------------------------------------------------------------- both at once


def whole(who, number):
    """A value that shows whether it is all of one piece; the Rust driver has the same."""
    text = f"{who} {number} " * 150
    return {"text": text, "sum": hashlib.sha256(text.encode()).hexdigest()}


def check_whole(value):
    if value["sum"] != hashlib.sha256(value["text"].encode()).hexdigest():
        raise AssertionError(f"torn: {value}")


def retrying(action):
    """A database may end one of two transactions, and says so; whoever asks again is served."""
    for _ in range(20):
        try:
            return action()
        except Exception as error:
            if not RETRIED.search(str(error)):
                raise
    return action()


def loop(key, rounds):
    """Reads what is there, checks it, and replaces it."""
    for number in range(rounds):
        store = retrying(lambda: loaded(key))
        check_whole(store["value"])
        store["value"] = whole("django", number)
        retrying(store.save)
    return {"key": store.session_key}


def count(key, name, rounds):
    """Increments a key of its own, while others increment theirs."""
    for _ in range(rounds):
        store = retrying(lambda: loaded(key))
        store[name] = store.get(name, 0) + 1
        retrying(store.save)
    return {}


def begin(key):
    store = loaded(key) if key else SessionStore()
    store["value"] = whole("begin", 0)
    store.save()
    return {"key": store.session_key}


def save_until_deleted(key, within):
    """Saves again and again the session that it holds, until told that it is gone."""
    store = held.pop(key)
    deadline = time.monotonic() + within
    saves = 0
    while time.monotonic() < deadline:
        store["value"] = whole("django", saves)
        try:
            retrying(store.save)
        except UpdateError:
            return {"deleted": True, "saves": saves}
        saves += 1
        time.sleep(0.001)  # SQLite knows no turns: the other one would not get the lock
    return {"deleted": False, "saves": saves}


def main():
    # Nothing else may write where the answers go.
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        question = json.loads(line)
        try:
            answer = globals()[question.pop("op")](**question)
        except Exception as error:
            import traceback

            traceback.print_exc()
            answer = {"error": type(error).__name__, "text": str(error)[:2000]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
