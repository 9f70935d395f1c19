"""Do heads track syntactic dependencies? (Htut, Phang, Bordia, Bowman 2019, arXiv:1911.12246)

MAX relates each word to the word it attends to most; MST spans the maximum arborescence over the words from
the gold root. Each score is compared with a fixed offset, a chain and a random model.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from ..errors import UserError, one_of
from ..results.statistics import resamples
from ..results.table import Row
from .arborescence import arborescences
from .hits import Average, Scores, side_by_side
from .record import Progress, Weights, map_names, record
from .scored import ScoredTable, random_baseline
from .treebank import Sentence, fold, trees_of
from .words import alignment_of

TREE = "UUAS"  # the group of whole trees: unlabelled, undirected attachment
Direction = Literal["either", "dependent", "head"]
Diagonal = Literal["kept", "zeroed"]


@dataclass(frozen=True)
class Options:
    """What moves the figures; printed with them.

    direction: MAX counts an edge if "either" end attends most to the other, only the "dependent" to its
        head, or only the "head" to its dependent. MST's arcs run from the word that attends to the word
        attended to (the paper's), with "dependent" the other way.
    diagonal: whether a word may be related to itself ("kept", the paper's) or not ("zeroed"). MAX only.
    punct: score edges with the relation punct, too. subtypes: keep nsubj:pass apart from nsubj.
    average: "micro" over edges, or "macro" over sentences.
    weights: "softmax" or "mixed".
    """

    direction: Direction = "either"
    diagonal: Diagonal = "kept"
    punct: bool = False
    subtypes: bool = False
    average: Average = "micro"
    weights: Weights = "softmax"

    def __post_init__(self) -> None:
        kinds = {"direction": Direction, "diagonal": Diagonal, "average": Average, "weights": Weights}
        for name, kind in kinds.items():
            if getattr(self, name) not in get_args(kind):
                raise one_of(name, getattr(self, name), get_args(kind))


class Gold:
    """The edges of sentences to score, grouped by relation; the last group is the whole tree."""

    def __init__(self, sentences: Sequence[Sentence], options: Options) -> None:
        self.sentences, self.options = list(sentences), options
        self.edges = [self._edges(s) for s in self.sentences]
        names = Counter(r for _, _, relations in self.edges for r in relations)
        self.groups = [*sorted(names), TREE]
        self.place = {name: i for i, name in enumerate(self.groups)}
        self.totals = np.zeros((len(self.sentences), len(self.groups)), np.int32)
        for number, (_, _, relations) in enumerate(self.edges):
            for relation in relations:
                self.totals[number, self.place[relation]] += 1
        self.totals[:, -1] = self.totals[:, :-1].sum(1)

    def _edges(self, sentence: Sentence) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """(dependents, heads, relations) of the edges that count."""
        keep = [
            i
            for i, relation in enumerate(sentence.relations)
            if sentence.heads[i] >= 0 and (self.options.punct or fold(relation) != "punct")
        ]
        names = [
            sentence.relations[i] if self.options.subtypes else fold(sentence.relations[i]) for i in keep
        ]
        dependents = np.array(keep, np.int64)
        return dependents, sentence.heads[dependents], names

    def scores(self, columns: Sequence[str]) -> Scores:
        """Nothing hit yet."""
        hits = np.zeros((len(self.sentences), len(self.groups), len(columns)), np.float32)
        return Scores(self.groups, list(columns), hits, self.totals.copy(), self.options.average)

    def count(self, scores: Scores, number: int, maps: np.ndarray) -> None:
        """Adds the hits of sentence `number`'s maps [columns, words, words]."""
        dependents, heads, relations = self.edges[number]
        if not relations:
            return
        hit = max_hits(maps, dependents, heads, self.options)
        for place, relation in enumerate(relations):
            scores.hits[number, self.place[relation]] += hit[:, place]
        parents = spanning(maps, self.sentences[number].root, self.options.direction)
        linked = (parents[:, dependents] == heads) | (parents[:, heads] == dependents)
        scores.hits[number, -1] = linked.sum(1)

    def offsets(self) -> dict[str, Row]:
        """For each relation its most common offset, head minus dependent, and the share of edges that have it."""
        found = {}
        for relation in self.groups[:-1]:
            counts = Counter(
                int(h - d)
                for dependents, heads, names in self.edges
                for d, h, name in zip(dependents, heads, names, strict=True)
                if name == relation
            )
            offset = min(counts, key=lambda o: (-counts[o], abs(o), o))
            found[relation] = {"offset": offset, "count": counts.total()}
        return found

    def baselines(self, offsets: dict[str, Row]) -> Scores:
        """Columns "offset" (the signed offset), "offset, either way" and "chain" (a word and the next)."""
        scores = self.scores(["offset", "offset, either way", "chain"])
        for number, (dependents, heads, relations) in enumerate(self.edges):
            distance = heads - dependents
            for apart, relation in zip(distance, relations, strict=True):
                # NaN: unknown where offsets were to be chosen
                offset = offsets.get(relation, {"offset": np.nan})["offset"]
                known = np.nan if np.isnan(offset) else 1
                scores.hits[number, self.place[relation]] += (
                    known * (apart == offset),
                    known * (abs(apart) == abs(offset)),
                    abs(apart) == 1,
                )
            scores.hits[number, -1] = (np.nan, np.nan, (np.abs(distance) == 1).sum())
        return scores


def max_hits(maps: np.ndarray, dependents: np.ndarray, heads: np.ndarray, options: Options) -> np.ndarray:
    """[columns, edges] bool: whether an edge's ends attend most to each other, as options.direction says."""
    if options.diagonal == "zeroed":
        maps = maps.copy()
        place = np.arange(maps.shape[-1])
        maps[:, place, place] = -np.inf if options.weights == "mixed" else 0
    most = maps.argmax(-1)
    up, down = most[:, dependents] == heads, most[:, heads] == dependents
    return {"either": up | down, "dependent": up, "head": down}[options.direction]


def spanning(maps: np.ndarray, root: int, direction: str = "either") -> np.ndarray:
    """[columns, words]: each word's parent in the maximum spanning arborescence from `root` (-1 there).

    An arc's weight is how much the parent attends to the child; with direction "dependent" how much the
    child attends to the parent.
    """
    count = maps.shape[-1]
    order = np.array([root, *(i for i in range(count) if i != root)])
    children_first = maps if direction == "dependent" else maps.swapaxes(1, 2)
    parents = arborescences(children_first[:, order][:, :, order])
    found = np.full((len(maps), count), -1, np.int64)
    found[:, order[1:]] = order[parents[:, 1:]]
    return found


def score(
    model: Any,
    tokenizer: Any,
    sentences: Sequence[Sentence],
    options: Options,
    skipped: list[str],
    progress: Progress | None = None,
) -> tuple[Gold, Scores]:
    """Hits of every head on the sentences that the model can do."""
    gold = Gold(sentences, options)
    scores = gold.scores(map_names(model, options.weights))
    failed: dict[int, str] = {}
    words = [s.words for s in sentences]
    for index, maps in record(
        model, tokenizer, words, weights=options.weights, skipped=failed, progress=progress
    ):
        gold.count(scores, index, maps)
    skipped += failed.values()
    if failed:
        done = [s for i, s in enumerate(sentences) if i not in failed]
        if not done:
            raise UserError(
                "some sentence must fit the model", next(iter(failed.values())), "name another treebank"
            )
        kept = Gold(done, options)
        places = [gold.place[name] for name in kept.groups]
        rows = [i for i in range(len(sentences)) if i not in failed]
        scores = Scores(
            kept.groups, scores.columns, scores.hits[rows][:, places], kept.totals, options.average, rows
        )
        gold = kept
    return gold, scores


def dependencies(
    model: Any,
    tokenizer: Any,
    report: Sequence[Sentence] | Path | str,
    select: Sequence[Sentence] | Path | str | None = None,
    *,
    options: Options | None = None,
    random_model: Any = None,
    draws: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> ScoredTable:
    """Every head's score on every relation, with baselines.

    Args:
        report: sentences (of `read_treebank`, or a file) the figures are of.
        select: sentences heads (and offsets) are chosen on; without, they are chosen on those reported,
            which flatters them, and the result says so.
        random_model: a randomly initialised copy (see models.random_copy), scored as another baseline.
        draws: bootstrap resamples of sentences for the intervals of `best()`.

    Returns:
        ScoredTable, a row a relation and head: score (on `report`), chosen (on `select`), count. `best()`
        adds each relation's interval, baselines, and the difference from the offset (UUAS: from the chain).
    """
    options = options or Options()
    skipped: list[str] = []
    select = None if select is None else trees_of(select)
    gold, scores = score(model, tokenizer, trees_of(report), options, skipped, progress)
    if select is None:
        chosen_gold, chosen = gold, scores
    else:
        chosen_gold, chosen = score(model, tokenizer, select, options, [], progress)
    offsets = chosen_gold.offsets()
    base = gold.baselines(offsets)
    if random_model is not None:
        lost = picks = score(random_model, tokenizer, gold.sentences, options, [], progress)[1]
        if select is not None:
            picks = score(random_model, tokenizer, select, options, [], progress)[1]
        base = side_by_side(base, random_baseline(lost, picks))
    meta = {
        "measure": "MAX by relation, MST for UUAS",
        "options": asdict(options) | {"alignment": alignment_of(tokenizer)},
        "chosen_on": "the sentences reported"
        if select is None
        else f"{len(chosen_gold.sentences)} other sentences",
        "sentences": len(gold.sentences),
        "skipped": dict(Counter(skipped)),
        "chain": {"uuas": float(base.value()[-1, 2])},
        "offset": offset_accuracies(gold, base, offsets),
    }
    rivals = {group: "chain" if group == TREE else "offset" for group in gold.groups}
    weights = resamples(len(gold.sentences), draws, seed)
    return ScoredTable.build("relation", scores, chosen, base, rivals, meta, weights)


def offset_accuracies(gold: Gold, base: Scores, offsets: dict[str, Row]) -> dict[str, Row]:
    """{relation: accuracy of its offset, offset, count}: the offset may have been chosen on other sentences; NaN and
    None where those have no such relation."""
    values = base.value()[:, 0]
    counts = gold.totals.sum(0)
    return {
        group: {
            "accuracy": float(values[g]),
            "offset": offsets.get(group, {"offset": None})["offset"],
            "count": int(counts[g]),
        }
        for g, group in enumerate(gold.groups[:-1])
    }


def baselines(
    report: Sequence[Sentence], select: Sequence[Sentence] | None = None, options: Options | None = None
) -> Row:
    """{"options", "chain": {"uuas"}, "offset": {relation: {"accuracy", "offset", "count"}}}: no model needed."""
    options = options or Options()
    gold = Gold(report, options)
    offsets = (gold if select is None else Gold(select, options)).offsets()
    base = gold.baselines(offsets)
    shown = {k: v for k, v in asdict(options).items() if k in ("punct", "subtypes", "average")}
    return {
        "options": shown | {"sentences": len(report)},
        "chain": {"uuas": float(base.value()[-1, 2])},
        "offset": offset_accuracies(gold, base, offsets),
    }
