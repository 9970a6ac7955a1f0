"""`manage.py check` with django_rust_sessions in INSTALLED_APPS: what is said, and what is not."""

import io
import os
import re
import subprocess
import sys
import types
from typing import NamedTuple

import pytest
import switches
from django.apps import apps
from django.conf import settings
from django.contrib.sessions.models import Session
from django.core.cache.backends.dummy import DummyCache
from django.core.checks.registry import registry
from django.core.management import CommandError, call_command
from django.core.signing import JSONSerializer
from django.db import connections
from django.db.models import signals
from django.test import override_settings
from django_rust_sessions.backends import cache, db, file
from django_rust_sessions.checks import register_all
from django_rust_sessions.middleware import SessionMiddleware

OURS = "django_rust_sessions"
MIDDLEWARE = f"{OURS}.middleware.SessionMiddleware"
DJANGO_MIDDLEWARE = "django.contrib.sessions.middleware.SessionMiddleware"
LONG_KEY = "a key that nobody guesses, of seventy characters: 0123456789 abcdefghij"
REDIS = {
    "BACKEND": "django.core.cache.backends.redis.RedisCache",
    "LOCATION": "redis://127.0.0.1:1",
}


class Said(NamedTuple):
    id: str
    text: str
    hint: str


@pytest.fixture(autouse=True)
def registered_here_only():
    before = set(registry.registered_checks), set(registry.deployment_checks)
    yield
    registry.registered_checks, registry.deployment_checks = before


IDLE = ("LOCAL_CACHE", "FILE_FSYNC", "POSTGRES_ASYNC_COMMIT", "FALLBACK_CACHE_ALIAS")


def check(deploy=False, without_apps=(), **changed):
    """What the command prints of ours."""
    installed = [name for name in settings.INSTALLED_APPS if name not in without_apps]
    changed = {"SECRET_KEY": LONG_KEY, "MIDDLEWARE": [], "SESSION_ENGINE": engine("db"), **changed}
    printed = io.StringIO()
    with override_settings(INSTALLED_APPS=[*installed, OURS], **changed):
        # ready() did so; this is for the second test in this process.
        assert apps.get_app_config(OURS).verbose_name == "Sessions in Rust"
        register_all()
        try:
            call_command("check", deploy=deploy, stdout=printed, stderr=printed)
        except CommandError as error:
            printed.write(str(error))
    # Where an option does nothing, a message says so. The rest is the same.
    of_options = [("W010", "HASH_KEYS"), ("E006", "HASH_KEYS"), ("W011", "MERGE")]
    of_options += [("W012", each) for each in IDLE]
    hidden = {each for each, option in of_options if switches.ON.get(option)}
    return [each for each in parse(printed.getvalue()) if each.id not in hidden]


def parse(text):
    """Each message has a hint, or this does not find it."""
    found = re.findall(rf"^\?: \({OURS}\.(\w+)\) (.+)(?:\n\tHINT: (.+))?$", text, re.MULTILINE)
    return [Said(*groups) for groups in found]


def engine(name):
    return f"{OURS}.backends.{name}"


def ids(said):
    return [each.id for each in said]


@pytest.fixture
def project_engine(monkeypatch):
    """A module of the project whose SessionStore is that class."""

    def make(cls):
        module = types.ModuleType("project_engine")
        module.SessionStore = cls
        monkeypatch.setitem(sys.modules, "project_engine", module)
        return "project_engine"

    return make


# ------------------------------------------------------------------------------------------- paths


def test_each_message_says_what_to_do():
    said = [
        *check(),
        *check(SESSION_ENGINE=engine("cache"), RUST_SESSIONS={"LEGACY": 1}),
        *check(SESSION_ENGINE=engine("databases"), SECRET_KEY="short"),
        *check(deploy=True, MIDDLEWARE=[MIDDLEWARE, DJANGO_MIDDLEWARE]),
    ]
    assert {"I001", "I002", "E001", "E002", "W005", "W006"} <= set(ids(said))
    assert all(each.hint for each in said)


