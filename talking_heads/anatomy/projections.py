"""The table of query, key, value and output projections: how each family of models builds an attention layer.

A new family is one row of FAMILIES, or one name in OUTPUTS, and one case of tests/anatomy/test_projections.py.
"""

import re
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Family(NamedTuple):
    """How one family makes queries, keys and values.

    query, key, value: names of linear maps in the layer; equal where one map makes several. groups: how the rows of
    a map that makes several are ordered: a number of groups, each with some queries, some keys and some values ("heads": one group a
    head, "key heads": one a key head). order: within a group. reads: what the layer's input goes through first, for
    queries and for keys, where that is another map. biases: names of separate biases of queries, keys and values.
    classes: pattern of the layer's class.
    """

    query: str
    key: str
    value: str
    groups: int | str = 1
    order: str = "qkv"
    reads: tuple[str, str] | None = None
    biases: tuple[str, str, str] = ("", "", "")
    classes: str = ""


FAMILIES = (
    Family("q_proj", "k_proj", "v_proj"),
    Family("query", "key", "value"),
    Family("q", "k", "v"),
    Family("q_lin", "k_lin", "v_lin"),
    Family("linear_q", "linear_k", "linear_v"),
    Family("query_proj", "key_proj", "value_proj"),
    Family("q_head", "k_head", "v_head"),
    Family("to_q", "to_k", "to_v"),
    Family("Wq", "Wk", "Wv"),
    Family("to_q", "to_kv", "to_kv"),
    # multi-head latent attention: each head's key (without rotation) and value in one map
    Family("q_b_proj", "kv_b_proj", "kv_b_proj", "heads", reads=("q_a_proj", "kv_a_proj_with_mqa")),
    Family("q_proj", "kv_b_proj", "kv_b_proj", "heads", reads=("q_proj", "kv_a_proj_with_mqa")),
    # one map for all three
    Family("query_key_value", "query_key_value", "query_key_value", "key heads", classes="Falcon"),
    Family("query_key_value", "query_key_value", "query_key_value", "heads", classes="NeoX|Persimmon|Bloom"),
    Family("in_proj", "in_proj", "in_proj", "heads", biases=("q_bias", "", "v_bias"), classes="Disentangled"),
    Family("qkv_proj", "qkv_proj", "qkv_proj", 4, "qvk", classes="CodeGen"),
    Family("c_attn", "c_attn", "c_attn", "key heads", classes="BigCode"),
    Family("q_attn", "c_attn", "c_attn"),  # GPT-2's attention to an encoder
    Family("c_attn", "c_attn", "c_attn"),
    Family("qkv", "qkv", "qkv"),
    Family("qkv_proj", "qkv_proj", "qkv_proj"),
    Family("Wqkv", "Wqkv", "Wqkv"),
)
# Names of the output projection inside the layer; in BERT and its kin it is in the next module, `output`.
OUTPUTS = (
    *("o_proj", "out_proj", "o", "out_lin", "linear_out", "c_proj", "to_out", "wo", "Wo", "projection_layer"),
    *(
        "post_proj",
        "output_proj",
        "output_projection",
        "post",
        "proj",
        "projection",
        "dense",
        "linear",
        "output",
    ),
)
# Layers whose heads depend on one another between attention and output projection (subtracted, normalised together)
# and that do not show it: registry layers are compared at their first call.
MIXED = re.compile("DiffLlama|MiniMaxLightning")
# Layers that multiply each head's output by a gate of its own before the output projection.
HEADWISE = re.compile(
    "Afmoe|AXK2|BailingHybrid|Beam|Qwen3Next|Qwen3_5|Qwen4Exp|Dots3NoteText|EsmFold2Atom|HrmText|HYV4|Inkling|Laguna"
    "|Lfm3|MuseGlimmerText|MuseSparkText|Step3p7"
)
WRAPPED = "linear"  # under which a wrapper holds its linear map
_COUNTS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "heads")
_SIZES = ("v_head_dim", "head_dim", "attention_head_size", "head_size", "key_value_proj_dim")


