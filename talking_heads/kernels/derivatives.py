"""Eager calls of a backend and their derivatives of every order.

    first derivative     the backend's fused backward
    further derivatives  torch differentiates the reference, which stores every attention matrix
    vmap                 one call for each element
    forward mode         the reference does the whole call: the dispatch chooses it

Compiled and traced calls go through the operators that operator.py registers with torch.
"""

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad

from . import reference
from .problem import TENSORS, Problem

_FIELDS = len(Problem._fields)
_BATCHED: Any = torch._C._parse_dispatch_key("Batched")


class Backend(Protocol):
    def forward(self, problem: Problem) -> tuple[Tensor, Tensor]: ...

    def backward(
        self, problem: Problem, saved: Tensor, grad_output: Tensor, needs: list[bool]
    ) -> list[Tensor]: ...


def has_tangents() -> bool:
    """Whether forward-mode derivatives are being computed (jvp, jacfwd, dual tensors)."""
    return forward_ad._current_level >= 0


def transforms() -> bool:
    """Whether the call is inside a transform of torch.func, whose tensors have no memory of their own."""
    return torch._C._are_functorch_transforms_active()


def attend(backend: Backend, problem: Problem) -> Tensor:
    """The backend's output, differentiable."""
    if transforms():
        return _Attention.apply(backend, *problem)[0]
    if torch.is_grad_enabled() and any(_needs_gradient(x) for x in problem[:TENSORS]):
        return differentiable(backend, *problem)[0]
    return backend.forward(problem)[0]


def _needs_gradient(x: Any) -> bool:
    return x is not None and x.requires_grad


class _Attention(Function):
    """(backend, *problem) -> (output, saved)"""

    @staticmethod
    def forward(backend: Backend, *arguments: Any) -> tuple[Tensor, Tensor]:
        return backend.forward(Problem(*arguments))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.backend, *arguments = inputs
        save(ctx, arguments, output[1])

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
        return None, *gradients(ctx, grad_output, ctx.needs_input_grad[1 : TENSORS + 1], _gradient)

    @staticmethod
    def vmap(info: Any, in_dims: Any, backend: Backend, *arguments: Any) -> Any:
        found = [_Attention.apply(backend, *part) for part in _parts(info, in_dims[1:], arguments)]
        return tuple(torch.stack(x) for x in zip(*found, strict=True)), (0, 0)


# Function.apply without the binding of default arguments, which takes longer than a small call.
differentiable = super(Function, _Attention).apply


def save(ctx: Any, arguments: Any, saved: Tensor) -> None:
    """Keeps what `gradients` needs: the inputs and what the backend's forward saved."""
    ctx.save_for_backward(*arguments[: TENSORS + 1], saved)
    ctx.options = arguments[TENSORS + 1 :]
    ctx.mark_non_differentiable(saved)
    ctx.set_materialize_grads(False)


def gradients(ctx: Any, grad_output: Tensor | None, needs: Any, first: Any) -> tuple[Tensor | None, ...]:
    """One gradient for each field of Problem, None where not needed.

    Args:
        first: (ctx, problem, saved, grad_output, needs) -> the gradients that are needed, by the backend.
    """
    if grad_output is None:
        return (None,) * _FIELDS
    *inputs, saved = ctx.saved_tensors
    problem = Problem(*inputs, *ctx.options)

    def one(grad_output: Tensor) -> Any:
        if has_tangents():
            return by_reference(problem, grad_output, needs)
        return first(ctx, problem, saved, grad_output, needs)

    found = iter(_for_each(one, grad_output) if _is_batched(grad_output) else one(grad_output))
    return tuple(next(found) if need else None for need in needs) + (None,) * (_FIELDS - TENSORS)


def _is_batched(grad_output: Tensor) -> bool:
    """Whether autograd computes several gradients at once (is_grads_batched, vectorized Jacobians), for which it
    has a vmap of its own, older than torch.func's."""
    return torch._C._dispatch_keys(grad_output).has(_BATCHED)


