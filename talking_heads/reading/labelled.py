"""Files of labelled texts: tables with a header or without, JSON lines, "label text" lines."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError, did_you_mean
from .columns import (
    MOST_LABELS,
    Columns,
    by_content,
    is_header,
    is_prose,
    may_be_header,
    may_be_labels,
    named,
    names_text,
    partner,
    plain,
)
from .rows import Rows, read_rows

NO_PAIR = "none"  # as the name of the pair column: leave a second text out
_ASK = "name the columns in a header, or with --text, --pair and --label"


@dataclass(frozen=True)
class Example:
    """One text (or two), and its label as the file writes it; line: where it starts."""

    text: str
    pair: str | None
    label: str
    line: int


@dataclass(frozen=True)
class _Asked:
    """The columns that the user named."""

    text: str | None = None
    pair: str | None = None
    label: str | None = None

    def __bool__(self) -> bool:
        return any((self.text, self.pair not in (None, NO_PAIR), self.label))

    def are_in(self, header: list[str]) -> bool:
        have = {x.strip().lower() for x in header}
        asked = (self.text, self.pair, self.label)
        return bool(self) and all(x.lower() in have for x in asked if x and x != NO_PAIR)


def read_examples(
    path: Path | str,
    *,
    text: str | None = None,
    pair: str | None = None,
    label: str | None = None,
    classes: Collection[str] = (),
) -> list[Example]:
    """Read the examples of a .tsv, .csv, .jsonl or text file (gzip allowed).

    Columns are found by name (those of GLUE and of common data sets; see `columns`), else by what they hold.
    The second text of a pair is always kept. Rows without a gold label (empty, "-" or null) are left out.

    Args:
        text, pair, label: the columns to use. pair "none" leaves a second text out.
        classes: the labels to expect, if known; they tell the label column of a file without a header.

    Raises:
        UserError: the columns cannot be told, a row of another length (the line is named), no examples.
    """
    path, asked = Path(path), _Asked(text, pair, label)
    rows = read_rows(path, lambda row: is_header(row) or asked.are_in(row))
    found = _of_objects(rows, asked) if rows.objects is not None else _of_columns(rows, asked, classes)
    if not found:
        raise UserError("a file of examples must hold some", f"none with a label in {path}", "name another")
    return found


def labelled_texts(path: Path | str, *, classes: Collection[str] = ()) -> list[tuple[str, str]]:
    """(label, text) of each example of a classification; the texts of a pair are joined by " || ".

    Raises:
        UserError: see `read_examples`; also more labels than a classification has.
    """
    found = read_examples(path, classes=classes)
    labels = {x.label for x in found}
    if not labels & set(classes) and (len(labels) > MOST_LABELS or 2 < len(found) == len(labels)):
        raise UserError(
            f"labels must repeat, and be at most {MOST_LABELS}",
            f"{len(labels)} labels of {len(found)} texts in {path}",
            "check which column is the label",
        )
    return [(x.label, x.text if x.pair is None else f"{x.text} || {x.pair}") for x in found]


def _of_objects(rows: Rows, asked: _Asked) -> list[Example]:
    objects = rows.objects or []
    header = list(dict.fromkeys(name for _, row in objects for name, x in row.items() if x is not None))
    columns = _choose(header, rows.path, asked, [[_words(r.get(n)) for n in header] for _, r in objects])
    names = [None if i is None else header[i] for i in (columns.text, columns.pair, columns.label)]
    found = []
    for number, row in objects:
        first, second, label = (None if name is None else row.get(name) for name in names)
        for name, value in zip(names[:2], (first, second), strict=True):
            if name is not None and not isinstance(value, str | int | float):
                raise UserError(
                    f"each object must have a text {name!r}", f"none at {rows.path}:{number}", "add it"
                )
        if isinstance(label, dict | list):
            raise UserError(
                "a label must be a word or a number", f"another at {rows.path}:{number}", "correct it"
            )
        if _is_gold(_words(label)):
            pair = None if second is None else str(second)
            found.append(Example(str(first), pair, _words(label), number))
    return found


def _words(value: Any) -> str:
    """A JSON value as a file of columns would have it: true, 1 (of 1.0), nothing of null."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def _is_gold(label: str) -> bool:
    """Whether annotators agreed on a label; some rows of MNLI have "-"."""
    return label not in ("", "-")


def _of_columns(rows: Rows, asked: _Asked, classes: Collection[str]) -> list[Example]:
    first = [x.strip() for x in rows.columns[0][1]]
    body = rows.columns[1:]
    if asked or names_text(first, [row for _, row in body]):
        _check_lengths(body, len(first), rows.path)
        if not body:
            raise UserError(
                "a file of examples must hold some", f"a header only in {rows.path}", "name another"
            )
        return _examples(body, _choose(first, rows.path, asked, [row for _, row in body]))
    table = [row for _, row in rows.columns]
    widths = {len(row) for row in table}
    if widths == {1} or (len(widths) > 1 and rows.lines is not None):
        return _of_lines(rows, classes)
    _check_lengths(rows.columns, len(first), rows.path)
    if len(table) > 2 and may_be_header(first, table[1:]) and not set(first) & set(classes):
        raise UserError("a header must name a text and a label", f"{', '.join(first)} in {rows.path}", _ASK)
    columns = by_content(table, classes)
    if columns is None:
        raise UserError(
            f"a file must tell which column is the label (one that repeats, of at most {MOST_LABELS} values)",
            f"{len(first)} columns that do not in {rows.path}",
            _ASK,
        )
    return _examples(rows.columns, columns)


