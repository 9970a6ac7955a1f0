"""Every snippet of the README is run: the settings in a Django project, the Rust program on its
database."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import databases
import pytest
import redis
from django.contrib.sessions.backends.cache import SessionStore as DjangoCacheStore
from django.contrib.sessions.backends.db import SessionStore as DjangoStore
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django_rust_sessions.backends.cache import SessionStore as RustCacheStore
from django_rust_sessions.backends.db import SessionStore as RustStore

STORES = {"db": [DjangoStore, RustStore], "cache": [DjangoCacheStore, RustCacheStore]}
ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SECRET_KEY = "the README's secret key, which guards nothing"

# Logs "ada" in, runs the command that is named, or says who is logged in under a session cookie and
# how often Rust greeted her.
SITE = """
import sys
from importlib import import_module
import django
from django.conf import settings
exec(sys.stdin.read())
settings.configure(
    SECRET_KEY={secret_key!r},
    SESSION_ENGINE=SESSION_ENGINE,
    DATABASES={{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}}},
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        *(["django_rust_sessions"] if "export_session_settings" in sys.argv else []),
    ],
    CACHES={{
        "default": {{
            "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
            "LOCATION": "cache",
        }}
    }},
    SESSION_FILE_PATH=".",
    USE_TZ=True,
)
django.setup()
from django.contrib.auth import get_user
from django.contrib.auth.models import User
from django.core.management import call_command
from django.http import HttpRequest
from django.test import Client
if len(sys.argv) == 1:
    call_command("migrate", verbosity=0)
    client = Client()
    client.force_login(User.objects.get_or_create(username="ada")[0])
    print(client.cookies[settings.SESSION_COOKIE_NAME].value)
elif sys.argv[1] == "export_session_settings":
    call_command(*sys.argv[1:])
else:
    request = HttpRequest()
    request.session = import_module(SESSION_ENGINE).SessionStore(sys.argv[1])
    print(get_user(request).get_username() or "stranger", request.session.get("greetings", ""))
"""


def snippets():
    """Language, what a comment says of it, and text of each fenced block."""
    return re.findall(r"(?:<!-- test: (.+?) -->\n)?```(\w*)\n(.*?)```", README, re.DOTALL)


def snippet(test):
    (text,) = [text for name, _, text in snippets() if name == test]
    return text


def django(folder, settings, *arguments):
    site = subprocess.run(
        [sys.executable, "-c", SITE.format(secret_key=SECRET_KEY), *arguments],
        cwd=folder,
        input=settings,
        text=True,
        capture_output=True,
    )
    assert site.returncode == 0, site.stderr
    return site.stdout.strip()


DJANGO_DB = 'SESSION_ENGINE = "django.contrib.sessions.backends.db"'


def test_every_snippet_has_a_test():
    names = [name or language for name, language, _ in snippets()]
    assert names == [
        "sh",
        "settings",
        "optional settings",
        "check",
        "export",
        "examples/greet.rs",
        "greeting",
        "dependency",
        "rust",
    ]


def test_commands_are_targets():
    commands = re.findall(r"^make (\S+)", README, re.MULTILINE)
    assert commands == ["demo", "test"]
    for command in commands:
        subprocess.run(["make", "--dry-run", command], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize("engine", ["db", "cache", "cached_db", "file", "signed_cookies"])
def test_a_switched_site_logs_nobody_out(tmp_path, engine):
    assert f"\n| `{engine}` | " in README
    ours = snippet("settings").replace("backends.db", f"backends.{engine}")
    theirs = DJANGO_DB.replace("backends.db", f"backends.{engine}")
    assert f'SESSION_ENGINE = "django_rust_sessions.backends.{engine}"' in ours

    cookie = django(tmp_path, theirs)
    assert django(tmp_path, ours, cookie) == "ada"
    cookie = django(tmp_path, ours)
    assert django(tmp_path, theirs, cookie) == "ada"
    assert django(tmp_path, ours, cookie[:-1] + "?") == "stranger"


def test_the_check_prints_that(tmp_path):
    site = """
