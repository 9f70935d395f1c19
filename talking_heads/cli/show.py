"""Where the tables of the commands on heads go."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..results import folders, page
from ..results.extras import require
from ..results.files import write_json, write_text
from ..results.output import Output
from ..results.provenance import provenance
from ..results.table import Table, show


def new_folder(out: Path | None, argument: Path | None) -> Path:
    """The folder to write, given as an argument or with --out.

    Raises:
        UserError: neither, or both.
    """
    if (out is None) == (argument is None):
        came = "neither" if out is None else f"{argument} and --out {out}"
        raise UserError("the folder to write must be named once, as OUT or with --out", came, "name it once")
    found = out or argument
    assert found is not None
    return found


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
