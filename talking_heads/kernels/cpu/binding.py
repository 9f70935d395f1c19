"""The kernel's C interface: which library, and a call of it as the struct `Call` of src/call.h."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import POINTER, Structure, byref, c_double, c_int, c_long, c_void_p
from pathlib import Path

import torch
from torch import Tensor

from ..problem import Problem

# What torch calls a processor's instruction set -> libraries that it can run, the best first.
_LIBRARIES = {"AVX512": ("avx512", "avx2", "plain"), "AVX2": ("avx2", "plain")}
_FINITE, _NOT_FINITE, _NO_MEMORY = 0, 1, 2


class _Heads(Structure):
    _fields_ = [("at", c_void_p), ("batch", c_long), ("head", c_long), ("row", c_long)]


class _Map(Structure):
    _fields_ = [("all", c_void_p), ("by_query", c_void_p), ("by_memory", c_void_p)]


class _Mask(Structure):
    _fields_ = [("at", c_void_p), *((name, c_long) for name in ("kind", "batch", "head", "row", "column"))]


class _Call(Structure):
    _fields_ = [
        *((name, c_long) for name in "bihjnmkv"),
        *((name, _Heads) for name in ("query", "key", "value", "output")),
        ("logits", _Map),
        ("weights", _Map),
        ("bias", c_void_p),
        ("mask", _Mask),
        ("normalizer", c_void_p),
        *((name, _Heads) for name in ("grad_output", "grad_query", "grad_key", "grad_value")),
        ("grad_logits", _Map),
        ("grad_weights", _Map),
        ("grad_bias", c_void_p),
        ("grad_mask", _Mask),
        ("parts", c_long),
        *((name, c_void_p) for name in ("bad_query", "bad_key", "bad_value")),
        *((name, c_long) for name in ("is_causal", "keep_below", "seed_0", "seed_1")),
        ("scale", c_double),
        ("keep_scale", c_double),
        ("threads", c_long),
    ]


def installed() -> tuple[str, ...]:
    """The libraries that are built and that this processor can run, the best first."""
    usable = _LIBRARIES.get(torch.backends.cpu.get_cpu_capability(), ("plain",))
    return tuple(name for name in usable if path_of(name) is not None)


def path_of(name: str) -> Path | None:
    return next(iter(sorted(Path(__file__).parent.glob(f"{name}*.so"))), None)


def load(path: Path) -> ctypes.CDLL:
    """The library; its threads are those of the OpenMP that torch has loaded."""
    try:
        library = ctypes.CDLL(str(path))
    except OSError:
        ctypes.CDLL("libgomp.so.1", ctypes.RTLD_GLOBAL)
        library = ctypes.CDLL(str(path))
    for direction in ("forward", "backward"):
        for number in ("float", "double"):
            function = getattr(library, f"{direction}_{number}")
            function.argtypes, function.restype = [POINTER(_Call)], c_int
    return library


def _best() -> ctypes.CDLL | None:
    names = installed()
    path = path_of(names[0]) if names else None
    return None if path is None else load(path)


_library = _best()
# Why there is no kernel; None where there is one.
MISSING = (
    "it was not compiled: install a C++ compiler (g++ or clang++) and then this package anew"
    if _library is None
    else None
)


@contextmanager
def using(path: Path) -> Iterator[None]:
    """Another library in its place: for tests, which force each that the processor can run."""
    global _library
    before, _library = _library, load(path)
    try:
        yield
    finally:
        _library = before


def run(
    direction: str,
    p: Problem,
    *,
    normalizer: Tensor,
    output: Tensor | None = None,
    grad_output: Tensor | None = None,
    gradients: Problem | None = None,
) -> None:
    """One call of the kernel, in p's dtype (float32 or float64).

    Inputs that are not finite are rare and costly to honour exactly (they must reach just those that attend
    to them), so they are looked for only once the kernel has met one.

    Raises:
        torch.OutOfMemoryError: no memory for the workspace.
    """
    function = getattr(_library, f"{direction}_{'double' if p.query.dtype == torch.float64 else 'float'}")
    status = function(byref(_call(p, normalizer, output, grad_output, gradients)))
    if status == _NOT_FINITE:
        finite, bad = _without_infinities(p)
        call = _call(finite, normalizer, output, grad_output, gradients)
        call.bad_query, call.bad_key, call.bad_value = (x.data_ptr() for x in bad)
        status = function(byref(call))
    if status == _NO_MEMORY:
        raise torch.OutOfMemoryError(
            f"talking_heads_attention: the {direction} needs workspace that this machine has not free"
        )


def _call(
    p: Problem,
    normalizer: Tensor,
    output: Tensor | None,
    grad_output: Tensor | None,
    gradients: Problem | None,
) -> _Call:
    b, h, n, m = p.sizes
    (_, i, _, k), (_, j, _, v) = p.query.shape, p.value.shape
    call = _Call(b, i, h, j, n, m, k, v, _heads(p.query), _heads(p.key), _heads(p.value))
    if output is not None:
        call.output = _heads(output)
    call.logits = _map(p.logits_mix, p.query_logits_mix, p.memory_logits_mix)
    call.weights = _map(p.weights_mix, p.query_weights_mix, p.memory_weights_mix)
    call.bias = _at(p.weights_mix_bias)
    call.mask = _mask(p.mask)
    call.normalizer = normalizer.data_ptr()
    if grad_output is not None:
        call.grad_output = _heads(grad_output)
    if gradients is not None:
        _set_gradients(call, gradients)
    call.is_causal, call.scale = p.is_causal, p.scale
    if p.seed is not None:
        call.seed_0, call.seed_1 = p.seed.tolist()
        call.keep_below, call.keep_scale = round(p.dropout_p * 2**24), 1 / (1 - p.dropout_p)
    call.threads = torch.get_num_threads()
    return call


def _set_gradients(call: _Call, g: Problem) -> None:
    call.grad_query, call.grad_key, call.grad_value = _heads(g.query), _heads(g.key), _heads(g.value)
    for x in (g.mask, g.memory_logits_mix, g.memory_weights_mix):
        if x is not None:
            x.zero_()  # these the kernel adds to
    call.grad_logits = _map(g.logits_mix, g.query_logits_mix, g.memory_logits_mix)
    call.grad_weights = _map(g.weights_mix, g.query_weights_mix, g.memory_weights_mix)
    call.grad_bias, call.grad_mask = _at(g.weights_mix_bias), _mask(g.mask)
    call.parts = call.b if g.mask is None else g.mask.shape[0]


def _at(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def _heads(x: Tensor | None) -> _Heads:
    return _Heads() if x is None else _Heads(x.data_ptr(), x.stride(0), x.stride(1), x.stride(2))


def _map(everywhere: Tensor | None, by_query: Tensor | None, by_memory: Tensor | None) -> _Map:
    return _Map(_at(everywhere), _at(by_query), _at(by_memory))


def _mask(x: Tensor | None) -> _Mask:
    if x is None:
        return _Mask()
    steps = (0 if size == 1 else step for size, step in zip(x.shape, x.stride(), strict=True))
    return _Mask(x.data_ptr(), 1 if x.dtype == torch.bool else 2, *steps)


def _without_infinities(p: Problem) -> tuple[Problem, tuple[Tensor, Tensor, Tensor]]:
    """The call with zeros for what is not finite, and where that was: rows of queries and keys, values."""
    bad = [~x.isfinite() for x in (p.query, p.key, p.value)]
    query, key, value = (x.masked_fill(y, 0) for x, y in zip((p.query, p.key, p.value), bad, strict=True))
    found = bad[0].any(-1).contiguous(), bad[1].any(-1).contiguous(), bad[2].contiguous()
    return p._replace(query=query, key=key, value=value), found
