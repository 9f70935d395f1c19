"""The maps by themselves: as the only parameters that train, and as a small file."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import UserError
from ..nn import HeadMixing
from ..nn.mixing import CHILD
from ..results.files import write_bytes
from . import config as saved
from .guards import place
from .insert import PLAN, mixings

_KEY = "talking_heads"  # of the file's metadata: {layer: LayerMixing's arguments}


def train_only_maps(model: nn.Module) -> int:
    """Freezes every parameter of a model but its maps; returns how many numbers are left to train.

    Raises:
        UserError: a model without maps.
    """
    maps = [x for module in model.modules() if isinstance(module, HeadMixing) for x in module.parameters()]
    if not maps:
        raise UserError("train_only_maps needs a model with maps", type(model).__name__, "convert it first")
    model.requires_grad_(False)
    for parameter in maps:
        parameter.requires_grad_(True)
    return sum(x.numel() for x in maps)


def save_maps(model: Any, file: Path | str) -> None:
    """Writes a converted model's maps to a safetensors file of some kilobytes; `load_maps` reads it.

    Raises:
        UserError: a model without maps, or with bilinear projections, which are more than maps.
    """
    from safetensors.torch import save

    model = _inner(model)
    plans = {name: x.__dict__[PLAN] for name, x in model.named_modules() if PLAN in x.__dict__}
    found = mixings(model)
    if not found or any(plan.get("bilinear") for plan in plans.values()):
        what = "bilinear projections" if found else f"a plain {type(model).__name__}"
        raise UserError("save_maps needs a converted model", what, "use save_pretrained")
    tensors = {
        f"{saved.inner_name(name, model)}.{CHILD}.{key}": x.detach().cpu().contiguous()
        for name, maps in found.items()
        for key, x in maps.named_parameters()
    }
    plans = {saved.inner_name(name, model): plan for name, plan in plans.items()}
    write_bytes(file, save(tensors, {"format": "pt", _KEY: json.dumps(plans)}))


@torch.no_grad()
def load_maps(model: Any, file: Path | str) -> Any:
    """Puts the maps of a file of `save_maps` into a model, in place; returns it.

    A plain model is converted as the saved one was; a converted one must have maps of the same layers and shapes.

    Raises:
        UserError: no such file, or one of another model: layers or shapes that differ are named.
    """
    from safetensors import safe_open

    from .source import told

    whole, model = model, _inner(model)
    with told(Path(file)):
        with safe_open(str(file), "pt") as opened:
            plans = json.loads((opened.metadata() or {}).get(_KEY, "null"))
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
        if not isinstance(plans, dict):
            raise UserError("load_maps needs a file of save_maps", file, "name that file")
        named = saved.full_names(model, plans)
        absent = sorted(set(plans) - set(named.values()))
        if absent:
            raise UserError(
                "maps must be of the model's layers",
                f"{', '.join(absent[:4])}, which {type(model).__name__} does not have",
                "load them into the architecture that they were saved from",
            )
        if not mixings(model):
            place(model, {full: plans[name] for full, name in named.items()})
            saved.mark(model)
    own = {
        f"{named.get(name, name)}.{CHILD}.{key}": x
        for name, maps in mixings(model).items()
        for key, x in maps.named_parameters()
    }
    wrong = sorted(own.keys() ^ tensors.keys())
    wrong += sorted(x for x in own.keys() & tensors.keys() if own[x].shape != tensors[x].shape)
    if wrong:
        raise UserError(
            "maps must be of the model's layers and shapes",
            f"others at {', '.join(wrong[:4])}",
            "convert the model as the saved one was, or load the maps into the plain model",
        )
    for key, x in own.items():
        x.copy_(tensors[key])
    return whole


def _inner(model: Any) -> Any:
    """The model inside peft's wrapper, or itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
