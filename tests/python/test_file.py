"""The file engine against Django's, on the same directory, sync and async."""

import asyncio
import contextlib
import datetime
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from importlib import import_module

import pytest
from asgiref.sync import async_to_sync
from differential import captured_logs, outcome, same
from django.contrib.sessions.backends.base import CreateError, UpdateError
from django.contrib.sessions.backends.file import SessionStore as DjangoStore
from django.contrib.sessions.exceptions import InvalidSessionKey
from django.core import signing
from django.core.exceptions import ImproperlyConfigured, SuspiciousOperation
from django_rust_sessions.backends.file import SessionStore as RustStore

STORES = [DjangoStore, RustStore]
ENGINES = ["django.contrib.sessions.backends.file", "django_rust_sessions.backends.file"]
PAYLOAD = {"text": "é\ud800🦀", "n": [1, 1.0, 2**70, 1e16, None, True], "cart": [{"a": "b"}] * 50}
STRANGER = "0123456789abcdef0123456789abcdef"

HAS_ASYNC = hasattr(DjangoStore, "aget")
needs_async = pytest.mark.skipif(not HAS_ASYNC, reason="Django's sessions are async since 5.1")


def use(path):
    """Keeps the sessions of both engines there."""
    for store in STORES:
        store._storage_path = str(path)


def forget():
    for store in STORES:
        if "_storage_path" in vars(store):
            del store._storage_path


@pytest.fixture(autouse=True)
def folder(tmp_path, settings):
    path = tmp_path / "sessions"
    path.mkdir()
    settings.SESSION_FILE_PATH = str(path)
    use(path)
    yield path
    forget()


def saved(store_class, **values):
    store = store_class()
    store.update(values)
    store.save()
    return store


def listed(path):
    """What is in the directory: names, and the size of what is empty."""
    return sorted((p.name, p.is_file() and p.stat().st_size == 0) for p in path.iterdir())


class Awaited:
    """A store whose methods are the async ones, awaited."""

    def __init__(self, store_class, key=None):
        self.__dict__["store"] = store_class(key)

    def __setattr__(self, name, value):
        setattr(self.store, name, value)

    def __getattr__(self, name):
        awaited = {"load", "save", "create", "exists", "delete", "flush", "cycle_key", "items"}
        awaited |= {"update", "get", "set_expiry", "clear_expired"}
        if name in awaited:
            return async_to_sync(getattr(self.store, f"a{name}"))
        return getattr(self.store, name)


WAYS = ["sync", pytest.param("async", marks=needs_async)]


@pytest.fixture(params=WAYS)
def make(request):
    """Makes a store by its class and key, and has it used in one of the two ways."""
    if request.param == "sync":
        return lambda store_class, key=None: store_class(key)
    return Awaited


@pytest.mark.not_with("HASH_KEYS=sha256", "Django's engine finds nothing under hashed names")
def test_both_ways(writer, reader, make, folder):
    store = make(writer)
    store.update(PAYLOAD)
    store.save()
    again = make(reader, store.session_key)
    assert same(dict(again.items()), PAYLOAD)
    again.update({"more": 1})
    again.save()
    assert same(dict(make(writer, store.session_key).items()), {**PAYLOAD, "more": 1})
    assert listed(folder) == [(f"sessionid{store.session_key}", False)]


def test_engine_has_a_class_of_djangos_name():
    for engine in ENGINES:
        assert import_module(engine).SessionStore.__qualname__ == "SessionStore"
    assert issubclass(RustStore, DjangoStore)


@pytest.mark.not_with("HASH_KEYS=sha256", "it looks for the key itself in the store")
def test_only_the_owner_may_read(folder):
    store = saved(RustStore, a=1)
    path = folder / f"sessionid{store.session_key}"
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    store.save()
    assert path.stat().st_mode & 0o777 == 0o600


# ----------------------------------------------------- stories, told to both engines in both ways


