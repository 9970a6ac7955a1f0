"""The settings of a suite, with the engine and the cache that scripts/suites.py asks for."""

import json
import os
from importlib import import_module

_suite = import_module(os.environ["SUITE_SETTINGS"])
globals().update({name: value for name, value in vars(_suite).items() if name.isupper()})

SESSION_ENGINE = os.environ["SUITE_ENGINE"]
CACHES = {"default": json.loads(os.environ["SUITE_CACHE"])}
TEST_RUNNER = "suite_runner.Runner"
# As Django's own suites have it: a real one takes most of the time.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