def test_native_db():
    (said,) = check()
    assert said.id == "I001"
    assert "load, save, create, delete each send one plain statement" in said.text
    assert "SILENCED_SYSTEM_CHECKS" in said.hint


def test_infos_can_be_silenced():
    assert check(SILENCED_SYSTEM_CHECKS=[f"{OURS}.I001"]) == []


def test_receivers_of_signals():
    def receive(**kwargs):
        pass

    signals.post_save.connect(receive, sender=Session)
    try:
        native, left = check()
    finally:
        signals.post_save.disconnect(receive, sender=Session)
    assert native.id == "I001"
    assert "load, delete each send" in native.text
    assert left.id == "I002"
    assert "save, create run Django's own code: there are receivers" in left.text


def test_another_vendor(monkeypatch):
    elsewhere = {**connections.settings["default"], "ENGINE": "project.unknown_database"}
    monkeypatch.setitem(connections.settings, "default", elsewhere)
    (said,) = check()
    assert said.id == "I002"
    assert "load, save, create, delete run Django's own code: no plain" in said.text


class ToUnknown:
    def db_for_write(self, model, **hints):
        return "nowhere"


class Broken:
    def db_for_read(self, model, **hints):
        raise RuntimeError("with a secret in it")


def test_routers_choose_the_database():
    native, *left = check(DATABASE_ROUTERS=[f"{__name__}.ToUnknown"])
    assert "load each send" in native.text
    text = " ".join(each.text for each in left)
    assert "save, create run Django's own code: no plain statements are known for a data" in text
    assert "delete run Django's own code: database routers" in text


def test_a_broken_router_is_no_traceback():
    (said,) = check(DATABASE_ROUTERS=[f"{__name__}.Broken"])
    assert said.id == "E004"
    assert "it raises RuntimeError" in said.text
    assert "secret" not in said.text


def test_subclass_of_an_engine(project_engine):
    class SessionStore(db.SessionStore):
        def _get_new_session_key(self):
            return "x" * 32

    native, left = check(SESSION_ENGINE=project_engine(SessionStore))
    assert "'project_engine': load, save, delete each" in native.text
    assert "create run Django's own code: SessionStore has its own" in left.text


def test_native_redis():
    caches = {"default": REDIS}
    (said,) = check(SESSION_ENGINE=engine("cache"), CACHES=caches)
    assert said.id == "I001"
    assert "the cache 'default' is Redis, which is spoken to natively" in said.text

    (said,) = check(SESSION_ENGINE=engine("cached_db"), CACHES=caches)
    assert said.id == "I001"
    assert "plain statement to the database; the cache 'default' is Redis" in said.text


@pytest.mark.not_with("LOCAL_CACHE", "one more sentence says that it keeps nothing there")
@pytest.mark.parametrize("name", ["cache", "cached_db"])
def test_redis_with_an_option_that_is_not_understood(name):
    options = {"retry_on_timeout": True}
    said = check(SESSION_ENGINE=engine(name), CACHES={"default": {**REDIS, "OPTIONS": options}})
    assert ids(said) == {"cache": ["I002"], "cached_db": ["I001", "I002"]}[name]
    assert "asked through Django: the option retry_on_timeout is set" in said[-1].text


@pytest.mark.not_with("LOCAL_CACHE", "one more sentence speaks of the cache of the settings")
def test_a_cache_that_the_project_chooses(project_engine):
    class SessionStore(cache.SessionStore):
        def __init__(self, session_key=None):
            super().__init__(session_key)
            self._cache = DummyCache("", {})

    (said,) = check(SESSION_ENGINE=project_engine(SessionStore), CACHES={"default": REDIS})
    assert said.id == "I002"
    assert "SessionStore has a cache of its own" in said.text


@pytest.fixture
def forget_directory():
    """Django looks for it once a process."""

    def forget():
        for cls in file.SessionStore.__mro__:
            if "_storage_path" in vars(cls):
                del cls._storage_path

    forget()
    yield
    forget()