def create_and_save(make, folder):
    store = make()
    yield store.session_key, store.is_empty(), store.accessed, store.modified
    store.update({"a": 1})
    yield store.save(), bool(re.fullmatch("[a-z0-9]{32}", store.session_key))
    yield store.exists(store.session_key), len(listed(folder))
    again = make(store.session_key)
    yield again.accessed, dict(again.items()), again.accessed, again.modified


def create(make, folder):
    store = make()
    yield store.create(), store.modified, store.accessed, len(listed(folder))
    yield store.load(), make(store.session_key).load()
    # Values that were there before are in the new session too.
    store.update({"a": 1})
    yield store.create(), make(store.session_key).load(), len(listed(folder))


def delete(make, folder):
    store = make()
    yield store.delete(), store.delete(STRANGER), store.exists(STRANGER)
    store.update({"a": 1})
    store.save()
    yield store.delete(), store.load(), store.session_key, listed(folder)


def flush_and_cycle(make, folder):
    store = make()
    store.update({"a": 1})
    store.save()
    old = store.session_key
    yield store.cycle_key(), store.session_key == old, store.exists(old), store.get("a")
    yield dict(make(store.session_key).items()), len(listed(folder))
    yield store.flush(), store.session_key, dict(store.items()), listed(folder)


def nobodys_key(make, folder):
    stranger = make(STRANGER)
    yield dict(stranger.items()), stranger.session_key, stranger.modified
    stranger = make(STRANGER)
    stranger.update({"a": 1})  # loads, and so loses the key
    yield outcome(stranger.save).kind, stranger.session_key == STRANGER, len(listed(folder))
    short = make("short")
    yield short.session_key, dict(short.items()), outcome(short.load)[0], len(listed(folder))


def taken_key(make, folder):
    store = make()
    store.update({"a": 1})
    store.save()
    twin = make(store.session_key)
    twin._session_cache = {"a": 2}
    yield outcome(twin.save, must_create=True).kind is CreateError
    yield dict(make(store.session_key).items()), len(listed(folder))


def deleted_meanwhile(make, folder):
    store = make()
    store.update({"a": 1})
    store.save()
    make().delete(store.session_key)
    yield outcome(store.save).kind is UpdateError, listed(folder)


def traversal(make, folder):
    (folder.parent / "sessionid-outside").write_text("x")
    for key in [
        "../sessionid-outside",
        "a/b/c/d/e",
        "a\\b\\c\\d\\e",
        "ABCDEFGH",
        "abcdefg\0",
        "é" * 8,
    ]:
        store = make(key)
        yield store.load(), store.session_key
        yield [outcome(call, key)[1:] for call in (store.exists, store.delete)]
        store = make(key)
        store._session_cache = {"a": 1}
        yield outcome(store.save)[1:], outcome(store.save, must_create=True)[1:]
    yield listed(folder), (folder.parent / "sessionid-outside").read_text()


def expiry(make, folder):
    now = datetime.datetime.now(datetime.UTC)
    for value in [
        300,
        0,
        -1,
        1.5,
        None,
        now + datetime.timedelta(hours=1),
        now,
        datetime.timedelta(1),
    ]:
        store = make()
        store.update({"a": 1})
        store.set_expiry(value)
        store.save()
        again = make(store.session_key)
        data = again.load()
        yield "a" in data, again.session_key == store.session_key, again.exists(store.session_key)
    # One that was over is replaced by a new, empty one.
    yield [empty for _, empty in listed(folder)].count(True), len(listed(folder))


def old_file(make, folder):
    store = make()
    store.update({"a": 1})
    store.save()
    path = folder / f"sessionid{store.session_key}"
    for days in (13.99, 14.01):
        moment = time.time() - days * 86400
        os.utime(path, (moment, moment))
        again = make(store.session_key)
        yield again.load(), again.session_key == store.session_key, path.exists()


