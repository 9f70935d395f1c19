"""The paper's synthetic experiments: the identity, frozen parts, a trained query, other starts."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from .bags import PAPER, TopicData, Topics
from .identity import LEAST_SCORE, closed_norm, relative_error, trained_query_norm
from .model import CLASSIFIERS, Setup, WordAttention
from .runs import Progress, Results, claim, complete, finish, plain, silent
from .summary import summary
from .train import evenly, judge, thin, train

SCORE_BINS = torch.linspace(-1, 7, 81, dtype=torch.float64)
NORM_BINS = torch.linspace(0, 6, 61, dtype=torch.float64)
FROZEN = {"all trained": (), "keys frozen": ("keys",), "embeddings frozen": ("embeddings",)}


@dataclass(frozen=True)
class Synthetic:
    """What is run: by default one seed of two classifiers, in the paper's setting (FULL has all of it).

    seeds: of the data; each starts from the authors' start (Setup.start). starts: the number of other starts to run
    each classifier from, on the first seed's data.
    """

    classifiers: tuple[str, ...] = CLASSIFIERS[:2]
    seeds: tuple[int, ...] = (0,)
    epochs: int = 5000
    rate: float = 0.1
    starts: int = 0
    data: TopicData = PAPER


FULL = Synthetic(classifiers=CLASSIFIERS, seeds=(0, 1, 2, 3, 4), starts=20)


def run(settings: Synthetic, out: Path, progress: Progress = silent) -> Results:
    """Run what `out` does not have yet; write results.json there and return its content.

    {"kind": "synthetic", "settings", "curves": one entry for each classifier and seed, "frozen", "query", "starts",
    "summary"}. An entry of curves: {"classifier", "seed", "start", "m", "query_norm", "epoch" [points],
    "score", "embedding_norm" [points][topic words], "loss", "validation_loss", "test_loss", "test_accuracy",
    "attention" [points], "identity_error" {"largest", "median", "words" [topic words]}, "histograms",
    "seconds"}.
    """
    claim(out, {"kind": "synthetic", **asdict(settings)})
    parts = {"curves": _curves, "frozen": _frozen, "query": _query, "starts": _starts}
    found: Results = {}
    for part, setups in parts.items():
        jobs = {
            f"{part}-{name}": partial(_job, setup, settings, part) for name, setup in setups(settings).items()
        }
        found[part] = list(complete(out, jobs, progress).values())
    return finish(
        out, {"kind": "synthetic", "settings": asdict(settings), **found, "summary": summary(found)}
    )


def _curves(settings: Synthetic) -> dict[str, Setup]:
    return {
        f"{classifier}-{seed}": Setup(classifier, seed, epochs=settings.epochs, rate=settings.rate)
        for seed in settings.seeds
        for classifier in settings.classifiers
    }


def _frozen(settings: Synthetic) -> dict[str, Setup]:
    """The paper's ablation: embeddings start with std 0.1, keys or embeddings stay there."""
    return {
        f"{name}-{what.replace(' ', '-')}": replace(setup, embedding_std=0.1, frozen=("query", *frozen))
        for name, setup in _curves(settings).items()
        for what, frozen in FROZEN.items()
    }


def _query(settings: Synthetic) -> dict[str, Setup]:
    return {name: replace(setup, frozen=()) for name, setup in _curves(settings).items()}


def _starts(settings: Synthetic) -> dict[str, Setup]:
    runs = _curves(replace(settings, seeds=settings.seeds[:1]))
    kinds = {setup.classifier: setup for setup in runs.values()}
    if "fixed" in kinds:
        kinds["fixed-uniform"] = replace(kinds["fixed"], fixed_start="uniform")
    return {
        f"{name}-{start}": replace(setup, start=start)
        for start in range(settings.starts)
        for name, setup in kinds.items()
    }


