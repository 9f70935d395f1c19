"""|dLoss/dgate| of one batch, as training with heads masked measures it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..anatomy.layers import Layer
from ..errors import UserError
from .gates import Gates
from .losses import size_of


def slopes(gates: Gates, loss: Callable[[], Tensor], examples: int | None) -> dict[str, Tensor]:
    """{layer: float64 [heads]}: |dLoss/dgate|, summed over `examples` where the layers allow gates for each.

    Args:
        loss: runs the model; a scalar. The random numbers that it draws are drawn again by the next pass. examples: rows
            of the batch; None takes one absolute value for the batch.

    Raises:
        UserError: no gate has a gradient.
    """
    each = examples is not None and gates.site == "output" and all(map(_has_rows, gates.layers))
    try:
        if each:
            gates.per_example(examples or 0)
            try:
                return _gradients(gates, loss)
            except (RuntimeError, UserError):  # a layer that sees other rows than examples
                pass
        gates.shared()
        return _gradients(gates, loss)
    finally:
        gates.shared()
        for gate in gates.values.values():
            gate.requires_grad_(False)


def _gradients(gates: Gates, loss: Callable[[], Tensor]) -> dict[str, Tensor]:
    values = gates.values
    device = next(iter(values.values())).device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        got = torch.autograd.grad(loss(), list(values.values()), allow_unused=True)
    if all(slope is None for slope in got):  # reentrant checkpoints cut the graph at each layer
        raise UserError(
            "exact importance needs a loss with gradients of gates",
            "none, as with reentrant checkpoints",
            'pass use_reentrant=False to checkpointing, or importance="previous"',
        )
    return {name: size(x, slope) for (name, x), slope in zip(values.items(), got, strict=True)}


def _has_rows(layer: Layer) -> bool:
    """Whether the first axis of a layer's heads surely is the batch."""
    return layer.kind in ("registry", "own")


def rows(args: Any, kwargs: Any) -> int | None:
    """How many examples a model's inputs have; None where they do not tell."""
    tensors = {name: x for name, x in kwargs.items() if isinstance(x, Tensor) and x.dim()}
    tensors |= {str(i): x for i, x in enumerate(args) if isinstance(x, Tensor) and x.dim()}
    return size_of(tensors) if tensors else None


def size(gate: Tensor, slope: Tensor | None) -> Tensor:
    """[heads]: |gradient|, summed over examples where each has gates of its own."""
    if slope is None:
        return torch.zeros(gate.shape[-1], dtype=torch.float64)
    return slope.detach().double().cpu().reshape(-1, gate.shape[-1]).abs().sum(0)


def of_all_processes(values: Tensor, device: torch.device) -> Tensor:
    """The sum over the processes of a distributed run, so that all mask the same heads."""
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return values
    found = values.to(device)
    distributed.all_reduce(found)
    return found.cpu()
