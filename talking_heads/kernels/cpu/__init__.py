"""Fused C++ kernel for CPUs: O(positions) memory, the cost of multi-head attention plus the mixing itself.

src/ holds the C++ sources; forward.h and backward.h start with their loop nests. Installing the package
compiles them for several instruction sets. binding.py loads the library for this processor and calls it.
"""

import torch
from torch import Tensor

from ..operator import empty_gradients, register
from ..problem import Problem
from . import binding

MASK = Problem._fields.index("mask")
# The largest number of parts of the batch. The elements of a part run in order and share accumulators of the
# maps' gradients. The number does not depend on threads, so that results do not either.
PARTS = 64
# A mask that is broadcast over the batch (T5's position bias) has one gradient per part. The number of parts
# shrinks so that these gradients have at most this many elements together.
MOST_FOR_MASKS = 2**21


def refuses(problem: Problem) -> str | None:
    if problem.query.device.type != "cpu":
        return f"it works on CPU tensors, these are on {problem.query.device.type}"
    return binding.MISSING


def attention(problem: Problem) -> Tensor:
    return _operator(problem)


def _saved_shape(p: Problem) -> tuple[int, ...]:
    b, h, n, _ = p.sizes
    return (2, b, h, n)


def _forward(p: Problem) -> tuple[Tensor, Tensor]:
    wide = _wide(p)
    output, normalizer = wide.empty_output(), wide.query.new_empty(_saved_shape(p))
    binding.run("forward", wide, output=output, normalizer=normalizer)
    if output.dtype == p.query.dtype:
        return output, normalizer
    return p.empty_output().copy_(output), normalizer


def _backward(p: Problem, normalizer: Tensor, grad_output: Tensor, needs: list[bool]) -> list[Tensor]:
    wide = _wide(p)
    gradients = empty_gradients(p, needs)
    places = [place for place, need in enumerate(needs) if need]
    written = {place: _writable(x, wide, place) for place, x in zip(places, gradients, strict=True)}
    binding.run(
        "backward",
        wide,
        normalizer=normalizer,
        grad_output=_rows(grad_output, wide.compute_dtype),
        parts=_parts(written.get(MASK), wide.query.shape[0]),
        **{f"grad_{Problem._fields[place]}": x for place, x in written.items()},
    )
    for place, gradient in zip(places, gradients, strict=True):
        found = written[place]
        if found is not gradient:
            gradient.copy_(found if found.shape == gradient.shape else _summed(found))
    return gradients


def _wide(p: Problem) -> Problem:
    """The call in compute dtype, with every tensor in a layout that the kernel reads."""
    dtype = p.compute_dtype
    mask = None if p.mask is None else _narrow(p.mask)
    if mask is not None and mask.dtype != torch.bool:
        mask = mask.to(dtype)
    maps = {name: getattr(p, name) for name in p._fields if "mix" in name}
    return p._replace(
        query=_rows(p.query, dtype),
        key=_rows(p.key, dtype),
        value=_rows(p.value, dtype),
        mask=mask,
        **{name: x.contiguous() for name, x in maps.items() if x is not None},
    )


def _narrow(x: Tensor) -> Tensor:
    """Reduces expanded axes to size 1, so that a dtype conversion does not materialize them."""
    for axis, step in enumerate(x.stride()):
        if step == 0 and x.shape[axis] > 1:
            x = x.narrow(axis, 0, 1)
    return x


def _rows(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x in dtype with innermost stride 1; x itself if it already has both."""
    x = x.to(dtype)
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _writable(gradient: Tensor, wide: Problem, place: int) -> Tensor:
    """The gradient itself if the kernel can write to it, else a contiguous buffer. For a broadcast mask, one
    gradient per part."""
    dtype = wide[place].dtype  # type: ignore[union-attr]
    batch = wide.query.shape[0]
    parts = min(batch, PARTS, MOST_FOR_MASKS // max(gradient.numel(), 1))
    if place == MASK and gradient.shape[0] < parts:
        return torch.empty(parts, *gradient.shape[1:], dtype=dtype)
    strided = Problem._fields[place] in ("query", "key", "value", "mask") and gradient.stride(-1) == 1
    if gradient.dtype == dtype and (gradient.is_contiguous() or strided):
        return gradient
    return torch.empty(gradient.shape, dtype=dtype)


def _parts(mask_gradient: Tensor | None, batch: int) -> int:
    """The number of parts of the batch: that of the mask's gradients if they are fewer than the batch."""
    if mask_gradient is not None and mask_gradient.shape[0] < batch:
        return mask_gradient.shape[0]
    return min(batch, PARTS)


def _summed(gradients: Tensor) -> Tensor:
    """The sum over parts, in order: bitwise the same for any number of threads."""
    first, *rest = gradients.split(1)
    for x in rest:
        first += x
    return first


_operator = register("cpu", _forward, _backward, _saved_shape)
