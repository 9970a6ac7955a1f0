"""encode() and decode() of Django's db engine and of ours, in turns: both see the same machine.

python -m pytest benches
"""

import statistics
from time import perf_counter_ns

import django
import pytest
from django.contrib.sessions.backends.db import SessionStore as DjangoStore
from django_rust_sessions.backends.db import SessionStore as RustStore
from payloads import PAYLOADS, size

ROUNDS = 101
ROUND_NS = 8_000_000


def timed(function, argument, number):
    start = perf_counter_ns()
    for _ in range(number):
        function(argument)
    return (perf_counter_ns() - start) / number


def quartiles(samples):
    low, middle, high = statistics.quantiles(samples, n=4)
    return f"{middle / 1000:9.1f} ({low / 1000:.1f}-{high / 1000:.1f})"


@pytest.mark.parametrize("name", PAYLOADS)
@pytest.mark.parametrize("operation", ["encode", "decode"])
def test_codec(operation, name, report):
    payload = PAYLOADS[name]
    stores = DjangoStore(), RustStore()
    signed = stores[0].encode(payload)
    # Both read what Django wrote; compressed or not, it is the same work.
    argument = payload if operation == "encode" else signed
    functions = [getattr(store, operation) for store in stores]
    assert stores[0].decode(functions[1](payload) if operation == "encode" else signed) == payload

    number = max(1, int(ROUND_NS / timed(functions[0], argument, 20)))
    samples = [], []
    for _ in range(ROUNDS):
        for function, into in zip(functions, samples, strict=True):
            into.append(timed(function, argument, number))
    ratios = [one / other for one, other in zip(*samples, strict=True)]
    low, ratio, high = statistics.quantiles(ratios, n=4)
    report(
        f"{operation} {name:6} {size(payload):6} bytes"
        f"   Django {django.__version__} {quartiles(samples[0]):>24}"
        f"   Rust {quartiles(samples[1]):>24}"
        f"   {ratio:5.2f} times as fast ({low:.2f}-{high:.2f})"
    )
