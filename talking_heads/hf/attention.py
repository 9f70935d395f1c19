"""The attention function that transformers calls in a converted model."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ..nn import HeadMixing

NAME = "talking_heads"  # as attn_implementation
CHILD = "head_mixing"  # the module inside each attention layer that holds its maps; None: left multi-head

# Keywords of transformers' attention functions that change the result and that mixing cannot honour.
_REFUSED = (
    "softcap",
    "s_aux",
    "sinks",
    "indices",
    "block_indices",
    "cu_seq_lens_q",
    "cu_seq_lens_k",
    "cache",
)


def register() -> None:
    """Makes the name known to transformers, with its masks (without them it would build none, silently)."""
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    position_bias: Tensor | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """transformers' attention function over the maps of `module`.

    Args:
        query: [batch, heads, query_len, head_dim]; key, value: [batch, key_value_heads, memory_len, size].
        attention_mask: bool or float, [batch, 1 or heads, query_len, memory_len]; None with is_causal.
        position_bias: float, added to the logits of the softmax heads.

    Returns:
        (output [batch, query_len, heads, size], softmax weights [batch, heads, query_len, memory_len] where
        the caller asked for them).

    Raises:
        ValueError: a keyword that changes the result and cannot be honoured. RuntimeError: lost maps.
    """
    if not hasattr(module, CHILD):
        raise RuntimeError(
            f"talking_heads: a converted layer must have its maps; got {type(module).__name__} without "
            f"{CHILD}; load the model with talking_heads.hf.load or an Auto class"
        )
    refuse(options, type(module).__name__)
    mixing: HeadMixing | None = getattr(module, CHILD)
    wants_weights = _wants_weights(options)
    if mixing is None and not wants_weights:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, is_causal, position_bias
        )
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    causal = bool(causal) and attention_mask is None and query.shape[2] > 1
    result = (mixing or _SILENT).attend(
        query,
        key,
        value,
        attn_mask=_mask(attention_mask, position_bias),
        is_causal=causal,
        dropout_p=dropout,
        scale=scaling,
        enable_gqa=key.shape[1] != query.shape[1],
        return_weights=wants_weights,
    )
    output, weights = result[:2] if wants_weights else (result, None)
    return output.transpose(1, 2).contiguous(), weights


def refuse(options: dict[str, Any], name: str) -> None:
    """Raises for keywords that change the result and that are set."""
    for keyword in _REFUSED:
        if options.get(keyword) is not None:
            raise ValueError(
                f"talking_heads: attention must not depend on {keyword}; got {keyword}= from {name}; "
                "leave this layer multi-head (convert's layers=) or switch the feature off"
            )


def _mask(attention_mask: Tensor | None, position_bias: Tensor | None) -> Tensor | None:
    """One mask of both: the bias where attending is allowed, -inf elsewhere."""
    if position_bias is None or attention_mask is None:
        return attention_mask if position_bias is None else position_bias
    if attention_mask.dtype == torch.bool:
        return torch.where(attention_mask, position_bias, -torch.inf)
    return position_bias + attention_mask


def _wants_weights(options: dict[str, Any]) -> bool:
    return bool(options.get("output_attentions"))


class _Silent:
    """Stands in for the maps of a layer left multi-head, when its weights are asked for."""

    @staticmethod
    def attend(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Any:
        from ..functional import talking_heads_attention

        return talking_heads_attention(query, key, value, **options)


_SILENT = _Silent()
