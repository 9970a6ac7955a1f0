"""The interop matrix: Django's own engines and the Rust crate on one session, wherever it is kept.

Each row is a configuration (configurations.py), each column a Django release. The crate gets the
settings as a service gets them: from the file of `manage.py export_session_settings`. `make test`
takes a sample; HYPOTHESIS_PROFILE=full, as in `make test-full`, all configurations with all
releases and a thousand rounds. The table is printed at the end, and kept for
scripts/interop_table.py.
"""

import ast
import concurrent.futures
import contextlib
import hashlib
import json
import os
import threading
import time
import traceback
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import children
import kinds
import pytest
import servers
from children import ROOT, Child, Refused
from configurations import ALWAYS, CONFIGURATIONS, Configuration
from envs import INTEROP

FULL = os.environ.get("HYPOTHESIS_PROFILE") == "full"
# All cells, with few rounds: what a change may have broken is seen in minutes.
EVERY_CELL = os.environ.get("INTEROP") == "every cell"
ROUNDS = 1000 if FULL else 25
RACES = 20 if FULL else 2
AT_ONCE = 4  # cells; much of a cell is waiting
VECTORS = ROOT / "tests" / "vectors" / "django-6.1.json"
# How many seconds a store may end a session before and after its end. A timeout is a whole number
# of seconds, the database cache also cuts its column, and memcached's clock ticks once a second.
TICKS = {
    "row": (0.001, 0.001),
    "RedisCache": (1.05, 0.05),
    "FileBasedCache": (1.05, 0.05),
    "DatabaseCache": (2.05, 0.05),
    "PyMemcacheCache": (2.05, 1.05),
}

# Cells run at the same time, and some in the same database: one at a time makes its tables there.
PREPARING = threading.Lock()


# --------------------------------------------------------------------------------------------- cell


@dataclass
class Cell:
    """One configuration with one Django: two programs, and what they agree on."""

    configuration: Configuration
    release: str
    django: Child
    rust: Child
    settle: object
    results: dict[str, str] = field(default_factory=dict)

    def run(self) -> None:
        begun = self.begin_what_expires()
        for step in STEPS:
            self.note(step.__name__, lambda step=step: step(self))
        self.note("what is over is over", lambda: self.what_is_over_is_over(begun))

    def note(self, title: str, step) -> None:
        title = title.replace("_", " ")
        try:
            outcome = step()
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)
            mine = [frame for frame in where if frame.filename == __file__]
            self.results[title] = f"line {mine[-1].lineno}: {type(error).__name__}: {error}"
        else:
            self.results[title] = outcome or "ok"

    @property
    def engine(self) -> str:
        return self.configuration.engine

    @property
    def in_cookie(self) -> bool:
        """The session is in the cookie: there is no store that could be asked, or forget."""
        return self.engine == "signed_cookies"

    # Writes and reads of either side, after which a replica has what was written.

    def ask(self, who: Child, op: str, **question) -> dict:
        answer = who.ask(op, **question)
        self.settle()
        return answer

    # Expiry that takes time begins first, and is looked at last.

    def begin_what_expires(self) -> list[tuple[str, str, dict]]:
        begun = []
        for who in (self.django, self.rust):
            for how in ({"seconds": 1}, {"at": time.time() + 1}, {"delta": 1}, {"seconds": -5}):
                with contextlib.suppress(Refused):  # `expiry agrees` will say so
                    key = self.ask(who, "set_expiry", how=how)["key"]
                    begun.append((who.who, key, how, time.monotonic()))
        return begun

    def what_is_over_is_over(self, begun) -> str | None:
        assert len(begun) == 8
        left = max(when for *_, when in begun) + 2 + 1.1 - time.monotonic()
        time.sleep(max(0, left))
        for who, key, how, _ in begun:
            label = f"{how} of {who}"
            # Rust first: Django's file engine deletes what it finds over.
            rust = self.rust.ask("expiry", key=key, now=time.time())["there"]
            django = self.django.ask("expiry", key=key, now=time.time())["there"]
            assert rust == django, f"{label}: there for Rust {rust}, for Django {django}"
            if self.engine == "file" and how.keys() & {"seconds", "delta"} and "seconds" in how:
                continue  # Django's file engine takes a number of seconds for what is left of them
            if self.in_cookie:
                continue  # only SESSION_COOKIE_AGE counts
            assert not rust, f"{label} is not over"