class Projection(NamedTuple):
    """The queries, keys or values of a layer: `size` rows of a linear map for each head, from the head's start.

    The map is `name` in the module `holder`. bias: [heads * size], where it is separate from the map.
    """

    module: Any
    holder: nn.Module
    name: str
    starts: tuple[int, ...]
    size: int
    bias: Tensor | None

    @property
    def heads(self) -> int:
        return len(self.starts)

    def head(self, number: int) -> tuple[Tensor, Tensor | None]:
        """(weight [size, width], bias [size]) of a head, as views of the parameters."""
        rows = slice(self.starts[number], self.starts[number] + self.size)
        weight, bias = _rows_of(self.module)[rows], self.module.bias
        if self.bias is not None:
            bias, rows = self.bias, slice(number * self.size, (number + 1) * self.size)
        return weight, None if bias is None else bias[rows]

    def rows(self, heads: list[int]) -> Tensor:
        """Numbers of the rows of these heads."""
        return torch.tensor([self.starts[head] + i for head in heads for i in range(self.size)])


class Output(NamedTuple):
    """The output projection: `size` columns for each head. It is `name` in the module `holder`."""

    module: Any
    holder: nn.Module
    name: str
    heads: int
    size: int

    def head(self, number: int) -> Tensor:
        """The weight's columns [width, size] of a head, as a view of the parameter."""
        return _rows_of(self.module)[:, number * self.size : (number + 1) * self.size]

    def columns(self, heads: list[int]) -> Tensor:
        """Numbers of the columns of these heads."""
        return torch.tensor([head * self.size + i for head in heads for i in range(self.size)])


class Projections(NamedTuple):
    """What is known of a layer's projections; None: not known. Queries, keys and values are known all or none."""

    query: Projection | None
    key: Projection | None
    value: Projection | None
    output: Output | None


def projections(model: nn.Module, name: str, heads: int) -> Projections:
    """The projections of the attention layer `name` of a model, which has `heads` heads."""
    module = model.get_submodule(name)
    parent = model.get_submodule(name.rpartition(".")[0]) if name else None
    output = output_of(module, parent, heads)
    made = family_of(module)
    found = None if made is None else _inputs(module, made, heads, output)
    query, key, value = found or (None, None, None)
    return Projections(query, key, value, output)


