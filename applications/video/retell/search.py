"""The best sequence of pieces of a repository for a query of phones, exactly.

A match gives each query phone i a repository phone j(i). Its cost is a sum of integers:

    sum over i of  distance(q_i, r_j(i)) + stretch * |difference of their duration classes|
    + for each i where j(i) does not follow j(i-1) in the same utterance (a cut):
          cut + jump * L1(mouth at the end of r_j(i-1), mouth at the start of r_j(i))

Durations and mouth parameters enter as small integers: half-octave classes, and `levels` steps a parameter. So
phones begin and end in one of a few hundred mouth states, and the best cut into any phone is found between states
instead of between phones: the least cost so far of each state a phone can end in, plus a table of jumps. That is
exact for the cost above, for any table, and takes O(query * (repository + states^2)) steps.
"""

import itertools
from dataclasses import dataclass
from functools import cache

import numpy as np

from retell.errors import UserError
from retell.phones import DISTANCE, PHONES
from retell.speech import Speech

CLASSES = 12  # durations from 20 ms up in half octaves


@dataclass(frozen=True)
class Costs:
    cut: int = 60
    jump: int = 8  # for one step of one mouth parameter
    stretch: int = 4  # for half an octave of duration
    levels: int = 6
    axes: int = 3  # how many mouth parameters count at a cut: the first ones


@dataclass(frozen=True)
class Match:
    cost: int
    places: np.ndarray  # (n,) repository phone of each query phone
    pieces: list[tuple[int, int, int]]  # first query phone, one past the last, first repository phone


def duration_class(seconds) -> np.ndarray:
    octaves = np.log2(np.maximum(np.asarray(seconds, float), 0.02) / 0.02)
    return np.minimum(np.round(2 * octaves), CLASSES - 1).astype(np.int32)


@cache
def _tables(stretch: int) -> np.ndarray:
    """Cost of each query phone and duration class (the last is "any") against each symbol of a repository."""
    apart = np.abs(np.subtract.outer(np.arange(CLASSES), np.arange(CLASSES)))
    prices = stretch * np.vstack([apart, np.zeros((1, CLASSES), int)])
    tables = (DISTANCE[:, None, :, None] + prices[None, :, None, :]).astype(np.int32)
    return tables.reshape(len(PHONES), CLASSES + 1, -1)


def _take(values: np.ndarray, places: np.ndarray, out: np.ndarray) -> np.ndarray:
    """values[places], 1.6 times as fast: with mode "wrap" and an output NumPy checks and copies less."""
    return values.take(places, out=out, mode="wrap")