# -------------------------------------------------------------------------------------------- steps


def same_values(before: list, after: list, changed: dict[str, str]) -> None:
    """All values, with type, order and what they share, but for these."""
    assert [key for key, *_ in after] == [key for key, *_ in before]
    for (key, _, was), (_, _, now) in zip(before, after, strict=True):
        expected = changed.get(key, was)
        assert now == expected, f"{key}: {now[:300]} instead of {expected[:300]}"


def rust_reads_the_same(django: list, rust: list) -> None:
    """What is JSON is the same JSON; what is not is refused."""
    assert len(rust) == len(django)
    for (key, text, described), value in zip(django, rust, strict=True):
        assert value["key"] == readable(key), f"{value['key']!r} instead of {key}"
        if text is None:
            assert "error" in value, f"{key} has no JSON form, but Rust says {value['json'][:200]}"
        elif "error" in value:
            may_be = "kinds." in described or "collections." in described or "lazy" in described
            assert may_be, f"{key}: {value['error']}"
        else:
            assert same_json(value["json"], text), f"{key}: {value['json'][:300]}, not {text[:300]}"


def readable(key: str) -> str:
    """A key as Rust shows it: lone surrogates have no place in its texts."""
    return ast.literal_eval(key).encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def same_json(left: str, right: str) -> bool:
    return left == right or repr(json.loads(left)) == repr(json.loads(right))


def there_and_back(cell: Cell, before: list, key: str) -> str:
    """Rust changes one key of what Django wrote; Django finds that, and nothing else, changed."""
    loaded = cell.rust.ask("load", key=key)
    rust_reads_the_same(before, loaded["values"])
    key = cell.ask(cell.rust, "change", key=key, name="counter", json="2")["key"]
    after = cell.django.ask("read", key=key)["values"]
    same_values(before, after, {"'counter'": "int 2"})
    return key


def rust_changes_one_key(cell: Cell) -> None:
    key = cell.ask(cell.django, "write", kind=cell.configuration.kind)["key"]
    before = cell.django.ask("read", key=key)["values"]
    assert len(before) > 15
    key = there_and_back(cell, before, key)
    # And once more, of what Rust wrote.
    key = cell.ask(cell.django, "change", key=key, name="counter", value=1)["key"]
    there_and_back(cell, before, key)


def django_changes_one_key(cell: Cell) -> None:
    values = {
        "counter": 1,
        "text": "\u00e9 \U0001f980",
        "list": [1.0, None, {"a": {}}],
        "big": 2**53,
    }
    text = json.dumps(values)
    key = cell.ask(cell.rust, "create", json=text)["key"]
    read = cell.django.ask("read", key=key)["values"]
    assert {ast.literal_eval(name): json.loads(value) for name, value, _ in read} == values
    assert [ast.literal_eval(name) for name, *_ in read] == list(values)
    key = cell.ask(cell.django, "change", key=key, name="counter", value=2)["key"]
    loaded = {
        one["key"]: json.loads(one["json"]) for one in cell.rust.ask("load", key=key)["values"]
    }
    assert loaded == {**values, "counter": 2}
    # An empty session is one.
    key = cell.ask(cell.rust, "create", json="{}")["key"]
    assert cell.django.ask("read", key=key)["values"] == []
    if not cell.in_cookie:
        assert cell.django.ask("exists", key=key)["exists"]
        assert cell.rust.ask("exists", key=key)["exists"]


