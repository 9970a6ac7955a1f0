"""The sessions that are measured, from Python and from Rust: a login, a cart and a large one."""

import json
import random

_random = random.Random(2026)  # the same sessions in each run
_colours = ["green", "black", "white", "amber", "plain"]
_things = ["tea", "coffee", "jam", "cup", "bowl", "spoon", "linen cloth", "oak board", "glass"]

LOGIN = {
    "_auth_user_id": "1",
    "_auth_user_backend": "django.contrib.auth.backends.ModelBackend",
    "_auth_user_hash": f"{_random.getrandbits(256):064x}",
}


def _item():
    colour, thing = _random.choice(_colours), _random.choice(_things)
    return {
        "sku": f"SKU-{_random.randrange(10**6):06}",
        "title": f"{colour} {thing}, set of {_random.randrange(2, 9)}",
        "price": _random.randrange(100, 9999) / 100,
        "quantity": _random.randrange(1, 5),
        "gift": _random.random() < 0.1,
        "added": f"2026-11-{_random.randrange(1, 29):02}T12:{_random.randrange(60):02}:00Z",
    }


def _cart(items):
    return {**LOGIN, "cart": [_item() for _ in range(items)], "currency": "EUR"}


PAYLOADS = {"login": LOGIN, "cart": _cart(12), "large": _cart(330)}


def size(payload):
    return len(json.dumps(payload, separators=(",", ":")))
