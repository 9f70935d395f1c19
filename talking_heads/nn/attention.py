"""Talking-heads attention with its projections."""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from ..functional import Backend
from ..operands import probability
from .decoding import AttentionCache, after_the_past, check_cache
from .mixing import Dynamic, HeadMixing, Init
from .shapes import check_input, check_memory, count, known_backend, share, split_heads


class TalkingHeadsAttention(HeadMixing):
    """Multi-head attention whose heads talk, with its four projections. Self- or cross-attention.

    Args:
        model_dim: width of x. num_heads: softmax heads (all three counts by default).
        num_key_heads, num_value_heads: heads of queries and keys, and of values.
        head_dim: size of a key head, default model_dim / num_key_heads. value_head_dim: of a value
            head, default model_dim / num_value_heads.
        memory_dim, output_dim: widths of memory and output, default model_dim.
        logits_mix, weights_mix, dynamic, mix_init: see HeadMixing. Both maps off: multi-head attention.
        bias: whether the four projections have one (the authors' have none).
        dropout: share of the mixed weights dropped in training.
        backend: of talking_heads_attention.

    Raises:
        UserError: widths that head counts do not divide, head counts that do not fit.
    """

    def __init__(
        self,
        model_dim: int,
        num_heads: int,
        *,
        num_key_heads: int | None = None,
        num_value_heads: int | None = None,
        head_dim: int | None = None,
        value_head_dim: int | None = None,
        memory_dim: int | None = None,
        output_dim: int | None = None,
        logits_mix: bool = True,
        weights_mix: bool = True,
        dynamic: Collection[Dynamic] = (),
        mix_init: Init = "identity",
        bias: bool = True,
        dropout: float = 0.0,
        backend: Backend = "auto",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            num_heads,
            num_key_heads=num_key_heads,
            num_value_heads=num_value_heads,
            logits_mix=logits_mix,
            weights_mix=weights_mix,
            dynamic=dynamic,
            model_dim=model_dim,
            memory_dim=memory_dim,
            mix_init=mix_init,
            device=device,
            dtype=dtype,
        )
        self.model_dim = count("model_dim", model_dim)
        self.memory_dim = self.model_dim if memory_dim is None else count("memory_dim", memory_dim)
        output_dim = self.model_dim if output_dim is None else count("output_dim", output_dim)
        self.head_dim = _size("head_dim", head_dim, self.model_dim, self.num_key_heads)
        self.value_head_dim = _size("value_head_dim", value_head_dim, self.model_dim, self.num_value_heads)
        self.dropout, self.backend = probability(dropout, "dropout"), known_backend(backend)
        options: dict[str, Any] = {"bias": bias, "device": device, "dtype": dtype}
        keys, values = self.num_key_heads * self.head_dim, self.num_value_heads * self.value_head_dim
        self.query_proj = nn.Linear(model_dim, keys, **options)
        self.key_proj = nn.Linear(self.memory_dim, keys, **options)
        self.value_proj = nn.Linear(self.memory_dim, values, **options)
        self.output_proj = nn.Linear(values, output_dim, **options)

    def reset_parameters(self) -> None:
        """Draws the projections again and sets the maps to their start."""
        super().reset_parameters()
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
        """Attends from x to memory (default: to x itself, after what `cache` holds).

        Args:
            x: [batch, query_len, model_dim]. memory: [batch, memory_len, memory_dim].
            attn_mask: as in talking_heads_attention, over all memory positions, cached ones first.
            is_causal: a position sees itself and what is before it; with a cache, counted from its end.
            cache: an AttentionCache, to decode step by step.
            return_weights: also return weights and mixed weights.

        Returns:
            [batch, query_len, output_dim]; with return_weights (output, weights, mixed).

        Raises:
            UserError: inputs, masks or a cache that do not fit.
        """
        check_input(x, self.model_dim, "x", self.query_proj)
        past = check_cache(cache, self, memory)
        kept = self._memory(x, memory, cache)
        attn_mask, is_causal = after_the_past(attn_mask, is_causal, past, x)
        maps = {name: x for name, x in kept.items() if name not in ("key", "value")}
        result = self.attend(
            split_heads(self.query_proj(x), self.num_key_heads),
            kept["key"],
            kept["value"],
            attn_mask=attn_mask,
            is_causal=is_causal,
            dropout_p=self.dropout if self.training else 0.0,
            return_weights=return_weights,
            backend=self.backend,
            **self.query_maps(x),
            **maps,
        )
        if cache is not None:
            cache.keep(kept, self, memory)
        if return_weights:
            return self._join(result[0]), *result[1:]
        return self._join(result)

    def _memory(self, x: Tensor, memory: Tensor | None, cache: AttentionCache | None) -> dict[str, Tensor]:
        """Keys, values and maps of all memory positions, cached ones included."""
        if memory is not None:
            check_memory(memory, x, self.memory_dim, self.key_proj)
            if cache is not None and cache.holds(memory):
                return cache.tensors
        elif self.memory_dim != self.model_dim:
            check_input(x, self.memory_dim, "x, which is its own memory here,", self.key_proj)
        source = x if memory is None else memory
        new = {
            "key": split_heads(self.key_proj(source), self.num_key_heads),
            "value": split_heads(self.value_proj(source), self.num_value_heads),
            **self.memory_maps(source),
        }
        return new if cache is None else cache.joined(new, memory)

    def _join(self, output: Tensor) -> Tensor:
        return self.output_proj(output.transpose(1, 2).flatten(2))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, head_dim={self.head_dim}, value_head_dim={self.value_head_dim}"


def _size(name: str, given: int | None, width: int, heads: int) -> int:
    return share(width, heads, name) if given is None else count(name, given)
