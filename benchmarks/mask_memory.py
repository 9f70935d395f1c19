"""What a mask costs in memory: the largest resident set during a call beyond what was there before it.

    python benchmarks/mask_memory.py

Linux only. Writes benchmarks/results/mask_memory.json; `python benchmarks/performance.py` copies the table into docs/performance.md.
"""

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import typer
from torch import Tensor

from talking_heads import talking_heads_attention
from talking_heads.results.files import write_json
from talking_heads.results.provenance import provenance

RESULTS = Path(__file__).parent / "results" / "mask_memory.json"
BATCH, HEADS, POSITIONS, SIZE = 2, 12, 2048, 64
SHAPES = ((1, 1, 1, POSITIONS), (1, 1, POSITIONS, POSITIONS), (BATCH, 1, POSITIONS, POSITIONS))
DTYPES = (torch.bool, torch.float32, torch.bfloat16)


def main() -> None:
    """Measure, print, save."""
    ctypes.CDLL(None).mallopt(-3, 65536)  # M_MMAP_THRESHOLD: what is freed leaves the process at once
    torch.manual_seed(0)
    query, key, value = (torch.randn(BATCH, HEADS, POSITIONS, SIZE) for _ in range(3))
    maps = torch.eye(HEADS), torch.eye(HEADS)
    calls: dict[str, Callable[[Tensor | None], Any]] = {
        "this operator": lambda mask: talking_heads_attention(query, key, value, *maps, attn_mask=mask),
        "SDPA": lambda mask: torch.nn.functional.scaled_dot_product_attention(query, key, value, mask),
    }
    rows = [row(calls, None)]
    for shape in SHAPES:
        for dtype in DTYPES:
            rows.append(row(calls, (torch.rand(shape) > 0.1).to(dtype)))
    found = {
        "shape": f"{HEADS}x{SIZE}x{POSITIONS}x{BATCH}",
        "rows": rows,
        "provenance": provenance(),
    }
    write_json(RESULTS, found)
    for line in rows:
        print(line)


def row(calls: dict[str, Callable[[Tensor | None], Any]], mask: Tensor | None) -> dict[str, Any]:
    """MiB that each form takes beyond its inputs and output, by mask."""
    output = BATCH * HEADS * POSITIONS * SIZE * 4
    extra: dict[str, float | str] = {}
    for name, call in calls.items():
        try:
            call(mask)  # buffers that are made once
            extra[name] = max(0.0, (peak(lambda call=call: call(mask)) - output) / 2**20)  # type: ignore[misc]
        except RuntimeError as error:
            extra[name] = "refused: " + str(error).partition(",")[0].splitlines()[0]
    about = {"mask": "none", "mask_mib": 0.0}
    if mask is not None:
        kind = str(mask.dtype).removeprefix("torch.")
        about = {"mask": f"{kind} {list(mask.shape)}", "mask_mib": mask.nbytes / 2**20}
    return about | {"extra_mib": extra}


def peak(call: Callable[[], Any]) -> int:
    """Bytes of the largest resident set during the call beyond that before it."""
    Path("/proc/self/clear_refs").write_text("5")  # the kernel forgets the peak
    before = resident("VmRSS")
    kept = call()
    found = resident("VmHWM") - before
    del kept
    return found


def resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024


if __name__ == "__main__":
    typer.run(main)