SECRET_KEY = "the README's secret key, which guards nothing"
INSTALLED_APPS = ["django.contrib.sessions"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": "redis://127.0.0.1",
    }
}
"""
    engine = snippet("settings").replace("backends.db", "backends.cached_db")
    (tmp_path / "site_settings.py").write_text(site + engine + snippet("optional settings"))
    checked = subprocess.run(
        [sys.executable, "-m", "django", "check", "--settings", "site_settings"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        text=True,
        capture_output=True,
    )
    printed = (checked.stderr + checked.stdout).replace("\n\n", "\n").expandtabs(4)
    assert snippet("check") == f"$ python manage.py check\n{printed}"


def test_the_engines_page_names_what_the_code_knows():
    """Options of Redis, and the checks."""
    import inspect

    from django_rust_sessions import caches, checks

    page = (ROOT / "docs" / "engines.md").read_text()
    for option in caches._USED | caches._DEFAULTS.keys():
        assert f"`{option}`" in page, option
    source = inspect.getsource(checks)
    found = set(re.findall(r"NAME\}\.([IWE]\d{3})\b", source)) | {"W007", "W008"}
    assert set(re.findall(r"^\| ([IWE]\d{3}) \|", page, re.MULTILINE)) == found


def in_table(engine, operation):
    """What docs/engines.md says that Django and ours send."""
    page = (ROOT / "docs" / "engines.md").read_text()
    (row,) = re.findall(rf"^\| `{engine}`[^|]* {operation} \| (.+) \| (.+) \|$", page, re.MULTILINE)
    return [sent.split(", ") for sent in row]


def sent_by(store, operation, sent):
    """What each operation sends, where `sent()` says what was sent since it was asked last."""
    session = store()
    session.create()
    if operation == "create":
        return sent()
    session["tea"] = 1
    session.save()
    session, _ = store(session.session_key), sent()
    session.load()
    if operation == "load":
        return sent()
    session["tea"] = 2  # which loads it once more
    sent()
    getattr(session, operation)()
    return sent()


@pytest.mark.parametrize("operation", ["load", "save", "create", "delete"])
@pytest.mark.not_with("HASH_KEYS", "what is not there is looked for under the key too")
def test_the_engines_page_says_what_the_database_is_sent(django_db_blocker, operation):
    settings = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    with (
        django_db_blocker.unblock(),
        databases.database("default", settings) as connection,
        CaptureQueriesContext(connection),
    ):

        def sent():
            words = [query["sql"].split()[0] for query in connection.queries]
            connection.queries_log.clear()
            return words

        for store, said in zip(STORES["db"], in_table("db", operation), strict=True):
            assert sent_by(store, operation, sent) == said


@pytest.mark.not_with("LOCAL_CACHE", "a known session is not asked for, and it listens")
@pytest.mark.not_with("MERGE", "a save is a script")
@pytest.mark.parametrize("operation", ["load", "save", "create", "delete"])
@pytest.mark.not_with("HASH_KEYS", "what is not there is looked for under the key too")
def test_the_engines_page_says_what_redis_is_sent(redis_server, operation):
    url = redis_server["url"]
    cache = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": url}
    with (
        override_settings(CACHES={"default": cache}),
        redis.Redis.from_url(url) as client,
        client.monitor() as monitor,
    ):

        def sent():
            with redis.Redis.from_url(url) as other:
                other.ping()
            commands = iter(lambda: next(monitor.listen())["command"].split(), ["PING"])
            # Of SET, whether it wants a key to be there; the rest is values.
            return [
                " ".join([command[0], *(word for word in command if word in ("NX", "XX"))])
                for command in commands
                if command[0] not in ("CLIENT", "HELLO")  # which begin a connection
            ]

        for store, said in zip(STORES["cache"], in_table("cache", operation), strict=True):
            assert sent_by(store, operation, sent) == said


@pytest.fixture(scope="session")
def greet():
    if not shutil.which("cargo"):
        pytest.skip("cargo is not installed")
    (features,) = re.findall(r" --features (\S+) ", snippet("greeting"))
    subprocess.run(
        ["cargo", "build", "--quiet", "--example", "greet", "--features", features],
        cwd=ROOT,
        check=True,
    )
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return target / "debug" / "examples" / "greet"


def test_the_rust_program_is_the_example():
    assert snippet("examples/greet.rs") == (ROOT / "examples" / "greet.rs").read_text()


def test_the_rust_program_greets_whom_django_logged_in(tmp_path, greet):
    def run(*arguments):
        variables = {**os.environ, "SECRET_KEY": SECRET_KEY}
        return subprocess.run(
            [greet, *arguments], cwd=tmp_path, env=variables, text=True, capture_output=True
        )

    cookie = django(tmp_path, DJANGO_DB)
    django(tmp_path, DJANGO_DB, *snippet("export").split()[2:])
    said = run(cookie)
    assert said.stdout == snippet("greeting").splitlines(keepends=True)[-1], said.stderr
    assert run(cookie).stdout == "Hello, ada! (2)\n"
    assert django(tmp_path, DJANGO_DB, cookie) == "ada 2"
    assert run("a-cookie-that-nobody-has").stdout == "Hello, stranger!\n"
    assert "usage: greet" in run().stderr
    assert "no session key" in run("short").stderr


def test_the_handler_is_one_of_the_guide_which_is_compiled():
    (handler,) = [text for name, language, text in snippets() if language == "rust" and not name]
    assert handler in (ROOT / "docs" / "rust.md").read_text()


def test_the_dependency_is_this_crate():
    import tomllib

    (name, dependency), *_ = tomllib.loads(snippet("dependency"))["dependencies"].items()
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text())
    assert name == manifest["package"]["name"]
    assert set(dependency["features"]) <= set(manifest["features"])


def test_every_feature_is_in_the_table():
    import tomllib

    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text())
    features = [name for name in manifest["features"] if name != "default" and name[0] != "_"]
    section = README.split("## Features of the crate")[1].split("\n## ")[0]
    named = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.+?) \|", section, re.MULTILINE)))
    assert sorted(named) == sorted(
        name for name in features if name != "default" and name[0] != "_"
    )


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)]+)\)|(?:src|srcset)=\"([^\"]+)\"", README):
        path, _, anchor = "".join(target).partition("#")
        assert (ROOT / path).exists(), target
        headings = (
            re.findall(r"^#+ (.+)", (ROOT / path).read_text(), re.MULTILINE) if anchor else []
        )
        assert not anchor or anchor in [each.lower().replace(" ", "-") for each in headings]
