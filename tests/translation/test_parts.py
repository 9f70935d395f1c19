"""The loss, the batches, the scores, the measures: parts that need no training."""

import math

import numpy as np
import pytest
import torch

from talking_heads.errors import UserError
from talking_heads.translation.loss import smoothed_loss
from talking_heads.translation.masking import head_mask
from talking_heads.translation.measures import area, arms, share_needed
from talking_heads.translation.model import batch_loss, build
from talking_heads.translation.pieces import Batches, encode, joint_bpe, keep_short, to_batch
from talking_heads.translation.score import bleu, bootstrap, scores, statistics
from talking_heads.translation.settings import Settings
from talking_heads.translation.train import is_over

from .small import words


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_torchs(smoothing, monkeypatch):
    monkeypatch.setattr("talking_heads.translation.loss._ROWS", 7)
    torch.manual_seed(0)
    hidden, weight = (torch.randn(n, 6, requires_grad=True) for n in (23, 40))
    labels = torch.randint(0, 40, (23,))
    found = smoothed_loss(hidden, weight, labels, smoothing)
    wanted = torch.nn.functional.cross_entropy(hidden @ weight.T, labels, label_smoothing=smoothing)
    torch.testing.assert_close(found, wanted)
    for x, y in zip(
        *(torch.autograd.grad(2 * loss, (hidden, weight)) for loss in (found, wanted)), strict=True
    ):
        torch.testing.assert_close(x, y)
    rough = smoothed_loss(hidden.bfloat16(), weight, labels, smoothing)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, wanted, rtol=2e-2, atol=0)
    (slope,) = torch.autograd.grad(smoothed_loss(hidden, weight.detach(), labels, smoothing), hidden)
    plain = torch.nn.functional.cross_entropy(hidden @ weight.T, labels, label_smoothing=smoothing)
    torch.testing.assert_close(slope, torch.autograd.grad(plain, hidden)[0])


def test_the_models_loss_is_transformers_own():
    model = build(Settings(layers=1, width=16, feed_forward=16, arm="multi-head:2", dropout=0.0), 300).eval()
    batch = to_batch([[5, 6, 1], [7, 1]], [[8, 9, 10, 1], [11, 1]])
    torch.testing.assert_close(batch_loss(model, batch, 0.0), model(**batch).loss)


def test_batches_are_a_function_of_seed_and_number():
    draw = np.random.default_rng(0)
    sides = [[[3] * int(n) for n in draw.integers(1, 30, 200)] for _ in range(2)]
    first, second = (Batches(*sides, 100, 3, 60) for _ in range(2))
    numbers = [17, 2, 40, 0]
    for number in numbers:
        assert np.array_equal(first.rows(number), second.rows(number))
    assert [first.rows(n).tolist() for n in range(60)] == [second.rows(n).tolist() for n in range(60)]
    a_pass = first._starts[1]
    assert sorted(np.concatenate([first.rows(n) for n in range(a_pass)])) == list(range(200))
    assert [first.rows(n).tolist() for n in range(a_pass)] != [
        first.rows(n + a_pass).tolist() for n in range(a_pass)
    ]
    for number in range(a_pass):
        assert first[number]["labels"].numel() <= 100
    assert first.target_tokens(a_pass) == sum(map(len, sides[1]))
    padding = [(first[n]["input_ids"] == 0).float().mean() for n in range(a_pass)]
    assert sum(padding) / len(padding) < 0.35


def test_a_text_smaller_than_a_batch_and_a_sentence_longer_than_one():
    few = Batches([[3, 1]], [[4, 1]], 8000, 0, 3)
    assert [few.rows(n).tolist() for n in range(3)] == [[0]] * 3
    long = Batches([[3] * 9, [3]], [[4] * 9, [4]], 5, 0, 4)
    assert sorted(long.rows(0).tolist() + long.rows(1).tolist()) == [0, 1]


def test_pieces_join_to_the_text_again():
    lines = ["Ein Mann, \u00fcber 40!", "</s> is no end", "\u4e2d\u6587 \U0001f600"]
    tokenizer = joint_bpe(lines, 10_000)
    assert tokenizer.batch_decode(encode(tokenizer, lines), skip_special_tokens=True) == lines
    assert len(tokenizer) < 400  # a small text gives no more
    assert keep_short([[3], [3] * 5], [[4], [4]], 2, "text")[2] == 1
    with pytest.raises(UserError, match="at most 2 pieces"):
        keep_short([[3] * 5], [[4]], 2, "text")


