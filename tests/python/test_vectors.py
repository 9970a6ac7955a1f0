"""What ten set-ups of real Django wrote and refused: the installed Django agrees, and so do we."""

import contextlib
import json
from datetime import datetime, timedelta

import django
import pytest
from differential import (
    DjangoCookieStore,
    DjangoStore,
    RustCookieStore,
    RustStore,
    captured_logs,
    outcome,
    same,
)
from django.contrib.sessions.models import Session
from django.core import signing
from django.db import connection
from django.test import override_settings
from django.utils import timezone
from django_rust_sessions._native import Signer
from django_rust_sessions.exceptions import SessionTooLarge
from vectors.reader import HERE, NAMES, load, unique, vectors, whole

PAYLOADS = [
    "login",
    "cart",
    "messages",
    "login_cart_messages",
    "nested",
    "nested_deep",
    "empty",
    "non_ascii",
    "astral",
    "lone_surrogates",
    "control_characters",
    "nan",
    "infinities",
    "int_2_70",
    "ints",
    "float_1_0",
    "float_1e16",
    "negative_zero",
    "floats",
    "bool_none",
    "keys_int",
    "keys_float",
    "keys_bool_none",
    "keys_that_collide",
    "keys_special",
    "order",
    "tuple",
    "text_like_json",
    "text_like_token",
    "expiry_seconds",
    "expiry_one_second",
    "expiry_zero",
    "expiry_negative",
    "expiry_ten_years",
    "expiry_none",
    "expiry_timedelta",
    "expiry_aware",
    "expiry_aware_offset",
    "expiry_naive",
    "csrf",
    "test_cookie",
    "size_1",
    "size_2",
    "size_3",
    "size_10",
    "size_20",
    "size_30",
    "size_50",
    "size_100",
    "size_1000",
    "size_10000",
    "size_100000",
    "size_1mb",
    "size_1mb_of_words",
    "size_noise_1000",
    "size_noise_4000",
    "many_keys",
]
HEADER = [
    "format",
    "django",
    "python",
    "zlib",
    "made_by",
    "algorithm",
    "secret_key",
    "other_keys",
    "salts",
    "session_cookie_age",
    "settings",
    "auth",
    "left_out",
    "counts",
]
# Datetimes could not be stored as JSON before Django 4.1.
DATETIMES = {"expiry_timedelta", "expiry_aware", "expiry_aware_offset", "expiry_naive"}


def text(value):
    """JSON text that tells 1, 1.0 and True apart and shows NaN and lone surrogates."""
    return json.dumps(value, separators=(",", ":"))


@pytest.fixture
def surroundings(clock):
    """Keys and time of a vector, while it is read."""

    @contextlib.contextmanager
    def enter(vector):
        clock(vector.now)
        keys = {"SECRET_KEY": vector.secret_key, "SECRET_KEY_FALLBACKS": vector.fallback_keys}
        with override_settings(**keys):
            yield

    return enter


def ours_and_djangos(vector):
    """Pairs of calls which read the vector: Django's and ours."""
    signer = Signer(vector.secret_key, vector.salt, vector.fallback_keys)
    yield (
        lambda: signing.loads(vector.token, salt=vector.salt, max_age=vector.max_age),
        lambda: signer.loads(vector.token, max_age=vector.max_age, now=vector.now),
    )
    if vector.kind in ("db", "legacy"):
        yield lambda: DjangoStore().decode(vector.token), lambda: RustStore().decode(vector.token)
    if vector.kind == "cookie":
        yield DjangoCookieStore(vector.token).load, RustCookieStore(vector.token).load


def disagreement(expected, found):
    if not same(found.value, expected.value):
        return f"value {text(found.value)[:200]} instead of {text(expected.value)[:200]}"
    if found.kind is not expected.kind:
        return f"{found.error} instead of {expected.error}"
    if found.logs != expected.logs:
        return f"logged {found.logs} instead of {expected.logs}"
    return None


# ---------------------------------------------------------------------------------------- the files


@pytest.mark.parametrize("name", NAMES)
def test_the_header_is_complete(name):
    header = load(name)["header"]
    assert sorted(header) == sorted(HEADER)
    release = name.removeprefix("django-").removesuffix("-sha1")
    assert header["django"].startswith(release + ".")
    assert header["counts"] == {
        "valid": len(load(name)["valid"]),
        "invalid": len(load(name)["invalid"]),
        "invalid_refused": sum(v.value is None for v in vectors(name, "invalid")),
    }


