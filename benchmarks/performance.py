"""The tables of docs/performance.md, from the JSON of benchmarks/results.

    python benchmarks/performance.py

Between `<!-- NAME.json -->` and `<!-- end -->` is what NAME.json says, after `<!-- cpu_cost.aims -->` the ratios to SDPA
next to what this project aims at; this replaces both.
"""

import json
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from talking_heads.bench.table import text
from talking_heads.results.files import write_text
from talking_heads.training.cells import markdown

# shape: (ratios to SDPA before this round of work, aims), each forward and with backward ("": none). Those before were
# measured on another AVX-512 machine; grouped maps were expanded to full ones then.
Aims = dict[str, tuple[tuple[str, str], tuple[str, str]]]
AIMS: Aims = {
    "8x64x16x1": (("4.7", "2.7"), ("1.5", "1.3")),
    "12x64x1/1024x1": (("2.27", ""), ("1.15", "")),
    "12x64x512x4": (("0.87-1.04", "0.91-0.94"), ("0.9", "0.9")),
    "12x64x2048x1": (("1.12", "1.16"), ("1.0", "1.05")),
    "12x64x8192x1": (("1.05", "1.23"), ("1.0", "1.05")),
    "24x32x512x4": (("1.36", "1.50"), ("1.2", "1.3")),
    "48x16x512x4": (("1.83", "2.45"), ("1.5", "2.0")),
    "24x32x512x4:groups=4": (("1.36", "1.50"), ("1.1", "1.25")),
    "48x16x512x4:groups=4": (("1.83", "2.45"), ("1.1", "1.25")),
}
HALF_AIMS: Aims = {"12x64x2048x1": (("", "1.53"), ("", "1.0"))}

ROOT = Path(__file__).parents[1]
PAGE, RESULTS = ROOT / "docs" / "performance.md", ROOT / "benchmarks" / "results"


def main() -> None:
    """Replace the tables."""

    def fill(found: re.Match[str]) -> str:
        result = json.loads((RESULTS / f"{found[1]}.json").read_text())
        written = OWN.get(found[1], text)(result)
        commit = (result.get("provenance") or result)["commit"]
        return f"<!-- {found[1]}.json -->\n```\n{written}\ncommit {commit}\n```\n<!-- end -->"

    def fill_aims(found: re.Match[str]) -> str:
        results = [
            json.loads((RESULTS / name).read_text()) for name in ("cpu_cost.json", "cpu_cost_bfloat16.json")
        ]
        rows = [row for part in zip(results, (AIMS, HALF_AIMS), strict=True) for row in aims(*part)]
        times = ("before", "now", "aim", "operations")
        names = (
            "shape",
            "dtype",
            *(f"{kind}: {x}" for kind in ("forward", "fwd+bwd") for x in times),
            "of peak",
        )
        table = "\n".join(markdown(names, rows))
        return f"<!-- cpu_cost.aims -->\n{table}\n<!-- end -->"

    page = re.sub(r"<!-- (\w+)\.json -->.*?<!-- end -->", fill, PAGE.read_text(), flags=re.DOTALL)
    page = re.sub(r"<!-- cpu_cost\.aims -->.*?<!-- end -->", fill_aims, page, flags=re.DOTALL)
    write_text(PAGE, page)


def aims(result: dict[str, Any], wanted: Aims) -> list[list[str]]:
    """Rows of ratios to SDPA: before, now, aimed at, and counted in operations."""
    rows = []
    for part in result["shapes"]:
        if part["shape"] not in wanted:
            continue
        ours, sdpa = part["forms"]["auto"], part["forms"]["sdpa"]
        row = [part["shape"], result["options"]["dtype"]]
        for kind, before, aim in zip(("forward", "both"), *wanted[part["shape"]], strict=True):
            taken = ours[f"{kind}_ms"] / sdpa[f"{kind}_ms"]
            operations = taken * ours[f"{kind}_gflops"] / sdpa[f"{kind}_gflops"]
            row += [before or "-", f"{taken:.2f}", aim or "-", f"{operations:.2f}"]
        rows.append([*row, f"{ours['both_gflops'] / part['peak_gflops']:.0%}"])
    return rows


def masks(result: dict[str, Any]) -> str:
    """Lines of benchmarks/mask_memory.py."""
    shown = [f"{result['shape']}, float32, forward: MiB beyond inputs and output"]
    for row in result["rows"]:
        extra = ", ".join(
            f"{name} {x if isinstance(x, str) else format(x, '.0f')}" for name, x in row["extra_mib"].items()
        )
        shown.append(f"{row['mask']:27} ({row['mask_mib']:.0f} MiB): {extra}")
    return "\n".join(shown)


def entry(result: dict[str, Any]) -> str:
    """Lines of benchmarks/autograd_entry.py."""
    return "\n".join(f"{name:22} {x:6.1f} us" for name, x in result["microseconds"].items())


def step(result: dict[str, Any]) -> str:
    """The medians of benchmarks/encoder_step.py and the range of the pairs."""
    base, ours = result["seconds"].values()
    pairs = sorted(b / a for a, b in zip(base, ours, strict=True))
    return (
        f"multi-head {statistics.median(base):.3f} s, talking heads {statistics.median(ours):.3f} s, ratio "
        f"{result['ratio']:.3f}; step by step {pairs[0]:.3f} to {pairs[-1]:.3f}, {len(pairs)} steps of each"
    )


# the rest are results of `bench`
OWN: dict[str, Callable[[dict[str, Any]], str]] = {
    "encoder_step": step,
    "mask_memory": masks,
    "autograd_entry": entry,
}

if __name__ == "__main__":
    typer.run(main)
