"""What an arm costs, derived: multiplications by formula, parameters of the model as built on the meta device.

A layer of attention with h_k key heads of size d_k, h softmax heads, h_v value heads of size d_v, over n queries of
width d_X and m memory positions of width d_M takes

    (h_k d_k + h_v d_v) (n d_X + m d_M + n m)        multi-head: projections, scores, weighted values
    + n m h (h_k + h_v)                              both maps of talking heads
    + n m h h_k + (n d_X or m d_M) h h_k             each dynamic projection of the logits; of the weights h h_v

multiplications for one example. General bilinear attention has no projections of keys and values, whose size is d_M.
Softmax, position encodings and additions are not counted.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..anatomy.layers import find as find_layers
from ..anatomy.layers import mixing_of
from ..anatomy.projections import output_of
from ..hf.bilinear import Memory
from ..training.arms import Arm, parse_arm
from ..training.judge import END
from ..training.models import build
from ..training.objectives import find
from ..training.settings import Settings


@dataclass(frozen=True)
class Cost:
    """One arm: `attention_multiplications` and `multiplications` (with everything else) of a forward pass of one
    example; `positions`: of the encoder (or the only stack) and of the decoder."""

    parameters: int
    attention_multiplications: int
    multiplications: int
    positions: tuple[int, int]

    @property
    def training_flops(self) -> int:
        """Floating-point operations of a training step on one example: the backward pass takes twice the forward's."""
        return 6 * self.multiplications


def attention_multiplications(
    *,
    query_len: int,
    memory_len: int,
    model_dim: int,
    memory_dim: int,
    key_heads: int,
    key_dim: int,
    value_heads: int,
    value_dim: int,
    heads: int = 0,
    logits_mix: bool = False,
    weights_mix: bool = False,
    dynamic: tuple[str, ...] = (),
    bilinear: bool = False,
) -> int:
    """Multiplications of one layer of attention for one example, by the formula above.

    Args:
        query_len, memory_len: n and m. model_dim, memory_dim: d_X and d_M. key_dim, value_dim: d_k and d_v.
        heads: softmax heads. dynamic: any of query_logits, memory_logits, query_weights, memory_weights.
        bilinear: keys and values are the memory itself.
    """
    n, m, keys, values = query_len, memory_len, key_heads * key_dim, value_heads * value_dim
    found = (keys + values) * (n * model_dim + n * m)
    if not bilinear:
        found += (keys + values) * m * memory_dim
    pairs = {"logits": heads * key_heads, "weights": heads * value_heads}
    found += n * m * (logits_mix * pairs["logits"] + weights_mix * pairs["weights"])
    for name in dynamic:
        place, _, kind = name.partition("_")
        made_from = n * model_dim if place == "query" else m * memory_dim
        found += (n * m + made_from) * pairs[kind]
    return found


def cost_of(settings: Settings, arm: Arm | str) -> Cost:
    """What the arm costs at these settings; its model is built on the meta device, so that none is too large.

    Raises:
        UserError: options that the architecture does not take.
    """
    arm = parse_arm(arm) if isinstance(arm, str) else arm
    with torch.device("meta"):
        model = build(settings, arm, 0)
    first, second = positions_of(settings, model)
    found = 0 if arm.kind == "none" else attention_of(settings, model, (first, second))
    return Cost(
        sum(x.numel() for x in model.parameters()),
        found,
        found + _other_multiplications(settings, model, (first, second)),
        (first, second),
    )


def positions_of(settings: Settings, model: Any) -> tuple[int, int]:
    """Positions that the encoder (or the only stack) and the decoder read of one example."""
    block = torch.full((settings.length,), END)
    example = find(settings.objective).example(block, torch.Generator().manual_seed(0), False)  # type: ignore[attr-defined]
    return len(example["input_ids"]), len(example["labels"]) if model.config.is_encoder_decoder else 0


def attention_of(settings: Settings, model: Any, positions: tuple[int, int]) -> int:
    """Multiplications of all the model's attention layers for one example."""
    layers = find_layers(model)[0]
    first, second = positions
    own = second or first
    lengths = {"encoder": (first, first), "decoder": (own, own), "cross": (second, first)}
    total = 0
    for layer in layers:
        n, m = lengths[layer.part]
        shared = settings.layers // sum(
            layer.part == x.part for x in layers
        )  # ALBERT's one layer is used by all
        total += shared * attention_multiplications(query_len=n, memory_len=m, **_shape(model, layer))
    return total


def _shape(model: Any, layer: Any) -> dict[str, Any]:
    """The arguments of `attention_multiplications` that a built layer gives."""
    module = layer.module
    query = next(getattr(module, x) for x in ("q", "query", "q_proj") if hasattr(module, x))
    parent = model.get_submodule(layer.name.rpartition(".")[0])
    output = output_of(module, parent, layer.output_heads)
    assert output is not None
    mixing = mixing_of(module)
    key_heads = mixing.num_key_heads if mixing else layer.output_heads
    value_heads = mixing.num_value_heads if mixing else layer.output_heads
    maps = {
        name: mixing is not None and getattr(mixing, name) is not None
        for name in ("logits_mix", "weights_mix")
    }
    key = next((getattr(module, x) for x in ("k", "key", "k_proj") if hasattr(module, x)), None)
    return {
        "model_dim": query.in_features,
        "memory_dim": key.in_features if isinstance(key, nn.Linear) else query.in_features,
        "key_heads": key_heads,
        "key_dim": query.out_features // key_heads,
        "value_heads": value_heads,
        "value_dim": output.module.in_features // value_heads,
        "heads": mixing.num_heads if mixing else 0,
        **maps,
        "dynamic": mixing.dynamic if mixing else (),
        "bilinear": isinstance(key, Memory),
    }


def _other_multiplications(settings: Settings, model: Any, positions: tuple[int, int]) -> int:
    """Multiplications of the linear maps outside attention: feed-forward layers and the vocabulary's."""
    first, second = positions
    inside = [layer.name for layer in find_layers(model)[0]]
    outside = [(name, x) for name, x in model.named_modules() if isinstance(x, nn.Linear)]
    total = 0
    for name, linear in outside:
        if any(name.startswith(f"{layer}.") for layer in inside) or _is_output_of_bert(name):
            continue
        in_decoder = bool(second) and not name.startswith("encoder.")
        rows = 1 if _reads_one_position(name) else second if in_decoder else first
        shared = settings.layers if "albert_layer_groups" in name else 1
        total += rows * shared * linear.in_features * linear.out_features
    return total


def _is_output_of_bert(name: str) -> bool:
    """BERT's output projection lies next to its attention layer."""
    return name.endswith("attention.output.dense")


def _reads_one_position(name: str) -> bool:
    return name.rpartition(".")[2] == "pooler" or "sop_classifier" in name or "pooler." in name
