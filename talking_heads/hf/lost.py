"""Refusals of what would lose maps: on the way into a model, and on the way out of it."""

from collections.abc import Collection
from typing import Any

from ..errors import UserError
from ..nn import HeadMixing


def refuse_lost(layers: Collection[Any], model: Any) -> None:
    """Raises for layers with maps in a checkpoint and none in the model."""
    if layers:
        named = sorted(map(str, layers))
        raise UserError(
            "every map of a checkpoint must have its place in the model",
            f"maps for {', '.join(named[:4])}{' ...' if named[4:] else ''}, which {type(model).__name__} has without",
            "load the model with talking_heads.hf.load (adapters: onto the converted model), with the config saved "
            "with these weights",
        )


def refuse_unsaved_maps(model: Any) -> None:
    """Raises where the adapters of a model are saved by themselves, without maps that were trained with them."""
    from peft.utils import ModulesToSaveWrapper

    saved = {
        id(maps)
        for part in model.modules()
        if isinstance(part, ModulesToSaveWrapper)
        for maps in part.modules()
        if isinstance(maps, HeadMixing)
    }
    left = [
        name
        for name, maps in model.named_modules()
        if isinstance(maps, HeadMixing)
        and id(maps) not in saved
        and any(x.requires_grad for x in maps.parameters())
    ]
    if left:
        raise UserError(
            "an adapter must be saved with the maps that were trained with it",
            f"{len(left)} layers with maps that are not in modules_to_save",
            'make the adapter after converting, with modules_to_save=["head_mixing"], or save the maps with '
            "talking_heads.hf.save_maps and then freeze them (requires_grad_(False))",
        )
