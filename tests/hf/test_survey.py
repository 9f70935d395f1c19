"""The survey of architectures: a sample here, all of them in docs/results/survey.json."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from transformers import AttentionInterface

from talking_heads import talking_heads_attention
from talking_heads.anatomy.inputs import inputs
from talking_heads.hf.attention import NAME, attend, register
from talking_heads.hf.survey.check import check
from talking_heads.hf.survey.folders import folders
from talking_heads.hf.survey.run import EQUAL, PARTLY, WRONG, build, examine, resume
from talking_heads.hf.survey.table import MOST_USED, counts, markdown
from talking_heads.nn import HeadMixing

ROOT = Path(__file__).parents[2]
RESULT = json.loads((ROOT / "docs/results/survey.json").read_text())
OTHERS = [json.loads(path.read_text()) for path in sorted((ROOT / "docs/results").glob("survey-*.json"))]
KNOWN = {row["folder"]: row["verdict"] for row in RESULT["rows"]}
SAMPLE = sorted({*MOST_USED, *folders()[::15], *(set(folders()) - set(KNOWN))})


@pytest.mark.parametrize("folder", SAMPLE)
def test_a_sample_and_every_architecture_that_is_new(folder):
    row = examine(folder)
    assert row["verdict"] != WRONG, row["wrong"]
    if KNOWN.get(folder) == EQUAL:
        assert row["verdict"] == EQUAL, row


@pytest.mark.slow
@pytest.mark.parametrize("folder", sorted(set(folders()) - set(SAMPLE)))
def test_the_others(folder):
    test_a_sample_and_every_architecture_that_is_new(folder)


def test_what_the_documents_say():
    found = counts(RESULT["rows"])
    assert found[WRONG] == 0 and found[EQUAL] >= 250
    assert len(MOST_USED) >= 20 and all(KNOWN[name] in (EQUAL, PARTLY) for name in MOST_USED)
    assert all(row["error"] < 1e-8 for row in RESULT["rows"])
    assert all(counts(other["rows"])[WRONG] == 0 for other in OTHERS)
    assert (ROOT / "docs/architectures.md").read_text().startswith(markdown(RESULT, OTHERS))


def _causal(module, *arguments, **options):
    return attend(module, *arguments[:3], None, **options | {"is_causal": True})


def _bias_before_the_map(module, *arguments, **options):
    """As if position biases belonged to the heads of the scores."""
    if options.get("position_bias") is not None:
        options["position_bias"] = options["position_bias"].roll(1, 1)
    return attend(module, *arguments, **options)


@pytest.mark.parametrize(("name", "fault"), [("BertModel", _causal), ("T5Model", _bias_before_the_map)])
def test_a_wrong_attention_function_is_seen(name, fault, monkeypatch):
    once, given = _toy(name)
    assert not check(once, given).wrong
    monkeypatch.setattr("talking_heads.hf.survey.check.attend", fault)
    AttentionInterface.register(NAME, fault)
    try:
        assert check(once, given).wrong
    finally:
        register()


@pytest.mark.parametrize("name", ["BertModel", "LlamaModel"])
def test_a_map_that_is_ignored_is_seen(name, monkeypatch):
    """Its value is the identity whatever it holds, its gradient is right: only permuted heads can tell."""

    def attend(self, query, key, value, **options):
        ignored = self.weights_mix + (torch.eye(self.num_heads) - self.weights_mix).detach()
        return talking_heads_attention(query, key, value, self.logits_mix, ignored, **options)

    monkeypatch.setattr(HeadMixing, "attend", attend)
    wrong = check(*_toy(name)).wrong
    assert wrong and all(what.startswith("permuted") for what in wrong)


def _toy(name):
    def once():
        return build(getattr(transformers, name), {})

    return once, inputs(once(), {})


def test_a_survey_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr("talking_heads.hf.survey.run.folders", lambda: ("bert", "gemma2", "gpt2"))
    path, seen = tmp_path / "survey.json", []

    def stop_after_two(folder):
        seen.append(folder)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resume(path, stop_after_two)
    assert [row["folder"] for row in json.loads(path.read_text())["rows"]] == ["bert", "gemma2"]
    done = []
    monkeypatch.setattr(
        "talking_heads.hf.survey.run.examine",
        lambda folder: done.append(folder) or {"folder": folder, "verdict": EQUAL},
    )
    result = resume(path)
    assert done == ["gpt2"] and [row["folder"] for row in result["rows"]] == ["bert", "gemma2", "gpt2"]
    assert result["rows"][1]["verdict"] == "refused"
    assert "depend on softcap" in result["rows"][1]["refused"]["Gemma2Attention"]
