"""The query, key, value and output projections of an attention layer, by the names that model families give them."""

from typing import Any

from torch import nn

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


def projects(module: nn.Module) -> bool:
    """Whether the module is an attention layer with projections of its own."""
    if not any("Attention" in kind.__name__ for kind in type(module).__mro__):
        return False
    return any(isinstance(getattr(module, name, None), nn.Module) for name in QUERIES)


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


def head_sizes(module: nn.Module, heads: int) -> tuple[int | None, int | None]:
    """Sizes of a query's and of a value's head, where the projections' widths tell."""
    query, out = projection(module, QUERIES), projection(module, OUTPUTS)
    wide = getattr(query, "out_features", None), getattr(out, "in_features", None)
    of_query, of_value = (x // heads if isinstance(x, int) else None for x in wide)
    return of_query, of_value or of_query


def projection(module: nn.Module, names: tuple[str, ...]) -> Any:
    """The first submodule under one of the names; None without one."""
    found = (getattr(module, name, None) for name in names)
    return next((x for x in found if isinstance(x, nn.Module)), None)
