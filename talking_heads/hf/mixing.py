"""The maps of one converted attention layer."""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from ..functional import Backend
from ..nn import HeadMixing
from ..nn.mixing import Dynamic, Init


class LayerMixing(HeadMixing):
    """HeadMixing inside an attention layer of `layer_heads` heads that keeps its projections.

    More key or value heads than the layer has: each head is cut into parts of equal size, and with
    identity maps the scores of a head's parts add up to its own, so the layer starts unchanged. Softmax
    heads may be any number of at least `layer_heads`; those beyond start without a part in the output.

    Args:
        layer_heads: query heads of the attention layer. num_key_heads, num_value_heads: multiples of it.
        others: see HeadMixing; every count defaults to layer_heads.

    Raises:
        ValueError: counts that the projections' widths do not allow.
    """

    backend: Backend = "auto"  # of talking_heads_attention; of this process, not saved

    def __init__(
        self,
        layer_heads: int,
        *,
        num_heads: int | None = None,
        num_key_heads: int | None = None,
        num_value_heads: int | None = None,
        logits_mix: bool = True,
        weights_mix: bool = True,
        dynamic: Collection[Dynamic] = (),
        model_dim: int | None = None,
        memory_dim: int | None = None,
        mix_init: Init = "identity",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.layer_heads = layer_heads
        for name, count in (("num_key_heads", num_key_heads), ("num_value_heads", num_value_heads)):
            if count is not None and (count < 1 or count % layer_heads):
                raise UserError(
                    (
                        f"convert: {name} must be a multiple of the layer's {layer_heads} heads, "
                        "each cut into equal parts"
                    ),
                    count,
                    f"pass for example {2 * layer_heads}",
                )
        self._parts = (
            (num_key_heads or layer_heads) // layer_heads,
            (num_value_heads or layer_heads) // layer_heads,
        )
        super().__init__(
            num_heads or layer_heads,
            num_key_heads=num_key_heads or layer_heads,
            num_value_heads=num_value_heads or layer_heads,
            logits_mix=logits_mix,
            weights_mix=weights_mix,
            dynamic=dynamic,
            model_dim=model_dim,
            memory_dim=memory_dim,
            mix_init=mix_init,
            device=device,
            dtype=dtype,
        )

    @torch.no_grad()
    def reset_mixing(self) -> None:
        super().reset_mixing()
        if self.mix_init != "identity":
            return
        if self.num_heads < self.layer_heads:
            raise UserError(
                f"convert: an identity start needs at least the layer's {self.layer_heads} softmax heads",
                self.num_heads,
                'pass more, or init="random"',
            )
        for mix, axis in ((self.logits_mix, 0), (self.weights_mix, 1)):
            if mix is not None:  # every part of a head begins with that head's row or column
                parts = mix.shape[axis] // self.layer_heads
                start = torch.eye(self.layer_heads, self.num_heads, device=mix.device, dtype=mix.dtype)
                start = start.repeat_interleave(parts, 0)
                mix.copy_(start if axis == 0 else start.mT)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Any:
        """talking_heads_attention with the maps; output and shapes are the layer's own.

        query: [batch, layer_heads, query_len, size]; key, value: [batch, layer_heads or fewer, memory_len,
        size]. Returns [batch, layer_heads, query_len, size], with return_weights as talking_heads_attention.
        """
        if self._parts == (1, 1):
            return self.attend(query, key, value, **options)
        key_parts, value_parts = self._parts
        if key_parts > 1:
            scale = options.get("scale")
            options["scale"] = query.shape[-1] ** -0.5 if scale is None else scale
            query, key = (_cut(x, self.layer_heads, key_parts) for x in (query, key))
        if value_parts > 1:
            value = _cut(value, self.layer_heads, value_parts)
        result = self.attend(query, key, value, **options)
        if value_parts == 1:
            return result
        if not options.get("return_weights"):
            return _join(result, value_parts)
        return _join(result[0], value_parts), *result[1:]

    def attend(self, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Any:
        """HeadMixing's, by the backend that is set; weights are given by the reference alone."""
        backend = "auto" if options.get("return_weights") else self.backend
        return super().attend(query, key, value, backend=backend, **options)

    def _maps(self, place: str, x: Tensor) -> dict[str, Tensor]:
        """Dynamic maps are made before forward, for which alone accelerate brings offloaded weights in."""
        hook = getattr(self, "_hf_hook", None)
        if hook is None:
            return super()._maps(place, x)
        hook.pre_forward(self)
        try:
            return super()._maps(place, x)
        finally:
            hook.post_forward(self, None)

    def extra_repr(self) -> str:
        return f"layer_heads={self.layer_heads}, {super().extra_repr()}"


def _cut(x: Tensor, heads: int, parts: int) -> Tensor:
    """[b, heads or fewer, m, parts * d] -> [b, heads * parts, m, d]: grouped heads repeated, then cut."""
    b, few, m, size = x.shape
    if size % parts:
        raise UserError(
            f"convert: heads of size {size} must be divisible into parts",
            f"{parts} parts",
            "pass fewer heads",
        )
    x = x[:, :, None].expand(b, few, heads // few, m, size).unflatten(-1, (parts, -1))
    return x.permute(0, 1, 2, 4, 3, 5).reshape(b, heads * parts, m, size // parts)


def _join(x: Tensor, parts: int) -> Tensor:
    """[b, heads * parts, n, d] -> [b, heads, n, parts * d]"""
    return x.unflatten(1, (-1, parts)).transpose(2, 3).flatten(3)
