"""Questions about django.contrib and the CSRF middleware, for child.py."""

import json

from django.contrib.messages.storage.base import Message
from django.contrib.messages.storage.cookie import CookieStorage
from django.contrib.messages.storage.fallback import FallbackStorage
from django.contrib.messages.storage.session import SessionStorage
from django.contrib.sessions.backends.base import SessionBase
from django.http import HttpResponse
from django.middleware.csrf import CsrfViewMiddleware, _does_token_match, _mask_cipher_secret
from django.test import RequestFactory, override_settings
from django.utils.safestring import SafeData, mark_safe


class Csrf(CsrfViewMiddleware):
    def _reject(self, request, reason):
        return reason


def csrf(question):
    """The reason of a refusal, or None."""
    headers = {
        name: question[field]
        for name, field in (
            ("HTTP_ORIGIN", "origin"),
            ("HTTP_REFERER", "referer"),
            ("HTTP_X_CSRFTOKEN", "header_token"),
            ("HTTP_HOST", "host"),
        )
        if question[field] is not None
    }
    form = {}
    if question["form_token"] is not None:
        form["csrfmiddlewaretoken"] = question["form_token"]
    factory = RequestFactory()
    if question["method"] == "POST":
        request = factory.post("/", form, secure=question["is_secure"], **headers)
    else:
        request = factory.generic(question["method"], "/", secure=question["is_secure"], **headers)
    if question["port"] is not None:
        request.META["SERVER_PORT"] = str(question["port"])
    if question["cookie"] is not None:
        request.COOKIES["csrftoken"] = question["cookie"]
    with override_settings(
        ALLOWED_HOSTS=question["allowed_hosts"],
        CSRF_TRUSTED_ORIGINS=question["trusted_origins"],
        CSRF_COOKIE_DOMAIN=question["cookie_domain"],
    ):
        middleware = Csrf(HttpResponse)
        middleware.process_request(request)
        return middleware.process_view(request, csrf, (), {})


def csrf_token(question):
    """Whether a token of ours is one of this secret, and a token of Django's."""
    secret = question["secret"]
    return [_does_token_match(question["token"], secret), _mask_cipher_secret(secret)]


STORAGES = {"cookie": CookieStorage, "session": SessionStorage, "fallback": FallbackStorage}


class Store(SessionBase):
    def load(self):
        return {}


def messages(question):
    """Plays one request: what was found, what the cookie and the session hold afterwards."""
    request = RequestFactory().get("/")
    request.session = Store("a-session-key")
    request.session._session_cache = dict(question["session"])
    if question["cookie"] is not None:
        request.COOKIES["messages"] = question["cookie"]
    storage = STORAGES[question["storage"]](request)
    for level, text, tags, is_safe in question["add"]:
        storage.add(level, mark_safe(text) if is_safe else text, tags)
    shown = list(storage) if question["take"] else None
    response = HttpResponse()
    storage.update(response)
    cookie = response.cookies.get("messages")
    return {
        "shown": shown and [entry(message) for message in shown],
        # What the next request finds, in the order that it finds it.
        "cookie": cookie and cookie.value,
        "deleted": bool(cookie and cookie["max-age"] == 0),
        "session": request.session._session_cache,
        "modified": request.session.modified,
    }


def entry(message: Message):
    safe = isinstance(message.message, SafeData)
    return [message.level, str(message.message), message.extra_tags, safe, message.tags]


OPERATIONS = {"csrf": csrf, "csrf_token": csrf_token, "messages": messages}


def answer(question):
    return {"value": json.dumps(OPERATIONS[question["op"]](question))}