def output_of(module: nn.Module, parent: nn.Module | None, heads: int) -> Output | None:
    """The output projection of a layer, in the layer itself or in the module behind it."""
    if MIXED.search(_names(module)):
        return None
    places: list[tuple[Any, str]] = [(module, name) for name in OUTPUTS]
    places += [(getattr(module, "to_out", None), "0"), (getattr(parent, "output", None), "dense")]
    if parent is not None and isinstance(getattr(module, "query", None), nn.Module):
        places.append((parent, "output"))
    for holder, name in places:
        found = getattr(holder, name, None)
        width = in_features(found)
        if width is not None and width % heads == 0:
            return Output(*_map(holder, name), heads, width // heads)
    return None


def is_headwise(module: nn.Module) -> bool:
    """Whether the heads are changed before the output projection, each by itself and zeros to zeros."""
    return HEADWISE.search(_names(module)) is not None


def family_of(module: nn.Module) -> Family | None:
    """The row of the table that the layer is built by."""
    kind = _names(module)
    for row in FAMILIES:
        maps = {row.query, row.key, row.value, *(row.reads or ())}
        if re.search(row.classes, kind) and all(out_features(getattr(module, x, None)) for x in maps):
            return row
    return None


def _inputs(
    module: Any, row: Family, heads: int, output: Output | None
) -> tuple[Projection, Projection, Projection] | None:
    """Queries, keys and values where the widths fit: all heads of one size, the values' size that of the output."""
    widths = {name: out_features(getattr(module, name)) or 0 for name in (row.query, row.key, row.value)}
    names = {"q": row.query, "k": row.key, "v": row.value}
    of_value = output.size if output is not None else _size(module)
    if row.query == row.key:
        size = of_value or widths[row.query] // (3 * heads)
        few = (widths[row.query] // size - heads) // 2
        sizes = {"q": size, "k": size, "v": size}
    else:
        size = widths[row.query] // heads
        few = widths[row.key] // size if row.key != row.value else heads
        if row.key == row.value:
            both = widths[row.key] // few
            of_value = of_value or both // 2
            sizes = {"q": size, "k": both - of_value, "v": of_value}
        else:
            sizes = {"q": size, "k": size, "v": widths[row.value] // max(few, 1)}
    counts = {"q": heads, "k": few, "v": few}
    total = {name: sum(counts[k] * sizes[k] for k in "qkv" if names[k] == name) for name in widths}
    if few < 1 or heads % few or total != widths or of_value not in (None, sizes["v"]):
        return None
    groups = {"heads": heads, "key heads": few}.get(str(row.groups), row.groups)
    made = []
    for kind, bias in zip("qkv", row.biases, strict=True):
        starts = _starts(kind, names, counts, sizes, int(groups), row.order)
        made.append(Projection(*_map(module, names[kind]), starts, sizes[kind], getattr(module, bias, None)))
    return made[0], made[1], made[2]


def _starts(
    kind: str, names: dict[str, str], counts: dict[str, int], sizes: dict[str, int], groups: int, order: str
) -> tuple[int, ...]:
    """Where a kind's heads start, in the map that makes it (and maybe other kinds)."""
    inside = [k for k in order if names[k] == names[kind]]
    groups = groups if len(inside) > 1 else 1
    step = sum(counts[k] // groups * sizes[k] for k in inside)
    before = sum(counts[k] // groups * sizes[k] for k in inside[: inside.index(kind)])
    each = counts[kind] // groups
    return tuple(
        group * step + before + head * sizes[kind] for group in range(groups) for head in range(each)
    )


def readers(module: nn.Module) -> tuple[str | None, str | None]:
    """Names of the modules that read what queries and what keys are made of; None: the layer has none of its own.

    A layer without values of its own, or with keys of another layer, has no row in the table and still reads.
    """
    row = family_of(module)
    rows = FAMILIES if row is None else (row,)
    pairs = [x.reads or (x.query, x.key) for x in rows] + [("q_a_proj", "kv_a_proj_with_mqa")]
    query = next((q for q, _ in pairs if in_features(getattr(module, q, None))), None)
    key = next((k for _, k in pairs if in_features(getattr(module, k, None))), None)
    return query, None if getattr(module, "is_kv_shared_layer", False) else key


def projects(module: nn.Module) -> bool:
    """Whether the module is an attention layer with projections of its own."""
    named = any("Attention" in kind.__name__ for kind in type(module).__mro__)
    return named and any(isinstance(getattr(module, row.query, None), nn.Module) for row in FAMILIES)


def head_count(module: nn.Module) -> int | None:
    """Query heads: an attribute that says so, else a projection's width over the size of a head."""
    for name in _COUNTS:
        count = getattr(module, name, None)
        if isinstance(count, int):
            return count
    size = _size(module)
    widths = [in_features(getattr(module, name, None)) for name in OUTPUTS]
    widths += [out_features(getattr(module, row.query, None)) for row in FAMILIES if row.query != row.key]
    for width in widths:
        if size and width and width % size == 0:
            return width // size
    count = getattr(getattr(module, "config", None), "num_attention_heads", None)
    return count if isinstance(count, int) else None


def _size(module: nn.Module) -> int | None:
    return next((x for name in _SIZES if isinstance(x := getattr(module, name, None), int)), None)


def _names(module: nn.Module) -> str:
    """Names of the module's class and of those it inherits from."""
    return " ".join(kind.__name__ for kind in type(module).__mro__)


def _map(holder: Any, name: str) -> tuple[Any, nn.Module, str]:
    """(linear map, the module that has it, its name there): `name` of the holder, or what that wraps."""
    found = getattr(holder, name)
    inner = inside(found)
    return (found, holder, name) if inner is None else (inner, found, WRAPPED)


def inside(module: Any) -> nn.Linear | None:
    """The linear map that a module is a wrapper around (Gemma 4's clipped ones, Moshi's); None: it is no wrapper."""
    if (
        not isinstance(module, nn.Module)
        or list(module._modules) != [WRAPPED]
        or list(module.parameters(False))
    ):
        return None
    inner = module._modules[WRAPPED]
    return inner if isinstance(inner, nn.Linear) else None


def _is_conv(module: Any) -> bool:
    """Whether the module is transformers' Conv1D, a linear map whose weight is transposed."""
    return any(kind.__name__ == "Conv1D" for kind in type(module).__mro__)


def _rows_of(module: Any) -> Tensor:
    """The weight [rows out, columns in] of a linear map, as a view."""
    weight: Tensor = module.weight
    return weight.mT if _is_conv(module) else weight


def in_features(module: Any) -> int | None:
    """Width of a linear map's input; None: it is no linear map."""
    module = inside(module) or module
    if _is_conv(module):
        return int(module.weight.shape[0])
    width = getattr(module, "in_features", None)
    return width if isinstance(module, nn.Module) and isinstance(width, int) else None


def out_features(module: Any) -> int | None:
    """Width of a linear map's output; None: it is no linear map."""
    module = inside(module) or module
    if _is_conv(module):
        return int(module.weight.shape[1])
    width = getattr(module, "out_features", None)
    return width if isinstance(module, nn.Module) and isinstance(width, int) else None
