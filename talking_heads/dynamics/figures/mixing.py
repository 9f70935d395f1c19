"""Figures of the experiments with several heads."""

import math
from pathlib import Path
from statistics import median

import torch

from ..identity import closed_norm
from ..runs import Results
from ..summary import grouped
from .drawing import Make, figure


def laws(path: Path, results: Results) -> str | None:
    """Every law's error under every arm, and whether theory keeps it there."""
    panels = grouped(results["runs"], "classifier")
    names = list(results["laws"])
    with figure(path, 1, len(panels), size=(6.4, 4.2)) as axes:
        for place, (classifier, runs) in zip(axes[0], panels.items(), strict=True):
            arms = grouped(runs, "arm")
            cells = [[_middle(mine, law) for law in names] for mine in arms.values()]
            shown = [[math.log10(max(x, 1e-3)) if x is not None else math.nan for x in row] for row in cells]
            place.imshow(shown, cmap="RdYlGn_r", vmin=-3, vmax=0, aspect="auto")
            for row, mine in enumerate(arms.values()):
                for column, law in enumerate(names):
                    kept = mine[0]["errors"][law]["kept"]
                    cell = cells[row][column]
                    words = "-" if cell is None else f"{cell:.0%}" if cell > 0.1 else f"{cell:.2%}"
                    place.text(
                        column, row, words, ha="center", va="center", weight="bold" if kept else "normal"
                    )
            place.set_xticks(range(len(names)), names)
            place.set_yticks(range(len(arms)), list(arms))
            place.set_title(f"{classifier} classifier")
    return (
        "The largest relative error of each law under each arm, median over seeds; bold where theory says that "
        "the law holds. " + "; ".join(f"{name}: {words}" for name, words in results["laws"].items())
    )


def _middle(runs: list[Results], law: str) -> float | None:
    known = [run["errors"][law]["largest"] for run in runs if run["errors"][law]["largest"] is not None]
    return median(known) if known else None


def heads(path: Path, results: Results) -> str | None:
    """Norm against logit, head by head, for the first seed of the first classifier."""
    runs = [run for run in results["runs"] if "logit" in run]
    runs = [run for run in runs if run["classifier"] == runs[0]["classifier"]]
    columns = 4
    with figure(path, -(-len(runs) // columns), columns, size=(3.4, 3.0)) as axes:
        for place in axes.flat[len(runs) :]:
            place.axis("off")
        for place, run in zip(axes.flat, runs, strict=False):
            logit, norm = torch.tensor(run["logit"]), torch.tensor(run["embedding_norm"])
            for head in range(logit.shape[2]):
                place.plot(logit[:, :, head], norm[:, :, head], color=f"C{head}", lw=0.8, alpha=0.8)
            line = torch.linspace(0, max(float(logit.max()), 0.3), 100)
            for head, scale in enumerate(run["scales"]):
                place.plot(line, closed_norm(line, run["m"], scale), color=f"C{head}", ls=":", lw=0.9)
            place.set(xlabel="logit", ylabel="embedding norm", ylim=(0, 1.1 * float(norm.max())))
            place.set_title(run["arm"], fontsize=9)
    return (
        "Embedding norm against logit, a colour a head, a line a topic word (first seed); dotted: what the identity "
        "of a head by itself would be"
    )


def losses(path: Path, results: Results) -> str | None:
    panels = grouped(results["runs"], "classifier")
    with figure(path, 1, len(panels), size=(5.6, 3.8)) as axes:
        for place, (classifier, runs) in zip(axes[0], panels.items(), strict=True):
            for number, (arm, mine) in enumerate(grouped(runs, "arm").items()):
                for run in mine:
                    label = arm if run is mine[0] else None
                    place.plot(run["epoch"], run["loss"], color=f"C{number}", lw=0.9, alpha=0.8, label=label)
            place.set(
                title=f"{classifier} classifier", xlabel="epoch", ylabel="training loss, nats", yscale="log"
            )
            place.legend(fontsize=7)
    return "Training loss of every arm, a line a seed"


FIGURES: dict[str, Make] = {"laws": laws, "heads": heads, "losses": losses}
