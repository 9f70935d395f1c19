"""The fused GPU kernels with every pair of what a call can have, under the interpreter or on a GPU."""

import itertools
import random
from dataclasses import replace

import pytest
import torch

from talking_heads.kernels import triton as backend
from tests.cases import Case, check, in_ci

from .test_operator import problem
from .test_triton import BY_QUERY, DEVICE, kernels_run

pytest.importorskip("triton")

CHOICES = {
    "mask": ["none", "bool", "float", "dead"],
    "mask_shape": [(0, 0, 1), (1, 0, 0, 1), (0, 1, 1, 1), (1, 1, 1, 1), (1, 1)],
    "is_causal": [False, True],
    "dropout_p": [0.0, 0.3],
    "logits_mix": [True, False],
    "weights_mix": [True, False],
    "dynamic": [(), BY_QUERY[:1], BY_QUERY[1:], BY_QUERY],
    "bias": [False, True],
    "heads": [(1, 1, 1), (3, 5, 2), (2, 17, 3)],
    "n": [1, 5, 19],
    "m": [16, 37],
    "layout": ["plain", "heads_inside", "gaps"],
    "dtype": [torch.float32, torch.float16],
}


def pairs(choice):
    """Each two settings of a call, by their places in CHOICES."""
    return set(itertools.combinations(enumerate(choice), 2))


def possible(choice):
    given = dict(
        zip(CHOICES, (values[k] for values, k in zip(CHOICES.values(), choice, strict=True)), strict=True)
    )
    if given["is_causal"] and given["n"] == 1:  # its gradients are 0, which is no scale to measure errors by
        return False
    return not (given["bias"] and (given["mask"] != "none" or given["is_causal"]))


def covering(seed=0):
    """Few choices that hold every pair that some possible call has: greedily, the best of some drawn ones."""
    draw = random.Random(seed)
    counts = [len(values) for values in CHOICES.values()]
    new = lambda: tuple(draw.randrange(count) for count in counts)  # noqa: E731
    missing = set().union(*(pairs(choice) for choice in (new() for _ in range(20000)) if possible(choice)))
    chosen = []
    while missing:
        drawn = [choice for choice in (new() for _ in range(300)) if possible(choice)]
        best = max(drawn, key=lambda choice: len(pairs(choice) & missing))
        if pairs(best) & missing:
            chosen.append(best)
            missing -= pairs(best)
    return chosen


def case_of(choice):
    given = {name: values[k] for (name, values), k in zip(CHOICES.items(), choice, strict=True)}
    i, h, j = given.pop("heads")
    return Case(b=2, i=i, h=h, j=j, **given)


COVERING = covering()


def test_every_pair_is_there():
    held = set().union(*map(pairs, COVERING))
    names = list(CHOICES)
    unheld = [
        ((names[a], x), (names[b], y))
        for a, b in itertools.combinations(range(len(names)), 2)
        for x in range(len(CHOICES[names[a]]))
        for y in range(len(CHOICES[names[b]]))
        if ((a, x), (b, y)) not in held
    ]
    # bias with the three kinds of masks or causality, causality with one query
    assert len(unheld) == 5 and all({"bias", "n"} & {a[0], b[0]} for a, b in unheld)


@kernels_run
@pytest.mark.parametrize("number", in_ci(range(len(COVERING)), *range(4)))  # the first hold most pairs
def test_pairs(number):
    case = case_of(COVERING[number])
    if case.dtype == torch.float16 and DEVICE == "cuda":
        case = replace(case, dtype=torch.bfloat16)
    assert backend.refuses(problem(case)) is None or DEVICE == "cuda"
    check(case, "triton", DEVICE)
