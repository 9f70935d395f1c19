"""Attention layers of any model: which there are, their parts and names."""

import pytest
import torch
import transformers
from torch import nn
from transformers.models.bert.modeling_bert import BertSelfAttention

from talking_heads.anatomy import layers, select_heads
from talking_heads.errors import UserError
from talking_heads.hf import convert

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
SEES = SMALL | {"image_size": 16, "patch_size": 8}


def made(kind, **options):
    cls, ends = getattr(transformers, kind), {"bos_token_id": 1, "eos_token_id": 2}
    with torch.device("meta"):
        return cls(cls.config_class(vocab_size=20, **SMALL, **ends, **options))


def parts(model):
    return [layer.label for layer in layers(model)]


def test_a_stack_that_generates_is_a_decoder_also_where_its_name_says_encoder():
    assert parts(made("GitForCausalLM", vision_config=SEES)) == [
        "encoder.0",
        "encoder.1",
        "decoder.0",
        "decoder.1",
    ]
    assert parts(made("BertModel")) == ["encoder.0", "encoder.1"]
    crossing = made("BertLMHeadModel", is_decoder=True, add_cross_attention=True)
    assert parts(crossing) == ["decoder.0", "cross.0", "decoder.1", "cross.1"]


def test_torch_layers_are_told_apart_by_the_layer_around_them():
    decoder = nn.TransformerDecoderLayer(8, 2, 8)
    assert parts(decoder) == ["decoder.0", "cross.0"]


class Inherits(BertSelfAttention):
    def forward(self, hidden_states, *inputs, **more):
        return super().forward(1.5 * hidden_states, *inputs, **more)


class Replaces(BertSelfAttention):
    def forward(self, hidden_states, *inputs, **more):
        return hidden_states, None


@pytest.mark.parametrize(("kind", "count"), [(Inherits, 2), (Replaces, 1)])
def test_a_class_that_calls_its_parents_forward_attends_as_the_parent_does(kind, count):
    model = transformers.BertModel(transformers.BertConfig(vocab_size=20, **SMALL)).eval()
    model.encoder.layer[1].attention.self.__class__ = kind
    ids = torch.arange(6)[None]
    before = model(ids)[0]
    done = convert(model)
    assert len(done.converted) == count
    torch.testing.assert_close(model(ids)[0], before)
    if kind is Replaces:
        assert "encoder.layer.1.attention.self" in done.left


def test_heads_are_selected_by_pattern():
    names = [f"{label}:{head}" for label in parts(made("BertModel")) for head in range(2)]
    assert select_heads(names, ["encoder.1:*", "encoder.*:0"]) == [
        "encoder.1:0",
        "encoder.1:1",
        "encoder.0:0",
    ]
    with pytest.raises(
        UserError, match=r"part\.layer:head, here encoder.0:0 to encoder.1:1; got 'cross.0:1'"
    ):
        select_heads(names, ["cross.0:1"])
