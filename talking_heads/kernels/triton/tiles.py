"""Which tile each kernel takes: the table's where it has one, else the first candidate that fits.

A tile is `rows` queries by `columns` memory positions, of all heads at once. `tiles.json` holds, by compute
capability, what compiling ahead of time or timing on a GPU chose; benchmarks/gpu_tiles.py fills it.
"""

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch

from ..problem import Problem

FEW = 16  # queries so few that their logits are kept, not computed twice: a step of decoding
TABLE = Path(__file__).with_name("tiles.json")
FORWARD = ("statistics", "values")
BACKWARD = ("row_terms", "query_gradient", "key_gradient", "value_gradient", "mask_gradient")


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
CANDIDATES: dict[str, tuple[Tile, ...]] = {
    "statistics": (
        Tile(64, 16, 8, 2),
        Tile(32, 16, 8, 3),
        Tile(32, 16, 8, 2),
        Tile(16, 16, 8, 2),
        Tile(16, 16, 8, 1),
        Tile(8, 16, 8, 1),
    ),
    "values": (
        Tile(32, 16, 8, 3),
        Tile(32, 16, 8, 2),
        Tile(16, 32, 8, 2),
        Tile(16, 16, 8, 2),
        Tile(16, 16, 8, 1),
        Tile(8, 16, 8, 1),
    ),
    "row_terms": (
        Tile(32, 16, 8, 2),
        Tile(32, 16, 8, 1),
        Tile(16, 16, 8, 2),
        Tile(16, 16, 8, 1),
        Tile(8, 16, 8, 1),
    ),
    "query_gradient": (Tile(16, 16, 8, 2), Tile(16, 16, 8, 1), Tile(16, 16, 16, 1), Tile(8, 16, 8, 1)),
    "memory_gradient": (
        Tile(32, 16, 8, 1),
        Tile(16, 16, 8, 2),
        Tile(16, 16, 8, 1),
        Tile(16, 8, 8, 1),
        Tile(16, 4, 8, 1),
    ),
    "key_gradient": (
        Tile(32, 16, 8, 1),
        Tile(16, 16, 8, 2),
        Tile(16, 16, 8, 1),
        Tile(16, 8, 8, 1),
        Tile(16, 4, 8, 1),
    ),
    "value_gradient": (
        Tile(16, 32, 8, 2),
        Tile(32, 16, 8, 1),
        Tile(16, 16, 8, 2),
        Tile(16, 16, 8, 1),
        Tile(16, 8, 8, 1),
        Tile(16, 4, 8, 1),
    ),
    "mask_gradient": (Tile(16, 16, 8, 2), Tile(16, 16, 8, 1), Tile(8, 16, 8, 1), Tile(16, 4, 8, 1)),
}
_FLOAT32 = (Tile(16, 16, 8, 1), Tile(8, 8, 8, 1))
_ONE_QUERY = (Tile(1, 16, 8, 3), Tile(1, 16, 8, 2), Tile(1, 16, 8, 1))
INTERPRETED = Tile(16, 16, 8, 1)
_MASKS = 1024  # bytes that a mask, dropout or a bias may take beyond the table's figure


@cache
def limits(device: torch.device) -> Limits:
    if device.type != "cuda":  # the interpreter, which holds what the process can
        return Limits(0, 2**62, 1)
    found = torch.cuda.get_device_properties(device)
    return Limits(
        10 * found.major + found.minor, found.shared_memory_per_block_optin, found.multi_processor_count
    )


def is_few(queries: int) -> bool:
    return queries <= FEW


def candidates(kernel: str, p: Problem) -> tuple[Tile, ...]:
    """The tiles that fit, best first."""
    device = limits(p.query.device)
    if kernel in FORWARD and p.query.shape[2] == 1:
        known: tuple[Tile, ...] = _ONE_QUERY
    elif device.capability == 0:
        return (INTERPRETED,)
    elif p.query.dtype == torch.float32:
        known = _FLOAT32
    else:
        known = CANDIDATES[kernel]
    return tuple(tile for tile in known if shared_bytes(kernel, p, tile) <= device.shared_bytes)


