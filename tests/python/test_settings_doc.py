"""What docs/settings.md says is so."""

import re
from pathlib import Path

import pytest
from django.test import override_settings
from django_rust_sessions.backends.signed_cookies import MAX_COOKIE
from django_rust_sessions.conf import DEFAULTS, get_options
from django_rust_sessions.serializers import MAX_DEPTH, VALUE_SIZE

TEXT = (Path(__file__).parents[2] / "docs" / "settings.md").read_text("utf-8")
SNIPPETS = re.findall(r"<!-- test: (.+?) -->\n```python\n(.*?)```", TEXT, re.DOTALL)


def test_every_snippet_has_a_test():
    names = [name for name, _ in SNIPPETS]
    assert names == ["every option, with its default", "async commit", "upgrade", "pickle"]
    assert TEXT.count("```python") == len(names)


def test_the_defaults():
    found = {}
    exec(SNIPPETS[0][1], found)
    assert found["RUST_SESSIONS"] == DEFAULTS
    assert list(found["RUST_SESSIONS"]) == list(DEFAULTS)
    assert re.findall(r"^\| `([A-Z_]+)` \|", TEXT, re.MULTILINE) == list(DEFAULTS)


@pytest.mark.parametrize(
    ("name", "expected"), [("upgrade", (True, False)), ("pickle", (False, True))]
)
def test_the_options_are_accepted(name, expected):
    found = {}
    exec(dict(SNIPPETS)[name], found)
    settings = {name: value for name, value in found.items() if name.isupper()}
    with override_settings(**settings):
        options = get_options()
        assert (options.legacy, options.pickles) == expected


def test_the_numbers():
    assert f"Beyond {MAX_COOKIE} bytes" in TEXT
    assert f"more than {MAX_DEPTH} levels deep" in TEXT
    assert f"each value counts {VALUE_SIZE} bytes" in TEXT


def test_links_lead_somewhere():
    titles = re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    links = re.findall(r"\]\(#([^)]+)\)", TEXT)
    assert links
    assert set(links) <= anchors
