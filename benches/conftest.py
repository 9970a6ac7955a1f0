"""Settings for Django, and the table at the end of a run."""

import django_rust_sessions._native
import pytest
from django.conf import settings

results = pytest.StashKey[list[str]]()


def pytest_configure(config):
    settings.configure(
        SECRET_KEY="measured with a key of the usual length, of fifty.",
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        INSTALLED_APPS=["django.contrib.sessions"],
        USE_TZ=True,
    )
    config.stash[results] = []


@pytest.fixture(autouse=True, scope="session")
def optimised():
    if django_rust_sessions._native.DEBUG:
        pytest.exit("the native module is not optimised: run `make build` first", returncode=1)


@pytest.fixture
def report(request):
    return request.config.stash[results].append


def pytest_terminal_summary(terminalreporter, config):
    terminalreporter.section("microseconds, median (quartiles) of interleaved rounds")
    for line in config.stash[results]:
        terminalreporter.write_line(line)
