"""The arguments of a call as the library reads them: the structure `Arguments` of src/call.h.

Its tensors are the tensor fields of Problem: a new field of Problem is also a new field here.
"""

from ctypes import POINTER, Structure, c_double, c_int64, c_void_p, sizeof
from typing import Any

import torch

from ..problem import TENSORS, Problem

VERSION = 3  # increases when a field changes its meaning; the same number as in call.h
NAMES = Problem._fields[:TENSORS]
BOOL, NUMBERS = 1, 2  # values of `form` for a mask


class Tensor(Structure):
    _fields_ = [("at", c_void_p), *((name, c_int64) for name in ("batch", "head", "row", "column", "form"))]


class Call(Structure):
    _fields_ = [
        *((name, c_int64) for name in ("size", "version", *"bihjnmkv")),
        *((name, Tensor) for name in (*NAMES, "output", "grad_output")),
        ("normalizer", c_void_p),
        *((f"grad_{name}", Tensor) for name in NAMES),
        ("parts", c_int64),
        *((name, c_void_p) for name in ("bad_query", "bad_key", "bad_value")),
        *((name, c_int64) for name in ("is_causal", "keep_below", "seed_0", "seed_1")),
        ("scale", c_double),
        ("keep_scale", c_double),
        ("threads", c_int64),
    ]


SIZE = sizeof(Call)
POINTER_TO_CALL = POINTER(Call)
_ADDED_TO = ("grad_mask", "grad_memory_logits_mix", "grad_memory_weights_mix")


def of(p: Problem, *, threads: int, parts: int = 1, **tensors: torch.Tensor | None) -> Call:
    """Fills the structure for a problem. Zeroes the gradients that the kernel adds to.

    Args:
        parts: the number of parts of the batch. The elements of a part run in order and share accumulators of
            map gradients.
        tensors: further tensor fields of the structure, by name.
    """
    b, h, n, m = p.sizes
    (_, i, _, k), (_, j, _, v) = p.query.shape, p.value.shape
    call = Call(SIZE, VERSION, b, i, h, j, n, m, k, v)
    fields: dict[str, Any] = dict(zip(NAMES, p, strict=False)) | tensors
    call.normalizer = fields.pop("normalizer").data_ptr()
    for name, x in fields.items():
        if x is not None:
            setattr(call, name, tensor(name, x))
            if name in _ADDED_TO:
                x.zero_()
    call.is_causal, call.scale, call.threads, call.parts = p.is_causal, p.scale, threads, parts
    if p.seed is not None:
        call.seed_0, call.seed_1 = p.seed.tolist()
        call.keep_below, call.keep_scale = round(p.dropout_p * 2**24), 1 / (1 - p.dropout_p)
    return call


def tensor(name: str, x: torch.Tensor) -> Tensor:
    steps = [0] * 4
    if "mix" not in name:
        steps = [0 if size == 1 else step for size, step in zip(x.shape, x.stride(), strict=True)]
    return Tensor(x.data_ptr(), *steps, _form(name, x))


def _form(name: str, x: torch.Tensor) -> int:
    if name.endswith("mask"):  # gradient: number of elements or parts with their own
        return x.shape[0] if name.startswith("grad") else BOOL if x.dtype == torch.bool else NUMBERS
    if name.endswith("mix"):  # groups of a static map; rank of a map by position, 0 if full
        return {2: 1, 3: x.shape[0], 4: 0}.get(x.dim(), x.shape[-2] // 2)
    return 0