def test_signed_cookies_and_file(tmp_path, forget_directory):
    for name in ("signed_cookies", "file"):
        (said,) = check(SESSION_ENGINE=engine(name), SESSION_FILE_PATH=str(tmp_path))
        assert (said.id, "all of it is native" in said.text) == ("I001", True)


def test_a_subclass_of_the_file_engine(tmp_path, forget_directory, project_engine):
    class SessionStore(file.SessionStore):
        def exists(self, session_key):
            return super().exists(session_key)

    name = project_engine(SessionStore)
    (said,) = check(SESSION_ENGINE=name, SESSION_FILE_PATH=str(tmp_path))
    assert said.id == "I002"
    assert "what uses exists() of SessionStore is Django's own code" in said.text


def test_files_without_a_directory(tmp_path, forget_directory):
    (said,) = check(SESSION_ENGINE=engine("file"), SESSION_FILE_PATH=str(tmp_path / "missing"))
    assert said.id == "E004"
    assert "doesn't exist. Please set your SESSION_FILE_PATH" in said.text


def test_an_engine_of_django():
    (said,) = check(SESSION_ENGINE="django.contrib.sessions.backends.cached_db")
    assert said.id == "I003"
    assert f"Set SESSION_ENGINE = '{engine('cached_db')}'" in said.hint


# ------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        (engine("cachd_db"), engine("cached_db")),
        (engine("db.SessionStore"), engine("db")),
        (engine("signed_cookie"), engine("signed_cookies")),
        ("django_rust_session.backends.cache", engine("cache")),
        ("django.contrib.session.backends.db", "django.contrib.sessions.backends.db"),
    ],
)
def test_a_misspelt_engine(name, meant):
    (said,) = check(SESSION_ENGINE=name)
    assert said.id == "E001"
    assert f"SESSION_ENGINE is '{name}'" in said.text
    assert said.hint == f"Is '{meant}' what you mean?"


@pytest.mark.parametrize("name", ["nothing.like.it", f"{OURS}.codec", ""])
def test_no_engine(name):
    (said,) = check(SESSION_ENGINE=name)
    assert said.id == "E001"


@pytest.mark.parametrize("name", ["db", "cached_db"])
def test_the_table_needs_its_app(name):
    said = check(
        SESSION_ENGINE=engine(name),
        CACHES={"default": REDIS},
        without_apps=["django.contrib.sessions", "project"],
    )
    assert ids(said) == ["E003"]
    assert "Add 'django.contrib.sessions' to INSTALLED_APPS" in said[0].hint


def test_cookies_need_no_app():
    without = ["django.contrib.sessions", "project"]
    assert ids(check(SESSION_ENGINE=engine("signed_cookies"), without_apps=without)) == ["I001"]


def test_unknown_option():
    (said, _) = check(RUST_SESSIONS={"MAX_INFLATE": 1, "LEGACI": True})
    assert said.id == "E002"
    assert "RUST_SESSIONS has no option 'LEGACI', 'MAX_INFLATE'" in said.text
    assert "Is 'LEGACY', 'MAX_INFLATED' what you mean?" in said.hint


@pytest.mark.parametrize(
    "options",
    [{"MAX_INFLATED": -1}, {"LEGACY": "yes"}, {"REDIS_TIMEOUT": "5"}, ["LEGACY"], {"LEGACY"}],
)
def test_wrong_option(options):
    said = check(SESSION_ENGINE=engine("signed_cookies"), RUST_SESSIONS=options)
    assert ids(said) == ["E002", "I001"]
    assert ("should be" if isinstance(options, dict) else "must be a dict") in said[0].text


def test_every_wrong_option_is_named():
    said = check(RUST_SESSIONS={"LEGACY": 1, "MAX_INFLATED": 1.5, "MERGE": True})
    assert ids(said) == ["E002", "E002", "I001"]


