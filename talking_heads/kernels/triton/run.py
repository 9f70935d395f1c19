"""Which kernels run for a call, over which grid, with which tiles."""

from contextlib import nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..operator import empty_gradients
from ..problem import TENSORS, Problem
from . import backward as back
from . import forward as fore
from .arguments import arguments, heads, is_addressable, mask_of, packed
from .tiles import Tile, choose, choose_splits, is_few


def launch(name: str, kernel: Any, grid: tuple[int, ...], tile: Tile, *given: Any, **constants: Any) -> None:
    """Every launch; name: the tile's, which for `memory_gradient` says which sums it is for."""
    kernel[grid](
        *given,
        ROWS=tile.rows,
        COLUMNS=tile.columns,
        **constants,
        num_warps=tile.warps,
        num_stages=tile.stages,
        enable_fp_fusion=True,
    )


def forward(p: Problem) -> tuple[Tensor, Tensor]:
    """(output, the rows' maxima in base 2 and 1 / sums [2, b, n, h])"""
    b, h, n, m = p.sizes
    with _on(p.query.device):
        call = arguments(p, few=is_few(n))
        tile = _tile("statistics", p)
        splits = choose_splits(p, tile)
        grid = (triton.cdiv(n, tile.rows), splits, b)
        new = {"dtype": torch.float32, "device": p.query.device}
        found = tuple(torch.empty(2, splits, b, n, h, **new))  # type: ignore[call-overload]
        kept = torch.empty(b, n, m, h, **new) if is_few(n) else None  # type: ignore[call-overload]
        launch("statistics", fore.statistics, grid, tile, call, found, kept, DTYPE=scores_dtype(p))
        tile = _tile("values", p)
        grid = (triton.cdiv(n, tile.rows), splits, b)
        output, normalisers = p.empty_output(), torch.empty(2, b, n, h, **new)  # type: ignore[call-overload]
        parts = output
        if splits > 1:
            parts = torch.empty(splits * b, n, *output.shape[1::2], **new).transpose(1, 2)  # type: ignore[call-overload]
        launch(
            "values", fore.values, grid, tile, call, found, kept, tuple(normalisers), heads(parts),
            SPLITS=triton.next_power_of_2(splits), DTYPE=scores_dtype(p),
        )  # fmt: skip
        if splits > 1:
            output.copy_(parts.view(splits, *output.shape).sum(0))
    return output, normalisers


def backward(p: Problem, normalisers: Tensor, grad_output: Tensor, needs: list[bool]) -> list[Tensor]:
    """In this order: the rows' terms, what they serve, and what needs no terms."""
    gradients = empty_gradients(p, needs)
    found = iter(gradients)
    grad = Problem(*(next(found) if need else None for need in needs), *p[TENSORS:])  # type: ignore[arg-type]
    with _on(p.query.device):
        call = arguments(p)
        given: tuple[Any, ...] = (call, heads(packed(grad_output)), tuple(normalisers))
        given = (*given, _row_terms(p, given, grad))
        _query_gradient(p, given, grad)
        _memory_gradient(p, given, grad)
        if grad.mask is not None:
            _mask_gradient(p, given, grad.mask)
    return gradients


def scores_dtype(p: Problem) -> tl.constexpr:
    return tl.constexpr(tl.float32 if p.query.dtype == torch.float32 else tl.float16)


def _tile(kernel: str, p: Problem) -> Tile:
    tile = choose(kernel, p)
    assert tile is not None, kernel  # `refuses` has asked
    return tile


def _on(device: torch.device) -> Any:
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _row_terms(p: Problem, given: tuple[Any, ...], grad: Problem) -> Tensor | None:
    """terms [b, n, h], and the gradients of the maps of the weights and of the bias."""
    if all(x is None for x in (*grad[:2], *grad[3:TENSORS])):  # the value's gradient alone needs none
        return None
    b, h, n, _ = p.sizes
    tile = _tile("row_terms", p)
    tiles = triton.cdiv(n, tile.rows)
    terms = p.query.new_empty(b, n, h, dtype=torch.float32)
    mix = _map_gradient(p, grad.weights_mix, grad.query_weights_mix, tiles)
    bias = None
    if grad.weights_mix_bias is not None:
        bias = terms.new_empty(b, tiles, len(grad.weights_mix_bias))
    launch(
        "row_terms", back.row_terms, (tiles, 1, b), tile, *given, terms, mix, bias,
        PER_ROW=grad.query_weights_mix is not None, DTYPE=scores_dtype(p),
    )  # fmt: skip
    _sum_map_gradient(mix, grad.weights_mix, grad.query_weights_mix)
    if bias is not None:
        grad.weights_mix_bias.copy_(bias.sum((0, 1)))  # type: ignore[union-attr]
    return terms


