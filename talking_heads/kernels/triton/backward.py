"""Backward, by recomputation, in passes that write each number once (so it is deterministic):
`row_terms` and `query_gradient` go along memory for a tile of queries, `memory_gradient` along queries
for a tile of memory, `mask_gradient` along whatever the mask was broadcast over.

    d_mixed   = d_out value^T (with dropout)      weights_mix += weights^T d_mixed
    d_weights = d_mixed weights_mix^T             term = sum over memory of weights * d_weights
    d_logits  = weights * (d_weights - term)      logits_mix += scores^T d_logits,  mask += d_logits
    d_scores  = d_logits logits_mix^T             query += d_scores key,  key += d_scores^T query
                                                  value += mixed^T d_out
"""

import triton
import triton.language as tl

from .forward import scaled_query, span, tile_of_rows
from .parts import (
    GROUPS,
    STREAMS,
    clamped,
    dropped,
    finite,
    load_heads,
    load_map,
    load_normaliser,
    load_rows,
    logits,
    mixed,
    multipliers,
    outer,
    per_head,
    products,
    softmax,
    store_heads,
    weighted,
    weighted_by_column,
)


@triton.jit
def _total(wanted, A: tl.constexpr, B: tl.constexpr, C: tl.constexpr):
    """Zeros to sum into; one zero, not summed into, where the result is not wanted."""
    if wanted is None:
        return tl.zeros((1,), tl.float32)
    else:
        return tl.zeros((A, B, C), tl.float32)


@triton.jit
def _store_map_gradient(found, mix, call, b, n0, total, scale, PER_ROW: tl.constexpr):
    """total [ROWS or GROUPS, INS, OUTS] to found [b, n, ins, outs], or its sum to [b, tiles, ins, outs]."""
    i = tl.arange(0, mix.INS)[:, None]
    o = tl.arange(0, mix.OUTS)[None, :]
    inside = (i < mix.ins) & (o < mix.outs)
    offsets = i * mix.outs + o
    total = total * scale
    if PER_ROW:
        n = n0 + tl.arange(0, total.shape[0])[:, None, None]
        first = (tl.cast(b, tl.int64) * call.query.length + n) * (mix.ins * mix.outs)
        there = inside[None, :, :] & (n < call.query.length)
        tl.store(found + first + offsets[None, :, :], total, mask=there)
    else:
        first = (tl.cast(b, tl.int64) * tl.num_programs(0) + tl.program_id(0)) * (mix.ins * mix.outs)
        tl.store(found + first + offsets, tl.sum(total, 0), mask=inside)


@triton.jit
def _rows(call, d_out, normalisers, b, n0, ROWS: tl.constexpr, DTYPE: tl.constexpr):
    """What a tile of queries brings to every tile of memory: (query, d_out, logits_mix, weights_mix^T,
    normaliser)."""
    q = scaled_query(call, b, n0, ROWS)
    do = load_heads(d_out, b, n0, ROWS, True)
    logits_mix = load_map(call.logits, call, b, n0, ROWS, False, DTYPE)
    weights_back = load_map(call.weights, call, b, n0, ROWS, True, do.dtype)
    return q, do, logits_mix, weights_back, load_normaliser(normalisers, call, b, n0, ROWS)


@triton.jit
def _weights(call, scores, do, v, logits_mix, weights_back, normaliser, b, n0, m0, GUARD: tl.constexpr):
    """(weights, gradient of the mixed weights, gradient of the weights), tiles of pairs."""
    x = logits(scores, logits_mix, call, b, n0, m0, GUARD)
    weights = softmax(x, normaliser)
    d_mixed = products(do, v, call)
    if GUARD and (call.mask is not None or call.is_causal):
        d_mixed = finite(d_mixed)
    d_mixed = dropped(d_mixed, call, b, n0, m0)
    return weights, d_mixed, mixed(d_mixed, weights_back, call)


