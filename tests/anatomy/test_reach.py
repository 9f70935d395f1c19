"""Gates stand between the heads and the output projection of every architecture, or are refused."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from transformers import AttentionInterface
from transformers.models.granite_speech.modeling_granite_speech import GraniteSpeechCTCEncoder

from talking_heads.anatomy import layers
from talking_heads.errors import UserError
from talking_heads.heads import gates, mask
from talking_heads.hf.survey.folders import folders
from talking_heads.hf.survey.gates import PROVEN, WRONG, examine, markdown
from talking_heads.hf.survey.run import build

ROOT = Path(__file__).parents[2]
RESULT = json.loads((ROOT / "docs/results/gates.json").read_text())
KNOWN = {row["folder"]: row["classes"] for row in RESULT["rows"]}
SAMPLE = ("bert", "blip_2", "deepseek_v3", "git", "gpt_neox", "gpt2", "phi3", "qwen3_next", "t5")


@pytest.mark.parametrize(
    "folder", [*SAMPLE, *(pytest.param(x, marks=pytest.mark.slow) for x in folders() if x not in SAMPLE)]
)
def test_a_gate_of_0_is_zeros_in_the_heads_columns(folder):
    found = examine(folder)["classes"]
    assert not any(verdict.startswith(WRONG) for verdict in found.values()), found
    proven = {name for name, verdict in KNOWN.get(folder, {}).items() if verdict == PROVEN}
    assert proven <= {name for name, verdict in found.items() if verdict == PROVEN}


def test_what_the_documents_say():
    assert (ROOT / "docs/gates.md").read_text() == markdown(RESULT)
    verdicts = [verdict for row in RESULT["rows"] for verdict in row["classes"].values()]
    assert not any(verdict.startswith(WRONG) for verdict in verdicts) and verdicts.count(PROVEN) > 350


def muted(model, label, head, projection, given, output):
    """(the output with a head masked, the output with zeros in its columns)."""
    with mask(model, [f"{label}:{head}"]), torch.no_grad():
        gated = model(**given)[output]
    layer = next(x for x in layers(model) if x.label == label)
    weight = getattr(layer.module, projection).weight
    with torch.no_grad():
        weight.unflatten(1, (layer.output_heads, -1))[:, head] = 0
        return gated, model(**given)[output]


def test_output_projections_with_other_names():
    model = build(transformers.FastSpeech2ConformerModel, {}).float()
    ids = {"input_ids": torch.arange(5, 15)[None], "attention_mask": torch.ones(1, 10, dtype=torch.long)}
    torch.testing.assert_close(*muted(model, "encoder.1", 1, "linear_out", ids, "encoder_last_hidden_state"))
    model = build(GraniteSpeechCTCEncoder, {}).float()
    states = {"hidden_states": torch.randn(2, 10, model.config.input_dim)}
    torch.testing.assert_close(*muted(model, "encoder.1", 3, "to_out", states, "last_hidden_state"))


@pytest.mark.parametrize(
    ("kind", "why"), [("BitNetModel", "changed before"), ("DiffLlamaModel", "where they are not")]
)
def test_heads_that_have_no_columns_of_their_own_are_refused(kind, why):
    model = build(getattr(transformers, kind), {}).float()
    with pytest.raises(UserError, match=why), mask(model, ["decoder.1:0"]):
        model(input_ids=torch.arange(5, 15)[None])


def test_only_the_layers_named_are_gated():
    model = build(transformers.BertModel, {}).float()
    with gates(model, layers=["encoder.1"]) as found:
        assert found.names == [f"encoder.1:{head}" for head in range(4)]


def test_nothing_of_transformers_is_left_changed():
    model = build(transformers.BertModel, {}).float()
    ids = {"input_ids": torch.arange(5, 15)[None]}
    lookup, named = AttentionInterface.get_interface, model.config._attn_implementation
    with gates(model):
        assert AttentionInterface.get_interface is lookup and model.config._attn_implementation == named
        model(**ids)
        assert type(model.config._attn_implementation) is str
    assert type(model.config._attn_implementation) is str and model.config._attn_implementation == named
