"""What trivial methods reach on the tokens that a model is judged on: counted n-grams with Kneser-Ney smoothing.

Interpolated Kneser-Ney (Kneser, Ney 1995; Chen, Goodman 1999) of order n gives a token w after the n-1 tokens h

    p_n(w | h) = max(c(h w) - D_n, 0) / c(h) + D_n N(h) / c(h) p_{n-1}(w | h without its first token)

where c counts n-grams in the training text at the top order; below it c(g) counts the different tokens seen before
g. c(h) is the sum of c(h w) over w, N(h) how many w have one, and D = n1 / (n1 + 2 n2), with n1 and n2 the numbers of
n-grams counted once and twice at that order. A context that was not seen leaves it to the next lower order; below order
1 every token of the vocabulary is as likely.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

ORDERS = (2, 3, 4, 5, 6)
MOST = 50_000_000  # training tokens counted: about 6 GB of memory

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def floors(
    train: Tensor, judged: Tensor, vocabulary: int, keep: NDArray[np.bool_] | None = None
) -> dict[str, Any]:
    """{"unigram": nats a token, "kneser_ney": {"2": nats a token, ... "6"}} of the tokens `judged`.

    Args:
        train: all training tokens, in order. judged: a text's tokens, in order, of which `keep` (default all) count.
    """
    text = judged.flatten().numpy().astype(np.int64)
    keep = np.ones(len(text), bool) if keep is None else keep
    counted = train.flatten()[:MOST].numpy().astype(np.int64)
    counts = np.bincount(counted, minlength=vocabulary) + 1.0  # no token is impossible
    by_order = KneserNey(counted, vocabulary, max(ORDERS)).nats(text, ORDERS)
    return {
        "unigram": float(-np.log(counts / counts.sum())[text[keep]].mean()),
        "kneser_ney": {str(order): float(nats[keep].mean()) for order, nats in by_order.items()},
    }


class KneserNey:
    """Interpolated Kneser-Ney models of all orders up to `most`, counted from one text.

    The n-grams of an order are numbered; n-gram number g followed by token w is looked up by g * vocabulary + w.
    """

    def __init__(self, text: Ints, vocabulary: int, most: int) -> None:
        self.vocabulary = vocabulary
        self.keys: list[Ints] = []  # of each order: the n-grams, sorted
        counts: list[Ints] = []  # how often each was seen
        before: list[Ints] = []  # how many different tokens were seen before it
        place = np.zeros(len(text) + 1, np.int64)  # number of the (n-1)-gram that starts there
        for order in range(1, most + 1):
            starts = max(len(text) - order + 1, 0)
            keys, first, number, count = np.unique(
                place[:starts] * vocabulary + text[order - 1 :],
                return_index=True,
                return_inverse=True,
                return_counts=True,
            )
            if order > 1:  # every different n-gram is one token before its last n-1
                before.append(np.bincount(place[first + 1], minlength=len(self.keys[-1])))
            self.keys.append(keys)
            counts.append(count)
            place = number
        self.top = [_Level(self, order, counts[order - 1]) for order in range(1, most + 1)]
        self.below = [_Level(self, order, before[order - 1]) for order in range(1, most)]

    def contexts(self, order: int) -> int:
        """How many different (order-1)-grams there are."""
        return len(self.keys[order - 2]) if order > 1 else 1

    def nats(self, text: Ints, orders: Sequence[int]) -> dict[int, Floats]:
        """{order: -log p of each token after those before it}, the first tokens by the orders they have context for."""
        found: dict[int, Floats] = {}
        lower = np.full(len(text), 1 / self.vocabulary)
        place = np.zeros(len(text) + 1, np.int64)
        for order in range(1, max(orders) + 1):
            starts = max(len(text) - order + 1, 0)
            context = place[:starts]
            number = self._find(order, context, text[order - 1 :])
            if order in orders:
                found[order] = -np.log(self._with(self.top[order - 1], order, context, number, lower))
            if order < max(orders):
                lower = self._with(self.below[order - 1], order, context, number, lower)
            place = number
        return found

    def _find(self, order: int, context: Ints, tokens: Ints) -> Ints:
        """Numbers of the n-grams; -1 for those not seen."""
        keys, wanted = self.keys[order - 1], context * self.vocabulary + tokens
        if not len(keys):
            return np.full(len(wanted), -1)
        number = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.where((context >= 0) & (keys[number] == wanted), number, -1)

    def _with(self, level: "_Level", order: int, context: Ints, number: Ints, lower: Floats) -> Floats:
        """The probabilities of an order from those of the next lower; the first tokens keep theirs."""
        own = lower[order - 1 :]
        total = np.where(context >= 0, level.total[context], 0)
        seen = total > 0
        share = np.where(number >= 0, np.maximum(level.counts[number] - level.discount, 0), 0)
        left = level.discount * level.kinds[context] * own
        own = np.where(seen, (share + left) / np.where(seen, total, 1), own)
        return np.concatenate([lower[: order - 1], own])


class _Level:
    """Counts of one order: of each n-gram, and per context the sum and how many are not 0."""

    def __init__(self, model: KneserNey, order: int, counts: Ints) -> None:
        context = model.keys[order - 1] // model.vocabulary
        size = max(model.contexts(order), 1)
        self.counts = counts if len(counts) else np.zeros(1, np.int64)
        self.total = np.bincount(context, counts, size)
        self.kinds = np.bincount(context, counts > 0, size)
        once, twice = int((counts == 1).sum()), int((counts == 2).sum())
        # A text in which every n-gram comes twice or more has no estimate: half a count, so that nothing is impossible.
        self.discount = once / (once + 2 * twice) if once else 0.5
