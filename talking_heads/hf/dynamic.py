"""Dynamic maps in a converted layer: made of what its queries and its keys are made of.

Hooks on the two projections note what they read, `Cache.update` what becomes of the keys' positions, and the attention
function makes the maps of it. All of it belongs to one call in one thread (`_Call`); nothing stays on the module, so
that threads may share a model. What the memory is called and whether it is the layer's own input (a reduced picture,
another model's states) does not matter.
"""

import functools
import threading
from typing import Any

import torch
from torch import Tensor, nn

from ..anatomy import Layer
from ..anatomy.projections import in_features, readers
from ..errors import UserError
from ..nn.mixing import CHILD, unwrapped
from . import cached

SITE = "_head_site"  # attribute of an attention layer with dynamic maps
_NOW = threading.local()  # .call: the innermost call of such a layer that this thread is in


def widths(layer: Layer, dynamic: Any) -> dict[str, int]:
    """{"model_dim", "memory_dim"}: of the states that the layer's queries and keys are made of.

    Raises:
        UserError: a layer whose queries or keys are made in a way that is not known.
    """
    query, key = (in_features(getattr(layer.module, name or "", None)) for name in readers(layer.module))
    kind = type(layer.module).__name__
    if query is None:
        raise UserError(
            "convert: dynamic maps are made of what the layer's queries are made of",
            f"{kind} at {layer.name}, whose projection of queries is not known",
            "leave it out with layers= or kinds=",
        )
    if key is None and any(str(name).startswith("memory") for name in dynamic):
        raise UserError(
            "convert: dynamic maps of memory positions are made of what the layer's own keys are made of",
            f"{kind} at {layer.name}, which takes its keys from another layer or in a way that is not known",
            "leave memory_logits and memory_weights out of dynamic, or the layer with layers= or kinds=",
        )
    return {"model_dim": query, "memory_dim": key or query}


class _Site:
    """What the hooks of one layer share; a copy of the model has its own."""


class _Call:
    """One call of a layer.

    query, memory: what the projections read. packed: maps of all memory positions, once a cache has been asked.
    """

    def __init__(self, site: _Site, mixing: Any, caches: list[Any], outer: Any) -> None:
        self.site, self.mixing, self.caches, self.outer = site, mixing, caches, outer
        self.query: Tensor | None = None
        self.memory: Tensor | None = None
        self.packed: Tensor | None = None
        self.begun = {"query": 0, "memory": 0}  # positions of packed rows whose turn has been


def hook(module: nn.Module, names: tuple[str | None, str | None]) -> None:
    """Makes the layer note what its maps are made of; names: of the modules that read it (see `readers`)."""
    site = _Site()
    module.__dict__[SITE] = site
    module.register_forward_pre_hook(_Begin(site), with_kwargs=True)
    module.register_forward_hook(_End(site), always_call=True)
    for name, what in zip(names, ("query", "memory"), strict=True):
        if name is not None:
            module.get_submodule(name).register_forward_pre_hook(_Read(site, what), with_kwargs=True)


def unhook(module: nn.Module) -> None:
    """Undoes `hook`."""
    module.__dict__.pop(SITE, None)
    for part in module.modules():
        for hooks in (part._forward_pre_hooks, part._forward_hooks):
            for key, function in list(hooks.items()):
                if isinstance(function, _Hook):
                    del hooks[key]  # type: ignore[attr-defined]
                    part._forward_pre_hooks_with_kwargs.pop(key, None)
                    part._forward_hooks_always_called.pop(key, None)


class _Hook:
    def __init__(self, site: _Site) -> None:
        self.site = site


class _Begin(_Hook):
    """Before the attention layer's forward."""

    def __call__(self, module: Any, args: Any, kwargs: Any) -> None:
        mixing = unwrapped(getattr(module, CHILD))
        found = cached.caches((*args, *kwargs.values()))
        _NOW.call = _Call(self.site, mixing, found, _current())


class _End(_Hook):
    """After it, also where it has failed."""

    def __call__(self, module: Any, args: Any, output: Any) -> None:
        call = _current()
        if call is not None and call.site is self.site:
            _NOW.call = call.outer


class _Read(_Hook):
    """Before the forward of a projection."""

    def __init__(self, site: _Site, what: str) -> None:
        super().__init__(site)
        self.what = what

    def __call__(
        self, module: Any, args: Any, kwargs: Any = None
    ) -> None:  # none: quantize_dynamic drops them
        call = _current()
        if call is not None and call.site is self.site:
            setattr(call, self.what, args[0] if args else next(iter(kwargs.values())))


def _current() -> Any:
    return getattr(_NOW, "call", None)


