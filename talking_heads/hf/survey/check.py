"""Whether a model converts and stays what it was: identity maps, permuted heads, gradients."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from transformers import AttentionInterface

from ..attention import AS_EAGER, NAME, attend, register
from ..convert import convert
from ..insert import mixings

TOLERANCE = 1e-8  # of the largest element, in float64


class Double(TorchFunctionMode):
    """All in float64: casts to float32 inside models (softmax, norms, rotations) become casts to float64."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is Tensor.float:
            function = Tensor.double
        swap = lambda x: torch.float64 if x is torch.float32 else x  # noqa: E731
        args = tuple(swap(x) for x in args)
        return function(*args, **{name: swap(x) for name, x in (kwargs or {}).items()})


@dataclass
class Outcome:
    """Names of the attention layers that ran, and what differs by more than rounding (empty: nothing)."""

    ran: list[str]
    idle: list[str]
    wrong: list[str] = field(default_factory=list)
    error: float = 0.0


def stir(model: Any, seed: int = 0) -> None:
    """Parameters of a size that makes attention matter (an initialised model's is close to a mean)."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
            if parameter.dim() > 1:
                parameter.copy_(noise * max(1, parameter[0].numel()) ** -0.5)
            else:
                parameter.add_(noise * 0.1)


def check(build: Callable[[], Any], given: dict[str, Any]) -> Outcome:
    """Builds the float64 model twice, converts one and compares it with the other.

    Raises:
        ValueError: what convert refuses. Exception: what the model itself raises.
    """
    plain, talking = run(build(), given), build()
    convert(talking)
    same = run(talking, given)
    maps = mixings(talking)
    ran = [name for name, mixing in maps.items() if _moved(mixing)]
    outcome = Outcome(ran, [name for name in maps if name not in ran])
    _compare(outcome, "identity", plain, same)
    with permuted(talking):
        _compare(outcome, "permuted", plain, run(talking, given, gradients=False))
    return outcome


def _moved(mixing: Any) -> bool:
    """A gradient step moves both maps."""
    return all(
        mix.grad is not None and bool((mix.grad != 0).any())
        for mix in (mixing.logits_mix, mixing.weights_mix)
    )


def run(model: Any, given: dict[str, Any], gradients: bool = True) -> dict[str, Tensor]:
    """Every float output of the model, and the gradients of all parameters but the maps'."""
    torch.manual_seed(0)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with Double(), torch.set_grad_enabled(gradients):
            found = dict(_tensors("", model(**given)))
            found = {name: _attended(x, given.get("attention_mask")) for name, x in found.items()}
            if gradients:
                _backward(model, found)
    finally:
        torch.set_default_dtype(default)
    found = {name: x.detach() for name, x in found.items()}
    if gradients:
        for name, parameter in model.named_parameters():
            if "head_mixing" not in name and parameter.grad is not None:
                found[f"gradient of {name}"] = parameter.grad
    return found


def _backward(model: Any, found: dict[str, Tensor]) -> None:
    """Through a fixed random sum of the outputs."""
    model.zero_grad()
    draw = torch.Generator().manual_seed(2)
    total: Any = 0
    for x in found.values():
        if x.requires_grad:
            weight = torch.randn(x.shape, generator=draw, dtype=torch.float64)
            total = total + (x * weight).masked_fill(~x.isfinite(), 0).sum()
    total.backward()


def _attended(x: Tensor, mask: Any) -> Tensor:
    """0 where padding asks: a row that may attend nowhere has no defined output."""
    if not isinstance(mask, Tensor) or x.shape[:2] != mask.shape or mask.dim() != 2:
        return x
    return torch.where(mask.bool().view(*mask.shape, *[1] * (x.dim() - 2)), x, 0)


def _tensors(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        if value.is_floating_point() and value.numel() and not value.is_sparse:
            yield name, value
    elif isinstance(value, dict):
        for key, x in value.items():
            yield from _tensors(f"{name}.{key}".strip("."), x)
    elif isinstance(value, list | tuple):
        for key, x in enumerate(value):
            yield from _tensors(f"{name}.{key}".strip("."), x)


def _compare(outcome: Outcome, step: str, plain: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    gradients = [x for name, x in plain.items() if name.startswith("gradient") and x.numel()]
    largest = max((x.abs().max().item() for x in gradients), default=0.0)
    for name, x in plain.items():
        if not x.numel() or (step == "permuted" and name.startswith("gradient")):
            continue
        y = other.get(name)
        if y is None or y.shape != x.shape:
            outcome.wrong.append(f"{step}: no {name}")
            continue
        scale = x[x.isfinite()].abs().max().item() if x.isfinite().any() else 0.0
        if name.startswith("gradient"):  # some are 0 but for rounding: those of key biases
            scale = max(scale, 1e-6 * largest)
        error = (x - y).nan_to_num(0, 0, 0).abs().max().item() / max(scale, 1e-6)
        outcome.error = max(outcome.error, error)
        if error > TOLERANCE or not torch.equal(x.isfinite(), y.isfinite()):
            outcome.wrong.append(f"{step}: {name} by {error:.1e}")


@contextmanager
def permuted(model: Any) -> Iterator[None]:
    """logits_mix a permutation and weights_mix its inverse; what belongs to softmax heads goes along."""
    order: dict[int, Tensor] = {}
    mixing: Any
    for mixing in mixings(model).values():
        heads = mixing.num_heads
        new = torch.roll(torch.arange(heads), 1)
        with torch.no_grad():
            mixing.logits_mix.copy_(torch.eye(heads, dtype=torch.float64)[:, new])
            mixing.weights_mix.copy_(torch.eye(heads, dtype=torch.float64)[new])
        order[id(mixing)] = new

    def along(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **options: Any) -> Any:
        new = order.get(id(getattr(module, "head_mixing", None)))
        if new is not None:
            for name in ("position_bias", "s_aux", "sinks"):
                x = options.get(name)
                axis = 0 if name == "s_aux" else 1
                if x is not None and x.shape[axis] == len(new):
                    options[name] = x.index_select(axis, new)
            if attention_mask is not None and attention_mask.shape[1] == len(new):
                attention_mask = attention_mask[:, new]
        return attend(module, query, key, value, attention_mask, **options)

    def along_as_eager(*arguments: Any, is_causal: bool | None = None, **options: Any) -> Any:
        return along(*arguments, is_causal=False, **options)

    AttentionInterface.register(NAME, along)
    AttentionInterface.register(AS_EAGER, along_as_eager)
    try:
        yield
    finally:
        register()
