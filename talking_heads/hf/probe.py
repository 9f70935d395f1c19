"""A model's outputs on one call, to compare a model before and after."""

import math
from typing import Any

import torch
from torch import Tensor


def example(model: Any) -> dict[str, Any]:
    """Random inputs from the signature of the model's forward, of its device and dtype.

    Raises:
        Exception: whatever a model raises that takes inputs of another kind.
    """
    from .survey.inputs import inputs

    return {
        name: x.to(model.device, model.dtype if x.is_floating_point() else x.dtype)
        if isinstance(x, Tensor)
        else x
        for name, x in inputs(model, {}).items()
    }


@torch.no_grad()
def outputs(model: Any, given: dict[str, Any]) -> Tensor:
    """The first float output."""
    torch.manual_seed(0)
    result = model(**given)
    return next(x for x in result.values() if isinstance(x, Tensor) and x.is_floating_point())


def error(before: Tensor, after: Tensor) -> float:
    """Largest difference, of the largest element, where they are finite; inf where one is and the other is not, NaN
    where nothing is."""
    finite = before.isfinite()
    if not torch.equal(finite, after.isfinite()):
        return math.inf
    before, after = before[finite], after[finite]
    if not before.numel():
        return math.nan
    return float((before - after).abs().max() / before.abs().max().clamp(min=1e-30))


def tolerance(dtype: torch.dtype) -> float:
    """What rounding may change over a whole model."""
    return torch.finfo(dtype).eps ** 0.5
