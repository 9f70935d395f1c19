"""The GPU kernels compiled ahead of time, without a GPU: registers, spills and shared memory of each; and the
GPU memory that calls allocate.

    python benchmarks/gpu_compile.py            # compiles, writes benchmarks/results/gpu_compile.json
    python benchmarks/gpu_compile.py --tiles    # first chooses tiles again: talking_heads/kernels/triton/tiles.json

A tile is chosen for plain calls by compiling a kernel's candidates in their order of preference: the first
that spills nothing in the loop over whole tiles, else the one that does so least, of those that fit with a
mask, too. (A spill outside the loop is paid once or twice a program; a smaller tile reads memory more often.)
Other calls take the same tile, or where that spills in the loop, one of their own. Both files are written
after every call, and a run that was stopped goes on where it was; about half an hour in all on one core.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

from talking_heads.checks import prepare
from talking_heads.kernels.problem import Problem
from talking_heads.kernels.triton import tiles
from talking_heads.kernels.triton.compiled import Compiled, compile_call, extra_bytes, target
from talking_heads.results.files import write_json, write_text
from talking_heads.results.provenance import provenance
from talking_heads.results.table import Table

RESULTS = Path(__file__).parent / "results" / "gpu_compile.json"
CAPABILITIES = (80, 90)
# heads of keys, softmax and values, and the size of a head
SHAPES = {
    "12x64": (12, 12, 12, 64),
    "16x64": (16, 16, 16, 64),
    "16x128": (16, 16, 16, 128),
    "24x32": (24, 24, 24, 32),
    "12/32/12x64": (12, 32, 12, 64),
    "48x16": (48, 48, 48, 16),
}
INPUTS = ("query", "key", "value", "logits_mix", "weights_mix")
CALLS: dict[str, dict[str, Any]] = {
    "plain": {},
    "causal": {"is_causal": True},
    "bool mask": {"mask": torch.bool},
    "float mask with gradient": {"mask": torch.bfloat16},
    "float mask by head": {"mask": torch.float32, "mask_shape": (0, 1, 1, 1)},
    "dropout": {"dropout_p": 0.1},
    "maps by query": {"dynamic": True},
    "causal, dropout": {"is_causal": True, "dropout_p": 0.1},
    "bool mask, dropout": {"mask": torch.bool, "dropout_p": 0.1},
    "one query": {"queries": 1},
    "float32": {"dtype": torch.float32},
}
POSITIONS = 4096
LAYOUTS = ("heads inside (as layers give them)", "heads outside")
UNTILED = ("plain", "one query", "float32")  # the last two have candidates of their own
WORTH_SPLITTING = 10  # spills in the loop
COLUMNS = (
    "GPU",
    "heads",
    "call",
    "kernel",
    "tile",
    "registers",
    "spilled bytes",
    "in the loop",
    "shared KiB",
)


def problem(
    heads: tuple[int, int, int, int],
    *,
    queries: int = POSITIONS,
    dtype: torch.dtype = torch.bfloat16,
    mask: torch.dtype | None = None,
    mask_shape: tuple[int, int, int, int] = (1, 0, 0, 1),
    dynamic: bool = False,
    dropout_p: float = 0.0,
    is_causal: bool = False,
) -> Problem:
    """A call of batch 4, laid out as projections give it."""
    i, h, j, size = heads
    b, n, m = 4, queries, POSITIONS
    new = lambda count, length: torch.zeros(b, length, count, size, dtype=dtype).transpose(1, 2)  # noqa: E731
    maps = {"query_logits_mix": torch.zeros(b, n, i, h), "query_weights_mix": torch.zeros(b, n, h, j)}
    shape = [size if full else 1 for size, full in zip((b, h, n, m), mask_shape, strict=True)]
    found = prepare(
        new(i, n),
        new(i, m),
        new(j, m),
        torch.zeros(i, h),
        torch.zeros(h, j),
        attn_mask=None if mask is None else torch.empty(shape, dtype=mask),  # large, but never touched
        dropout_p=dropout_p,
        is_causal=is_causal,
        **(maps if dynamic else {}),
    )
    return found._replace(seed=torch.zeros(2, dtype=torch.int64)) if dropout_p else found


def fill(capability: int) -> None:
    """Adds what the table of tiles lacks for plain calls."""
    for name in SHAPES:
        for kernel in tiles.CANDIDATES:
            if kernel != "mask_gradient" and kernel not in listed(capability, name, "plain"):
                list_tile(capability, name, "plain", kernel, best_tile(capability, name, "plain", kernel))


def improve(row: dict[str, Any]) -> bool:
    """Lists a tile of its own for a kind of call whose kernel spills in the loop; whether it did."""
    (capability, name, call), kernel = _call_of(row), row.get("kernel", "")
    if call in UNTILED or not row.get("spills_in_loop") or kernel in listed(capability, name, call):
        return False
    tile = best_tile(capability, name, call, kernel, row["tile"])
    list_tile(capability, name, call, kernel, tile)
    return True


def listed(capability: int, name: str, call: str) -> dict[str, Any]:
    kind = tiles.kind(problem(SHAPES[name], **CALLS[call]))
    return tiles.table().get(str(capability), {}).get(str(kind), {})


def list_tile(capability: int, name: str, call: str, kernel: str, tile: tiles.Tile | None) -> None:
    kind = tiles.kind(problem(SHAPES[name], **CALLS[call]))
    table = tiles.table()
    table.setdefault(str(capability), {}).setdefault(str(kind), {})[kernel] = tile and list(tile)
    print(capability, kind, kernel, tile, flush=True)
    write_text(tiles.TABLE, _table_text(table))
    tiles.table.cache_clear()
    tiles._choose.cache_clear()


def calls() -> list[tuple[str, str]]:
    """(heads, call): all calls for 12x64, plain and causal ones for the others."""
    return [(name, call) for name in SHAPES for call in (CALLS if name == "12x64" else ("plain", "causal"))]


def best_tile(
    capability: int, name: str, call: str, kernel: str, first: list[int] | None = None
) -> tiles.Tile | None:
    """Of the candidates from `first` on. None: none fits, or the gradients of key and value are better found
    apart."""
    best, least = None, float("inf")
    known = list(tiles.CANDIDATES[kernel])
    for tile in known[known.index(tiles.Tile(*first)) if first else 0 :]:
        spilled = spills(capability, name, call, kernel, tile)
        if spilled is not None and spilled < least:
            best, least = tile, spilled
        if least == 0:
            break
    return None if kernel == "memory_gradient" and least > WORTH_SPLITTING else best


def spills(capability: int, name: str, call: str, kernel: str, tile: tiles.Tile) -> int | None:
    """Those in the loop; None: the tile does not fit."""

    def compiled(**options: Any) -> Compiled:
        with target(capability, kernel, tile) as found:
            compile_call(problem(SHAPES[name], **options), _needs(kernel), kernel)
        return found[0]

    given = [compiled(**CALLS[call])]
    if call == "plain":
        given.append(compiled(mask=torch.float32, mask_shape=(0, 0, 1, 1)))
    if max(x.shared_bytes for x in given) > tiles.SHARED_BYTES[capability]:
        return None
    return given[0].spills_in_loop


def _table_text(table: dict[str, dict[str, dict[str, Any]]]) -> str:
    """JSON with a line for each kind."""
    parts = []
    for capability, kinds in table.items():
        lines = ",\n".join(f"  {json.dumps(kind)}: {json.dumps(entries)}" for kind, entries in kinds.items())
        parts.append(f' "{capability}": {{\n{lines}\n }}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _needs(kernel: str) -> tuple[str, ...]:
    return {
        "row_terms": ("weights_mix",),
        "query_gradient": ("query", "logits_mix"),
        "memory_gradient": ("key", "value"),
        "key_gradient": ("key",),
        "value_gradient": ("value",),
        "mask_gradient": ("mask",),
    }.get(kernel, ())


def report(capability: int, name: str, call: str) -> list[dict[str, Any]]:
    """What each kernel of one call takes with its chosen tile."""
    options = CALLS[call]
    p = problem(SHAPES[name], **options)
    base = {"capability": capability, "heads": name, "call": call, "commit": provenance()["commit"]}
    needs = INPUTS + (("mask",) if "gradient" in call else ())
    if options.get("dynamic"):
        needs += ("query_logits_mix", "query_weights_mix")
    with target(capability) as found:
        why = tiles.unable(p._replace(query=p.query.detach().requires_grad_()))
        if why is not None and tiles.unable(p) is not None:
            return [base | {"refused": why}]
        compile_call(p, () if why is not None or call == "one query" else needs)
    rows = [base | row._asdict() for row in found]
    for row in rows:
        del row["units"]  # tests look at those
    if why is not None:
        rows.append(base | {"refused": f"training: {why}"})
    return rows


def _call_of(row: dict[str, Any]) -> tuple[int, str, str]:
    return row["capability"], row["heads"], row["call"]


def memory(positions: int, layout: str) -> dict[str, Any]:
    """What a training call of 12x64 heads, batch 1, allocates."""
    sizes = (1, positions, 12, 64) if layout == LAYOUTS[0] else (1, 12, positions, 64)
    heads = [torch.empty(sizes, dtype=torch.bfloat16) for _ in range(3)]
    if layout == LAYOUTS[0]:
        heads = [x.transpose(1, 2) for x in heads]
    p = prepare(*heads, torch.zeros(12, 12), torch.zeros(12, 12))
    return {"positions": positions, "layout": layout, "extra_mib": extra_bytes(p, INPUTS) / 2**20}


def memory_text(rows: list[dict[str, Any]]) -> str:
    lines = [(row["layout"], row["positions"], f"{row['extra_mib']:.1f}") for row in rows]
    columns = ("inputs laid out", "positions", "extra MiB, forward and backward")
    return Table.of(columns, lines).to_text(sys.maxsize)


def text(rows: list[dict[str, Any]]) -> str:
    lines = []
    for row in rows:
        cells = [f"sm_{row['capability']}", row["heads"], row["call"]]
        if "refused" in row:
            lines.append([*cells, f"refused: {row['refused']}", *[""] * (len(COLUMNS) - 4)])
            continue
        rows_, columns, warps, stages = row["tile"]
        tile = f"{rows_}x{columns}, {warps} warps, {stages} stages"
        spills = row["spilled_bytes"], row["spills_in_loop"]
        figures = (row["registers"], *spills, f"{row['shared_bytes'] / 1024:.0f}")
        lines.append([*cells, row["kernel"], tile, *map(str, figures)])
    return Table.of(COLUMNS, lines).to_text(sys.maxsize)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiles", action="store_true", help="choose tiles for what the table lacks")
    parser.add_argument("--json", type=Path, default=RESULTS, help="file for the report")
    parser.add_argument("--again", action="store_true", help="forget the report, compile everything again")
    arguments = parser.parse_args()
    if arguments.tiles:
        for capability in CAPABILITIES:
            fill(capability)
    known = (
        []
        if arguments.again or not arguments.json.exists()
        else json.loads(arguments.json.read_text())["rows"]
    )
    result: dict[str, Any] = {"provenance": provenance(), "rows": known}
    done = {_call_of(row) for row in known}
    for capability in CAPABILITIES:
        for name, call in calls():
            if (capability, name, call) not in done:
                result["rows"] += report(capability, name, call)
                write_json(arguments.json, result)
            rows = [row for row in result["rows"] if _call_of(row) == (capability, name, call)]
            if arguments.tiles and any([improve(row) for row in rows]):
                place = result["rows"].index(rows[0])
                result["rows"][place : place + len(rows)] = report(capability, name, call)
                write_json(arguments.json, result)
    result["memory"] = [memory(n, layout) for layout in LAYOUTS for n in (4096, 16384, 65536)]
    write_json(arguments.json, result)
    print(memory_text(result["memory"]))
    print()
    print(text(result["rows"]))


if __name__ == "__main__":
    main()
