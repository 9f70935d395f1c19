"""Maps of memory positions in transformers' caches: each layer of a cache holds those of its own positions.

`Cache.update` is where every model hands over its keys, whatever its cache argument is called, whichever number it
gives the layer, and however often one layer runs for a token. There the maps of the same positions join a further
layer, a twin of the cache's own layer; whatever is done to that layer (beams reordered, positions cropped or
forgotten) is done to the twin.
"""

from functools import cache, wraps
from typing import Any

from torch import Tensor
from transformers import Cache
from transformers.cache_utils import (
    DynamicLayer,
    DynamicSlidingWindowLayer,
    StaticLayer,
    StaticSlidingWindowLayer,
)

from ..errors import UserError


def caches(values: Any) -> list[Cache]:
    """The caches among a call's arguments, those inside an encoder-decoder's too."""
    found = []
    for value in values:
        if isinstance(value, Cache):
            inner = [x for x in vars(value).values() if isinstance(x, Cache)]
            found += inner or [value]
    return found


def twin(cache: Cache, number: int) -> Any:
    """The layer that holds the maps of the cache's layer `number`.

    Raises:
        UserError: the layer holds positions already whose maps are unknown, or is of a kind that is not known.
    """
    while cache.layer_class_to_replicate is not None and len(cache.layers) <= number:
        cache.layers.append(cache.layer_class_to_replicate())
    layer: Any = cache.layers[number]
    if not hasattr(layer, "head_maps"):
        if layer.get_seq_length() > 0:
            raise UserError(
                "talking_heads: a cache must be filled by the converted model from its start",
                "one with past positions whose maps are unknown",
                "begin with an empty cache",
            )
        layer.head_maps = _like(layer)
        kind: Any = type(layer)
        layer.__class__ = _with_maps(kind)
    return layer.head_maps


def of_keys(found: list[Cache], key: Tensor) -> Tensor | None:
    """The maps of keys that a layer took out of a cache without adding any (attention to an encoder, after its first
    call)."""
    layers = [layer for x in found for layer in x.layers if getattr(layer, "keys", None) is key]
    return next((x.head_maps.keys for x in layers if hasattr(x, "head_maps")), None)


def _like(layer: Any) -> Any:
    """An empty layer that grows, slides or is limited as the layer does; what that rounds or records by the way is not
    done to maps."""
    if isinstance(layer, StaticSlidingWindowLayer):
        return StaticSlidingWindowLayer(layer.max_cache_len, layer.max_cache_len)
    if isinstance(layer, StaticLayer):
        return StaticLayer(layer.max_cache_len)
    if isinstance(layer, DynamicSlidingWindowLayer):
        made = DynamicSlidingWindowLayer(layer.sliding_window)
        if getattr(layer, "record_past", False):
            made.activate_past_recording()
        return made
    if isinstance(layer, DynamicLayer):
        return DynamicLayer()
    raise UserError(
        "talking_heads: dynamic maps of memory positions are kept in caches that grow, slide or are static",
        type(layer).__name__,
        "generate with another cache, or leave memory_logits and memory_weights out of dynamic",
    )


@cache
def _with_maps(kind: type) -> type:
    """The class of a cache's layer with a twin: whatever changes the layer, but for new positions, changes both."""
    asks = ("_", "get_", "update", "lazy_")
    names = [x for x in dir(kind) if not x.startswith(asks) and callable(getattr(kind, x))]
    methods = {name: _both(getattr(kind, name)) for name in names}
    return type(f"{kind.__name__}WithMaps", (kind,), methods | {"_layer_type": None})


def _both(method: Any) -> Any:
    @wraps(method)
    def both(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = method(self, *args, **kwargs)
        same = getattr(self.head_maps, method.__name__, None)
        if same is not None:
            same(*args, **kwargs)
        return result

    return both
