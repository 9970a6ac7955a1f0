"""The demo's story without a person, against the real servers, and what must not happen in it."""

import contextlib
import http.client
import json
import os
import shutil
import socket
import tempfile
import time
from pathlib import Path

import pictures
from browsers import Chromium, NoBrowser, PlainHttp
from servers import PASSWORD, USERNAME, DemoError, Servers, find_service, free_port, tail

COOKIE = "two_doors_session"
NEW_PASSWORD = "three-doors"
HOSTILE = """<img src=x onerror="document.title='owned'"> & <b>bold</b>"""

# Put into the session by Django, to be found there unharmed after Rust saved it. Python source.
EXACT = r"""[float("nan"), float("-inf"), 2**70, -(10**30), 1.0, 1, "1.0", 1e16, -0.0, 0.1, True,
    None, "\ud83d", "é\U0001f980", {"b": 1, "a": [], "": {}, 1: "one"}]"""


class Failed(Exception):
    def __init__(self, what, expected, seen):
        super().__init__(f"{what}\n    expected: {expected}\n    seen:     {seen}")


def expect(what, expected, seen):
    if expected != seen:
        raise Failed(what, expected, seen)


def expect_text(visitor, *texts):
    """Each of `texts` stands on the visitor's page."""
    for text in texts:
        if text not in visitor.text:
            raise Failed(visitor.url, f"a page with {text!r}", f"[{visitor.status}] {visitor.text}")


def check_all(stores, pictures_folder=None):
    """Plays the story on each of these stores. Returns the exit code.

    A browser looks at the first; how pages look does not depend on the store."""
    service = find_service()
    failed = []
    for number, store in enumerate(stores):
        if check(service, store, in_browser=number == 0, pictures_folder=pictures_folder):
            failed.append(store)
    if len(stores) > 1:
        print(f"{len(stores) - len(failed)} of {len(stores)} stores hold.")
    if failed:
        print(f"Not so: {', '.join(failed)}. `make demo-check STORE={failed[0]}` plays one alone.")
    return 1 if failed else 0


def open_browser(pictures_folder):
    try:
        return Chromium()
    except NoBrowser as error:
        if os.environ.get("CI") == "true":
            raise DemoError(f"CI=true asks for a browser, and {error}.") from None
        if pictures_folder:
            raise DemoError(f"Pictures need a browser, and {error}.") from None
        print(f"Over plain HTTP, since {error}; how pages look stays unchecked.")
        return PlainHttp()


def check(service, store, in_browser, pictures_folder=None):
    """Plays the story on one store. Returns the exit code."""
    browser = open_browser(pictures_folder) if in_browser else PlainHttp()
    folder = Path(tempfile.mkdtemp(prefix="shared-login-"))
    began = time.monotonic()
    passed = False
    with browser, Servers(folder, service, free_port(), free_port(), store) as servers:
        kept = f"{store} ({servers.store.engine})"
        print(f"Playing the demo's story on {kept}, over {browser.name}", flush=True)
        story = Story(servers, browser, pictures_folder)
        step = None
        try:
            for step in story.steps():
                step_began = time.monotonic()
                step()
                print(f"  ✓ {time.monotonic() - step_began:5.2f} s  {step.__doc__}", flush=True)
            passed = True
        except Exception as error:
            # Whatever it was, the reader needs the step, the reason and the logs.
            known = isinstance(error, Failed | DemoError)
            print(f"  ✗          {step.__doc__}\n\n{error if known else repr(error)}\n")
            for picture in browser.save_pictures(folder):
                print(f"What the browser shows: {picture}")
            for name in ("django", "rust"):
                print(f"The end of {servers.log(name)}:\n{tail(servers.log(name))}")
        finally:
            story.close()
    if not passed:
        return 1
    shutil.rmtree(folder)
    print(f"The demo's story holds on {store} ({time.monotonic() - began:.0f} s).")
    return 0


