"""Do heads know constituents? (Luo 2021, arXiv:2104.07820, by the procedure of Kim et al. 2020, arXiv:2002.00737)

The distance between the attention of adjacent words makes a tree without any training; its spans are judged
by a treebank's.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from ..errors import UserError, one_of
from ..results.statistics import resamples
from ..results.table import Row
from .hits import Scores, side_by_side
from .record import WEIGHTS, Progress, Weights, map_names, record
from .scored import ScoredTable, random_baseline
from .trees import BASELINES, LABELS, GoldSpans, Tree, baseline_distances, read_trees
from .words import alignment_of

F1 = "S-F1"  # the group of whole sentences
Distance = Literal["js", "hellinger"]
Normalise = Literal["clip", "abs"]
_RANDOM_DRAWS = 10


@dataclass(frozen=True)
class Options:
    """What moves the figures; printed with them.

    distance: "js" (the square root of the Jensen-Shannon divergence, nats) or "hellinger".
    bias: lambda of the right-branching bias, d_i += bias * mean(d) * (1 - i / (words - 2)): all of it at the first gap
        between words (i = 0), none at the last; 0: none.
    punct: leave punctuation in (then right-branching is no baseline any more).
    weights: "softmax" or "mixed"; mixed weights are no distributions: they need `normalise`, "clip"
        (negative weights to 0) or "abs" (their size), each then divided by its row's sum.
    """

    distance: Distance = "js"
    bias: float = 0.0
    punct: bool = False
    weights: Weights = "softmax"
    normalise: Normalise | None = None

    def __post_init__(self) -> None:
        if self.distance not in get_args(Distance):
            raise one_of("distance", self.distance, get_args(Distance))
        if not math.isfinite(self.bias):
            raise UserError("bias must be a finite number", self.bias, "pass 0 for none, 1.5 as Kim et al.")
        if self.normalise not in (None, *get_args(Normalise)):
            raise one_of("normalise", self.normalise, get_args(Normalise))
        if self.weights not in WEIGHTS:
            raise one_of("weights", self.weights, WEIGHTS)
        if self.weights == "mixed" and self.normalise is None:
            raise UserError(
                "distances are between distributions, which mixed weights are not (they may be negative)",
                "mixed weights without a normalisation",
                "use softmax weights, or name one with --normalise clip or abs",
            )
        if self.weights != "mixed" and self.normalise is not None:
            raise UserError(
                "softmax weights are distributions already", self.normalise, "leave --normalise out"
            )


def distances(maps: np.ndarray, options: Options) -> np.ndarray:
    """[heads, words - 1]: how far the attention of a word is from that of the next. maps [heads, words, words]."""
    rows = maps.astype(np.float64)
    if options.normalise is not None:
        rows = np.abs(rows) if options.normalise == "abs" else np.clip(rows, 0, None)
    sums = rows.sum(-1, keepdims=True)
    rows = np.divide(rows, sums, out=np.full_like(rows, 1 / rows.shape[-1]), where=sums > 0)
    p, q = rows[:, :-1], rows[:, 1:]
    if options.distance == "hellinger":
        found = np.sqrt(((np.sqrt(p) - np.sqrt(q)) ** 2).sum(-1) / 2)
    else:
        found = np.sqrt(np.clip(_entropy((p + q) / 2) - (_entropy(p) + _entropy(q)) / 2, 0, None))
    if options.bias:
        share = np.linspace(1, 0, found.shape[-1])
        found = found + options.bias * found.mean(-1, keepdims=True) * share
    return found


def _entropy(p: np.ndarray) -> np.ndarray:
    return -(p * np.log(np.where(p > 0, p, 1))).sum(-1)


def _scores(golds: Sequence[GoldSpans], columns: Sequence[str]) -> Scores:
    groups = [F1, *LABELS]
    hits = np.zeros((len(golds), len(groups), len(columns)))
    totals = np.array([[1, *gold.totals] for gold in golds], dtype=np.float64)
    return Scores(groups, list(columns), hits, totals)


def baseline_scores(trees: Sequence[Tree], seed: int = 0) -> Scores:
    """Columns right, left, balanced, random (the mean of ten draws)."""
    golds = [GoldSpans(tree) for tree in trees]
    scores = _scores(golds, BASELINES)
    generator = np.random.default_rng(seed)
    for number, gold in enumerate(golds):
        for column, name in enumerate(BASELINES):
            draws = _RANDOM_DRAWS if name == "random" else 1
            trials = np.stack([baseline_distances(name, gold.count, generator) for _ in range(draws)])
            f1, hits = gold.judge(trials)
            scores.hits[number, 0, column] = f1.mean()
            scores.hits[number, 1:, column] = hits.mean(1)
    return scores


def baselines(trees: Sequence[Tree], punct: bool = False, seed: int = 0) -> Row:
    """{"options", "baselines": {right, left, balanced, random: {"s_f1", "recall": {label: ...}}}}: no model."""
    return {
        "options": {"punct": punct, "seed": seed, "sentences": len(trees), "random_draws": _RANDOM_DRAWS},
        "baselines": _baselines(baseline_scores(trees, seed)),
    }


def _baselines(scores: Scores) -> Row:
    values = scores.value()
    return {
        name: {
            "s_f1": float(values[0, c]),
            "recall": {x: float(values[g, c]) for g, x in enumerate(LABELS, 1)},
        }
        for c, name in enumerate(scores.columns)
    }


def constituency(
    model: Any,
    tokenizer: Any,
    report: Sequence[Tree] | Path | str,
    select: Sequence[Tree] | Path | str | None = None,
    *,
    options: Options | None = None,
    random_model: Any = None,
    draws: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> ScoredTable:
    """Every head's S-F1 (mean sentence F1) and recall by label, with baselines.

    The model sees the words of the trees (without punctuation, where `read_trees` removed it) and no special
    tokens. Arguments as in `dependencies`; options.punct must say how the trees were read.

    Returns:
        ScoredTable, a row a label (or S-F1) and head; `best()` adds the interval, the baselines, and the
        difference from the best of the four that need no model.
    """
    options = options or Options()
    skipped: list[str] = []
    report, select = _trees(report, options), None if select is None else _trees(select, options)
    done, scores = _score(model, tokenizer, report, options, skipped, progress)
    chosen = scores if select is None else _score(model, tokenizer, select, options, [], progress)[1]
    base = baseline_scores(done, seed)
    if random_model is not None:
        lost = picks = _score(random_model, tokenizer, done, options, [], progress)[1]
        if select is not None:
            picks = _score(random_model, tokenizer, select, options, [], progress)[1]
        base = side_by_side(base, random_baseline(lost, picks))
    meta = {
        "options": asdict(options) | {"alignment": alignment_of(tokenizer), "special_tokens": False},
        "chosen_on": "the sentences reported" if select is None else f"{len(select)} other sentences",
        "sentences": len(done),
        "skipped": dict(Counter(skipped)),
        "baselines": _baselines(base),
    }
    plain = np.nan_to_num(base.value()[:, : len(BASELINES)], nan=-1.0)
    rivals = {group: base.columns[best] for group, best in zip(base.groups, plain.argmax(-1), strict=True)}
    return ScoredTable.build("label", scores, chosen, base, rivals, meta, resamples(len(done), draws, seed))


def _trees(source: Sequence[Tree] | Path | str, options: Options) -> Sequence[Tree]:
    return read_trees(source, options.punct) if isinstance(source, Path | str) else source


def _score(
    model: Any,
    tokenizer: Any,
    trees: Sequence[Tree],
    options: Options,
    skipped: list[str],
    progress: Any,
) -> tuple[list[Tree], Scores]:
    failed: dict[int, str] = {}
    golds = [GoldSpans(tree) for tree in trees]
    scores = _scores(golds, map_names(model, options.weights))
    words = [tree.words for tree in trees]
    for index, maps in record(
        model,
        tokenizer,
        words,
        weights=options.weights,
        special_tokens=False,
        skipped=failed,
        progress=progress,
    ):
        f1, hits = golds[index].judge(distances(maps, options))
        scores.hits[index, 0], scores.hits[index, 1:] = f1, hits
    skipped += failed.values()
    rows = [i for i in range(len(trees)) if i not in failed]
    if not rows:
        raise UserError("some sentence must fit the model", next(iter(failed.values())), "name other trees")
    return [trees[i] for i in rows], scores.at(rows)
