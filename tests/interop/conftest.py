"""The table of the interop matrix: shown after the tests, and kept for scripts/interop_table.py."""

import json
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(HERE), str(ROOT / "scripts")]
KEPT = ROOT / "target" / "interop.json"
PASSED = ("ok", "not applicable")
table = pytest.StashKey["Matrix"]()


class Matrix:
    """What came of each cell: configuration -> Django -> step -> ok, or what went wrong."""

    def __init__(self) -> None:
        self.cells: dict[str, dict[str, dict[str, str]]] = {}

    def add(self, configuration: str, release: str, results: dict[str, str]) -> None:
        self.cells.setdefault(configuration, {})[release] = results

    def keep(self) -> None:
        """Beside what earlier runs have found: a sample must not wipe a whole run out."""
        kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
        for configuration, releases in self.cells.items():
            kept.setdefault(configuration, {}).update(releases)
        KEPT.parent.mkdir(exist_ok=True)
        KEPT.write_text(json.dumps(kept, indent=1))

    def lines(self):
        releases = sorted({release for found in self.cells.values() for release in found})
        width = max(map(len, self.cells))
        yield f"{'':{width}}  " + "  ".join(f"{'Django ' + release:12}" for release in releases)
        for configuration, found in sorted(self.cells.items()):
            outcomes = [verdict(found.get(release)) for release in releases]
            yield f"{configuration:{width}}  " + "  ".join(f"{text:12}" for text in outcomes)


def verdict(results: dict[str, str] | None) -> str:
    if results is None:
        return "-"
    failed = [step for step, result in results.items() if result not in PASSED]
    return "ok" if not failed else f"{len(failed)} FAILED"


@pytest.fixture(scope="session")
def matrix(request):
    return request.config.stash.setdefault(table, Matrix())


def pytest_terminal_summary(terminalreporter, config):
    matrix = config.stash.get(table, None)
    if matrix is None or not matrix.cells:
        return
    terminalreporter.section("interop of Django and Rust (- was not asked in this run)")
    for line in matrix.lines():
        terminalreporter.write_line(line)
    matrix.keep()
