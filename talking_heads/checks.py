"""The one place that checks a call of the operator and brings it to the form that backends take.

Every refusal is a UserError: what is required; got what was given; what to do.
"""

from typing import Any, NoReturn

import torch
from torch import Tensor

from .kernels.operator import autocasts
from .kernels.problem import LowRankMix, Problem, heads_out
from .operands import FLOATS, causal_bias, fail, flag, fold_batch, on_device, operand, probability, scaled

_MASK = "pass a mask as attn_mask=..., which comes after the two maps"


def prepare(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    logits_mix: Tensor | None = None,
    weights_mix: Tensor | None = None,
    *,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    dropout_p: float = 0.0,
    scale: float | Tensor | None = None,
    query_logits_mix: Tensor | LowRankMix | None = None,
    memory_logits_mix: Tensor | LowRankMix | None = None,
    query_weights_mix: Tensor | LowRankMix | None = None,
    memory_weights_mix: Tensor | LowRankMix | None = None,
    weights_mix_bias: Tensor | None = None,
    enable_gqa: bool = False,
) -> Problem:
    """The checked call with one batch axis, without a dropout seed and with grouped heads not yet repeated (the
    dispatch does both)."""
    given = _heads(
        query, key, value, query_logits_mix, memory_logits_mix, query_weights_mix, memory_weights_mix
    )
    query, key, value = given["query"], given["key"], given["value"]
    is_causal, grouped, dropout_p = (
        flag("is_causal", is_causal),
        flag("enable_gqa", enable_gqa),
        probability(dropout_p),
    )
    masked = [name for name, on in (("attn_mask", attn_mask is not None), ("is_causal", is_causal)) if on]
    if attn_mask is not None:
        attn_mask, upper_left = causal_bias(attn_mask, query.shape[-2], key.shape[-2], query.device)
        is_causal = is_causal or upper_left
    if attn_mask is not None:
        attn_mask = on_device("attn_mask", attn_mask, query.device)
    low_rank = [
        name
        for name, x in (
            ("query_logits_mix", query_logits_mix),
            ("memory_logits_mix", memory_logits_mix),
            ("query_weights_mix", query_weights_mix),
            ("memory_weights_mix", memory_weights_mix),
        )
        if isinstance(x, tuple)
    ]
    if query.dim() != 4:
        given, attn_mask = fold_batch(given, attn_mask)
        query, key, value = given["query"], given["key"], given["value"]
    for name in low_rank:
        given[name] = given[name].unsqueeze(2)
    query, key, value = _one_dtype(query, key, value)
    if grouped:
        _divides(key, query.shape[1], "key", "query")
    _sizes(query, key, value, grouped)
    b, i, n, _ = query.shape
    m = key.shape[2]
    compute = torch.float64 if query.dtype == torch.float64 else torch.float32
    logits = [logits_mix, given["query_logits_mix"], given["memory_logits_mix"]]
    softmax_heads = _maps("logits_mix", logits, i, query, m, compute)
    weights = [weights_mix, given["query_weights_mix"], given["memory_weights_mix"]]
    heads = _maps("weights_mix", weights, softmax_heads, query, m, compute)
    if grouped:
        _divides(value, heads, "value", "weights_mix's value heads or, without a map, the softmax")
    elif value.shape[1] != heads:
        giver = "the softmax has" if weights_mix is None else "weights_mix gives"
        fail(
            f"value must have {heads} heads, as {giver}",
            value.shape[1],
            "give weights_mix as [softmax heads, value heads], or enable_gqa=True to repeat value heads",
        )
    if attn_mask is not None:
        attn_mask = _mask(attn_mask, (b, softmax_heads, n, m))
    if weights_mix_bias is not None:
        weights_mix_bias = _bias(weights_mix_bias, heads, query, compute, masked)
    query, factor = scaled(query, scale)
    return Problem(
        query=query,
        key=key,
        value=value,
        logits_mix=logits[0],
        weights_mix=weights[0],
        mask=attn_mask,
        query_logits_mix=logits[1],
        memory_logits_mix=logits[2],
        query_weights_mix=weights[1],
        memory_weights_mix=weights[2],
        weights_mix_bias=weights_mix_bias,
        seed=None,
        is_causal=is_causal,
        dropout_p=dropout_p,
        scale=factor,
    )


