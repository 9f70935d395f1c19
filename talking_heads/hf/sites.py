"""Where a transformers model attends: the modules that call its attention-function registry."""

import ast
import inspect
import re
import textwrap
from functools import cache
from typing import Any, NamedTuple

from torch import nn

KINDS = ("encoder", "decoder", "cross")  # self-attention of either stack, and attention from one to the other

QUERIES = ("q_proj", "query", "q", "q_lin", "linear_q", "query_proj", "to_q", "wq", "q_attn")
_FUSED = ("c_attn", "qkv", "qkv_proj", "query_key_value", "Wqkv")  # queries, keys and values in one
INPUTS = (*QUERIES, "q_a_proj", *_FUSED)  # what the layer's input goes through first
KEYS = ("k_proj", "key", "k", "k_lin", "linear_k", "kv_proj", *_FUSED)
OUTPUTS = (
    "o_proj",
    "out_proj",
    "o",
    "out_lin",
    "linear_out",
    "c_proj",
    "to_out",
    "wo",
    "Wo",
    "projection_layer",
)
_COUNTS = ("num_heads", "num_attention_heads", "n_heads", "heads")
_SIZES = ("v_head_dim", "head_dim", "attention_head_size", "head_size", "key_value_proj_dim")
_CROSS = re.compile(r"cross|encdec|encoder_attn|encoder_decoder|multihead_attn", re.IGNORECASE)


class Site(NamedTuple):
    """One attention layer.

    name: where the model has it. heads: its query heads. kind: one of KINDS. number: which layer of its
    stack it belongs to (the last number in its name), None outside a stack.
    """

    name: str
    module: nn.Module
    heads: int
    kind: str
    number: int | None


def find(model: nn.Module) -> tuple[list[Site], dict[str, str]]:
    """(the layers that can be converted, {name: why not} of the model's other attention).

    A module that several places share (ALBERT) is found once, under its first name. Layers of one config
    have one attention function: where one cannot be converted, none of them is.
    """
    sites: list[Site] = []
    left: dict[str, str] = {}
    barred: dict[int, str] = {}
    for name, module in model.named_modules():
        kind: Any = type(module)
        if calls_registry(kind):
            heads = head_count(module)
            if heads is None:
                left[name] = f"{kind.__name__} does not say how many heads it has"
            elif keyword := refused(module):
                left[name] = f"{kind.__name__} makes attention depend on {keyword}"
            else:
                sites.append(Site(name, module, heads, kind_of(name, module), number_of(name)))
                continue
            barred[id(module.config)] = kind.__name__
    for site in sites:
        if other := barred.get(id(site.module.config)):
            left[site.name] = f"it shares its attention function with {other}, which cannot be converted"
    sites = [site for site in sites if site.name not in left]
    inside = (*(site.name for site in sites), *left)
    for name, module in model.named_modules():
        if _attends_alone(module) and not any(_related(name, x) for x in inside):
            left[name] = f"{type(module).__name__} does not use transformers' attention-function registry"
    return sites, left


@cache
def calls_registry(kind: Any) -> bool:
    """Whether the class's own forward asks the registry for its attention function."""
    return not kind.__module__.startswith("torch.") and "ALL_ATTENTION_FUNCTIONS" in _source(kind)


def _source(kind: Any) -> str:
    try:
        return inspect.getsource(inspect.unwrap(kind.forward))
    except (OSError, TypeError, AttributeError):
        return ""


def refused(module: Any) -> str | None:
    """A keyword that the module's forward passes on, that changes attention and that nobody can mix."""
    from .attention import REFUSED  # which imports nothing from here

    kind: Any = type(module)
    for keyword, value in _keywords(kind):
        if keyword in REFUSED and value != "None":
            own = re.fullmatch(r"self\.(\w+)", value)
            if own is None or getattr(module, own[1], None) is not None:
                return keyword
    return None


def heads_bound(module: Any) -> str | None:
    """A keyword that the module's forward passes on and that has an axis of softmax heads."""
    kind: Any = type(module)
    given = dict(_keywords(kind))
    return next((k for k in ("position_bias", "s_aux", "sinks") if given.get(k, "None") != "None"), None)


@cache
def _keywords(kind: Any) -> tuple[tuple[str, str], ...]:
    """(keyword, its expression) of every call in the class's forward."""
    tree = ast.parse(textwrap.dedent(_source(kind)))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return tuple((x.arg, ast.unparse(x.value)) for call in calls for x in call.keywords if x.arg)


def _attends_alone(module: nn.Module) -> bool:
    """An attention layer with projections of its own."""
    if "Attention" not in type(module).__name__:
        return False
    return any(isinstance(getattr(module, name, None), nn.Module) for name in QUERIES)


def _related(name: str, site: str) -> bool:
    return name == site or site.startswith(f"{name}.") or name.startswith(f"{site}.")


def number_of(name: str) -> int | None:
    """The layer of its stack that a module belongs to."""
    numbers = re.findall(r"(?:^|\.)(\d+)(?=\.|$)", name)
    # T5 writes block.<layer>.layer.<part>; elsewhere the last number is the layer
    block = re.search(r"(?:^|\.)block\.(\d+)\.layer\.\d+\.", name)
    return int(block[1]) if block else int(numbers[-1]) if numbers else None


def kind_of(name: str, module: nn.Module) -> str:
    """One of KINDS, by the words of its name and class, else by whether it is causal."""
    if _CROSS.search(name.rpartition("layer")[2]) or _CROSS.search(type(module).__name__):
        return "cross"
    words = re.split(r"[._]", name.lower())
    for stack in reversed(words):
        if stack in ("encoder", "decoder"):
            return stack
    causal = getattr(module, "is_causal", False) or getattr(module, "is_decoder", False)
    return "decoder" if causal else "encoder"


def head_count(module: nn.Module) -> int | None:
    """Query heads: an attribute that says so, else a projection's width over the size of a head."""
    for name in _COUNTS:
        count = getattr(module, name, None)
        if isinstance(count, int):
            return count
    size = next((x for name in _SIZES if isinstance(x := getattr(module, name, None), int)), None)
    out, query = projection(module, OUTPUTS), projection(module, QUERIES)
    for width in (getattr(out, "in_features", None), getattr(query, "out_features", None)):
        if size and isinstance(width, int) and width % size == 0:
            return width // size
    count = getattr(getattr(module, "config", None), "num_attention_heads", None)
    return count if isinstance(count, int) else None


def head_sizes(site: Site) -> tuple[int | None, int | None]:
    """Sizes of a query's and of a value's head, where the projections' widths tell."""
    query, out = projection(site.module, QUERIES), projection(site.module, OUTPUTS)
    wide = getattr(query, "out_features", None), getattr(out, "in_features", None)
    of_query, of_value = (x // site.heads if isinstance(x, int) else None for x in wide)
    return of_query, of_value or of_query


def projection(module: nn.Module, names: tuple[str, ...]) -> Any:
    """The first submodule under one of the names; None without one."""
    found = (getattr(module, name, None) for name in names)
    return next((x for x in found if isinstance(x, nn.Module)), None)
