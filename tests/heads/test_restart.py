"""Ablation of single heads from the changed block on: equal to whole runs to the last bit, or whole runs."""

import pytest
import torch

from talking_heads.heads import gates, mask, single_ablations
from talking_heads.heads.losses import own_loss

from .small import Reads, call, model, output


def judge(made):
    with torch.no_grad():
        return sum(float(made(**call(made, seed)).logits.double().square().mean()) for seed in (1, 2))


def whole_runs(made, judge):
    with gates(made) as found:
        names = found.names
    whole = judge(made)
    costs = {}
    for name in names:
        with mask(made, [name]):
            costs[name] = whole - judge(made)
    return costs


@pytest.mark.parametrize("name", ["bert", "t5", "gpt2", "bart", "bert, talking"])
def test_equal_to_whole_runs(name):
    made = model(name)
    table = single_ablations(made, judge)
    assert {row["head"]: row["cost"] for row in table.rows} == whole_runs(made, judge)
    assert table.meta["restarted"] == "from the masked head's block on"
    assert 1.1 < table.meta["gain"] < 2
    assert not any("forward" in vars(x) for x in made.modules())
    plain = single_ablations(made, judge, restart=False)
    assert plain.rows == table.rows and plain.meta["restarted"] == "no: not asked for"


def test_a_gain_that_grows_with_depth():
    import transformers

    from .small import SIZES, VOCABULARY

    config = transformers.BertConfig(
        vocab_size=len(VOCABULARY), **SIZES | {"num_hidden_layers": 12}, num_labels=2
    )
    made = transformers.BertForSequenceClassification(config).eval()
    table = single_ablations(made, judge)
    # 1 + 12 x 4 whole runs; restarted: 1, then of each layer 4 runs and one to go on, of what is left
    left = sum(12 - layer for layer in range(12))
    assert table.meta["gain"] == pytest.approx(49 * 12 / (12 + 4 * left + left - 1))


def generates(made):
    made.generation_config.pad_token_id = 0
    found = made.generate(**call(made), max_new_tokens=3, do_sample=False)
    return float(found.double().sum())


def random_judge(made):
    with torch.no_grad():
        return float(output(made).sum() + torch.rand(()))


@pytest.mark.parametrize(
    ("name", "judge", "why"),
    [
        ("albert", lambda made: float(made(**call(made))[0].sum()), "in no list of modules|do not run once"),
        ("gpt2", generates, "a cache of earlier calls"),
    ],
)
def test_whole_runs_where_the_structure_is_unknown(name, judge, why):
    made = model(name)
    table = single_ablations(made, torch.no_grad()(judge))
    assert table.meta["gain"] == 1.0
    assert any(part in table.meta["restarted"] for part in why.split("|"))
    assert {row["head"]: row["cost"] for row in table.rows} == whole_runs(made, torch.no_grad()(judge))


def test_a_judge_whose_score_is_random_is_not_restarted():
    assert "outputs that change" in single_ablations(model("bert"), random_judge).meta["restarted"]


def test_one_s_own_model_without_blocks():
    made = Reads().eval()
    read = {"input_ids": torch.arange(4, 10)[None], "attention_mask": torch.ones(1, 6)}
    table = single_ablations(made, lambda made: float(made(**read).sum().detach()))
    assert "in no list of modules" in table.meta["restarted"]


def test_losses_are_scores_too():
    made = model("t5")
    batch = {"input_ids": call(made)["input_ids"], "labels": call(made)["input_ids"][:, :5].contiguous()}
    table = single_ablations(made, lambda made: -float(own_loss(made, batch).detach()))
    assert table.meta["gain"] > 1 and len(table.rows) == 24
