"""The tables of docs/performance.md, from the JSON of benchmarks/results.

    python benchmarks/performance.py

Between `<!-- NAME.json -->` and `<!-- end -->` is what NAME.json says; this replaces it.
"""

import json
import re
import statistics
from pathlib import Path
from typing import Any

import typer

from talking_heads.bench.table import text
from talking_heads.results.files import write_text

ROOT = Path(__file__).parents[1]
PAGE, RESULTS = ROOT / "docs" / "performance.md", ROOT / "benchmarks" / "results"


def main() -> None:
    """Replace the tables."""

    def fill(found: re.Match[str]) -> str:
        result = json.loads((RESULTS / f"{found[1]}.json").read_text())
        written = step(result) if found[1] == "encoder_step" else text(result)
        commit = (result.get("provenance") or result)["commit"]
        return f"<!-- {found[1]}.json -->\n```\n{written}\ncommit {commit}\n```\n<!-- end -->"

    page = re.sub(r"<!-- (\w+)\.json -->.*?<!-- end -->", fill, PAGE.read_text(), flags=re.DOTALL)
    write_text(PAGE, page)


def step(result: dict[str, Any]) -> str:
    """The medians of benchmarks/encoder_step.py and the range of the pairs."""
    base, ours = result["seconds"].values()
    pairs = sorted(b / a for a, b in zip(base, ours, strict=True))
    return (
        f"multi-head {statistics.median(base):.3f} s, talking heads {statistics.median(ours):.3f} s, ratio "
        f"{result['ratio']:.3f}; step by step {pairs[0]:.3f} to {pairs[-1]:.3f}, {len(pairs)} steps of each"
    )


if __name__ == "__main__":
    typer.run(main)
