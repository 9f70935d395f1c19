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

    def joined(self, new: dict[str, Tensor]) -> dict[str, Tensor]:
        """What is held and new positions behind it (heads: axis 2 of key and value; axis 1 of the maps). The layer
        sets `tensors` to it once its call has been done: one that is refused leaves the cache as it was."""
        if not self.tensors:  # cross-attention's are read at every step: laid out once as products take them
            return {name: x.contiguous() for name, x in new.items()}
        return {
            name: torch.cat([self.tensors[name], x], 2 if name in ("key", "value") else 1)
            for name, x in new.items()
        }


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
    if any(size not in (1, want) for size, want in zip(mask.shape[::-1], seen.shape[::-1], strict=False)):
        return mask, is_causal  # the operator refuses it
    return (mask & seen if mask.dtype == torch.bool else mask.masked_fill(~seen, -torch.inf)), False