def choose(kernel: str, p: Problem) -> Tile | None:
    """None: no tile fits."""
    device = limits(p.query.device)
    for capability in sorted((int(x) for x in table() if int(x) <= device.capability), reverse=True):
        listed = table()[str(capability)]
        if key(kernel, p) in listed:
            entry = listed[key(kernel, p)]
            if entry is None:
                return None
            if entry["shared_bytes"] + _MASKS <= device.shared_bytes:
                return Tile(*entry["tile"])
    return next(iter(candidates(kernel, p)), None)


def too_large(p: Problem) -> str | None:
    """Why the GPU cannot hold a call; None if it can."""
    tensors = [x for x in p if isinstance(x, torch.Tensor)]
    trains = torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
    for kernel in FORWARD + BACKWARD * trains:
        if choose(kernel, p) is None:
            i, h, j, k, v = _sizes(p)
            return (
                f"no tile of {i}, {h} and {j} heads (padded) of sizes {k} and {v} fits "
                f"{limits(p.query.device).shared_bytes // 1024} KiB of shared memory ({kernel})"
            )
    return None


def choose_splits(p: Problem, tile: Tile) -> int:
    """Over how many programs to split memory, so that few queries keep the whole GPU busy."""
    b, _, n, m = p.sizes
    programs = b * -(-n // tile.rows)
    wanted = 2 * limits(p.query.device).processors // programs
    most = 64 if is_few(n) else 8  # parts of the output are kept in float32
    return max(1, min(wanted, most, m // (4 * tile.columns)))


def key(kernel: str, p: Problem) -> str:
    """What a tile depends on."""
    i, h, j, k, v = _sizes(p)
    words = [kernel, f"{i}/{h}/{j}x{k}/{v}", f"{8 * p.query.element_size()} bits"]
    if kernel in FORWARD and p.query.shape[2] == 1:
        words.append("one query")
    if p.is_dynamic:
        words.append("dynamic")
    return " ".join(words)


@cache
def table() -> dict[str, dict[str, dict]]:
    return json.loads(TABLE.read_text()) if TABLE.exists() else {}


def shared_bytes(kernel: str, p: Problem, tile: Tile) -> int:
    """At most what a program takes: tiles that stay, tiles that stream in, and room to change layouts."""
    i, h, j, k, v = _sizes(p)
    size = p.query.element_size()
    rows = tile.rows * i * k * size, tile.rows * j * v * size
    columns = tile.columns * i * k * size, tile.columns * j * v * size
    along_queries = kernel in ("memory_gradient", "key_gradient", "value_gradient", "mask_gradient")
    stay, stream = (columns, rows) if along_queries else (rows, columns)
    if kernel in FORWARD:
        stay = stay[:1]
    if kernel in ("statistics", "value_gradient"):
        stay, stream = stay[:1], stream if along_queries else stream[:1]
    streamed = sum(stream) * max(1, tile.stages - 1)
    if tile.stages == 1 and not along_queries and tile.warps <= 8 and size == 2:
        streamed = max(stream)  # one after the other
    scratch = tile.rows * tile.columns * max(i, h, j) * 4
    if kernel == "query_gradient":
        scratch = max(scratch, max(16, tile.rows) * i * k)
    maps = 4 * tile.rows * max(i * h, h * j) * size if p.is_dynamic else 0
    return sum(stay) + streamed + maps + scratch * 3 // 2 + 2048


def _sizes(p: Problem) -> tuple[int, int, int, int, int]:
    """Heads of keys, softmax and values, and sizes of key and value heads, padded as arguments.pad does."""
    counts = p.query.shape[1], p.sizes[1], p.value.shape[1], p.query.shape[3], p.value.shape[3]
    return tuple(max(16, 1 << (count - 1).bit_length()) for count in counts)  # type: ignore[return-value]