def test_every_release_is_there():
    releases = ["1.11", "2.2", "3.0", "3.1", "3.1-sha1", "3.2", "4.2", "5.2", "6.0", "6.1"]
    assert sorted(f"django-{release}" for release in releases) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_payload_is_in_every_kind(name):
    left_out = load(name)["header"]["left_out"].keys()
    writes_signed = "db" in load(name)["header"]["salts"]
    assert left_out == (DATETIMES if "expiry_aware" in left_out else set())
    assert not left_out or name < "django-4.1"
    for kind in ("signing", "cookie", "db" if writes_signed else "legacy"):
        groups = {vector.group for vector in vectors(name, "valid") if vector.kind == kind}
        assert set(PAYLOADS) - left_out <= groups


def test_there_are_enough():
    """More refused than valid ones, in each file and without those that releases share."""
    for name in NAMES:
        counts = load(name)["header"]["counts"]
        assert counts["invalid_refused"] > counts["valid"] > 0
    refused = [vector for vector in unique("invalid") if vector.value is None]
    assert len(refused) > len(unique("valid")) >= 300


def test_the_readme_counts_right():
    table = (HERE / "README.md").read_text("utf-8")
    for name in NAMES:
        header = load(name)["header"]
        counts = " | ".join(str(count) for count in header["counts"].values())
        row = next(line for line in table.splitlines() if line.startswith(f"| `{name}.json`"))
        assert f"| {header['django']}" in row
        assert row.endswith(f"| {header['python']} | {header['algorithm']} | {counts} |")


def test_names_are_unique():
    for name in NAMES:
        for section in ("valid", "invalid"):
            names = [vector.id for vector in vectors(name, section)]
            assert len(names) == len(set(names))


# ----------------------------------------------------------------------------- the installed Django


def test_django_reads_the_valid_ones(surroundings):
    read, wrong = 0, []
    for vector in unique("valid"):
        if vector.kind == "legacy" or vector.algorithm != "sha256":
            continue
        with surroundings(vector):
            for djangos, _ in ours_and_djangos(vector):
                if vector.kind == "db" and "class_name" in vector.fields:
                    # Another class has another salt: only signing.loads() is asked.
                    djangos = next(ours_and_djangos(vector))[0]
                found = outcome(djangos)
                if found.error or found.logs or text(found.value) != vector.value:
                    wrong.append(f"{vector.id}: {found}"[:300])
                read += 1
    assert wrong == []
    assert read > 300


def test_django_still_does_what_the_vectors_say(surroundings):
    """Of the release that is installed, if there are vectors of it."""
    name = "django-{}.{}".format(*django.VERSION)
    if name not in NAMES:
        pytest.skip(f"no vectors of Django {django.get_version()}")
    wrong = []
    for vector in vectors(name, "invalid"):
        with surroundings(vector):
            said = [vector.fields, vector.fields.get("decode") or vector.fields.get("load")]
            said = list(filter(None, said))
            for (djangos, _), expected in zip(ours_and_djangos(vector), said, strict=True):
                found = outcome(djangos)
                error = found.kind and found.kind.__name__
                # "binascii.Error" in the file.
                expected_error = (expected.get("error") or "").rpartition(".")[2] or None
                if error != expected_error:
                    wrong.append(f"{vector.id}: {error} instead of {expected_error}")
                elif not error and text(found.value) != whole(expected["value"]):
                    wrong.append(f"{vector.id}: {found.value}"[:300])
                elif [list(log) for log in found.logs] != expected.get("logs", []):
                    wrong.append(f"{vector.id}: logged {found.logs}")
    assert wrong == []


# --------------------------------------------------------------------------------------------- ours


@pytest.mark.parametrize("kind", ["signing", "db", "cookie", "legacy"])
@pytest.mark.parametrize("section", ["valid", "invalid"])
def test_ours_reads_what_django_reads(section, kind, surroundings):
    """Value, exception and log records; also of sha1 signatures, which both refuse."""
    read, wrong = 0, []
    for vector in unique(section):
        if vector.kind != kind or vector.fields.get("ours"):
            continue
        with surroundings(vector):
            for djangos, ours in ours_and_djangos(vector):
                difference = disagreement(outcome(djangos), outcome(ours))
                if difference:
                    wrong.append(f"{vector.id}: {difference}")
                read += 1
    assert wrong == []
    assert read > 0


