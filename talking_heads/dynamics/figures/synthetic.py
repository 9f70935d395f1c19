"""Figures of the synthetic experiments."""

from collections.abc import Callable
from pathlib import Path

import torch

from ..identity import closed_norm
from ..runs import Results
from ..summary import LOW, fall, grouped
from ..synthetic import FROZEN, NORM_BINS, SCORE_BINS
from .drawing import figure


def _panels(runs: list[Results]) -> dict[str, list[Results]]:
    return grouped(runs, "classifier")


def identity(path: Path, results: Results) -> str | None:
    """Experimental against theory, every seed and topic word."""
    panels = _panels(results["curves"])
    with figure(path, 1, len(panels)) as axes:
        for place, (name, runs) in zip(axes[0], panels.items(), strict=True):
            for run in runs:
                score, norm = torch.tensor(run["score"]), torch.tensor(run["embedding_norm"])
                place.plot(score, run["query_norm"] * norm, color="C0", lw=3, alpha=0.4)
            most = max(max(map(max, run["score"])) for run in runs)
            line = torch.linspace(0, most, 200)
            place.plot(line, closed_norm(line, runs[0]["m"], 1.0), "k--", lw=1.2, label="theory")
            place.plot([], [], color="C0", lw=3, alpha=0.4, label="experimental")
            place.set(title=name, xlabel="score", ylabel="|query| |embedding|")
            place.legend()
    return (
        "The persisting identity: |query| |embedding| against the score of every topic word, a line a word and "
        "seed; dashed: sqrt(2 (k + exp(k)/m - 1/m))"
    )


def identity_error(path: Path, results: Results) -> str | None:
    panels = _panels(results["curves"])
    with figure(path, 1, len(panels), sharey=True) as axes:
        for place, (name, runs) in zip(axes[0], panels.items(), strict=True):
            for run in runs:
                score, norm = torch.tensor(run["score"]), torch.tensor(run["embedding_norm"])
                theory = closed_norm(score, run["m"], run["query_norm"], score[0], norm[0])
                place.plot(score[1:], 100 * (theory / norm - 1)[1:], color="C0", lw=0.8, alpha=0.6)
            place.axhspan(-0.5, 0.5, color="C2", alpha=0.15)
            place.axvline(0.2, color="gray", ls=":", lw=1)
            place.set(title=name, xlabel="score", ylabel="theory over measured norm, less 1, %", ylim=(-2, 2))
    return "How far the identity's norm is from the measured one; band: half a per cent; dotted: score 0.2"


def losses(path: Path, results: Results) -> str | None:
    with figure(path, 1, 2, size=(5.5, 3.6)) as axes:
        for number, (name, runs) in enumerate(_panels(results["curves"]).items()):
            for run in runs:
                label = name if run is runs[0] else None
                for place in axes[0]:
                    place.plot(run["epoch"], run["loss"], color=f"C{number}", lw=1, alpha=0.8, label=label)
                if fall(run) is not None:
                    axes[0][0].axvline(fall(run), color=f"C{number}", lw=0.5, ls=":")
        axes[0][1].set_yscale("log")
        for place in axes[0]:
            place.set(xlabel="epoch", ylabel="training loss, nats")
            place.legend()
    return "Training loss of every classifier and seed; dotted: where it first is below half its start"


def courses(path: Path, results: Results) -> str | None:
    """Scores, norms and attention over epochs."""
    panels = _panels(results["curves"])
    with figure(path, 3, len(panels), size=(4.2, 2.6), sharex=True, sharey="row") as axes:
        for column, (name, runs) in enumerate(panels.items()):
            for number, run in enumerate(runs):
                style = {"color": f"C{number}", "lw": 0.7, "alpha": 0.7}
                axes[0][column].plot(run["epoch"], run["score"], **style)
                axes[1][column].plot(run["epoch"], run["embedding_norm"], **style)
                axes[2][column].plot(run["epoch"], run["attention"], **style)
            axes[0][column].set_title(name)
            axes[2][column].set(xlabel="epoch", ylim=(0, 1))
        for row, label in enumerate(("score", "embedding norm", "attention on the topic word")):
            axes[row][0].set_ylabel(label)
    return "Score and embedding norm of every topic word, and mean attention on it; a colour a seed"