def expiry_agrees(cell: Cell) -> str | None:
    # Fractions that a float, Python and Rust have exactly.
    now = int(time.time()) + 0.5
    ways = [
        ({"seconds": 300}, 300),
        ({"seconds": 0}, None),
        ({"at": now + 5000.25}, 5000),
        ({"delta": 86_400 * 40}, 86_400 * 40),
        ({}, None),
    ]
    for how, seconds in ways:
        if seconds is None:
            seconds = cell.configuration.more.get("SESSION_COOKIE_AGE", 1_209_600)
        for who in (cell.django, cell.rust):
            done = cell.ask(who, "set_expiry", how=how)
            label = f"{how} of {who.who}"
            # At the moment of now both must say the same; stored it was a little later.
            django = cell.django.ask("expiry", key=done["key"], now=now)
            rust = cell.rust.ask("expiry", key=done["key"], now=now)
            assert django["there"], f"{label}: not there for Django"
            assert rust["there"], f"{label}: not there for Rust"
            assert rust["age"] == django["age"], f"{label}: {rust} and {django}"
            assert abs(rust["date"] - django["date"]) < 1e-3, f"{label}: {rust} and {django}"
            assert rust["at_browser_close"] == django["at_browser_close"], label
            ends = how.get("at", done["before"] + seconds)
            late = 0 if "at" in how else done["after"] - done["before"]
            for store, (low, high) in django["stored"].items():
                early, after = TICKS[store]
                beside = f"{label}: in {store} it ends {low - ends:+.3f} s beside that"
                assert high >= ends - early, beside
                assert low <= ends + late + after, beside
    return None


def deleted_stays_deleted(cell: Cell) -> str | None:
    if cell.in_cookie:
        return "not applicable"
    for deleter, other in ((cell.django, cell.rust), (cell.rust, cell.django)):
        key = cell.ask(cell.django, "write", text='{"a": 1}')["key"]
        assert cell.rust.ask("exists", key=key)["exists"]
        other.ask("hold", key=key)
        cell.ask(deleter, "delete", key=key)
        label = f"deleted by {deleter.who}"
        assert not other.ask("save_held", key=key)["saved"], f"{label}, saved by {other.who}"
        cell.settle()
        for who in (cell.django, cell.rust):
            assert not who.ask("exists", key=key)["exists"], f"{label}: exists for {who.who}"
            gone = who.ask("expiry", key=key, now=time.time()) if who is cell.rust else None
            assert gone is None or not gone["there"], label
        assert cell.django.ask("read", key=key)["values"] == []
    return None


def both_at_once(cell: Cell) -> str | None:
    """Each writes whole values of its own, and reads whole ones."""
    if cell.in_cookie:
        return "not applicable"
    key = cell.ask(cell.django, "begin", key=None)["key"]
    for who in (cell.django, cell.rust):
        who.begin("loop", key=key, rounds=ROUNDS)
    failed = []
    for who in (cell.django, cell.rust):
        try:
            assert who.end()["key"] == key
        except (Refused, AssertionError) as error:
            failed.append(str(error))
    assert not failed, "; ".join(failed)
    cell.settle()
    for who in (cell.django, cell.rust):
        assert who.ask("loop", key=key, rounds=1)["key"] == key
        cell.settle()
    value = cell.rust.ask("load", key=key)["values"][0]
    whole = json.loads(value["json"])
    assert whole["sum"] == hashlib.sha256(whole["text"].encode()).hexdigest()
    assert whole["text"].startswith("rust 0 ")


