"""Makes passwords/passwords.json: password hashes of Django releases, and how these judge them.

python3 tests/vectors/passwords.py                 all releases
python3 tests/vectors/passwords.py --venvs FOLDER  keep the environments there
"""

# Runs on Python 3.6 too, in each release's environment.
import argparse
import json
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
OUTPUT = os.path.join(HERE, "passwords", "passwords.json")
PASSWORDS = ["letmein", "", "p\u00e4ssw\u00f6rd \U0001f980", "a" * 100, " spaces ", "nul\0inside"]
HASHERS = ["PBKDF2", "PBKDF2SHA1", "Argon2", "BCryptSHA256", "BCrypt", "Scrypt"]


def cheaper(hasher):
    """The same hasher at a cost that tests can afford, as a project may have it."""
    costs = {"iterations": 1200, "time_cost": 1, "memory_cost": 64, "parallelism": 2}
    costs.update(rounds=4, work_factor=256, block_size=4)
    kept = {name: cost for name, cost in costs.items() if hasattr(hasher, name)}
    if hasher.algorithm == "scrypt":
        kept["parallelism"] = 1
    return type(type(hasher).__name__, (type(hasher),), kept)()


def entry(hashers, hasher, password, is_default_cost):
    from django.contrib.auth.hashers import check_password

    try:
        encoded = hasher.encode(password, hasher.salt())
    except ValueError:  # a library that refuses what Django gives it: NUL, or more than 72 bytes
        return None
    assert hasher.verify(password, encoded)
    updates = []
    preferred = hashers[hasher.algorithm]
    assert check_password(password, encoded, updates.append, preferred)
    return {
        "password": password,
        "encoded": encoded,
        "is_default_cost": is_default_cost,
        "must_update": bool(updates),
    }


def work():
    import django
    from django.conf import settings

    path = "django.contrib.auth.hashers.%sPasswordHasher"
    names = [name for name in HASHERS if name != "Scrypt" or django.VERSION >= (4, 0)]
    settings.configure(PASSWORD_HASHERS=[path % name for name in names])
    django.setup()
    from django.contrib.auth.hashers import get_hashers

    hashers = {hasher.algorithm: hasher for hasher in get_hashers()}
    entries = []
    for hasher in hashers.values():
        entries.append(entry(hashers, hasher, PASSWORDS[0], True))
        entries.extend(entry(hashers, cheaper(hasher), word, False) for word in PASSWORDS)
    costs = ["iterations", "time_cost", "memory_cost", "parallelism", "rounds", "work_factor"]
    costs.append("block_size")
    defaults = {
        hasher.algorithm: {cost: getattr(hasher, cost) for cost in costs if hasattr(hasher, cost)}
        for hasher in hashers.values()
    }
    found = {"defaults": defaults, "entries": [each for each in entries if each]}
    json.dump(found, sys.stdout)


def main():
    from pathlib import Path

    from generate import RELEASES, find_python, make_venv

    parser = argparse.ArgumentParser()
    parser.add_argument("--venvs")
    options = parser.parse_args()
    releases = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name, django, python, _ in RELEASES:
            if name.endswith("sha1"):
                continue
            folder = Path(options.venvs or temporary).resolve()
            interpreter = make_venv(folder / ("django-" + django), find_python(python), django)
            libraries = ["argon2-cffi", "bcrypt<5"]
            quiet = ["--quiet", "--disable-pip-version-check"]
            command = [interpreter, "-m", "pip", "install", *quiet, *libraries]
            subprocess.run([str(word) for word in command], check=True)
            output = subprocess.check_output([str(interpreter), __file__, "--work"])
            releases[name] = json.loads(output.decode())
            print("Django", django, len(releases[name]["entries"]), "hashes", flush=True)
    os.makedirs(os.path.dirname(OUTPUT), exist_ok=True)
    with open(OUTPUT, "w") as file:
        json.dump({"made by": "tests/vectors/passwords.py", "releases": releases}, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    work() if sys.argv[1:] == ["--work"] else main()
