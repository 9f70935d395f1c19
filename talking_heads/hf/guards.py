"""The places in transformers where maps could get lost without a word, and what is done there.

    a model is built      maps that its config names are put into its layers
    a model is saved      its config says which layers have maps now, also where only a part was converted
    a config is written   in the saved form (see `config`)
    weights are read      maps that find no layer, and layers that find no maps, are an error
    a cache changes       dynamic maps of the same positions go along

All of it holds for every model class, for models around a converted one, and for adapters. Models without
maps go through unchanged.
"""

import functools
from typing import Any

from torch import nn
from transformers import Cache, PreTrainedConfig, PreTrainedModel

from ..errors import UserError
from ..nn.mixing import CHILD
from . import cached
from . import config as saved
from .choose import convertible
from .dynamic import follow
from .insert import insert, mixings
from .lost import refuse_lost, refuse_unsaved_maps


def install() -> None:
    """Puts the guards in place, once a process."""
    if hasattr(PreTrainedModel.post_init, "guarded"):
        return
    for owner, name, guard in (
        (PreTrainedModel, "post_init", _built),
        (PreTrainedModel, "save_pretrained", _saved),
        (PreTrainedConfig, "to_json_string", _written),
        (PreTrainedModel, "_load_pretrained_model", _read),
        (PreTrainedModel, "_load_from_state_dict", _state),
    ):
        static = isinstance(owner.__dict__.get(name), staticmethod)
        guarded = functools.wraps(getattr(owner, name))(functools.partial(guard, getattr(owner, name)))
        setattr(owner, name, staticmethod(guarded) if static else _method(guarded))
    Cache.update = follow(Cache.update)
    cached.follow()


def _method(guarded: Any) -> Any:
    @functools.wraps(guarded)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return guarded(self, *args, **kwargs)

    method.guarded = True  # type: ignore[attr-defined]
    return method


def _built(original: Any, model: Any) -> None:
    original(model)
    plan = saved.planned(model)
    # layers inside a part that is built first have theirs
    place(model, {name: x for name, x in plan.items() if not _has_maps(model.get_submodule(name))})


def place(model: Any, plan: dict[str, dict[str, Any]]) -> None:
    """Puts maps into the layers named; plan: as of `insert`."""
    if not plan:
        return
    found, left = convertible(model)
    barred = {name: left[name] for name in plan if name in left}
    if barred:
        name, why = next(iter(barred.items()))
        raise UserError(
            "every layer with maps must be one that can be converted",
            f"{name}: {why}",
            "load the model with the transformers that it was saved with",
        )
    layers = [layer for layer in found if not _has_maps(layer.module)]
    for layer in layers:
        layer.module.__dict__.pop(CHILD, None)
    insert(model, layers, plan)


def _has_maps(module: nn.Module) -> bool:
    return getattr(module, CHILD, None) is not None


def _saved(original: Any, model: Any, save_directory: Any, *args: Any, **kwargs: Any) -> Any:
    if saved.is_talking(model.config) or any(_has_maps(module) for module in model.modules()):
        saved.mark(model)
        _check_whole(model)
    result = original(model, save_directory, *args, **kwargs)
    if saved.is_renamed(model):
        model.name_or_path = str(save_directory)
    return result


def _check_whole(model: Any) -> None:
    """Refuses to save what could not be loaded again."""
    wrapped = [name for name, maps in mixings(model).items() if hasattr(maps, "parametrizations")]
    if wrapped:
        raise UserError(
            "maps must be parameters of their own to be saved",
            f"parametrized ones at {', '.join(wrapped[:4])}",
            "torch.nn.utils.parametrize.remove_parametrizations(maps, name) for each, then save",
        )
    if getattr(model, "_hf_peft_config_loaded", False):  # transformers saves the adapter alone
        refuse_unsaved_maps(model)


def _written(original: Any, config: Any, *args: Any, **kwargs: Any) -> str:
    text: str = original(config, *args, **kwargs)
    return saved.to_json(text) if saved.is_talking(config) else text


def _read(original: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
    result = original(model, *args, **kwargs)
    found = result[0]
    left_over = {_layer(key) for key in found.unexpected_keys if _layer(key) is not None}
    others = {key for key in found.unexpected_keys if _layer(key) is None}
    # layers that this class leaves out altogether may leave out their maps
    refuse_lost({x for x in left_over if not any(key.startswith(f"{x}.") for key in others)}, model)
    own = f".{CHILD}.original_module."  # under an adapter, which replaces it
    absent = sorted(key for key in found.missing_keys if f".{CHILD}." in key and own not in key)
    if absent:
        raise UserError(
            "a converted model must have its maps",
            f"none for {', '.join(absent[:4])}",
            "load the folder that the converted model was saved to",
        )
    misshapen = sorted(_name(key) for key in found.mismatched_keys if f".{CHILD}." in _name(key))
    if misshapen:  # they would hold whatever was in memory: see ignore_mismatched_sizes
        raise UserError(
            "maps of a checkpoint must have the model's shapes",
            f"others at {', '.join(misshapen[:4])}",
            "load it with talking_heads.hf.load, with the config saved with these weights",
        )
    return result


def _name(key: Any) -> str:
    """A tensor's name, with or without its shapes."""
    return key if isinstance(key, str) else str(key[0])


def _state(original: Any, model: Any, state: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
    """load_state_dict, with which peft reads adapters: it does not insist on places for all tensors."""
    names = {layer for key in state if key.startswith(prefix) and (layer := _layer(key[len(prefix) :]))}
    modules = dict(model.named_modules()) if names else {}
    refuse_lost({x for x in names if x in modules and not _has_maps(modules[x])}, model)
    original(model, state, prefix, *args, **kwargs)


def _layer(key: str) -> str | None:
    """The layer that a tensor named `key` mixes; None for other tensors."""
    layer, found, _ = key.rpartition(f".{CHILD}.")
    return layer if found else None
