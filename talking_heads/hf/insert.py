"""Where maps go: into the attention layers, next to this package's attention function for transformers."""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ..anatomy import Layer
from ..anatomy.projections import readers
from ..errors import UserError
from ..functional import Backend
from ..nn.mixing import unwrapped
from ..nn.shapes import known_backend
from . import bias
from .attention import AS_EAGER, CHILD, NAME
from .bilinear import check_form, widen
from .dynamic import hook
from .mixing import LayerMixing

PLAN = "_head_plan"  # attribute of a converted layer: what its maps were made with


def insert(model: Any, layers: list[Layer], plan: dict[str, dict[str, Any]]) -> None:
    """Puts the maps into the layers and switches the model to this package's attention function.

    plan: {name: LayerMixing's arguments, and "bilinear"}; layers that it does not name stay multi-head.

    Raises:
        ValueError: the model does not take the switch, options do not fit; it is left as it was.
    """
    made = {layer.name: _maps(layer, plan[layer.name]) for layer in layers if layer.name in plan}
    deaf = switch(model, layers)
    if deaf:
        switch_back(model, layers)
        raise UserError(
            "convert: every attention layer must take the attention function set",
            f"{deaf[:3]} on its old one",
            f"{type(model).__name__} cannot be converted",
        )
    bias.extend(layers, plan)
    for layer in layers:
        mixing = made.get(layer.name)
        if layer.name in plan:
            layer.module.__dict__[PLAN] = plan[layer.name]
        reading = readers(layer.module)
        if plan.get(layer.name, {}).get("bilinear"):
            widen(layer)
        if mixing is None:
            setattr(layer.module, CHILD, None)
            continue
        layer.module.add_module(CHILD, mixing)
        config: Any = layer.module.config
        layer.module.register_forward_pre_hook(_Guard(config._attn_implementation))
        if mixing.dynamic:
            hook(layer.module, reading)


def _maps(layer: Layer, options: dict[str, Any]) -> LayerMixing | None:
    """The layer's maps, of its device and dtype; None where it learns none."""
    if options.get("bilinear"):
        check_form(layer)
        options = {name: x for name, x in options.items() if name != "bilinear"}
        if not (options["logits_mix"] or options["weights_mix"] or options.get("dynamic")):
            return None
    device, dtype = _place(layer.module)
    return LayerMixing(**options, device=device, dtype=dtype).train(layer.module.training)


def _place(module: Any) -> tuple[Any, torch.dtype]:
    """Device and dtype for a layer's maps: where its projections compute, in floats also next to packed weights."""
    parameters = list(module.parameters())
    projections = [x for x in parameters if x.dim() > 1] or parameters
    device = projections[0].device if projections else torch.device("cpu")
    if device.type == "meta":  # offloaded by accelerate, which brings weights in for each call
        hooks = [x for part in module.modules() if (x := getattr(part, "_hf_hook", None)) is not None]
        places = [x for hook in hooks if (x := getattr(hook, "execution_device", None)) is not None]
        device = torch.device(places[0]) if places else device
    floats = [x.dtype for x in (*projections, *parameters) if x.is_floating_point() and x.element_size() > 1]
    named = getattr(module.config, "dtype", None)
    dtype = named if isinstance(named, torch.dtype) else torch.get_default_dtype()
    return device, floats[0] if floats else dtype


def switch(model: Any, layers: list[Layer]) -> list[str]:
    """Sets this package's attention function; returns names of the layers that do not take it.

    Only in the configs that the layers ask (some are copies that the model does not know, as in ViTMAE's
    decoder): masks are built as before, and this package's function takes them as they are.
    """
    deaf = []
    for layer, owner in _owners(model, layers):
        config: Any = layer.module.config
        if owner._can_set_attn_implementation():
            config._attn_implementation_internal = NAME if owner._supports_sdpa else AS_EAGER
        if config._attn_implementation not in (NAME, AS_EAGER):
            deaf.append(layer.name)
    return deaf


class _Guard:
    """Before each forward: transformers' own attention function would leave the maps out without a word, the other
    of this package's two would be given masks of the wrong kind."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, module: Any, _args: Any) -> None:
        name = module.config._attn_implementation
        if name != self.name:
            raise UserError(
                f'talking_heads: a converted model must attend by "{self.name}"',
                f'attn_implementation="{name}"',
                f'set_attn_implementation("{self.name}") sets it again, revert(model) takes the maps out',
            )


def switch_back(model: Any, layers: list[Layer]) -> None:
    """Sets transformers' own functions again."""
    for layer in layers:
        for key, function in list(layer.module._forward_pre_hooks.items()):
            if isinstance(function, _Guard):
                del layer.module._forward_pre_hooks[key]
    for layer, owner in _owners(model, layers):
        config: Any = layer.module.config
        config._attn_implementation_internal = "sdpa" if owner._supports_sdpa else "eager"


def _owners(model: Any, layers: list[Layer]) -> list[tuple[Layer, Any]]:
    """The smallest PreTrainedModel around each layer."""
    parts = {n: m for n, m in model.named_modules() if isinstance(m, PreTrainedModel)}
    around = [[n for n in parts if not n or layer.name.startswith(f"{n}.")] for layer in layers]
    return [(layer, parts[max(names, key=len)]) for layer, names in zip(layers, around, strict=True)]


def mixings(model: nn.Module) -> dict[str, LayerMixing]:
    """{name of the attention layer: its maps} of a converted model."""
    found = {
        name or CHILD: unwrapped(module._modules.get(CHILD))  # no layer around it: by its own name
        for name, module in model.named_modules()
    }
    return {name: maps for name, maps in found.items() if isinstance(maps, LayerMixing)}


def set_backend(model: nn.Module, backend: Backend) -> None:
    """Has every converted layer attend by one backend of `talking_heads_attention`; "auto" lets each call choose.

    A named backend does the work or its call raises, saying which can. It is of this process: a saved model is loaded
    with "auto".

    Raises:
        UserError: no such backend, a model without converted layers.
    """
    found = mixings(model)
    if not found:
        raise UserError("set_backend needs a converted model", type(model).__name__, "convert it first")
    for maps in found.values():
        maps.backend = known_backend(backend)
