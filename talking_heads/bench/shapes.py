"""The sizes of a measurement, written HEADSxSIZExPOSITIONS[xBATCH][:causal][:groups=G], and the lists of them."""

import re
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import UserError

_PATTERN = re.compile(r"(\d+(?:/\d+/\d+)?)x(\d+)x(\d+(?:/\d+)?)(?:x(\d+))?(:causal)?(?::groups=(\d+))?")

CPU = (
    "12x64x128",
    "12x64x512",
    "12x64x2048",
    "12x64x2048:causal",
    "12x64x8192x1",
    "24x32x512",
    "48x16x512",
    "12/32/12x64x512",
)
CUDA = (
    "12x64x512",
    "12x64x4096",
    "12x64x4096:causal",
    "16x64x4096",
    "16x128x4096",
    "24x32x4096",
    "12x64x1/8192",
    "12x64x16384x1",
    "12x64x65536x1",
)


class Shape(NamedTuple):
    """One size: head counts, head size (of keys and values), positions, batch."""

    key_heads: int
    heads: int
    value_heads: int
    head_dim: int
    query_len: int
    memory_len: int
    batch: int = 4
    is_causal: bool = False
    groups: int = 1  # heads mix within their group

    def __str__(self) -> str:
        counts = (self.key_heads, self.heads, self.value_heads)
        heads = str(self.heads) if len(set(counts)) == 1 else "/".join(map(str, counts))
        square = self.query_len == self.memory_len
        positions = str(self.memory_len) if square else f"{self.query_len}/{self.memory_len}"
        groups = f":groups={self.groups}" if self.groups > 1 else ""
        return f"{heads}x{self.head_dim}x{positions}x{self.batch}{':causal' * self.is_causal}{groups}"


def parse(text: str) -> Shape:
    """A shape from its text: 12x64x512, 12x64x8192x1, 12/32/12x64x512, 12x64x1/8192, 12x64x2048:causal.

    Raises:
        UserError: the text is none.
    """
    found = _PATTERN.fullmatch(text)
    if found:
        heads, size, positions, batch, causal, groups = found.groups()
        i, h, j = map(int, heads.split("/") if "/" in heads else [heads] * 3)
        n, m = map(int, positions.split("/") if "/" in positions else [positions] * 2)
        shape = Shape(i, h, j, int(size), n, m, int(batch or 4), bool(causal), int(groups or 1))
        if min(shape[:7]) > 0 and shape.groups > 0 and not any(x % shape.groups for x in (i, h, j)):
            return shape
    raise UserError(
        "a shape must be HEADSxSIZExPOSITIONS[xBATCH][:causal][:groups=G] of positive numbers, the heads divisible by G",
        repr(text),
        "write for example 12x64x512, 12/32/12x64x512x4, 12x64x1/8192 (query/memory), 12x64x2048:causal or 24x32x512:groups=4",
    )


class Inputs(NamedTuple):
    """Random tensors of a shape, all but the last requiring gradients."""

    query: Tensor  # [batch, key_heads, query_len, head_dim]
    key: Tensor  # [batch, key_heads, memory_len, head_dim]
    value: Tensor  # [batch, value_heads, memory_len, head_dim]
    logits_mix: Tensor  # [key_heads, heads], or in groups; float32
    weights_mix: Tensor  # [heads, value_heads], or in groups; float32
    grad_output: Tensor  # [batch, value_heads, query_len, head_dim]


def draw(shape: Shape, dtype: torch.dtype, device: str, seed: int) -> Inputs:
    """Standard normal heads and gradients; maps as the paper initialises them, std 1/sqrt(reduced heads)."""
    torch.manual_seed(seed)
    options = {"dtype": dtype, "device": device}
    b, d = shape.batch, shape.head_dim
    query = torch.randn(b, shape.key_heads, shape.query_len, d, **options)  # type: ignore[call-overload]
    key = torch.randn(b, shape.key_heads, shape.memory_len, d, **options)  # type: ignore[call-overload]
    value = torch.randn(b, shape.value_heads, shape.memory_len, d, **options)  # type: ignore[call-overload]
    logits_mix = _mix(shape.key_heads, shape.heads, shape.groups, device)
    weights_mix = _mix(shape.heads, shape.value_heads, shape.groups, device)
    grad = torch.randn(b, shape.value_heads, shape.query_len, d, **options)  # type: ignore[call-overload]
    for x in (query, key, value, logits_mix, weights_mix):
        x.requires_grad_()
    return Inputs(query, key, value, logits_mix, weights_mix, grad)


def _mix(ins: int, outs: int, groups: int, device: str) -> Tensor:
    x = torch.randn(groups, ins // groups, outs // groups, device=device) / (ins // groups) ** 0.5
    return x if groups > 1 else x[0]
