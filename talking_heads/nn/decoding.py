"""Decoding: what a layer keeps of the past, and causality after it."""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor

from ..errors import UserError
from ..kernels.derivatives import transforms
from ..operands import is_causal_bias, operand


class AttentionCache:
    """Keys, values and dynamic maps of memory positions that decoding keeps between calls of one layer.

    Pass a new AttentionCache to a layer's first call and the same one to the next calls. In self-attention each
    call appends its positions. In cross-attention the first call fills it, and a call with the same memory reuses
    it; a call with another memory replaces it. (Compiled calls project the memory each time, since a graph cannot
    compare it with the one before.)

    A cache belongs to one layer and to one of the two uses. It holds the batch, dtype and device of its first call:
    a call with others is refused and leaves the cache as it was. `reorder` changes the batch, `to` the dtype and
    device. After a change of the layer's weights, `reset` it.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets everything, also which layer it belongs to."""
        self.tensors: dict[str, Tensor] = {}
        self._memory: Tensor | None = None  # cross-attention's, whose projections `tensors` holds
        self._version: int | None = None
        self._layer: int | None = None

    @property
    def length(self) -> int:
        """Memory positions held."""
        return self.tensors["value"].shape[-2] if self.tensors else 0

    def reorder(self, index: Tensor) -> None:
        """Takes the batch elements at `index`, an integer tensor, in that order: for beams, also to repeat them.

        Raises:
            UserError: an index that is not a list of integers.
        """
        operand("index", index, "pass a tensor of batch positions")
        if index.dim() != 1 or index.is_floating_point() or index.dtype == torch.bool:
            raise UserError(
                "index must be [new batch] integers",
                f"{index.dtype} of shape {list(index.shape)}",
                "flatten it and convert it with .long()",
            )
        self._change(lambda x: x.index_select(0, index.to(x.device)))

    def crop(self, length: int) -> None:
        """Keeps the first `length` positions, or drops the last -length: to go back in self-attention.

        Raises:
            UserError: more positions than it holds, or a cache of cross-attention.
        """
        if self._memory is not None:
            raise UserError(
                "only a self-attention cache can be cropped",
                "one that holds a memory",
                "crop the memory instead",
            )
        left = length if length >= 0 else self.length + length
        if not 0 <= left <= self.length:
            raise UserError(
                f"length must be at most the {self.length} positions held", length, "crop to fewer"
            )
        self.tensors = {name: x.narrow(_axis(name), 0, left).clone() for name, x in self.tensors.items()}

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Converts what it holds as torch.Tensor.to does, and returns itself."""
        self._change(lambda x: x.to(*args, **kwargs))
        return self

    def _change(self, change: Callable[[Tensor], Tensor]) -> None:
        self.tensors = {name: change(x) for name, x in self.tensors.items()}
        if self._memory is not None:
            self._memory = change(self._memory)
            self._version = _version_of(self._memory)

    def check(self, layer: object, memory: Tensor | None) -> None:
        """Raises UserError where the cache belongs to another layer, or to the other kind of attention."""
        if not self.tensors:
            return
        if self._layer != id(layer):
            raise UserError(
                "a cache must be passed to one layer",
                "one that another layer filled",
                "make an AttentionCache for each layer",
            )
        held, given = self._memory is not None, memory is not None
        if held != given:
            raise UserError(
                "a cache must be used either with memory or without",
                f"one filled {'with' if held else 'without'} memory, in a call {'with' if given else 'without'}",
                "make one AttentionCache for self-attention and another for cross-attention",
            )

    def holds(self, memory: Tensor) -> bool:
        """Whether it was filled from this memory."""
        if self._memory is None or _is_symbolic():
            return False
        kept = self._memory
        if self._version is not None and self._version != _version_of(kept):
            return False
        if kept is memory and self._version is not None:
            return True
        alike = (kept.shape, kept.dtype, kept.device) == (memory.shape, memory.dtype, memory.device)
        return alike and kept.device.type == "cpu" and torch.equal(kept, memory)

    def joined(self, new: dict[str, Tensor], memory: Tensor | None) -> dict[str, Tensor]:
        """What is held followed by new positions; with a memory, these alone. `keep` it once the call has succeeded.

        Raises:
            UserError: positions of another batch, dtype or device.
        """
        if memory is not None or not self.tensors:
            # laid out once as products take them, and never the caller's tensors, which may be written to
            return {name: x.clone(memory_format=torch.contiguous_format) for name, x in new.items()}
        held, value = self.tensors["value"], new["value"]
        for what, had, came in (
            ("batch", held.shape[0], value.shape[0]),
            ("dtype", held.dtype, value.dtype),
            ("device", held.device, value.device),
        ):
            if had != came:
                todo = (
                    "cache.reorder(index) changes its batch"
                    if what == "batch"
                    else f"cache.to changes its {what}"
                )
                raise UserError(
                    f"a call must have its cache's {what} {had}", came, f"{todo}, cache.reset() empties it"
                )
        return {name: torch.cat([self.tensors[name], x], _axis(name)) for name, x in new.items()}

    def keep(self, tensors: dict[str, Tensor], layer: object, memory: Tensor | None) -> None:
        """Sets what it holds after a call of `layer`."""
        self.tensors, self._layer = tensors, id(layer)
        if memory is None:
            return
        self._version = None if _is_symbolic() else _version_of(memory)
        # without a version counter only the numbers themselves tell whether a memory has changed
        self._memory = memory if self._version is not None else memory.clone()


def _axis(name: str) -> int:
    """The axis of memory positions."""
    return 2 if name in ("key", "value") else 1


def _version_of(x: Tensor) -> int | None:
    return None if x.is_inference() else x._version


def _is_symbolic() -> bool:
    return torch.compiler.is_compiling() or torch.jit.is_tracing() or transforms()


def check_cache(cache: Any, layer: object, memory: Tensor | None) -> int:
    """How many cached positions come before those of this call.

    Raises:
        UserError: something else than an AttentionCache, or one that belongs elsewhere.
    """
    if cache is None:
        return 0
    if not isinstance(cache, AttentionCache):
        raise UserError(
            "cache must be an AttentionCache", type(cache).__name__, "pass AttentionCache() or None"
        )
    cache.check(layer, memory)
    return cache.length if memory is None else 0


def after_the_past(mask: Any, is_causal: bool, past: int, x: Tensor) -> tuple[Tensor | None, bool]:
    """The operator counts causality from the top left; after `past` cached positions it is shifted."""
    if not is_causal or past == 0:
        return mask, is_causal
    new = x.shape[1]
    if is_causal_bias(mask):
        mask = mask._materialize(x.device)
    if mask is not None:
        operand("attn_mask", mask, "pass a tensor or None")
    if new == 1:
        return mask, False
    seen = torch.ones(new, past + new, dtype=torch.bool, device=x.device).tril(past)
    if mask is None:
        return seen, False
    if any(size not in (want, 1) for size, want in zip(mask.shape[::-1], seen.shape[::-1], strict=False)):
        return mask, is_causal  # the operator refuses it
    if mask.dtype == torch.bool:
        return mask & seen, False
    return (mask.masked_fill(~seen, -torch.inf) if mask.is_floating_point() else mask), False
