"""A trial forward: inputs that a model takes, from the signature of its forward, and what it gives for them."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .inputs import inputs
from .layers import Layer

Call = tuple[str, dict[str, Any]]  # of a part of a model: its name, and arguments of its forward


def calls(
    model: nn.Module, layers: list[Layer], given: dict[str, Any] | None = None
) -> tuple[list[Call], list[str]]:
    """(calls that together run the layers, names of those that none of them runs).

    Of the model, then of the transformers models inside it (an image encoder, say), largest first.

    Args:
        given: arguments for the model; default random ones.
    """
    from transformers import PreTrainedModel

    left = {layer.name: layer.module for layer in layers}
    found: list[Call] = []
    parts = [(n, m) for n, m in model.named_modules() if not n or isinstance(m, PreTrainedModel)]
    for name, part in parts:
        inside = {n: m for n, m in left.items() if not name or n.startswith(f"{name}.")}
        if not inside:
            continue
        try:
            arguments = given if given is not None and not name else example(part)
            with _seen(inside) as ran:
                run(part, arguments)
        except Exception:  # a model that takes inputs of another kind
            continue
        if ran:
            found.append((name, arguments))
            left = {n: m for n, m in left.items() if n not in ran}
    return found, list(left)


def gives(
    model: nn.Module, made: list[Call], watched: dict[str, nn.Module], noise: list[Layer]
) -> list[Tensor]:
    """What the calls give, and what the modules watched give in them.

    noise: layers whose input is replaced by noise, so that each is tried by itself.
    """
    found: list[Tensor] = []
    with noisy(noise):
        for name, arguments in made:
            with _seen(watched) as seen:
                found.append(run(model.get_submodule(name), arguments))
            found += [first(seen[n]) for n in watched if n in seen]
    return found


@contextmanager
def _seen(modules: dict[str, nn.Module]) -> Iterator[dict[str, Any]]:
    """{name: what the module gave} of those that run in the block."""
    found: dict[str, Any] = {}
    hooks = [module.register_forward_hook(partial(_note, found, n)) for n, module in modules.items()]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def noisy(layers: list[Layer]) -> Iterator[None]:
    """Replaces the first tensor that each layer takes by noise of its shape, the same in every run."""

    def replace(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (_noise(args[0]), *args[1:]), kwargs
        name = next((n for n, x in kwargs.items() if _is_float(x)), "")
        return args, {n: _noise(x) if n == name else x for n, x in kwargs.items()}

    hooks = [x.module.register_forward_pre_hook(replace, with_kwargs=True, prepend=True) for x in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _note(found: dict[str, Any], name: str, module: nn.Module, args: Any, output: Any) -> None:
    found.setdefault(name, output)


def _noise(x: Any) -> Any:
    draw = torch.Generator().manual_seed(7)
    return torch.randn(x.shape, generator=draw, dtype=torch.float64).to(x) if _is_float(x) else x


def _is_float(x: Any) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point()


def example(model: Any) -> dict[str, Any]:
    """Random inputs of the model's device and dtype.

    Raises:
        Exception: whatever a model raises that takes inputs of another kind.
    """
    return {
        name: x.to(model.device, model.dtype if x.is_floating_point() else x.dtype)
        if isinstance(x, Tensor)
        else x
        for name, x in inputs(model, {}).items()
    }


@torch.no_grad()
def run(model: Any, given: dict[str, Any]) -> Tensor:
    """The first float output."""
    torch.manual_seed(0)
    return first(model(**given))


def first(given: Any) -> Tensor:
    """The first float tensor of an output."""
    values = given.values() if isinstance(given, dict) else [given] if isinstance(given, Tensor) else given
    return next(x for x in values if _is_float(x))


def error(before: Tensor, after: Tensor) -> float:
    """Largest difference, relative to the largest element, where they are finite; inf where one is and the other is
    not, NaN where nothing is."""
    if before.shape != after.shape or not torch.equal(before.isfinite(), after.isfinite()):
        return math.inf
    finite = before.isfinite()
    before, after = before[finite], after[finite]
    if not before.numel():
        return math.nan
    return float((before - after).abs().max() / before.abs().max().clamp(min=1e-30))


def tolerance(dtype: torch.dtype) -> float:
    """What rounding may change over a whole model."""
    return float(torch.finfo(dtype).eps ** 0.5)