@pytest.mark.parametrize("place", ["start", "body", "time", "signature", "end"])
def test_lone_surrogates_in_a_token(place, surroundings):
    """JSON files hold them, but Rust's tests could not read such a file."""
    good = next(v for v in vectors("django-6.1", "valid") if v.id.endswith(" cart/db"))
    body, time, signature = good.token.split(":")
    token = {
        "start": f"\ud83d{good.token}",
        "body": f"{body}\udc00:{time}:{signature}",
        "time": f"{body}:{time}\ud83d:{signature}",
        "signature": f"{body}:{time}:\udcff{signature}",
        "end": f"{good.token}\udcff",
    }[place]
    vector = good._replace(token=token)
    with surroundings(vector):
        for djangos, ours in ours_and_djangos(vector):
            assert disagreement(outcome(djangos), outcome(ours)) is None


@pytest.mark.parametrize("kind", ["db", "cookie"])
def test_ours_refuses_what_inflates_beyond_the_cap(kind, surroundings):
    """Django reads 64 MiB out of 90 kB; ours is an empty session and a warning."""
    bombs = [v for v in unique("invalid") if v.kind == kind and v.fields.get("ours") == "TooLarge"]
    assert len(bombs) >= 3
    for vector in bombs:
        with surroundings(vector), captured_logs() as logs:
            (_, loads), (_, read) = ours_and_djangos(vector)
            if vector.algorithm == "sha256":
                assert outcome(loads).kind is SessionTooLarge
                assert read() == {}
                assert [log[:2] for log in logs] == [
                    ("django.security.SuspiciousSession", "WARNING")
                ]
            else:
                assert outcome(loads).kind is signing.BadSignature


def test_cookies_end_alike(surroundings):
    """After load() of a cookie that is refused, the session counts as modified in both."""
    for section in ("valid", "invalid"):
        for vector in unique(section):
            if vector.kind == "cookie" and not vector.fields.get("ours"):
                with surroundings(vector):
                    stores = DjangoCookieStore(vector.token), RustCookieStore(vector.token)
                    for store in stores:
                        outcome(store.load)
                    djangos, ours = stores
                    assert ours.modified == djangos.modified, vector.id
                    assert same(ours._session_key, djangos._session_key), vector.id


def test_django_reads_what_ours_writes(surroundings):
    """Each payload, encoded by both at the same second."""
    for vector in unique("valid"):
        with surroundings(vector):
            value = json.loads(vector.payload)
            djangos, ours = DjangoStore().encode(value), RustStore().encode(value)
            assert ours.startswith(".") == djangos.startswith("."), vector.id
            if not ours.startswith("."):
                assert ours == djangos, vector.id
            assert same(DjangoStore().decode(ours), value), vector.id


# expiry_naive is naive on purpose.
@pytest.mark.filterwarnings("ignore:.*received a naive datetime:RuntimeWarning")
@pytest.mark.django_db
@pytest.mark.parametrize("name", ["django-4.2", "django-5.2", "django-6.0", "django-6.1"])
@pytest.mark.not_with("HASH_KEYS=sha256", "Django's engine finds nothing under hashed names")
def test_rows_are_loaded_and_saved_alike(name, surroundings, monkeypatch):
    """A row goes into the table as it stood in that release's file, and comes out of it again."""
    rows = [v for v in vectors(name, "valid") if "row" in v.fields and "class_name" not in v.fields]
    assert len(rows) >= len(PAYLOADS)
    for vector in rows:
        key, expires = vector.fields["row"]["session_key"], vector.fields["row"]["expire_date"]
        at = datetime.fromtimestamp(vector.fields["time"], timezone.get_default_timezone())
        fraction = timedelta(microseconds=123456 if expires.endswith(".123456") else 0)
        monkeypatch.setattr(timezone, "now", lambda at=at + fraction: at)
        with surroundings(vector):
            put_row(key, vector.token, expires)
            djangos, ours = DjangoStore(key), RustStore(key)
            assert same(ours.load(), djangos.load()), vector.id
            if "_session_expiry" not in vector.payload:
                assert text(ours.load()) == vector.value, vector.id

            saved = []
            for store in (djangos, ours):
                put_row(key, vector.token, expires)
                store._session_cache = json.loads(vector.payload)
                store._session_key = key
                store.save()
                saved.append(row(key))
            (djangos_data, djangos_date), (our_data, our_date) = saved
            assert our_date == djangos_date, vector.id
            assert same(RustStore().decode(djangos_data), DjangoStore().decode(our_data)), vector.id
            if not our_data.startswith("."):
                assert our_data == djangos_data, vector.id


def put_row(key, data, expires):
    Session.objects.filter(pk=key).delete()
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO django_session VALUES (%s, %s, %s)", [key, data, expires])


def row(key):
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT session_data, CAST(expire_date AS text) FROM django_session"
            " WHERE session_key = %s",
            [key],
        )
        return cursor.fetchone()
