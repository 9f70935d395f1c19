"""Undoing a conversion."""

from typing import Any

from transformers import PreTrainedModel

from ..errors import UserError
from . import bias
from . import config as saved
from .attention import CHILD
from .choose import convertible
from .dynamic import unhook
from .insert import PLAN, switch_back
from .torch_layers import revert_torch


def revert(model: Any) -> Any:
    """Takes the maps out of a converted model, in place; returns it.

    What is left are the model's own parameters as they are now, with transformers' own attention (sdpa
    where the model knows it, else eager). Maps that have learnt something are lost with it: `fold` keeps
    what can be kept.

    Raises:
        ValueError: a model that is not converted, or one with bilinear projections.
    """
    if not isinstance(model, PreTrainedModel):
        revert_torch(model)
        return model
    converted = [layer for layer in convertible(model)[0] if hasattr(layer.module, CHILD)]
    if not converted:
        raise UserError(
            "revert: a model must be converted", f"a plain {type(model).__name__}", "leave it as it is"
        )
    if any(layer.module.__dict__.get(PLAN, {}).get("bilinear") for layer in converted):
        raise UserError(
            "revert: projections must be the model's own",
            "bilinear ones, whose products cannot be taken apart again",
            "load the checkpoint that was converted",
        )
    bias.restore(converted)
    for layer in converted:
        delattr(layer.module, CHILD)
        layer.module.__dict__.pop(PLAN, None)
        unhook(layer.module)
    switch_back(model, converted)
    saved.unmark(model)
    saved.rename_back(model)
    return model
