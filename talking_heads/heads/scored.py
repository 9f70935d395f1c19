"""Tables of heads scored on a treebank, compared with baselines and with other models."""

from typing import Any

import numpy as np

from ..errors import UserError
from ..results.statistics import interval, two_sided
from ..results.table import Row, Table
from .hits import Scores, side_by_side

RANDOM = "random model"


class ScoredTable(Table):
    """A Table, a row a group (relation, phrase label) and head, that also holds the hits sentence by sentence.

    scores: of the heads. base: of baselines, on the same sentences. weights: bootstrap resamples
    [draws, sentences].
    """

    scores: Scores
    base: Scores
    weights: np.ndarray

    @classmethod
    def build(
        cls,
        key: str,
        scores: Scores,
        chosen: Scores,
        base: Scores,
        rivals: dict[str, str],
        meta: Row,
        weights: np.ndarray,
    ) -> "ScoredTable":
        """chosen: scores by which `best` chooses heads. rivals: {group: the baseline to beat}."""
        value, by, counts = scores.value(), aligned(chosen, scores.groups), scores.totals.sum(0)
        rows = [
            {
                key: group,
                "head": head,
                "score": float(value[g, h]),
                "chosen": float(by[g, h]),
                "count": int(counts[g]),
            }
            for g, group in enumerate(scores.groups)
            for h, head in enumerate(scores.columns)
        ]
        table = cls(rows, (key, "head"), "score", meta, "chosen")
        table.scores, table.base, table.weights = scores, base, weights
        table.describe = lambda row: table._with_baselines(row, rivals[row[key]])
        return table

    def _with_baselines(self, row: Row, rival: str) -> Row:
        """Adds the interval, the baselines, and the difference from the rival with its paired interval."""
        group = row[self.keys[0]]
        plain = dict(
            zip(self.base.columns, self.base.only(group, *self.base.columns).value()[0], strict=True)
        )
        pair = side_by_side(self.scores.only(group, row["head"]), self.base.only(group, rival))
        drawn = pair.value(self.weights)[:, 0]
        found = {k: row[k] for k in (*self.keys, "score")} | {"interval": interval(drawn[:, 0])}
        found |= {name: float(x) for name, x in plain.items()}
        found["difference"] = row["score"] - float(plain[rival])
        found["difference interval"] = interval(drawn[:, 0] - drawn[:, 1])
        return found | {"count": row["count"], "chosen": row["chosen"]}

    def compare(self, other: "ScoredTable") -> Table:
        """Group by group this model's best head and the other's, and the paired difference, on the sentences that both
        could do (meta["sentences"] says how many).

        Raises:
            UserError: tables of other sentences.
        """
        mine_on, theirs_on, weights = self._common(other)
        key = self.keys[0]
        mine, theirs = ({row[key]: row for row in table.best().rows} for table in (self, other))
        rows = []
        for group in (x for x in mine if x in theirs):
            a, b = mine[group], theirs[group]
            pair = side_by_side(mine_on.only(group, a["head"]), theirs_on.only(group, b["head"]))
            if not pair.totals.any():  # none in what both could do
                continue
            (before, after), drawn = pair.value()[0], pair.value(weights)[:, 0]
            rows.append(
                {
                    key: group,
                    "head": a["head"],
                    "score": float(before),
                    "other head": b["head"],
                    "other": float(after),
                }
                | _change(float(before), float(after), drawn[:, 1] - drawn[:, 0])
                | {"count": int(pair.totals.sum())}
            )
        meta = {"this": self.meta, "other": other.meta, "sentences": len(mine_on.hits)}
        return Table(rows, (key,), "difference", meta)

    def layer_means(self, group: str) -> Table:
        """Each layer's mean score over its heads, with a bootstrap interval."""
        names, values, drawn = _by_layer(self.scores, self.weights, group)
        rows = [
            {"layer": name, "score": float(values[i]), "interval": interval(drawn[:, i])}
            for i, name in enumerate(names)
        ]
        return Table(rows, ("layer",), "score", self.meta | {"group": group})

    def compare_layers(self, other: "ScoredTable", group: str) -> Table:
        """Layer by layer this model's mean over heads, the other's, and the paired difference, on the sentences that
        both could do.

        Raises:
            UserError: tables of other sentences.
        """
        mine_on, theirs_on, weights = self._common(other)
        names, mine, drawn = _by_layer(mine_on, weights, group)
        others, theirs, drawn_others = _by_layer(theirs_on, weights, group)
        rows = []
        for i, name in enumerate(names):
            if name in others:
                j = others.index(name)
                a, b = float(mine[i]), float(theirs[j])
                rows.append(
                    {"layer": name, "score": a, "other": b} | _change(a, b, drawn_others[:, j] - drawn[:, i])
                )
        meta = {"group": group, "this": self.meta, "other": other.meta, "sentences": len(mine_on.hits)}
        return Table(rows, ("layer",), "difference", meta)

    def _common(self, other: "ScoredTable") -> tuple[Scores, Scores, np.ndarray]:
        """Both models' scores on the sentences that both could do, and how often each resample drew these."""
        theirs = set(other.scores.numbers)
        places, numbers = [], []
        for place, number in enumerate(self.scores.numbers):
            if number in theirs:
                places.append(place)
                numbers.append(number)
        a, b = self.scores.at(numbers), other.scores.at(numbers)
        groups = [group for group in a.groups if group in b.groups]
        totals = [x.totals[:, [x.groups.index(group) for group in groups]] for x in (a, b)]
        if not numbers or not groups or not np.array_equal(totals[0], totals[1]):
            raise UserError(
                "both models must score the same sentences", "other ones", "give both the same trees"
            )
        return a, b, self.weights[:, places]


def _by_layer(scores: Scores, weights: np.ndarray, group: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """(layers, the mean over their heads, the same of each resample)."""
    one = scores.only(group, *scores.columns)
    layer_of = [name.partition(":")[0] for name in one.columns]
    names = list(dict.fromkeys(layer_of))
    average = np.array([[x == name for name in names] for x in layer_of], float)
    average /= average.sum(0)
    return names, one.value()[0] @ average, one.value(weights)[:, 0] @ average


def _change(before: float, after: float, drawn: np.ndarray) -> dict[str, Any]:
    return {"difference": after - before, "difference interval": interval(drawn), "p": two_sided(drawn)}


def aligned(scores: Scores, groups: list[str]) -> np.ndarray:
    """The figures [groups, columns] in the order of other groups; NaN for a group that is not there."""
    value = dict(zip(scores.groups, scores.value(), strict=True))
    lost = np.full(len(scores.columns), np.nan)
    return np.stack([value.get(group, lost) for group in groups])


def random_baseline(scores: Scores, chosen: Scores) -> Scores:
    """One column, RANDOM: a randomly initialised model's best head in each group, by its figure in `chosen`."""
    best = np.nan_to_num(aligned(chosen, scores.groups), nan=-1.0).argmax(-1)
    hits = np.stack([scores.hits[:, g, h] for g, h in enumerate(best)], 1)[:, :, None]
    return Scores(scores.groups, [RANDOM], hits, scores.totals, scores.average)