@pytest.mark.parametrize("django", ["db", "cache", "file"])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"HASH_KEYS": "sha256"}, ["under hashes of their keys"]),
        ({"FALLBACK_ENGINE": engine("db")}, ["in the other store are not found"]),
        ({"HASH_KEYS": "plain"}, []),
        ({"MERGE": True}, []),
    ],
)
@pytest.mark.not_with("HASH_KEYS", "E006 is hidden then")
def test_options_that_another_engine_knows_nothing_of(django, options, words):
    """Who takes back the engine alone would log everybody out."""
    name = f"django.contrib.sessions.backends.{django}"
    said = check(SESSION_ENGINE=name, RUST_SESSIONS=options)
    assert ids(said) == ["E006"] * len(words) + ["I003"]
    assert all(word in each.text for word, each in zip(words, said, strict=False))


@pytest.mark.parametrize(
    ("name", "idle", "used"),
    [
        ("LOCAL_CACHE", "file", "cached_db"),
        ("FILE_FSYNC", "db", "file"),
        ("POSTGRES_ASYNC_COMMIT", "cache", None),
        ("FALLBACK_CACHE_ALIAS", "db", None),
    ],
)
@pytest.mark.not_with("LOCAL_CACHE", "W012 is hidden then")
@pytest.mark.not_with("POSTGRES_ASYNC_COMMIT", "W012 is hidden then")
@pytest.mark.not_with("FILE_FSYNC", "W012 is hidden then")
def test_options_that_do_nothing(name, idle, used):
    value = {"LOCAL_CACHE": 1, "FALLBACK_CACHE_ALIAS": "default"}.get(name, True)
    said = check(RUST_SESSIONS={name: value}, SESSION_ENGINE=engine(idle))
    assert [name in each.text for each in said if each.id == "W012"] == [True]
    if used is not None:
        assert "W012" not in ids(check(RUST_SESSIONS={name: value}, SESSION_ENGINE=engine(used)))


@pytest.mark.parametrize("name", ["cache", "cached_db"])
def test_unknown_cache_alias(name):
    caches = {"default": REDIS, "sessions": REDIS}
    (said,) = check(SESSION_ENGINE=engine(name), CACHES=caches, SESSION_CACHE_ALIAS="session")
    assert said.id == "E005"
    assert "CACHES has 'default', 'sessions'. Is 'sessions' what you mean?" in said.hint


def test_an_address_that_cannot_be_read_is_not_printed():
    location = "redis://:passw/ord@127.0.0.1:1"
    caches = {"default": {**REDIS, "LOCATION": location}}
    (said,) = check(SESSION_ENGINE=engine("cache"), CACHES=caches)
    assert said.id == "E004"
    assert "ValueError" in said.text
    assert "CACHES['default']: its LOCATION" in said.hint
    assert "passw" not in str(said)


# ---------------------------------------------------------------------------------------- warnings


@pytest.mark.parametrize(
    ("name", "backend", "expected"),
    [
        ("cache", "dummy.DummyCache", "keeps nothing"),
        ("cache", "locmem.LocMemCache", "lost when theirs ends"),
        ("cached_db", "locmem.LocMemCache", "still be logged in"),
        ("cached_db", "dummy.DummyCache", None),
        ("db", "locmem.LocMemCache", None),
        ("cache", "db.DatabaseCache", None),
    ],
)
def test_a_cache_that_forgets(name, backend, expected):
    configured = {"BACKEND": f"django.core.cache.backends.{backend}", "LOCATION": "somewhere"}
    said = check(SESSION_ENGINE=engine(name), CACHES={"default": configured})
    warnings = [each.text for each in said if each.id == "W005"]
    assert len(warnings) == (expected is not None)
    assert all(expected in text for text in warnings)


class OwnPickles:
    def dumps(self, obj):
        import pickle

        return pickle.dumps(obj)

    def loads(self, data):
        import pickle

        return pickle.loads(data)


class HarmlessPickleSerializer(JSONSerializer):
    pass


class Failing:
    def __init__(self):
        raise RuntimeError


