"""Learned position biases, one a softmax head, where conversion adds softmax heads (T5 and its kin).

The first layer of a stack has the table of biases (an embedding [buckets, heads]) and hands its rows to the other
layers. Further heads start with a copy of the biases of the first ones.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ..anatomy import Layer

TABLE = "relative_attention_bias"


def extends(model: nn.Module, layer: Layer) -> bool:
    """Whether the layer's position biases come from a table that can have more heads."""
    kind = type(layer.module)
    return any(type(module) is kind and _table(module) is not None for module in model.modules())


def extend(layers: list[Layer], plan: dict[str, dict[str, Any]]) -> None:
    """Give the tables as many heads as the layers have that use them, in place."""
    for layer in layers:
        table = _table(layer.module)
        if table is None:
            continue
        uses = [x for x in layers if x is layer or (x.part == layer.part and _table(x.module) is None)]
        heads = max((plan.get(x.name, {}).get("num_heads") or x.output_heads) for x in uses)
        if heads > table.embedding_dim:
            _replace(layer, table, torch.arange(heads) % table.embedding_dim)


def restore(layers: list[Layer]) -> None:
    """Give the tables the heads that the layers had before conversion, in place."""
    for layer in layers:
        table = _table(layer.module)
        if table is not None and table.embedding_dim > layer.output_heads:
            _replace(layer, table, torch.arange(layer.output_heads))


def fit(bias: Tensor | None, heads: int) -> Tensor | None:
    """[batch, heads, query_len, memory_len] of a bias for more or fewer heads, [..., 1 or any, ..., ...]."""
    if bias is None or bias.shape[1] in (1, heads):
        return bias
    if bias.shape[1] > heads:
        return bias[:, :heads]
    return bias[:, torch.arange(heads, device=bias.device) % bias.shape[1]]


def _table(module: Any) -> nn.Embedding | None:
    found = getattr(module, TABLE, None)
    return found if isinstance(found, nn.Embedding) else None


def _replace(layer: Layer, table: nn.Embedding, columns: Tensor) -> None:
    """The table with these columns of the old one."""
    old = table.weight
    weight = old.detach()[:, columns.to(old.device)]
    setattr(layer.module, TABLE, nn.Embedding.from_pretrained(weight, freeze=not old.requires_grad))
