"""Plain PyTorch in blocks of query rows: O(positions) memory. The backward recomputes each block.

    for each block of rows (of one batch element, or of several if all their rows fit):
        scores  [b, i, r, m]  = query keys^T
        logits  [b, h, r, m]  = logits_mix^T scores      one matrix product on the view [heads, r*m]
        weights, mixed, output likewise

The block size is chosen so that scores, logits and weights together fit in the last-level cache.
Only the inputs are kept between forward and backward.
"""

import os
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from .operator import empty_gradients, register
from .problem import Problem, factors
from .random import keep_mask, row_numbers


def refuses(problem: Problem) -> str | None:
    return None


def attention(problem: Problem) -> Tensor:
    return _operator(problem)


class _Block(NamedTuple):
    """The intermediate results of one block of rows, in compute_dtype."""

    batch: slice
    rows: slice
    query: Tensor  # [b, i, r, k]
    key: Tensor  # [b, i, m, k]
    value: Tensor  # [b, j, m, v]
    scores: Tensor  # [b, i, r, m]
    weights: Tensor  # [b, h, r, m]
    mixed: Tensor  # [b, j, r, m], before bias and dropout
    kept: Tensor | None  # [b, j, r, m]: 0 where dropped, 1/(1-p) elsewhere
    bad_value: Tensor | None  # [b, j, m, v]: where value is not finite (0 in `value`); None: nowhere


def _forward(p: Problem) -> tuple[Tensor, Tensor]:
    output = p.empty_output()
    for block in _blocks(p):
        output[block.batch, :, block.rows] = _weighted_sum(_dropped(p, block), block)
    return output, p.query.new_empty(0, dtype=p.compute_dtype)


def _backward(p: Problem, _saved: Tensor, grad_output: Tensor, needs: list[bool]) -> list[Tensor]:
    sums = [
        torch.zeros(x.shape, dtype=p.compute_dtype, device=x.device) if need else None  # type: ignore[union-attr]
        for x, need in zip(p[: len(needs)], needs, strict=True)
    ]
    for block in _blocks(p):
        part = grad_output[block.batch, :, block.rows].to(p.compute_dtype)
        _add_gradients(p, block, part, Problem(*sums, *p[len(sums) :]))  # type: ignore[arg-type]
    gradients = empty_gradients(p, needs)
    for gradient, total in zip(gradients, [x for x in sums if x is not None], strict=True):
        gradient.copy_(total)
    return gradients


def _add_gradients(p: Problem, block: _Block, grad_output: Tensor, grad: Problem) -> None:
    """Adds the gradients of one block to the accumulators in `grad`, whose fields are those of the inputs."""
    batch, rows = block.batch, block.rows
    if grad.value is not None:
        _add_product(grad.value[batch], _dropped(p, block).mT, grad_output)
    d_mixed = torch.matmul(grad_output, block.value.mT)
    if block.kept is not None:
        d_mixed *= block.kept
    if grad.weights_mix_bias is not None:
        grad.weights_mix_bias.add_(d_mixed.sum((0, 2, 3)))
    d_weights = _add_mix_gradients(
        d_mixed,
        block.weights,
        [p.weights_mix, p.query_weights_mix, p.memory_weights_mix],
        [grad.weights_mix, grad.query_weights_mix, grad.memory_weights_mix],
        batch,
        rows,
    )
    d_weights *= block.weights
    d_logits = d_weights.sub_(block.weights * d_weights.sum(-1, keepdim=True))
    if grad.mask is not None:
        _add_mask_gradient(grad.mask, d_logits, batch, rows)
    d_scores = _add_mix_gradients(
        d_logits,
        block.scores,
        [p.logits_mix, p.query_logits_mix, p.memory_logits_mix],
        [grad.logits_mix, grad.query_logits_mix, grad.memory_logits_mix],
        batch,
        rows,
    )
    d_scores *= p.scale
    if grad.query is not None:
        grad.query[batch, :, rows] = torch.matmul(d_scores, block.key)
    if grad.key is not None:
        _add_product(grad.key[batch], d_scores.mT, block.query)


