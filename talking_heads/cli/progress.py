"""Progress of a comparison on the terminal: one bar for each run, the table after each."""

from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ..results.output import Output
from ..results.table import Table


class Screen:
    """Progress bars on a terminal; lines of text elsewhere."""

    def __init__(self, output: Output) -> None:
        self.console = Console(soft_wrap=False, stderr=output.is_stdout)
        self.name = ""
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[said]}"),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
        )
        self.task = self.bars.add_task("", total=None, said="")

    def __enter__(self) -> "Screen":
        self.bars.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bars.stop()

    def progress(self, run: str, done: int, total: int, said: str) -> None:
        if run != self.name:
            self.name = run
            if not self.console.is_terminal:
                self.console.print(run)
        fields: dict[str, Any] = {"said": said} if said else {}
        self.bars.update(self.task, description=run, completed=done, total=total, **fields)
        if said and not self.console.is_terminal:
            self.console.print(f"  {done}/{total} {said}", highlight=False)

    def show(self, results: dict[str, Any]) -> None:
        from ..training.cells import columns, headline, notes, rows

        for line in headline(results):
            self.console.print(line, highlight=False)
        table = Table.of(columns(results), rows(results, line="\n"))
        self.console.print(table.to_text(self.console.width), markup=False, highlight=False, soft_wrap=True)
        for line in notes(results):
            self.console.print(line, highlight=False)
