"""Django's test runner, which also writes down what came of each test and which engines were used.

The file that it writes is SUITE_REPORT; scripts/suites.py reads it.
"""

import json
import os
import sys
import unittest
from collections import Counter
from importlib import import_module
from pathlib import Path

from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase
from django.core.cache import caches
from django.test.runner import DiscoverRunner

OURS = "django_rust_sessions.backends."
DJANGOS = "django.contrib.sessions.backends."
# Read now: tests override it.
ENGINE = settings.SESSION_ENGINE

used = Counter()  # how many sessions each engine made, and how often ours spoke plain SQL


def count(cls, get_name):
    """Counts the objects that are made of a class, under the name that each is given."""
    original = cls.__init__

    def counting(self, *args, **kwargs):
        used[get_name(self)] += 1
        original(self, *args, **kwargs)

    cls.__init__ = counting


def engine_of(session):
    """The module of the engine that this session, or the class it derives from, belongs to."""
    frame = sys._getframe(1)
    while frame.f_code.co_name in ("counting", "__init__"):
        frame = frame.f_back
    if frame.f_globals["__name__"] == "django.contrib.sessions.base_session":
        return "the model"  # encode() and get_decoded() of Django's model take Django's db engine
    modules = (cls.__module__ for cls in type(session).__mro__)
    return next((name for name in modules if name.startswith((OURS, DJANGOS))), "none")


count(SessionBase, engine_of)
if ENGINE.startswith(OURS):
    count(import_module(OURS + "db").Statements, lambda statements: "plain SQL")


class Result(unittest.TextTestResult):
    """What came of each test, by its id; subtests that failed have an id of their own."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.outcomes = {}

    def note(self, test, outcome, why=""):
        # A test that failed may fail in its tearDown again: the first counts.
        self.outcomes.setdefault(test.id(), [outcome, why])

    def addSuccess(self, test):
        super().addSuccess(test)
        self.note(test, "passed")

    def addError(self, test, error):
        super().addError(test, error)
        self.note(test, "error", self.errors[-1][1])

    def addFailure(self, test, error):
        super().addFailure(test, error)
        self.note(test, "failed", self.failures[-1][1])

    def addSubTest(self, test, subtest, error):
        super().addSubTest(test, subtest, error)
        if error is not None:
            failed = issubclass(error[0], test.failureException)
            trouble = self.failures if failed else self.errors
            self.note(subtest, "failed" if failed else "error", trouble[-1][1])
            self.note(test, "failed", "a subtest failed")

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.note(test, "skipped", reason)

    def addExpectedFailure(self, test, error):
        super().addExpectedFailure(test, error)
        self.note(test, "expected failure")

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self.note(test, "failed", "it was expected to fail")


class Runner(DiscoverRunner):
    def get_resultclass(self):
        return Result

    def run_suite(self, suite, **kwargs):
        caches["default"].clear()  # Redis may have what another suite left
        report = {"why_not_native": why_not_native()}
        result = super().run_suite(suite, **kwargs)
        report |= {"outcomes": result.outcomes, "used": used}
        Path(os.environ["SUITE_REPORT"]).write_text(json.dumps(report))
        return result


def why_not_native():
    """Why our cache engines do not speak to Redis themselves here; None if they do."""
    if not ENGINE.startswith(OURS):
        return "this is Django's engine"
    return import_module("django_rust_sessions.caches").step_aside(settings.SESSION_CACHE_ALIAS)
