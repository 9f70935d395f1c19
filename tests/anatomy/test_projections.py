"""The table of projections: a case for each way to order heads in linear maps; each must be where the table says."""

from contextlib import contextmanager

import pytest
import torch
import transformers
from transformers.models.granite_speech.modeling_granite_speech import GraniteSpeechCTCEncoder

from talking_heads.anatomy import layers
from talking_heads.anatomy.inputs import inputs
from talking_heads.anatomy.projections import projections
from talking_heads.anatomy.registry import wrap
from talking_heads.hf.survey.check import run
from talking_heads.hf.survey.run import build

# model: what it stands for
FAMILIES = {
    "BertModel": "separate, output in the next module",
    "LlamaModel": "separate, grouped queries",
    "GPT2Model": "one Conv1D",
    "Phi3Model": "one map, grouped queries",
    "GPTNeoXModel": "one map, head by head",
    "GPTBigCodeModel": "one map, one key head",
    "DeepseekV3Model": "latent",
    "MoshiModel": "separate, each inside another module",
}


def toy(kind, **config):
    torch.manual_seed(0)
    model = build(getattr(transformers, kind), {"config": config})
    return model, inputs(model, {})


@contextmanager
def seen(layer):
    """The queries, keys and values that a registry layer's attention function is given in the block."""
    found = []

    def wrapper(function, module, query, key, value, *args, **options):
        found.append((query, key, value))
        return function(module, query, key, value, *args, **options)

    remove = wrap(layer.module, wrapper)
    try:
        yield found
    finally:
        remove()


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_heads_rows_make_that_heads_queries_keys_and_values(kind):
    model, given = toy(kind)
    layer = layers(model)[0]
    known = projections(model, layer.name, layer.output_heads)
    assert known.query.heads == known.output.heads == layer.output_heads

    def heads_of(made, place):
        with seen(layer) as before:
            run(model, given, gradients=False)
        with torch.no_grad():
            weight, bias = made.head(made.heads - 1)
            weight.mul_(2)
            if bias is not None:
                bias.mul_(2)
        with seen(layer) as after:
            run(model, given, gradients=False)
        x, y = before[0][place], after[0][place]
        differ = (x - y).abs().amax((0, 2, 3)) > 1e-9
        return differ.reshape(made.heads, -1).all(1).tolist(), differ.any().item()

    for place, made in enumerate((known.query, known.key, known.value)):
        changed, any_changed = heads_of(made, place)
        assert any_changed and changed == [False] * (made.heads - 1) + [True], FAMILIES[kind]


def test_heads_are_views_of_the_parameters():
    model, _ = toy("GPT2Model")
    known = projections(model, "h.1.attn", 4)
    with torch.no_grad():
        known.value.head(2)[0].zero_()
        known.output.head(1).zero_()
    block = model.h[1].attn
    assert (block.c_attn.weight[:, 128 + 32 : 128 + 48] == 0).all() and (
        block.c_attn.weight == 0
    ).sum() == 16 * 64
    assert (block.c_proj.weight[16:32] == 0).all() and (block.c_proj.weight == 0).sum() == 16 * 64


def test_what_the_table_does_not_know_is_none():
    model, _ = toy("DiffLlamaModel")
    assert projections(model, "layers.0.self_attn", 4).output is None  # heads are subtracted from one another
    model, _ = toy("Qwen3NextModel")
    layer = layers(model)[0]
    known = projections(model, layer.name, layer.output_heads)
    assert known.query is None and known.output is not None  # a gate shares the queries' map


def test_layers_with_code_of_their_own():
    model = build(GraniteSpeechCTCEncoder, {})
    layer = layers(model)[0]
    known = projections(model, layer.name, layer.output_heads)
    assert (
        known.value.module is layer.module.to_kv
        and known.value.starts[0] == layer.module.to_kv.out_features // 2
    )
    assert known.output.module is layer.module.to_out
