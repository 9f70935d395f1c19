"""The dropout pattern: one counter function, the same in every backend, forward and recomputation.

Element (b, j, n, m) is dropped by a hash of its coordinates and the seed, so that no pattern is ever
stored and any tile can be made alone. The hash is the 32-bit finaliser "lowbias32" (two multiplications,
three xor-shifts); all arithmetic is modulo 2**32:

    row     = (b * value_heads + j) * query_len + n                         64 bits
    row_key = hash(hash(low(row) ^ seed[0]) ^ high(row) ^ seed[1])
    kept    = (hash(row_key + m * 0x9E3779B9) >> 8) >= round(p * 2**24)
"""

import torch
from torch import Tensor


def _hash(x: Tensor) -> Tensor:
    """lowbias32 on int32, in place; a right shift is made logical by masking the sign's copies away."""
    x ^= (x >> 16) & 0xFFFF
    x *= 0x7FEB352D
    x ^= (x >> 15) & 0x1FFFF
    x *= 0x846CA68B - 2**32
    x ^= (x >> 16) & 0xFFFF
    return x


def keep_mask(seed: Tensor, rows: Tensor, memory_len: int, p: float) -> Tensor:
    """Which elements stay: bool [*rows.shape, memory_len] for int64 row numbers `rows`."""
    seed = seed.to(torch.int32)
    low, high = (rows & 0xFFFFFFFF).to(torch.int32), (rows >> 32).to(torch.int32)
    key = _hash(_hash(low ^ seed[0]) ^ high ^ seed[1])
    column = torch.arange(memory_len, device=rows.device, dtype=torch.int32) * (0x9E3779B9 - 2**32)
    return ((_hash(key[..., None] + column) >> 8) & 0xFFFFFF) >= round(p * 2**24)


def row_numbers(batch: Tensor, value_heads: int, query: Tensor, query_len: int) -> Tensor:
    """int64 [len(batch), value_heads, len(query)] for the batch elements and query positions given."""
    head = torch.arange(value_heads, device=query.device)
    return (batch[:, None, None] * value_heads + head[:, None]) * query_len + query