def test_scores_are_sacrebleus():
    translations, references = (
        ["A man sits on the Bench .", "two dogs"],
        ["a man sits on the bench.", "two dogs"],
    )
    found = scores(translations, references)
    assert found["lowercase_tokenized_bleu"] == pytest.approx(100) and found["bleu"] < 90
    assert found["signature"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert "case:lc" in found["lowercase_signature"] and found["chrf_signature"].startswith(
        "nrefs:1|case:mixed"
    )
    assert found["chrf"] > 70 and found["sentences"] == 2
    assert bleu(references, references) == pytest.approx(100)


def test_bootstrap_over_sentences():
    source, target = words(60, 3, 9)
    worse = [line if i % 3 else line.replace("a", "e") for i, line in enumerate(target)]
    counted = [statistics(system, target) for system in (target, worse, target)]
    best, second, same = bootstrap(counted, draws=200)
    assert best["bleu"] == pytest.approx(100) and second["bleu"] == pytest.approx(bleu(worse, target))
    assert second["difference_interval"][0] < second["difference"] < second["difference_interval"][1] < 0
    assert second["interval"][0] < second["bleu"] < second["interval"][1]
    assert same["difference_interval"] == [0, 0]
    with pytest.raises(UserError, match="the same 60 sentences"):
        statistics(source[:4], target)
    with pytest.raises(UserError, match="the same sentences"):
        bootstrap([counted[0], statistics(target[::-1], target[::-1])])


def test_area_and_share_needed():
    rows = [{"share": x, "score": y} for x, y in ((0, 40), (0.25, 40), (0.5, 38.5), (0.75, 20), (1, 0))]
    assert area(rows) == pytest.approx(0.25 * (40 + 39.25 + 29.25 + 10))
    assert share_needed(rows) == 0.5
    assert (
        share_needed([*rows[:3], {"share": 0.75, "score": 10}, {"share": 1, "score": 40}]) == 0.5
    )  # first fall


def test_a_model_without_a_score_needs_no_share():
    assert math.isnan(share_needed([{"share": 0, "score": 0.0}, {"share": 1, "score": 0.0}]))


def test_arms_over_seeds():
    def one(arm, seed, gini):
        spread = {"gini": gini, "coefficient of variation": 2 * gini}
        return {
            "run": {"arm": arm, "seed": seed, "head_mask": ""}, "inequality": spread,
            "areas": {"most": gini, "least": 1.0, "random": 1.0}, "share_needed": 0.5,
        }  # fmt: skip

    table = arms(
        [one("a", s, 0.5 + s / 10) for s in range(3)] + [one("b", s, 0.3 + s / 10) for s in range(3)]
    )
    first, second = table.rows[:2]
    assert (first["arm"], second["arm"]) == ("a", "b") and "difference" not in first
    assert first["mean"] == pytest.approx(0.6) and first["spread"] == pytest.approx(0.1)
    assert second["difference"] == pytest.approx(-0.2) and second["interval"] == pytest.approx([-0.2, -0.2])
    # a model without a score needs no share: not a number, in JSON null
    unknown = [one(arm, s, 0.5) | {"share_needed": x} for s, x in ((0, None), (1, 0.5)) for arm in "ab"]
    shares = [row for row in arms(unknown).rows if row["measure"] == "share for 95 %"]
    assert math.isnan(shares[1]["mean"]) and shares[1]["difference"] == 0


def test_when_a_run_is_over():
    assert not is_over({1: 5, 2: 6}, 2) and not is_over({1: 5, 2: 4}, 2)
    assert is_over({1: 5, 2: 4, 3: 4}, 2) and not is_over({1: 5, 2: 4, 3: 4}, 0)
    assert is_over({1: 50, 2: 100.0}, 10) and not is_over({2: 100.0}, 0)


def test_words_of_head_mask():
    assert head_mask("", 3) is None
    found = head_mask("importance:6:previous", 3)
    assert (found.n, found.by, found.way, found.seed) == (6, "importance", "previous", 3)
    for word in ("random", "random:", "random:x", "best:6", "random:6:previous", "importance:6:now"):
        with pytest.raises(UserError, match="--head-mask must be random:N"):
            head_mask(word, 0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"arm": "none"}, "must have attention"),
        ({"arm": "multi-head:3"}, "multiple of the arm's heads"),
        ({"dropout": 1.0}, "--dropout must be from 0 to below 1"),
        ({"vocabulary": 100}, "--vocabulary must be at least 259"),
        ({"updates": 0}, "--updates must be at least 1"),
        ({"rate": math.inf}, "--rate must be a positive number"),
        ({"every": 0}, "--every must be at least 1"),
        ({"seed": -1}, "--seed must be from 0"),
    ],
)
def test_settings(options, said):
    with pytest.raises(UserError, match=said):
        Settings(**options)
    assert Settings(updates=100).warmup_updates == 25 and Settings().warmup_updates == 2000
    assert Settings(updates=100).keep_every == 5 and Settings().keep_every == 200
