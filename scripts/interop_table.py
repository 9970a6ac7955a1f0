"""Copies the interop matrix into the README, between its marks.

    python3 scripts/interop_table.py            what the tests found (target/interop.json)
    python3 scripts/interop_table.py --check    only see that the README has all rows, none failed

The tests are `make test-full ONLY=interop`, for all configurations with all releases of Django.
"""

import json
import re
import sys

from envs import INTEROP, ROOT

README = ROOT / "README.md"
FOUND = ROOT / "target" / "interop.json"
MARKS = re.compile("(?<=<!-- interop -->\n).*?(?=<!-- /interop -->)", re.DOTALL)
PASSED = ("ok", "not applicable")

sys.path.insert(0, str(ROOT / "tests" / "interop"))


def verdict(results: dict[str, str] | None) -> str:
    if results is None:
        return "not tested"
    failed = [step for step, result in results.items() if result not in PASSED]
    return "ok" if not failed else "fails"


def rows(found: dict) -> dict[tuple[str, ...], list[str]]:
    """(place, outcomes) -> the engines of which that is so."""
    engines: dict[tuple[str, ...], list[str]] = {}
    for name in names():
        engine, place = name.split(", ", 1)
        outcomes = [verdict(found.get(name, {}).get(release)) for release in INTEROP]
        engines.setdefault((place, *outcomes), []).append(f"`{engine}`")
    return engines


def names() -> list[str]:
    from configurations import CONFIGURATIONS

    return [configuration.name for configuration in CONFIGURATIONS]


def table(found: dict) -> str:
    lines = [
        "| sessions in | engine | " + " | ".join(f"Django {release}" for release in INTEROP) + " |",
        "| --- | --- |" + " --- |" * len(INTEROP),
    ]
    for (place, *outcomes), engines in rows(found).items():
        lines.append(f"| {place} | {', '.join(engines)} | {' | '.join(outcomes)} |")
    return "\n" + "\n".join(lines) + "\n\n"


def wanted(text: str) -> set[tuple[str, str]]:
    """Places and engines of a table's rows."""
    cells = [line.strip("| ").split(" | ") for line in text.splitlines() if line]
    return {(place, engine) for place, engines, *_ in cells for engine in engines.split(", ")}


def main() -> None:
    text = README.read_text()
    if sys.argv[1:] == ["--check"]:
        # A run of a sample cannot say more than that.
        there = MARKS.search(text)[0]
        if "| fails |" in there or wanted(there) != wanted(table({})):
            sys.exit(
                "README.md: the interop matrix lacks a row, has one too many, or one that fails"
            )
    elif sys.argv[1:]:
        sys.exit(__doc__)
    else:
        README.write_text(MARKS.sub(lambda _: table(json.loads(FOUND.read_text())), text))


if __name__ == "__main__":
    main()
