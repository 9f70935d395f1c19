"""A measurement in words: rows with ratios, as aligned text and as a page."""

from collections.abc import Sequence
from typing import Any

from ..results import page
from .forms import SDPA, forms

TIMES = (
    "shape (heads x size x positions x batch)",
    "form",
    "forward ms",
    "/ SDPA",
    "GFLOP/s",
    "of peak",
    "fwd+bwd ms",
    "/ SDPA",
    "GFLOP/s",
    "of peak",
    "best other /",
    "causal / full",
    "extra MiB",
    "error",
)
MEMORY = ("shape", "form", "peak MiB", "extra MiB")


def time_rows(result: dict[str, Any]) -> list[list[str]]:
    """One row a shape and form. "best other /": the best other talking-heads form's forward+backward
    over this one's, for this library's backends, so 4.5 means 4.5 times faster."""
    rows = []
    for part in result.get("shapes", []):
        ours = {name for name, form in forms().items() if form.is_ours}
        others = [
            row["both_ms"]
            for name, row in part["forms"].items()
            if name not in ours and name != SDPA and row["status"] == "ok"
        ]
        if not part["forms"] and "status" in part:
            rows.append([part["shape"], "", f"{part['status']}: {part['why']}", *[""] * (len(TIMES) - 3)])
        sdpa = part["forms"].get(SDPA, {})
        for name, row in part["forms"].items():
            if row["status"] != "ok":
                words = row["status"] + (f": {row['why']}" if "why" in row else "")
                rows.append([part["shape"], name, words, *[""] * (len(TIMES) - 3)])
                continue
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
    rows = []
    for part in result.get("memory", []):
        for name, row in part["forms"].items():
            if row["status"] == "ok":
                rows.append([part["shape"], name, f"{row['peak_mib']:.0f}", f"{row['extra_mib']:.0f}"])
            else:
                words = row["status"] + (f": {row['why']}" if "why" in row else "")
                rows.append([part["shape"], name, words, ""])
    return rows


def text(result: dict[str, Any]) -> str:
    """The whole result for a terminal, the table last."""
    lines = [notes(result)]
    if "memory" in result:
        lines += [aligned(MEMORY, memory_rows(result))]
    if "shapes" in result:
        lines += [aligned(TIMES, time_rows(result))]
    return "\n\n".join(lines)


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


def aligned(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to one width; a cell of words (a form left out) may run over those after it."""
    full = [row for row in rows if row[-1] or len(row) < 5]
    widths = [max(len(line[k]) for line in [columns, *full]) for k in range(len(columns))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if k < 2 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [columns, *rows]
    )


def html(result: dict[str, Any]) -> str:
    blocks = [page.preformatted(notes(result))]
    if "shapes" in result:
        blocks.append(page.table(TIMES, time_rows(result), "Time"))
    if "memory" in result:
        caption = "Peak memory, forward and backward; extra: beyond inputs, output and gradients"
        blocks.append(page.table(MEMORY, memory_rows(result), caption))
    blocks.append(page.table(("form", "computes"), list(result["computes"].items()), "Forms"))
    return page.page("Speed and memory of talking-heads attention", blocks)
