"""Which tile each kernel takes: the table's where it has one, else the first candidate that fits.

A tile is `rows` queries by `columns` memory positions, of all heads at once. `tiles.json` holds, by compute
capability, what compiling ahead of time chose; `benchmarks/gpu_compile.py --tiles` fills it.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..problem import Problem

FEW = 16  # queries so few that their logits are kept, not computed twice: a step of decoding
TABLE = Path(__file__).with_name("tiles.json")
FORWARD = ("statistics", "values")
BACKWARD = ("row_terms", "query_gradient", "key_gradient", "value_gradient")


class Tile(NamedTuple):
    rows: int
    columns: int
    warps: int
    stages: int


class Limits(NamedTuple):
    """What a device offers one program."""

    capability: int  # 80 for 8.0
    shared_bytes: int
    processors: int


# By kernel, in order of preference: the more rows (or, where a program goes along queries, columns), the
# less often memory is read. The last ones are for GPUs with little shared memory.
_LEAST = (Tile(16, 16, 8, 2), Tile(16, 16, 8, 1), Tile(8, 16, 8, 1))
_ALONG_QUERIES = (
    Tile(32, 16, 8, 1),
    Tile(16, 16, 8, 2),
    Tile(16, 16, 8, 1),
    Tile(16, 8, 8, 2),
    Tile(16, 8, 8, 1),
    Tile(16, 4, 8, 1),
)
CANDIDATES: dict[str, tuple[Tile, ...]] = {
    "statistics": (Tile(64, 16, 8, 2), Tile(32, 16, 8, 3), Tile(32, 16, 8, 2), *_LEAST),
    "values": (Tile(32, 16, 8, 3), Tile(32, 16, 8, 2), Tile(16, 32, 8, 2), *_LEAST),
    "row_terms": (Tile(32, 16, 8, 2), Tile(32, 16, 8, 1), *_LEAST),
    "query_gradient": (*_LEAST[:2], Tile(16, 16, 16, 1), *_LEAST[2:]),
    "memory_gradient": _ALONG_QUERIES,
    "key_gradient": _ALONG_QUERIES,
    "value_gradient": (Tile(16, 32, 8, 2), *_ALONG_QUERIES),
    "mask_gradient": (*_LEAST, Tile(16, 4, 8, 1)),
}
_FLOAT32 = (Tile(8, 8, 8, 1),)  # larger ones spill
_ONE_QUERY = (Tile(1, 16, 8, 3), Tile(1, 16, 8, 2), Tile(1, 16, 8, 1))
INTERPRETED = Tile(16, 16, 8, 1)
# Shared memory that a program may take: A100, RTX 3090, RTX 4090, H100, B200, RTX 5090
SHARED_BYTES = {
    80: 163 * 1024,
    86: 99 * 1024,
    89: 99 * 1024,
    90: 227 * 1024,
    100: 227 * 1024,
    120: 99 * 1024,
}
PROCESSORS = 108  # of an A100


class Kind(NamedTuple):
    """What a tile depends on: heads and sizes padded as the kernels pad them."""

    key_heads: int
    heads: int
    value_heads: int
    size: int  # of a key head
    value_size: int
    bits: int  # of a number of the inputs
    one_query: bool
    by_query: bool  # maps that depend on the query
    full_mask: bool  # a mask over heads, queries and memory, a tile of which takes room
    masked: bool  # any other
    dropout: bool
    is_causal: bool

    def __str__(self) -> str:
        words = [
            f"{self.key_heads}/{self.heads}/{self.value_heads}x{self.size}/{self.value_size}",
            f"{self.bits} bits",
            "one query" * self.one_query,
            "maps by query" * self.by_query,
            "full mask" * self.full_mask,
            "masked" * self.masked,
            "dropout" * self.dropout,
            "causal" * self.is_causal,
        ]
        return ", ".join(word for word in words if word)

    def nearest(self) -> list["Kind"]:
        """Those whose tiles serve, nearest first: what else is dropped takes registers, but little memory."""
        drops = ((), ("is_causal",), ("is_causal", "dropout"), ("is_causal", "dropout", "masked"))
        return [self._replace(**dict.fromkeys(names, False)) for names in drops]


def kind(p: Problem) -> Kind:
    found = Kind(
        pad(p.query.shape[1]),
        pad(p.sizes[1]),
        pad(p.value_heads),
        pad(p.query.shape[3]),
        pad(p.value.shape[3]),
        bits=8 * p.query.element_size(),
        one_query=False,
        by_query=p.is_dynamic,
        full_mask=False,
        masked=p.mask is not None,
        dropout=False,
        is_causal=p.is_causal,
    )
    if p.mask is not None and 1 not in p.mask.shape[1:]:  # an `if` is a guard of torch.compile's
        found = found._replace(full_mask=True, masked=False)
    if p.dropout_p > 0:
        found = found._replace(dropout=True)
    return found._replace(one_query=True) if p.query.shape[2] == 1 else found


def pad(count: int) -> int:
    """To a power of two that the matrix units take; by comparisons, which torch.compile turns into guards."""
    size = 16
    while size < count:
        size *= 2
    return size


@cache
def limits(device: torch.device) -> Limits:
    if device.type != "cuda":  # the interpreter, which holds what the process can
        return Limits(0, 2**62, 1)
    if not torch.cuda.is_available():  # fake tensors, to trace a call where it will not run
        return Limits(80, SHARED_BYTES[80], PROCESSORS)
    found: Any = torch.cuda.get_device_properties(device)
    capability = 10 * found.major + found.minor
    return Limits(capability, found.shared_memory_per_block_optin, found.multi_processor_count)


def is_few(queries: int) -> bool:
    return queries <= FEW


def candidates(kernel: str, kind: Kind, device: Limits) -> list[Tile]:
    """The tiles that fit, best first."""
    if kernel in FORWARD and kind.one_query:
        known: tuple[Tile, ...] = _ONE_QUERY
    elif device.capability == 0:
        known = (INTERPRETED,)
    elif kind.bits == 32:
        known = _FLOAT32
    else:
        known = CANDIDATES[kernel]
    return [tile for tile in known if shared_bytes(kernel, kind, tile) <= device.shared_bytes]


def choose(kernel: str, p: Problem) -> Tile | None:
    """None: no tile fits."""
    return _choose(kernel, kind(p), limits(p.query.device))


@cache
def _choose(kernel: str, kind: Kind, device: Limits) -> Tile | None:
    for capability in sorted(map(int, table()), reverse=True):
        if capability > device.capability or SHARED_BYTES[capability] > device.shared_bytes:
            continue
        for near in kind.nearest():
            listed = table()[str(capability)].get(str(near), {})
            if kernel in listed:
                tile = listed[kernel]
                return None if tile is None else Tile(*tile)
    return next(iter(candidates(kernel, kind, device)), None)


def unable(p: Problem) -> str | None:
    """Why the device cannot run a call; None if it can."""
    tensors = [x for x in p if isinstance(x, torch.Tensor)]
    trains = torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
    return _unable(str(p.query.device), trains, *kind(p))


def _unable(device: str, trains: bool, *fields: int) -> str | None:
    if torch.version.hip is not None:
        return "it is for NVIDIA GPUs"
    found, given = limits(torch.device(device)), Kind(*fields)  # type: ignore[arg-type]
    if 0 < found.capability < 80:
        return "it needs a GPU of compute capability 8.0 (Ampere) or more"
    gradients = BACKWARD + ("mask_gradient",) * (given.masked or given.full_mask)
    for kernel in FORWARD + gradients * trains:
        if _choose(kernel, given, found) is None:
            room = f"{found.shared_bytes // 1024} KiB of shared memory"
            return f"no tile of {kernel} for heads padded to {given} fits {room}"
    return None


# As torch.compiler.assume_constant_result does, whose import of torch._dynamo takes as long as torch's own.
_unable._dynamo_marked_constant = True  # type: ignore[attr-defined]


def choose_splits(p: Problem, tile: Tile) -> int:
    """Over how many programs to split memory, so that few queries keep the whole GPU busy."""
    b, _, n, m = p.sizes
    programs = b * -(-n // tile.rows)
    wanted = 2 * limits(p.query.device).processors // programs
    most = 64 if is_few(n) else 8  # parts of the output are kept in float32
    return max(1, min(wanted, most, m // (4 * tile.columns)))


@cache
def table() -> dict[str, dict[str, dict[str, list[int] | None]]]:
    """{capability: {kind: {kernel: tile, or None: none fits}}}"""
    return json.loads(TABLE.read_text()) if TABLE.exists() else {}


def shared_bytes(kernel: str, kind: Kind, tile: Tile) -> int:
    """At most what a program takes: tiles that stay, tiles that stream in, and room to change layouts."""
    i, h, j, k, v = kind[:5]
    size = kind.bits // 8
    rows = [tile.rows * i * k * size, tile.rows * j * v * size]
    columns = [tile.columns * i * k * size, tile.columns * j * v * size]
    along_queries = kernel in ("memory_gradient", "key_gradient", "value_gradient", "mask_gradient")
    stay, stream = (columns, rows) if along_queries else (rows, columns)
    if kernel in FORWARD or kernel == "value_gradient":
        stay = stay[:1]
    if kernel == "statistics":
        stream = stream[:1]
    streamed = sum(stream) * max(1, tile.stages - 1)
    if tile.stages == 1 and not along_queries and tile.warps <= 8 and size == 2:
        streamed = max(stream)  # one after the other
    scratch = tile.rows * max(8, tile.columns) * max(i, h, j) * 4
    if kernel == "query_gradient":
        scratch = max(scratch, max(16, tile.rows) * i * k)
    if kind.full_mask:  # of 32 bits
        streamed += tile.rows * tile.columns * h * 4 * (tile.stages - 1)
    maps = 4 * tile.rows * max(i * h, h * j) * size if kind.by_query else 0
    return sum(stay) + streamed + maps + scratch * 3 // 2 + 2048
