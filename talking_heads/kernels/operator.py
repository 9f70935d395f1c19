"""Turns a backend's forward and backward functions into one function of a Problem that torch can use.

An eager call runs the backend directly (derivatives.py). A call that is compiled, exported, traced or watched
by a dispatch mode goes through `talking_heads::NAME` and `talking_heads::NAME_backward`, registered here with
fake kernels (so that torch.compile traces them), autograd (the backward recomputes, so only the inputs and
`saved` live in between) and FLOP formulas.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from .derivatives import attend, gradients, save, second, transforms
from .flops import backward_flops, forward_flops, when_counted
from .problem import SCHEMA, TENSORS, Problem

NAMESPACE = "talking_heads"  # of the operators in torch.ops
Forward = Callable[[Problem], tuple[Tensor, Tensor]]
Backward = Callable[[Problem, Tensor, Tensor, list[bool]], list[Tensor]]


def register(
    name: str,
    forward: Forward,
    backward: Backward,
    saved_shape: Callable[[Problem], tuple[int, ...]] = lambda problem: (0,),
) -> Callable[[Problem], Tensor]:
    """The differentiable operator for a backend, as a function Problem -> output.

    forward(problem) -> (output from problem.empty_output(), saved: a `compute_dtype` tensor of `saved_shape`)
    backward(problem, saved, grad_output, needs) -> gradients of the inputs whose `needs` (length TENSORS)
    is true, in that order, each from `empty_gradients`.
    Neither is called with a size of zero.
    """
    return _Backend(name, forward, backward, saved_shape)


class _Backend:
    def __init__(
        self,
        name: str,
        forward: Forward,
        backward: Backward,
        saved_shape: Callable[[Problem], tuple[int, ...]],
    ) -> None:
        self.name, self._forward, self._backward, self._saved_shape = name, forward, backward, saved_shape
        self._operator, self._operator_backward = _registered(self)

    def __call__(self, problem: Problem) -> Tensor:
        if torch.compiler.is_compiling() or (_is_watched(problem.query) and not transforms()):
            return self._operator(*problem)[0]
        return attend(self, problem)

    def forward(self, p: Problem) -> tuple[Tensor, Tensor]:
        return self._operator(*p) if _is_watched(p.query) else self.run(p)

    def backward(self, p: Problem, saved: Tensor, grad_output: Tensor, needs: list[bool]) -> list[Tensor]:
        if _is_watched(p.query):
            return self._operator_backward(*p, saved, grad_output, needs)
        return self.run_backward(p, saved, grad_output, needs)

    def run(self, p: Problem) -> tuple[Tensor, Tensor]:
        if p.is_empty:
            output, saved = self.fake(p)
            return output.zero_(), saved.zero_()
        return self._forward(p)

    def run_backward(self, p: Problem, saved: Tensor, grad_output: Tensor, needs: list[bool]) -> list[Tensor]:
        if p.is_empty:
            return [x.zero_() for x in empty_gradients(p, needs)]
        # dtypes are settled; backward may be called inside autocast
        with without_autocast(grad_output.device.type):
            return self._backward(p, saved, grad_output.resolve_neg(), needs)

    def fake(self, p: Problem) -> tuple[Tensor, Tensor]:
        """Uninitialised results."""
        return p.empty_output(), p.query.new_empty(self._saved_shape(p), dtype=p.compute_dtype)


def _is_watched(query: Tensor) -> bool:
    """Whether something other than this process's kernels must see the call."""
    return (
        torch.compiler.is_compiling()
        or type(query) not in (Tensor, torch.nn.Parameter)
        or query.is_meta
        or torch._C._len_torch_dispatch_stack() > 0
        or torch.jit.is_tracing()
    )


def _registered(backend: _Backend) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """A backend's operators of torch, forward and backward."""
    name = f"{NAMESPACE}::{backend.name}"

    @torch.library.custom_op(name, mutates_args=(), schema=f"({SCHEMA}) -> (Tensor, Tensor)")
    def operator(*arguments):  # type: ignore[no-untyped-def]
        return backend.run(Problem(*arguments))

    @operator.register_fake
    def _(*arguments):  # type: ignore[no-untyped-def]
        return backend.fake(Problem(*arguments))

    @torch.library.custom_op(
        f"{name}_backward",
        mutates_args=(),
        schema=f"({SCHEMA}, Tensor saved, Tensor grad_output, bool[] needs) -> Tensor[]",
    )
    def operator_backward(*arguments):  # type: ignore[no-untyped-def]
        *inputs, saved, grad_output, needs = arguments
        return backend.run_backward(Problem(*inputs), saved, grad_output, needs)

    @operator_backward.register_fake
    def _(*arguments):  # type: ignore[no-untyped-def]
        *inputs, _saved, _grad_output, needs = arguments
        return empty_gradients(Problem(*inputs), needs)

    def keep_inputs(ctx, inputs, output):  # type: ignore[no-untyped-def]
        save(ctx, inputs, output[1])

    def first(ctx, problem, saved, grad_output, needs):  # type: ignore[no-untyped-def]
        return operator_backward(*problem, saved, grad_output, list(needs))

    def differentiate(ctx, grad_output, _grad_saved):  # type: ignore[no-untyped-def]
        return gradients(ctx, grad_output, ctx.needs_input_grad[:TENSORS], first)

    def keep_first(ctx, inputs, output):  # type: ignore[no-untyped-def]
        *arguments, _saved, grad_output, ctx.needs = inputs
        ctx.save_for_backward(*arguments[: TENSORS + 1], grad_output)
        ctx.options = arguments[TENSORS + 1 :]

    def differentiate_again(ctx, grads):  # type: ignore[no-untyped-def]
        *inputs, grad_output = ctx.saved_tensors
        of_grad_output, *found = second(Problem(*inputs, *ctx.options), grad_output, ctx.needs, grads)
        return *found, None, of_grad_output, None

    operator.register_autograd(differentiate, setup_context=keep_inputs)
    operator_backward.register_autograd(differentiate_again, setup_context=keep_first)
    when_counted(lambda: _count(backend.name))
    return operator, operator_backward


def _count(name: str) -> None:
    """Registers a backend's FLOP formulas with torch's counter."""
    from torch.utils.flop_counter import register_flop_formula

    for packet, flops in (("", forward_flops), ("_backward", backward_flops)):
        register_flop_formula(getattr(getattr(torch.ops, NAMESPACE), name + packet), get_raw=True)(
            lambda *a, flops=flops, **k: flops(Problem(*a[: len(Problem._fields)]))
        )


def autocasts(kind: str) -> bool:
    """Whether autocast is on for a kind of device; "meta" has none."""
    return kind != "meta" and torch.is_autocast_enabled(kind)


def without_autocast(kind: str) -> AbstractContextManager[Any]:
    """Entering autocast's own context costs as much as a small product: only where it is on."""
    return torch.autocast(kind, enabled=False) if autocasts(kind) else nullcontext()


def empty_gradients(problem: Problem, needs: list[bool]) -> list[Tensor]:
    """Uninitialised gradients, each of its input's shape, dtype and, where dense, strides."""
    return [torch.empty_like(x) for x, need in zip(problem[:TENSORS], needs, strict=True) if need]  # type: ignore[arg-type]
