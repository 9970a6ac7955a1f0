"""The Rust examples beside their Django site: the README and the guide promise what they do."""

import contextlib
import html
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples"))
sys.path.insert(0, str(ROOT / "tests"))

import run as examples  # noqa: E402
import servers  # noqa: E402

APIS = ["axum_api", "actix_api"]
# Passwords are slow on purpose, the more so in a build for tests on a busy machine.
ANSWERS_WITHIN = 60  # seconds


@pytest.fixture(scope="module")
def programs():
    """All three, built with the features of the other Rust tests, whose build is there."""
    names = [word for name in examples.FEATURES for word in ("--example", name)]
    subprocess.run(
        ["cargo", "build", "--quiet", "--all-features", *names],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return {name: ROOT / "target" / "debug" / "examples" / name for name in examples.FEATURES}


@pytest.fixture
def started(programs, tmp_path, request):
    """Starts an example; over SQLite, or with EXAMPLE_ENGINE and EXAMPLE_REDIS elsewhere."""
    with contextlib.ExitStack() as stack:

        def start(name, **variables):
            ports = servers.free_port(), servers.free_port()
            example = examples.Example(programs[name], tmp_path, *ports, **variables)
            return stack.enter_context(example)

        yield start


class Browser:
    """One visitor. Cookies do not know ports, so both servers get them."""

    def __init__(self):
        self.cookies = CookieJar(DefaultCookiePolicy())
        self.opener = urllib.request.build_opener(
            urllib.request.HTTPCookieProcessor(self.cookies), urllib.request.ProxyHandler({})
        )

    def open(self, url, data=None, **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if isinstance(data, dict):
            data = urllib.parse.urlencode(data).encode()
        try:
            response = self.opener.open(
                urllib.request.Request(url, data, headers), timeout=ANSWERS_WITHIN
            )
        except urllib.error.HTTPError as error:
            response = error
        with response:
            self.url, self.status, self.text = (
                response.url,
                response.status,
                response.read().decode(),
            )
        return self.text

    def json(self, url):
        return json.loads(self.open(url))

    def submit(self, origin, action, **fields):
        """The form on this page that goes to `action`, with the token that it carries."""
        form = re.search(
            rf'<form method="post"(?: action="{re.escape(action)}")?>.*?</form>', self.text, re.S
        )
        hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="(.*?)"', form[0]))
        hidden = {name: html.unescape(value) for name, value in hidden.items()}
        url = urllib.parse.urljoin(self.url, action)
        return self.open(url, hidden | fields, Origin=origin)

    def cookie(self, name):
        return next((each.value for each in self.cookies if each.name == name), None)

    def log_in(self, site, name="ada", password="two-doors"):
        self.open(f"{site}/login/")
        self.submit(site, "", username=name, password=password)


@pytest.fixture
def browser():
    return Browser()


def post_json(browser, url, value, **headers):
    data = json.dumps(value).encode()
    return browser.open(url, data, Content_Type="application/json", **headers)


@pytest.mark.parametrize("name", APIS)
def test_an_api_knows_whom_django_logged_in(started, browser, name):
    example = started(name)
    django, rust = example.django, example.rust
    assert browser.json(f"{rust}/api/me") == {"username": None, "cart": []}
    assert browser.cookie("sessionid") is None
    post_json(browser, f"{rust}/api/cart", {"name": "tea"})
    assert browser.status == 403, "no CSRF token"

    browser.log_in(django)
    assert browser.json(f"{rust}/api/me") == {"username": "ada", "cart": []}
    token = browser.json(f"{rust}/api/csrf-token")["token"]
    post_json(browser, f"{rust}/api/cart", {"name": "tea"})
    assert browser.status == 403, "a cookie alone is no proof"
    post_json(
        browser,
        f"{rust}/api/cart",
        {"name": "tea"},
        X_CSRFToken=token,
        Origin="http://evil.example",
    )
    assert browser.status == 403, "a token from elsewhere"
    answer = post_json(browser, f"{rust}/api/cart", {"name": "tea"}, X_CSRFToken=token, Origin=rust)
    assert (browser.status, json.loads(answer)) == (200, ["tea"])
    # Django answers the same, with the session of Rust.
    assert (
        browser.json(f"{django}/api/me")
        == browser.json(f"{rust}/api/me")
        == {
            "username": "ada",
            "cart": ["tea"],
        }
    )
    assert browser.json(f"{rust}/api/users/bob") == {"id": "2", "email": ""}
    assert browser.json(f"{rust}/api/users/nobody") is None
    # Whoever logs out in Django is nobody in Rust.
    browser.open(f"{django}/")
    browser.submit(django, "/logout/")
    assert browser.json(f"{rust}/api/me") == {"username": None, "cart": []}


@pytest.mark.parametrize("name", APIS)
def test_an_api_asks_for_permissions_and_for_users(started, name):
    example = started(name)
    nobody, bob = Browser(), Browser()
    bob.log_in(example.django, "bob")
    for browser, expected in ((nobody, 401), (bob, 403)):
        browser.open(f"{example.rust}/api/users/ada")
        assert browser.status == expected
    token = nobody.json(f"{example.rust}/api/csrf-token")["token"]
    url = f"{example.rust}/api/cart"
    post_json(nobody, url, {"name": "tea"}, X_CSRFToken=token, Origin=example.rust)
    assert nobody.status == 401


@pytest.mark.parametrize("name", APIS)
@pytest.mark.parametrize("engine", ["cache", "cached_db"])
def test_the_same_program_serves_sessions_in_redis(started, browser, redis_server, name, engine):
    example = started(name, EXAMPLE_ENGINE=engine, EXAMPLE_REDIS=redis_server["url"])
    browser.log_in(example.django)
    token = browser.json(f"{example.rust}/api/csrf-token")["token"]
    url = f"{example.rust}/api/cart"
    post_json(browser, url, {"name": "tea"}, X_CSRFToken=token, Origin=example.rust)
    assert browser.json(f"{example.django}/api/me") == {"username": "ada", "cart": ["tea"]}


def test_pages_log_in_show_notices_and_post_to_django(started, browser):
    example = started("axum_templates")
    django, rust = example.django, example.rust
    browser.open(f"{rust}/account/")
    assert browser.url == f"{django}/login/?next=/account/" or browser.url.endswith(
        "/login/?next=/account/"
    )

    browser.log_in(rust, password="wrong")
    assert "Username and password do not match." in browser.text
    secret = browser.cookie("csrftoken")
    browser.log_in(rust)
    assert "Welcome, ada." in browser.text
    assert "Hello, ada" in browser.text
    assert browser.cookie("csrftoken") != secret, "rotated at the login"
    # Django knows whom Rust logged in.
    assert browser.json(f"{django}/api/me")["username"] == "ada"

    # The form of the Rust page goes to Django, which comes back; its notice is shown by Rust, once.
    browser.open(f"{rust}/")
    assert "Welcome" not in browser.text
    browser.submit(rust, f"{django}/cart/add/", name="<b>tea</b>")
    assert browser.url == f"{rust}/"
    assert "&lt;b&gt;tea&lt;/b&gt; is in the cart, says Django." in browser.text
    assert "<li>&lt;b&gt;tea&lt;/b&gt;</li>" in browser.text
    browser.open(f"{rust}/")
    assert "says Django" not in browser.text

    assert "Your number is 1." in browser.open(f"{rust}/account/")
    browser.open(f"{rust}/")
    browser.submit(rust, "/logout/")
    assert browser.json(f"{django}/api/me") == {"username": None, "cart": []}


# ----------------------------------------------------------- the guide, docs/move-an-endpoint.md

GUIDE = (ROOT / "docs" / "move-an-endpoint.md").read_text()


def block(name):
    (text,) = re.findall(
        rf"<!-- test: {re.escape(name)} -->\n *```[\w,]+\n(.*?) *```", GUIDE, re.DOTALL
    )
    return text


def test_the_guide_shows_the_example_and_the_site():
    assert block("examples/axum_api/main.rs") == (ROOT / "examples/axum_api/main.rs").read_text()
    site = (ROOT / "examples/site/manage.py").read_text()
    assert f"\n\n\n{block('view')}\n\n" in site
    assert block("apps").split('"')[1] in site
    assert block("export").split()[2:] == ["export_session_settings", "--output", "sessions.toml"]


def test_the_guide_names_what_the_example_is_built_with():
    import tomllib

    wanted = tomllib.loads(block("dependencies"))["dependencies"]
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text())
    (example,) = [each for each in manifest["example"] if each["name"] == "axum_api"]
    ours = wanted.pop("django-sessions")
    assert sorted(ours["features"]) == sorted(example["required-features"])
    known = manifest["dependencies"] | manifest["dev-dependencies"]
    for name, value in wanted.items():
        version = value if isinstance(value, str) else value["version"]
        assert known[name]["version"].startswith(version), name
    source = block("examples/axum_api/main.rs")
    used = set(re.findall(r"\b(\w+)::", source)) | {"serde_json", "django_sessions"}
    assert {name.replace("-", "_") for name in wanted} <= used


def test_what_the_guide_says_of_the_file_and_of_the_answers(started, browser, tmp_path):
    example = started("axum_api")
    check = block("check").split()[2:]
    example.manage(*(str(tmp_path / word) if word == "sessions.toml" else word for word in check))
    browser.log_in(example.django)
    browser.open(f"{example.django}/")
    browser.submit(example.django, "/cart/add/", name="tea")
    variables = {
        **os.environ,
        "COOKIE": browser.cookie("sessionid"),
        "DJANGO": example.django,
        "RUST": example.rust,
        "no_proxy": "*",
    }
    answers = [
        json.loads(subprocess.check_output(["sh", "-c", command], env=variables))
        for command in block("compare").splitlines()
    ]
    (promised,) = re.findall(r"```json\n(.*?)```", GUIDE, re.DOTALL)
    assert answers == [json.loads(promised)] * 2
