"""Decoding: what a layer keeps of the past, and causality behind it."""

import torch
from torch import Tensor


class AttentionCache:
    """What decoding keeps of the past: keys, values and the dynamic maps of memory positions.

    Pass one empty AttentionCache a layer to every call. In self-attention each call appends its
    positions; in cross-attention the first call fills it and later calls reuse it.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}

    @property
    def length(self) -> int:
        """Memory positions held."""
        return self.tensors["value"].shape[-2] if self.tensors else 0

    def append(self, new: dict[str, Tensor]) -> dict[str, Tensor]:
        """Adds positions (heads: axis 2 of key and value; axis 1 of the maps); returns all of them."""
        if self.tensors:
            new = {
                name: torch.cat([self.tensors[name], x], 2 if name in ("key", "value") else 1)
                for name, x in new.items()
            }
        self.tensors = new
        return new


def after_the_past(mask: Tensor | None, is_causal: bool, past: int, x: Tensor) -> tuple[Tensor | None, bool]:
    """The operator counts causality from the top left; behind `past` cached positions it is shifted."""
    if not is_causal or past == 0:
        return mask, is_causal
    new = x.shape[1]
    if new == 1:
        return mask, False
    seen = torch.ones(new, past + new, dtype=torch.bool, device=x.device).tril(past)
    if mask is None:
        return seen, False
    return (mask & seen if mask.dtype == torch.bool else mask.masked_fill(~seen, -torch.inf)), False
