"""Gives a model's attention layers their maps, in place."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import logging

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
        reasons = "; ".join(left.values()) or "no attention layer"
        raise ValueError(
            f"convert: a model must attend through transformers' attention-function registry; got "
            f"{type(model).__name__}: {reasons}; convert another model"
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
    before = model.config._attn_implementation
    _switch(model, NAME)
    ours = (NAME, AS_EAGER)
    deaf = [s.name for s in sites if s.module.config._attn_implementation not in ours]  # type: ignore[union-attr]
    if deaf:
        _switch(model, before)
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


def _switch(model: Any, name: str) -> None:
    """Sets the attention function; transformers warns of parts it cannot reach, the check after is stricter."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        model.set_attn_implementation(name)
    finally:
        logging.set_verbosity(level)
    for part in model.modules() if name == NAME else ():
        if isinstance(part, PreTrainedModel) and not part._supports_sdpa:
            if part.config._attn_implementation == NAME:
                part.config._attn_implementation_internal = AS_EAGER


def mixings(model: nn.Module) -> dict[str, LayerMixing]:
    """{name of the attention layer: its maps} of a converted model."""
    return {
        name.removesuffix(f".{CHILD}"): module
        for name, module in model.named_modules()
        if isinstance(module, LayerMixing) and name.endswith(CHILD)
    }