def follow(update: Any) -> Any:
    """`Cache.update`, after which the maps of the same positions are in the cache, too."""

    @functools.wraps(update)
    def updated(
        self: Any, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> Any:
        call = _current()
        if call is None or call.memory is None or call.packed is not None or not _of_memory(call.mixing):
            return update(self, key_states, value_states, layer_idx, *args, **kwargs)
        kept = cached.twin(self, layer_idx)
        packed = _packed(call.mixing, _positions(call, "memory", key_states))
        result = update(self, key_states, value_states, layer_idx, *args, **kwargs)
        call.packed, _ = kept.update(packed, packed[..., :0])
        return result

    return updated


def maps_of(module: nn.Module, query: Tensor, key: Tensor) -> dict[str, Tensor]:
    """The dynamic maps of the call of `module` that this thread is in.

    query: [batch, heads, query_len, size]; key: [batch, key_heads, memory_len, size], with all past positions.

    Raises:
        UserError: maps that are not known for these very positions.
    """
    call = _current()
    if call is None or call.site is not module.__dict__.get(SITE):
        raise UserError(
            "talking_heads: a layer with dynamic maps must be called as a module",
            f"a call of {type(module).__name__}'s attention function alone",
            "call the layer or the model",
        )
    mixing: Any = call.mixing
    maps: dict[str, Tensor] = {}
    if any(name.startswith("query") for name in mixing.dynamic):
        if call.query is None:
            raise _unknown(call, "queries", "no projection that ran")
        maps |= mixing.query_maps(_positions(call, "query", query))
    if not _of_memory(mixing):
        return maps
    packed = call.packed
    if packed is None and call.memory is not None:
        return maps | mixing.memory_maps(_positions(call, "memory", key))
    packed = cached.of_keys(call.caches, key) if packed is None else packed
    if packed is None:
        raise _unknown(call, "memory positions", "keys that the layer did not make in this call")
    if packed.shape[2] != key.shape[2] or packed.shape[0] != key.shape[0]:
        sizes = f"maps of {packed.shape[0]} x {packed.shape[2]} for keys of {key.shape[0]} x {key.shape[2]}"
        raise _unknown(call, "memory positions", sizes)
    return maps | _unpacked(packed, mixing)


def _of_memory(mixing: Any) -> bool:
    return any(name.startswith("memory") for name in mixing.dynamic)


def _positions(call: _Call, what: str, heads: Tensor) -> Tensor:
    """What a projection read, as [batch, positions, width] of heads [batch, heads, positions, size]."""
    x, rows, count = getattr(call, what), heads.shape[0], heads.shape[-2]
    if x.dim() == 3 and x.shape[0] == rows and x.shape[1] == count:
        return x
    if x.dim() == 2 and rows == 1 and x.shape[0] == count:  # all of a batch in one row
        return x[None]
    if (
        x.dim() == 2 and rows == 1 and call.begun[what] + count <= x.shape[0]
    ):  # pictures in one row, one after another
        start = call.begun[what]
        call.begun[what] += count
        return x[None, start : start + count]
    if x.dim() == 4 and x.shape[0] * x.shape[1] == rows and x.shape[2] == count:
        return x.flatten(0, 1)
    if (
        x.dim() == 4 and x.shape[0] == rows and x.shape[1] * x.shape[2] == count
    ):  # rows and columns of a picture
        return x.flatten(1, 2)
    raise _unknown(call, "positions", f"states {list(x.shape)} for heads of {rows} x {count}")


def _unknown(call: _Call, what: str, came: str) -> UserError:
    """For maps that do not belong to the positions that attend. Seen in caches of one's own that do not go through
    transformers' Cache.update, too."""
    return UserError(
        f"talking_heads: dynamic maps must be known for the very {what} that attend, also those in a cache",
        came,
        "call with use_cache=False or an empty cache of transformers, or leave these layers or these maps out "
        "(layers=, dynamic=)",
    )


def _packed(mixing: Any, memory: Tensor) -> Tensor:
    """[b, 1, m, numbers]: all maps of memory positions, as a cache holds keys."""
    return torch.cat([x.flatten(2) for x in mixing.memory_maps(memory).values()], -1)[:, None]


def _unpacked(kept: Tensor, mixing: Any) -> dict[str, Tensor]:
    """[b, 1, m, numbers] -> {"memory_..._mix": [b, m, in, out]}"""
    names = [name for name in mixing.dynamic if name.startswith("memory")]
    sizes = [getattr(mixing, f"{name}_mix").shape[1:] for name in names]
    parts = kept[:, 0].split([size.numel() for size in sizes], -1)
    return {f"{name}_mix": x.unflatten(-1, size) for name, x, size in zip(names, parts, sizes, strict=True)}
