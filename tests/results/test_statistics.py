"""Means, spreads, paired differences."""

import math
import random

import pytest
from scipy import stats

from talking_heads.results.statistics import (
    LEAST_SEEDS,
    at,
    holm,
    paired_difference,
    rank_correlation,
    ranks,
    summary,
)


@pytest.mark.parametrize("count", [3, 4, 10])
@pytest.mark.parametrize("level", [0.95, 0.8])
def test_the_paired_interval_is_scipys(count, level):
    draw = random.Random(count)
    ours, theirs = ([draw.gauss(4, 1) for _ in range(count)] for _ in range(2))
    found = paired_difference(ours, theirs, level)
    wanted = stats.ttest_rel(ours, theirs)
    interval = wanted.confidence_interval(level)
    assert found["interval"] == pytest.approx([interval.low, interval.high], rel=1e-9)
    assert found["mean"] == pytest.approx(sum(ours) / count - sum(theirs) / count)
    assert found["pairs"] == count
    if level == 0.95:
        assert (found["interval"][0] <= 0 <= found["interval"][1]) == (wanted.pvalue >= 0.05)


def test_what_seeds_share_does_not_widen_it():
    shared = [1.0, 5.0, 9.0]
    found = paired_difference([x - 0.1 for x in shared], shared)
    assert found["interval"] == pytest.approx([-0.1, -0.1])


def test_two_pairs_are_too_few_for_an_interval():
    assert LEAST_SEEDS == 3
    for count in (1, 2):
        found = paired_difference([1.0, 2.0][:count], [0.5, 1.5][:count])
        assert found == {"mean": 0.5, "interval": None, "p": None, "pairs": count}


@pytest.mark.parametrize("lost", [math.nan, math.inf])
def test_a_seed_that_diverged_leaves_the_others_their_report(lost):
    found = summary([4.0, lost, 4.2])
    assert not math.isfinite(found["mean"]) and math.isnan(found["spread"])
    found = paired_difference([4.0, lost, 4.2], [4.1, 4.2, 4.3])
    assert not math.isfinite(found["mean"]) and all(map(math.isnan, found["interval"]))


def test_pairs_must_be_pairs():
    with pytest.raises(ValueError):
        paired_difference([1.0, 2.0], [1.0])


def test_summary():
    assert summary([1.0, 3.0]) == {"mean": 2.0, "spread": pytest.approx(2**0.5)}
    assert summary([3.0]) == {"mean": 3.0, "spread": None}


def test_a_curve_between_and_beyond_its_points():
    curve = {30: 1.0, 10: 5.0, 20: 3.0}  # a JSON file keeps no order
    found = [at(curve, step) for step in (0, 10, 15, 20, 27.5, 30, 99)]
    assert found == pytest.approx([5.0, 5.0, 4.0, 3.0, 1.5, 1.0, 1.0])


def test_p_values_are_those_of_a_paired_t_test():
    values, baseline = [1.0, 2.5, 2.0, 4.0], [0.5, 2.6, 1.0, 3.1]
    found = paired_difference(values, baseline)
    assert found["p"] == pytest.approx(stats.ttest_rel(values, baseline).pvalue, rel=1e-12)
    assert paired_difference([1.0] * 3, [1.0] * 3)["p"] == 1.0


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0] and holm([]) == []


def test_ranks_by_hand():
    assert ranks([[3, 1, 2], [5, 5, 0]]).tolist() == [[3, 1, 2], [2.5, 2.5, 1]]
    rho, p = rank_correlation([1, 2, 3, 10], [1, 4, 9, 16])
    assert rho == pytest.approx(1) and p == pytest.approx(0)
    assert rank_correlation([1, 2, 3], [2, 1, 3])[0] == pytest.approx(0.5)
    assert rank_correlation([1, 1, 1], [1, 2, 3]) is rank_correlation([1, 2], [2, 1]) is None
