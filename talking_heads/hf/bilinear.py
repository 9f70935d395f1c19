"""General bilinear attention in place of a T5's projections (Shazeer et al., 2020, general bilinear form).

A head of T5 scores (W_q x) . (W_k m) and gives W_o W_v m, with W_q and W_k [head size, width]. Written as
x' (W_k' W_q) m, the product of two thin matrices becomes one full matrix a head; keys and values are then
the memory itself. The start computes what the layer computed; training may leave the thin form.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ..anatomy import Layer
from ..errors import UserError


def widen(site: Layer) -> None:
    """Replaces the four projections of a T5 attention layer by two, in place; its function stays.

    Raises:
        ValueError: a layer of another form.
    """
    layer: Any = site.module
    check_form(site)
    heads, size = site.output_heads, layer.key_value_proj_dim
    memory = layer.k.in_features
    with torch.no_grad():
        queries, keys = (_split(x.weight, heads) for x in (layer.q, layer.k))  # [heads, size, width]
        values = _split(layer.v.weight, heads)
        outputs = layer.o.weight.double().unflatten(1, (heads, size)).transpose(0, 1)  # [heads, width, size]
        scores = (keys.mT @ queries).flatten(0, 1)
        gives = (outputs @ values).transpose(0, 1).flatten(1)
    layer.q, layer.o = _linear(scores, layer.q), _linear(gives, layer.o)
    layer.k, layer.v = Memory(), Memory()
    layer.key_value_proj_dim, layer.inner_dim = memory, heads * memory


class Memory(nn.Identity):
    """Keys or values that are the memory itself."""

    @property
    def weight(self) -> Tensor:  # T5's own initialisation of its layers asks for one
        return torch.empty(0)


def check_form(site: Layer) -> None:
    """Raises for a layer that is not T5's."""
    layer: Any = site.module
    parts = [getattr(layer, name, None) for name in "qkvo"]
    plain = all(isinstance(x, nn.Linear) and x.bias is None for x in parts)
    if not plain or not hasattr(layer, "key_value_proj_dim"):
        raise UserError(
            "convert: bilinear attention is made of T5's projections q, k, v, o without biases",
            f"{type(layer).__name__} at {site.name}",
            "leave it out with layers= or kinds=",
        )


def _split(weight: Tensor, heads: int) -> Tensor:
    return weight.double().unflatten(0, (heads, -1))


def _linear(weight: Tensor, like: nn.Linear) -> nn.Linear:
    new = nn.Linear(
        weight.shape[1], weight.shape[0], bias=False, device=like.weight.device, dtype=like.weight.dtype
    )
    new.weight = nn.Parameter(weight.to(like.weight.dtype), requires_grad=like.weight.requires_grad)
    return new
