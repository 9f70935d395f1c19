"""Which attention layers of a model conversion can change, and which of them are meant."""

from collections.abc import Collection
from fnmatch import fnmatch
from typing import Any

from torch import nn

from ..anatomy.layers import PARTS, Layer, find
from ..errors import UserError, did_you_mean
from .keywords import refused


def convertible(model: nn.Module) -> tuple[list[Layer], dict[str, str]]:
    """(the layers that ask transformers' registry for their attention function, {name: why not} of the others).

    Layers of one config have one attention function: if one cannot be converted, none of them is.
    """
    layers, unknown = find(model)
    left = {name: f"{_class(model, name)} does not say how many heads it has" for name in unknown}
    for layer in layers:
        if layer.kind != "registry":
            left[layer.name] = (
                f"{type(layer.module).__name__} does not use transformers' attention-function registry"
            )
        elif keyword := refused(layer.module):
            left[layer.name] = f"{type(layer.module).__name__} makes attention depend on {keyword}"
    asking = {layer.name for layer in layers if layer.kind == "registry"} | set(unknown)
    barred = {_config(model, name): _class(model, name) for name in left if name in asking}
    for layer in layers:
        if layer.name not in left and (other := barred.get(_config(model, layer.name))):
            left[layer.name] = f"it shares its attention function with {other}, which cannot be converted"
    return [layer for layer in layers if layer.name not in left], left


def _class(model: nn.Module, name: str) -> str:
    return type(model.get_submodule(name)).__name__


def _config(model: nn.Module, name: str) -> int:
    module: Any = model.get_submodule(name)
    return id(module.config)


def choose(
    found: list[Layer], layers: Collection[int | str] | None, kinds: Collection[str] | None
) -> tuple[list[Layer], dict[str, str]]:
    """(the layers meant, {name: why not} of the others); see `convert`.

    Raises:
        ValueError: an unknown kind, or a number or pattern that means no layer.
    """
    if isinstance(layers, str) or isinstance(kinds, str):
        raise UserError(
            "convert: layers and kinds must be collections",
            f"{layers!r}, {kinds!r}",
            'pass for example ["encoder"]',
        )
    if kinds is not None and (not kinds or set(kinds) - set(PARTS)):
        raise UserError(
            f"convert: kinds must be some of {PARTS}", f"{kinds!r}", f"pass for example {PARTS[:1]}"
        )
    meant: set[str] = set()
    for wanted in layers or ():
        names = _meant(wanted, found)
        if not names:
            known = sorted({layer.depth for layer in found if layer.depth is not None})
            raise UserError(
                (
                    f"convert: layers must be numbers of layers ({known}), labels ({found[0].label}"
                    f" to {found[-1].label}) or patterns of names"
                ),
                f"{wanted!r}",
                did_you_mean(
                    str(wanted),
                    [x for layer in found for x in (layer.label, layer.name)],
                    f"pass for example {found[0].name!r}",
                ),
            )
        meant |= names
    chosen, left = [], {}
    for layer in found:
        if kinds is not None and layer.part not in kinds:
            left[layer.name] = f"{layer.part} attention, not among kinds"
        elif layers is not None and layer.name not in meant:
            left[layer.name] = "not among layers"
        else:
            chosen.append(layer)
    if not chosen:
        parts = sorted({layer.part for layer in found})
        raise UserError(
            "convert: kinds and layers must leave a layer to convert", "none", f"the model has {parts}"
        )
    return chosen, left


def _meant(wanted: int | str, found: list[Layer]) -> set[str]:
    """Names of the layers of that number in their stack, that label, or a name that matches."""
    if isinstance(wanted, int):
        return {layer.name for layer in found if layer.depth == wanted}
    by_name = {layer.name for layer in found if fnmatch(layer.name, wanted)}
    return by_name or {layer.name for layer in found if fnmatch(layer.label, wanted)}
