"""Scores of heads sentence by sentence; with weights, of resampled sentences."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Average = Literal["micro", "macro"]


@dataclass
class Scores:
    """What was hit and what there was, for every sentence.

    hits [sentences, groups, columns]; totals [sentences, groups]: a group is a relation, a phrase label or
    a measure of whole trees; a column a head or a baseline. rows: the sentences' numbers in the list that was
    scored, where some were left out.
    """

    groups: list[str]
    columns: list[str]
    hits: np.ndarray
    totals: np.ndarray
    average: str = "micro"
    rows: list[int] | None = None

    @property
    def numbers(self) -> list[int]:
        """Of the sentences, in the list that was scored."""
        return list(range(len(self.hits))) if self.rows is None else self.rows

    def at(self, numbers: list[int]) -> "Scores":
        """Of some sentences alone, by their numbers."""
        place = {number: i for i, number in enumerate(self.numbers)}
        rows = [place[number] for number in numbers]
        return Scores(self.groups, self.columns, self.hits[rows], self.totals[rows], self.average, numbers)

    def value(self, weights: np.ndarray | None = None) -> np.ndarray:
        """[groups, columns]; with weights [draws, sentences] (how often each was drawn) [draws, ...].

        micro: hits of all sentences over totals of all; macro: the mean over the sentences that have the
        group. NaN where nothing was counted.
        """
        hits, totals = self.hits, self.totals
        if self.average == "macro":
            hits = np.divide(hits, totals[:, :, None], out=np.zeros(hits.shape), where=totals[:, :, None] > 0)
            totals = totals > 0
        if weights is None:
            above, below = hits.sum(0, dtype=np.float64), totals.sum(0, dtype=np.float64)
        else:
            flat = hits.reshape(len(hits), -1).astype(np.float32)
            above = (weights @ flat).reshape(len(weights), *hits.shape[1:]).astype(np.float64)
            below = (weights @ totals.astype(np.float32)).astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            return above / below[..., None]

    def only(self, group: str, *columns: str) -> "Scores":
        """One group of some columns."""
        g, c = self.groups.index(group), [self.columns.index(x) for x in columns]
        return Scores([group], list(columns), self.hits[:, [g]][:, :, c], self.totals[:, [g]], self.average)


def side_by_side(*parts: Scores) -> Scores:
    """The columns of several scores of the same sentences and groups, side by side."""
    first = parts[0]
    columns = [x for part in parts for x in part.columns]
    return Scores(
        first.groups, columns, np.concatenate([p.hits for p in parts], 2), first.totals, first.average
    )
