"""General bilinear attention."""

from typing import Any

import torch
from torch import Tensor, nn

from ..functional import talking_heads_attention
from .decoding import AttentionCache, after_the_past
from .shapes import check_width, probability, split_heads


class GeneralBilinearAttention(nn.Module):
    """Attention with head size = width: a full bilinear form a head (the paper's general bilinear attention).

    Queries are x projected to [heads, memory_dim]; keys and values are the memory itself, so a
    decoding cache is the memory itself. No biases, as in the paper.

    Args:
        model_dim: width of x. num_heads: heads. memory_dim, output_dim: default model_dim.
        dropout: share of the weights dropped in training.
    """

    def __init__(
        self,
        model_dim: int,
        num_heads: int,
        *,
        memory_dim: int | None = None,
        output_dim: int | None = None,
        dropout: float = 0.0,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.model_dim, self.num_heads, self.memory_dim = model_dim, num_heads, memory_dim or model_dim
        self.dropout = probability(dropout)
        options: dict[str, Any] = {"bias": False, "device": device, "dtype": dtype}
        self.query_proj = nn.Linear(model_dim, num_heads * self.memory_dim, **options)
        self.output_proj = nn.Linear(num_heads * self.memory_dim, output_dim or model_dim, **options)

    def forward(
        self,
        x: Tensor,
        memory: Tensor | None = None,
        *,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        cache: AttentionCache | None = None,
        return_weights: bool = False,
    ) -> Any:
        """As TalkingHeadsAttention.forward; without memory, x must have memory_dim."""
        check_width(x, self.model_dim, "x")
        past = 0 if cache is None or memory is not None else cache.length
        if cache is not None and memory is not None and cache.length:
            kept = cache.tensors["value"]
        else:
            source = x if memory is None else memory
            check_width(source, self.memory_dim, "memory")
            kept = source[:, None]
            if cache is not None:
                kept = cache.joined({"value": kept})["value"]
        attn_mask, is_causal = after_the_past(attn_mask, is_causal, past, x)
        shared = kept.expand(-1, self.num_heads, -1, -1)
        result = talking_heads_attention(
            split_heads(self.query_proj(x), self.num_heads),
            shared,
            shared,
            attn_mask=attn_mask,
            is_causal=is_causal,
            dropout_p=self.dropout if self.training else 0.0,
            return_weights=return_weights,
        )
        if cache is not None:
            cache.tensors = {"value": kept}
        output = result[0] if return_weights else result
        output = self.output_proj(output.transpose(1, 2).flatten(2))
        return (output, *result[1:]) if return_weights else output

    def extra_repr(self) -> str:
        return f"heads={self.num_heads}, head_dim=memory_dim={self.memory_dim}"