@pytest.mark.parametrize(
    ("serializer", "runs_code"),
    [
        (OwnPickles, True),
        (type("Derived", (OwnPickles,), {}), True),
        (HarmlessPickleSerializer, False),
        (Failing, False),
        (JSONSerializer, False),
    ],
)
@pytest.mark.parametrize("name", ["signed_cookies", "db"])
def test_a_serializer_that_runs_code(monkeypatch, name, serializer, runs_code):
    monkeypatch.setattr(sys.modules[__name__], "Chosen", serializer, raising=False)
    said = check(SESSION_ENGINE=engine(name), SESSION_SERIALIZER=f"{__name__}.Chosen")
    warned = runs_code and name == "signed_cookies"
    assert ids(said) == (["W004", "I001"] if warned else ["I001"])
    if warned:
        assert f"'{__name__}.Chosen', which reads pickles" in said[0].text


@pytest.mark.filterwarnings("ignore:PickleSerializer")
def test_the_pickle_serializer_of_django():
    path = "django.contrib.sessions.serializers.PickleSerializer"
    said = check(SESSION_ENGINE=engine("signed_cookies"), SESSION_SERIALIZER=path)
    from django.contrib.sessions import serializers

    # It is gone since 5.0.
    there = hasattr(serializers, "PickleSerializer")
    assert ids(said) == (["W004", "I001"] if there else ["E004"])
    assert "'PICKLE_MIGRATION': True" in said[0].hint


class Derived(SessionMiddleware):
    pass


@pytest.mark.parametrize(
    ("middleware", "warned"),
    [
        ([MIDDLEWARE], False),
        ([DJANGO_MIDDLEWARE], False),
        ([DJANGO_MIDDLEWARE, MIDDLEWARE], True),
        ([MIDDLEWARE, f"{__name__}.Derived"], True),
        ([DJANGO_MIDDLEWARE, DJANGO_MIDDLEWARE], False),
        (["project.show", MIDDLEWARE, "no.such.middleware"], False),
    ],
)
def test_two_session_middlewares(middleware, warned):
    said = check(MIDDLEWARE=middleware)
    assert ids(said) == (["W006", "I001"] if warned else ["I001"])


@pytest.mark.parametrize(
    ("key", "changed", "warned"),
    [
        ("short", {}, True),
        (b"short", {}, True),
        ("x" * 32, {}, False),
        ("ключ" * 4, {}, False),  # 32 bytes
        ("short", {"DEBUG": True}, False),
        ("short", {"SESSION_ENGINE": "django.contrib.sessions.backends.db"}, False),
        ("", {}, False),  # which Django says itself
    ],
)
def test_a_short_key(key, changed, warned):
    said = check(SECRET_KEY=key, **changed)
    assert ("W001" in ids(said)) is warned
    assert "short" not in " ".join(each.text for each in said)


@pytest.mark.parametrize("path", [MIDDLEWARE, f"{__name__}.Derived"])
def test_cookies_of_our_middleware(path):
    """Django looks for the name of its own middleware, and for its app."""
    without = ["django.contrib.sessions", "project"]
    changed = {
        "SESSION_ENGINE": engine("signed_cookies"),
        "MIDDLEWARE": [path],
        "SESSION_COOKIE_HTTPONLY": False,
    }
    assert ids(check(deploy=True, without_apps=without, **changed)) == ["W002", "W003", "I001"]
    # In plain checks, as with Django's, nothing.
    assert ids(check(without_apps=without, **changed)) == ["I001"]
    # Here Django says it.
    assert ids(check(deploy=True, **changed)) == ["I001"]
    safe = {**changed, "SESSION_COOKIE_SECURE": True, "SESSION_COOKIE_HTTPONLY": True}
    assert ids(check(deploy=True, without_apps=without, **safe)) == ["I001"]