def odd_contents(make, folder):
    path = folder / f"sessionid{STRANGER}"
    signed = [signing.dumps(value, salt=RustStore().key_salt) for value in ({"a": 1}, [], 5)]
    for contents in [b"", b"x", b"a:b:c", b"\xff\xfe", *map(str.encode, signed)]:
        for tail in (b"", b"\n", b"\r\n"):
            path.write_bytes(contents + tail)
            store = make(STRANGER)
            yield outcome(store.load), store.session_key
    path.unlink()
    path.mkdir()
    store = make(STRANGER)
    yield store.load(), store.session_key, store.exists(STRANGER), store.delete(STRANGER)
    store = make(STRANGER)
    store._session_cache = {"a": 1}
    yield outcome(store.save).kind, outcome(store.save, must_create=True).kind


def unserializable(make, folder):
    store = make()
    store.update({"a": object()})
    # Django keeps the empty placeholder, and the key.
    yield outcome(store.save)[1], store.session_key is None, [empty for _, empty in listed(folder)]
    store._session_cache = {"a": 1}
    yield outcome(store.save), dict(make(store.session_key).items())
    store._session_cache = {"a": object()}
    yield outcome(store.save)[1], dict(make(store.session_key).items())
    make().delete(store.session_key)
    yield outcome(store.save).kind is UpdateError, listed(folder)


def directory_gone(make, folder):
    store = make()
    store.update({"a": 1})
    store.save()
    shutil.rmtree(folder)
    yield outcome(store.save).kind is UpdateError, store.exists(store.session_key), store.delete()
    yield outcome(make().save)[:2], outcome(make().create)[:2], make(STRANGER).load()


STORIES = [create_and_save, create, delete, flush_and_cycle, nobodys_key, taken_key]
STORIES += [deleted_meanwhile, traversal, expiry, old_file, odd_contents, unserializable]
STORIES += [directory_gone]


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
@pytest.mark.not_with("HASH_KEYS=sha256", "Django's engine finds nothing under hashed names")
def test_story(story, make, tmp_path):
    told = []
    for number, store_class in enumerate(STORES):
        folder = tmp_path / str(number) / "sessions"
        folder.mkdir(parents=True)
        use(folder)
        with captured_logs() as logs:
            steps = list(story(lambda key=None, c=store_class: make(c, key), folder))
        told.append((steps, [log for log in logs if "may not have been saved" not in log[2]]))
    (django, django_logs), (rust, rust_logs) = told
    for left, right in zip(django, rust, strict=True):
        assert repr(left) == repr(right)
    assert django_logs == rust_logs


def test_a_missing_directory_is_a_mistake_of_the_project(settings, tmp_path):
    settings.SESSION_FILE_PATH = str(tmp_path / "missing")
    forget()
    django, rust = outcome(DjangoStore), outcome(RustStore)
    assert rust.kind is ImproperlyConfigured
    assert django == rust
    assert outcome(RustStore.clear_expired) == django


def test_traversal_is_refused_by_name():
    for key in ("a\\b\\c", "a/b/c"):
        with pytest.raises(InvalidSessionKey):
            RustStore()._key_to_file(key)


# -------------------------------------------------------------------------- hooks of the project


class Hooks:
    def __init__(self, *args):
        super().__init__(*args)
        self.called = []

    def encode(self, data):
        return "plain" + json.dumps(data) + "\r\né" * data.get("odd", 0)

    def decode(self, text):
        self.called.append("decode")
        if "bomb" in text:
            raise SuspiciousOperation("a bomb")
        return json.loads(text.removeprefix("plain"))

    def _key_to_file(self, key=None):
        return super()._key_to_file(key) + ".session"

    def _last_modification(self):
        self.called.append("_last_modification")
        return super()._last_modification() - datetime.timedelta(days=20 * self.called.count("old"))

    def get_expiry_age(self, **kwargs):
        self.called.append("get_expiry_age")
        return super().get_expiry_age(**kwargs)


class DjangoHooks(Hooks, DjangoStore):
    pass


class RustHooks(Hooks, RustStore):
    pass


