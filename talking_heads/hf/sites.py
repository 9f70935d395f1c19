"""Where a transformers model attends: the modules that call its attention-function registry."""

import inspect
from functools import cache
from typing import Any, NamedTuple

from torch import nn

_HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "num_q_heads")
_QUERIES = ("q_proj", "q", "query", "q_lin", "wq", "query_proj", "to_q")


class Site(NamedTuple):
    """One attention layer: its name in the model, its module, its query heads."""

    name: str
    module: nn.Module
    heads: int


def find(model: nn.Module) -> tuple[list[Site], dict[str, str]]:
    """(the layers that go through the registry, {name: why} of attention that cannot be converted).

    A module that several places share (ALBERT) is found once, under its first name.
    """
    sites: list[Site] = []
    left: dict[str, str] = {}
    for name, module in model.named_modules():
        kind: Any = type(module)
        if _calls_registry(kind):
            heads = head_count(module)
            if heads is None:
                left[name] = f"{type(module).__name__} does not say how many heads it has"
            else:
                sites.append(Site(name, module, heads))
    inside = tuple(site.name for site in sites)
    for name, module in model.named_modules():
        if _attends_alone(module) and not any(_related(name, other) for other in inside):
            left[name] = f"{type(module).__name__} does not use transformers' attention-function registry"
    return sites, left


@cache
def _calls_registry(kind: Any) -> bool:
    """Whether the class's own forward asks the registry for its attention function."""
    if kind.__module__.startswith("torch."):
        return False
    try:
        source = inspect.getsource(inspect.unwrap(kind.forward))
    except (OSError, TypeError, AttributeError):
        return False
    return "ALL_ATTENTION_FUNCTIONS" in source


def _attends_alone(module: nn.Module) -> bool:
    """An attention layer with projections of its own."""
    if "Attention" not in type(module).__name__:
        return False
    return any(isinstance(getattr(module, name, None), nn.Module) for name in _QUERIES)


def _related(name: str, site: str) -> bool:
    return name == site or site.startswith(f"{name}.") or name.startswith(f"{site}.")


def head_count(module: nn.Module) -> int | None:
    """Query heads: an attribute that says so, else the query projection's width over head_dim."""
    for name in _HEADS:
        count = getattr(module, name, None)
        if isinstance(count, int):
            return count
    size = getattr(module, "head_dim", None)
    for name in _QUERIES:
        width = getattr(getattr(module, name, None), "out_features", None)
        if isinstance(size, int) and isinstance(width, int) and width % size == 0:
            return width // size
    count = getattr(getattr(module, "config", None), "num_attention_heads", None)
    return count if isinstance(count, int) else None
