"""Two ways to visit the demo: headless Chromium, and plain HTTP where there is no browser.

Both have the same few methods, so that the story in story.py is written once.
"""

import http.cookiejar
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from html.parser import HTMLParser

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TIMEOUT = 15  # seconds for a page


class NoBrowser(Exception):
    """What is missing, and how to get it."""


class Chromium:
    """The system's Chromium, driven by Playwright."""

    name = "headless Chromium"

    def __init__(self):
        executable = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
        if executable is None:
            raise NoBrowser("there is no chromium (`make servers` installs it)")
        try:
            from playwright.sync_api import sync_playwright
        except ImportError:
            raise NoBrowser("Python's playwright is missing (`make venv` installs it)") from None
        self._playwright = sync_playwright().start()
        try:
            self.browser = self._playwright.chromium.launch(
                executable_path=executable, args=CHROMIUM_ARGUMENTS
            )
        except Exception as error:
            self._playwright.stop()
            raise NoBrowser(f"{executable} does not start: {str(error).splitlines()[0]}") from None

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.browser.close()
        self._playwright.stop()

    def new_visitor(self):
        return ChromiumVisitor(self.browser.new_context(viewport={"width": 1080, "height": 760}))

    def save_pictures(self, folder):
        """What each visitor sees now, for whoever looks for the reason of a failure."""
        for number, context in enumerate(self.browser.contexts, 1):
            path = folder / f"visitor-{number}.png"
            context.pages[0].screenshot(path=path, full_page=True)
            yield path


class ChromiumVisitor:
    """Somebody with a browser profile of their own."""

    def __init__(self, context):
        self.context = context
        context.set_default_timeout(TIMEOUT * 1000)
        self.page = context.new_page()
        self.status = None

    def open(self, address):
        self.status = self.page.goto(address).status

    def press(self, button, **fields):
        """Fills the fields with these labels (`_` for a space) and presses the button."""
        for label, value in fields.items():
            self.page.get_by_label(label_text(label), exact=True).fill(value)
        with self.page.expect_navigation() as navigation:
            self.page.get_by_role("button", name=button, exact=True).first.click()
        self.status = navigation.value.status

    @property
    def url(self):
        return self.page.url

    @property
    def text(self):
        return " ".join(self.page.inner_text("body").split())

    def count(self, tag):
        """How many elements of this name the page has."""
        return self.page.locator(tag).count()

    def cookies(self):
        return {cookie["name"]: cookie["value"] for cookie in self.context.cookies()}

    def cookie_attributes(self, name):
        [cookie] = [cookie for cookie in self.context.cookies() if cookie["name"] == name]
        names = ("value", "domain", "path", "secure", "httpOnly", "sameSite")
        return {key: cookie[key] for key in names}

    def set_cookie(self, address, name, value):
        self.context.add_cookies([{"name": name, "value": value, "url": address}])


class PlainHttp:
    """Forms, links and cookies without a browser: nothing is drawn and no script runs."""

    name = "plain HTTP"

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        pass

    def new_visitor(self):
        return HttpVisitor()

    def save_pictures(self, folder):
        return []


class HttpVisitor:
    """Somebody with a cookie jar of their own."""

    def __init__(self):
        self.jar = http.cookiejar.CookieJar()
        self.opener = urllib.request.build_opener(
            urllib.request.HTTPCookieProcessor(self.jar), urllib.request.ProxyHandler({})
        )
        self.status = self.url = self.page = None

    def open(self, address, data=None, headers=None):
        request = urllib.request.Request(address, data=data, headers=headers or {})
        try:
            response = self.opener.open(request, timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            response = error
        with response:
            self.status, self.url = response.status, response.url
            self.page = Page(response.read().decode())

    def press(self, button, **fields):
        """Fills the fields with these labels (`_` for a space) and presses the button."""
        labels = {label_text(label): value for label, value in fields.items()}
        form = next(form for form in self.page.forms if button in form["buttons"])
        data = form["fields"] | form["buttons"][button]
        for label, value in labels.items():
            data[form["names"][self.page.labels[label]]] = value
        parts = urllib.parse.urlsplit(self.url)
        self.open(
            urllib.parse.urljoin(self.url, form["action"]),
            urllib.parse.urlencode(data).encode(),
            # As browsers do for every POST.
            {"Origin": f"{parts.scheme}://{parts.netloc}"},
        )

    @property
    def text(self):
        return " ".join(" ".join(self.page.text).split())

    def count(self, tag):
        """How many elements of this name the page has."""
        return self.page.tags.count(tag)

    def cookies(self):
        return {cookie.name: cookie.value for cookie in self.jar if not cookie.is_expired()}

    def cookie_attributes(self, name):
        [cookie] = [cookie for cookie in self.jar if cookie.name == name]
        return {
            "value": cookie.value,
            "domain": cookie.domain,
            "path": cookie.path,
            "secure": cookie.secure,
            "httpOnly": cookie.has_nonstandard_attr("HttpOnly"),
            "sameSite": cookie.get_nonstandard_attr("SameSite"),
        }

    def set_cookie(self, address, name, value):
        host = urllib.parse.urlsplit(address).hostname
        expires = int(time.time()) + 3600
        self.jar.set_cookie(
            http.cookiejar.Cookie(
                0, name, value, None, False, host, True, False, "/", True, False, expires, False,
                None, None, {},
            )
        )  # fmt: skip


class Page(HTMLParser):
    """The text of a page, its tags and its forms."""

    def __init__(self, source):
        super().__init__()
        self.text, self.tags, self.forms = [], [], []
        self.labels = {}  # label -> id of its field
        self._hidden = self._form = self._label = self._button = None
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        if tag in ("head", "style", "script"):
            self._hidden = self._hidden or tag
        elif tag == "form":
            self._form = {
                "action": attributes.get("action") or "",
                "fields": {},
                "buttons": {},
                "names": {},  # id of a field -> its name
            }
            self.forms.append(self._form)
        elif tag == "label":
            self._label = (attributes["for"], [])
        elif tag == "button":
            self._button = (attributes, [])
        elif tag == "input" and self._form is not None:
            self._form["fields"][attributes["name"]] = attributes.get("value") or ""
            self._form["names"][attributes.get("id")] = attributes["name"]

    def handle_data(self, data):
        if self._hidden:
            return
        self.text.append(data)
        for element in (self._label, self._button):
            if element:
                element[1].append(data)

    def handle_endtag(self, tag):
        if tag == self._hidden:
            self._hidden = None
        elif tag == "form":
            self._form = None
        elif tag == "label":
            field, text = self._label
            self.labels["".join(text).strip()] = field
            self._label = None
        elif tag == "button":
            attributes, text = self._button
            name = attributes.get("aria-label") or "".join(text).strip()
            pressed = {attributes["name"]: attributes["value"]} if "name" in attributes else {}
            if self._form is not None:
                self._form["buttons"].setdefault(name, pressed)
            self._button = None


def label_text(name):
    return name.replace("_", " ")
