"""Maps of memory positions in transformers' caches: each layer of a cache holds those of its own positions.

`Cache.update` is where every model hands over its keys, whatever its cache argument is called, whichever number it
gives the layer, and however often one layer runs for a token. There the maps of the same positions join a further
layer, a twin of the cache's own layer; whatever is done to that layer (beams reordered, positions cropped or
forgotten) is done to the twin, by methods that `follow` puts into the classes of layers.
"""

from functools import wraps
from inspect import isfunction
from typing import Any

from torch import Tensor
from transformers import Cache
from transformers.cache_utils import (
    CacheLayerMixin,
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
        if type(layer) not in _FOLLOWED:  # a class that was made later
            _follow(type(layer))
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


_FOLLOWED: set[type] = set()


def follow() -> None:
    """Has the twin of a layer follow it, in the classes that there are: torch.compile can change none on the way."""
    kinds = [CacheLayerMixin]
    for kind in kinds:
        kinds += kind.__subclasses__()
        _follow(kind)


def _follow(kind: type) -> None:
    """Whatever changes a layer of the class, but for new positions, changes its twin, too."""
    asks = ("_", "get_", "update", "lazy_")
    for owner in set(kind.__mro__[:-1]) - _FOLLOWED:
        _FOLLOWED.add(owner)
        for name, method in list(vars(owner).items()):
            if isfunction(method) and not name.startswith(asks):
                setattr(owner, name, _both(method))


def _both(method: Any) -> Any:
    @wraps(method)
    def both(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = method(self, *args, **kwargs)
        name = method.__name__
        # not where it is called by the method that overrides it
        if "head_maps" in self.__dict__ and getattr(type(self), name) is both:
            same = getattr(self.head_maps, name, None)
            if same is not None:
                same(*args, **kwargs)
        return result

    return both
