"""Distances against scipy, trees against planted attention, refusals."""

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from talking_heads.errors import UserError
from talking_heads.heads import constituency, random_copy
from talking_heads.heads.constituency import F1, Options, baselines, distances
from talking_heads.heads.trees import Tree, read_trees

from .small import DATA, model, tokenizer

TREES = read_trees(DATA / "sample.mrg")


def rows(heads=2, count=6):
    return np.random.default_rng(0).dirichlet(np.full(count, 0.3), (heads, count)).astype(np.float32)


def test_distances():
    p = rows()
    js = distances(p, Options())
    for head in range(2):
        want = [jensenshannon(p[head, i], p[head, i + 1]) for i in range(5)]
        np.testing.assert_allclose(js[head], want, rtol=1e-5)
    hellinger = distances(p, Options(distance="hellinger"))
    overlap = np.sqrt(p[:, :-1].astype(float) * p[:, 1:]).sum(-1)
    np.testing.assert_allclose(hellinger, np.sqrt(1 - overlap), atol=1e-4)
    biased = distances(p, Options(bias=1.5))
    np.testing.assert_allclose(biased[:, 0] - js[:, 0], 1.5 * js.mean(-1), rtol=1e-6)
    np.testing.assert_allclose(biased[:, 1] - js[:, 1], 1.5 * js.mean(-1) * 0.75, rtol=1e-6)
    np.testing.assert_allclose(biased[:, 4], js[:, 4])  # nothing at the last gap
    pair = distances(p[:, :2, :2], Options(bias=1.5))
    np.testing.assert_allclose(pair, 2.5 * distances(p[:, :2, :2], Options()))  # one gap is the first


def test_mixed_weights_need_a_normalisation():
    with pytest.raises(UserError, match="mixed weights are not"):
        Options(weights="mixed")
    with pytest.raises(UserError, match="distributions already"):
        Options(normalise="abs")
    p = rows() - 0.2
    clipped, sized = (
        distances(p, Options(weights="mixed", normalise="clip")),
        distances(p, Options(weights="mixed", normalise="abs")),
    )
    assert np.isfinite(clipped).all() and not np.allclose(clipped, sized)
    with pytest.raises(UserError, match="distance must be"):
        Options(distance="euclid")


def test_baselines_form():
    found = baselines(TREES)
    assert set(found) == {"options", "baselines"} and found["options"]["punct"] is False
    assert set(found["baselines"]) == {"right", "left", "balanced", "random"}
    right = found["baselines"]["right"]
    assert set(right) == {"s_f1", "recall"} and set(right["recall"]) == {
        "SBAR",
        "NP",
        "VP",
        "PP",
        "ADJP",
        "ADVP",
    }
    # second tree is wholly right-branching, the third has two words, the first has 3 of its 5 spans, 8 predicted
    f1 = 2 * (3 / 8) * (3 / 5) / (3 / 8 + 3 / 5)
    assert right["s_f1"] == pytest.approx((f1 + 1 + 1) / 3)
    assert right["recall"]["VP"] == 1 and right["recall"]["NP"] == pytest.approx(1 / 3)


def test_every_sentence_that_does_not_fit_is_counted():
    """Trees of several files, or several of a line, have the same line."""
    long = [Tree(["dog"] * 400, [], 1)] * 2
    table = constituency(model("bert"), tokenizer(), [*TREES, *long], draws=5)
    assert table.meta["skipped"] == {"longer than the model's 40 tokens": 2}
    assert table.meta["sentences"] == len(TREES)


def test_a_model_end_to_end():
    bert = model("bert")
    table = constituency(bert, tokenizer(), TREES, TREES[:2], random_model=random_copy(bert), draws=50)
    assert table.meta["options"]["special_tokens"] is False
    best = {row["label"]: row for row in table.best().rows}
    assert {"right", "left", "balanced", "random", "random model"} <= set(best["S-F1"])
    assert "ADVP" not in best  # none there
    means = table.layer_means(F1)
    first = [r["score"] for r in table.rows if r["label"] == "S-F1" and r["head"].startswith("encoder.0")]
    assert means.rows[0]["score"] == pytest.approx(np.mean(first))
    assert all(row["difference"] == 0 for row in table.compare_layers(table, F1).rows)
    talking = model("bert, talking")
    mixed = constituency(
        talking, tokenizer(), DATA / "sample.mrg", options=Options(weights="mixed", normalise="abs"), draws=5
    )
    soft = constituency(talking, tokenizer(), DATA / "sample.mrg", draws=5)
    assert mixed.meta["options"]["normalise"] == "abs"
    assert any(row["difference"] != 0 for row in soft.diff(mixed).rows)