def _heads(query: Any, key: Any, value: Any, *maps: Any) -> dict[str, Any]:
    """Every tensor whose batch axes are query's, by name."""
    query = operand("query", query, "pass [batch, heads, positions, size]")
    if query.dim() < 3:
        fail("query must be [batch, heads, positions, size]", query, "add the missing axes")
    given = {"query": query, "key": key, "value": value}
    for name in ("key", "value"):
        x = given[name] = on_device(name, given[name], query.device)
        if x.dim() != query.dim():
            fail(f"{name} must be [batch, heads, positions, size] like query", x, "add or join axes")
    names = ("query_logits_mix", "memory_logits_mix", "query_weights_mix", "memory_weights_mix")
    for name, x in zip(names, maps, strict=True):
        if isinstance(x, tuple):
            given[name] = _packed(name, x, query)
        else:
            given[name] = None if x is None else _float_map(name, x, query)
    return given


def _packed(name: str, x: tuple[Any, ...], query: Tensor) -> Tensor:
    """LowRankMix as one tensor [batch, positions, 2 * rank + 1, heads]."""
    if len(x) not in (2, 3):
        fail(
            f"{name} must be a tensor or LowRankMix(down, up, diagonal)",
            f"{len(x)} tensors",
            "pass those three",
        )
    down, up = (_float_map(f"{name}.{part}", y, query) for part, y in zip(("down", "up"), x, strict=False))
    if down.dim() != query.dim() or 0 in down.shape[-2:]:
        fail(f"{name}.down must be [batch, positions, rank, heads]", down, "give a rank of at least 1")
    if up.shape != down.shape:
        fail(f"{name}.up must be {list(down.shape)} like down", up, "give both the same rank")
    shape = (*down.shape[:-2], down.shape[-1])
    diagonal = x[2] if len(x) == 3 else None
    diagonal = down.new_zeros(shape) if diagonal is None else _float_map(f"{name}.diagonal", diagonal, query)
    if diagonal.shape != shape:
        fail(
            f"{name}.diagonal must be {list(shape)}",
            diagonal,
            "give one number for each head of each position",
        )
    return torch.cat((down, up, diagonal.unsqueeze(-2)), -2)


