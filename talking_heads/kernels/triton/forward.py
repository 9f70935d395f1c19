"""Forward: `statistics` finds each row's maximum and sum, `values` computes the logits again (or, for few
queries, loads them), mixes the weights and sums the values. Memory may be split over programs."""

import triton
import triton.language as tl

from .parts import (
    STREAMS,
    clamped,
    load_heads,
    load_map,
    logits,
    multipliers,
    per_head,
    products,
    softmax,
    store_heads,
    weighted,
)


@triton.jit
def span(call, n0, split, splits, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """(first, full, clean, last): a program's columns. From `full` on a tile needs the guard of lengths,
    mask and causality; from `clean` on, values at positions masked for all queries may hold anything too."""
    last = call.key.length
    free = last
    if call.is_causal:
        last = tl.minimum(last, n0 + ROWS)
        free = tl.minimum(last, n0 + 1)
    part = tl.cdiv(tl.cdiv(last, splits), COLUMNS) * COLUMNS
    first = split * part
    last = tl.minimum(last, first + part)
    full = first
    if call.mask is None:
        full = first + tl.maximum(tl.minimum(free, last) - first, 0) // COLUMNS * COLUMNS
    clean = last
    if call.mask is not None:
        x = tl.load(call.suspect)
        clean = tl.where(x - x == 0, last, full)
    elif call.is_causal:
        clean = full
    return first, full, clean, last


@triton.jit
def tile_of_rows(call, ROWS: tl.constexpr):
    """The first row of this program; causal calls begin with the longest."""
    tile = tl.program_id(0)
    if call.is_causal:
        tile = tl.num_programs(0) - 1 - tile
    return tile * ROWS


@triton.jit
def scaled_query(call, b, n0, ROWS: tl.constexpr):
    q = load_heads(call.query, b, n0, ROWS, True)
    return (q * call.UNIT).to(q.dtype)


@triton.jit
def _statistics_step(call, kept, q, mix, top, total, b, n0, m0, COLUMNS: tl.constexpr, GUARD: tl.constexpr):
    ROWS: tl.constexpr = top.shape[0]
    HEADS: tl.constexpr = top.shape[2]
    k = load_heads(call.key, b, m0, COLUMNS, GUARD)
    x = logits(products(q, k, call), mix, call, b, n0, m0, GUARD)
    if kept is not None:
        n = n0 + tl.arange(0, ROWS)[:, None, None]
        m = m0 + tl.arange(0, COLUMNS)[None, :, None]
        h = tl.arange(0, HEADS)[None, None, :]
        row = tl.cast(b, tl.int64) * call.query.length + n
        inside = (n < call.query.length) & (m < call.key.length) & (h < call.logits.outs)
        tl.store(kept + (row * call.key.length + m) * call.logits.outs + h, x, mask=inside)
    x = tl.reshape(x, (ROWS, COLUMNS // STREAMS, STREAMS, HEADS))
    new = tl.maximum(top, tl.max(x, 1))
    base = new
    if GUARD:
        base = tl.where(new == -float("inf"), 0.0, new)
    total = total * tl.exp2(top - base) + tl.sum(tl.exp2(x - base[:, None, :, :]), 1)
    return new, total


@triton.jit
def statistics(call, found, kept, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DTYPE: tl.constexpr):
    """found: (maxima, sums), each [splits, b, n, h], over a split's columns; -inf and 0 where there are none.

    kept [b, n, m, h]: the logits, or None.
    """
    n0 = tile_of_rows(call, ROWS)
    split = tl.program_id(1)
    b = tl.program_id(2)
    q = scaled_query(call, b, n0, ROWS)
    mix = load_map(call.logits, call, b, n0, ROWS, False, DTYPE)
    HEADS: tl.constexpr = call.logits.OUTS
    top = tl.full((ROWS, STREAMS, HEADS), -float("inf"), tl.float32)
    total = tl.zeros((ROWS, STREAMS, HEADS), tl.float32)
    first, full, _, last = span(call, n0, split, tl.num_programs(1), ROWS, COLUMNS)
    for m0 in range(first, full, COLUMNS):
        top, total = _statistics_step(call, kept, q, mix, top, total, b, n0, m0, COLUMNS, False)
    for m0 in range(full, last, COLUMNS):
        top, total = _statistics_step(call, kept, q, mix, top, total, b, n0, m0, COLUMNS, True)
    highest = tl.max(top, 1)
    base = tl.where(highest == -float("inf"), 0.0, highest)
    total = tl.sum(total * tl.exp2(top - base[:, None, :]), 1)
    offsets, inside = per_head(call, b, n0, ROWS)
    offsets += tl.cast(split, tl.int64) * tl.num_programs(2) * call.query.length * call.logits.outs
    tops, totals = found
    tl.store(tops + offsets, highest, mask=inside)
    tl.store(totals + offsets, total, mask=inside)


@triton.jit
def _normaliser(call, found, b, n0, ROWS: tl.constexpr, SPLITS: tl.constexpr):
    """The splits' statistics together: (maximum, 1 / sum), each [ROWS, h]; inf and 0 for a row that may attend nowhere, and
    for padding, whose logits may be as large as a mask."""
    tops, totals = found
    offsets, inside = per_head(call, b, n0, ROWS)
    size = tl.cast(tl.num_programs(2), tl.int64) * call.query.length * call.logits.outs
    split = tl.arange(0, SPLITS)[:, None, None]
    there = (split < tl.num_programs(1)) & inside[None, :, :]
    offsets = split * size + offsets[None, :, :]
    parts = tl.load(tops + offsets, mask=there, other=-float("inf"))
    sums = tl.load(totals + offsets, mask=there, other=0.0)
    highest = tl.max(parts, 0)
    base = tl.where(highest == -float("inf"), float("inf"), highest)
    total = tl.sum(sums * tl.exp2(parts - base[None, :, :]), 0)
    return base, tl.where(total == 0, 0.0, 1 / total)


@triton.jit
def _values_step(
    call, kept, q, logits_mix, weights_mix, normaliser, total, b, n0, m0,
    COLUMNS: tl.constexpr, GUARD: tl.constexpr,
):  # fmt: skip
    ROWS: tl.constexpr = normaliser[0].shape[0]
    if kept is None:
        k = load_heads(call.key, b, m0, COLUMNS, GUARD > 0)
        x = logits(products(q, k, call), logits_mix, call, b, n0, m0, GUARD > 0)
    else:
        n = n0 + tl.arange(0, ROWS)[:, None, None]
        m = m0 + tl.arange(0, COLUMNS)[None, :, None]
        h = tl.arange(0, call.logits.OUTS)[None, None, :]
        row = tl.cast(b, tl.int64) * call.query.length + n
        inside = (n < call.query.length) & (m < call.key.length) & (h < call.logits.outs)
        x = tl.load(
            kept + (row * call.key.length + m) * call.logits.outs + h, mask=inside, other=-float("inf")
        )
    v = load_heads(call.value, b, m0, COLUMNS, GUARD > 0)
    tile = multipliers(softmax(x, normaliser), weights_mix, call, b, n0, m0)
    if GUARD == 2:  # only queries that attend to a value that is not finite see it
        bad = tl.permute(tl.sum(v * 0.0, 2), (1, 0)).to(tl.float32)  # NaN, or 0
        v = clamped(v, call)
        tile = tl.where(tile != 0, tile + bad[None, :, :], tile)
    return weighted(tile, v, total, call)


@triton.jit
def values(
    call, found, kept, normalisers, out,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, SPLITS: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """out: Heads, or with several splits their parts as more batch elements; normalisers: (maxima, 1 / sums), each [b, n, h]."""
    n0 = tile_of_rows(call, ROWS)
    split = tl.program_id(1)
    b = tl.program_id(2)
    q = None
    logits_mix = None
    if kept is None:
        q = scaled_query(call, b, n0, ROWS)
        logits_mix = load_map(call.logits, call, b, n0, ROWS, False, DTYPE)
    weights_mix = load_map(call.weights, call, b, n0, ROWS, False, call.value.data.dtype.element_ty)
    normaliser = _normaliser(call, found, b, n0, ROWS, SPLITS)
    if split == 0:
        offsets, inside = per_head(call, b, n0, ROWS)
        tops, inverses = normalisers
        tl.store(tops + offsets, normaliser[0], mask=inside)
        tl.store(inverses + offsets, normaliser[1], mask=inside)
    total = tl.zeros((call.value.HEADS, ROWS, call.value.SIZE), tl.float32)
    first, full, clean, last = span(call, n0, split, tl.num_programs(1), ROWS, COLUMNS)
    if call.mask is None:
        for m0 in range(first, full, COLUMNS):
            total = _values_step(
                call, kept, q, logits_mix, weights_mix, normaliser, total, b, n0, m0, COLUMNS, 0
            )
    if call.mask is not None or not call.is_causal:
        for m0 in range(full, clean, COLUMNS):
            total = _values_step(
                call, kept, q, logits_mix, weights_mix, normaliser, total, b, n0, m0, COLUMNS, 1
            )
    if call.mask is not None or call.is_causal:
        # seldom, so let it save registers
        for m0 in tl.range(clean, last, COLUMNS, num_stages=1, disable_licm=True):
            total = _values_step(
                call, kept, q, logits_mix, weights_mix, normaliser, total, b, n0, m0, COLUMNS, 2
            )
    store_heads(out, split * tl.num_programs(2) + b, n0, total)
