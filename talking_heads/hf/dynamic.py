"""Dynamic maps in a converted layer: made from the layer's input, kept in transformers' own cache.

A hook before the attention layer's forward sees its input, makes the maps of query and memory positions and
leaves them for the attention function. While decoding, the maps of past positions are kept as further
layers of the model's cache, so that whatever is done to the cache (growing, a static or sliding buffer,
reordering of beams, cropping) is done to them, too.
"""

import copy
import inspect
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache

from ..anatomy import Layer
from ..anatomy.projections import reads
from ..errors import UserError

HELD = "_head_maps"  # attribute of the attention layer, from its hook to the attention function
_MEMORY = ("key_value_states", "encoder_hidden_states")


def widths(layer: Layer) -> dict[str, int]:
    """{"model_dim", "memory_dim"}: of the states that the layer's queries and keys are made of.

    Raises:
        ValueError: a layer whose forward does not take one sequence of states, and one as memory.
    """
    kind: Any = type(layer.module)
    names = _arguments(kind)
    query, key = reads(layer.module)
    if query is None or not names or names[0] != "hidden_states":
        raise UserError(
            "convert: dynamic maps are made from a layer's hidden_states",
            f"{kind.__name__}, whose forward takes {names[:3]}",
            "leave it out with layers= or kinds=",
        )
    return {"model_dim": query, "memory_dim": key or query}


def hook(module: nn.Module, depth: int) -> None:
    """Makes the layer leave its dynamic maps for the attention function; `depth`: layers of the cache."""
    module.register_forward_pre_hook(_Hook(depth), with_kwargs=True)


def unhook(module: nn.Module) -> None:
    for key, function in list(module._forward_pre_hooks.items()):
        if isinstance(function, _Hook):
            del module._forward_pre_hooks[key], module._forward_pre_hooks_with_kwargs[key]


class _Hook:
    """Called before the attention layer's forward."""

    def __init__(self, depth: int) -> None:
        self.depth = depth

    def __call__(self, module: Any, args: Any, kwargs: Any) -> None:
        kind: Any = type(module)
        given = dict(zip(_arguments(kind), args, strict=False)) | kwargs
        x = given["hidden_states"]
        memory = next((m for name in _MEMORY if (m := given.get(name)) is not None), None)
        cache_ = next((x for x in given.values() if isinstance(x, Cache)), None)
        mixing = module.head_mixing
        maps = mixing.query_maps(x)
        if any(name.startswith("memory") for name in mixing.dynamic):
            maps |= self._of_memory(module, mixing, x, memory, cache_)
        module.__dict__[HELD] = maps

    def _of_memory(
        self, module: Any, mixing: Any, x: Tensor, memory: Tensor | None, cache_: Any
    ) -> dict[str, Tensor]:
        crossed = memory is not None
        if cache_ is not None and hasattr(cache_, "is_updated"):  # of an encoder-decoder
            done = crossed and cache_.is_updated.get(module.layer_idx)
            cache_ = cache_.cross_attention_cache if crossed else cache_.self_attention_cache
            if done:
                kept = self._slot(cache_, module.layer_idx).keys
                return _unpacked(kept, mixing)
        maps = mixing.memory_maps(memory if crossed else x)
        if cache_ is None:
            return maps
        packed = torch.cat([map_.flatten(2) for map_ in maps.values()], -1)[:, None]
        kept, _ = self._slot(cache_, module.layer_idx).update(packed, packed[..., :0])
        return _unpacked(kept, mixing)

    def _slot(self, cache_: Any, number: int) -> Any:
        """The cache's layer that keeps the maps of layer `number`: one like that layer's, behind all of them."""
        while len(cache_.layers) <= self.depth + number:
            twin = len(cache_.layers) - self.depth
            if twin < 0:
                cache_.layers.append(cache_.layer_class_to_replicate())
                continue
            if twin == number and cache_.layers[twin].is_initialized:
                raise UserError(
                    "talking_heads: a cache must be filled by the converted model from its start",
                    "one with past positions whose maps are unknown",
                    "begin with an empty cache",
                )
            cache_.layers.append(_empty(cache_.layers[twin]))
        return cache_.layers[self.depth + number]


def _empty(layer: Any) -> Any:
    """An empty layer of a cache like `layer`, which may be filled already."""
    bare = copy.copy(layer)
    bare.is_initialized, bare.keys, bare.values = False, None, None
    layer = copy.deepcopy(bare)
    layer.reset()
    return layer


def _unpacked(kept: Tensor, mixing: Any) -> dict[str, Tensor]:
    """[b, 1, m, numbers] -> {"memory_..._mix": [b, m, in, out]}"""
    names = [name for name in mixing.dynamic if name.startswith("memory")]
    sizes = [getattr(mixing, f"{name}_mix").shape[1:] for name in names]
    parts = kept[:, 0].split([size.numel() for size in sizes], -1)
    return {f"{name}_mix": x.unflatten(-1, size) for name, x, size in zip(names, parts, sizes, strict=True)}


@cache
def _arguments(kind: Any) -> tuple[str, ...]:
    return tuple(inspect.signature(kind.forward).parameters)[1:]
