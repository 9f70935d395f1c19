"""Gives a model's attention layers their maps, in place."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from . import config as saved
from .attention import AS_EAGER, CHILD, NAME
from .choose import choose
from .mixing import LayerMixing
from .sites import Site, find


@dataclass(frozen=True)
class Conversion:
    """What was done: names of the layers changed, and {name: why} of those left as they were."""

    converted: list[str]
    left: dict[str, str]

    def __str__(self) -> str:
        lines = [f"converted {len(self.converted)} attention layers"]
        lines += [f"left {name}: {why}" for name, why in self.left.items()]
        return "\n".join(lines)


def convert(
    model: Any,
    *,
    logits_mix: bool = True,
    weights_mix: bool = True,
    init: str = "identity",
    layers: Collection[int | str] | None = None,
    kinds: Collection[str] | None = None,
    **heads: Any,
) -> Conversion:
    """Talking heads for a transformers model, in place.

    Every attention layer that goes through transformers' attention-function registry gets a LayerMixing
    under the name `head_mixing`, with parameters logits_mix and weights_mix [heads, heads]. With identity
    start the outputs are those of the model before, to float rounding. Dropout acts on the mixed weights.

    Args:
        model: any PreTrainedModel. logits_mix, weights_mix: which maps to learn.
        init: "identity" or "random" (see HeadMixing).
        layers: numbers of layers in their stack, or name patterns ("encoder.*"); default all.
        kinds: any of "encoder", "decoder" (self-attention) and "cross"; default all.
        heads: num_heads, num_key_heads, num_value_heads: see LayerMixing.

    Returns:
        Conversion: the layers converted, and those left with the reason. print() it.

    Raises:
        ValueError: nothing in the model can be converted, or it is converted already.
    """
    if not logits_mix and not weights_mix:
        raise ValueError("convert: a map or both must be learnt; got neither; leave the model as it is")
    sites, left = find(model)
    if not sites:
        reasons = "; ".join(dict.fromkeys(left.values())) or "no attention layer"
        raise ValueError(
            f"convert: a model must attend through transformers' attention-function registry, by nothing but "
            f"scores, masks and biases; got {type(model).__name__}: {reasons}; convert another model"
        )
    if any(hasattr(site.module, CHILD) for site in sites):
        raise ValueError("convert: a model is converted once; got one with maps; load it anew")
    chosen, passed_over = choose(sites, layers, kinds)
    options = {"logits_mix": logits_mix, "weights_mix": weights_mix, "mix_init": init, **heads}
    plan = {site.name: {"layer_heads": site.heads, **options} for site in chosen}
    insert(model, sites, plan)
    saved.mark(model, plan)
    return Conversion(list(plan), left | passed_over)


def insert(model: Any, sites: list[Site], layers: dict[str, dict[str, Any]]) -> None:
    """Puts the maps into the layers and switches the model to this package's attention function.

    Raises:
        ValueError: the model does not take the switch; it is left as it was.
    """
    made = {name: _maps(next(s.module for s in sites if s.name == name), layers[name]) for name in layers}
    deaf = switch(model, sites)
    if deaf:
        switch_back(model, sites)
        raise ValueError(
            f"convert: every attention layer must take the attention function set; got {deaf[:3]} on its "
            f"old one; {type(model).__name__} cannot be converted"
        )
    for site in sites:
        if site.name in made:
            site.module.add_module(CHILD, made[site.name])
        else:
            setattr(site.module, CHILD, None)


def _maps(module: nn.Module, options: dict[str, Any]) -> LayerMixing:
    like = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))
    return LayerMixing(**options, device=like.device, dtype=like.dtype).train(module.training)


def switch(model: Any, sites: list[Site]) -> list[str]:
    """Sets this package's attention function; returns names of the layers that do not take it.

    Only in the configs that the layers ask (some are copies that the model does not know, as in ViTMAE's
    decoder): masks are built as before, and this package's function takes them as they are.
    """
    deaf = []
    for site, owner in _owners(model, sites):
        config: Any = site.module.config
        if owner._can_set_attn_implementation():
            config._attn_implementation_internal = NAME if owner._supports_sdpa else AS_EAGER
        if config._attn_implementation not in (NAME, AS_EAGER):
            deaf.append(site.name)
    return deaf


def switch_back(model: Any, sites: list[Site]) -> None:
    """Sets transformers' own functions again."""
    for site, owner in _owners(model, sites):
        config: Any = site.module.config
        config._attn_implementation_internal = "sdpa" if owner._supports_sdpa else "eager"


def _owners(model: Any, sites: list[Site]) -> list[tuple[Site, Any]]:
    """The smallest PreTrainedModel around each layer."""
    parts = {n: m for n, m in model.named_modules() if isinstance(m, PreTrainedModel)}
    around = [[n for n in parts if not n or site.name.startswith(f"{n}.")] for site in sites]
    return [(site, parts[max(names, key=len)]) for site, names in zip(sites, around, strict=True)]


def mixings(model: nn.Module) -> dict[str, LayerMixing]:
    """{name of the attention layer: its maps} of a converted model."""
    return {
        name.removesuffix(f".{CHILD}"): module
        for name, module in model.named_modules()
        if isinstance(module, LayerMixing) and name.endswith(CHILD)
    }
