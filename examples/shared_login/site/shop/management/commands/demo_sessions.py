"""What the story asks about stored sessions, a line of JSON each, answered by Django itself."""

import base64
import json
import pickle
import sys
import zlib
from importlib import import_module
from pathlib import Path

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.core.cache import caches
from django.core.management.base import BaseCommand

SessionStore = import_module(settings.SESSION_ENGINE).SessionStore
ENGINE = settings.SESSION_ENGINE.rpartition(".")[2]


class Command(BaseCommand):
    help = "Answers the story's questions until standard input closes."
    requires_system_checks = ()  # they were shown when the site started

    def handle(self, **options):
        for line in sys.stdin:
            question, *arguments = json.loads(line)
            answer = getattr(self, question)(*arguments)
            print(json.dumps(answer), flush=True)

    def is_stored(self, key):
        return SessionStore().exists(key)

    def count(self):
        """How many sessions are stored; nothing if the store cannot tell."""
        if ENGINE in ("db", "cached_db"):
            return Session.objects.count()
        if ENGINE == "file":
            return len(list(Path(settings.SESSION_FILE_PATH).iterdir()))
        if ENGINE == "cache" and "redis" in settings.CACHES["default"]["BACKEND"]:
            return caches["default"]._cache.get_client().dbsize()
        return None

    def copy(self, key):
        """The key of a second session with the same values."""
        copy = SessionStore()
        copy.update(dict(SessionStore(key).items()))
        copy.create()
        return copy.session_key

    def delete(self, key):
        SessionStore(key).delete()

    def set(self, key, name, python):
        """Puts a value, in Python's notation, into a session. Returns its key then."""
        session = SessionStore(key)
        session[name] = eval(python)
        session.save()
        return session.session_key

    def values(self, key):
        """Names and values in their order, as Python prints them."""
        return [[name, ascii(value)] for name, value in SessionStore(key).items()]

    def text(self, key):
        """Names and values as the store has them, each number and string as it is written; nothing
        for stores that keep pickles."""
        if ENGINE == "cache":
            return None
        signed = key if ENGINE == "signed_cookies" else self._signed(key)
        payload = signed.rsplit(":", 2)[0]
        data = base64.urlsafe_b64decode(payload.lstrip(".") + "=" * (-len(payload.lstrip(".")) % 4))
        text = (zlib.decompress(data) if payload.startswith(".") else data).decode("latin-1")
        keep = "number {}".format
        return list(json.loads(text, parse_float=keep, parse_int=keep, parse_constant=keep).items())

    def damage(self, key):
        """Changes what is stored for this session. Returns what `mend` puts back; nothing if the
        cookie holds all."""
        if ENGINE == "signed_cookies":
            return None
        if ENGINE == "cache":
            good = pickle.dumps(dict(SessionStore(key).items())).hex()
            self._cache_raw(key, b"\x80\x04no pickle")
            return good
        good = self._signed(key)
        middle = len(good) // 2
        bad = good[:middle] + ("A" if good[middle] != "A" else "B") + good[middle + 1 :]
        self._set_signed(key, bad)
        return good

    def mend(self, key, good):
        if ENGINE == "cache":
            self._cache_raw(key, bytes.fromhex(good))
        else:
            self._set_signed(key, good)

    def active(self, is_active):
        get_user_model().objects.update(is_active=is_active)

    def _signed(self, key):
        if ENGINE == "file":
            return Path(SessionStore(key)._key_to_file()).read_text()
        return Session.objects.get(pk=key).session_data

    def _set_signed(self, key, text):
        if ENGINE == "file":
            Path(SessionStore(key)._key_to_file()).write_text(text)
            return
        Session.objects.filter(pk=key).update(session_data=text)
        self.evict(key)

    def evict(self, key):
        """Has cached_db read the row."""
        if ENGINE == "cached_db":
            store = SessionStore(key)
            store._cache.delete(store.cache_key_prefix + key)

    def _cache_raw(self, key, value):
        cache = caches["default"]
        name = cache.make_key("django.contrib.sessions.cache" + key)
        if "redis" in settings.CACHES["default"]["BACKEND"]:
            cache._cache.get_client().set(name, value, ex=3600)
        else:
            # 1: a pickle, as pymemcache marks it. Its own client would pickle the bytes.
            from pymemcache.client.base import Client

            Client(settings.CACHES["default"]["LOCATION"]).set(name, value, expire=3600, flags=1)