def _add_mix_gradients(
    d_out: Tensor,
    x: Tensor,
    maps: list[Tensor | None],
    grads: list[Tensor | None],
    batch: slice,
    rows: slice,
) -> Tensor:
    """Backward of out = mix(x): adds to the gradients of (static, by query, by memory), returns that of x."""
    static, by_query, by_memory = grads
    if static is not None:
        groups = static.shape[:-2]
        static += torch.matmul(_by_group(x, groups).flatten(-2), _by_group(d_out, groups).flatten(-2).mT).sum(
            0
        )
    _, query_mix, memory_mix = maps
    if query_mix is not None and by_query is not None:
        _position_gradient(
            by_query[batch, rows], query_mix[batch, rows], *(y.transpose(1, 2) for y in (x, d_out))
        )
    if memory_mix is not None and by_memory is not None:
        _position_gradient(by_memory[batch], memory_mix[batch], *(y.permute(0, 3, 1, 2) for y in (x, d_out)))
    back = [None if mix is None else _transposed(mix) for mix in maps]
    return _mix(d_out, back[0], _part(back[1], batch, rows), _part(back[2], batch))


def _by_group(x: Tensor, groups: torch.Size) -> Tensor:
    """[b, heads, ...] -> [b, groups, heads / groups, ...]; x itself without groups."""
    return x.unflatten(1, (*groups, -1)) if groups else x


def _transposed(mix: Tensor) -> Tensor:
    """The transposed map, from output heads to input heads."""
    if mix.dim() < 5:
        return mix.mT
    rank = mix.shape[3] // 2
    return torch.cat((mix[:, :, :, rank : 2 * rank], mix[:, :, :, :rank], mix[:, :, :, 2 * rank :]), 3)


def _position_gradient(grad: Tensor, mix: Tensor, x: Tensor, d_out: Tensor) -> None:
    """Adds the gradient of a map by position; x and d_out are [b, positions, heads, others]."""
    if mix.dim() == 4:
        grad += torch.matmul(x, d_out.mT)
        return
    down, up, _ = factors(mix)
    for total, a, y in zip(
        factors(grad), (torch.matmul(up, d_out), torch.matmul(down, x)), (x, d_out), strict=False
    ):
        total += torch.matmul(a, y.mT)
    factors(grad)[2].add_((x * d_out).sum(-1))