def _for_each(one: Any, grad_output: Tensor) -> list[Tensor]:
    """The gradients for each element under autograd's vmap."""
    level = torch._C._vmapmode_increment_nesting() - 1
    torch._C._vmapmode_decrement_nesting()
    parts = torch._remove_batch_dim(grad_output, level, 1, 0)
    found = [one(part) for part in parts.unbind()]
    return [torch._add_batch_dim(torch.stack(x), 0, level) for x in zip(*found, strict=True)]


def _gradient(ctx: Any, problem: Problem, saved: Tensor, grad_output: Tensor, needs: Any) -> Any:
    if torch.is_grad_enabled() or transforms():
        return _Gradient.apply(ctx.backend, tuple(needs), saved, grad_output, *problem)
    return ctx.backend.backward(problem, saved, grad_output, list(needs))


class _Gradient(Function):
    """(backend, needs, saved, grad_output, *problem) -> the gradients that `needs` asks for"""

    @staticmethod
    def forward(
        backend: Backend, needs: Any, saved: Tensor, grad_output: Tensor, *arguments: Any
    ) -> tuple[Tensor, ...]:
        return tuple(backend.backward(Problem(*arguments), saved, grad_output, list(needs)))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _, ctx.needs, _, grad_output, *arguments = inputs
        ctx.save_for_backward(*arguments[: TENSORS + 1], grad_output)
        ctx.options = arguments[TENSORS + 1 :]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, grad_output = ctx.saved_tensors
        found = second(Problem(*inputs, *ctx.options), grad_output, ctx.needs, grads)
        return None, None, None, *found

    @staticmethod
    def vmap(info: Any, in_dims: Any, backend: Backend, needs: Any, *arguments: Any) -> Any:
        parts = _parts(info, in_dims[2:], arguments)
        found = [_Gradient.apply(backend, needs, *part) for part in parts]
        return tuple(torch.stack(x) for x in zip(*found, strict=True)), (0,) * sum(needs)


def by_reference(problem: Problem, grad_output: Tensor, needs: Any) -> tuple[Tensor, ...]:
    """The gradients that `needs` asks for, by operations that torch can differentiate again."""
    names = [name for name, need in zip(problem._fields, needs, strict=False) if need]

    def output(*tensors: Tensor) -> Tensor:
        return reference.attention(_with(problem, names, tensors))

    return _vjp(output, *(getattr(problem, name) for name in names))(grad_output)


def second(problem: Problem, grad_output: Tensor, needs: Any, grads: Any) -> tuple[Tensor | None, ...]:
    """The derivative of `by_reference`: for grad_output, then for each field of Problem."""
    names = [name for name, x in zip(problem._fields[:TENSORS], problem, strict=False) if _has_gradient(x)]

    def first(grad_output: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        return by_reference(_with(problem, names, tensors), grad_output, needs)

    back = _vjp(first, grad_output, *(getattr(problem, name) for name in names))
    of_grad_output, *found = back(tuple(grads))
    given = dict(zip(names, found, strict=True))
    return of_grad_output, *(given.get(name) for name in problem._fields)


def _has_gradient(x: Any) -> bool:
    return x is not None and x.is_floating_point()


def _with(problem: Problem, names: list[str], tensors: tuple[Tensor, ...]) -> Problem:
    changed: dict[str, Any] = dict(zip(names, tensors, strict=True))
    return problem._replace(**changed)


def _vjp(function: Any, *tensors: Any) -> Any:
    """The function from the gradients of `function`'s results to those of the tensors."""
    return torch.func.vjp(function, *tensors)[1]


def _parts(info: Any, in_dims: Any, arguments: Any) -> list[list[Any]]:
    """The arguments of each element under vmap."""
    return [
        [x if axis is None else x.select(axis, k) for x, axis in zip(arguments, in_dims, strict=True)]
        for k in range(info.batch_size)
    ]
