"""Django's caches, answering one question a line.

First: {"op": "configure", "caches": CACHES, "databases": DATABASES, "use_tz": ..., "time_zone": ..}
In: {"op": "calls", "calls": [[alias, method, argument...], ...]}
Out: {"value": the JSON text of the list of their answers}; what a call raised is {"error": class}.

Values of sessions are dicts. {"op": "dumps", "value": ...} gives the pickle that Django makes of
one, as hexadecimal digits, and a call of `keys` all keys that a cache holds, of `files` the names
of its files.
"""

import json
import os
import pickle
import sys
import time

from django.conf import settings


def configure(question):
    if any("mysql" in database["ENGINE"] for database in question["databases"].values()):
        import pymysql

        pymysql.install_as_MySQLdb()
    # A settings module does this, settings.configure() does not.
    os.environ["TZ"] = question.get("time_zone", "UTC")
    time.tzset()
    for cache in question["caches"].values():
        if "key_prefix" in cache.get("OPTIONS", {}):  # pymemcache wants bytes
            cache["OPTIONS"]["key_prefix"] = cache["OPTIONS"]["key_prefix"].encode()
        if cache.get("OPTIONS", {}).get("serde") == "compressed":
            from pymemcache.serde import compressed_serde

            cache["OPTIONS"]["serde"] = compressed_serde
    settings.configure(
        SECRET_KEY="the child's key",
        CACHES=question["caches"],
        DATABASES=question["databases"],
        USE_TZ=question.get("use_tz", True),
        TIME_ZONE=question.get("time_zone", "UTC"),
        INSTALLED_APPS=[],
    )
    import django

    django.setup()
    if question["databases"]:
        from django.core.management import call_command

        call_command("createcachetable", verbosity=0)


def call(alias, method, *arguments):
    from django.core.cache import caches

    cache = caches[alias]
    if method == "keys":
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute(f"SELECT cache_key FROM {cache._table}")
            return sorted(key for (key,) in cursor.fetchall())
    if method == "expires":
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute(f"SELECT expires FROM {cache._table} WHERE cache_key = %s", arguments)
            return str(cursor.fetchone()[0])
    if method == "files":
        return sorted(os.path.basename(path) for path in cache._list_cache_files())
    if method == "replace":  # what Django's session engines do in its place
        key, value, timeout = arguments
        if cache.get(key) is None:
            return False
        cache.set(key, value, timeout)
        return True
    return getattr(cache, method)(*arguments)


def guarded(arguments):
    try:
        return call(*arguments)
    except Exception as error:
        return {"error": f"{type(error).__module__}.{type(error).__qualname__}"}


def answer(question):
    if question["op"] == "configure":
        return configure(question)
    if question["op"] == "dumps":
        return pickle.dumps(question["value"], pickle.HIGHEST_PROTOCOL).hex()
    return [guarded(arguments) for arguments in question["calls"]]


for line in sys.stdin:
    try:
        reply = {"value": json.dumps(answer(json.loads(line)))}
    except Exception as error:
        reply = {"error": f"{type(error).__module__}.{type(error).__qualname__}: {error}"}
    print(json.dumps(reply), flush=True)
