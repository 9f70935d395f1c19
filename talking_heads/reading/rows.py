"""Rows of a table in a text file: tab- or comma-separated columns, JSON lines, or plain lines."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from .text import read_text

JSON = (".jsonl", ".json", ".ndjson")


@dataclass(frozen=True)
class Rows:
    """What a file holds: objects (JSON), or columns of text. Each comes with the line where it starts.

    lines: the file's own lines where its columns are separated by tabs, else None.
    """

    path: Path
    objects: list[tuple[int, dict[str, Any]]] | None
    columns: list[tuple[int, list[str]]]
    lines: list[tuple[int, str]] | None = None


def read_rows(path: Path, is_header: Callable[[list[str]], bool]) -> Rows:
    """Read the rows of a file, blank lines left out.

    Args:
        is_header: whether a first row names columns; tells which separator a file has.

    Raises:
        UserError: a line that is no object, quotation marks left open (the line is named), no text.
    """
    name = path.name.lower().removesuffix(".gz")
    text = read_text(
        path, latin=not name.endswith((*JSON, ".tsv", ".csv"))
    )  # data sets of lines are older than UTF-8
    first = text.lstrip("\r\n").partition("\n")[0].rstrip("\r")
    if name.endswith(JSON) or _is_object(first):
        return Rows(path, list(_objects(text, path)), [])
    separator = _separator(first, name.endswith(".csv"), is_header)
    if separator != "\t" or _quotes_all(first):
        return Rows(path, None, list(_quoted(text, path, separator)))
    lines = [(n, line.removesuffix("\n")) for n, line in _lines(text)]
    return Rows(path, None, [(n, [_unquoted(x) for x in line.split("\t")]) for n, line in lines], lines)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(io.StringIO(text, newline=None), 1):
        if line.strip():
            yield number, line


def _separator(first: str, is_csv: bool, is_header: Callable[[list[str]], bool]) -> str:
    for separator in (",", ";", "\t") if is_csv else ("\t", ",", ";"):
        if is_header([x.strip().strip('"') for x in first.split(separator)]):
            return separator
    return "," if is_csv else "\t"


def _quotes_all(first: str) -> bool:
    """Whether every field of the first line is quoted, as some writers do in tables with tabs."""
    return all(len(field) > 1 and field[0] == field[-1] == '"' for field in first.split("\t"))


def _unquoted(field: str) -> str:
    """A field without the quotation marks that csv writers put around one that holds some, doubled.

    Elsewhere a quotation mark is a character like any other, as in GLUE's files.
    """
    inside = field[1:-1]
    if f'"{inside}"' == field and '""' in inside and '"' not in inside.replace('""', ""):
        return inside.replace('""', '"')
    return field


def _quoted(text: str, path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Fields as csv writers write them: quoted ones may hold separators, doubled quotation marks, line ends."""
    number = 1
    with _long_fields(len(text)):
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        try:
            for row in reader:
                if any(field.strip() for field in row):
                    yield number, row
                number = reader.line_num + 1
        except csv.Error as problem:
            raise UserError(
                "quotation marks must be closed, and doubled within quoted fields",
                f"{problem} in the row at {path}:{number}",
                "correct that row",
            ) from None


@contextmanager
def _long_fields(most: int) -> Iterator[None]:
    """Raise the csv module's limit, which all readers share, for a while."""
    before = csv.field_size_limit()
    csv.field_size_limit(max(before, most))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _objects(text: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Objects, one a line or in one list."""
    if text.lstrip().startswith("["):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, list) and all(isinstance(x, dict) for x in found):
            yield from enumerate(found, 1)
            return
    for number, line in _lines(text):
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise UserError(
                "each line must be a JSON object", f"another at {path}:{number}", "correct that line"
            )
        yield number, found