def _job(
    setup: Setup, settings: Synthetic, part: str, kept: Path, progress: Callable[[int, int], None]
) -> Results:
    data = settings.data.draw(setup.seed)
    model = WordAttention(setup, data.train.counts.shape[1], settings.data.topics)
    course = train(
        model, data.train, partial(_measure, data), evenly(setup.epochs, 100), kept=kept, progress=progress
    )
    course["theory"] = _theory(course, data.others, part)
    entry = {
        **_MORE[part](setup),
        "classifier": setup.classifier,
        "seed": setup.seed,
        "start": setup.start,
        "m": data.others,
        "query_norm": float(course["query_norm"][0]),
        **{key: plain(thin(course[name], 1 if part == "curves" else 4)) for key, name in _KEPT[part].items()},
        "final": {key: plain(course[key][-1]) for key in ("loss", "test_loss", "test_accuracy", "attention")},
        "identity_error": _errors(course),
        "seconds": plain(course["seconds"][-1], 4),
    }
    if part == "curves":
        entry["histograms"] = _histograms(model, data.topic_words)
    return entry


_LOSSES = {x: x for x in ("epoch", "loss", "validation_loss", "test_loss", "test_accuracy", "attention")}
_KEPT = {  # {part: {key of an entry: name in the recorded history}}
    "curves": {**_LOSSES, "score": "score", "embedding_norm": "embedding_norm"},
    "frozen": {"epoch": "epoch", "loss": "loss"},
    "query": {**_LOSSES, "score": "score", "embedding_norm": "embedding_norm"}
    | {"query_norms": "query_norm", "balance": "balance", "theory": "theory"},
    "starts": {"epoch": "epoch", "loss": "loss"},
}


def _trained(setup: Setup) -> str:
    return next(what for what, frozen in FROZEN.items() if setup.frozen == ("query", *frozen))


_MORE: dict[str, Callable[[Setup], Results]] = {  # what distinguishes the entries of a part
    "curves": lambda setup: {},
    "frozen": lambda setup: {"trained": _trained(setup)},
    "query": lambda setup: {},
    "starts": lambda setup: {
        "kind": setup.classifier + ("" if setup.fixed_start == "normal" else f", {setup.fixed_start} start")
    },
}


def _measure(data: Topics, model: WordAttention) -> dict[str, Tensor | float]:
    """The quantities of the theory for the topic words (one head); attention is their mean."""
    words = slice(data.topic_words)
    validation_loss, _ = judge(model, data.validation)
    test_loss, test_accuracy = judge(model, data.test)
    query = model.query.norm()
    return {
        "validation_loss": validation_loss,
        "test_loss": test_loss,
        "test_accuracy": test_accuracy,
        "score": model.scores()[words, 0],
        "embedding_norm": model.embeddings[words, 0].norm(dim=1),
        "attention": model.attention(data.train)[words].mean(),
        "query_norm": query.clone(),
        "balance": query**2 - model.keys.pow(2).sum(),
    }


def _theory(course: dict[str, Tensor], others: int, part: str) -> Tensor:
    """The embedding norm [points, topic words] expected from the scores."""
    score, start = course["score"], course["embedding_norm"][0]
    if part == "query":
        return trained_query_norm(score, others, course["query_norm"], start)
    return closed_norm(score, others, course["query_norm"][0], score[0], start)


def _errors(course: dict[str, Tensor]) -> Results | None:
    """Relative error of the identity's norm where the score is over LEAST_SCORE."""
    error = relative_error(course["embedding_norm"], course["theory"], course["score"] > LEAST_SCORE)
    known = error[~error.isnan()]
    if not len(known):
        return None
    by_word = error.nan_to_num(-1).amax(0)
    return {
        "largest": plain(known.max()),
        "median": plain(known.median()),
        "words": [plain(x) if x >= 0 else None for x in by_word],
    }


def _histograms(model: WordAttention, topic_words: int) -> Results:
    """Counts of words by final score and norm; edges are SCORE_BINS and NORM_BINS, with open ends."""
    found: Results = {}
    values = {
        "score": (model.scores()[:, 0].detach(), SCORE_BINS),
        "embedding_norm": (model.embeddings[:, 0].norm(dim=1).detach(), NORM_BINS),
    }
    for name, (x, bins) in values.items():
        x = x.clamp(bins[0], bins[-1])
        parts = {"topic": x[:topic_words], "other": x[topic_words:]}
        found[name] = {kind: plain(torch.histogram(part, bins).hist.long()) for kind, part in parts.items()}
    return found