def _check_lengths(rows: list[tuple[int, list[str]]], count: int, path: Path) -> None:
    for number, row in rows:
        if len(row) != count:
            raise UserError(
                f"each row must have the first row's {count} columns",
                f"{len(row)} at {path}:{number}",
                "correct that line",
            )


def _examples(rows: list[tuple[int, list[str]]], columns: Columns) -> list[Example]:
    text, pair, label = columns.text, columns.pair, columns.label
    assert text is not None and label is not None
    return [
        Example(row[text], None if pair is None else row[pair], row[label].strip(), number)
        for number, row in rows
        if _is_gold(row[label].strip())
    ]


def _choose(header: list[str], path: Path, asked: _Asked, rows: list[list[str]]) -> Columns:
    """The columns by name: those asked for, else the known ones."""
    known = named(header)
    text = _asked("text", asked.text, header, path)
    text = known.text if text is None else text
    label = _asked("label", asked.label, header, path)
    label = known.label if label is None else label
    pair = None
    if asked.pair != NO_PAIR:
        pair = _asked("pair", asked.pair, header, path)
        if pair is None:
            pair = known.pair if asked.text is None else partner(asked.text, header)
    for what, place in (("text", text), ("label", label)):
        if place is None:
            raise UserError(
                f"a file of examples must have a known {what} column",
                f"{', '.join(header)} in {path}",
                f"name it with --{what}",
            )
    chosen = [x for x in (text, pair, label) if x is not None]
    if len(set(chosen)) < len(chosen) or any(
        plain(header[i]) == plain(x) for i in chosen for j, x in enumerate(header) if j != i
    ):
        raise UserError(
            "columns for texts and label must differ", f"{', '.join(header)} in {path}", "name others"
        )
    if pair is None and asked.text is None and asked.pair is None:
        _refuse_dropped([i for i in range(len(header)) if i not in chosen], header, path, rows)
    return Columns(text, pair, label)


def _asked(what: str, name: str | None, header: list[str], path: Path) -> int | None:
    if name is None:
        return None
    lower = [x.lower() for x in header]
    if name.lower() not in lower:
        raise UserError(
            f"a file of examples must have the {what} column {name!r}",
            f"{', '.join(header)} in {path}",
            did_you_mean(name, header, f"name one of these with --{what}-column"),
        )
    return lower.index(name.lower())


def _refuse_dropped(others: list[int], header: list[str], path: Path, rows: list[list[str]]) -> None:
    """Refuse to read a single text where another column looks like a second one."""
    for place in others:
        values = [row[place] for row in rows]
        if is_prose(values):
            raise UserError(
                "a file of single texts must have one column of texts",
                f"another, {header[place]!r}, in {path}",
                f"name the texts with --text-column and --pair-column, short --text and --pair (--pair {NO_PAIR} leaves it out)",
            )


def _of_lines(rows: Rows, classes: Collection[str]) -> list[Example]:
    """Lines "label text", a space or tab between."""
    if rows.lines is None:
        raise UserError("a table must have two columns or more", f"one in {rows.path}", _ASK)
    found = []
    for number, line in rows.lines:
        label, _, text = line.strip().partition("\t" if "\t" in line else " ")
        if not text.strip():
            raise UserError(
                "each line must be a label, a space or tab, and text",
                f"another at {rows.path}:{number}",
                "correct that line",
            )
        found.append(Example(text.strip(), None, label, number))
    labels = [x.label for x in found]
    if not set(labels) & set(classes) and not may_be_labels(labels):
        raise UserError(
            f"labels, the first words of lines, must repeat and be at most {MOST_LABELS}",
            f"{len(set(labels))} in the {len(labels)} lines of {rows.path}",
            _ASK,
        )
    return found


def label_number(label: str, config: Any) -> int:
    """The class number that a classifier's config gives a label; a number (also 1.0, true) stands for itself.

    Raises:
        UserError: a label the model does not know.
    """
    names = {str(name).lower(): int(number) for name, number in (config.label2id or {}).items()}
    if label.lower() in names:
        return names[label.lower()]
    try:
        value = float({"true": "1", "false": "0"}.get(label.lower(), label))
    except ValueError:
        value = -1.0
    if not value.is_integer() or not 0 <= value < config.num_labels:
        raise UserError(
            f"labels must be the model's ({', '.join(names)})", repr(label), "use the model of this task"
        )
    return int(value)