class Index:
    """A repository, prepared once for any number of searches."""

    def __init__(self, speech: Speech, costs: Costs | None = None):
        if not len(speech):
            raise UserError(
                "a repository must hold speech", "no phones", "ingest a video with its transcript"
            )
        self.speech, self.costs = speech, costs or Costs()
        self.phones = np.asarray(speech.phones, np.int32)
        self.classes = duration_class(speech.durations)
        breaks = np.ones(len(speech), bool)
        breaks[1:] = np.diff(speech.utterance) != 0
        self.breaks = np.flatnonzero(breaks)
        self.symbol = (self.phones * CLASSES + self.classes).astype(np.intp)
        self.tables = _tables(self.costs.stretch)
        self.steps = self._mouth_steps()
        # The states that occur, which of them each phone begins and ends in, and the cost of a cut between any two.
        enters, self.enter = np.unique(self.steps[0], axis=0, return_inverse=True)
        leaves, leave = np.unique(self.steps[1], axis=0, return_inverse=True)
        self.enter, self.leave = self.enter.ravel().astype(np.intp), leave.ravel().astype(np.intp)
        self.order = np.argsort(self.leave, kind="stable")
        self.first = np.searchsorted(self.leave[self.order], np.arange(len(leaves)))
        jumps = np.abs(enters[:, None] - leaves[None]).sum(2)
        self.cuts = (self.costs.cut + self.costs.jump * jumps).astype(np.int32)

    def _mouth_steps(self) -> np.ndarray:
        """Mouth parameters as small integers where each phone begins (0) and ends (1)."""
        motion, c = self.speech.motion, self.costs
        axes = min(c.axes, motion.shape[1]) if len(motion) else 0
        steps = np.zeros((2, len(self.phones), axes), np.int32)
        if axes:
            low, high = np.percentile(motion[:, :axes], [2, 98], axis=0)
            span = np.where(high > low, high - low, 1)
            for which, seconds in enumerate((self.speech.start, self.speech.end)):
                scaled = (self.speech.at(seconds)[:, :axes] - low) / span
                steps[which] = np.clip(np.round(scaled * (c.levels - 1)), 0, c.levels - 1)
        return steps

    def follows(self, k: int, j: int) -> bool:
        return j == k + 1 and self.speech.utterance[j] == self.speech.utterance[k]

    def search(self, phones, durations=None) -> Match:
        """The cheapest match of the phones; with durations in seconds, stretching costs too."""
        phones = np.asarray(phones, np.int32)
        if not len(phones):
            raise UserError("a query must hold phones", "none", "give at least one word")
        kinds = [CLASSES] * len(phones) if durations is None else duration_class(durations).tolist()
        rows = np.empty((len(phones), len(self.phones)), np.int32)
        on, cut = np.empty((2, len(self.phones)), np.int32)
        table = np.empty_like(self.cuts)
        _take(self.tables[phones[0], kinds[0]], self.symbol, rows[0])
        for i in range(1, len(phones)):
            leaving = np.minimum.reduceat(_take(rows[i - 1], self.order, cut), self.first)
            _take(
                np.add(self.cuts, leaving, out=table).min(1), self.enter, cut
            )  # the cheapest cut into each phone
            np.minimum(rows[i - 1, :-1], cut[1:], out=on[1:])  # or going on in the same piece
            on[self.breaks] = cut.take(self.breaks)
            _take(self.tables[phones[i], kinds[i]], self.symbol, rows[i])
            rows[i] += on
        return self._trace(rows, phones, kinds)

    def _trace(self, rows: np.ndarray, phones: np.ndarray, kinds: list) -> Match:
        """Walk back from the cheapest end; the way into one phone is found again from the row before it."""
        places = np.empty(len(rows), np.int64)
        places[-1] = j = int(rows[-1].argmin())
        for i in range(len(rows) - 1, 0, -1):
            before = rows[i, j] - self.tables[phones[i], kinds[i], self.symbol[j]]
            if j and self.follows(j - 1, j) and rows[i - 1, j - 1] == before:
                j = j - 1
            else:
                j = int(np.argmin(rows[i - 1] + self.cuts[self.enter[j]].take(self.leave)))
            places[i - 1] = j
        cuts = [i for i in range(1, len(places)) if not self.follows(int(places[i - 1]), int(places[i]))]
        edges = [0, *cuts, len(places)]
        pieces = [(a, b, int(places[a])) for a, b in itertools.pairwise(edges)]
        return Match(int(rows[-1].min()), places, pieces)

    def cost(self, phones, places, durations=None) -> int:
        """The cost of any match, added up from the definition: the measure that tests hold `search` to."""
        total = 0
        for i, (q, j) in enumerate(zip(phones, places, strict=True)):
            total += int(DISTANCE[q, self.phones[j]])
            if durations is not None:
                total += self.costs.stretch * abs(int(duration_class(durations[i])) - int(self.classes[j]))
            if i and not self.follows(int(places[i - 1]), int(j)):
                jump = sum(
                    abs(int(a) - int(b))
                    for a, b in zip(self.steps[1][places[i - 1]], self.steps[0][j], strict=True)
                )
                total += self.costs.cut + self.costs.jump * jump
        return total
