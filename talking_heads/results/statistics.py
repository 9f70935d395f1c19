"""Means, spreads and paired differences over seeds; bootstrap intervals over examples; rank correlations."""

import itertools
import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

import numpy as np

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


def resamples(count: int, draws: int, seed: int) -> np.ndarray:
    """[draws, count] float32: how often each example is in each resample with replacement."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(count, np.full(count, 1 / count), draws).astype(np.float32)


def interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The middle `level` of resampled values (percentile bootstrap)."""
    if np.isnan(values).all():
        return float("nan"), float("nan")
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def two_sided(differences: np.ndarray) -> float:
    """Bootstrap p of no difference: twice the smaller tail on the other side of 0, at least 2 / (draws + 1)."""
    known = differences[~np.isnan(differences)]
    if not len(known):
        return float("nan")
    tail = min((known <= 0).sum(), (known >= 0).sum())
    return float(min(1.0, 2 * (tail + 1) / (len(known) + 1)))


def ranks(values: Any) -> np.ndarray:
    """float64: ranks over the last axis from 1; equal values share their mean rank."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(np.asarray(values, dtype=np.float64), axis=-1))


def rank_correlation(x: Any, y: Any) -> tuple[float, float] | None:
    """(Spearman's rho, its two-sided p-value); None under three pairs, or where x or y is constant."""
    from scipy.stats import spearmanr

    x, y = (np.asarray(values, dtype=np.float64) for values in (x, y))
    if len(x) < 3 or (x == x[0]).all() or (y == y[0]).all():
        return None
    found: Any = spearmanr(x, y)
    return float(found.statistic), float(found.pvalue)
