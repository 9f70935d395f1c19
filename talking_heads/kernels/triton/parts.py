"""What the kernels share: tiles of heads, maps and masks, and the steps from scores to mixed weights.

A tile of pairs is [ROWS, COLUMNS, heads], rows being queries and columns memory positions; padding heads
hold zeros, and a map's rows and columns for them, too, so that they add nothing anywhere.
Mixing is one matrix product on [ROWS * COLUMNS, heads]; its operands have the inputs' dtype, its result
is float32.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
HIGHEST = tl.constexpr(3.4028234663852886e38)  # of float32: what a finite mask may become in base 2
GROUPS = tl.constexpr(8)  # warps, each of which sums a part of a map's gradient
STREAMS = tl.constexpr(8)  # rows of a matrix unit's result that one thread does not hold


@triton.jit
def load_heads(x, b, start, ROWS: tl.constexpr, GUARD: tl.constexpr):
    """x[b, :, start : start + ROWS]: [HEADS, ROWS, SIZE], zeros where there is nothing."""
    h = tl.arange(0, x.HEADS)[:, None, None]
    r = tl.arange(0, ROWS)[None, :, None]
    d = tl.arange(0, x.SIZE)[None, None, :]
    inside = (h < x.heads) & (d < x.size)
    if GUARD:
        inside = inside & (start + r < x.length)
    first = x.data + tl.cast(b, tl.int64) * x.batch + tl.cast(start, tl.int64) * x.position
    return tl.load(first + h * x.head + r * x.position + d, mask=inside, other=0.0)


@triton.jit
def store_heads(x, b, start, tile):
    ROWS: tl.constexpr = tile.shape[1]
    h = tl.arange(0, x.HEADS)[:, None, None]
    r = tl.arange(0, ROWS)[None, :, None]
    d = tl.arange(0, x.SIZE)[None, None, :]
    inside = (h < x.heads) & (d < x.size) & (start + r < x.length)
    first = x.data + tl.cast(b, tl.int64) * x.batch + tl.cast(start, tl.int64) * x.position
    tl.store(first + h * x.head + r * x.position + d, tile.to(x.data.dtype.element_ty), mask=inside)


@triton.jit
def finite(x):
    """0 for what is not finite: masked positions may hold anything."""
    return tl.where(tl.abs(x.to(tl.float32)) < float("inf"), x, 0.0)


@triton.jit
def clamped(x, call):
    """The same numbers where they are finite, else some finite number: enough before a product with 0."""
    return tl.minimum(tl.maximum(x, -call.LARGEST), call.LARGEST).to(x.dtype)  # bfloat16 stays it


@triton.jit
def per_head(call, b, start, ROWS: tl.constexpr):
    """Offsets and what is inside of [batch, query_len, heads], one number a row and softmax head."""
    n = start + tl.arange(0, ROWS)[:, None]
    h = tl.arange(0, call.logits.OUTS)[None, :]
    length = call.query.length
    offsets = (tl.cast(b, tl.int64) * length + n) * call.logits.outs + h
    return offsets, (n < length) & (h < call.logits.outs)


@triton.jit
def load_rows(x, call, b, start, ROWS: tl.constexpr, OTHER: tl.constexpr = 0.0):
    """[ROWS, heads] of x [batch, query_len, heads], OTHER where there is nothing."""
    offsets, inside = per_head(call, b, start, ROWS)
    return tl.load(x + offsets, mask=inside, other=OTHER)


@triton.jit
def load_normaliser(normalisers, call, b, start, ROWS: tl.constexpr):
    """(maximum, 1 / sum) of rows, each [ROWS, heads]. They stay apart: next to a maximum of 1e9 the logarithm of a
    sum is lost. Where there is nothing the maximum is inf: a mask reaches padding heads and rows, too, and their weights
    must be 0 whatever it holds."""
    tops, inverses = normalisers
    return load_rows(tops, call, b, start, ROWS, float("inf")), load_rows(inverses, call, b, start, ROWS)


@triton.jit
def softmax(x, normaliser):
    """Weights from logits in base 2."""
    top, inverse = normaliser
    return tl.exp2(x - top[:, None, :]) * inverse[:, None, :]


@triton.jit
def load_map(mix, call, b, start, ROWS: tl.constexpr, FLIP: tl.constexpr, DTYPE: tl.constexpr):
    """[INS, OUTS], or [ROWS, INS, OUTS] where it depends on the query; FLIP: transposed; None: identity."""
    if mix.static is None:
        return None
    else:
        if FLIP:
            i = tl.arange(0, mix.INS)[None, :]
            o = tl.arange(0, mix.OUTS)[:, None]
        else:
            i = tl.arange(0, mix.INS)[:, None]
            o = tl.arange(0, mix.OUTS)[None, :]
        offsets = i * mix.outs + o
        inside = (i < mix.ins) & (o < mix.outs)
        found = tl.load(mix.static + offsets, mask=inside, other=0.0)
        if mix.by_query is not None:
            n = start + tl.arange(0, ROWS)[:, None, None]
            first = (tl.cast(b, tl.int64) * call.query.length + n) * (mix.ins * mix.outs)
            there = inside[None, :, :] & (n < call.query.length)
            found = found[None, :, :] + tl.load(
                mix.by_query + first + offsets[None, :, :], mask=there, other=0.0
            )
            if ROWS == 1:
                found = tl.reshape(found, (found.shape[1], found.shape[2]))
        return found.to(DTYPE)


@triton.jit
def products(x, y, call):
    """[ROWS, COLUMNS, heads] float32 from x [heads, ROWS, size] and y [heads, COLUMNS, size]."""
    found = tl.dot(x, tl.permute(y, (0, 2, 1)), input_precision=call.PRECISION)
    return tl.permute(found, (1, 2, 0))


@triton.jit
def weighted(tile, y, total, call):
    """total [heads, ROWS, size] + the tile of pairs times y [heads, COLUMNS, size]."""
    x = tl.permute(tile, (2, 0, 1))
    return tl.dot(x.to(y.dtype), y, total, input_precision=call.PRECISION)


@triton.jit
def weighted_by_column(tile, x, total, call):
    """total [heads, COLUMNS, size] + the tile of pairs, transposed, times x [heads, ROWS, size]."""
    return tl.dot(tl.permute(tile, (2, 1, 0)).to(x.dtype), x, total, input_precision=call.PRECISION)


@triton.jit
def outer(x, y, total, call, DTYPE: tl.constexpr):
    """total [GROUPS, ins, outs] + the products of x's heads with y's, summed over the pairs of a group."""
    GROUPS: tl.constexpr = total.shape[0]
    PAIRS: tl.constexpr = x.shape[0] * x.shape[1] // GROUPS
    left = tl.permute(tl.reshape(x.to(DTYPE), (GROUPS, PAIRS, x.shape[2])), (0, 2, 1))
    right = tl.reshape(y.to(DTYPE), (GROUPS, PAIRS, y.shape[2]))
    return tl.dot(left, right, total, input_precision=call.PRECISION)


@triton.jit
def mixed(x, mix, call):
    """A tile of pairs through a map."""
    if mix is None:
        return x
    elif len(mix.shape) == 3:
        return tl.dot(x.to(mix.dtype), mix, input_precision=call.PRECISION)
    else:
        ROWS: tl.constexpr = x.shape[0]
        COLUMNS: tl.constexpr = x.shape[1]
        flat = tl.reshape(x.to(mix.dtype), (ROWS * COLUMNS, x.shape[2]))
        found = tl.dot(flat, mix, input_precision=call.PRECISION)
        return tl.reshape(found, (ROWS, COLUMNS, mix.shape[1]))


@triton.jit
def masked(x, call, b, n0, m0):
    """Logits in base 2 with the mask added and -inf where attention is forbidden."""
    ROWS: tl.constexpr = x.shape[0]
    COLUMNS: tl.constexpr = x.shape[1]
    n = n0 + tl.arange(0, ROWS)[:, None, None]
    m = m0 + tl.arange(0, COLUMNS)[None, :, None]
    h = tl.arange(0, x.shape[2])[None, None, :]
    allowed = m < call.key.length
    if call.is_causal:
        allowed = allowed & (m <= n)
    if call.mask is not None:
        offsets = tl.zeros((1, 1, 1), tl.int64)
        inside = offsets == 0
        if call.mask.batch is not None:
            offsets += tl.cast(b, tl.int64) * call.mask.batch
        if call.mask.head is not None:
            offsets += tl.cast(h, tl.int64) * call.mask.head  # 12 * 16384 ** 2 is above 31 bits
            inside = inside & (h < call.logits.outs)
        if call.mask.row is not None:
            offsets += tl.cast(n, tl.int64) * call.mask.row
            inside = inside & (n < call.query.length)
        if call.mask.column is not None:
            offsets += tl.cast(m, tl.int64) * call.mask.column
            inside = inside & (m < call.key.length)
        found = tl.load(call.mask.data + offsets, mask=inside, other=0)
        if call.mask.is_bool:
            allowed = allowed & (found != 0)
        else:
            found = found.to(tl.float32)
            allowed = allowed & (found != -float("inf"))
            x += tl.minimum(tl.maximum(found * LOG2E, -HIGHEST), HIGHEST)
    return tl.where(allowed, x, -float("inf"))


@triton.jit
def logits(scores, mix, call, b, n0, m0, GUARD: tl.constexpr):
    """Logits in base 2 from scores."""
    x = mixed(scores, mix, call) * call.to_log2
    if GUARD:
        x = masked(x, call, b, n0, m0)
    return x


@triton.jit
def _hash(x):
    x ^= x >> 16
    x *= 0x7FEB352D
    x ^= x >> 15
    x *= 0x846CA68B
    x ^= x >> 16
    return x


@triton.jit
def keep(call, b, n0, m0, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Which mixed weights stay, [ROWS, COLUMNS, value heads]: kernels/random.py's function."""
    n = n0 + tl.arange(0, ROWS)[:, None]
    j = tl.arange(0, call.weights.OUTS)[None, :]
    row = (tl.cast(b, tl.int64) * call.weights.outs + j) * call.query.length + n
    low = tl.load(call.dropout.seed).to(tl.uint32)
    high = tl.load(call.dropout.seed + 1).to(tl.uint32)
    key = _hash(_hash((row & 0xFFFFFFFF).to(tl.uint32) ^ low) ^ (row >> 32).to(tl.uint32) ^ high)
    m = (m0 + tl.arange(0, COLUMNS)).to(tl.uint32) * 0x9E3779B9
    return (_hash(key[:, None, :] + m[None, :, None]) >> 8) >= tl.cast(call.dropout.threshold, tl.uint32)


@triton.jit
def dropped(tile, call, b, n0, m0):
    """What is kept of a tile of pairs of value heads, scaled up; the same forward and backward."""
    if call.dropout is not None:
        kept = keep(call, b, n0, m0, tile.shape[0], tile.shape[1])
        tile = tl.where(kept, tile * call.dropout.kept, 0.0)
    return tile


@triton.jit
def multipliers(weights, mix, call, b, n0, m0):
    """From softmax weights to what multiplies the values: mixed, with bias and dropout."""
    x = mixed(weights, mix, call)
    if call.bias is not None:
        j = tl.arange(0, call.weights.OUTS)
        x += tl.load(call.bias + j, mask=j < call.weights.outs, other=0.0)[None, None, :]
    return dropped(x, call, b, n0, m0)
