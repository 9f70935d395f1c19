"""What arms cost: formulas against worked numbers, and against torch's counter on the reference."""

import dataclasses

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from talking_heads.anatomy.layers import find as find_layers
from talking_heads.anatomy.projections import output_of
from talking_heads.experiments.cost import attention_multiplications, cost_of
from talking_heads.training.arms import parse_arm
from talking_heads.training.models import build, parameters
from talking_heads.training.objectives import find

from ..training.small import SMALL

# (objective, arm): every option that experiments use
ARMS = [
    ("span-corruption", "multi-head:4"),
    ("span-corruption", "talking-heads:4:random"),
    ("span-corruption", "talking-heads:2:random:key_heads=4"),
    ("span-corruption", "talking-heads:2:random:value_heads=8"),
    ("span-corruption", "logits-map:4:random"),
    ("span-corruption", "weights-map:4:random:kinds=cross"),
    ("span-corruption", "talking-heads:4:random:kinds=decoder"),
    ("span-corruption", "talking-heads:2:random:dynamic=query_logits"),
    (
        "span-corruption",
        "talking-heads:2:random:dynamic=memory_logits,memory_weights,query_logits,query_weights",
    ),
    ("span-corruption", "multi-head:2:bilinear"),
    ("span-corruption", "multi-head:2:size=16"),
    ("span-corruption", "none"),
    ("masked-lm", "talking-heads:8:random"),
    ("masked-lm", "talking-heads:2:random:heads=4:key_heads=4"),
    ("masked-lm", "none"),
    ("sentence-order", "talking-heads:4:random"),
    ("causal-lm", "talking-heads:4:random:heads=8"),
    ("causal-lm", "multi-head:2:size=16"),
    ("causal-lm", "none"),
]


@pytest.mark.parametrize(("objective", "arm"), ARMS)
def test_multiplications_are_those_that_torch_counts(objective, arm):
    settings = dataclasses.replace(SMALL, objective=objective, layers=2)
    model = build(settings, arm, 0).eval()
    is_converted = parse_arm(arm).is_converted
    if not is_converted and arm != "none":
        model.set_attn_implementation("eager")
    example = find(objective).example(torch.randint(69, 512, (32,)), torch.Generator(), False)
    batch = find(objective).collate([example])
    found = cost_of(settings, arm)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(**batch, output_attentions=arm != "none")
    # collected weights take the reference, which multiplies with the values once more: to find what is not finite
    again = _values_again(model, batch) if is_converted else 0
    assert counter.get_total_flops() == 2 * (found.multiplications + again)
    assert found.parameters == parameters(settings, arm) == sum(x.numel() for x in model.parameters())
    assert (found.attention_multiplications == 0) == (arm == "none")


def _values_again(model, batch):
    """n m h_v d_v of the layers that attend by the reference: all of a converted model's."""
    n = batch["input_ids"].shape[1]
    m = batch["labels"].shape[1] if model.config.is_encoder_decoder else n
    lengths = {"encoder": n * n, "decoder": m * m, "cross": m * n}
    layers = find_layers(model)[0]
    shared = {
        part: 2 // sum(x.part == part for x in layers)
        for part in lengths
        if any(x.part == part for x in layers)
    }
    total = 0
    for layer in layers:
        output = output_of(
            layer.module, model.get_submodule(layer.name.rpartition(".")[0]), layer.output_heads
        )
        total += shared[layer.part] * lengths[layer.part] * output.heads * output.size
    return total


def test_the_formula_by_hand():
    """Multi-head of 2 heads of 3 over 5 queries of width 7 and 11 memory positions of width 13."""
    shape = {"query_len": 5, "memory_len": 11, "model_dim": 7, "memory_dim": 13, "heads": 4}
    shape |= {"key_heads": 2, "key_dim": 3, "value_heads": 2, "value_dim": 3}
    plain = attention_multiplications(**shape)
    assert plain == 5 * 7 * 6 + 11 * 13 * 6 + 5 * 11 * 6 + 11 * 13 * 6 + 5 * 11 * 6 + 5 * 6 * 7
    both = attention_multiplications(**shape, logits_mix=True, weights_mix=True)
    assert both - plain == 5 * 11 * 4 * (2 + 2)
    dynamic = attention_multiplications(**shape, dynamic=("query_logits", "memory_weights"))
    assert dynamic - plain == (5 * 11 + 5 * 7) * 8 + (5 * 11 + 11 * 13) * 8
    assert attention_multiplications(**shape, bilinear=True) == 2 * (5 * 7 * 6 + 5 * 11 * 6)


@pytest.mark.parametrize(("heads", "ratio"), [(6, 1.05), (12, 1.19), (24, 1.75), (48, 4.0)])
def test_the_core_costs_what_the_definitions_say(heads, ratio):
    """Scores, weighted values and both maps at width 768: n m h (h + h) more than 2 n m 768."""
    shape = {"query_len": 512, "memory_len": 512, "model_dim": 0, "memory_dim": 0, "heads": heads}
    shape |= {"key_heads": heads, "value_heads": heads, "key_dim": 768 // heads, "value_dim": 768 // heads}
    talking = attention_multiplications(**shape, logits_mix=True, weights_mix=True)
    assert talking / attention_multiplications(**shape) == pytest.approx(ratio, rel=0.005)
