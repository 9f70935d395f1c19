"""The cost of attention on a CPU next to SDPA's multi-head attention, with the machine's limits in the same run.

    python benchmarks/cost.py

Takes about seven minutes on two cores. Writes benchmarks/results/cpu_cost.json (and cpu_cost_bfloat16.json) and
docs/roofline.png, and prints the tables; `python benchmarks/performance.py` copies them into docs/performance.md.
"""

import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from talking_heads.bench import Options, bench
from talking_heads.bench.measure import median
from talking_heads.bench.shapes import parse
from talking_heads.bench.table import text
from talking_heads.results.files import write_json

ROOT = Path(__file__).parents[1]
PEERS = ("sdpa", "auto", "einsum", "matmul", "compiled-matmul", "x-transformers", "flex")
OURS = ("sdpa", "auto")
# (shapes, forms, rounds): the longest is timed least often
PARTS = (
    (("12x64x512x1",), PEERS, 7),
    (("8x64x16x1", "12x64x1/1024x1"), OURS, 200),
    (("12x64x512", "24x32x512", "48x16x512", "24x32x512:groups=4", "48x16x512:groups=4"), OURS, 5),
    (("12x64x2048x1",), OURS, 5),
    (("12x64x8192x1",), OURS, 2),
)
SCRATCH = (("64x16x4096x1",), ("cpu", "chunked"))  # many heads: what is kept between two passes is largest


def main(
    quick: Annotated[bool, typer.Option(help="tiny shapes, to try the command")] = False,
    results: Annotated[Path, typer.Option(help="folder of the JSON files")] = ROOT / "benchmarks" / "results",
    figure: Annotated[Path, typer.Option(help="the roofline")] = ROOT / "docs" / "roofline.png",
) -> None:
    """Measure, print, save."""
    parts = ((("2x8x16x1", "4x8x20x1:groups=2"), OURS, 2),) if quick else PARTS
    result = joined([one(*part) for part in parts])
    shapes, names = (("2x8x16x1",), OURS) if quick else SCRATCH
    result["memory"] = bench(Options(shapes=shapes, forms=names, timing=False, memory=True))["memory"]
    result["copy_gbs"] = copy_rate(2**20 if quick else 2**26)
    half = one(("2x8x16x1",) if quick else ("12x64x512x1", "12x64x2048x1"), OURS, 3, dtype="bfloat16")
    for name, found in (("cpu_cost", result), ("cpu_cost_bfloat16", half)):
        write_json(results / f"{name}.json", found)
        print(text(found), end="\n\n")
    roofline(result, figure)


def one(shapes: tuple[str, ...], names: tuple[str, ...], rounds: int, dtype: str = "") -> dict[str, Any]:
    return bench(Options(shapes=shapes, forms=names, rounds=rounds, seconds=1.0, dtype=dtype), print)


def joined(results: list[dict[str, Any]]) -> dict[str, Any]:
    """One result with the shapes of all."""
    first = results[0]
    first["shapes"] = [part for result in results for part in result["shapes"]]
    for result in results[1:]:
        first["computes"] |= result["computes"]
    first["options"]["shapes"] = [part["shape"] for part in first["shapes"]]
    return first


def copy_rate(numbers: int) -> float:
    """GB/s read and written by torch's own copy of float32 numbers."""
    x, y, times = torch.ones(numbers), torch.zeros(numbers), []
    for _ in range(7):
        start = time.perf_counter()
        y.copy_(x)
        times.append(time.perf_counter() - start)
    return 2 * x.nbytes / median(times) / 1e9


def roofline(result: dict[str, Any], path: Path) -> None:
    """GFLOP/s against operations for each byte of inputs and output, under the machine's two limits."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plot, axes = plt.subplots(figsize=(8, 5))
    peak = median([part["peak_gflops"] for part in result["shapes"]])
    most = 0.0
    for name, mark in (("sdpa", "o"), ("auto", "^")):
        points = [(*intensity(part, name), part["shape"]) for part in result["shapes"]]
        most = max(most, *(x for x, _, _ in points))
        axes.plot([x for x, _, _ in points], [y for _, y, _ in points], mark, label=name)
        for x, y, shape in points if name == "auto" else []:
            axes.annotate(shape, (x, y), fontsize=6, xytext=(3, 3), textcoords="offset points")
    ends = [0.5, max(2 * most, peak)]
    knee = peak / result["copy_gbs"]
    label = f"limits: {peak:.0f} GFLOP/s (sgemm), {result['copy_gbs']:.0f} GB/s (copy)"
    axes.plot([ends[0], knee, ends[1]], [ends[0] * result["copy_gbs"], peak, peak], "k-", label=label)
    axes.set(xscale="log", yscale="log", xlabel="FLOP / byte of inputs and output", ylabel="GFLOP/s, forward")
    axes.set_title(result["provenance"]["machine"]["processor"], fontsize=9)
    axes.legend()
    plot.savefig(path, dpi=120, bbox_inches="tight")


def intensity(part: dict[str, Any], name: str) -> tuple[float, float]:
    """(FLOP for each byte, GFLOP/s) of a form's forward."""
    row, shape = part["forms"][name], parse(part["shape"])
    numbers = (shape.key_heads + shape.value_heads) * (shape.query_len + shape.memory_len) * shape.head_dim
    operations = row["forward_gflops"] * row["forward_ms"] * 1e6
    return operations / (4 * shape.batch * numbers), row["forward_gflops"]


if __name__ == "__main__":
    typer.run(main)
