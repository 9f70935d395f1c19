"""The one place that checks a call of the operator and brings it to the form that backends take.

Every message has one form: what must hold; got what came; how to mend it.
"""

from typing import NoReturn

import torch
from torch import Tensor

from .kernels.operator import autocasts
from .kernels.problem import Problem

_FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def fail(must: str, came: object, mend: str, error: type[Exception] = ValueError) -> NoReturn:
    if isinstance(came, Tensor):
        came = f"shape {list(came.shape)}"
    raise error(f"talking_heads_attention: {must}; got {came}; {mend}")


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
    scale: float | None = None,
    query_logits_mix: Tensor | None = None,
    memory_logits_mix: Tensor | None = None,
    query_weights_mix: Tensor | None = None,
    memory_weights_mix: Tensor | None = None,
    weights_mix_bias: Tensor | None = None,
    enable_gqa: bool = False,
) -> Problem:
    """The checked call, without a dropout seed and with grouped heads not yet repeated (both are the
    dispatch's); sizes of zero are let through."""
    query, key, value = _heads(query, key, value)
    if enable_gqa:
        _divides(key, query.shape[1], "key", "query")
    _sizes(query, key, value, enable_gqa)
    b, i, n, d = query.shape
    m = key.shape[2]
    compute = torch.float64 if query.dtype == torch.float64 else torch.float32
    softmax_heads, logits = _maps(
        "logits_mix", (logits_mix, query_logits_mix, memory_logits_mix), i, query, m, compute
    )
    heads, weights = _maps(
        "weights_mix", (weights_mix, query_weights_mix, memory_weights_mix), softmax_heads, query, m, compute
    )
    if enable_gqa:
        _divides(value, heads, "value", "weights_mix's value heads or, without a map, the softmax")
    elif value.shape[1] != heads:
        giver = "the softmax has" if weights_mix is None else "weights_mix gives"
        fail(
            f"value must have {heads} heads, as {giver}",
            value.shape[1],
            "give weights_mix as [softmax heads, value heads], or enable_gqa=True to repeat value heads",
        )
    mask = None
    if attn_mask is not None:
        mask = _mask(attn_mask, (b, softmax_heads, n, m), query)
    if weights_mix_bias is not None:
        weights_mix_bias = _bias(weights_mix_bias, heads, query, compute, mask is not None or is_causal)
    if not 0 <= dropout_p < 1:
        fail("dropout_p must be at least 0 and less than 1", dropout_p, "pass the share of weights to drop")
    return Problem(
        query,
        key,
        value,
        logits[0],
        weights[0],
        mask,
        *logits[1:],
        *weights[1:],
        weights_mix_bias,
        None,
        bool(is_causal),
        float(dropout_p),
        d**-0.5 if scale is None else float(scale),
    )


Maps = tuple[Tensor | None, Tensor | None, Tensor | None]  # static, by query, by memory position


def _maps(
    name: str, given: Maps, heads_in: int, query: Tensor, memory_len: int, compute: torch.dtype
) -> tuple[int, Maps]:
    """(heads after these maps, the maps in compute dtype)."""
    static, by_query, by_memory = given
    heads = heads_in
    if static is not None:
        static = _static_map(name, static, heads_in, query, compute)
        heads = static.shape[1]
    if by_query is None and by_memory is None:
        return heads, (static, None, None)
    if static is None:  # left out beside a dynamic one it is the identity
        kind, first = next(
            (kind, x) for kind, x in (("query", by_query), ("memory", by_memory)) if x is not None
        )
        _float_map(f"{kind}_{name}", first, query)
        heads = first.shape[-1] if first.dim() == 4 else heads_in  # else refused below
        static = torch.eye(heads_in, heads, dtype=compute, device=query.device)
    batch, _, query_len, _ = query.shape
    if by_query is not None:
        shape = (batch, query_len, heads_in, heads)
        by_query = _dynamic_map(f"query_{name}", by_query, shape, query, compute)
    if by_memory is not None:
        shape = (batch, memory_len, heads_in, heads)
        by_memory = _dynamic_map(f"memory_{name}", by_memory, shape, query, compute)
    return heads, (static, by_query, by_memory)