def a_delete_among_saves(cell: Cell) -> str | None:
    """One saves on and on, the other deletes: it is gone for both, and the saver is told."""
    if cell.in_cookie:
        return "not applicable"
    for _ in range(10 * RACES):
        one_save_beside_a_delete(cell)
    for race in range(RACES):
        for saver, deleter in ((cell.rust, cell.django), (cell.django, cell.rust)):
            key = cell.ask(cell.django, "begin", key=None)["key"]
            saver.ask("hold", key=key)
            saver.begin("save_until_deleted", key=key, within=5)
            time.sleep(0.002 * (race % 10) + 0.005)
            deleter.ask("delete", key=key)
            # Django asks whether its cache or file has the session and then writes it: what is
            # deleted in between comes back. That is Django's own, and is met by another delete.
            while saver is cell.django and not SAFE[cell.engine] and not saver.has_answered():
                time.sleep(0.01)
                deleter.ask("delete", key=key)
            done = saver.end()
            cell.settle()
            assert done["deleted"], f"{saver.who} saved {done['saves']} times and never heard of it"
            for who in (cell.django, cell.rust):
                there = who.ask("exists", key=key)["exists"]
                assert not there, (
                    f"saved by {saver.who}, deleted by {deleter.who}: there for {who.who}"
                )
    return None


def one_save_beside_a_delete(cell: Cell) -> None:
    """Whichever comes first: what Django has deleted, Rust does not bring back."""
    key = cell.ask(cell.django, "begin", key=None)["key"]
    cell.rust.ask("hold", key=key)
    cell.django.begin("delete", key=key)
    cell.rust.begin("save_held", key=key)
    cell.django.end()
    saved = cell.rust.end()["saved"]
    cell.settle()
    for who in (cell.django, cell.rust):
        there = who.ask("exists", key=key)["exists"]
        assert not there, f"deleted by Django beside a save of Rust ({saved=}): there for {who.who}"


# Engines whose save in Django itself cannot bring a deleted session back.
SAFE = {"db": True, "cached_db": False, "cache": False, "file": False}


