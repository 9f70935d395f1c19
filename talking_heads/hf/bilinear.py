"""General bilinear attention in place of a T5's projections (Shazeer et al., 2020, general bilinear form).

A head of T5 scores (W_q x) . (W_k m) and gives W_o W_v m, with W_q and W_k [head size, width]. Written as
x' (W_k' W_q) m, the product of two thin matrices becomes one full matrix a head; keys and values are then
the memory itself. The start computes what the layer computed; training may leave the thin form.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ..anatomy import Layer
from ..anatomy.projections import Output, Projection, projections
from ..errors import UserError


def widen(site: Layer) -> None:
    """Replaces the four projections of a T5 attention layer by two, in place; its function stays.

    Raises:
        ValueError: a layer of another form.
    """
    layer: Any = site.module
    query, key, value, output = check_form(site)
    memory = key.module.in_features
    heads = range(site.output_heads)
    with torch.no_grad():
        scores = [key.head(h)[0].double().mT @ query.head(h)[0].double() for h in heads]  # [memory, width]
        gives = [output.head(h).double() @ value.head(h)[0].double() for h in heads]  # [width, memory]
    setattr(query.holder, query.name, _linear(torch.cat(scores), query.module))
    setattr(output.holder, output.name, _linear(torch.cat(gives, 1), output.module))
    for part in (key, value):
        setattr(part.holder, part.name, Memory())
    layer.key_value_proj_dim, layer.inner_dim = memory, len(heads) * memory


class Memory(nn.Identity):
    """Keys or values that are the memory itself."""

    @property
    def weight(self) -> Tensor:  # T5's own initialisation of its layers asks for one
        return torch.empty(0)


def check_form(site: Layer) -> tuple[Projection, Projection, Projection, Output]:
    """The layer's queries, keys, values and output; raises for a layer that is not T5's."""
    query, key, value, output = projections(site.module, "", site.output_heads)
    found = [x for x in (query, key, value, output) if x is not None]
    plain = all(isinstance(x.module, nn.Linear) and x.module.bias is None for x in found)
    if not (query and key and value and output and plain) or not hasattr(site.module, "key_value_proj_dim"):
        raise UserError(
            "convert: bilinear attention is made of T5's projections q, k, v, o without biases",
            f"{type(site.module).__name__} at {site.name}",
            "leave it out with layers= or kinds=",
        )
    return query, key, value, output


def _linear(weight: Tensor, like: nn.Linear) -> nn.Linear:
    new = nn.Linear(
        weight.shape[1], weight.shape[0], bias=False, device=like.weight.device, dtype=like.weight.dtype
    )
    new.weight = nn.Parameter(weight.to(like.weight.dtype), requires_grad=like.weight.requires_grad)
    return new
