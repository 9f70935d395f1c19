"""Figures of what training attends to in real text."""

from pathlib import Path
from typing import Any

import torch

from ..identity import closed_norm
from ..runs import Results
from .drawing import Make, figure

PURITY, OCCURRENCE = "tab:red", "tab:blue"


def _name(run: Results) -> str:
    return f"{run['classifier']}, seed {run['seed']}"


def _both(place: Any, epoch: list[int], attended: Results) -> None:
    """Purity on the left axis, occurrence on the right; at the start all scores are 0, so from then on."""
    place.plot(epoch[1:], attended["purity"][1:], color=PURITY)
    place.set_xscale("log")
    place.set_ylim(0, 1)
    place.set_ylabel("mean purity", color=PURITY)
    right = place.twinx()
    right.plot(epoch[1:], attended["occurrence"][1:], color=OCCURRENCE)
    right.set_ylim(bottom=0)
    right.set_ylabel("mean occurrence", color=OCCURRENCE)


def attended(path: Path, results: Results) -> str | None:
    """Of each sentence's most attended word, over all training sentences."""
    runs = results["curves"]
    with figure(path, 1, len(runs)) as axes:
        for place, run in zip(axes[0], runs, strict=True):
            _both(place, run["epoch"], run["attended"])
            place.set(title=_name(run), xlabel="epoch")
    return (
        "The most attended word of each training sentence: how surely it tells the label (purity) and how many "
        "training sentences hold it (occurrence), means over sentences"
    )


def traced(path: Path, results: Results) -> str | None:
    runs, words = results["curves"], results["text"]["traced"]
    if not words:
        return None
    with figure(path, len(runs), len(words), size=(3.6, 2.6)) as axes:
        for row, run in zip(axes, runs, strict=True):
            for place, word in zip(row, words, strict=True):
                _both(place, run["epoch"], run["traced"][word])
                place.plot(run["epoch"][1:], run["traced"][word]["itself"][1:], color="gray", ls=":")
                place.set(title=f"{word} ({_name(run)})", xlabel="epoch")
                place.title.set_fontsize(9)
    return (
        "Over the training sentences that hold a word: purity and occurrence of the most attended word; dotted: in "
        "how many it is the word itself"
    )


def scores(path: Path, results: Results) -> str | None:
    """The watched words' scores and norms over epochs."""
    runs = results["curves"]
    with figure(path, len(runs), 2, size=(6, 3.6)) as axes:
        for row, run in zip(axes, runs, strict=True):
            for place, what in zip(row, ("score", "embedding_norm"), strict=True):
                values = torch.tensor(run[what])
                for number, word in enumerate(run["words"][:16]):
                    style = {"color": f"C{number % 10}", "ls": "-" if number < 10 else "--", "lw": 1}
                    place.plot(run["epoch"], values[:, number], label=word, **style)
                place.set(xlabel="epoch", ylabel=what.replace("_", " "), title=_name(run))
            row[1].legend(fontsize=6, ncol=2)
    return "Scores and embedding norms of the traced words, then of those with the highest final score"


def identity(path: Path, results: Results) -> str | None:
    runs = results["curves"]
    with figure(path, 1, len(runs)) as axes:
        for place, run in zip(axes[0], runs, strict=True):
            score, norm = torch.tensor(run["score"]), torch.tensor(run["embedding_norm"])
            place.plot(score, run["query_norm"] * norm, color="C0", lw=0.7, alpha=0.6)
            line = torch.linspace(0, max(float(score.max()), 0.1), 100)
            for others in (min(run["others"]), max(run["others"])):
                place.plot(line, closed_norm(line, others, 1.0), "k--", lw=1)
            place.set(title=_name(run), xlabel="score", ylabel="|query| |embedding|")
    return (
        "The identity on real text, where its premises do not hold: the watched words, and what theory would say "
        "for the shortest and the longest of their sentences (dashed)"
    )


def _ranked(run: Results) -> bool:
    """Whether some words were frequent enough to rank, at some epoch after the start."""
    return any(x is not None for what in ("occurrence", "purity") for x in run["rank"][what][1:])


def ranks(path: Path, results: Results) -> str | None:
    runs = [run for run in results["curves"] if _ranked(run)]
    if not runs:
        return None
    with figure(path, 1, len(runs)) as axes:
        for place, run in zip(axes[0], runs, strict=True):
            for what, color in (("occurrence", OCCURRENCE), ("purity", PURITY)):
                values = [float("nan") if x is None else x for x in run["rank"][what]]
                place.plot(run["epoch"], values, color=color, label=what)
            place.axhline(0, color="gray", lw=0.5)
            place.set(
                title=_name(run), xlabel="epoch", ylabel="rank correlation with the score", xscale="log"
            )
            place.legend()
    return f"Spearman's correlation of a word's score with its occurrence and purity, {runs[0]['rank']['words']:,} words"


def losses(path: Path, results: Results) -> str | None:
    runs = results["curves"]
    with figure(path, 1, 2, size=(5, 3.4)) as axes:
        for number, run in enumerate(runs):
            axes[0][0].plot(run["epoch"], run["loss"], color=f"C{number}", label=f"{_name(run)}, train")
            axes[0][0].plot(run["epoch"], run["dev_loss"], color=f"C{number}", ls="--", label="dev")
            axes[0][1].plot(run["epoch"], run["test_accuracy"], color=f"C{number}", label=_name(run))
        axes[0][0].set(ylabel="loss, nats")
        axes[0][1].set(ylabel="test accuracy")
        for place in axes[0]:
            place.set(xlabel="epoch", xscale="log")
            place.legend(fontsize=7)
    return "Loss on training and development sentences, accuracy on test sentences"


def sentence(path: Path, results: Results) -> str | None:
    runs = [run for run in results["curves"] if run["sentence"]]
    if not runs:
        return None
    with figure(path, 1, len(runs), size=(5, 3.4)) as axes:
        for place, run in zip(axes[0], runs, strict=True):
            place.stackplot(
                run["epoch"],
                torch.tensor(run["sentence"]["weight"]).T.tolist(),
                labels=run["sentence"]["words"],
            )
            place.set(title=_name(run), xlabel="epoch", ylabel="attention weight", ylim=(0, 1))
            place.legend(fontsize=7, loc="upper left")
    return "A training sentence's attention over training: the one in which a word overtakes another and gains most"


FIGURES: dict[str, Make] = {
    "attended": attended,
    "traced": traced,
    "ranks": ranks,
    "scores": scores,
    "identity": identity,
    "sentence": sentence,
    "losses": losses,
}
