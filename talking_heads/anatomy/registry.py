"""Wrappers around the attention function that transformers' registry hands to single layers.

As long as a wrapper is on, the layer's config names a function of this package, registered publicly, that calls the
wrapper around the function that was named before (sdpa, eager, flash, ...). Nothing of transformers is replaced.
"""

import inspect
import re
from collections.abc import Callable
from functools import cache, partial
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from .source import forwards, negates_mask

Remove = Callable[[], None]
_WRAPPERS: "WeakKeyDictionary[nn.Module, list[Callable[..., Any]]]" = WeakKeyDictionary()
_OWN: set[str] = set()  # names whose functions ask for wrappers themselves
_SWITCHED: dict[
    int, tuple[Any, Any, int]
] = {}  # id of a config: (it, the name before, wrappers on its layers)


def register(name: str, function: Callable[..., Any], mask: Callable[..., Any] | None) -> None:
    """Makes an attention function and its mask known to transformers (without a mask it would build none, silently),
    in a form that can be wrapped."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(name, partial(_wrapped, function))
    if mask is not None:
        AttentionMaskInterface.register(name, mask)
    _OWN.add(name)


def wrap(module: nn.Module, wrapper: Callable[..., Any]) -> Remove:
    """Lets `wrapper(function, module, *args, **options)` stand for a registry layer's attention function."""
    config: Any = module.config
    kind: Any = type(module)
    _switch(config, negates_mask(kind))
    _WRAPPERS.setdefault(module, []).append(wrapper)
    done: list[None] = []

    def remove() -> None:
        if not done:
            done.append(None)
            _WRAPPERS[module].remove(wrapper)
            _switch_back(config)

    return remove


def _wrapped(function: Callable[..., Any], module: nn.Module, *args: Any, **options: Any) -> Any:
    for wrapper in _WRAPPERS.get(module, ()):
        function = partial(wrapper, function)
    return function(module, *args, **options)


class _Name(str):
    """A name of this package in transformers' registry. Models that compare it take it for the one it stands for."""

    plain: str

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self, other) or str.__eq__(self.plain, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__


@cache
def _name_over(plain: str, boolean: bool) -> _Name:
    """The registered name under which the function called `plain` can be wrapped; boolean: with a boolean mask."""
    from transformers import AttentionMaskInterface

    name = _Name(f"talking_heads_over_{plain}{'_boolean' if boolean else ''}")
    name.plain = plain
    masks: Any = AttentionMaskInterface()
    # by a plain key: torch.compile hashes no other
    register(str(name), partial(_plain, plain), masks.get("sdpa" if boolean else plain))
    return name


def _plain(name: str, module: nn.Module, *args: Any, **options: Any) -> Any:
    """Calls the function that the layer's own file would use under that name."""
    kind: Any = type(module)
    for forward in forwards(kind):
        asked = re.search(r"(\w+)\.get_interface\(\s*[\w.]+,\s*(\w+)", inspect.getsource(forward))
        if asked is not None:
            interface, default = (forward.__globals__[x] for x in asked.groups())
            return interface.get_interface(name, default)(module, *args, **options)
    raise RuntimeError(f"{kind.__name__} asks for its attention function in a way that is not known")


def _switch(config: Any, boolean: bool) -> None:
    """Has the config name a function that asks for wrappers."""
    named = config._attn_implementation
    if id(config) in _SWITCHED:
        _, before, count = _SWITCHED[id(config)]
    elif named in _OWN:
        return
    else:
        before, count = named, 0
    if not isinstance(named, _Name):
        config._attn_implementation_internal = _name_over(named or "eager", boolean)
    _SWITCHED[id(config)] = (config, before, count + 1)


def _switch_back(config: Any) -> None:
    if id(config) not in _SWITCHED:
        return
    _, before, count = _SWITCHED.pop(id(config))
    if count > 1:
        _SWITCHED[id(config)] = (config, before, count - 1)
    elif isinstance(config._attn_implementation, _Name):
        config._attn_implementation_internal = before
