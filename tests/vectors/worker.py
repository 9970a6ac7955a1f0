"""Makes the vectors of the Django release that it runs under; generate.py calls it.

Runs on Python 3.6 and later, with nothing but Django.

usage: worker.py OUTPUT ALGORITHM MADE_BY
"""

# ruff: noqa: E402  (Django is configured before the rest of it is imported)
import base64
import datetime
import hashlib
import json
import logging
import os
import platform
import re
import sqlite3
import string
import sys
import tempfile
import time
import warnings
import zlib

OUTPUT, ALGORITHM, MADE_BY = sys.argv[1:]

SECRET_KEY = "test-vectors-secret-key-that-guards-nothing"
OLD_KEY = "test-vectors-old-secret-key-rotated-away"
OLDEST_KEY = "test-vectors-oldest-secret-key"
WRONG_KEY = "test-vectors-wrong-secret-key"
NON_ASCII_KEY = "clé-密钥-\U0001f511"
SIGNING_SALT = "django.core.signing"
COOKIE_SALT = "django.contrib.sessions.backends.signed_cookies"
COOKIE_AGE = 1209600
PASSWORD = "pbkdf2_sha256$36000$c2FsdHNhbHQ$yZ2V8h1w2q0xkWzHqRjvE5Tn0kC1bFtq6m0Yb8mS9dA="
START = 1700000000
MIB = 1024 * 1024
OUR_CAP = 16 * MIB

# --- Django, with a database file of its own ---------------------------------------------------

folder = tempfile.TemporaryDirectory()
database = os.path.join(folder.name, "sessions.sqlite3")

import django
from broken import JSON_BODIES, LONG_JSON_BODIES, bomb, plain, signed_bodies, squeezed
from django.conf import settings

VERSION = django.VERSION[:2]
extra = {"DEFAULT_HASHING_ALGORITHM": "sha1"} if VERSION == (3, 1) and ALGORITHM == "sha1" else {}
warnings.simplefilter("ignore")
settings.configure(
    SECRET_KEY=SECRET_KEY,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": database}},
    INSTALLED_APPS=[
        "django.contrib.contenttypes",
        "django.contrib.auth",
        "django.contrib.sessions",
        "django.contrib.messages",
    ],
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    USE_TZ=True,
    TIME_ZONE="UTC",
    LOGGING_CONFIG=None,
    CSRF_USE_SESSIONS=True,
    **extra,
)
django.setup()

import django.middleware.csrf as csrf
from django.contrib.auth import login
from django.contrib.auth.models import User
from django.contrib.messages import constants as levels
from django.contrib.messages.storage.session import SessionStorage
from django.contrib.sessions.backends import db, signed_cookies
from django.contrib.sessions.exceptions import SuspiciousSession
from django.contrib.sessions.serializers import JSONSerializer
from django.core import signing
from django.core.management import call_command
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.crypto import constant_time_compare
from django.utils.safestring import mark_safe

HAS_FALLBACKS = VERSION >= (4, 1)
# The db engine of these releases writes base64 of "hash:payload".
WRITES_LEGACY = VERSION < (3, 1) or bool(extra)


class TenantSessionStore(db.SessionStore):
    pass


class Tenant:
    class SessionStore(db.SessionStore):
        pass


# --- A clock that stands where we put it -------------------------------------------------------


class Clock:
    seconds, microseconds = START, 0

    @classmethod
    def set(cls, seconds, microseconds=0):
        cls.seconds, cls.microseconds = seconds, microseconds

    @classmethod
    def time(cls):
        return cls.seconds + cls.microseconds / 1e6

    @classmethod
    def now(cls):
        # Before 5.0 Django has a utc of its own, and its SQLite engine wants that one.
        utc = getattr(timezone, "utc", datetime.timezone.utc)
        moment = datetime.datetime(1970, 1, 1, tzinfo=utc)
        return moment + datetime.timedelta(seconds=cls.seconds, microseconds=cls.microseconds)


time.time = Clock.time
timezone.now = Clock.now


