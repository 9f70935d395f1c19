"""Files of labelled texts, as tasks come in them: tables with a header, CoLA's four columns, "label text" lines."""

import csv
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from .text import read_text

TEXT = ("sentence", "text", "sentence1", "question1", "premise", "prem", "source")
PAIR = ("sentence2", "question2", "hypothesis", "hyp")
LABEL = ("label", "gold_label", "is_duplicate", "target")


@dataclass(frozen=True)
class Example:
    """One text (or two), and its label as the file writes it; line: where it stood."""

    text: str
    pair: str | None
    label: str
    line: int


def read_examples(
    path: Path | str, *, text: str | None = None, pair: str | None = None, label: str | None = None
) -> list[Example]:
    """The examples of a .tsv, .csv or .jsonl file (gzip allowed).

    Args:
        text, pair, label: columns; by default those of GLUE's files and their kin (TEXT, PAIR, LABEL).

    Raises:
        UserError: no such columns, a row of another length, a line that is no object, quotation marks left
            open (the line is named), no examples.
    """
    path = Path(path)
    rows = list(_rows(path))
    if not rows:
        raise UserError("a task's file must hold examples", f"none in {path}", "name another")
    if isinstance(rows[0][1], dict):
        return _by_name([(n, row) for n, row in rows], path, text, pair, label)
    header = [str(x).strip() for x in rows[0][1]]
    if any((text, pair, label)) or ({x.lower() for x in header} & set(TEXT) and len(header) > 1):
        named = []
        for number, row in rows[1:]:
            if len(row) != len(header):
                raise UserError(
                    f"each row must have the header's {len(header)} columns",
                    f"{len(row)} at {path}:{number}",
                    "mend that line",
                )
            named.append((number, dict(zip(header, row, strict=True))))
        return _by_name(named, path, text, pair, label)
    if all(len(row) == 4 for _, row in rows):  # CoLA: source, label, the author's mark, sentence
        return [Example(row[3], None, row[1], number) for number, row in rows]
    return [_line(number, "\t".join(row), path) for number, row in rows]


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    """(line where it starts, object or columns) of each row; blank lines left out."""
    text = read_text(path)
    name = path.name.removesuffix(".gz")
    is_json = name.endswith((".jsonl", ".json"))
    if name.endswith(".csv"):
        yield from _quoted(text, path, ",")
    elif not is_json and _quotes_all(text):
        yield from _quoted(text, path, "\t")
    else:
        read = _object if is_json else _tabbed
        for number, line in enumerate(io.StringIO(text, newline=None), 1):
            if line.strip():
                yield number, read(line, number, path)


def _quotes_all(text: str) -> bool:
    """Whether every field of the first line is quoted, as some writers do in tables with tabs."""
    first = text.lstrip("\r\n").partition("\n")[0].rstrip("\r")
    return all(len(field) > 1 and field[0] == field[-1] == '"' for field in first.split("\t"))


def _object(line: str, number: int, path: Path) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UserError("each line must be a JSON object", f"{path}:{number}", "mend it")
    return found


def _tabbed(line: str, number: int, path: Path) -> list[str]:
    """No field spans lines."""
    return [_unquoted(field) for field in line.removesuffix("\n").split("\t")]


def _unquoted(field: str) -> str:
    """Without what csv writers put around a field that holds quotation marks, and double in it; elsewhere a quotation
    mark is a letter, as in GLUE's own files."""
    inside = field[1:-1]
    if f'"{inside}"' == field and '""' in inside and '"' not in inside.replace('""', ""):
        return inside.replace('""', '"')
    return field


def _quoted(text: str, path: Path, between: str) -> list[tuple[int, list[str]]]:
    """A quoted field may hold commas (or tabs), quotation marks (doubled) and ends of lines."""
    found, number = [], 1
    with _long_fields(len(text)):
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=between, strict=True)
        try:
            for row in reader:
                if any(field.strip() for field in row):
                    found.append((number, row))
                number = reader.line_num + 1
        except csv.Error as problem:
            raise UserError(
                "quotation marks must be closed, and doubled within quoted fields",
                f"{problem} in the row at {path}:{number}",
                "mend that row",
            ) from None
    return found


@contextmanager
def _long_fields(most: int) -> Iterator[None]:
    """The csv module's limit, which is every reader's, raised for a while."""
    before = csv.field_size_limit()
    csv.field_size_limit(max(before, most))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _by_name(
    rows: list[tuple[int, dict[str, Any]]], path: Path, text: str | None, pair: str | None, label: str | None
) -> list[Example]:
    if not rows:
        raise UserError("a task's file must hold examples", f"a header only in {path}", "name another")
    columns = {str(name).lower(): name for name in rows[0][1]}

    def choose(asked: str | None, known: tuple[str, ...], what: str) -> str | None:
        found = next(
            (columns[x.lower()] for x in ((asked,) if asked else known) if x.lower() in columns), None
        )
        if found is None and (asked or what != "pair"):
            raise UserError(
                f"a task's file must have a {what} column ({asked or ', '.join(known)})",
                f"{', '.join(columns)} in {path}",
                f"name it with --{what}",
            )
        return found

    names = choose(text, TEXT, "text"), choose(pair, PAIR, "pair"), choose(label, LABEL, "label")
    found = []
    for number, row in rows:
        first, second, third = (None if name is None else row.get(name) for name in names)
        if first is None or third is None or str(third).strip() in ("", "-"):
            continue  # no gold label, as some of MNLI's rows
        found.append(Example(str(first), None if second is None else str(second), str(third).strip(), number))
    return found


def _line(number: int, line: str, path: Path) -> Example:
    label, _, text = line.strip().partition("\t" if "\t" in line else " ")
    if not text.strip():
        raise UserError(
            "each line must be a label, a space or tab, and text", f"{path}:{number}", "mend that line"
        )
    return Example(text.strip(), None, label, number)


def label_number(label: str, config: Any) -> int:
    """The class number that a classifier's config gives a label; itself where it is a number.

    Raises:
        UserError: a label the model does not know.
    """
    names = {str(name).lower(): int(number) for name, number in (config.label2id or {}).items()}
    if label.lower() in names:
        return names[label.lower()]
    try:
        number = int(label)
    except ValueError:
        number = -1
    if not 0 <= number < config.num_labels:
        raise UserError(
            f"labels must be the model's ({', '.join(names)})", repr(label), "use the model of this task"
        )
    return number