def _one_dtype(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The three with a common float dtype, under autocast the autocast dtype."""
    kind = query.device.type
    if autocasts(kind) and query.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(kind)
        query, key, value = (x.to(dtype) if x.is_floating_point() else x for x in (query, key, value))
    if query.dtype in FLOATS and query.dtype == key.dtype == value.dtype:
        return query, key, value
    name, x = next(
        (name, x)
        for name, x in (("query", query), ("key", key), ("value", value))
        if x.dtype not in FLOATS or x.dtype != query.dtype
    )
    fail(
        "query, key and value must have one dtype of float64, float32, bfloat16 or float16",
        f"{name} of {x.dtype}" + ("" if name == "query" else f" with query of {query.dtype}"),
        "convert them with .to(dtype)",
    )


def _divides(x: Tensor, heads: int, name: str, other: str) -> None:
    few = x.shape[1]
    if few == 0 or heads % few:
        fail(
            f"with enable_gqa {name} heads must divide {other} heads ({heads})",
            few,
            f"repeat {name} to that count yourself, or change the projection",
        )


def _sizes(query: Tensor, key: Tensor, value: Tensor, grouped: bool) -> None:
    b, i, _, d = query.shape
    if d == 0 or i == 0:
        fail("query must have at least one head of at least size 1", query, "project to a positive size")
    if key.shape[0] != b or key.shape[3] != d:
        fail(
            f"key must be [batch {b}, heads, memory_len, head_dim {d}] like query",
            key,
            "project query and key to one head_dim",
        )
    if key.shape[1] != i and not grouped:
        fail(
            f"key must have query's {i} heads",
            key.shape[1],
            "project both to the same number of heads, or pass enable_gqa=True to repeat key heads",
        )
    if value.shape[0] != b or value.shape[2] != key.shape[2]:
        fail(
            f"value must be [batch {b}, heads, memory_len {key.shape[2]}, value_head_dim] like key",
            value,
            "project key and value from the same memory",
        )


def _maps(
    name: str,
    maps: list[Tensor | None],
    heads_in: int,
    query: Tensor,
    memory_len: int,
    compute: torch.dtype,
) -> int:
    """Brings [static, by query, by memory] to compute dtype in place; the heads that they give."""
    static, by_query, by_memory = maps
    heads = heads_in
    if static is not None:
        maps[0] = static = _static_map(name, static, heads_in, query, memory_len, compute)
        heads = heads_out(static)
    if by_query is None and by_memory is None:
        return heads
    if static is None:  # left out next to a dynamic one it is the identity
        full = [x for x in (by_query, by_memory) if x is not None and x.dim() != 5]
        if full:
            heads = full[0].shape[-1] if full[0].dim() == 4 else heads_in  # else refused below
            maps[0] = torch.eye(heads_in, heads, dtype=compute, device=query.device)
    batch, _, query_len, _ = query.shape
    for place, kind, x, length in ((1, "query", by_query, query_len), (2, "memory", by_memory, memory_len)):
        if x is None:
            continue
        if x.dim() == 5:
            _check_low_rank(f"{kind}_{name}", x, (batch, length), f"{kind}_len", heads_in, heads)
        elif x.shape != (batch, length, heads_in, heads):
            fail(
                f"{kind}_{name} must be [batch {batch}, {kind}_len {length}, heads in {heads_in}, heads out {heads}]",
                x,
                "give one map for each position, with the head counts of the static map",
            )
        maps[place] = x.to(compute)
    return heads


def _check_low_rank(
    name: str, x: Tensor, positions: tuple[int, int], length: str, ins: int, outs: int
) -> None:
    if ins != outs:
        fail(
            f"{name} as LowRankMix needs as many heads before as after the map",
            f"{ins} and {outs}",
            "pass a full map [batch, positions, heads in, heads out]",
        )
    if x.shape[:2] != positions or x.shape[-1] != ins:
        fail(
            f"{name}.down must be [batch {positions[0]}, {length} {positions[1]}, rank, heads {ins}]",
            x[:, :, 0, : x.shape[3] // 2],
            "give factors for each position",
        )


def _float_map(name: str, x: Any, query: Tensor) -> Tensor:
    x = on_device(name, x, query.device)
    if x.dtype not in FLOATS:
        todo = "convert it with .to(torch.float32)" if x.dtype != torch.bool else _MASK
        fail(f"{name} must have a float dtype", x.dtype, todo)
    return x


def _static_map(
    name: str, x: Any, heads_in: int, query: Tensor, memory_len: int, compute: torch.dtype
) -> Tensor:
    """In compute dtype; a single group is a full map."""
    x = _float_map(name, x, query)
    if x.dim() not in (2, 3) or x.shape[:-1].numel() != heads_in or x.shape[-1] == 0:
        _refuse_map(name, x, heads_in, (query.shape[2], memory_len))
    if x.dtype != compute:
        x = x.to(compute)
    return x[0] if x.dim() == 3 and x.shape[0] == 1 else x


def _refuse_map(name: str, x: Tensor, heads_in: int, pairs: tuple[int, int]) -> NoReturn:
    before = "key" if name == "logits_mix" else "softmax"
    todo = f"its first axis is the {before} heads: transpose it if it is stored [out, in]"
    if tuple(x.shape[-2:]) in (pairs, (1, pairs[1])):
        todo = _MASK
    if x.dim() not in (2, 3):
        fail(f"{name} must be [in, out] or [groups, in/groups, out/groups]", x, todo)
    shown = f"[{heads_in}, out]"
    if x.dim() == 3:
        shown = f"[groups, in/groups, out/groups] with in = {heads_in}"
    fail(f"{name} must be {shown}, from the {heads_in} {before} heads", x, todo)


def _mask(mask: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
    """Four dimensions, each 1 or full."""
    if mask.dtype != torch.bool and mask.dtype not in FLOATS:
        fail(
            "attn_mask must be bool (True: may attend) or float (added to the logits)",
            mask.dtype,
            "compare with a number (mask != 0) to get bool",
        )
    given = mask
    if mask.dim() < 4:
        mask = mask.view((1,) * (4 - mask.dim()) + tuple(mask.shape))
    # the full size first: where the batch is a symbol, whether it is 1 cannot be asked
    if mask.dim() != 4 or any(have not in (want, 1) for have, want in zip(mask.shape, shape, strict=True)):
        fail(
            f"attn_mask must broadcast to [batch {shape[0]}, {shape[1]} softmax heads, query_len {shape[2]}, "
            f"memory_len {shape[3]}]",
            given,
            "a padding mask [batch, memory_len] becomes mask[:, None, None, :]",
        )
    return mask


def _bias(bias: Any, heads: int, query: Tensor, compute: torch.dtype, masked: list[str]) -> Tensor:
    bias = _float_map("weights_mix_bias", bias, query)
    if bias.shape != (heads,):
        fail(f"weights_mix_bias must be [{heads} value heads]", bias, "give one number for each value head")
    if masked:
        fail(
            "weights_mix_bias adds to every weight, hence must come without attn_mask and is_causal",
            f"it with {' and '.join(masked)}",
            f"drop the bias or {' and '.join(masked)}: masked positions would leak through the bias",
        )
    return bias.to(compute)
