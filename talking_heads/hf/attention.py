"""The attention function that transformers calls in a converted model."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from ..anatomy import registry
from ..functional import talking_heads_attention
from ..nn.mixing import CHILD as CHILD
from . import bias, keywords, masks
from .dynamic import maps_of

try:  # internal to transformers: without it weights are given where they are asked for by name
    from transformers.utils.output_capturing import _active_collector
except ImportError:
    _active_collector = None  # type: ignore[assignment]

NAME = "talking_heads"  # as attn_implementation
AS_EAGER = "talking_heads_as_eager"  # in models that do not know scaled_dot_product_attention's conventions


def register() -> None:
    """Makes the names known to transformers, with their masks."""
    registry.register(NAME, attend, causal_mask)
    registry.register(AS_EAGER, attend_as_eager, eager_mask)


def causal_mask(
    *args: Any, q_length: int, kv_length: int, q_offset: Any = 0, kv_offset: Any = 0, **options: Any
) -> Tensor | None:
    """transformers' mask for scaled_dot_product_attention. It is left out where causality alone says it all, but only
    where the keys end at the last query: some models drop queries afterwards (Gemma 4 of layers that share keys), and
    the end is what is left to align them by. Keys of a static cache go on behind it."""
    ends = isinstance(q_offset, int) and q_offset + q_length == kv_offset + kv_length
    options["allow_is_causal_skip"] = ends and options.get("allow_is_causal_skip", True)
    return sdpa_mask(
        *args, q_length=q_length, kv_length=kv_length, q_offset=q_offset, kv_offset=kv_offset, **options
    )


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
        position_bias: float, added to the logits of the softmax heads; for more or fewer heads, see `bias.fit`.
        options: what `masks` honours; what is neither there nor harmless raises.

    Returns:
        (output [batch, query_len, heads, size], softmax weights [batch, heads, query_len, memory_len] where
        they are asked for or being collected, else None).

    Raises:
        ValueError: a keyword that changes the result and cannot be honoured.
    """
    mixing: Any = getattr(module, CHILD, None)  # none: a layer that shares its config with converted ones
    extras = keywords.set_ones(options, type(module))
    keywords.refuse(extras, type(module).__name__)
    wants_weights = _wants_weights(options)
    if mixing is None and not wants_weights and not extras:
        return sdpa_attention_forward(
            *(module, query, key, value, attention_mask, dropout, scaling, is_causal),
            bias.fit(position_bias, query.shape[1]),
        )
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    causal = bool(causal) and attention_mask is None and query.shape[2] > 1
    maps: dict[str, Any] = maps_of(module, query, key) if mixing is not None and mixing.dynamic else {}
    heads = query.shape[1] if mixing is None else mixing.num_heads
    mask = masks.both(attention_mask, bias.fit(position_bias, heads))
    if causal and is_causal is None and query.shape[2] != key.shape[2]:  # the last queries: see causal_mask
        mask, causal = masks.both(mask, _ends_alike(query, key)), False
    if extras:
        key, value, mask, causal = masks.apply(extras, query, key, value, mask, causal)
        if masks.has_sinks(extras):
            maps = {name: masks.behind_sinks(x) if "memory" in name else x for name, x in maps.items()}
    if query.shape[0] != key.shape[0]:  # learned queries, one for the whole batch
        query = query.expand(key.shape[0], -1, -1, -1)
        maps = {name: x.expand(key.shape[0], -1, -1, -1) for name, x in maps.items()}
    result = (mixing or talking_heads_attention)(
        query,
        key,
        value,
        attn_mask=mask,
        is_causal=causal,
        dropout_p=dropout,
        scale=scaling,
        enable_gqa=True,
        return_weights=wants_weights,
        **maps,
    )
    if not wants_weights:
        return result.transpose(1, 2).contiguous(), None
    output, weights, _ = result
    return output.transpose(1, 2).contiguous(), weights[..., masks.SINKS if masks.has_sinks(extras) else 0 :]


def _ends_alike(query: Tensor, key: Tensor) -> Tensor:
    """bool [1, 1, query_len, memory_len]: causal, the last query at the last key."""
    n, m = query.shape[2], key.shape[2]
    return torch.ones(n, m, dtype=torch.bool, device=query.device).tril(m - n)[None, None]


def attend_as_eager(
    *arguments: Any, is_causal: bool | None = None, **options: Any
) -> tuple[Tensor, Tensor | None]:
    """`attend` for models written for eager attention: masks are floats, and no mask means no mask."""
    return attend(*arguments, **options | {"is_causal": False})


def _wants_weights(options: dict[str, Any]) -> bool:
    """Asked for by name, or collected by transformers' hooks."""
    if options.get("output_attentions"):
        return True
    collected = None if _active_collector is None else _active_collector.get()
    return collected is not None and any("attentions" in key for key in collected)
