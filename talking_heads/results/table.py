"""A table of results: rows, how they came about, and what a person does with them."""

import csv
import io
import itertools
import math
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UserError
from .output import Output

Row = dict[str, Any]


@dataclass
class Table:
    """Rows of results. `keys` name a row among tables alike (say relation and head), `value` is its figure.

    meta: options, baselines, sentences skipped and why: the context of the figures.
    chosen: the column by which `best` chooses; a figure on other sentences than `value`, where there are such.
    """

    rows: list[Row]
    keys: tuple[str, ...]
    value: str
    meta: dict[str, Any] = field(default_factory=dict)
    chosen: str | None = None
    describe: Callable[[Row], Row] | None = field(default=None, repr=False)

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows for name in row))

    @classmethod
    def of(cls, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> "Table":
        """A table of cells in columns of different names; the first one names a row."""
        return cls([dict(zip(columns, row, strict=True)) for row in rows], (columns[0],), columns[-1])

    def best(self) -> "Table":
        """For each value of the first key the row with the highest figure, with intervals and baselines."""
        by = self.chosen or self.value
        found: dict[Any, Row] = {}
        for row in self.rows:
            figure = row[by]
            if figure is None or math.isnan(figure):
                continue
            if row[self.keys[0]] not in found or figure > found[row[self.keys[0]]][by]:
                found[row[self.keys[0]]] = row
        rows = [self.describe(row) if self.describe else dict(row) for row in found.values()]
        return Table(rows, self.keys, self.value, self.meta, self.chosen)

    def diff(self, other: "Table") -> "Table":
        """Row by row this figure, the other's, and other - this, for the rows both have.

        Raises:
            UserError: tables of different things.
        """
        if (self.keys, self.value) != (other.keys, other.value):
            raise UserError(
                "only tables alike can be compared",
                f"{self.keys} and {other.keys}",
                "make both with the same command",
            )
        theirs = {tuple(row[k] for k in self.keys): row for row in other.rows}
        rows = []
        for row in self.rows:
            match = theirs.get(tuple(row[k] for k in self.keys))
            if match is not None:
                a, b = row[self.value], match[self.value]
                rows.append({k: row[k] for k in self.keys} | {self.value: a, "other": b, "difference": b - a})
        meta = {"this": self.meta, "other": other.meta}
        return Table(rows, self.keys, "difference", meta)

    def to_dict(self) -> dict[str, Any]:
        return {**self.meta, "rows": self.rows}

    def to_json(self, path: Path | str) -> None:
        Output(path, "path").write_json(self.to_dict())

    def to_csv(self, path: Path | str | None = None) -> str:
        file = io.StringIO()
        writer = csv.DictWriter(file, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        if path is not None:
            Output(path, "path").write(file.getvalue())
        return file.getvalue()

    def _repr_html_(self) -> str:
        """In a notebook."""
        from . import page

        return page.table(self.columns, [[show(row.get(c)) for c in self.columns] for row in self.rows])

    def to_pandas(self) -> Any:
        """A pandas.DataFrame of the rows; its attrs hold `meta`.

        Raises:
            UserError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as problem:
            raise UserError("to_pandas needs the package pandas", problem, "pip install pandas") from None
        frame = pandas.DataFrame(self.rows, columns=self.columns)
        frame.attrs.update(self.meta)
        return frame

    def to_markdown(self, columns: Sequence[str] | None = None) -> str:
        names = list(columns or self.columns)
        cells = [names, *([show(row.get(n)) for n in names] for row in self.rows)]
        cells = [[" ".join(x.split()).replace("|", "\\|") for x in row] for row in cells]
        widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(names))]
        right = [any(isinstance(row.get(n), float | int) for row in self.rows) for n in names]
        lines = [_line(row, widths, right) for row in cells]
        rule = [("-" * (w - 1) + ":" if r else "-" * w) for w, r in zip(widths, right, strict=True)]
        return "\n".join([lines[0], _line(rule, widths, right), *lines[1:]])

    def to_text(self, width: int) -> str:
        """Aligned columns for a terminal. Those that do not fit go to a further block, under the row's name again.

        Cells are broken between words where a column alone is wider than the terminal, never within one.
        """
        names = self.columns
        cells = {n: [n, *(show(row.get(n)) for row in self.rows)] for n in names}
        keys = [n for n in self.keys if n in names][:2] or names[:1]
        right = {n: all(map(_is_figure, cells[n][1:])) for n in names}
        for key in keys:  # a name may begin with a digit
            right[key] &= all(isinstance(row.get(key), int | float) for row in self.rows)
        taken = sum(_width(cells[n]) + 2 for n in keys)
        blocks: list[list[str]] = [[]]
        used = taken
        for name in (n for n in names if n not in keys):
            size = _width(cells[name])
            if blocks[-1] and used + size > width:
                blocks.append([])
                used = taken
            if used + size > width:
                cells[name] = [_broken(x, max(width - taken, 8)) for x in cells[name]]
                size = _width(cells[name])
            blocks[-1].append(name)
            used += size + 2
        return "\n\n".join(
            _aligned([cells[n] for n in (*keys, *block)], [right[n] for n in (*keys, *block)])
            for block in blocks
        )


def _is_figure(cell: str) -> bool:
    return cell in ("", "-") or re.match(r"[-+]?\d", cell) is not None


def _width(cells: Sequence[str]) -> int:
    return max(len(line) for cell in cells for line in cell.split("\n"))


def _broken(cell: str, width: int) -> str:
    lines = [
        textwrap.wrap(x, width, break_long_words=False, break_on_hyphens=False) for x in cell.split("\n")
    ]
    return "\n".join(x for part in lines for x in part)


def _aligned(columns: Sequence[Sequence[str]], right: Sequence[bool]) -> str:
    widths = [_width(cells) for cells in columns]
    rule = ["-" * w for w in widths]
    made: list[Sequence[str]] = []
    for number, row in enumerate(zip(*columns, strict=True)):
        made += [rule] if number == 1 else []
        made += itertools.zip_longest(*(cell.split("\n") for cell in row), fillvalue="")
    return "\n".join(
        "  ".join(
            x.rjust(w) if r else x.ljust(w) for x, w, r in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in made
    )


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = [x.rjust(w) if r else x.ljust(w) for x, w, r in zip(cells, widths, right, strict=True)]
    return "| " + " | ".join(padded) + " |"


def show(value: Any) -> str:
    """As a table prints it: four significant digits of a float, nothing of None or NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return f"{value:.3f}" if 0.01 <= abs(value) < 1000 or value == 0 else f"{value:.3g}"
    if isinstance(value, list | tuple):
        return " to ".join(show(x) for x in value)
    return str(value)
