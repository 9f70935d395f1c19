"""A measurement in words: rows with ratios, for a terminal and as a page."""

import sys
from typing import Any

from ..results import page
from ..results.table import Table
from .forms import SDPA, forms

SHAPE = "shape (heads x size x positions x batch)"
TIMES = (
    *(SHAPE, "form", "forward ms", "forward / SDPA", "forward GFLOP/s", "forward of peak"),
    *("fwd+bwd ms", "fwd+bwd / SDPA", "fwd+bwd GFLOP/s", "fwd+bwd of peak"),
    *("best other /", "causal / full", "extra MiB", "error"),
)
MEMORY = ("shape", "form", "peak MiB", "extra MiB")


def time_rows(result: dict[str, Any]) -> list[list[str]]:
    """One row for each shape and form that was measured. "best other /": the best other talking-heads form's
    forward+backward over this one's, for this library's backends, so 4.5 means 4.5 times faster."""
    rows = []
    for part in result.get("shapes", []):
        ours = {name for name, form in forms().items() if form.is_ours}
        done = {name: row for name, row in part["forms"].items() if row["status"] == "ok"}
        others = [row["both_ms"] for name, row in done.items() if name not in ours and name != SDPA]
        sdpa = done.get(SDPA, {})
        for name, row in done.items():
            cells = [part["shape"], name]
            for kind in ("forward", "both"):
                taken = row[f"{kind}_ms"]
                cells.append(f"{taken:.2f}")
                cells.append(f"{taken / sdpa[f'{kind}_ms']:.2f}" if f"{kind}_ms" in sdpa else "")
                cells.append(f"{row[f'{kind}_gflops']:.0f}")
                cells.append(f"{row[f'{kind}_gflops'] / part['peak_gflops']:.0%}")
            faster = f"{min(others) / row['both_ms']:.2f}" if name in ours and others else ""
            causal = ""
            if "full_both_ms" in row:
                pair = (row[f"{kind}_ms"] / row[f"full_{kind}_ms"] for kind in ("forward", "both"))
                causal = ", ".join(f"{x:.2f}" for x in pair)
            extra = f"{row['extra_mib']:.0f}" if "extra_mib" in row else ""
            rows.append([*cells, faster, causal, extra, f"{row['error']:.0e}"])
    return rows


def memory_rows(result: dict[str, Any]) -> list[list[str]]:
    return [
        [part["shape"], name, f"{row['peak_mib']:.0f}", f"{row['extra_mib']:.0f}"]
        for part in result.get("memory", [])
        for name, row in part["forms"].items()
        if row["status"] == "ok"
    ]


def left_out(result: dict[str, Any]) -> list[str]:
    """Lines for the forms and shapes without figures, and why; forms of one reason together."""
    lines = []
    for kind in ("memory", "shapes"):
        for part in result.get(kind, []):
            why: dict[str, list[str]] = {}
            for name, row in part["forms"].items():
                if row["status"] != "ok":
                    words = row["status"] + (f": {row['why']}" if "why" in row else "")
                    why.setdefault(words, []).append(name)
            lines += [f"{part['shape']} {', '.join(names)}: {words}" for words, names in why.items()]
    return list(dict.fromkeys(lines))


def text(result: dict[str, Any], width: int = sys.maxsize) -> str:
    """The whole result for a terminal `width` columns wide: notes, tables, what was left out."""
    blocks = [notes(result)]
    for columns, rows in ((MEMORY, memory_rows(result)), (TIMES, time_rows(result))):
        if rows:
            table = Table([dict(zip(columns, row, strict=True)) for row in rows], columns[:2], columns[2])
            blocks.append(table.to_text(width))
    lines = left_out(result)
    return "\n\n".join([*blocks, *(["\n".join(lines)] if lines else [])])


def notes(result: dict[str, Any]) -> str:
    machine, options = result["provenance"]["machine"], result["options"]
    counts = [
        len(row["times_ms"]["both"])
        for part in result.get("shapes", [])
        for row in part["forms"].values()
        if "times_ms" in row
    ]
    lines = [
        f"{machine.get('gpu', machine['processor'])}, {options['threads']} threads, {options['dtype']}, "
        f"torch {result['provenance']['versions']['torch']}; medians of at least {min(counts, default=options['rounds'])}, "
        "the forms in turns"
    ]
    if options["device"] == "cpu" and options["limit_gib"]:
        lines.append(f"out of memory: beyond {options['limit_gib']} GiB of a process of its own")
    for part in result.get("shapes", []):
        if "peak_gflops" in part:
            lines.append(
                f"{part['shape']}: the machine's own matrix product {part['peak_gflops']:.0f} GFLOP/s"
            )
        else:
            lines.append(f"{part['shape']}: {part['status']}: {part['why']}")
    return "\n".join(lines)


def html(result: dict[str, Any]) -> str:
    blocks = [page.preformatted(notes(result))]
    if rows := time_rows(result):
        blocks.append(page.table(TIMES, rows, "Time"))
    if rows := memory_rows(result):
        caption = "Peak memory, forward and backward; extra: beyond inputs, output and gradients"
        blocks.append(page.table(MEMORY, rows, caption))
    if lines := left_out(result):
        blocks.append(page.preformatted("\n".join(lines)))
    blocks.append(page.table(("form", "computes"), list(result["computes"].items()), "Forms"))
    return page.page("Speed and memory of talking-heads attention", blocks)
