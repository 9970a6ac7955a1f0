"""json_dumps and json_loads against Django's JSONSerializer."""

import math
import sys

import pytest
from differential import outcome, same
from django.core.signing import JSONSerializer
from django_rust_sessions._native import json_dumps, json_loads
from hypothesis import given
from hypothesis import strategies as st
from strategies import LITERALS, any_objects, bad_json, json_objects, oddities

CIRCLE = []
CIRCLE.append(CIRCLE)


def nested(depth, leaf):
    for level in range(depth):
        leaf = [leaf] if level % 2 else {"a": leaf}
    return leaf


def assert_dumped_alike(obj):
    django, rust = outcome(JSONSerializer().dumps, obj), outcome(json_dumps, obj)
    assert rust == django


def assert_loaded_alike(data):
    django, rust = outcome(JSONSerializer().loads, data), outcome(json_loads, data)
    assert same(rust.value, django.value)
    assert rust.error == django.error
    return django


@given(json_objects)
def test_dumps_what_json_holds(obj):
    assert_dumped_alike(obj)


@given(any_objects)
def test_dumps_anything(obj):
    assert_dumped_alike(obj)


@given(oddities)
def test_dumps_each_oddity(obj):
    for wrapped in [obj, [obj], (obj,), {"a": obj}, {"a": {"b": [1, obj]}}]:
        assert_dumped_alike(wrapped)


@pytest.mark.parametrize("digits", [18, 19, 20, 640, 4300, 4301, 5000])
def test_dumps_long_integers(digits):
    for number in [10 ** (digits - 1), -(10 ** (digits - 1)), 10**digits - 1]:
        assert_dumped_alike(number)
        assert_dumped_alike({number: [number]})


@pytest.mark.parametrize("character", [0, 0x1F, 0x22, 0x2F, 0x5C, 0x7F, 0xFF, 0xFFFF, 0x1F980])
def test_dumps_strings(character):
    for text in [chr(character), f"plain {chr(character)} plain", chr(character) * 1000]:
        assert_dumped_alike({text: text})


@given(st.floats())
def test_floats(number):
    assert_dumped_alike(number)
    assert_loaded_alike(json_dumps(number))


@given(st.integers(-1100, 1100), st.integers(0, 10**17))
def test_floats_of_every_magnitude(exponent, mantissa):
    number = float(f"{mantissa}e{exponent}")
    assert_dumped_alike(number)
    assert_loaded_alike(f"{mantissa}e{exponent}".encode())
    assert_loaded_alike(f"{mantissa}.{mantissa}E{exponent}".encode())


def test_floats_at_powers_of_two():
    """Where floats change their distance, the shortest texts are hardest to get right."""
    powers = [2.0**exponent * odd for exponent in range(-1074, 1020) for odd in (1, 3, 5, 7)]
    around = [math.nextafter(power, limit) for power in powers for limit in (0, math.inf)]
    assert_dumped_alike(powers + around)
    assert_loaded_alike(json_dumps(powers + around))


@pytest.mark.parametrize("depth", [1, 199, 200, 201, 202, 300])
@pytest.mark.parametrize("leaf", [1, object(), {}, []])
def test_dumps_depth(depth, leaf):
    assert_dumped_alike(nested(depth, leaf))


def test_dumps_too_deep():
    for obj in [CIRCLE, {"a": CIRCLE}, nested(200_000, 1)]:
        django, rust = outcome(JSONSerializer().dumps, obj), outcome(json_dumps, obj)
        assert rust.kind is django.kind
        assert rust.kind in (ValueError, RecursionError)


def test_dumps_by_itself(monkeypatch):
    """What JSON knows is written here, and not handed to Python's json."""
    monkeypatch.setattr("json.encoder.c_make_encoder", None)
    monkeypatch.setattr("json.encoder.JSONEncoder.encode", None)
    native = json_dumps({"a": [1, 2.5, None, True, "é", (), {1: 2, None: 3, False: 4, 1.5: 5}]})
    assert native == (rb'{"a":[1,2.5,null,true,"\u00e9",[],{"1":2,"null":3,"false":4,"1.5":5}]}')


@pytest.mark.parametrize("literal", LITERALS, ids=lambda literal: literal[:20].decode("latin-1"))
def test_loads_literals(literal):
    for data in [literal, b"[%s]" % literal, b'{"a":%s,"b":[]}' % literal, b" %s\n" % literal]:
        assert_loaded_alike(data)


@given(json_objects)
def test_loads_what_was_dumped(obj):
    assert assert_loaded_alike(JSONSerializer().dumps(obj)).error is None


@given(bad_json)
def test_loads_mutations(data):
    assert_loaded_alike(data)


@given(st.binary(max_size=40))
def test_loads_bytes(data):
    assert_loaded_alike(data)


def test_loads_with_another_limit_of_digits():
    """A project may lower Python's limit of digits, down to 640."""
    before = sys.get_int_max_str_digits()
    try:
        for limit in [640, 0, 5000]:
            sys.set_int_max_str_digits(limit)
            for digits in [639, 640, 641, 1000, 4300, 4301, 5001, 6000]:
                for data in [b"1" * digits, b"[1,-%s]" % (b"9" * digits)]:
                    assert_loaded_alike(data)
    finally:
        sys.set_int_max_str_digits(before)


def test_loads_by_itself(monkeypatch):
    monkeypatch.setattr("json.decoder.JSONDecoder.decode", None)
    assert json_loads(b'{"a":[1,-2.5e3,null,true,NaN,"\\u00e9\\ud83e\\udd80"]}')["a"][5] == "é🦀"


def test_loads_refuses_other_types():
    for data in ["{}", None, 1, memoryview(b"{}")]:
        with pytest.raises(TypeError):
            json_loads(data)