def _blocks(p: Problem) -> Iterator[_Block]:
    b, h, n, m = p.sizes
    i, j = p.key.shape[1], p.value.shape[1]
    size = torch.finfo(p.compute_dtype).bits // 8
    fit = max(1, _cache_bytes(p.query.device) // ((i + h + j) * m * size))
    rows, elements = (n, min(b, fit // n)) if fit >= n else (fit, 1)
    for first in range(0, b, elements):
        batch = slice(first, min(first + elements, b))
        key, value = _finite(p.key[batch].to(p.compute_dtype)), _finite(p.value[batch].to(p.compute_dtype))
        for start in range(0, n, rows):
            yield _block(p, batch, slice(start, min(start + rows, n)), key, value)


def _finite(x: Tensor) -> tuple[Tensor, Tensor | None]:
    """x with 0 where it is not finite, and a mask of those elements (None: all finite). The mask later gives
    NaN to exactly the rows that attend to them."""
    bad = ~x.isfinite()
    return (x.masked_fill(bad, 0), bad) if bad.any() else (x, None)


@cache
def _cache_bytes(device: torch.device) -> int:
    """The size of a block: a third of the last-level cache, because its gradients need the same again. On a
    GPU four times the L2 cache, because small blocks leave the GPU idle."""
    if device.type == "cuda":
        return 4 * torch.cuda.get_device_properties(device).L2_cache_size
    for level, share in (("SC_LEVEL3_CACHE_SIZE", 1 / 3), ("SC_LEVEL2_CACHE_SIZE", 4)):
        try:
            size = os.sysconf(level)
        except (ValueError, OSError):  # this system does not have this name
            continue
        if size > 0:
            return int(size * share)
    return 8 * 2**20


def _block(
    p: Problem,
    batch: slice,
    rows: slice,
    key_and_bad: tuple[Tensor, Tensor | None],
    value_and_bad: tuple[Tensor, Tensor | None],
) -> _Block:
    (key, bad_key), (value, bad_value) = key_and_bad, value_and_bad
    query, bad_query = _finite(p.query[batch, :, rows].to(p.compute_dtype))
    scores = torch.matmul(query * p.scale, key.mT)
    if bad_key is not None:
        scores.masked_fill_(bad_key.any(-1)[..., None, :], torch.nan)
    if bad_query is not None:
        scores.masked_fill_(bad_query.any(-1)[..., :, None], torch.nan)
    by_query, by_memory = _part(p.query_logits_mix, batch, rows), _part(p.memory_logits_mix, batch)
    logits = _mix(scores, p.logits_mix, by_query, by_memory)
    weights = _softmax(logits.clone() if logits is scores else logits, p, batch, rows)
    if bad_key is not None or bad_query is not None:
        scores.masked_fill_(scores.isnan(), 0)  # a masked NaN would give 0 * NaN in the maps' gradients
    by_query, by_memory = _part(p.query_weights_mix, batch, rows), _part(p.memory_weights_mix, batch)
    mixed = _mix(weights, p.weights_mix, by_query, by_memory)
    kept = None if p.seed is None else _kept(p, batch, rows)
    return _Block(batch, rows, query, key, value, scores, weights, mixed, kept, bad_value)


def _kept(p: Problem, batch: slice, rows: slice) -> Tensor:
    (b, j, m, _), n = p.value.shape, p.query.shape[2]
    device = p.query.device
    numbers = row_numbers(torch.arange(b, device=device)[batch], j, torch.arange(n, device=device)[rows], n)
    assert p.seed is not None
    return keep_mask(p.seed, numbers, m, p.dropout_p).to(p.compute_dtype) / (1 - p.dropout_p)


def _part(mix: Tensor | None, batch: slice, rows: slice | None = None) -> Tensor | None:
    if mix is None:
        return None
    return mix[batch] if rows is None else mix[batch, rows]


def _mix(x: Tensor, static: Tensor | None, by_query: Tensor | None, by_memory: Tensor | None) -> Tensor:
    """[b, in, r, m] -> [b, out, r, m]; x itself without a map."""
    b, _, r, m = x.shape
    out = x
    if static is not None:
        # torch.matmul would transpose x to fold the batch into a single product
        groups = static.shape[:-2].numel()
        maps = static.mT.expand(b, *static.mT.shape).reshape(b * groups, *static.mT.shape[-2:])
        out = torch.bmm(maps, x.reshape(b * groups, -1, r * m)).view(b, -1, r, m)
    if by_query is not None:
        out = out + _mix_by_position(x.transpose(1, 2), by_query).transpose(1, 2)
    if by_memory is not None:
        out = out + _mix_by_position(x.permute(0, 3, 1, 2), by_memory).permute(0, 2, 3, 1)
    return out


def _mix_by_position(x: Tensor, mix: Tensor) -> Tensor:
    """[b, positions, in, others] -> [b, positions, out, others]"""
    if mix.dim() == 4:
        return torch.matmul(mix.mT, x)
    down, up, diagonal = factors(mix)
    return torch.matmul(up.mT, torch.matmul(down, x)) + diagonal[..., None] * x


def _softmax(logits: Tensor, p: Problem, batch: slice, rows: slice) -> Tensor:
    """Softmax over memory with mask and causality, overwriting logits. A fully masked row gives 0."""
    if p.mask is not None:
        mask = _mask_part(p.mask, batch, rows)
        if mask.dtype == torch.bool:
            logits.masked_fill_(~mask, -torch.inf)
        else:
            logits.add_(mask).masked_fill_(mask == -torch.inf, -torch.inf)
    if p.is_causal:
        row = torch.arange(rows.start, rows.stop, device=logits.device)
        later = torch.arange(logits.shape[-1], device=logits.device) > row[:, None]
        logits.masked_fill_(later, -torch.inf)
    if p.mask is None:  # then every row may attend to position 0, even if causal
        weights = torch.softmax(logits, -1)
        if not weights[..., 0].isnan().any():
            return weights
    nowhere = logits.amax(-1, keepdim=True) == -torch.inf
    return torch.softmax(logits.masked_fill_(nowhere, 0), -1).masked_fill_(nowhere, 0)


def _mask_part(mask: Tensor, batch: slice, rows: slice) -> Tensor:
    """The block's part of a mask; axes of size 1 are not cut."""
    return mask[batch if mask.shape[0] > 1 else slice(None), :, rows if mask.shape[2] > 1 else slice(None)]


def _add_mask_gradient(total: Tensor, d_logits: Tensor, batch: slice, rows: slice) -> None:
    part = _mask_part(total, batch, rows)
    part += d_logits.sum_to_size(part.shape)


def _dropped(p: Problem, block: _Block) -> Tensor:
    """The weights that multiply the values: mixed weights with bias and dropout."""
    mixed = block.mixed
    if p.weights_mix_bias is not None:
        mixed = mixed + p.weights_mix_bias[:, None, None]
    return mixed if block.kept is None else mixed * block.kept


def _weighted_sum(dropped: Tensor, block: _Block) -> Tensor:
    output = torch.matmul(dropped, block.value)
    if block.bad_value is not None:
        attended = torch.matmul((dropped != 0).to(dropped.dtype), block.bad_value.to(dropped.dtype)) > 0
        output.masked_fill_(attended, torch.nan)
    return output


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a b in place, without a copy of total."""
    total.flatten(0, 1).baddbmm_(a.flatten(0, 1), b.flatten(0, 1))


_operator = register("chunked", _forward, _backward)