@pytest.mark.not_with("HASH_KEYS", "what is not there is looked for under the key too")
def test_hooks_of_a_subclass_are_asked(make, folder):
    told = []
    for store_class in (DjangoHooks, RustHooks):
        steps = []
        for values in ({"a": 1}, {"a": "bomb"}, {"odd": 1}):
            store = make(store_class)
            store.update(values)
            steps += [outcome(store.save)[1:], [p.name[41:] for p in folder.iterdir()]]
            again = make(store_class, store.session_key)
            steps += [outcome(again.load), again.session_key == store.session_key, again.called]
            again.called.append("old")
            steps += [outcome(again.load), again.session_key == store.session_key, again.called]
        store_class.clear_expired()
        steps.append(len(listed(folder)))
        told.append(steps)
        for path in folder.iterdir():
            path.unlink()
    assert repr(told[0]) == repr(told[1])


@needs_async
async def test_a_sync_method_of_a_subclass_is_called_on_the_loop(folder):
    here = threading.get_ident()
    threads = []

    class Recording:
        def save(self, must_create=False):
            threads.append(threading.get_ident())
            return super().save(must_create)

    for base in STORES:
        store = type("SessionStore", (Recording, base), {})()
        await store.aset("a", 1)
        await store.asave()
    assert len(threads) >= 2
    assert set(threads) == {here}


@needs_async
async def test_the_event_loop_goes_on_while_the_disk_is_waited_for(folder):
    text = RustStore().encode({"a": 1})
    path = folder / f"sessionid{STRANGER}"
    os.mkfifo(path)
    load = asyncio.create_task(RustStore(STRANGER).aload())
    # With Django's, the loop would stand still until the end of days.
    await asyncio.sleep(0.05)
    assert not load.done()
    with open(path, "w") as pipe:
        pipe.write(text)
    assert await load == {"a": 1}


# ----------------------------------------------------------------------------------- clear_expired


def put(folder, key, contents, age):
    """A file that was written so many seconds ago."""
    path = folder / f"sessionid{key}"
    path.write_bytes(contents)
    moment = time.time() - age
    os.utime(path, (moment, moment))


def session(**values):
    return RustStore().encode(values).encode()


def isoformats():
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    vienna = datetime.timezone(datetime.timedelta(hours=1))
    for seconds in (-86400 * 400, -3600, -10, 10, 3600, 86400 * 400):
        moment = now + datetime.timedelta(seconds=seconds)
        yield moment.isoformat()
        yield moment.astimezone(vienna).isoformat(timespec="microseconds")
        yield moment.isoformat().replace("+00:00", "Z")
        yield moment.strftime("%Y%m%dT%H%M%S+00:00:30")
    yield from ("9999-12-31T23:59:59+00:00", "0001-01-01T00:00:00+00:00")


EXPIRIES = [None, 0, -0.0, 1, -1, 300, -300, 1.5, -1.5, 2**63, -(2**63), 10**400, -(10**400), ""]
EXPIRIES += [float("nan"), float("inf"), float("-inf"), True, False, [], {}]
AGES = [-86400, 0, 60, 1_209_600 - 3600, 1_209_600 - 10, 1_209_600 + 10, 1_209_600 + 3600, 3e7]


def fill(folder, is_aware):
    """About 300 files of every kind that does not stop Django with an error."""
    pickled = signing.TimestampSigner(salt=RustStore().key_salt)
    contents = [session(), session(a=1), session(a="x" * 3000), b"", b"x", b"a:b:c", b"a:b:c\r\n"]
    contents += [session(a=1) + tail for tail in (b"x", b"\n", b"\r\n")]
    contents += [signing.dumps({"a": 1}, salt="other").encode(), pickled.sign("!").encode()]
    contents += [pickled.sign_object(1, serializer=NotJSON).encode()]
    contents += [session(_session_expiry=expiry, a=1) for expiry in EXPIRIES]
    numbers = iter(range(10_000))
    for content in contents:
        for age in AGES:
            put(folder, f"{next(numbers):032}", content, age)
    for text in isoformats():
        if not is_aware:
            moment = datetime.datetime.fromisoformat(text).replace(tzinfo=None)
            text = (
                moment - datetime.timedelta(hours=6) if 1 < moment.year < 9999 else moment
            ).isoformat()
        put(folder, f"{next(numbers):032}", session(_session_expiry=text), 60)
    for key in ["", "short", "UPPERCASE", "0123456789_out_abcdefgh", "x.bak" * 3, "é" * 9]:
        put(folder, key, session(_session_expiry=-1), 3e7)
    (folder / "other0123456789").write_bytes(session(_session_expiry=-1))
    (folder / "sessioniddirectory").mkdir()
    (folder / "sessioniddangling").symlink_to("nowhere")
    (folder / "sessionidlinkedfile").symlink_to("other0123456789")


