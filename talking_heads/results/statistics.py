"""Means, spreads and paired differences over seeds."""

import itertools
import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

LEAST_SEEDS = 3  # with two, a 95 % t interval is 12.7 standard errors wide to each side: no use to anyone


def summary(values: Sequence[float]) -> dict[str, float | None]:
    """{"mean", "spread"}: the standard deviation over seeds, None for one seed; NaN where a value is not finite."""
    return {"mean": fmean(values), "spread": _deviation(values) if len(values) > 1 else None}


def _deviation(values: Sequence[float]) -> float:
    return stdev(values) if all(map(math.isfinite, values)) else math.nan


def paired_difference(
    values: Sequence[float], baseline: Sequence[float], level: float = 0.95
) -> dict[str, Any]:
    """Mean of values - baseline, pair by pair, with a t interval; "interval" is None under three pairs."""
    from scipy.stats import t

    differences = [a - b for a, b in zip(values, baseline, strict=True)]
    count, mean = len(differences), fmean(differences)
    interval = None
    if count >= LEAST_SEEDS:
        half = float(t.ppf((1 + level) / 2, count - 1)) * _deviation(differences) / math.sqrt(count)
        interval = [mean - half, mean + half]
    return {"mean": mean, "interval": interval, "pairs": count}


def at(curve: dict[int, float], step: float) -> float:
    """The curve's value at a step between its points, by a straight line; its ends outside them."""
    points = sorted(curve.items())
    if step <= points[0][0]:
        return points[0][1]
    for (a, x), (b, y) in itertools.pairwise(points):
        if step <= b:
            return x + (y - x) * (step - a) / (b - a)
    return points[-1][1]
