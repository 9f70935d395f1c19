"""Figures of a transformer along its training."""

from pathlib import Path
from typing import Any

import torch

from ..runs import Results
from ..summary import grouped
from .drawing import Make, figure


def relations(path: Path, results: Results) -> str | None:
    """Every relation over steps: the mean over layers and heads, a line a seed."""
    names = list(results["relations"])
    with figure(path, 2, len(names), size=(3.8, 2.9), sharex=True, sharey=True) as axes:
        for column, name in enumerate(names):
            for number, (arm, runs) in enumerate(grouped(results["runs"], "arm").items()):
                for run in runs:
                    for place, what in zip(axes[:, column], ("level", "change"), strict=True):
                        values = torch.tensor(_known(run["relations"][name][what])).nanmean((1, 2))
                        label = arm if run is runs[0] else None
                        place.plot(run["steps"], values, color=f"C{number}", lw=1, marker=".", label=label)
            axes[0][column].set_title(name)
            axes[1][column].set_xlabel("step")
            for place in axes[:, column]:
                place.axhline(0, color="gray", lw=0.5)
        axes[0][0].set_ylabel("correlation of the values")
        axes[1][0].set_ylabel("correlation of what was gained")
        axes[0][0].legend(fontsize=7)
    return "Rank correlation over words, frequency held fixed, mean over layers and heads. " + "; ".join(
        f"{name}: {words}" for name, words in results["relations"].items()
    )


def heads(path: Path, results: Results) -> str | None:
    """Each head's correlation at the end, first seed of each arm."""
    arms = {arm: runs[0] for arm, runs in grouped(results["runs"], "arm").items()}
    names = [name for name in results["relations"] if name != "sum"]
    with figure(path, len(arms), len(names), size=(3.6, 2.4)) as axes:
        for row, (arm, run) in zip(axes, arms.items(), strict=True):
            for place, name in zip(row, names, strict=True):
                image = place.imshow(
                    _known(run["relations"][name]["level"][-1]), cmap="RdBu", vmin=-1, vmax=1, aspect="auto"
                )
                place.set(title=f"{arm}: {name}", xlabel="head", ylabel="layer")
                place.title.set_fontsize(9)
        place.figure.colorbar(image, ax=axes, shrink=0.6)
    return "The same head by head after the last step, first seed"


def scatter(path: Path, results: Results) -> str | None:
    arms = {arm: runs[0] for arm, runs in grouped(results["runs"], "arm").items()}
    with figure(path, len(arms), 4, size=(3.4, 2.9)) as axes:
        for row, (arm, run) in zip(axes, arms.items(), strict=True):
            places = iter(row)
            for what in ("embedding", "value"):
                for when in ("start", "end"):
                    place = next(places)
                    points = run["scatter"][when]
                    image = place.scatter(
                        points["score"],
                        points[what],
                        s=8,
                        c=torch.tensor(run["scatter"]["count"]).log10(),
                        cmap="viridis",
                    )
                    place.set(xlabel="score", ylabel=f"norm of {what}")
                    place.set_title(f"{arm}, {when}, layer 0 head {run['scatter']['head']}", fontsize=8)
            place.figure.colorbar(image, ax=row[-1], label="log10 occurrences")
    return "Words of the first layer: score against the norm of input embedding and value vector, first and last step"


def _known(x: Any) -> Any:
    """Nested lists with NaN for null."""
    if isinstance(x, list):
        return [_known(part) for part in x]
    return float("nan") if x is None else x


FIGURES: dict[str, Make] = {"relations": relations, "heads": heads, "scatter": scatter}
