"""Floors, against an independent and slow computation."""

import math
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch

from talking_heads.training.floors import ORDERS, KneserNey, floors

from .small import addresses


def slow_kneser_ney(train, vocabulary, order):
    """p(token, context) of interpolated Kneser-Ney, by dictionaries and recursion."""
    grams = {
        n: Counter(tuple(train[i : i + n]) for i in range(len(train) - n + 1)) for n in range(1, order + 1)
    }
    counts = {order: grams[order]}
    for n in range(1, order):
        before = defaultdict(set)
        for gram in grams[n + 1]:
            before[gram[1:]].add(gram[0])
        counts[n] = Counter({gram: len(tokens) for gram, tokens in before.items()})
    after = {n: defaultdict(dict) for n in counts}
    discounts = {}
    for n, counted in counts.items():
        for gram, count in counted.items():
            after[n][gram[:-1]][gram[-1]] = count
        once, twice = (sum(x == k for x in counted.values()) for k in (1, 2))
        discounts[n] = once / (once + 2 * twice)

    def probability(token, context, n):
        if n == 0:
            return 1 / vocabulary
        lower = probability(token, context[1:], n - 1)
        followers = after[n].get(tuple(context), {})
        if not followers:
            return lower
        total, discount = sum(followers.values()), discounts[n]
        own = max(followers.get(token, 0) - discount, 0) / total
        return own + discount * len(followers) / total * lower

    return lambda token, context: probability(token, context[max(0, len(context) - order + 1) :], order)


def tokens(text):
    return np.frombuffer(text.encode(), np.uint8).astype(np.int64)


TRAIN, JUDGED = tokens(addresses(True)[:12_000]), tokens(addresses(False)[:600])


@pytest.mark.parametrize("order", ORDERS)
def test_kneser_ney_is_that_of_an_independent_computation(order):
    slow = slow_kneser_ney(TRAIN.tolist(), 256, order)
    text = JUDGED.tolist()
    wanted = [-math.log(slow(text[i], text[:i])) for i in range(order - 1, len(text))]
    found = KneserNey(TRAIN, 256, max(ORDERS)).nats(JUDGED, [order])[order]
    assert found[order - 1 :] == pytest.approx(wanted, abs=1e-10) and np.isfinite(found).all()


def test_probabilities_add_up_to_one():
    model = KneserNey(TRAIN % 11, 11, 4)
    for context in ([1, 2, 3], [7, 7, 7], [0, 10, 10]):
        found = [math.exp(-model.nats(np.array([*context, token]), [4])[4][-1]) for token in range(11)]
        assert sum(found) == pytest.approx(1, abs=1e-12) and min(found) > 0


def test_floors_of_the_tokens_that_count():
    train, judged = torch.from_numpy(TRAIN.copy()).int(), torch.from_numpy(JUDGED.copy()).int()
    keep = np.arange(len(JUDGED)) % 3 == 0
    found = floors(train.view(-1, 100), judged, 256, keep)
    counts = Counter(TRAIN.tolist())
    by_hand = [-math.log((counts[x] + 1) / (len(TRAIN) + 256)) for x in JUDGED[keep].tolist()]
    assert found["unigram"] == pytest.approx(sum(by_hand) / len(by_hand), abs=1e-12)
    nats = KneserNey(TRAIN, 256, 6).nats(JUDGED, ORDERS)
    assert found["kneser_ney"] == {str(n): pytest.approx(nats[n][keep].mean()) for n in ORDERS}
    assert found["unigram"] > found["kneser_ney"]["2"] > found["kneser_ney"]["4"]


@pytest.mark.parametrize("train", [[1], [1, 2], [1, 1, 1, 1, 1, 1, 1, 1], [3, 2] * 9])
def test_short_and_repeated_texts_leave_nothing_impossible(train):
    found = floors(torch.tensor(train), torch.tensor([1, 2, 3, 0, 1, 1]), 4)
    assert all(0 < x < 20 for x in [found["unigram"], *found["kneser_ney"].values()])