def _query_gradient(p: Problem, given: tuple[Any, ...], grad: Problem) -> None:
    """The gradients of the query and of the maps of the logits."""
    if grad.query is None and grad.logits_mix is None and grad.query_logits_mix is None:
        return
    b, _, n, _ = p.sizes
    tile = _tile("query_gradient", p)
    tiles = triton.cdiv(n, tile.rows)
    mix = _map_gradient(p, grad.logits_mix, grad.query_logits_mix, tiles)
    query = _target(grad.query)
    launch(
        "query_gradient", back.query_gradient, (tiles, 1, b), tile, *given, None if query is None else heads(query), mix,
        PER_ROW=grad.query_logits_mix is not None, DTYPE=scores_dtype(p),
    )  # fmt: skip
    _copy(query, grad.query)
    _sum_map_gradient(mix, grad.logits_mix, grad.query_logits_mix)


def _memory_gradient(p: Problem, given: tuple[Any, ...], grad: Problem) -> None:
    """The gradients of key and value: in one kernel where a tile holds both sums."""
    if None not in (grad.key, grad.value) and choose("memory_gradient", p):
        _launch_memory("memory_gradient", p, given, grad.key, grad.value)
        return
    if grad.key is not None:
        _launch_memory("key_gradient", p, given, grad.key, None)
    if grad.value is not None:
        _launch_memory("value_gradient", p, given, None, grad.value)


def _launch_memory(name: str, p: Problem, given: tuple[Any, ...], key: Any, value: Any) -> None:
    tile = _tile(name, p)
    targets = _target(key), _target(value)
    views = (None if x is None else heads(x) for x in targets)
    grid = (triton.cdiv(p.key.shape[2], tile.columns), 1, p.key.shape[0])
    launch(name, back.memory_gradient, grid, tile, *given, *views, DTYPE=scores_dtype(p))
    for target, gradient in zip(targets, (key, value), strict=True):
        _copy(target, gradient)


def _mask_gradient(p: Problem, given: tuple[Any, ...], gradient: Tensor) -> None:
    if gradient.shape[3] == 1:  # one number for a whole row changes no softmax
        gradient.zero_()
        return
    b, _, n, m = p.sizes
    tile = _tile("mask_gradient", p)
    rows = triton.cdiv(n, tile.rows) if gradient.shape[2] > 1 else 1
    grid = (triton.cdiv(m, tile.columns) * rows, 1, b if gradient.shape[0] > 1 else 1)
    launch(
        "mask_gradient", back.mask_gradient, grid, tile, *given, mask_of(gradient), b, DTYPE=scores_dtype(p)
    )


def _map_gradient(p: Problem, static: Tensor | None, by_query: Tensor | None, tiles: int) -> Tensor | None:
    """Room for the gradient of a map: one for each query where it depends on that, else for each tile."""
    b, _, n, _ = p.sizes
    for gradient, count in ((by_query, n), (static, tiles)):
        if gradient is not None:
            return gradient.new_empty(b, count, *gradient.shape[-2:], dtype=torch.float32)
    return None


def _sum_map_gradient(found: Tensor | None, static: Tensor | None, by_query: Tensor | None) -> None:
    if static is not None and found is not None:
        static.copy_(found.sum((0, 1)))
    if by_query is not None and found is not None:
        by_query.copy_(found)


def _target(gradient: Tensor | None) -> Tensor | None:
    """What a kernel can write: the gradient itself, if that is."""
    if gradient is None or is_addressable(gradient):
        return gradient
    return packed(torch.empty(gradient.shape, dtype=gradient.dtype, device=gradient.device))


def _copy(target: Tensor | None, gradient: Tensor | None) -> None:
    if gradient is not None and target is not None and target is not gradient:
        gradient.copy_(target)
