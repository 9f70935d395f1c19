"""A Problem as the kernels take it: nested named tuples, which Triton passes as they are.

What is a `constexpr` is compiled into the kernel; None, too. The rest is an argument.
"""

from typing import NamedTuple

import torch
import triton.language as tl
from torch import Tensor

from ..problem import Problem
from .tiles import pad

LOG2E = 1.4426950408889634
HALF_UNIT = 2.0**-8


class Heads(NamedTuple):
    """[batch, heads, length, size] with size contiguous; the others are strides in elements."""

    data: Tensor
    batch: int
    head: int
    position: int
    length: int
    heads: tl.constexpr
    size: tl.constexpr
    HEADS: tl.constexpr  # padded to what the matrix units take
    SIZE: tl.constexpr


class Mix(NamedTuple):
    """A map across heads, contiguous float32."""

    static: Tensor | None  # [ins, outs]; None: identity
    by_query: Tensor | None  # [batch, query_len, ins, outs], added to static
    ins: tl.constexpr
    outs: tl.constexpr
    INS: tl.constexpr
    OUTS: tl.constexpr


class Mask(NamedTuple):
    """[batch, heads, query_len, memory_len]; the stride of a broadcast axis is None."""

    data: Tensor  # uint8 for bool
    batch: int | None
    head: int | None
    row: int | None
    column: int | None
    is_bool: tl.constexpr


class Dropout(NamedTuple):
    seed: Tensor
    threshold: int  # of 24 bits
    kept: float  # 1 / (1 - p)


class Call(NamedTuple):
    query: Heads
    key: Heads
    value: Heads
    logits: Mix
    weights: Mix
    bias: Tensor | None  # [value_heads]
    mask: Mask | None
    dropout: Dropout | None
    suspect: Tensor | None  # with a mask: a number that is finite if all values are
    is_causal: tl.constexpr
    scale: float
    # Scores are computed and mixed in units of 1 / UNIT. For half-precision inputs they are float16 there,
    # whose 11 bits serve logits better than bfloat16's 8; in units of 256 they reach 16 million.
    to_log2: float  # from mixed scores to logits in base 2
    UNIT: tl.constexpr
    LARGEST: tl.constexpr  # finite number of the inputs' dtype
    PRECISION: tl.constexpr  # of products of float32: "ieee", or on request "tf32"


def heads(x: Tensor) -> Heads:
    count, length, size = x.shape[1:]
    batch, head, position = x.stride()[:3]
    if head == size:
        head = tl.constexpr(head)
    return Heads(
        x, batch, head, position, length, *(tl.constexpr(y) for y in (count, size, pad(count), pad(size)))
    )


def packed(x: Tensor) -> Tensor:
    """Laid out [batch, length, heads, size], as projections give it: a head is then a fixed step away, which
    saves the registers of an address each. A copy where it is not."""
    return x.transpose(1, 2).contiguous().transpose(1, 2)


def is_addressable(x: Tensor) -> bool:
    """Whether kernels can take it as it lies: its last axis is contiguous and offsets inside a batch element
    fit 32 bits."""
    span = sum((size - 1) * stride for size, stride in zip(x.shape[1:], x.stride()[1:], strict=True))
    return (x.stride(-1) == 1 or x.shape[-1] == 1) and span < 2**31


def readable(x: Tensor) -> Tensor:
    return x if is_addressable(x) else packed(x)


def arguments(p: Problem, few: bool = False) -> Call:
    """The call; few: queries so few that copying memory would cost more than it saves."""
    ins, h, outs = p.query.shape[1], p.sizes[1], p.value.shape[1]
    unit = 1.0 if p.query.dtype == torch.float32 else HALF_UNIT
    tf32 = torch.backends.cuda.matmul.fp32_precision == "tf32"
    lay = readable if few else packed
    return Call(
        query=heads(lay(p.query)),
        key=heads(lay(p.key)),
        value=heads(lay(p.value)),
        logits=_mix(p.logits_mix, p.query_logits_mix, ins, h),
        weights=_mix(p.weights_mix, p.query_weights_mix, h, outs),
        bias=None if p.weights_mix_bias is None else p.weights_mix_bias.contiguous(),
        mask=None if p.mask is None else mask_of(p.mask),
        dropout=None if p.seed is None else _dropout(p.seed, p.dropout_p),
        suspect=None if p.mask is None else _suspect(p, few),
        is_causal=tl.constexpr(p.is_causal),
        scale=p.scale,
        to_log2=p.scale / unit * LOG2E,
        UNIT=tl.constexpr(unit),
        LARGEST=tl.constexpr(torch.finfo(p.query.dtype).max),
        PRECISION=tl.constexpr("tf32" if tf32 else "ieee"),
    )


def _dropout(seed: Tensor, p: float) -> Dropout:
    return Dropout(seed, round(p * 2**24), 1 / (1 - p))


def _suspect(p: Problem, few: bool) -> Tensor:
    if few:  # care costs less than to read memory once more
        return p.query.new_full((), torch.nan, dtype=torch.float32)
    return p.value.sum(dtype=torch.float32)


def _mix(static: Tensor | None, by_query: Tensor | None, ins: int, outs: int) -> Mix:
    return Mix(
        static=None if static is None else static.contiguous(),
        by_query=None if by_query is None else by_query.contiguous(),
        ins=tl.constexpr(ins),
        outs=tl.constexpr(outs),
        INS=tl.constexpr(pad(ins)),
        OUTS=tl.constexpr(pad(outs)),
    )


def mask_of(mask: Tensor) -> Mask:
    batch, head, row, column = (
        None if size == 1 else stride for size, stride in zip(mask.shape, mask.stride(), strict=True)
    )
    is_bool = mask.dtype == torch.bool
    data = mask.view(torch.uint8) if is_bool else mask
    return Mask(data, batch, head, row, column, tl.constexpr(is_bool))