class NotJSON:
    def dumps(self, obj):
        return b"not JSON"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"USE_TZ": False},
        {"SESSION_COOKIE_AGE": 0},
        {"SESSION_COOKIE_AGE": -60},
        {"SESSION_COOKIE_AGE": 3600.5},
        {"SESSION_COOKIE_AGE": 10**9},
        {"SECRET_KEY": "another", "SECRET_KEY_FALLBACKS": ["not a secret: tests only"]},
        {"SECRET_KEY": "another"},
        {"SESSION_SERIALIZER": f"{__name__}.PlainSerializer"},
        {"RUST_SESSIONS": {"LEGACY": True}},
        {"RUST_SESSIONS": {"MAX_INFLATED": 1000}},
    ],
    ids=str,
)
def test_clear_expired(changes, way, settings, tmp_path, folder):
    fill(folder, changes.get("USE_TZ", True))
    twin = tmp_path / "twin"
    shutil.copytree(folder, twin, symlinks=True)
    assert len(listed(folder)) > 290
    for name, value in changes.items():
        setattr(settings, name, value)
    told = []
    for store, path in zip(STORES, (folder, twin), strict=True):
        use(path)
        clear = store.clear_expired if way == "sync" else async_to_sync(store.aclear_expired)
        # Django has no limit of what is inflated, and so no word for it.
        done = outcome(clear)
        logs = sorted(log for log in done.logs if not log[2].startswith("Session data ignored"))
        told.append((done.value, done.error, logs))
    assert listed(folder) == listed(twin)
    assert told[0] == told[1]


class PlainSerializer:
    def dumps(self, obj):
        return json.dumps(obj).encode()

    def loads(self, data):
        return json.loads(data)


@pytest.mark.parametrize(
    "contents",
    [
        lambda: session(_session_expiry="2026-01-01T00:00:00"),
        lambda: session(_session_expiry="soon"),
        lambda: session(_session_expiry=[1]),
        lambda: session(_session_expiry={"a": 1}),
        lambda: signing.dumps([], salt=RustStore().key_salt).encode(),
        lambda: b"\xff" + session(),
    ],
)
def test_clear_expired_fails_where_django_does_but_ends_its_work(contents, folder, tmp_path):
    put(folder, "bad" * 9, contents(), 60)
    django = outcome(DjangoStore.clear_expired)
    assert django.error is not None
    for number in range(20):
        put(folder, f"over{number:08}", session(_session_expiry=-1), 60)
    rust = outcome(RustStore.clear_expired)
    assert rust[:2] == django[:2]
    assert listed(folder) == [("sessionid" + "bad" * 9, False)]


def test_clear_expired_of_a_directory_that_is_gone(folder):
    folder.rmdir()
    django, rust = outcome(DjangoStore.clear_expired), outcome(RustStore.clear_expired)
    assert django.kind is FileNotFoundError
    assert django == rust


# ------------------------------------------------------------------------------ others at the same


def check_whole(data):
    assert data["text"] == str(data["n"]) * data["n"], "half a session"


def change(key, seed, rounds):
    for number in range(rounds):
        n = (seed * 31 + number * 17) % 500
        store = RustStore(key)
        check_whole(store.load())
        store._session_cache = {"n": n, "text": str(n) * n}
        store.save()


def in_process(path, key, seed, rounds):
    use(path)
    change(key, seed, rounds)