def histograms(path: Path, results: Results) -> str | None:
    panels = _panels(results["curves"])
    with figure(path, 2, len(panels), size=(4.2, 2.8)) as axes:
        for column, (name, runs) in enumerate(panels.items()):
            for row, (what, bins) in enumerate((("score", SCORE_BINS), ("embedding_norm", NORM_BINS))):
                place = axes[row][column]
                for kind in ("other", "topic"):
                    counts = torch.tensor([run["histograms"][what][kind] for run in runs]).sum(0)
                    place.stairs(counts, bins, fill=True, alpha=0.6, label=f"{kind} words")
                place.set(yscale="log", xlabel=what.replace("_", " "), ylabel="words, all seeds")
                place.set_ylim(bottom=0.5)
                place.legend()
            axes[0][column].set_title(name)
    return "Final scores and embedding norms of topic words and other words, all seeds together"


def frozen(path: Path, results: Results) -> str | None:
    panels = _panels(results["frozen"])
    with figure(path, 1, len(panels)) as axes:
        for place, (name, runs) in zip(axes[0], panels.items(), strict=True):
            for number, what in enumerate(FROZEN):
                mine = [run for run in runs if run["trained"] == what]
                for run in mine:
                    label = what if run is mine[0] else None
                    place.plot(run["epoch"], run["loss"], color=f"C{number}", lw=1, alpha=0.8, label=label)
            place.set(title=name, yscale="log", xlabel="epoch", ylabel="training loss, nats")
            place.legend(loc="lower left", fontsize=8)
    return "What training needs: keys and embeddings together. Embeddings start with std 0.1; a line a seed"


def query(path: Path, results: Results) -> str | None:
    panels = _panels(results["query"])
    with figure(path, 1, len(panels) + 1) as axes:
        for number, (name, runs) in enumerate(panels.items()):
            place = axes[0][number]
            for run in runs:
                score, norm = torch.tensor(run["score"]), torch.tensor(run["embedding_norm"])
                place.plot(score, norm, color="C0", lw=2.5, alpha=0.4)
                place.plot(score, torch.tensor(run["theory"]), "k--", lw=0.6)
                fixed = closed_norm(score, run["m"], run["query_norm"])
                place.plot(score[:, 0], fixed[:, 0], color="C3", lw=0.8, ls=":")
                axes[0][-1].plot(run["epoch"], run["query_norms"], color=f"C{number}")
            place.set(title=name, xlabel="score", ylabel="embedding norm")
        for number, name in enumerate(panels):
            axes[0][-1].plot([], [], color=f"C{number}", label=name)
        axes[0][-1].set(xlabel="epoch", ylabel="|query|")
        axes[0][-1].legend()
    return (
        "With the query trained, too: measured norms (blue), the law along the path (dashed), and the identity as "
        "if the query had stayed (red, dotted); right: the query's norm"
    )


def starts(path: Path, results: Results) -> str | None:
    if not results["starts"]:
        return None
    with figure(path, 1, 2, size=(5, 3.6)) as axes:
        for number, (name, runs) in enumerate(grouped(results["starts"], "kind").items()):
            x = [run["query_norm"] for run in runs]
            for place, what in zip(axes[0], ("loss", "attention"), strict=True):
                place.scatter(x, [run["final"][what] for run in runs], color=f"C{number}", s=18, label=name)
        axes[0][0].set(yscale="log", ylabel="training loss at the end, nats")
        axes[0][0].axhline(LOW, color="gray", ls=":", lw=1)
        axes[0][1].set(ylabel="attention on the topic word at the end", ylim=(0, 1))
        for place in axes[0]:
            place.set_xlabel("|query| of the start")
        labels = axes[0][0].get_legend_handles_labels()
        axes[0][0].figure.legend(*labels, loc="outside right center")
    return "What hangs on the start: final loss and attention from other starts, against the query's norm"


FIGURES: dict[str, Callable[[Path, Results], str | None]] = {
    "identity": identity,
    "identity-error": identity_error,
    "losses": losses,
    "courses": courses,
    "histograms": histograms,
    "frozen": frozen,
    "query": query,
    "starts": starts,
}
