"""torch.nn.MultiheadAttention, alone or inside torch.nn's transformer layers."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..anatomy import Layer
from ..anatomy.layers import find
from ..errors import UserError
from ..nn.shapes import split_heads
from . import masks
from .attention import CHILD
from .mixing import LayerMixing


def find_torch(model: nn.Module) -> tuple[list[Layer], dict[str, str]]:
    """(the nn.MultiheadAttention modules of a model, {name: why not} of its subclasses)."""
    found = [layer for layer in find(model)[0] if layer.kind == "torch"]
    plain = [x for x in found if type(x.module) in (nn.MultiheadAttention, MultiheadAttention)]
    left = {x.name: f"{type(x.module).__name__} may attend in its own way" for x in found if x not in plain}
    return plain, left


def insert_torch(model: nn.Module, layers: list[Layer], plan: dict[str, dict[str, Any]]) -> None:
    """Puts the maps in; switches off the fused path of nn.TransformerEncoder, which would skip them."""
    for found in layers:
        if found.name in plan:
            layer: Any = found.module
            like = layer.out_proj.weight
            mixing = LayerMixing(**plan[found.name], device=like.device, dtype=like.dtype).train(
                layer.training
            )
            layer.__class__ = MultiheadAttention
            layer.add_module(CHILD, mixing)
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False


def revert_torch(model: nn.Module) -> None:
    """Undoes `insert_torch`.

    Raises:
        ValueError: a model without converted layers.
    """
    if not any(isinstance(module, MultiheadAttention) for module in model.modules()):
        raise UserError(
            "revert: a model must be converted", f"a plain {type(model).__name__}", "leave it as it is"
        )
    for module in model.modules():
        if isinstance(module, MultiheadAttention):
            delattr(module, CHILD)
            layer: Any = module
            layer.__class__ = nn.MultiheadAttention
        elif isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = module.enable_nested_tensor


class MultiheadAttention(nn.MultiheadAttention):
    """nn.MultiheadAttention whose heads talk; made by `convert`, in place.

    As torch's own, but: the weights returned are the softmax's, before weights_mix, averaged over heads
    unless told otherwise; a query that may attend nowhere gets the output's bias, not NaN; no nested tensors.
    """

    head_mixing: LayerMixing
    _qkv_same_embed_dim = property(lambda self: False)  # type: ignore[assignment]  # keeps fused paths away

    def forward(  # type: ignore[override]
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        if is_causal and attn_mask is None:
            raise UserError(
                "MultiheadAttention: is_causal is a hint about attn_mask", "none", "pass the mask"
            )
        single = query.dim() == 2
        parts = [
            x[None] if single else x if self.batch_first else x.transpose(0, 1) for x in (query, key, value)
        ]
        query, key, value = (split_heads(x, self.num_heads) for x in self._projected(*parts))
        mask = masks.both(_mask(attn_mask, self.num_heads), _mask(_padding(key_padding_mask), 1))
        if self.bias_k is not None and self.bias_v is not None:
            key, value, mask = self._appended(key, value, mask, self.bias_k, self.bias_v)
        if self.add_zero_attn:
            zeros = key.new_zeros(1, 1, key.shape[1] * key.shape[3])
            key, value, mask = self._appended(key, value, mask, zeros, zeros)
        result = self.head_mixing(
            query,
            key,
            value,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            return_weights=need_weights,
        )
        output, weights = result[:2] if need_weights else (result, None)
        output = self.out_proj(output.transpose(1, 2).flatten(2))
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if single:
            return output[0], None if weights is None else weights[0]
        return output if self.batch_first else output.transpose(0, 1), weights

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        biases = [None] * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        if self.in_proj_weight is not None:
            if query is key and key is value:
                return list(F.linear(query, self.in_proj_weight, self.in_proj_bias).chunk(3, -1))
            weights = self.in_proj_weight.chunk(3)
        else:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        return [F.linear(*given) for given in zip((query, key, value), weights, biases, strict=True)]

    def _appended(
        self, key: Tensor, value: Tensor, mask: Tensor | None, more_key: Tensor, more_value: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """One memory position more ([1, 1, width] each), which everybody may attend to."""
        batch = key.shape[0]
        pairs = ((key, more_key), (value, more_value))
        key, value = (
            torch.cat([x, split_heads(y.expand(batch, -1, -1), self.num_heads)], 2) for x, y in pairs
        )
        if mask is not None:
            mask = F.pad(mask, (0, 1), value=mask.dtype == torch.bool)
        return key, value, mask


def _padding(mask: Tensor | None) -> Tensor | None:
    """[batch, memory_len] or [memory_len] -> [batch, 1, memory_len]"""
    return None if mask is None else mask.view(-1, 1, mask.shape[-1])


def _mask(mask: Tensor | None, heads: int) -> Tensor | None:
    """torch's mask (bool: True forbids) [n, m] or [batch * heads, n, m] as the operator's."""
    if mask is None:
        return None
    if mask.dtype == torch.bool:
        mask = ~mask
    return mask if mask.dim() == 2 else mask.unflatten(0, (-1, heads))
