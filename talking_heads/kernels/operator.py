"""Turns a backend's forward and backward functions into a torch operator.

A backend gives three plain functions of a Problem; this module registers `talking_heads::NAME` and
`talking_heads::NAME_backward` with fake kernels (so that torch.compile traces them), autograd (the
backward recomputes, so only the inputs and `saved` live in between) and FLOP formulas.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from .problem import Problem

TENSORS = 11  # leading fields of Problem that may need a gradient (seed, the twelfth, may not)

_ARGUMENTS = (
    "Tensor query, Tensor key, Tensor value, Tensor? logits_mix, Tensor? weights_mix, Tensor? mask, "
    "Tensor? query_logits_mix, Tensor? memory_logits_mix, Tensor? query_weights_mix, "
    "Tensor? memory_weights_mix, Tensor? weights_mix_bias, Tensor? seed, "
    "bool is_causal, float dropout_p, float scale"
)


def register(
    name: str,
    forward: Callable[[Problem], tuple[Tensor, Tensor]],
    backward: Callable[[Problem, Tensor, Tensor, list[bool]], list[Tensor]],
    saved_shape: Callable[[Problem], tuple[int, ...]] = lambda problem: (0,),
) -> Callable[[Problem], Tensor]:
    """The differentiable operator for a backend, as a function Problem -> output.

    forward(problem) -> (output from problem.empty_output(), saved: a `compute_dtype` tensor of `saved_shape`)
    backward(problem, saved, grad_output, needs) -> gradients of the inputs whose `needs` (length TENSORS)
    is true, in that order, each from `empty_gradients`.
    """

    @torch.library.custom_op(
        f"talking_heads::{name}", mutates_args=(), schema=f"({_ARGUMENTS}) -> (Tensor, Tensor)"
    )
    def operator(*arguments):  # type: ignore[no-untyped-def]
        return forward(Problem(*arguments))

    @operator.register_fake
    def _(*arguments):  # type: ignore[no-untyped-def]
        problem = Problem(*arguments)
        saved = problem.query.new_empty(saved_shape(problem), dtype=problem.compute_dtype)
        return problem.empty_output(), saved

    @torch.library.custom_op(
        f"talking_heads::{name}_backward",
        mutates_args=(),
        schema=f"({_ARGUMENTS}, Tensor saved, Tensor grad_output, bool[] needs) -> Tensor[]",
    )
    def operator_backward(*arguments):  # type: ignore[no-untyped-def]
        *inputs, saved, grad_output, needs = arguments
        # dtypes are settled; backward may be called inside autocast
        with without_autocast(grad_output.device.type):
            return backward(Problem(*inputs), saved, grad_output, needs)

    @operator_backward.register_fake
    def _(*arguments):  # type: ignore[no-untyped-def]
        *inputs, _saved, _grad_output, needs = arguments
        return empty_gradients(Problem(*inputs), needs)

    def setup_context(ctx, inputs, output):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(*inputs[: TENSORS + 1], output[1])
        ctx.options = inputs[TENSORS + 1 :]
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)

    def differentiate(ctx, grad_output, _grad_saved):  # type: ignore[no-untyped-def]
        rest = (None,) * (len(Problem._fields) - TENSORS)
        if grad_output is None:
            return (None,) * TENSORS + rest
        *inputs, saved = ctx.saved_tensors
        needs = [bool(need) for need in ctx.needs_input_grad[:TENSORS]]
        found = iter(operator_backward(*inputs, *ctx.options, saved, grad_output, needs))
        return tuple(next(found) if need else None for need in needs) + rest

    operator.register_autograd(differentiate, setup_context=setup_context)
    operator_backward.register_autograd(
        _refuse_double_backward, setup_context=lambda ctx, inputs, output: None
    )
    packet = getattr(torch.ops.talking_heads, name)
    register_flop_formula(packet, get_raw=True)(
        lambda *a, **k: forward_flops(Problem(*a[: len(Problem._fields)]))
    )
    packet_backward = getattr(torch.ops.talking_heads, f"{name}_backward")
    register_flop_formula(packet_backward, get_raw=True)(
        lambda *a, **k: backward_flops(Problem(*a[: len(Problem._fields)]))
    )
    return lambda problem: operator(*problem)[0]


def autocasts(kind: str) -> bool:
    """Whether autocast is on for a kind of device; for "meta" there is none."""
    return kind != "meta" and torch.is_autocast_enabled(kind)


def without_autocast(kind: str) -> AbstractContextManager[Any]:
    """Entering autocast's own context costs as much as a small product: only where it is on."""
    return torch.autocast(kind, enabled=False) if autocasts(kind) else nullcontext()


def _refuse_double_backward(ctx, *grads):  # type: ignore[no-untyped-def]
    raise RuntimeError(
        "talking_heads_attention: a gradient must be taken once; got a second one (create_graph=True); "
        'use backend="reference" for double backward'
    )


def empty_gradients(problem: Problem, needs: list[bool]) -> list[Tensor]:
    """Uninitialised gradients, each of its input's shape, dtype and, where dense, strides."""
    return [torch.empty_like(x) for x, need in zip(problem[:TENSORS], needs, strict=True) if need]  # type: ignore[arg-type]


def _products(p: Problem) -> tuple[int, int]:
    """Multiply-adds of the products with keys and values, and of the mixing across heads."""
    b, h, n, m = p.sizes
    i, k = p.key.shape[1], p.key.shape[3]
    j, v = p.value.shape[1], p.value.shape[3]
    logits = sum(x is not None for x in (p.logits_mix, p.query_logits_mix, p.memory_logits_mix))
    weights = sum(x is not None for x in (p.weights_mix, p.query_weights_mix, p.memory_weights_mix))
    return b * n * m * (i * k + j * v), b * n * m * (logits * i * h + weights * h * j)


def forward_flops(problem: Problem) -> int:
    products, mixing = _products(problem)
    return 2 * (products + mixing)


def backward_flops(problem: Problem) -> int:
    """As done: scores and both mixes again, then two products for each of the forward's."""
    products, mixing = _products(problem)
    b, _, n, m = problem.sizes
    again = b * n * m * problem.key.shape[1] * problem.key.shape[3] + mixing
    return 2 * (again + 2 * products + 2 * mixing)