@triton.jit
def _row_terms_step(call, rows, totals, b, n0, m0, COLUMNS: tl.constexpr, GUARD: tl.constexpr):
    q, do, logits_mix, weights_back, normaliser = rows
    term, mix_total, bias_total = totals
    k = load_heads(call.key, b, m0, COLUMNS, GUARD)
    v = load_heads(call.value, b, m0, COLUMNS, GUARD)
    scores = products(q, k, call)
    weights, d_mixed, d_weights = _weights(
        call, scores, do, v, logits_mix, weights_back, normaliser, b, n0, m0, GUARD
    )
    ROWS: tl.constexpr = weights.shape[0]
    streams = tl.reshape(weights * d_weights, (ROWS, COLUMNS // STREAMS, STREAMS, weights.shape[2]))
    term += tl.sum(streams, 1)
    if len(mix_total.shape) > 1:
        mix_total = outer(weights, d_mixed, mix_total, call, do.dtype)
    if len(bias_total.shape) > 1:
        bias_total += tl.sum(d_mixed, 1)[:, None, :]
    return (term, mix_total, bias_total)


@triton.jit
def row_terms(
    call, d_out, normalisers, terms, d_weights_mix, d_bias,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DTYPE: tl.constexpr, PER_ROW: tl.constexpr,
):  # fmt: skip
    """terms [b, n, h]: sum over memory of weights times their gradients. And, where not None, the gradients
    of weights_mix (see _store_map_gradient) and of the bias, d_bias [b, tiles, value heads]."""
    n0 = tile_of_rows(call, ROWS)
    b = tl.program_id(2)
    HEADS: tl.constexpr = call.logits.OUTS
    rows = _rows(call, d_out, normalisers, b, n0, ROWS, DTYPE)
    term = tl.zeros((ROWS, STREAMS, HEADS), tl.float32)
    mix_total = _total(d_weights_mix, ROWS if PER_ROW else min(ROWS, GROUPS), HEADS, call.weights.OUTS)
    totals = (term, mix_total, _total(d_bias, ROWS, 1, call.weights.OUTS))
    first, full, _, last = span(call, n0, 0, 1, ROWS, COLUMNS)
    if call.mask is None:
        for m0 in range(first, full, COLUMNS):
            totals = _row_terms_step(call, rows, totals, b, n0, m0, COLUMNS, False)
    for m0 in range(full, last, COLUMNS):
        totals = _row_terms_step(call, rows, totals, b, n0, m0, COLUMNS, True)
    term, mix_total, bias_total = totals
    offsets, inside = per_head(call, b, n0, ROWS)
    tl.store(terms + offsets, tl.sum(term, 1), mask=inside)
    if d_weights_mix is not None:
        _store_map_gradient(d_weights_mix, call.weights, call, b, n0, mix_total, 1.0, PER_ROW)
    if d_bias is not None:
        j = tl.arange(0, call.weights.OUTS)
        tile = tl.cast(b, tl.int64) * tl.num_programs(0) + tl.program_id(0)
        total = tl.sum(tl.sum(bias_total, 0), 0)
        tl.store(d_bias + tile * call.weights.outs + j, total, mask=j < call.weights.outs)


@triton.jit
def _query_step(call, rows, logits_back, term, totals, b, n0, m0, COLUMNS: tl.constexpr, GUARD: tl.constexpr):
    q, do, logits_mix, weights_back, normaliser = rows
    total, mix_total = totals
    k = load_heads(call.key, b, m0, COLUMNS, GUARD)
    v = load_heads(call.value, b, m0, COLUMNS, GUARD)
    scores = products(q, k, call)
    weights, _, d_weights = _weights(
        call, scores, do, v, logits_mix, weights_back, normaliser, b, n0, m0, GUARD
    )
    d_logits = weights * (d_weights - term[:, None, :])
    if GUARD and (call.mask is not None or call.is_causal):
        scores = finite(scores)
        k = clamped(k, call)
    if len(mix_total.shape) > 1:
        mix_total = outer(scores, d_logits, mix_total, call, q.dtype)
    if len(total.shape) > 1:
        total = weighted(mixed(d_logits, logits_back, call), k, total, call)
    return (total, mix_total)


@triton.jit
def query_gradient(
    call, d_out, normalisers, terms, d_query, d_logits_mix,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DTYPE: tl.constexpr, PER_ROW: tl.constexpr,
):  # fmt: skip
    """d_query: Heads or None; the gradient of logits_mix (see _store_map_gradient) or None."""
    n0 = tile_of_rows(call, ROWS)
    HEADS: tl.constexpr = call.logits.OUTS
    b = tl.program_id(2)
    rows = _rows(call, d_out, normalisers, b, n0, ROWS, DTYPE)
    logits_back = load_map(call.logits, call, b, n0, ROWS, True, call.query.data.dtype.element_ty)
    term = load_rows(terms, call, b, n0, ROWS)
    total = _total(d_query, call.query.HEADS, ROWS, call.query.SIZE)
    mix_total = _total(d_logits_mix, ROWS if PER_ROW else min(ROWS, GROUPS), call.logits.INS, HEADS)
    totals = (total, mix_total)
    first, full, _, last = span(call, n0, 0, 1, ROWS, COLUMNS)
    if call.mask is None:
        for m0 in range(first, full, COLUMNS):
            totals = _query_step(call, rows, logits_back, term, totals, b, n0, m0, COLUMNS, False)
    for m0 in range(full, last, COLUMNS):
        totals = _query_step(call, rows, logits_back, term, totals, b, n0, m0, COLUMNS, True)
    total, mix_total = totals
    if d_query is not None:
        store_heads(d_query, b, n0, total * call.scale)
    if d_logits_mix is not None:
        unit = call.scale / call.UNIT
        _store_map_gradient(d_logits_mix, call.logits, call, b, n0, mix_total, unit, PER_ROW)


@triton.jit
def _maps(call, b, n0, ROWS: tl.constexpr, DTYPE: tl.constexpr, OPERAND: tl.constexpr):
    """(logits_mix, its transpose, weights_mix, its transpose)"""
    return (
        load_map(call.logits, call, b, n0, ROWS, False, DTYPE),
        load_map(call.logits, call, b, n0, ROWS, True, OPERAND),
        load_map(call.weights, call, b, n0, ROWS, False, OPERAND),
        load_map(call.weights, call, b, n0, ROWS, True, OPERAND),
    )


@triton.jit
def _memory_step(
    call, small_k, v, d_out, normalisers, terms, maps, totals, b, n0, m0,
    ROWS: tl.constexpr, GUARD: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    d_key, d_value = totals
    q = load_heads(call.query, b, n0, ROWS, True)
    do = load_heads(d_out, b, n0, ROWS, True)
    if call.logits.by_query is not None or call.weights.by_query is not None:
        maps = _maps(call, b, n0, ROWS, DTYPE, q.dtype)
    logits_mix, logits_back, weights_mix, weights_back = maps
    normaliser = load_normaliser(normalisers, call, b, n0, ROWS)
    scores = products(q, small_k, call)
    if len(d_key.shape) > 1:
        term = load_rows(terms, call, b, n0, ROWS)
        weights, _, d_weights = _weights(
            call, scores, do, v, logits_mix, weights_back, normaliser, b, n0, m0, GUARD
        )
        d_logits = weights * (d_weights - term[:, None, :])
        d_key = weighted_by_column(mixed(d_logits, logits_back, call), q, d_key, call)
    else:
        weights = softmax(logits(scores, logits_mix, call, b, n0, m0, GUARD), normaliser)
    if len(d_value.shape) > 1:
        tile = multipliers(weights, weights_mix, call, b, n0, m0)
        d_value = weighted_by_column(tile, do, d_value, call)
    return (d_key, d_value)


@triton.jit
def memory_gradient(
    call, d_out, normalisers, terms, d_key, d_value,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """d_key, d_value: Heads, one of which may be None."""
    m0 = tl.program_id(0) * COLUMNS
    b = tl.program_id(2)
    k = load_heads(call.key, b, m0, COLUMNS, True)
    v = load_heads(call.value, b, m0, COLUMNS, True)
    if call.mask is not None or call.is_causal:
        k = finite(k)
        v = finite(v)
    small_k = (k * call.UNIT).to(k.dtype)
    maps = _maps(call, b, 0, ROWS, DTYPE, k.dtype)
    key_total = _total(d_key, call.key.HEADS, COLUMNS, call.key.SIZE)
    totals = (key_total, _total(d_value, call.value.HEADS, COLUMNS, call.value.SIZE))
    first = 0
    full = 0  # from here on the tiles need no guard
    length = call.query.length
    if call.is_causal:
        first = m0 // ROWS * ROWS
        full = tl.cdiv(m0 + COLUMNS - 1, ROWS) * ROWS
    if call.mask is not None:
        full = length
    if call.mask is not None or call.is_causal:
        # without a mask few tiles are guarded: let those save registers
        STAGES: tl.constexpr = 1 if call.mask is None else None
        for n0 in tl.range(first, tl.minimum(full, length), ROWS, num_stages=STAGES):
            totals = _memory_step(
                call, small_k, v, d_out, normalisers, terms, maps, totals, b, n0, m0, ROWS, True, DTYPE
            )
    if call.mask is None:
        for n0 in range(full, length, ROWS):
            totals = _memory_step(
                call, small_k, v, d_out, normalisers, terms, maps, totals, b, n0, m0, ROWS, False, DTYPE
            )
    key_total, value_total = totals
    if d_key is not None:
        store_heads(d_key, b, m0, key_total * call.scale)
    if d_value is not None:
        store_heads(d_value, b, m0, value_total)


@triton.jit
def mask_gradient(
    call, d_out, normalisers, terms, found, batches,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """found: the mask's gradient; a program sums a tile of it over the axes it is broadcast over."""
    tiles = tl.cdiv(call.key.length, COLUMNS)  # both kinds on one axis of the grid: the others end at 65,535
    m0 = tl.program_id(0) % tiles * COLUMNS
    start = tl.program_id(0) // tiles * ROWS
    first = start
    last = start + ROWS
    if found.row is None:
        last = call.query.length
    if call.is_causal:
        first = tl.maximum(first, m0 // ROWS * ROWS)
    from_batch = tl.program_id(2)
    to_batch = from_batch + 1
    if found.batch is None:
        to_batch = batches
    total = tl.zeros((ROWS, COLUMNS, call.logits.OUTS), tl.float32)
    for b in range(from_batch, to_batch):
        k = finite(load_heads(call.key, b, m0, COLUMNS, True))
        v = finite(load_heads(call.value, b, m0, COLUMNS, True))
        for n0 in range(first, last, ROWS):
            q, do, logits_mix, weights_back, normaliser = _rows(call, d_out, normalisers, b, n0, ROWS, DTYPE)
            scores = products(q, k, call)
            weights, _, d_weights = _weights(
                call, scores, do, v, logits_mix, weights_back, normaliser, b, n0, m0, True
            )
            total += weights * (d_weights - load_rows(terms, call, b, n0, ROWS)[:, None, :])
    _store_mask_gradient(found, call, total, from_batch, start, m0)


@triton.jit
def _store_mask_gradient(found, call, total, b, n0, m0):
    m = m0 + tl.arange(0, total.shape[1])[None, :, None]
    offsets = tl.cast(m, tl.int64) * found.column
    inside = m < call.key.length
    if found.batch is not None:
        offsets += tl.cast(b, tl.int64) * found.batch
    if found.row is None:
        total = tl.sum(total, 0)[None, :, :]
    else:
        n = n0 + tl.arange(0, total.shape[0])[:, None, None]
        offsets = offsets + tl.cast(n, tl.int64) * found.row
        inside = inside & (n < call.query.length)
    if found.head is None:
        total = tl.sum(total, 2)[:, :, None]
    else:
        h = tl.arange(0, call.logits.OUTS)[None, None, :]
        offsets = offsets + tl.cast(h, tl.int64) * found.head
        inside = inside & (h < call.logits.outs)
    tl.store(found.data + offsets, total.to(found.data.dtype.element_ty), mask=inside)
