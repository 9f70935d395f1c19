"""Parallel text: two files of lines, a table with both sides, or a data set; and what is wrong with it."""

import hashlib
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..reading.text import read_text

_COMMON = 500  # the most frequent words of a side by which sides are told apart
_CLEARLY = 0.2  # by how much more of a text's words another side must know


@dataclass(frozen=True)
class Parallel:
    """Sentence pairs in the order of their file. name: what a message calls them. dropped: {why: how many}."""

    name: str
    source: list[str]
    target: list[str]
    dropped: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.source)

    @cached_property
    def digest(self) -> str:
        found = hashlib.sha256()
        for side in (self.source, self.target):
            found.update("\n".join(side).encode() + b"\0")
        return found.hexdigest()[:16]

    @property
    def words(self) -> dict[str, list[str]]:
        """The most frequent words of each side, by which `refuse_swapped` knows a language."""
        return {"source": common_words(self.source), "target": common_words(self.target)}


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file, stripped, blank ones kept: line i of two files is one pair."""
    return split_lines(read_text(path))


def split_lines(text: str) -> list[str]:
    lines = text.replace("\r\n", "\n").split("\n")
    return [line.strip() for line in (lines[:-1] if lines[-1] == "" else lines)]


def read_files(source: Path, target: Path) -> Parallel:
    """Pairs of lines; pairs with an empty side are dropped and counted.

    Raises:
        UserError: different numbers of lines, the same text twice, no pair left, not UTF-8.
    """
    sides = read_lines(source), read_lines(target)
    if len(sides[0]) != len(sides[1]):
        raise UserError(
            "source and target must have the same number of lines",
            f"{len(sides[0])} in {source} and {len(sides[1])} in {target}",
            "give files whose lines are translations of each other",
        )
    return paired(f"{source}, {target}", *sides)


def paired(name: str, source: Sequence[str], target: Sequence[str]) -> Parallel:
    """Drops pairs with an empty side, with a warning; refuses a target that is its source."""
    kept = [(a, b) for a, b in zip(source, target, strict=True) if a and b]
    if not kept:
        raise UserError("parallel text must have pairs of sentences", f"none in {name}", "give other files")
    if all(a == b for a, b in kept):
        raise UserError(
            "source and target must differ",
            f"the same {len(kept)} lines twice in {name}",
            "name the other language's file",
        )
    empty = len(source) - len(kept)
    if empty:
        warnings.warn(
            f"{name}: {empty} of {len(source)} pairs have an empty side and were dropped", stacklevel=2
        )
    return Parallel(name, [a for a, _ in kept], [b for _, b in kept], {"empty": empty})


def read_table(path: Path, columns: Sequence[str] = ()) -> Parallel:
    """Two columns of a file with tabs: those named in its first line, else the only two.

    Raises:
        UserError: names that are not there, or no names where there are more than two columns.
    """
    rows = [
        (n, line.split("\t"))
        for n, line in enumerate(read_text(path).replace("\r\n", "\n").split("\n"), 1)
        if line.strip()
    ]
    header = [x.strip() for x in rows[0][1]]
    if columns:
        missing = [name for name in columns if name not in header]
        if len(columns) != 2 or missing:
            raise UserError(
                "--columns must name two columns, source,target, as the first line does",
                f"{','.join(columns)} for {', '.join(header)} in {path}",
                "name two of them",
            )
        places, rows = [header.index(name) for name in columns], rows[1:]
    else:
        places = [0, 1]
        if len(header) != 2:
            raise UserError(
                "a table must have two columns, separated by a tab, or --columns must name them",
                f"{len(header)} in {path}",
                "give --columns SOURCE,TARGET by the names in its first line",
            )
    short = next((n for n, row in rows if len(row) <= max(places)), None)
    if short is not None:
        raise UserError("each line must have both columns", f"fewer at {path}:{short}", "correct that line")
    return paired(str(path), *([row[i].strip() for _, row in rows] for i in places))


def read_data_set(name: str, part: str, columns: Sequence[str] = ()) -> Parallel:
    """A data set by its hub name[:config] or local folder; columns or languages of its column `translation`."""
    import datasets

    repository, _, config = name.partition(":")
    try:
        rows = list(datasets.load_dataset(repository, config or None, split=part))
    except Exception as problem:  # datasets raises many kinds: no network, no such name, a broken file
        reason = " ".join(str(problem).split())[:200]
        raise UserError(
            f"the data set {name} must be readable and have a part {part}",
            f"{type(problem).__name__}: {reason}",
            "check its name and the network",
        ) from None
    rows = [row["translation"] if isinstance(row.get("translation"), dict) else row for row in rows]
    names = list(rows[0]) if rows else []
    if not columns and len(names) == 2:
        columns = names
    if len(columns) != 2 or any(x not in names for x in columns):
        raise UserError(
            "--columns must name the data set's source and target",
            f"{','.join(columns) or 'none'} for {', '.join(names)}",
            "give --columns SOURCE,TARGET",
        )
    return paired(f"{name} ({part})", *([_text(row[x]) for row in rows] for x in columns))


def _text(value: Any) -> str:
    return " ".join(value.split()) if isinstance(value, str) else ""


def choose(
    source: Path | None,
    target: Path | None,
    pairs: str | None,
    columns: str | None,
    part: str,
    prefix: str = "",
) -> Parallel:
    """From the options --source and --target, or --pairs; `prefix` is "dev-" for those of validation.

    Raises:
        UserError: both, neither or half of them, and what is wrong with the text.
    """
    options = f"--{prefix}source and --{prefix}target, or --{prefix}pairs"
    if (source is None) != (target is None) or (source is None) == (pairs is None):
        given = [n for n, x in (("source", source), ("target", target), ("pairs", pairs)) if x is not None]
        came = ", ".join(f"--{prefix}{n}" for n in given) or "none"
        raise UserError(
            f"parallel text must be given by {options}", came, "give both files, or one table or data set"
        )
    if source is not None and target is not None:
        if source.exists() and target.exists() and source.samefile(target):
            raise UserError(
                "source and target must be two files", f"{source} twice", "name the other language's file"
            )
        return read_files(source, target)
    names = [x.strip() for x in columns.split(",")] if columns else []
    assert pairs is not None
    return read_table(Path(pairs), names) if Path(pairs).is_file() else read_data_set(pairs, part, names)


def common_words(lines: Sequence[str]) -> list[str]:
    counts = Counter(word for line in lines for word in line.lower().split())
    return [word for word, _ in counts.most_common(_COMMON)]


def _known(lines: Sequence[str], words: Sequence[str]) -> float:
    """The share of a text's running words that are among `words`."""
    known = set(words)
    found = [word in known for line in lines for word in line.lower().split()]
    return sum(found) / max(1, len(found))


def refuse_swapped(
    source: Sequence[str], target: Sequence[str] | None, words: dict[str, list[str]], name: str
) -> None:
    """Raises UserError where a text's source is clearly the language of the model's target, and its target not."""
    before = _known(source, words["target"]) - _known(source, words["source"])
    after = 1.0 if target is None else _known(target, words["source"]) - _known(target, words["target"])
    if before > _CLEARLY and after > _CLEARLY:
        raise UserError(
            "the source must be in the language that the model translates from",
            f"the other language in {name}",
            "swap the two files" if target is not None else "give the other language's file",
        )
