"""General bilinear attention."""

from typing import Any

import torch
from torch import Tensor, nn

from ..functional import Backend, talking_heads_attention
from ..operands import probability
from .decoding import AttentionCache, after_the_past, check_cache
from .shapes import check_input, check_memory, count, known_backend, split_heads


class GeneralBilinearAttention(nn.Module):
    """Attention with head size = width: a full bilinear form a head (the paper's general bilinear attention).

    Queries are x projected to [heads, memory_dim]; keys and values are the memory itself, so a
    decoding cache is the memory itself. No biases, as in the paper.

    Args:
        model_dim: width of x. num_heads: heads. memory_dim, output_dim: default model_dim.
        dropout: share of the weights dropped in training.
        backend: of talking_heads_attention.

    Raises:
        UserError: sizes below 1.
    """

    def __init__(
        self,
        model_dim: int,
        num_heads: int,
        *,
        memory_dim: int | None = None,
        output_dim: int | None = None,
        dropout: float = 0.0,
        backend: Backend = "auto",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.model_dim, self.num_heads = count("model_dim", model_dim), count("num_heads", num_heads)
        self.memory_dim = self.model_dim if memory_dim is None else count("memory_dim", memory_dim)
        output_dim = self.model_dim if output_dim is None else count("output_dim", output_dim)
        self.dropout, self.backend = probability(dropout, "dropout"), known_backend(backend)
        options: dict[str, Any] = {"bias": False, "device": device, "dtype": dtype}
        self.query_proj = nn.Linear(self.model_dim, self.num_heads * self.memory_dim, **options)
        self.output_proj = nn.Linear(self.num_heads * self.memory_dim, output_dim, **options)

    def reset_parameters(self) -> None:
        """Draws the projections again."""
        for projection in self.children():
            if isinstance(projection, nn.Linear):
                projection.reset_parameters()

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
        check_input(x, self.model_dim, "x", self.query_proj)
        past = check_cache(cache, self, memory)
        kept = self._memory(x, memory, cache)
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
            backend=self.backend,
        )
        if cache is not None:
            cache.keep({"value": kept}, self, memory)
        output = result[0] if return_weights else result
        output = self.output_proj(output.transpose(1, 2).flatten(2))
        return (output, *result[1:]) if return_weights else output

    def _memory(self, x: Tensor, memory: Tensor | None, cache: AttentionCache | None) -> Tensor:
        """[batch, 1, memory_len, memory_dim], cached positions included."""
        if memory is not None:
            check_memory(memory, x, self.memory_dim, self.query_proj)
            if cache is not None and cache.holds(memory):
                return cache.tensors["value"]
        elif self.memory_dim != self.model_dim:
            check_input(x, self.memory_dim, "x, which is its own memory here,", self.query_proj)
        new = (x if memory is None else memory)[:, None]
        return new if cache is None else cache.joined({"value": new}, memory)["value"]

    def extra_repr(self) -> str:
        return f"heads={self.num_heads}, head_dim=memory_dim={self.memory_dim}"