def vectors_go_through(cell: Cell) -> str | None:
    """Sessions of tests/vectors: stored by this Django, changed by Rust, read by this Django."""
    texts = json_vectors()
    if not cell.configuration.more.get("USE_TZ", True):
        # Django itself cannot read an end with a time zone then.
        texts = [text for text in texts if "_session_expiry" not in text]
    if not FULL:
        texts = texts[:: len(texts) // 10]
    if "msgpack" in cell.configuration.kind:
        return "not applicable"  # kinds.py has what msgpack can hold
    for text in texts:
        try:
            key = cell.ask(cell.django, "write", text=text)["key"]
            values = cell.django.ask("read", key=key)["values"]
        except Refused:  # an end without a time zone, to which Django objects itself
            assert "_session_expiry" in text, text
            continue
        if not values and text != "{}":
            assert "_session_expiry" in text, text
            continue  # over for years
        key = there_and_back(cell, values, key)
        cell.django.ask("delete", key=key)
    if cell.configuration.name == "cache, Redis":
        keys = cell.django.ask("raw_pickles")["keys"]
        assert len(keys) > 150
        for name, key in keys:
            if "expiry" in name:
                continue  # of 2017: whoever saves it ends it
            before = cell.django.ask("read", key=key)["values"]
            cell.rust.ask("change", key=key, name="counter", json="2")
            after = cell.django.ask("read", key=key)["values"]
            try:
                assert after, f"{len(before)} values before, then none"
                assert after.pop()[0] == "'counter'"
                same_values(before, after, {})
            except AssertionError as error:
                raise AssertionError(f"{name}: {error}") from None
    return None


def json_vectors() -> list[str]:
    """Each payload of a session once, as its JSON text."""
    with open(VECTORS) as file:
        vectors = json.load(file)["valid"]
    texts = {
        vector["reads_as" if "reads_as" in vector else "payload"]
        for vector in vectors
        if vector["kind"] == "db" and isinstance(vector["payload"], str)
    }
    return sorted(text for text in texts if text.startswith("{"))


STEPS = [
    rust_changes_one_key,
    django_changes_one_key,
    expiry_agrees,
    deleted_stays_deleted,
    both_at_once,
    a_delete_among_saves,
    vectors_go_through,
]

# ----------------------------------------------------------------------------------------- the test


def cells() -> list[tuple[Configuration, str]]:
    """All, or of each row one Django, another for each, and of some rows all."""
    return [
        (configuration, release)
        for number, configuration in enumerate(CONFIGURATIONS)
        for position, release in enumerate(INTEROP)
        if FULL or EVERY_CELL or configuration.name in ALWAYS or number % len(INTEROP) == position
    ]


CELLS = cells()
NAMES = [f"{configuration.name}, Django {release}" for configuration, release in CELLS]


class Servers:
    """Each kind of server once, for all cells; what is missing here is known by its name."""

    def __init__(self, names: set[str]) -> None:
        self.started = servers.Started(*sorted(names)) if names else None
        self.where = self.started.servers if self.started else {}

    def missing(self, names: set[str]) -> list[str]:
        return [self.where[name]["missing"] for name in names if "missing" in self.where[name]]

    def stop(self) -> None:
        if self.started:
            self.started.stop()


def run_cell(configuration: Configuration, release: str, where: dict, folder: Path, driver: str):
    settings = configuration.settings(where, folder)
    with contextlib.ExitStack() as stack:
        django = children.django(release, settings)
        stack.callback(django.close)
        with PREPARING:
            django.ask("prepare")
        exported = folder / "sessions.json"
        django.ask("export", path=str(exported))
        rust = Child("Rust", driver, exported)
        stack.callback(rust.close)
        place = configuration.cache
        settle = partial(place.settle, where) if place and place.settle else lambda: None
        cell = Cell(configuration, release, django, rust, settle)
        cell.run()
        return cell.results


@pytest.fixture(scope="session")
def outcomes(request, tmp_path_factory):
    """The future of each selected cell; they run beside one another while the tests wait."""
    wanted = [item.callspec.params["number"] for item in request.session.items if is_cell(item)]
    private = Servers(set().union(*(CELLS[number][0].servers for number in wanted)))
    driver = children.build_driver()
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:

        def submit(number):
            configuration, release = CELLS[number]
            if missing := private.missing(configuration.servers):
                return missing
            if children.interpreter(release) is None:
                return [f"no environment of Django {release}: `make test` makes it"]
            folder = tmp_path_factory.mktemp("cell")
            return pool.submit(run_cell, configuration, release, private.where, folder, driver)

        futures = {number: submit(number) for number in wanted}
        try:
            yield futures
        finally:
            for future in futures.values():
                if isinstance(future, concurrent.futures.Future):
                    future.cancel()
            pool.shutdown()
            private.stop()


def is_cell(item) -> bool:
    return getattr(item, "originalname", "") == "test_cell" and "number" in item.callspec.params


@pytest.mark.parametrize("number", range(len(CELLS)), ids=NAMES)
def test_cell(number, outcomes, matrix):
    outcome = outcomes[number]
    configuration, release = CELLS[number]
    if isinstance(outcome, list):
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(outcome[0])
    try:
        results = outcome.result()
    except Exception as error:
        results = {"start": f"{type(error).__name__}: {error}"}
    matrix.add(configuration.name, release, results)
    wrong = {step: result for step, result in results.items() if result not in PASSED}
    assert not wrong, "\n".join(f"{step}: {result}" for step, result in wrong.items())


PASSED = ("ok", "not applicable")


def test_that_the_description_tells_values_apart():
    """What the matrix compares by would be worthless if two values had one description."""
    import math

    shared = []
    pairs = [
        (1, 1.0), (1, True), (0.0, -0.0), ("a", b"a"), ((1,), [1]), ({1}, frozenset([1])),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}), ([shared, shared], [[], []]), (math.nan, math.inf),
    ]  # fmt: skip
    for left, right in pairs:
        assert kinds.describe({"a": left}) != kinds.describe({"a": right}), (left, right)
        assert kinds.describe({"a": left}) == kinds.describe({"a": left})