@pytest.mark.not_with("HASH_KEYS=sha256", "it looks for the key itself in the store")
def test_every_read_is_whole_in_16_threads(folder):
    key = saved(RustStore, n=1, text="1").session_key
    errors = []

    def run(seed):
        try:
            change(key, seed, 60)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert listed(folder) == [(f"sessionid{key}", False)]


@pytest.mark.not_with("HASH_KEYS=sha256", "it looks for the key itself in the store")
def test_two_processes_and_a_fork_in_use(folder):
    key = saved(RustStore, n=1, text="1").session_key
    stop = threading.Event()

    def keep_busy():
        while not stop.is_set():
            change(key, 5, 10)

    thread = threading.Thread(target=keep_busy)
    thread.start()
    try:
        context = multiprocessing.get_context("fork")
        with forking_with_threads():
            children = [
                context.Process(target=in_process, args=(folder, key, seed, 100)) for seed in (1, 2)
            ]
            for child in children:
                child.start()
        for child in children:
            child.join(60)
            assert child.exitcode == 0
    finally:
        stop.set()
        thread.join()
    check_whole(DjangoStore(key).load())
    assert listed(folder) == [(f"sessionid{key}", False)]


@contextlib.contextmanager
def forking_with_threads():
    """Python 3.12 and newer warn of it; here it is the point."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def test_a_sweep_beside_writers(folder):
    """A live session is never taken for one that is over."""
    stores = [saved(RustStore, n=n, text=str(n) * n) for n in range(1, 20)]
    stop = threading.Event()

    def sweep():
        while not stop.is_set():
            RustStore.clear_expired()

    thread = threading.Thread(target=sweep)
    thread.start()
    try:
        for _ in range(30):
            for store in stores:
                store.save()
                saved(RustStore, a=1).delete()
                saved(RustStore, _session_expiry=-1)
    finally:
        stop.set()
        thread.join()
    for store in stores:
        check_whole(RustStore(store.session_key).load())
    assert not [name for name, _ in listed(folder) if "_out_" in name]


# --------------------------------------------------------------------------- a file system in need

CHILD = """
import json, logging, os, resource, sys
from django.conf import settings

engine, folder, options = json.loads(sys.argv[1])
settings.configure(
    SECRET_KEY="tests", SESSION_FILE_PATH=folder, RUST_SESSIONS=options, USE_TZ=True
)
import django
from importlib import import_module
# Later we are another user, who may not be allowed to read Python's own folders.
import encodings.ascii
import smtplib

django.setup()
SessionStore = import_module(engine).SessionStore
logs = []
handler = logging.Handler()
handler.emit = lambda record: logs.append([record.name, record.levelname, record.getMessage()])
logging.getLogger("django").addHandler(handler)
SessionStore().load()  # whatever is imported late
folder = SessionStore._storage_path


def saved(**values):
    store = SessionStore()
    store.update(values)
    store.save()
    return store


def attempt(function, *args, **kwargs):
    try:
        return [function(*args, **kwargs), None]
    except Exception as error:
        return [None, type(error).__name__]


def as_nobody():
    # root may do everything
    if os.geteuid() == 0:
        os.setegid(65534)
        os.seteuid(65534)


def state():
    names = os.listdir(folder)
    sizes = [os.stat(os.path.join(folder, name)).st_size for name in names]
    return [len(names), 0 in sizes, [name for name in names if "_out_" in name]]


def report(*steps):
    print(json.dumps([*steps, logs]))
"""


def in_child(code, folder, engine, **options):
    folder.mkdir(exist_ok=True)
    # pytest's own folders are for their owner alone, and another user must get in. (The fourth is
    # there if several processes share the tests.)
    for parent in (folder, *folder.parents[:4]):
        with contextlib.suppress(PermissionError):
            parent.chmod(parent.stat().st_mode | 0o011)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            CHILD + textwrap.dedent(code),
            json.dumps([engine, str(folder), options]),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def in_both(code, tmp_path, **options):
    """What came of it with Django's engine and with ours; the log of ours apart."""
    django = in_child(code, tmp_path / "django", ENGINES[0], **options)
    *rust, logs = in_child(code, tmp_path / "rust", ENGINES[1], **options)
    assert django[-1] == []
    return django[:-1], rust, logs