def _heads(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The three with a common float dtype, under autocast the autocast dtype."""
    for name, x in (("query", query), ("key", key), ("value", value)):
        if not isinstance(x, Tensor):
            fail(
                f"{name} must be a tensor",
                type(x).__name__,
                "pass [batch, heads, positions, size]",
                TypeError,
            )
        if x.dim() != 4:
            fail(f"{name} must be [batch, heads, positions, size]", x, "add or join axes")
        if x.device != query.device:
            fail(f"{name} must be on query's device {query.device}", x.device, "move it there")
    kind = query.device.type
    if autocasts(kind) and query.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(kind)
        query, key, value = (x.to(dtype) if x.is_floating_point() else x for x in (query, key, value))
    if query.dtype in _FLOATS and query.dtype == key.dtype == value.dtype:
        return query, key, value
    name, x = next(
        (name, x)
        for name, x in (("query", query), ("key", key), ("value", value))
        if x.dtype not in _FLOATS or x.dtype != query.dtype
    )
    fail(
        "query, key and value must have one dtype of float64, float32, bfloat16 or float16",
        f"{name} of {x.dtype} beside query of {query.dtype}",
        "convert them with .to(dtype)",
        TypeError,
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
            "give both num_key_heads heads, or enable_gqa=True to repeat key heads",
        )
    if value.shape[0] != b or value.shape[2] != key.shape[2]:
        fail(
            f"value must be [batch {b}, heads, memory_len {key.shape[2]}, value_head_dim] like key",
            value,
            "project key and value from the same memory",
        )


def _on_device(name: str, x: Tensor, query: Tensor) -> None:
    if not isinstance(x, Tensor):
        fail(f"{name} must be a tensor", type(x).__name__, "pass a tensor or None", TypeError)
    if x.device != query.device:
        fail(f"{name} must be on query's device {query.device}", x.device, "move it there")


def _float_map(name: str, x: Tensor, query: Tensor) -> None:
    _on_device(name, x, query)
    if x.dtype not in _FLOATS:
        fail(f"{name} must have a float dtype", x.dtype, "convert it with .to(torch.float32)", TypeError)


def _static_map(name: str, x: Tensor, heads_in: int, query: Tensor, compute: torch.dtype) -> Tensor:
    """[in, out] in compute dtype; groups become blocks on the diagonal."""
    _float_map(name, x, query)
    before = "key" if name == "logits_mix" else "softmax"
    if x.dim() not in (2, 3):
        fail(f"{name} must be [in, out] or [groups, in/groups, out/groups]", x, "drop the other axes")
    count = x.shape[0] if x.dim() == 2 else x.shape[0] * x.shape[1]
    if count != heads_in or x.shape[-1] == 0:
        shown = (
            f"[{heads_in}, out]" if x.dim() == 2 else f"[groups, in/groups, out/groups] with in = {heads_in}"
        )
        fail(
            f"{name} must be {shown}, from the {heads_in} {before} heads",
            x,
            f"its first axis is the {before} heads: transpose it if it is stored [out, in]",
        )
    if x.dtype != compute:
        x = x.to(compute)
    return x if x.dim() == 2 else torch.block_diag(*x.unbind(0))


def _dynamic_map(
    name: str, x: Tensor, shape: tuple[int, int, int, int], query: Tensor, compute: torch.dtype
) -> Tensor:
    _float_map(name, x, query)
    if x.shape != shape:
        length = "query_len" if name.startswith("query") else "memory_len"
        wanted = f"[batch {shape[0]}, {length} {shape[1]}, heads in {shape[2]}, heads out {shape[3]}]"
        fail(
            f"{name} must be {wanted}",
            x,
            "give one map for each position, with the head counts of the static map",
        )
    return x.to(compute)


def _mask(mask: Tensor, shape: tuple[int, int, int, int], query: Tensor) -> Tensor:
    """Four dimensions, each 1 or full."""
    _on_device("attn_mask", mask, query)
    if mask.dtype != torch.bool and mask.dtype not in _FLOATS:
        fail(
            "attn_mask must be bool (True: may attend) or float (added to the logits)",
            mask.dtype,
            "compare with a number (mask != 0) to get bool",
            TypeError,
        )
    given = mask
    if mask.dim() < 4:
        mask = mask.view((1,) * (4 - mask.dim()) + tuple(mask.shape))
    if mask.dim() != 4 or any(have not in (1, want) for have, want in zip(mask.shape, shape, strict=True)):
        fail(
            f"attn_mask must broadcast to [batch {shape[0]}, {shape[1]} softmax heads, query_len {shape[2]}, "
            f"memory_len {shape[3]}]",
            given,
            "a padding mask [batch, memory_len] becomes mask[:, None, None, :]",
        )
    return mask


def _bias(bias: Tensor, heads: int, query: Tensor, compute: torch.dtype, masked: bool) -> Tensor:
    _float_map("weights_mix_bias", bias, query)
    if bias.shape != (heads,):
        fail(f"weights_mix_bias must be [{heads} value heads]", bias, "give one number for each value head")
    if masked:
        fail(
            "weights_mix_bias adds to every weight, hence must come without attn_mask and is_causal",
            "both",
            "drop the bias or the mask: masked positions would leak through it",
        )
    return bias.to(compute)
