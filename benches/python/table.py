"""The table of docs/performance.md, of what `make bench` has measured.

python benches/python/table.py [target/bench.json]
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}"


def lines(found: dict):
    yield ", ".join(f"{name} {value}" for name, value in found["machine"].items())
    yield ""
    yield "| what | ours | beside | its | ratio (quartiles) | target | |"
    yield "| --- | ---: | --- | ---: | ---: | --- | --- |"
    for row in found["rows"]:
        title, ours = row["title"], f"{number(row['ours']['median'])} {row['unit']}"
        for one in row["comparisons"]:
            ratio = one["ratio"]
            verdict = {True: "met", False: "**missed**", None: ""}[one["met"]]
            spread = f"{ratio['median']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f})"
            other = number(one["other"]["median"])
            cells = (title, ours, one["name"], other, spread, one["wanted"], verdict)
            yield f"| {' | '.join(cells)} |"
            title = ours = ""


if __name__ == "__main__":
    path = Path(sys.argv[1]) if sys.argv[1:] else ROOT / "target" / "bench.json"
    print(*lines(json.loads(path.read_text())), sep="\n")