def test_cookies_without_our_middleware():
    without = ["django.contrib.sessions", "project"]
    changed = {"SESSION_ENGINE": engine("signed_cookies"), "without_apps": without}
    for middleware in ([], [DJANGO_MIDDLEWARE], [DJANGO_MIDDLEWARE, MIDDLEWARE]):
        said = check(deploy=True, MIDDLEWARE=middleware, **changed)
        assert not {"W002", "W003"} & set(ids(said))


def test_what_a_migration_needs_is_to_be_taken_out():
    options = {"LEGACY": True, "PICKLE_MIGRATION": True}
    assert ids(check(deploy=True, RUST_SESSIONS=options)) == ["W007", "W008", "I001"]
    assert ids(check(RUST_SESSIONS=options)) == ["I001"]
    assert ids(check(deploy=True, RUST_SESSIONS={"LEGACY": False})) == ["I001"]
    # A wrong one is an error already.
    assert ids(check(deploy=True, RUST_SESSIONS={"LEGACY": 1})) == ["E002", "I001"]


# -------------------------------------------------------------------------------- a whole project

SETTINGS = """
SECRET_KEY = {key!r}
ROOT_URLCONF = "urls"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
] + {apps!r}
MIDDLEWARE = {middleware!r} + [
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {{
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {{
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        }},
    }}
]
DATABASES = {{
    "default": {{
        "ENGINE": "django.db.backends.postgresql",
        "HOST": "127.0.0.1",
        "PORT": 1,
        "NAME": "nobody is there",
    }}
}}
CACHES = {{
    "default": {{
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": "redis://127.0.0.1:1",
    }}
}}
SESSION_ENGINE = {engine!r}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
"""

# Ends at the first attempt to connect to anything.
MANAGE = """
import os, sys

def refuse(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "sqlite3.connect"):
        os.write(2, f"{event} {args}".encode())
        os._exit(99)

sys.addaudithook(refuse)
os.environ["DJANGO_SETTINGS_MODULE"] = "site_settings"
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""


def manage(folder, *words, **settings):
    settings = {"key": LONG_KEY, "apps": [OURS], "middleware": [MIDDLEWARE], **settings}
    (folder / "site_settings.py").write_text(SETTINGS.format(**settings))
    (folder / "urls.py").write_text(
        "from django.contrib import admin\n"
        "from django.urls import path\n"
        "urlpatterns = [path('', admin.site.urls)]\n"
    )
    (folder / "manage.py").write_text(MANAGE)
    return subprocess.run(
        [sys.executable, "-W", "error", "manage.py", *words],
        cwd=folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )


def test_a_project_and_its_messages(tmp_path):
    ended = manage(tmp_path, "check", engine=engine("cached_db"))
    assert ended.returncode == 0
    (said,) = parse(ended.stderr)
    assert said.id == "I001"
    assert "each send one plain statement to the database; the cache 'default' is" in said.text

    ended = manage(tmp_path, "check", "--tag", "sessions", engine=engine("cashed_db"))
    assert ended.returncode == 1
    assert ids(parse(ended.stderr)) == ["E001"]


def django_messages(text):
    return set(re.findall(r"^\?: \((?!django_rust)(\S+)\) ", text, re.MULTILINE))


def test_django_says_the_same_beside_our_middleware(tmp_path):
    """It asks for its session middleware, or one made of it, and looks for cookies by its name."""
    theirs = manage(
        tmp_path,
        *("check", "--deploy"),
        apps=[],
        middleware=[DJANGO_MIDDLEWARE],
        engine="django.contrib.sessions.backends.db",
    )
    ours = manage(tmp_path, "check", "--deploy", engine=engine("db"))
    assert (theirs.returncode, ours.returncode) == (0, 0)
    said = django_messages(theirs.stderr)
    assert "security.W012" in said
    # The same sentence: of app and middleware, of the app.
    assert django_messages(ours.stderr) == said - {"security.W012"} | {"security.W010"}
    assert ids(parse(ours.stderr)) == ["I001"]

    # The comparison can fail.
    without = manage(tmp_path, "check", middleware=[], engine=engine("db"))
    assert "admin.E410" in django_messages(without.stderr)
