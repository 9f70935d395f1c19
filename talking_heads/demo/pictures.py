"""The demo's figures: accuracy curves, learned maps, times, a sentence's attention."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..results.charts import plot, save

Results = dict[str, Any]

COLORS = {"multi-head": "#b05a00", "talking-heads": "#1f6fb4"}
NAMES = {"multi-head": "multi-head", "talking-heads": "talking heads"}


def curves(folder: Path, points: Sequence[Results], width: int, values: int) -> list[Path]:
    """Accuracy over steps, a picture a number of heads, a line a run."""
    found = []
    for heads in dict.fromkeys(point["heads"] for point in points):
        figure, axes = plot().subplots(figsize=(3.4, 2.9), layout="constrained")
        for kind, color in COLORS.items():
            mine = [point for point in points if (point["heads"], point["kind"]) == (heads, kind)]
            for number, point in enumerate(mine):
                label = NAMES[kind] if number == 0 else None
                axes.plot(*zip(*point["curve"], strict=True), color=color, label=label, lw=1.8, alpha=0.8)
        axes.axhline(1 / values, color="0.6", lw=1, ls=":")
        axes.set_title(f"{heads} heads of size {width // heads}", fontsize=11)
        axes.set_xlabel("training steps")
        axes.set_ylabel("accuracy")
        axes.set_ylim(0, 1.03)
        axes.legend(loc="center right", fontsize=9)
        found.append(folder / f"recall-{heads}-heads.png")
        save(figure, found[-1])
    return found


def maps(folder: Path, point: Results) -> list[Path]:
    """The maps that a run learned, a picture each: heads in downwards, heads out to the right."""
    limit = max(abs(x) for mix in point["maps"].values() for row in mix for x in row)
    found = []
    for name, mix in point["maps"].items():
        figure, axes = plot().subplots(figsize=(3.9, 3.2), layout="constrained")
        image = axes.imshow(mix, cmap="RdBu", vmin=-limit, vmax=limit)
        axes.set_title(name, fontsize=11)
        axes.set_xlabel("heads out")
        axes.set_ylabel("heads in")
        figure.colorbar(image, ax=axes, shrink=0.9)
        found.append(folder / f"{name}.png")
        save(figure, found[-1])
    return found


def times(path: Path, operator: Results) -> None:
    """Medians of forward and backward as bars, the range of the rounds as whiskers."""
    best = operator["next_best"]
    rows = [
        ("sdpa", "PyTorch's SDPA: heads do not talk", operator["sdpa_ms"], "0.6"),
        ("auto", "talking heads, this package", operator["ours_ms"], COLORS["talking-heads"]),
        (best["form"], f"talking heads, {best['form']}", best["ms"], COLORS["multi-head"]),
    ]
    figure, axes = plot().subplots(figsize=(5, 2.9), layout="constrained")
    for place, (form, name, median, color) in enumerate(rows):
        rounds = operator["times_ms"][form]
        axes.barh(place, median, color=color, height=0.4)
        axes.plot([min(rounds), max(rounds)], [place, place], color="black", lw=1.2, marker="|")
        axes.text(0, place - 0.28, f"{name}: {median:.1f} ms", va="bottom", fontsize=10)
    axes.set_ylim(2.4, -0.75)
    axes.set_yticks([])
    axes.set_xlim(0, 1.05 * max(max(x) for x in operator["times_ms"].values()))
    axes.set_xlabel("milliseconds, forward and backward")
    save(figure, path)


def sentence(path: Path, convert: Results) -> None:
    """One head's attention from word (rows) to word (columns)."""
    words = convert["words"]
    figure, axes = plot().subplots(figsize=(4.6, 4.1), layout="constrained")
    image = axes.imshow(convert["weights"], cmap="Blues", vmin=0)
    axes.set_xticks(range(len(words)), words, rotation=45, ha="right")
    axes.set_yticks(range(len(words)), words)
    axes.set_title(f"head {convert['head']}: rows attend to columns", fontsize=10)
    figure.colorbar(image, ax=axes, shrink=0.8, label="softmax weight")
    save(figure, path)
