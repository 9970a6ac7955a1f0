"""The plots of the README: how many times as fast ours is, on a light and on a dark ground."""

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

LOOKS = {
    "light": {
        "ground": "#ffffff",
        "ink": "#1f2328",
        "quiet": "#d0d7de",
        "django": "#2da44e",
        "other": "#8250df",
    },
    "dark": {
        "ground": "#0d1117",
        "ink": "#e6edf3",
        "quiet": "#30363d",
        "django": "#3fb950",
        "other": "#a371f7",
    },
}


def bars(found: dict):
    """Per row: its title, the ratio to Django, and the one to the best other."""
    for row in found["rows"]:
        others = [one for one in row["comparisons"] if one["met"] is not None or one["wanted"]]
        others = [
            one for one in others if not one["name"].startswith(("floor", "flat")) and one["name"]
        ]
        # Of time that a call takes, not of sizes and of what is held meanwhile.
        if not others or row["unit"] in ("MB", "ms"):
            continue
        django, *rest = (one["ratio"]["median"] for one in others)
        yield row["title"], django, min(rest, default=None)


def draw(found: dict, folder: Path) -> None:
    rows = list(bars(found))[::-1]
    if not rows:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name, look in LOOKS.items():
        figure, axes = plt.subplots(figsize=(9, 0.42 * len(rows) + 1.2), facecolor=look["ground"])
        axes.set_facecolor(look["ground"])
        places = range(len(rows))
        for column, shift, colour, label in (
            (1, 0.19, look["django"], "Django's engine"),
            (2, -0.19, look["other"], "the best other competitor"),
        ):
            # From 1, "as long as ours", to the right or, if that is quicker, to the left.
            widths = [(row[column] or 1) - 1 for row in rows]
            spots = [place + shift for place in places]
            axes.barh(spots, widths, 0.36, left=1, color=colour, label=label)
        for place, (_, django, best) in zip(places, rows, strict=True):
            for value, shift in ((django, 0.19), (best, -0.19)):
                if value:
                    axes.text(
                        max(value, 1) * 1.02,
                        place + shift,
                        f"{value:.1f}",
                        va="center",
                        color=look["ink"],
                        fontsize=8,
                    )
        axes.set_yticks(list(places), [row[0] for row in rows], color=look["ink"], fontsize=9)
        axes.set_xscale("log")
        ticks = [0.5, 1, 2, 5, 10, 20, 50]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xticks([], minor=True)
        axes.set_xlim(0.5, 50)
        axes.set_ylim(-0.7, len(rows) - 0.3)
        axes.axvline(1, color=look["ink"], linewidth=1)
        axes.tick_params(colors=look["ink"])
        axes.grid(axis="x", color=look["quiet"], linewidth=0.5)
        axes.set_axisbelow(True)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.set_xlabel("times as long as this package takes (logarithmic)", color=look["ink"])
        legend = axes.legend(
            loc="lower center",
            bbox_to_anchor=(0.5, 1),
            ncols=2,
            facecolor=look["ground"],
            edgecolor=look["quiet"],
            fontsize=9,
        )
        for text in legend.get_texts():
            text.set_color(look["ink"])
        figure.tight_layout()
        figure.savefig(folder / f"bench-{name}.png", dpi=150, facecolor=look["ground"])
        plt.close(figure)
