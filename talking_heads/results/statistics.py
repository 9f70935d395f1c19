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
    """{"mean", "interval", "p", "pairs"} of values - baseline, pair by pair: a t interval and the p-value of a paired
    t test, both None under three pairs."""
    from scipy.stats import t

    differences = [a - b for a, b in zip(values, baseline, strict=True)]
    count, mean = len(differences), fmean(differences)
    interval = p = None
    if count >= LEAST_SEEDS:
        error = _deviation(differences) / math.sqrt(count)
        half = float(t.ppf((1 + level) / 2, count - 1)) * error
        interval = [mean - half, mean + half]
        p = 2 * float(t.sf(abs(mean) / error, count - 1)) if error else float(mean == 0)
    return {"mean": mean, "interval": interval, "p": p, "pairs": count}


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for their number by Holm's method: below a level, that level holds for all of them together."""
    corrected, least = [0.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        least = max(least, min(1.0, (len(values) - rank) * values[place]))
        corrected[place] = least
    return corrected


def at(curve: dict[int, float], step: float) -> float:
    """The curve's value at a step between its points, by a straight line; its ends outside them."""
    points = sorted(curve.items())
    if step <= points[0][0]:
        return points[0][1]
    for (a, x), (b, y) in itertools.pairwise(points):
        if step <= b:
            return x + (y - x) * (step - a) / (b - a)
    return points[-1][1]
