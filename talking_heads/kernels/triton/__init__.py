"""Fused forward and backward for NVIDIA GPUs, in Triton."""

import importlib.util
import os

import torch
from torch import Tensor

from ..operator import register
from ..problem import Problem
from .tiles import unable

_INSTALLED = importlib.util.find_spec("triton") is not None
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def refuses(problem: Problem) -> str | None:
    if not _INSTALLED:
        return "the package triton is not installed"
    if problem.query.device.type != "cuda" and not _INTERPRETED:
        return "it needs CUDA tensors (or on a CPU, to test it, Triton's interpreter: TRITON_INTERPRET=1)"
    if problem.query.dtype == torch.float64:
        return "it computes in float32"
    if problem.query.dtype == torch.bfloat16 and problem.query.device.type != "cuda":
        return "Triton's interpreter computes bfloat16 wrongly"
    if problem.mask is not None and problem.mask.dtype == torch.float64:
        return "its masks are bool or of at most 32 bits"
    if problem.memory_logits_mix is not None or problem.memory_weights_mix is not None:
        return "its maps may depend on the query, not on the memory position"
    if problem.is_low_rank():
        return "its maps by query are full matrices, not low-rank factors"
    if problem.query.shape[0] > 65535:
        return "it takes at most 65,535 batch elements"
    return unable(problem)


def attention(problem: Problem) -> Tensor:
    return _operator(problem.expanded())


def _forward(problem: Problem) -> tuple[Tensor, Tensor]:
    from .run import forward  # imports triton

    return forward(problem)


def _backward(problem: Problem, saved: Tensor, grad_output: Tensor, needs: list[bool]) -> list[Tensor]:
    from .run import backward

    return backward(problem, saved, grad_output, needs)


def _saved_shape(problem: Problem) -> tuple[int, ...]:
    b, h, n, _ = problem.sizes
    return 2, b, n, h


_operator = register("triton", _forward, _backward, _saved_shape)