LOGGED = ["django.contrib.sessions", "ERROR", "A session may not have been saved: "]


def logged(reason):
    return [*LOGGED[:2], LOGGED[2] + reason]


def test_a_read_only_directory(tmp_path):
    code = """
    store = saved(a=1)
    over = saved(a=1, _session_expiry=-1)
    for name in os.listdir(folder):
        os.chmod(os.path.join(folder, name), 0o666)
    os.chmod(folder, 0o555)
    as_nobody()
    again = SessionStore(store.session_key)
    again["a"] = 2
    report(
        attempt(again.save), SessionStore(store.session_key).load(), attempt(SessionStore().save),
        attempt(SessionStore().create), attempt(store.delete),
        attempt(SessionStore(over.session_key).load), attempt(SessionStore.clear_expired), state(),
    )
    """
    django, rust, logs = in_both(code, tmp_path)
    assert django == rust
    assert rust[:3] == [[None, None], {"a": 1}, [None, "PermissionError"]]
    assert logs == [logged("Permission denied")]


# A limit of the size of files is a disk that is full after so many bytes: a write that begins below
# it comes back short, and the next one fails.
FULL = "resource.setrlimit(resource.RLIMIT_FSIZE, (500, resource.RLIM_INFINITY))"


def test_a_full_disk(tmp_path):
    code = f"""
    store = saved(a=1)
    {FULL}
    again = SessionStore(store.session_key)
    again["a"] = os.urandom(2000).hex()
    saved_again = attempt(again.save)
    fresh = attempt(saved, a=os.urandom(2000).hex())
    report(saved_again, fresh[1], SessionStore(store.session_key).load(), state())
    """
    *rust, logs = in_child(code, tmp_path / "rust", ENGINES[1])
    assert rust == [[None, None], None, {"a": 1}, [2, True, []]]
    assert logs == [logged("File too large")] * 2
    # Django says that all is well, and has half of the session in the place of the whole.
    *django, logs = in_child(code, tmp_path / "django", ENGINES[0])
    assert django[:3] == [[None, None], None, {}]
    assert logs[0][2] == "Session data corrupted"


def test_after_the_disk_was_full(tmp_path):
    """A session that could not be created is saved once there is space, as with Django."""
    code = f"""
    soft = resource.getrlimit(resource.RLIMIT_FSIZE)
    {FULL.replace("500", "0")}
    store = saved(a=1)
    lost = SessionStore(store.session_key).load()
    resource.setrlimit(resource.RLIMIT_FSIZE, soft)
    store.save()
    report(lost, SessionStore(store.session_key).load(), state())
    """
    django, rust, logs = in_both(code, tmp_path)
    assert django == rust == [{}, {"a": 1}, [1, False, []]]
    assert logs == [logged("File too large")]


def test_fsync(settings, folder):
    settings.RUST_SESSIONS = {"FILE_FSYNC": True}
    store = saved(RustStore, a=1)
    store["a"] = 2
    store.save()
    assert DjangoStore(store.session_key).load() == {"a": 2}
    assert listed(folder) == [(f"sessionid{store.session_key}", False)]


def test_fsync_that_fails(tmp_path):
    """A directory that may be written but not opened cannot be synced: sessions are saved, and the
    log says that they are not known to be on the disk."""
    code = """
    os.chmod(folder, 0o333)
    as_nobody()
    store = saved(a=1)
    first = SessionStore(store.session_key).load()
    store["a"] = 2
    store.save()
    report(first, SessionStore(store.session_key).load())
    """
    *rust, logs = in_child(code, tmp_path / "rust", ENGINES[1], FILE_FSYNC=True)
    assert rust == [{"a": 1}, {"a": 2}]
    assert logs == [logged("Permission denied")] * 2
    *rust, logs = in_child(code, tmp_path / "unsynced", ENGINES[1])
    assert (rust, logs) == ([{"a": 1}, {"a": 2}], [])
