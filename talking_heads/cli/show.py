"""Shared by the commands on heads: a progress bar, and where their tables go."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..results import folders, page
from ..results.extras import require
from ..results.files import write_json, write_text
from ..results.output import Output
from ..results.provenance import provenance
from ..results.table import Table, show


@contextmanager
def bar(what: str) -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar on standard error; it restarts when the count does."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[said]}"), console=console, transient=True) as bars:
        task = bars.add_task(what, total=None, said="")
        last = 0

        def progress(done: int, total: int, said: str) -> None:
            nonlocal last
            if done < last:
                bars.reset(task)
            last = done
            bars.update(task, completed=done, total=total, said=said)

        yield progress


def options_line(options: dict[str, Any]) -> str:
    """The options that change the figures, on one line printed above them."""
    words = {True: "yes", False: "no", None: "none"}
    return ", ".join(
        f"{k} {words.get(v, v) if isinstance(v, bool | None) else v}" for k, v in options.items()
    )


def places(title: str, json: Path | None, out: Path | None) -> None:
    """Refuses before any work a place that `give` cannot write, or where another command's results are."""
    Output(json)
    if out is not None:
        folders.check(out, title)
        require("matplotlib")


def give(
    result: dict[str, Any],
    tables: list[tuple[str, Table]],
    notes: list[str],
    *,
    title: str,
    json: Path | None,
    out: Path | None,
    pictures: Callable[[Path], list[tuple[Path, str]]] | None = None,
) -> None:
    """Prints the tables; writes --json FILE, and --out DIR with report.html, results.json and pictures."""
    output = Output(json)
    result = {"title": title} | result | provenance()
    if out is not None:
        folders.claim(out, title)
        write_json(out / "results.json", result)
        blocks = [page.paragraph(line) for line in notes]
        for caption, table in tables:
            rows = [[show(row.get(c)) for c in table.columns] for row in table.rows]
            blocks.append(page.table(table.columns, rows, caption))
        blocks += [page.picture(path, caption) for path, caption in (pictures(out) if pictures else [])]
        write_text(out / "report.html", page.page(title, blocks))
    for line in notes:
        output.say(line)
    for caption, table in tables:
        output.say(f"\n{caption}\n")
        output.show(table)
    if out is not None:
        output.say(f"\nreport: {out / 'report.html'}")
    output.write_json(result)
