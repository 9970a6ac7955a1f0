"""A warning when browsers drop the session's cookie for its size."""

import contextlib
import logging
import os
import subprocess
import sys

import pytest
from differential import DjangoCookieStore, RustCookieStore
from django.test import Client, override_settings
from django_rust_sessions.backends import signed_cookies


@contextlib.contextmanager
def captured_logs():
    logger = logging.getLogger("django_rust_sessions")
    handler, logs = logging.Handler(), []
    handler.emit = lambda record: logs.append((record.name, record.levelname, record.getMessage()))
    logger.addHandler(handler)
    try:
        yield logs
    finally:
        logger.removeHandler(handler)


NOISE = os.urandom(40_000).hex()


@pytest.fixture(autouse=True)
def nothing_said_yet(monkeypatch):
    monkeypatch.setattr(signed_cookies, "_warned", {})


def save_text(length, **values):
    store = RustCookieStore()
    store.update({**values, "noise": NOISE[:length]})
    with captured_logs() as logs:
        store.save()
    return logs, len(store.session_key)


def test_the_limit_is_exact():
    """Name, "=" and value: 4093 bytes are kept, 4094 are not."""
    store = RustCookieStore()
    store["noise"] = NOISE[:5000]
    store.save()
    value = len(store.session_key)
    for size, count in [(4093, 0), (4094, 1)]:
        # The name makes up for what compression does not let us choose.
        assert value < 4000
        with (
            override_settings(SESSION_COOKIE_NAME="s" * (size - 1 - value)),
            captured_logs() as logs,
        ):
            store.save()
        assert len(logs) == count
    assert logs[0][:2] == ("django_rust_sessions", "WARNING")
    assert "The session cookie is 4094 bytes, and browsers drop one of more than 4093" in logs[0][2]


def test_it_names_the_largest_keys_and_no_value():
    (log,), size = save_text(9000, small="x" * 30, middle="secret" * 20, large="secret" * 40)
    assert log[2].endswith(
        "Largest keys, before compression: 'noise' (9012 bytes), 'large' (252 bytes), "
        "'middle' (133 bytes)."
    )
    assert f"is {size + len('sessionid=')} bytes" in log[2]
    assert "secret" not in log[2]
    assert NOISE[:20] not in log[2]


def test_once_for_each_doubling():
    said = [
        len(save_text(length)[0]) for length in (5000, 9000, 9000, 11_000, 16_000, 9000, 40_000)
    ]
    assert said == [0, 1, 0, 0, 1, 0, 1]


def test_names_cannot_break_the_log():
    (log,), _ = save_text(9000, **{"line\nbreak" + "x" * 9000: 1})
    assert "\n" not in log[2]
    assert len(log[2]) < 400


def test_small_cookies_and_loading_say_nothing():
    assert save_text(10)[0] == []
    store = DjangoCookieStore()
    store["noise"] = NOISE[:9000]
    store.save()
    with captured_logs() as logs:
        assert RustCookieStore(store.session_key).load() == {"noise": NOISE[:9000]}
    assert logs == []


class WholeSerializer(signed_cookies.codec.JSONSerializer):
    """Wants the session whole."""

    def dumps(self, obj):
        assert "a" in obj
        return super().dumps(obj)


def test_the_warning_never_breaks_the_save():
    with override_settings(SESSION_SERIALIZER=f"{__name__}.WholeSerializer"):
        (log,), size = save_text(9000, a=1)
    assert "'noise' (0 bytes)" in log[2]
    assert size > 4093


def test_in_a_site(settings):
    """The response is Django's all the same."""
    settings.SESSION_ENGINE = "django_rust_sessions.backends.signed_cookies"
    with captured_logs() as logs:
        for _ in range(3):
            response = Client().get("/store", {"noise": NOISE[:9000]})
            assert len(response.cookies["sessionid"].value) > 4093
    assert [log[0] for log in logs] == ["django_rust_sessions"]


def test_a_new_process_says_it_again():
    code = """
import logging
from django.conf import settings
settings.configure(SECRET_KEY="x")
from django_rust_sessions.backends.signed_cookies import SessionStore
logging.basicConfig(format="%(name)s %(levelname)s")
for _ in range(3):
    store = SessionStore()
    store["noise"] = [n * n % 65537 for n in range(3000)]
    store.save()
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stderr == "django_rust_sessions WARNING\n"
    assert logging.getLogger("django_rust_sessions").level == logging.NOTSET