def noise(length, seed):
    """Bytes that no compressor can shorten, the same on every Python."""
    seeds = ("%s-%d" % (seed, i) for i in range(length // 32 + 1))
    return b"".join(hashlib.sha256(seed.encode()).digest() for seed in seeds)[:length]


def same_random_string(length=12, allowed_chars=string.ascii_letters + string.digits):
    numbers = noise(length, "random string")
    return "".join(allowed_chars[number % len(allowed_chars)] for number in numbers)


csrf.get_random_string = same_random_string


# --- Small tools -------------------------------------------------------------------------------


def as_text(value):
    """The JSON text that tells apart 1, 1.0 and True, and shows NaN and lone surrogates."""
    return json.dumps(value, separators=(",", ":"))


def payload_text(value):
    return JSONSerializer().dumps(value).decode("ascii")


RUN = re.compile(r"(.{1,90}?)\1{40}", re.S)


def shorten(text):
    """Long runs become {"repeat": [unit, count]}: a megabyte of one letter stays small."""
    if len(text) < 3000:
        return text
    parts, start = [], 0
    while start < len(text):
        match = RUN.search(text, start)
        if match is None:
            parts.append(text[start:])
            break
        unit, end = match.group(1), match.end()
        for step in (unit * 4096, unit):
            while text.startswith(step, end):
                end += len(step)
        if match.start() > start:
            parts.append(text[start : match.start()])
        parts.append({"repeat": [unit, (end - match.start()) // len(unit)]})
        start = end
    assert text == "".join(
        p if isinstance(p, str) else p["repeat"][0] * p["repeat"][1] for p in parts
    )
    return text if parts == [text] else parts


def error_name(error):
    module, name = type(error).__module__, type(error).__name__
    return name if module == "builtins" or module.startswith("django.") else module + "." + name


class Records(logging.Handler):
    def __init__(self):
        logging.Handler.__init__(self)
        self.records = []

    def emit(self, record):
        self.records.append([record.name, record.levelname, record.getMessage()])

    def take(self):
        taken, self.records = self.records, []
        return taken


records = Records()
logging.getLogger().addHandler(records)


def outcome(function):
    """What a call returned or raised, and what it logged."""
    records.take()
    try:
        result = {"value": shorten(as_text(function()))}
    except Exception as error:
        result = {"error": error_name(error), "error_module": type(error).__module__}
    result["logs"] = records.take()
    return result


class Keys:
    """SECRET_KEY and its fallbacks for the time of a with block."""

    def __init__(self, secret_key=SECRET_KEY, fallback_keys=()):
        self.keys = secret_key, list(fallback_keys)

    def __enter__(self):
        self.before = settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS
        settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = self.keys

    def __exit__(self, *exc):
        settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = self.before


settings.SECRET_KEY_FALLBACKS = []


def sign(value, at, salt, key=SECRET_KEY, **kwargs):
    """Django's signature over a value that Django's own dumps would not have made."""
    Clock.set(at)
    return signing.TimestampSigner(key=key, salt=salt, **kwargs).sign(value)


def sign_without_time(value, salt, key=SECRET_KEY):
    return signing.Signer(key=key, salt=salt).sign(value)


def legacy_token(serialized, class_name="SessionStore", key=SECRET_KEY):
    digest = legacy_hash(serialized, class_name, key)
    return base64.b64encode(digest.encode() + b":" + serialized).decode()


def legacy_hash(serialized, class_name="SessionStore", key=SECRET_KEY):
    store = type(str(class_name), (db.SessionStore,), {})()
    with Keys(key):
        return store._hash(serialized)


# --- Payloads ----------------------------------------------------------------------------------


def request_with(store):
    request = HttpRequest()
    request.session = store
    request.META.update(SERVER_NAME="testserver", SERVER_PORT="80")
    return request


def login_payload():
    store = db.SessionStore()
    user = User.objects.get(pk=7)
    login(request_with(store), user, backend="django.contrib.auth.backends.ModelBackend")
    return dict(store._session)


def messages_payload():
    store = db.SessionStore()
    storage = SessionStorage(request_with(store))
    storage.add(levels.INFO, "Saved.")
    storage.add(
        levels.ERROR, mark_safe("<b>Größe</b> must be ≤ 10 \U0001f600"), extra_tags="form size"
    )
    storage.add(levels.WARNING, 'A "quoted" \\ message\n')
    storage.update(HttpResponse())
    return dict(store._session)


def csrf_payload():
    store = db.SessionStore()
    request = request_with(store)
    csrf.get_token(request)
    middleware = csrf.CsrfViewMiddleware(lambda request: HttpResponse())
    # Its name since 4.1, and the one before.
    name = "_set_csrf_cookie" if VERSION >= (4, 1) else "_set_token"
    getattr(middleware, name)(request, HttpResponse())
    assert list(store._session) == ["_csrftoken"]
    return dict(store._session)


def session_after(action):
    store = db.SessionStore()
    action(store)
    return dict(store._session)


CART = {
    "cart": {
        "items": [
            {"sku": "A-1", "quantity": 2, "price": "9.90"},
            {"sku": "B 2", "quantity": 1, "price": "0.50"},
        ],
        "currency": "EUR",
        "total": 20.3,
    }
}


def deep(depth):
    value = {"end": True}
    for _ in range(depth):
        value = {"a": [value]}
    return value


def payloads():
    """Name and maker of every payload. A maker runs when the clock stands at its entry's time."""
    utc = datetime.timezone.utc
    nan, inf = float("nan"), float("inf")
    yield "login", login_payload
    yield "cart", lambda: dict(CART)
    yield "messages", messages_payload
    yield "login_cart_messages", lambda: dict(login_payload(), **dict(CART, **messages_payload()))
    yield (
        "nested",
        lambda: {
            "a": {"b": {"c": [{"d": [[], {}, [[]], {"e": None}]}, 1, "x"]}},
            "z": [[1, [2, [3]]]],
        },
    )
    yield "nested_deep", lambda: deep(150)
    yield "empty", dict
    yield (
        "non_ascii",
        lambda: {
            "name": "Ærøskøbing Ελλάδα 日本語 עברית",
            "ключ": "ÿ\x80\xa0\xad\u2028\u2029\ufeff\uffff",
        },
    )
    yield (
        "astral",
        lambda: {
            "emoji": "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467",
            "\U00010000": "\U0010ffff",
        },
    )
    yield (
        "lone_surrogates",
        lambda: {"high": "\ud83d", "low": "a\udc00b", "swapped": "\udc00\ud83d", "\ud800": "key"},
    )
    yield (
        "control_characters",
        lambda: {"ascii": "".join(map(chr, range(128))), "escapes": '"\\/\b\f\n\r\t\x00\x7f'},
    )
    yield "nan", lambda: {"nan": nan, "list": [nan, 1]}
    yield "infinities", lambda: {"plus": inf, "minus": -inf, "list": [inf, -inf]}
    yield "int_2_70", lambda: {"n": 2**70, "minus": -(2**70)}
    yield (
        "ints",
        lambda: {
            "small": [0, 1, -1, 9, 10, 255, 256],
            "32": [2**31 - 1, 2**31, -(2**31), 2**32],
            "53": [2**53 - 1, 2**53, 2**53 + 1],
            "64": [2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64 - 1, 2**64],
            "128": [2**128, -(2**128)],
            "long": 10**400 + 7,
        },
    )
    yield "float_1_0", lambda: {"f": 1.0, "i": 1, "b": True, "list": [1.0, 1, True, 0.0, 0, False]}
    yield "float_1e16", lambda: {"f": 1e16, "below": 9999999999999998.0, "minus": -1e16}
    yield "negative_zero", lambda: {"minus": -0.0, "plus": 0.0, "int": 0}
    yield (
        "floats",
        lambda: {
            "small": [
                5e-324,
                2.2250738585072014e-308,
                2.225073858507201e-308,
                1e-7,
                1e-5,
                0.0001,
                0.1,
            ],
            "large": [
                1e15,
                1e17,
                1e21,
                1e22,
                1e23,
                1.7976931348623157e308,
                -1.7976931348623157e308,
            ],
            "exact": [0.1 + 0.2, 1 / 3, 123456789.12345679, 4.35, 2.5, 100.0, 9007199254740993.0],
        },
    )
    yield "bool_none", lambda: {"t": True, "f": False, "n": None}
    yield "keys_int", lambda: {1: "one", -5: "minus", 2**70: "big"}
    yield "keys_float", lambda: {1.5: "a", 1e16: "b", -0.0: "c", nan: "d", inf: "e", -inf: "f"}
    yield "keys_bool_none", lambda: {True: "t", False: "f", None: "n", "in": {True: {None: 1}}}
    yield (
        "keys_that_collide",
        lambda: {1: "int", "1": "text", "x": 1, True + 1: "two", "2": {"a": 1}},
    )
    yield (
        "keys_special",
        lambda: {"": "empty", " ": "space", "a b": 1, 'a"b': 2, "a\\b": 3, "k" * 300: 4, "\n": 5},
    )
    yield "order", lambda: {"z": 1, "a": 2, "m": {"y": 1, "b": 2}, "B": 3, "10": 4, "9": 5}
    yield "tuple", lambda: {"pair": (1, 2), "empty": ()}
    yield (
        "text_like_json",
        lambda: {"a": '{"b":1}', "b": "NaN", "c": "null", "d": "[1,2", "e": "\\u0041", "f": ":"},
    )
    yield (
        "text_like_token",
        lambda: {"next": "/accounts/?next=/a:b.c-d_e", "t": "eyJhIjoxfQ:1tA3bC:x-_y"},
    )
    yield (
        "expiry_seconds",
        lambda: session_after(lambda s: (s.set_expiry(3600), s.__setitem__("a", 1))),
    )
    yield "expiry_one_second", lambda: session_after(lambda s: s.set_expiry(1))
    yield "expiry_zero", lambda: session_after(lambda s: s.set_expiry(0))
    yield "expiry_negative", lambda: session_after(lambda s: s.set_expiry(-3600))
    yield "expiry_ten_years", lambda: session_after(lambda s: s.set_expiry(10 * 365 * 86400))
    yield (
        "expiry_none",
        lambda: session_after(
            lambda s: (s.set_expiry(300), s.__setitem__("a", 1), s.set_expiry(None))
        ),
    )
    yield (
        "expiry_timedelta",
        lambda: session_after(lambda s: s.set_expiry(datetime.timedelta(hours=2, microseconds=7))),
    )
    yield (
        "expiry_aware",
        lambda: session_after(
            lambda s: s.set_expiry(datetime.datetime(2031, 5, 6, 7, 8, 9, tzinfo=utc))
        ),
    )
    yield (
        "expiry_aware_offset",
        lambda: session_after(
            lambda s: s.set_expiry(
                datetime.datetime(
                    2031,
                    5,
                    6,
                    7,
                    8,
                    9,
                    123456,
                    tzinfo=datetime.timezone(datetime.timedelta(hours=5, minutes=30)),
                )
            )
        ),
    )
    yield (
        "expiry_naive",
        lambda: session_after(lambda s: s.set_expiry(datetime.datetime(2031, 5, 6, 7, 8, 9))),
    )
    yield "csrf", csrf_payload
    yield "test_cookie", lambda: session_after(lambda s: s.set_test_cookie())
    for size in (1, 2, 3, 10, 20, 30, 50, 100, 1000, 10000, 100000):
        yield "size_%d" % size, lambda size=size: {"v": "a" * size}
    yield "size_1mb", lambda: {"v": "a" * MIB}
    yield "size_1mb_of_words", lambda: {"v": "session data \u00e9 " * (MIB // 19)}
    yield "size_noise_1000", lambda: {"v": base64.b64encode(noise(750, "1000")).decode()}
    yield "size_noise_4000", lambda: {"v": base64.b64encode(noise(3000, "4000")).decode()}
    yield "many_keys", lambda: {"key_%03d" % i: i for i in range(100)}


# --- Valid vectors -----------------------------------------------------------------------------

valid, invalid, left_out = [], [], {}


def moment_of(index):
    """Each payload has its own second; every third has microseconds too."""
    return START + index * 100003, 123456 if index % 3 == 1 else 0


def add_valid(name, group, kind, salt, token, payload, at, **fields):
    value = as_text(json.loads(payload))
    entry = {"name": name, "group": group, "kind": kind, "salt": salt, "time": at}
    entry["compressed"] = kind != "legacy" and token.startswith(".")
    entry.update(fields)
    entry["token"] = shorten(token)
    entry["payload"] = shorten(payload)
    if value != payload:
        entry["reads_as"] = shorten(value)
    valid.append(entry)
    # A vector that this release does not read back is a mistake of this file.
    Clock.set(entry.get("now", at))
    with Keys(entry.get("secret_key", SECRET_KEY), entry.get("fallback_keys", [])):
        if kind == "legacy":
            read = STORES[fields.get("class_name", "SessionStore")]().decode(token)
        else:
            read = signing.loads(token, salt=salt, max_age=entry.get("max_age"))
    assert as_text(read) == value, name


STORES = {
    "SessionStore": db.SessionStore,
    "TenantSessionStore": TenantSessionStore,
    "Tenant.SessionStore": Tenant.SessionStore,
}


def salt_of(store):
    """Salt of a db engine: its name with the dot since 3.1, without it in the older format."""
    if WRITES_LEGACY:
        return "django.contrib.sessions" + store.__class__.__name__
    return store.key_salt


def db_kind():
    return "legacy" if WRITES_LEGACY else "db"


def file_row(key):
    connection = sqlite3.connect(database)
    row = connection.execute(
        "SELECT session_key, session_data, expire_date FROM django_session WHERE session_key = ?",
        [key],
    ).fetchone()
    connection.close()
    return dict(zip(("session_key", "session_data", "expire_date"), row))


def session_key(index):
    alphabet = string.ascii_lowercase + string.digits
    return "".join(alphabet[byte % 36] for byte in noise(32, "session key %d" % index))


def add_db(name, group, data, payload, index, class_name="SessionStore", **fields):
    """One row saved by the db engine, read from the SQLite file itself."""
    at, microseconds = moment_of(index)
    Clock.set(at, microseconds)
    store = STORES[class_name](session_key(index))
    store._session_cache = dict(data)
    store.save(must_create=True)
    row = file_row(session_key(index))
    assert row["session_data"] == store.encode(data)
    token = row.pop("session_data")
    if class_name != "SessionStore":
        fields["class_name"] = class_name
    fields["row"] = row
    add_valid(name, group, db_kind(), salt_of(store), token, payload, at, **fields)


def add_cookie(name, group, data, payload, at, **fields):
    Clock.set(at)
    store = signed_cookies.SessionStore()
    store._session_cache = dict(data)
    store.save()
    fields.setdefault("now", at + 3600)
    add_valid(
        name,
        group,
        "cookie",
        COOKIE_SALT,
        store.session_key,
        payload,
        at,
        max_age=COOKIE_AGE,
        **fields,
    )


def make_valid():
    index = 0
    for index, (group, make) in enumerate(payloads()):
        at, microseconds = moment_of(index)
        Clock.set(at, microseconds)
        data = make()
        try:
            payload = payload_text(data)
        except TypeError as error:
            left_out[group] = "%s.%s: TypeError: %s" % (
                JSONSerializer.__module__,
                JSONSerializer.__name__,
                error,
            )
            continue
        for compress in (False, True):
            Clock.set(at)
            name = group + ("/signing-compressed" if compress else "/signing")
            add_valid(
                name,
                group,
                "signing",
                SIGNING_SALT,
                signing.dumps(data, compress=compress),
                payload,
                at,
            )
        add_db(group + "/" + db_kind(), group, data, payload, index)
        add_cookie(group + "/cookie", group, data, payload, at)

    # Other classes, keys and moments, over the cart.
    payload = payload_text(CART)
    for class_name in ("TenantSessionStore", "Tenant.SessionStore"):
        index += 1
        add_db("custom_class/" + class_name, "custom_class", CART, payload, index, class_name)
    at = START
    for name, salt in (
        ("letter", "a"),
        ("spaces", "salt with spaces"),
        ("non_ascii", "sälz:\U0001f9c2"),
    ):
        Clock.set(at)
        token = signing.dumps(CART, salt=salt)
        add_valid("salt/" + name, "salt", "signing", salt, token, payload, at)
    # No salt means the name of the signer's class.
    Clock.set(at)
    token = signing.dumps(CART, salt="")
    salt = "django.core.signing.TimestampSigner"
    add_valid("salt/default", "salt", "signing", salt, token, payload, at)
    for name, key in (("non_ascii", NON_ASCII_KEY), ("long", "k" * 500), ("one_letter", "k")):
        Clock.set(at)
        index += 1
        with Keys(key):
            token = signing.dumps(CART, salt=SIGNING_SALT)
            add_db(
                "key_%s/%s" % (name, db_kind()), "other_key", CART, payload, index, secret_key=key
            )
            add_cookie("key_%s/cookie" % name, "other_key", CART, payload, at, secret_key=key)
        add_valid(
            "key_%s/signing" % name,
            "other_key",
            "signing",
            SIGNING_SALT,
            token,
            payload,
            at,
            secret_key=key,
        )
    for seconds in (0, 1, 61, 62, 3843, 3844, 2**31 - 1, 2**31, 2**32, 2**33):
        Clock.set(seconds)
        token = signing.dumps(CART)
        add_valid("time/%d" % seconds, "time", "signing", SIGNING_SALT, token, payload, seconds)
    for name, later in (
        ("on_the_edge", COOKIE_AGE),
        ("just_made", 0),
        ("from_the_future", -86400),
        ("from_far_future", -START),
    ):
        add_cookie("age_%s/cookie" % name, "age", CART, payload, at, now=at + later)
    for max_age, later in ((0, 0), (10, 10), (10, 9.5), (10.5, 10.5)):
        Clock.set(at)
        token = signing.dumps(CART)
        name = "age_%s_after_%s/signing" % (max_age, later)
        add_valid(
            name,
            "age",
            "signing",
            SIGNING_SALT,
            token,
            payload,
            at,
            max_age=max_age,
            now=at + later,
        )
    if HAS_FALLBACKS:
        for name, fallbacks in (
            ("only", [OLD_KEY]),
            ("last_of_three", [WRONG_KEY, OLDEST_KEY, OLD_KEY]),
        ):
            index += 1
            rotated = {"fallback_keys": fallbacks, "signed_with": OLD_KEY}
            Clock.set(at)
            token = signing.dumps(CART, key=OLD_KEY)
            add_valid(
                "fallback_%s/signing" % name,
                "fallback",
                "signing",
                SIGNING_SALT,
                token,
                payload,
                at,
                **rotated,
            )
            with Keys(OLD_KEY):
                Clock.set(at)
                token = db.SessionStore().encode(CART)
                cookie = signing.dumps(CART, salt=COOKIE_SALT, compress=True)
            add_valid(
                "fallback_%s/db" % name,
                "fallback",
                "db",
                db.SessionStore().key_salt,
                token,
                payload,
                at,
                **rotated,
            )
            add_valid(
                "fallback_%s/cookie" % name,
                "fallback",
                "cookie",
                COOKIE_SALT,
                cookie,
                payload,
                at,
                max_age=COOKIE_AGE,
                now=at + 3600,
                **rotated,
            )
    if VERSION in ((3, 1), (3, 2)) and not extra:
        # These two releases still read what the older ones wrote.
        for name, salt in (("signing", SIGNING_SALT), ("cookie", COOKIE_SALT)):
            token = sign(plain(payload.encode()), at, salt, algorithm="sha1")
            age = {"max_age": COOKIE_AGE, "now": at + 3600} if name == "cookie" else {}
            add_valid(
                "sha1_before_3_1/" + name,
                "sha1_before_3_1",
                name,
                salt,
                token,
                payload,
                at,
                algorithm="sha1",
                **age,
            )
        token = legacy_token(payload.encode())
        add_valid(
            "sha1_before_3_1/legacy",
            "sha1_before_3_1",
            "legacy",
            "django.contrib.sessionsSessionStore",
            token,
            payload,
            at,
            algorithm="sha1",
        )


# --- Invalid vectors ---------------------------------------------------------------------------


def legacy_cause(token):
    """What Django's older decode() meets inside; it turns most of it into an empty session."""
    encoded = base64.b64decode(token.encode())
    digest, serialized = encoded.split(b":", 1)
    if not constant_time_compare(digest.decode(), db.SessionStore()._hash(serialized)):
        raise SuspiciousSession("Session data corrupted")
    return JSONSerializer().loads(serialized)


def add_invalid(name, group, kind, token, at=START, now=None, max_age=None, salt=None, **fields):
    now = START + 3600 if now is None else now
    entry = {"name": name + "/" + kind, "group": group, "kind": kind}
    entry["salt"] = (
        salt
        or {"db": db_salt, "cookie": COOKIE_SALT, "signing": SIGNING_SALT, "legacy": legacy_salt}[
            kind
        ]
    )
    if at is not None and kind != "legacy":
        entry["time"] = at
    if kind == "cookie":
        max_age = COOKIE_AGE if max_age is None else max_age
    if max_age is not None:
        entry["max_age"] = max_age
    if kind != "legacy":
        entry["now"] = now
    entry.update(fields)
    entry["token"] = shorten(token)
    Clock.set(now) if isinstance(now, int) else Clock.set(int(now), round(now % 1 * 1e6))
    with Keys(entry.get("secret_key", SECRET_KEY), entry.get("fallback_keys", [])):
        if kind == "legacy":
            result = outcome(lambda: legacy_cause(token))
        else:
            result = outcome(lambda: signing.loads(token, salt=entry["salt"], max_age=max_age))
        assert not result.pop("logs")
        entry["error"] = result.pop("error", None)
        entry.update(result)
        if kind in ("db", "legacy") and salt is None:
            entry["decode"] = outcome(lambda: db.SessionStore().decode(token))
        if kind == "cookie" and salt is None:
            store = signed_cookies.SessionStore(token)
            entry["load"] = outcome(store.load)
            entry["load"]["modified"] = store.modified
    invalid.append(entry)


db_salt = "django.contrib.sessions.SessionStore"
legacy_salt = "django.contrib.sessionsSessionStore"


def make_invalid():
    bodies = list(signed_bodies())
    # The db engine of releases that write the legacy form does not read the signed one as its own.
    kinds = (
        [("cookie", COOKIE_SALT)] if WRITES_LEGACY else [("db", db_salt), ("cookie", COOKIE_SALT)]
    )
    for kind, salt in kinds:
        for group, name, body in bodies:
            add_invalid("%s/%s" % (group, name), group, kind, sign(body, START, salt))
        for name, size, ours in (
            ("64_mib", 64 * MIB, "TooLarge"),
            ("cap_and_a_byte", OUR_CAP + 1, "TooLarge"),
            ("cap", OUR_CAP, None),
        ):
            told = {"ours": ours} if ours else {}
            add_invalid("bomb/" + name, "bomb", kind, sign(bomb(size), START, salt), **told)
        broken = squeezed(b"0" * (64 * MIB), 9)
        add_invalid(
            "bomb/64_mib_not_json", "bomb", kind, sign(broken, START, salt), ours="TooLarge"
        )
        make_invalid_envelopes(kind, salt)
    make_expired()
    if WRITES_LEGACY or VERSION in ((3, 1), (3, 2)):
        make_invalid_legacy()


def make_invalid_envelopes(kind, salt):
    good = plain(b'{"a":1}')
    token = sign(good, START, salt)
    body, stamp, signature = token.split(":")

    def add(group, name, token, **fields):
        add_invalid("%s/%s" % (group, name), group, kind, token, **fields)

    # The newest release has every bit of every character, the others one bit of each.
    for position in range(len(token)):
        for bit in range(8) if VERSION >= (6, 1) and kind == "db" else [position % 7]:
            flipped = (
                token[:position] + chr(ord(token[position]) ^ (1 << bit)) + token[position + 1 :]
            )
            add("flipped_bit", "%02d_%d" % (position, bit), flipped)
    for length in range(len(token)):
        add("cut_end", "%02d" % length, token[:length])
    if kind == "db" or WRITES_LEGACY:
        for length in range(1, len(token)):
            add("cut_start", "%02d" % length, token[length:])
        for position in range(len(token)):
            add("dropped", "%02d" % position, token[:position] + token[position + 1 :])

    others = {"db": COOKIE_SALT, "cookie": db_salt}
    add("wrong_salt", "other_engine", sign(good, START, others[kind]))
    add("wrong_salt", "core_signing", sign(good, START, SIGNING_SALT))
    add("wrong_salt", "letter_more", sign(good, START, salt + "x"))
    add("wrong_salt", "letter_less", sign(good, START, salt[:-1]))
    add("wrong_salt", "legacy", sign(good, START, legacy_salt))
    add("wrong_key", "other", sign(good, START, salt, WRONG_KEY))
    add("wrong_key", "space", sign(good, START, salt, " "))
    add("wrong_key", "fallback_not_given", sign(good, START, salt, OLD_KEY), signed_with=OLD_KEY)
    add("wrong_key", "cut", sign(good, START, salt, SECRET_KEY[:-1]))
    if HAS_FALLBACKS:
        add(
            "wrong_key",
            "not_among_fallbacks",
            sign(good, START, salt, WRONG_KEY),
            fallback_keys=[OLD_KEY, OLDEST_KEY],
        )
        other = {"sha256": "sha1", "sha1": "sha256"}[ALGORITHM]
        add("wrong_algorithm", other, sign(good, START, salt, algorithm=other))
        add("wrong_algorithm", "sha512", sign(good, START, salt, algorithm="sha512"))

    # The time is signed like the rest.
    for name, text in (
        ("empty", ""),
        ("zero", "0"),
        ("zeros", "000"),
        ("minus", "-"),
        ("negative", "-1"),
        ("two_minus", "--1"),
        ("minus_zero", "-0"),
        ("plus", "+1"),
        ("space", " "),
        ("space_before", " " + stamp),
        ("newline_after", stamp + "\n"),
        ("bad_character", "1t!3b"),
        ("underscore", "1_0"),
        ("non_ascii", "1é"),
        ("arabic_digit", "\u0661"),
        ("decimal_point", "1.5"),
        ("beyond_u64", "zzzzzzzzzzzz"),
        ("100_digits", "1" * 100),
        ("beyond_float", "z" * 200),
        ("negative_beyond_float", "-" + "z" * 200),
        ("nul", "1\x00"),
    ):
        add("timestamp", name, sign_without_time(good + ":" + text, salt), at=None)
    add("timestamp", "missing", sign_without_time(good, salt), at=None)
    add("timestamp", "missing_and_body_empty", sign_without_time("", salt), at=None)
    add("timestamp", "body_missing", sign_without_time(":" + stamp, salt))
    add("timestamp", "twice", sign_without_time(good + ":" + stamp + ":" + stamp, salt))
    add("timestamp", "other_separator", sign_without_time(good + "." + stamp, salt), at=None)

    for name, text in (
        ("empty", ""),
        ("one_separator", ":"),
        ("two_separators", "::"),
        ("three_separators", ":::"),
        ("letter", "a"),
        ("eight_letters", "abcdefgh"),
        ("session_key", session_key(0)),
        ("space", " "),
        ("nul", "\x00"),
        ("nuls", "\x00" * 16),
        ("dot", "."),
        ("dot_and_separators", ".::"),
        ("body_only", body),
        ("body_and_time", body + ":" + stamp),
        ("body_and_signature", body + ":" + signature),
        ("signature_only", "::" + signature),
        ("no_signature", body + ":" + stamp + ":"),
        ("signature_twice", token + ":" + signature),
        ("signature_padded", token + "="),
        ("signature_lower", body + ":" + stamp + ":" + signature.lower()),
        ("separator_before", ":" + token),
        ("separator_after", token + ":"),
        ("space_before", " " + token),
        ("space_after", token + " "),
        ("newline_after", token + "\n"),
        ("nul_after", token + "\x00"),
        ("nul_before", "\x00" + token),
        ("quoted", '"' + token + '"'),
        ("percent_encoded", token.replace(":", "%3A")),
        ("semicolons", token.replace(":", ";")),
        ("body_swapped", plain(b'{"a":2}') + ":" + stamp + ":" + signature),
        ("time_swapped", body + ":" + stamp[:-1] + "0:" + signature),
        ("parts_swapped", signature + ":" + stamp + ":" + body),
        ("non_ascii", "ключ:ключ:ключ"),
        ("non_ascii_signature", body + ":" + stamp + ":" + "é" * len(signature)),
        ("non_ascii_after", token + "é"),
        ("astral", "\U0001f600:\U0001f600:\U0001f600"),
        ("latin_1", "".join(map(chr, range(128, 256)))),
        ("all_ascii", "".join(map(chr, range(128)))),
        ("replacement_character", "\ufffd:" + token),
        ("long", "a" * MIB),
        ("long_separators", ":" * MIB),
        ("long_signature", body + ":" + stamp + ":" + "a" * MIB),
        ("long_signature_right_start", token + "a" * MIB),
        ("long_time", body + ":" + "1" * MIB + ":" + signature),
        ("legacy", LEGACY_SAMPLE),
        ("jwt", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.h7Vn3Xo0Sg3dQk6-6r2d0aPqgG3zUu0vXo3eWb1aYcI"),
    ):
        add("shape", name, text, at=None)


# A row as Django 1.11 wrote it for {"a": 1}, with a wrong hash.
LEGACY_SAMPLE = base64.b64encode(b"0" * 40 + b':{"a":1}').decode()


def make_expired():
    """Times around the end of a signature's life."""
    for kind, salt in (("cookie", COOKIE_SALT), ("signing", SIGNING_SALT)):
        token = sign(plain(b'{"a":1}'), START, salt)
        late = squeezed(b"x")
        for max_age in (COOKIE_AGE, 60, 0) if kind == "signing" else (COOKIE_AGE,):
            for name, later in (
                ("by_a_second", 1),
                ("by_half_a_second", 0.5),
                ("by_a_year", 31536000),
            ):
                add_invalid(
                    "expired/%s_after_%d" % (name, max_age),
                    "expired",
                    kind,
                    token,
                    now=START + max_age + later,
                    max_age=max_age,
                )
        # Django looks at the time before it looks at the body, and at the signature before both.
        expired = {"now": START + COOKIE_AGE + 1, "max_age": COOKIE_AGE}
        add_invalid(
            "expired/and_not_base64", "expired", kind, sign("eyJhI", START, salt), **expired
        )
        add_invalid("expired/and_not_json", "expired", kind, sign(late, START, salt), **expired)
        add_invalid(
            "expired/and_wrong_key",
            "expired",
            kind,
            sign(plain(b"{}"), START, salt, WRONG_KEY),
            **expired,
        )
        add_invalid("expired/and_cut", "expired", kind, token[:-1], **expired)
    add_invalid(
        "expired/negative_max_age",
        "expired",
        "signing",
        sign(plain(b"{}"), START, SIGNING_SALT),
        now=START,
        max_age=-1,
    )


def make_invalid_legacy():
    good = b'{"a":1}'
    token = legacy_token(good)
    digest = legacy_hash(good)

    def add(group, name, token, **fields):
        add_invalid("legacy_%s/%s" % (group, name), "legacy_" + group, "legacy", token, **fields)

    def packed(data):
        return base64.b64encode(data).decode()

    for position in range(len(token)):
        flipped = (
            token[:position]
            + chr(ord(token[position]) ^ (1 << position % 7))
            + token[position + 1 :]
        )
        add("flipped_bit", "%02d" % position, flipped)
    for length in range(len(token)):
        add("cut_end", "%02d" % length, token[:length])
    for length in range(1, len(token)):
        add("cut_start", "%02d" % length, token[length:])
    add("hash", "wrong", packed(b"0" * 40 + b":" + good))
    add("hash", "upper", packed(digest.upper().encode() + b":" + good))
    add("hash", "empty", packed(b":" + good))
    add("hash", "cut", packed(digest[:-1].encode() + b":" + good))
    add("hash", "longer", packed(digest.encode() + b"0:" + good))
    add("hash", "not_utf_8", packed(b"\xff" * 40 + b":" + good))
    add("hash", "non_ascii", packed("é".encode() * 20 + b":" + good))
    add("hash", "sha256", packed(hashlib.sha256(good).hexdigest().encode() + b":" + good))
    add("hash", "other_payload", packed(digest.encode() + b':{"a":2}'))
    add("hash", "payload_and_more", packed(digest.encode() + b":" + good + b" "))
    add("class_name", "other", legacy_token(good, "TenantSessionStore"))
    add("class_name", "lower", legacy_token(good, "sessionstore"))
    add("class_name", "with_dot", legacy_token(good, ".SessionStore"))
    add("key", "wrong", legacy_token(good, key=WRONG_KEY))
    add("key", "old", legacy_token(good, key=OLD_KEY), signed_with=OLD_KEY)
    add("shape", "no_colon", packed(digest.encode() + good.replace(b":", b"")))
    add("shape", "only_colon", packed(b":"))
    add("shape", "nothing", "")
    add("shape", "one_letter", "a")
    add("shape", "not_base64", "!!!!")
    add("shape", "word", "session")
    add("shape", "non_ascii", "ключ")
    add("shape", "non_ascii_inside", token[:8] + "é" + token[8:])
    add("shape", "junk_inside", token[:8] + "!" + token[8:])
    add("shape", "newline_inside", token[:8] + "\n" + token[8:])
    add("shape", "newline_after", token + "\n")
    add("shape", "unpadded", token.rstrip("="))
    add("shape", "padding_twice", token + "==")
    add("shape", "data_after_padding", token + token)
    add(
        "shape",
        "url_alphabet",
        legacy_token(b'{"\xff\xfe\xfb":"\xff\xef\xbf"}').replace("+", "-").replace("/", "_"),
    )
    add("shape", "signed_form", sign(plain(good), START, db_salt))
    add("shape", "nul", "\x00")
    add("shape", "long", "a" * MIB)
    for name, body in JSON_BODIES + LONG_JSON_BODIES:
        # Signed tokens have the other ones already.
        if not name.startswith("nesting_100000_") or name == "nesting_100000_lists":
            add("json", name, legacy_token(body))


# --- The file ----------------------------------------------------------------------------------


def main():
    # Sessions, users and their tables; then one user whose password column is known.
    call_command("migrate", verbosity=0, interactive=False)
    User.objects.create(pk=7, username="ada", password=PASSWORD, is_active=True)
    print("  valid vectors ...", flush=True)
    make_valid()
    print("  %d valid; invalid vectors ..." % len(valid), flush=True)
    make_invalid()
    print("  %d invalid" % len(invalid), flush=True)
    for entries in (valid, invalid):
        names = [entry["name"] for entry in entries]
        assert len(names) == len(set(names)), sorted(
            name for name in names if names.count(name) > 1
        )

    user = User.objects.get(pk=7)
    auth = {
        "user_id": "7",
        "password": PASSWORD,
        "key_salt": "django.contrib.auth.models.AbstractBaseUser.get_session_auth_hash",
        "algorithm": "sha256" if VERSION >= (3, 1) and not extra else "sha1",
        "session_auth_hash": user.get_session_auth_hash(),
    }
    if hasattr(user, "get_session_auth_fallback_hash"):
        with Keys(SECRET_KEY, [OLD_KEY, OLDEST_KEY]):
            auth["fallback_keys"] = [OLD_KEY, OLDEST_KEY]
            auth["fallback_hashes"] = list(user.get_session_auth_fallback_hash())
    header = {
        "format": 1,
        "django": django.get_version(),
        "python": platform.python_version(),
        "zlib": zlib.ZLIB_RUNTIME_VERSION,
        "made_by": MADE_BY,
        "algorithm": ALGORITHM,
        "secret_key": SECRET_KEY,
        "other_keys": {"old": OLD_KEY, "oldest": OLDEST_KEY, "wrong": WRONG_KEY},
        "salts": {"signing": SIGNING_SALT, "cookie": COOKIE_SALT},
        "session_cookie_age": COOKIE_AGE,
        "settings": {"USE_TZ": True, "TIME_ZONE": "UTC"},
        "auth": auth,
        "left_out": left_out,
        "counts": {
            "valid": len(valid),
            "invalid": len(invalid),
            "invalid_refused": sum(entry["error"] is not None for entry in invalid),
        },
    }
    if WRITES_LEGACY or VERSION in ((3, 1), (3, 2)):
        header["salts"]["legacy"] = legacy_salt
    if not WRITES_LEGACY:
        header["salts"]["db"] = db_salt

    with open(OUTPUT, "w", encoding="ascii", newline="\n") as file:
        file.write('{"header": ' + json.dumps(header, indent=1))
        for section, entries in (("valid", valid), ("invalid", invalid)):
            file.write(',\n"%s": [\n' % section)
            file.write(",\n".join(json.dumps(entry, separators=(",", ":")) for entry in entries))
            file.write("\n]")
        file.write("}\n")


if __name__ == "__main__":
    main()