class Story:
    """Each step is a method; its docstring is what the step shows."""

    def __init__(self, servers, browser, pictures_folder):
        self.servers = servers
        self.django, self.rust = servers.django, servers.rust
        # What each server says to whom it does not know.
        self.nobody = (self.django, "One shop, two doors."), (self.rust, "Nobody is logged in.")
        self.browser = browser
        self.pictures_folder = pictures_folder
        # The cookie holds the whole session: nothing is stored that could be counted or deleted.
        self.is_in_cookie = servers.store.engine == "signed_cookies"
        self.django_child = None

    def close(self):
        if self.django_child:
            self.django_child.stdin.close()
            self.django_child.wait()

    def steps(self):
        yield self.servers_start
        yield self.nobody_yet
        yield self.login
        yield self.rust_greets
        yield self.rust_adds
        yield self.django_shows
        yield self.rust_removes
        yield self.values_untouched
        yield self.html_is_escaped
        if isinstance(self.browser, Chromium):
            yield self.light_and_dark
            yield self.phone
        yield self.tampered_cookie
        if not self.is_in_cookie:
            yield self.tampered_store
        yield self.foreign_origin
        if not self.is_in_cookie:
            yield self.deleted_meanwhile
        yield self.inactive_user
        yield self.rust_logs_out
        yield self.password_change
        yield self.older_session_refused
        yield self.logs_are_clean

    def servers_start(self):
        """Migrations, a user, and both servers answer"""
        self.servers.prepare(quiet=True)
        self.servers.start()

    def nobody_yet(self):
        """Without a login neither server knows anybody, and no session is made"""
        self.ada = self.browser.new_visitor()
        self.ada.open(self.django)
        expect_text(self.ada, "One shop, two doors.", "Django")
        self.ada.open(self.rust)
        expect_text(self.ada, "Nobody is logged in.", "axum · Rust")
        self.expect_sessions(0)
        expect("the session cookie", None, self.ada.cookies().get(COOKIE))

    def login(self):
        """Log in on Django, sent there by Rust, and back again"""
        self.ada.open(f"{self.django}/login/?next={self.rust}/")
        self.ada.press("Log in", Username=USERNAME, Password=PASSWORD)
        expect("the address after the login", f"{self.rust}/", self.ada.url)
        self.expect_sessions(1)

    def rust_greets(self):
        """The Rust page greets that user by name, and both show the same session"""
        key = self.key
        for address, badge in ((self.rust, "axum · Rust"), (self.django, "Python")):
            self.ada.open(address)
            expect_text(self.ada, "Hello, Ada.", f"Ada Lovelace ({USERNAME})", badge)
            expect_text(self.ada, f"{key[:4]}…{key[-4:]}")

    def rust_adds(self):
        """Rust puts something in the cart that Django began"""
        self.ada.open(f"{self.django}/cart/")
        self.ada.press("Add to cart", Add_an_item="Stoneware mug")
        expect_text(self.ada, "Stoneware mug added by Django")
        self.ada.open(f"{self.rust}/cart/")
        expect_text(self.ada, "Stoneware mug added by Django")
        cookie_of_django = self.cookie_attributes()
        self.ada.press("Jasmine tea")
        expect_text(self.ada, "Jasmine tea added by Rust")
        expect("the cookie of Rust", cookie_of_django, self.cookie_attributes())

    def django_shows(self):
        """Django shows it, and Rust what Django adds"""
        self.ada.open(f"{self.django}/cart/")
        both = "Stoneware mug added by Django Remove Jasmine tea added by Rust Remove"
        expect_text(self.ada, "Cart 2", both)
        self.ada.press("Coffee beans")
        self.ada.open(f"{self.rust}/cart/")
        expect_text(self.ada, "Cart 3", f"{both} Coffee beans added by Django Remove")
        if self.pictures_folder:
            pictures.take(self.ada, self.django, self.rust, self.pictures_folder)

    def rust_removes(self):
        """Rust takes out what Django added, and Django what Rust added"""
        self.ada.open(f"{self.rust}/cart/")
        self.ada.press("Remove Stoneware mug")
        self.ada.open(f"{self.django}/cart/")
        self.ada.press("Remove Jasmine tea")
        expect_text(self.ada, "Cart 1", "In your cart Coffee beans added by Django Remove Add")

    def values_untouched(self):
        """NaN, 2**70, 1.0, a lone surrogate: what Rust did not touch is the same to the letter"""
        self.ada.set_cookie(self.django, COOKIE, self.ask("set", self.key, "exact", EXACT))
        text, values = self.ask("text", self.key), dict(self.ask("values", self.key))
        self.ada.open(f"{self.rust}/cart/")
        self.ada.press("Stoneware mug")
        text_now, values_now = self.ask("text", self.key), dict(self.ask("values", self.key))
        changed = values.pop("cart") != values_now.pop("cart")
        expect("whether Rust changed the cart", True, changed)
        expect("the other values as Django prints them", values, values_now)
        expect("their order", list(values), list(values_now))
        beginning = "[nan, -inf, 1180591620717411303424,"
        expect("the beginning of one", beginning, values_now["exact"][: len(beginning)])
        if text is not None:
            others = [[pair for pair in pairs if pair[0] != "cart"] for pairs in (text, text_now)]
            expect("the other values as JSON text", *others)

    def html_is_escaped(self):
        """HTML in an item's name is shown as text by both"""
        for address in (self.django, self.rust):
            self.ada.open(f"{address}/cart/")
            self.ada.press("Add to cart", Add_an_item=HOSTILE)
            for other in (self.django, self.rust):
                self.ada.open(f"{other}/cart/")
                expect_text(self.ada, HOSTILE)
                expect("images on the page", 0, self.ada.count("img"))
                expect("bold text on the page", 0, self.ada.count("b"))
            self.ada.press(f"Remove {HOSTILE}")

    def light_and_dark(self):
        """Pages are readable, light and dark: contrast is 4.5 to 1 or better (WCAG AA)"""
        guest = self.browser.new_visitor()
        for visitor, url in (
            (self.ada, f"{self.django}/"),
            (self.ada, f"{self.django}/cart/"),
            (self.ada, f"{self.django}/password/"),
            (self.ada, f"{self.rust}/"),
            (self.ada, f"{self.rust}/cart/"),
            (guest, f"{self.django}/"),
            (guest, f"{self.django}/login/"),
            (guest, f"{self.rust}/"),
            (guest, f"{self.rust}/no-such-page/"),
        ):
            visitor.open(url)
            backgrounds = set()
            for scheme in ("light", "dark"):
                # Without transitions, so that no colour is on its way.
                visitor.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
                worst = visitor.page.evaluate(pictures.WORST_CONTRAST)
                expect(f"contrast below 4.5 on {url}, {scheme}", None, worst["tooLow"])
                backgrounds.add(worst["background"])
            expect(f"different backgrounds of {url}, light and dark", 2, len(backgrounds))
            visitor.page.emulate_media(color_scheme="null", reduced_motion="null")

    def phone(self):
        """On a phone nothing sticks out, and each field has a label"""
        self.ada.page.set_viewport_size({"width": 360, "height": 740})
        for url in (
            f"{self.django}/",
            f"{self.django}/cart/",
            f"{self.django}/password/",
            f"{self.rust}/",
            f"{self.rust}/cart/",
        ):
            self.ada.open(url)
            width, unlabelled = self.ada.page.evaluate(pictures.WIDTH_AND_UNLABELLED)
            expect(f"width of {url}", 360, width)
            expect(f"fields without a label on {url}", [], unlabelled)
        self.ada.page.set_viewport_size({"width": 1080, "height": 760})

    def tampered_cookie(self):
        """A changed cookie is nobody's, on both sides"""
        key = self.key
        changed = key[:-1] + ("a" if key[-1] != "a" else "b")
        eve = self.browser.new_visitor()
        for value in (changed, "short", "../../../../etc/passwd", "' OR 1=1 --", "x" * 3000):
            for address, says in self.nobody:
                eve.set_cookie(address, COOKIE, value)
                eve.open(address)
                expect("status", 200, eve.status)
                expect_text(eve, says)
                after = eve.cookies().get(COOKIE)
                # Django's signed_cookies gives a new, empty session in its place.
                is_empty = self.is_in_cookie and after and self.ask("values", after) == []
                expect("the cookie afterwards", None, None if is_empty else after)

    def tampered_store(self):
        """What was changed in the store is nobody's, on both sides, and the Rust log warns of it"""
        key = self.key
        good = self.ask("damage", key)
        for address, says in self.nobody:
            self.ask("evict", key)
            self.ada.set_cookie(address, COOKIE, key)
            self.ada.open(address)
            expect("status", 200, self.ada.status)
            expect_text(self.ada, says)
        log = self.servers.log("rust").read_text()
        words = ("Session data corrupted", "Session not read from the cache")
        expect("a warning in the Rust log", True, any(word in log for word in words))
        expect("the session key in the Rust log", False, key in log)
        self.ask("mend", key, good)
        self.ada.set_cookie(self.rust, COOKIE, key)
        self.ada.open(self.rust)
        expect_text(self.ada, "Hello, Ada.")

    def foreign_origin(self):
        """Rust takes no form from another site, nor a call under another name"""
        before = self.ask("values", self.key)
        for headers, status in (
            ({"Origin": "https://elsewhere.example"}, 403),
            ({"Origin": self.django}, 403),
            ({"Origin": "null"}, 403),
            ({}, 403),
            ({"Origin": "http://evil.example", "Host": "evil.example"}, 400),
        ):
            expect(f"status of a form with {headers}", status, self.post_to_rust(headers))
        expect("the session afterwards", before, self.ask("values", self.key))
        # The same form does pass from the service's own pages.
        expect("status of its own form", 303, self.post_to_rust({"Origin": self.rust}))

    def deleted_meanwhile(self):
        """A session that is deleted while Rust works on it stays deleted: status 400"""
        # A second session, as a login elsewhere would have made it.
        key = self.ask("copy", self.key)
        form = b"name=Too+late"
        port = self.port(self.rust)
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            # "100 Continue" comes when the service asks for the form: the session is loaded then.
            connection.sendall(
                b"POST /cart/add/ HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nOrigin: %s\r\nCookie: %s=%s\r\n"
                b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n"
                b"Expect: 100-continue\r\nConnection: close\r\n\r\n"
                % (port, self.rust.encode(), COOKIE.encode(), key.encode(), len(form))
            )
            expect("the interim answer", b"HTTP/1.1 100 Continue", connection.recv(21))
            self.ask("delete", key)
            connection.sendall(form)
            answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
        expect("status", "400", answer.partition("HTTP/1.1 ")[2][:3])
        expect("whether the page says why", True, "deleted before the request completed" in answer)
        expect("whether the session came back", False, self.ask("is_stored", key))

    def inactive_user(self):
        """Who is no longer active is nobody, on both sides"""
        self.ask("active", False)
        self.ada.open(self.rust)
        expect_text(self.ada, "Nobody is logged in.")
        self.ada.open(self.django)
        expect_text(self.ada, "One shop, two doors.")
        self.ask("active", True)
        self.ada.open(self.rust)
        expect_text(self.ada, "Hello, Ada.")

    def rust_logs_out(self):
        """Log out in Rust: Django knows nobody, cookie and row are gone"""
        key = self.key
        self.ada.press("Log out")
        expect_text(self.ada, "Nobody is logged in.")
        expect("the cookie", None, self.ada.cookies().get(COOKIE))
        if not self.is_in_cookie:
            expect("whether the session is still stored", False, self.ask("is_stored", key))
        self.ada.open(self.django)
        expect_text(self.ada, "One shop, two doors.")
        if not self.is_in_cookie:
            # Who kept the cookie has nothing of it.
            self.ada.set_cookie(self.django, COOKIE, key)
            self.ada.open(self.django)
            expect_text(self.ada, "One shop, two doors.")

    def password_change(self):
        """Log in twice, change the password in Django: that session goes on, on both sides"""
        self.older = self.browser.new_visitor()
        self.log_in(self.older)
        self.log_in(self.ada)
        self.older.open(self.rust)
        expect_text(self.older, "Hello, Ada.")
        self.ada.open(f"{self.django}/password/")
        self.ada.press(
            "Change password",
            Old_password=PASSWORD,
            New_password=NEW_PASSWORD,
            New_password_confirmation=NEW_PASSWORD,
        )
        expect_text(self.ada, "Your password is new.")
        for address in (self.rust, self.django):
            self.ada.open(address)
            expect_text(self.ada, "Hello, Ada.")

    def older_session_refused(self):
        """The other, older session is refused by Rust, and by Django"""
        self.older.open(self.rust)
        expect_text(self.older, "Nobody is logged in.")
        expect("the cookie", None, self.older.cookies().get(COOKIE))
        self.older.open(self.django)
        expect_text(self.older, "One shop, two doors.")
        self.expect_sessions(1)

    def logs_are_clean(self):
        """Neither server failed on the way, and no log holds the secret key"""
        secret = (self.servers.folder / "secret_key").read_text()
        # Of a damaged value in the cache, Django's log tells the whole story.
        failures = ['" 500 ', *(["Traceback"] if self.servers.store.engine != "cache" else [])]
        for name, signs in (("django", failures), ("rust", ("panicked", " 500"))):
            log = self.servers.log(name).read_text()
            for sign in signs:
                expect(f"{sign!r} in {self.servers.log(name)}", False, sign in log)
            expect(f"the secret key in {self.servers.log(name)}", False, secret in log)

    # What the steps are made of

    def log_in(self, visitor):
        visitor.open(f"{self.django}/login/")
        visitor.press("Log in", Username=USERNAME, Password=PASSWORD)
        expect_text(visitor, "Hello, Ada.")

    @property
    def key(self):
        """Ada's session key."""
        return self.ada.cookies()[COOKIE]

    def cookie_attributes(self):
        attributes = dict(self.ada.cookie_attributes(COOKIE))
        if self.is_in_cookie:
            del attributes["value"]  # it is the cart, too
        return attributes

    def expect_sessions(self, expected):
        count = self.ask("count")
        if count is not None:
            expect("stored sessions", expected, count)

    def ask(self, question, *arguments):
        """What `manage.py demo_sessions` says."""
        if self.django_child is None:
            self.django_child = self.servers.child("demo_sessions")
        print(json.dumps([question, *arguments]), file=self.django_child.stdin, flush=True)
        if not (answer := self.django_child.stdout.readline()):
            raise DemoError("manage.py demo_sessions stopped; it said why above.")
        return json.loads(answer)

    def post_to_rust(self, headers):
        """The status of an item added with Ada's cookie and these headers."""
        headers = {
            "Cookie": f"{COOKIE}={self.key}",
            "Content-Type": "application/x-www-form-urlencoded",
        } | headers
        connection = http.client.HTTPConnection("127.0.0.1", self.port(self.rust), timeout=10)
        with contextlib.closing(connection):
            connection.request("POST", "/cart/add/", b"name=Trap", headers)
            return connection.getresponse().status

    @staticmethod
    def port(address):
        return int(address.rpartition(":")[2])
