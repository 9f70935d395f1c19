"""Real text: which words training attends to, when, and how often and how telling they are."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..results.statistics import rank_correlation
from .identity import LEAST_SCORE, closed_norm, relative_error
from .model import Setup, WordAttention
from .runs import Job, Progress, Results, claim, complete, finish, plain, silent
from .train import ever_rarer, judge, train
from .words import Text, attended, holding, numbers, read

TOP = 30  # number of words, by final score, whose history is kept
# Rank correlations use words in at least this many training sentences: a rare word is pure by chance.
RANKED = 10


@dataclass(frozen=True)
class OnText:
    """Settings: each classifier is run from each start. embedding_size: the paper's for real text.

    trace: words to follow; words that are not in the text are ignored.
    """

    classifiers: tuple[str, ...] = ("fixed", "trainable")
    seeds: tuple[int, ...] = (0,)
    epochs: int = 10_000
    rate: float = 0.1
    embedding_size: int = 200
    trace: tuple[str, ...] = ("powerful", "stupid", "solid", "suffers", "mess")


def run(
    settings: OnText, train: Path, dev: Path | None, test: Path | None, out: Path, progress: Progress = silent
) -> Results:
    """Run what `out` does not have yet; write results.json there and return its content.

    {"kind": "text", "settings", "text" {"name", "classes", "sentences", "words", "unknown"}, "curves": one
    entry a classifier and seed (see `_job`)}.
    """
    text = read(train, dev, test)
    watched = numbers(settings.trace, text.vocabulary)
    about = {
        "name": train.name,
        "digest": text.digest,
        "classes": text.classes,
        "sentences": {name: len(getattr(text, name).labels) for name in ("train", "dev", "test")},
        "words": len(text.vocabulary),
        "unknown": text.unknown,
        "traced": [text.vocabulary[word] for word in watched],
    }
    claim(out, {"kind": "text", **asdict(settings), "text": about})
    jobs: dict[str, Job] = {}
    for seed in settings.seeds:
        for classifier in settings.classifiers:
            setup = Setup(
                classifier=classifier,
                seed=seed,
                start=3 + seed,
                epochs=settings.epochs,
                rate=settings.rate,
                embedding_size=settings.embedding_size,
            )
            jobs[f"{classifier}-{seed}"] = partial(_job, setup, text, watched)
    found = list(complete(out, jobs, progress).values())
    return finish(out, {"kind": "text", "settings": asdict(settings), "text": about, "curves": found})


def _job(
    setup: Setup, text: Text, traced: list[int], kept: Path, progress: Callable[[int, int], None]
) -> Results:
    """One run's entry: {"classifier", "seed", "m", "query_norm", "epoch" [points], "loss", "dev_loss",
    "test_accuracy" [points], "words" (traced, then top), "score", "embedding_norm" [points][words], "others",
    "occurrence", "purity" [words], "attended" {"occurrence", "purity"} [points], "traced" {word: the same and
    "itself"}, "rank" {"occurrence", "purity"} [points], "identity_error" [words], "sentence", "seconds"}."""
    model = WordAttention(setup, len(text.vocabulary), len(text.classes), text.train.counts.dtype)
    at = ever_rarer(setup.epochs, 100)  # much happens early
    course = train(model, text.train, partial(_measure, text), at, kept=kept, progress=progress)
    top = [word for word in course["score"][-1].topk(min(TOP, len(text.vocabulary))).indices.tolist()]
    words = [*traced, *(word for word in top if word not in traced)]
    occurrence, purity = text.occurrence, text.purity
    query_norm = model.query.detach().norm()
    best = torch.stack([attended(text.train, score) for score in course["score"]])
    return {
        "classifier": setup.classifier,
        "seed": setup.seed,
        "start": setup.start,
        "m": plain(text.train.lengths.mean() - 1),
        "query_norm": plain(query_norm),
        **{name: plain(course[name]) for name in ("epoch", "loss", "dev_loss", "test_accuracy")},
        "words": [text.vocabulary[word] for word in words],
        "traced": {text.vocabulary[word]: _around(text, word, best) for word in traced},
        "score": plain(course["score"][:, words], 5),
        "embedding_norm": plain(course["embedding_norm"][:, words], 5),
        "others": plain(text.others[words]),
        "occurrence": plain(occurrence[words]),
        "purity": plain(purity[words]),
        "attended": {"occurrence": _means(occurrence[best]), "purity": _means(purity[best])},
        "rank": _ranks(course["score"], occurrence, purity),
        "identity_error": _errors(course, text, words, query_norm),
        "sentence": _sentence(course["score"], text, best),
        "seconds": plain(course["seconds"][-1], 4),
    }


def _measure(text: Text, model: WordAttention) -> dict[str, Tensor | float]:
    """Scores and norms of all words; a test sentence without a known word counts as wrong."""
    dev_loss, _ = judge(model, text.dev)
    _, right = judge(model, text.test)
    known = len(text.test.labels)
    return {
        "dev_loss": dev_loss,
        "test_accuracy": right * known / (known + text.unknown["test"]),
        "score": model.scores()[:, 0],
        "embedding_norm": model.embeddings[:, 0].norm(dim=1),
    }


def _means(x: Tensor) -> list[float]:
    return plain(x.mean(1), 4)


def _around(text: Text, word: int, best: Tensor) -> Results:
    """Over the training sentences that contain a word: how frequent and pure the most attended words are, and
    how often it is the word itself. best: [points, sentences]."""
    best = best[:, holding(text.train, word)]
    return {
        "occurrence": _means(text.occurrence[best]),
        "purity": _means(text.purity[best]),
        "itself": _means((best == word).double()),
    }


def _ranks(score: Tensor, occurrence: Tensor, purity: Tensor) -> Results:
    """Spearman's correlation of score [points, words] with either, at each point; None where all are equal."""
    often = occurrence >= RANKED
    found: Results = {"words": int(often.sum())}
    for name, x in (("occurrence", occurrence), ("purity", purity)):
        related = [rank_correlation(point[often], x[often]) for point in score]
        found[name] = [pair and plain(torch.tensor(pair[0]), 4) for pair in related]
    return found


def _errors(
    course: dict[str, Tensor], text: Text, words: list[int], query_norm: Tensor
) -> list[float | None]:
    """Each word's largest relative error of the identity with its own m; None if its score stays low."""
    score, norm = course["score"][:, words], course["embedding_norm"][:, words]
    theory = closed_norm(score, text.others[words], query_norm, score[0], norm[0])
    error = relative_error(norm, theory, score > LEAST_SCORE).nan_to_num(-1).amax(0)
    return [plain(x, 4) if x >= 0 else None for x in error]


def _sentence(score: Tensor, text: Text, best: Tensor) -> Results | None:
    """A training sentence whose most attended word changes: {"words", "weight" [points][words]}.

    Of those of 5 to 12 different words, the one whose last most attended word gains the most weight.
    """
    rows = text.train.counts
    begin = rows.crow_indices()
    sizes = begin.diff()
    asked = (sizes >= 5) & (sizes <= 12) & (best[1] != best[-1]) if len(best) > 1 else sizes < 0
    chosen, most = None, 0.0
    for place in asked.nonzero().flatten().tolist():
        words = rows.col_indices()[begin[place] : begin[place + 1]]
        weight = score[:, words].softmax(1)
        gain = float((weight[-1] - weight[0]).max())
        if gain > most:
            chosen, most = (words, weight), gain
    if chosen is None:
        return None
    return {"words": [text.vocabulary[word] for word in chosen[0]], "weight": plain(chosen[1], 4)}
