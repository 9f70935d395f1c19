"""The equation as einsums: the oracle. Any device, any float dtype; stores everything."""

import torch
from torch import Tensor, einsum

from .problem import Problem, factors
from .random import keep_mask, row_numbers


def refuses(problem: Problem) -> str | None:
    return None


def attention(problem: Problem) -> Tensor:
    return attention_with_weights(problem)[0]


def attention_with_weights(p: Problem) -> tuple[Tensor, Tensor, Tensor]:
    """(output, weights [b, h, n, m], mixed [b, j, n, m]), both weights before dropout, in query's dtype."""
    dtype = p.compute_dtype
    (query, bad_query), (key, bad_key), (value, bad_value) = (
        _finite(x.to(dtype)) for x in (p.query, p.key, p.value)
    )
    scores = p.scale * einsum("bink,bimk->binm", query, key)
    bad = bad_query.any(-1)[..., :, None] | bad_key.any(-1)[..., None, :]
    logits = _mix(scores, p.logits_mix, p.query_logits_mix, p.memory_logits_mix)
    if logits is not scores:
        bad = bad.any(1, keepdim=True)
    # After the mix, whose gradient would be 0 * NaN where a NaN is masked.
    logits = logits + _nan(bad, dtype)
    weights = _softmax(_masked(logits, p))
    mixed = _mix(weights, p.weights_mix, p.query_weights_mix, p.memory_weights_mix)
    if p.weights_mix_bias is not None:
        mixed = mixed + p.weights_mix_bias[:, None, None]
    dropped = mixed
    if p.seed is not None:
        b, j, n, m = mixed.shape
        rows = row_numbers(torch.arange(b, device=mixed.device), j, torch.arange(n, device=mixed.device), n)
        dropped = mixed * keep_mask(p.seed, rows, m, p.dropout_p) / (1 - p.dropout_p)
    output = einsum("bjnm,bjmv->bjnv", dropped, value)
    poisoned = einsum("bjnm,bjmv->bjnv", (dropped != 0).to(dtype), bad_value.to(dtype)) > 0
    output = output + _nan(poisoned, dtype)
    return tuple(x.to(p.query.dtype) for x in (output, weights, mixed))  # type: ignore[return-value]


def _finite(x: Tensor) -> tuple[Tensor, Tensor]:
    """x with 0 for what is not finite, and where that was: it reaches a query only where it is attended."""
    bad = ~x.isfinite()
    return x.masked_fill(bad, 0), bad


def _nan(where: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(where.shape, dtype=dtype, device=where.device).masked_fill(where, torch.nan)


def _mix(x: Tensor, static: Tensor | None, by_query: Tensor | None, by_memory: Tensor | None) -> Tensor:
    mixed = x if static is None else _mix_static(x, static)
    for mix, letter in ((by_query, "n"), (by_memory, "m")):
        if mix is not None and mix.dim() == 4:
            mixed = mixed + einsum(f"binm,b{letter}ih->bhnm", x, mix)
        elif mix is not None:
            down, up, diagonal = factors(mix)
            low = einsum(f"bhnm,b{letter}rh->brnm", x, down)
            mixed = mixed + einsum(f"brnm,b{letter}rh->bhnm", low, up)
            mixed = mixed + x * einsum(f"b{letter}h->bh{letter}", diagonal).unsqueeze(
                3 if letter == "n" else 2
            )
    return mixed


def _mix_static(x: Tensor, static: Tensor) -> Tensor:
    if static.dim() == 2:
        return einsum("binm,ih->bhnm", x, static)
    grouped = x.unflatten(1, static.shape[:2])
    return einsum("bginm,gih->bghnm", grouped, static).flatten(1, 2)


def _masked(logits: Tensor, p: Problem) -> Tensor:
    if p.mask is not None:
        allowed = p.mask if p.mask.dtype == torch.bool else p.mask != -torch.inf
        if p.mask.dtype != torch.bool:
            logits = logits + p.mask.masked_fill(~allowed, 0).to(logits.dtype)
        logits = logits.masked_fill(~allowed, -torch.inf)
    if p.is_causal:
        n, m = logits.shape[-2:]
        later = torch.ones(n, m, dtype=torch.bool, device=logits.device).triu(1)
        logits = logits.masked_fill(later, -torch.inf)
    return logits


def _softmax(logits: Tensor) -> Tensor:
    """Softmax over memory; a row that may attend nowhere is 0, not NaN."""
    nowhere = (logits == -torch.inf).all(-1, keepdim=True)
    return logits.masked_fill(nowhere, 0).softmax(-1).masked_fill(nowhere, 0)
