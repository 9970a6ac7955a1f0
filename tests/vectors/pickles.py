"""Makes pickled/sessions.json: sessions that PickleSerializer of real Django releases wrote.

python3 tests/vectors/pickles.py PYTHON...   interpreters that have a Django each, from 1.11 to 4.2
"""

# Runs on Python 2.7 too, whose texts are not all alike.
# fmt: off
from __future__ import print_function

import io
import json
import os
import subprocess
import sys

KEY = "test-vectors-secret-key-that-guards-nothing"
OUTPUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "pickled", "sessions.json")


def make_sessions():
    import datetime
    import decimal
    import uuid
    from collections import OrderedDict

    from django.utils import timezone
    from django.utils.safestring import mark_safe

    moment = datetime.datetime(2017, 8, 9, 10, 11, 12, 131415)
    zone = getattr(timezone, "utc", None) or getattr(datetime, "timezone", None).utc
    yield "login", {"_auth_user_id": "7", "_auth_user_hash": "f" * 40, "cart": [{"sku": 1}]}, None
    yield "long", {"text": u"\xe9\u65e5" * 2000}, None
    yield (
        "tuple",
        {"a": (1, (), (2,), (3, 4), (5, 6, 7, 8))},
        {"a": [1, [], [2], [3, 4], [5, 6, 7, 8]]},
    )
    yield "keys", {1: "a", None: "b", 1.5: "c"}, {"1": "a", "null": "b", "1.5": "c"}
    yield "numbers", {"n": [0, -1, 255, 256, 70000, 2**70, -(2**3000), 1.5, True, None]}, None
    yield "naive", {"a": moment}, {"a": "2017-08-09T10:11:12.131415"}
    expiry = "2017-08-09T10:11:12.131415+00:00"
    yield "expiry", {"_session_expiry": moment.replace(tzinfo=zone)}, {"_session_expiry": expiry}
    yield "date", {"a": moment.date()}, {"a": "2017-08-09"}
    yield "time", {"a": moment.time()}, {"a": "10:11:12.131415"}
    yield "timedelta", {"a": datetime.timedelta(1, 2, 3)}, {"a": "P1DT00H00M02.000003S"}
    yield "decimal", {"a": decimal.Decimal("1.10")}, {"a": "1.10"}
    number = "12345678-1234-5678-1234-567812345678"
    yield "uuid", {"a": uuid.UUID(number)}, {"a": number}
    yield "sets", {"a": {1}, "b": frozenset([2])}, {"a": [1], "b": [2]}
    yield "ordered", {"a": OrderedDict([("x", 1), ("b", 2)])}, {"a": {"x": 1, "b": 2}}
    yield "safe", {"a": mark_safe(u"<b>\xe9</b>")}, {"a": u"<b>\xe9</b>"}
    shared = [1]
    yield "shared", {"a": shared, "b": shared}, {"a": [1], "b": [1]}
    if sys.version_info > (3,):
        yield "bytes", {"a": b"\x00\xff", "b": b""}, {"a": "AP8=", "b": ""}
        plus_two = datetime.timezone(datetime.timedelta(hours=2))
        yield "offset", {"a": moment.replace(tzinfo=plus_two)}, {"a": expiry[:-5] + "02:00"}
    try:
        import pytz
    except ImportError:
        pass
    else:
        local = pytz.timezone("Europe/Berlin").localize(moment)
        yield "pytz", {"a": local}, {"a": expiry[:-5] + "02:00"}
    try:
        from zoneinfo import ZoneInfo
    except ImportError:
        pass
    else:
        local = moment.replace(tzinfo=ZoneInfo("Europe/Berlin"))
        yield "zoneinfo", {"a": local}, {"a": expiry[:-5] + "02:00"}


def work():
    import warnings

    import django
    from django.conf import settings

    warnings.simplefilter("ignore")
    settings.configure(
        SECRET_KEY=KEY,
        INSTALLED_APPS=["django.contrib.sessions"],
        SESSION_SERIALIZER="django.contrib.sessions.serializers.PickleSerializer",
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    )
    django.setup()
    from django.contrib.sessions.backends import db, signed_cookies

    release = "Django %s, Python %d.%d" % ((django.get_version(),) + sys.version_info[:2])
    for name, session, reads_as in make_sessions():
        store = signed_cookies.SessionStore()
        store.update(session)
        store.save()
        tokens = {"db": db.SessionStore().encode(session), "cookie": store.session_key}
        for kind in sorted(tokens):
            assert type(store)(tokens["cookie"]).load() == session
            expected = session if reads_as is None else reads_as
            print(
                json.dumps(
                    {
                        "name": "%s, %s/%s" % (release, name, kind),
                        "kind": kind,
                        "token": tokens[kind],
                        "value": json.dumps(expected, sort_keys=True),
                    },
                    sort_keys=True,
                )
            )


if __name__ == "__main__":
    if sys.argv[1:] == ["work"]:
        work()
    else:
        lines = []
        for python in sys.argv[1:]:
            made = subprocess.check_output([python, os.path.abspath(__file__), "work"])
            lines += made.decode("ascii").splitlines()
        with io.open(OUTPUT, "w", encoding="ascii", newline="\n") as file:
            file.write(u"[\n%s\n]\n" % u",\n".join(lines))
