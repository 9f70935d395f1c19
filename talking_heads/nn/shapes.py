"""Checks and reshapes that the layers share."""

import operator
from typing import Any

import torch
from torch import Tensor, nn

from .. import kernels
from ..errors import UserError, one_of
from ..functional import Backend
from ..operands import operand


def count(name: str, x: Any) -> int:
    """x as a whole number of at least 1."""
    try:
        found = operator.index(x)
    except TypeError:
        found = 0
    if found < 1:
        raise UserError(
            f"{name} must be a whole number of at least 1", repr(x), "pass an int (// divides to one)"
        )
    return found


def share(width: int, heads: int, name: str) -> int:
    if width % heads:
        raise UserError("model_dim must be a multiple of the heads", f"{width} for {heads}", f"pass {name}")
    return width // heads


def known_backend(name: Any) -> Backend:
    names = ("auto", *kernels.ALL)
    if name not in names:
        raise one_of("backend", name, names, 'use "auto" to let it choose')
    known: Backend = name
    return known


def check_input(x: Any, width: int, name: str, projection: nn.Module) -> None:
    """x is [batch, positions, width] and of the kind that `projection`, which takes it, has.

    Raises:
        UserError: another shape, dtype or device.
    """
    operand(name, x, f"pass [batch, positions, {width}]")
    if x.dim() != 3 or x.shape[-1] != width:
        raise UserError(
            f"{name} must be [batch, positions, {width}]",
            f"shape {list(x.shape)}",
            "reshape it, or build the layer with its width",
        )
    if not x.is_floating_point():
        raise UserError(f"{name} must have a float dtype", x.dtype, "embed token ids before attention")
    weight = getattr(projection, "weight", None)
    if type(projection) is not nn.Linear or not isinstance(weight, Tensor):
        return
    if x.device != weight.device:
        raise UserError(
            f"{name} must be on the layer's device {weight.device}", x.device, "move one of them with .to"
        )
    if (
        x.dtype != weight.dtype
        and weight.is_floating_point()
        and not torch.is_autocast_enabled(x.device.type)
    ):
        raise UserError(
            f"{name} must have the layer's dtype {weight.dtype}",
            x.dtype,
            "convert one of them with .to(dtype)",
        )


def check_memory(memory: Any, x: Tensor, width: int, projection: nn.Module) -> None:
    check_input(memory, width, "memory", projection)
    if memory.shape[0] != x.shape[0]:
        raise UserError(
            f"memory must have x's batch of {x.shape[0]}",
            memory.shape[0],
            "repeat memory for each element of x",
        )


def split_heads(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)
