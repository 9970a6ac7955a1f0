"""A Django project on SQLite in memory, for the tests of the Python package."""

import databases
import pytest
import switches
from django.conf import settings
from django.db import connection

SECRET_KEY = "not a secret: tests only"


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "not_with(option, reason): asserts what this option of RUST_SESSIONS changes"
    )
    settings.configure(
        SECRET_KEY=SECRET_KEY,
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
            "project",
        ],
        MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
        ROOT_URLCONF="project",
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        USE_TZ=True,
        # So that each test runs with a switch on that is off by default.
        RUST_SESSIONS=switches.ON,
    )


def pytest_collection_modifyitems(items):
    for item in items:
        for mark in item.iter_markers("not_with"):
            option, reason = mark.args
            if switches.is_on(option):
                item.add_marker(pytest.mark.skip(reason=f"{option} is on: {reason}"))


@pytest.fixture
def clock(monkeypatch):
    """Sets what `time.time()` says; a moment in 2026 to begin with."""

    def set_clock(seconds):
        monkeypatch.setattr("time.time", lambda: seconds)

    set_clock(1_790_000_000.25)
    return set_clock


# A module that uses these two has STORES: Django's engine and ours, in this order.


@pytest.fixture(params=[0, 1], ids=["django writes", "rust writes"])
def writer(request):
    return request.module.STORES[request.param]


@pytest.fixture(params=[0, 1], ids=["django reads", "rust reads"])
def reader(request):
    return request.module.STORES[request.param]


@pytest.fixture(scope="module", params=databases.KINDS)
def any_database(request, django_db_blocker):
    """The default database is of each kind, in autocommit mode as on a site."""
    at = databases.settings_of(request.param, request)
    with django_db_blocker.unblock(), databases.database("default", at):
        yield request.param.partition(",")[0]


@pytest.fixture
def table(any_database):
    """An empty table of sessions, in each kind of database."""
    from django.contrib.sessions.models import Session

    yield any_database
    assert not connection.in_atomic_block
    Session.objects.all().delete()


@pytest.fixture
def sqlite(django_db_blocker):
    """The default database is one on SQLite, where the vendor does not matter."""
    at = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    with django_db_blocker.unblock(), databases.database("default", at) as connected:
        yield connected
