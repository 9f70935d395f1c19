"""What commands on heads share: a progress bar, and where their tables go."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from json import loads
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..errors import UserError
from ..results import page
from ..results.files import write_json, write_text
from ..results.provenance import provenance
from ..results.table import Table, show


@contextmanager
def bar(what: str) -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar on standard error; each time the count starts anew, so does the bar."""
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
    """What moves the figures, on one line to stand over them."""
    words = {True: "yes", False: "no", None: "none"}
    return ", ".join(
        f"{k} {words.get(v, v) if isinstance(v, bool | None) else v}" for k, v in options.items()
    )


def places(title: str, json: Path | None, out: Path | None) -> None:
    """Refuses before any work a place that `give` cannot write, or where another command's results are."""
    if json is not None and json.is_dir():
        raise UserError("--json must name a file", f"the folder {json}", "add a file's name")
    if out is None or not out.exists():
        return
    if not out.is_dir():
        raise UserError("--out must name a folder", f"the file {out}", "name another")
    others = [name for name in ("comparison.json", "asked.json") if (out / name).exists()]
    if (out / "results.json").exists() and _title_of(out / "results.json") != title:
        others.append("results.json")
    if others:
        raise UserError(
            "a results folder must be new or this command's own",
            f"{', '.join(others)} of another, or of an earlier version, in {out}",
            "name another with --out",
        )


def _title_of(path: Path) -> str | None:
    try:
        held = loads(path.read_text())
    except ValueError:
        return None
    return held.get("title") if isinstance(held, dict) else None


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
    places(title, json, out)
    result = {"title": title} | result | provenance()
    if json is not None:
        write_json(json, result)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "results.json", result)
        blocks = [page.paragraph(line) for line in notes]
        for caption, table in tables:
            rows = [[show(row.get(c)) for c in table.columns] for row in table.rows]
            blocks.append(page.table(table.columns, rows, caption))
        blocks += [page.picture(path, caption) for path, caption in (pictures(out) if pictures else [])]
        write_text(out / "report.html", page.page(title, blocks))
    for line in notes:
        print(line)
    for caption, table in tables:
        print(f"\n{caption}\n\n{table.to_markdown()}")
    if out is not None:
        print(f"\nreport: {out / 'report.html'}")
