"""A fast path for repeated plain calls. In a small call, the checks and filling the kernel's structure cost
several times as much as the kernel itself.

A call is plain if it has only query, key, value, static maps, is_causal and a scale. The checks and the
choice of a backend then depend only on its signature: shapes, strides, and whether gradients are needed. The
first call of a signature takes the general path. Later calls copy its structure and replace the pointers.
"""

import ctypes
from typing import Any

import torch
from torch import Tensor, nn

from .. import decode
from ..derivatives import differentiable, has_tangents
from ..operator import empty_gradients
from ..problem import Problem
from . import PARTS, binding, call

_MOST = 512  # the most signatures that are kept
_PLAIN = (Tensor, nn.Parameter)
_is_tracing, _modes = torch._C._is_tracing, torch._C._len_torch_dispatch_stack
_is_transformed = torch._C._are_functorch_transforms_active
_known: dict[Any, "Repeated"] = {}


def signature(
    query: Any, key: Any, value: Any, logits_mix: Any, weights_mix: Any, is_causal: Any, scale: Any
) -> Any:
    """What the checks of a plain call depend on, or None if they may depend on anything else."""
    if (
        _is_tracing()
        or _is_transformed()
        or _modes() > 0
        or torch.is_autocast_enabled("cpu")
        or has_tangents()
        or not (scale is None or type(scale) is float)
        or type(is_causal) is not bool
    ):
        return None
    gradients = False
    found: list[Any] = []
    try:
        for x in (query, key, value, logits_mix, weights_mix):
            if x is None:
                found.append(None)
            elif type(x) in _PLAIN and x.dtype is torch.float32 and x.is_cpu and not x.is_neg():
                gradients = gradients or x.requires_grad
                found += (x.shape, x.stride())
            else:
                return None
    except RuntimeError:  # sparse and nested tensors have no strides
        return None
    return (*found, is_causal, scale, gradients and torch.is_grad_enabled())


def find(signature: Any) -> "Repeated | None":
    return _known.get(signature)


def remember(signature: Any, problem: Problem, backend: str) -> None:
    """Stores a call that has passed the checks, if this kernel or `decode` reads its tensors as they are."""
    if backend == "cpu" and not problem.is_empty and all(_is_read_as_it_lies(x) for x in problem[:5]):
        kept: Repeated = Repeated(problem, gradients=signature[-1])
    elif backend == "decode":
        kept = Decoded(problem)
    else:
        return
    if len(_known) >= _MOST:
        _known.clear()
    _known[signature] = kept


def _is_read_as_it_lies(x: Any) -> bool:
    return x is None or x.is_contiguous() or (x.dim() == 4 and x.stride(-1) == 1)


class Repeated:
    """Calls the kernel again, with other tensors of the same shapes and strides."""

    def __init__(self, p: Problem, gradients: bool) -> None:
        self.gradients = gradients
        b, h, n, _ = p.sizes
        output, saved = p.empty_output(), p.query.new_empty(2, b, h, n)
        self.output, self.saved = (output.shape, output.stride()), saved.shape
        self.scratch = ctypes.c_char * saved.nbytes
        self.rest: Any = p[5:]
        self.call = call.of(p, threads=1, output=output, normalizer=saved)

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, *maps: Any) -> Any:
        if self.gradients:
            return differentiable(self, query, key, value, *maps, *self.rest)[0]
        scratch = self.scratch()  # cheaper than a tensor
        output = self._run(ctypes.addressof(scratch), query, key, value, *maps)
        return (
            self._general().forward(Problem(query, key, value, *maps, *self.rest))[0]
            if output is None
            else output
        )

    def forward(self, p: Problem) -> tuple[Tensor, Tensor]:
        saved = p.query.new_empty(self.saved)
        output = self._run(saved.data_ptr(), *p[:5])
        return self._general().forward(p) if output is None else (output, saved)

    def _run(self, normalizer: int, query: Any, *others: Any) -> Tensor | None:
        """The output, or None if an input is not finite and the general path must handle it."""
        output = query.new_empty_strided(*self.output)
        made = self._filled(query, *others)
        made.output.at, made.normalizer = output.data_ptr(), normalizer
        return None if binding.library().forward_float(ctypes.byref(made)) else output

    def backward(self, p: Problem, saved: Tensor, grad_output: Tensor, needs: list[bool]) -> list[Tensor]:
        if grad_output.dtype != torch.float32 or grad_output.stride(-1) != 1 or grad_output.is_neg():
            return self._general().backward(p, saved, grad_output, needs)
        gradients = empty_gradients(p, needs)
        made = self._filled(*p[:5])
        made.normalizer, made.grad_output = saved.data_ptr(), call.tensor("grad_output", grad_output)
        given = iter(gradients)
        for name, need in zip(call.NAMES, needs, strict=True):
            if need:
                setattr(made, f"grad_{name}", call.tensor(f"grad_{name}", next(given)))
        made.parts = min(p.query.shape[0], PARTS)
        if binding.library().backward_float(ctypes.byref(made)):
            return self._general().backward(p, saved, grad_output, needs)
        return gradients

    def _filled(
        self, query: Tensor, key: Tensor, value: Tensor, logits_mix: Tensor | None, weights_mix: Tensor | None
    ) -> call.Call:
        made = call.Call.from_buffer_copy(self.call)
        made.query.at, made.key.at, made.value.at = query.data_ptr(), key.data_ptr(), value.data_ptr()
        if logits_mix is not None:
            made.logits_mix.at = logits_mix.data_ptr()
        if weights_mix is not None:
            made.weights_mix.at = weights_mix.data_ptr()
        made.threads = binding.threads()
        return made

    def _general(self) -> Any:
        from . import _operator

        return _operator


class Decoded(Repeated):
    """Calls `decode` again."""

    def __init__(self, p: Problem) -> None:
        self.rest: Any = p[5:]

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, *maps: Any) -> Any:
        return decode.attention(Problem(query, key, value, *maps, *self.rest))
