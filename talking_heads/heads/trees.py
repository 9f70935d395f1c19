"""Constituency trees: brackets read with nltk, spans, and the trees that need no model."""

import gzip
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError

LABELS = ("SBAR", "NP", "VP", "PP", "ADJP", "ADVP")
BASELINES = ("right", "left", "balanced", "random")
# Tags of punctuation: the Penn Treebank's, and the later ones of OntoNotes and GUM (hyphens, other marks).
PUNCTUATION = frozenset((",", ".", ":", "``", "''", '"', "-LRB-", "-RRB-", "-LSB-", "-RSB-", "HYPH", "NFP"))
_ESCAPES = {
    "-LRB-": "(",
    "-RRB-": ")",
    "-LSB-": "[",
    "-RSB-": "]",
    "-LCB-": "{",
    "-RCB-": "}",
    "``": '"',
    "''": '"',
}


@dataclass(frozen=True)
class Tree:
    """words; spans: (first word, last word, label) of constituents of 2 words or more, the whole sentence's
    left out, function tags cut. line: where it starts in its file."""

    words: list[str]
    spans: list[tuple[int, int, str]]
    line: int


def read_trees(
    path: Path | str, punct: bool = False, skipped: list[tuple[str, str]] | None = None
) -> list[Tree]:
    """The trees of a bracketed file (.mrg, .ptb, gzip allowed) or of every such file in a folder.

    Traces are removed, and punctuation unless `punct`. Sentences of fewer than two words go to `skipped`,
    ("FILE:LINE", why); a folder's files are named from it on.

    Raises:
        UserError: brackets that do not match (the line is named), no trees.
    """
    skipped = [] if skipped is None else skipped
    path = Path(path)
    trees = []
    for file in _files(path):
        name = file.relative_to(path) if path.is_dir() else file.name
        for line, text in _bracketed(file):
            found = _tree(file, line, text, punct)
            if len(found.words) < 2:
                skipped.append((f"{name}:{line}", "fewer than two words"))
            else:
                trees.append(found)
    if not trees:
        raise UserError(
            "a file of trees must hold trees of two words or more", f"none in {path}", "name another"
        )
    return trees


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(x for x in path.rglob("*") if x.name.removesuffix(".gz").endswith((".mrg", ".ptb")))


def _bracketed(path: Path) -> Iterator[tuple[int, str]]:
    """(first line, text) of each outermost pair of brackets."""
    opening = gzip.open if path.suffix == ".gz" else open
    depth = number = 0
    parts: list[str] = []
    first = 0
    try:
        with opening(path, "rt", encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if depth == 0 and line.strip() and not line.lstrip().startswith("("):
                    raise _broken(path, number, f"text outside brackets: {line.strip()[:30]!r}")
                start = 0
                for place, letter in enumerate(line):
                    if letter == "(":
                        if depth == 0:
                            first, start = number, place
                        depth += 1
                    elif letter == ")":
                        depth -= 1
                        if depth < 0:
                            raise _broken(path, number, "a closing bracket too many")
                        if depth == 0:
                            yield first, "".join([*parts, line[start : place + 1]])
                            parts, start = [], place + 1
                if depth:
                    parts.append(line[start:])
    except (EOFError, gzip.BadGzipFile, zlib.error, UnicodeDecodeError) as problem:
        raise UserError(
            "trees must be whole UTF-8 text", f"{path}: {problem} after line {number}", "fetch them anew"
        ) from None
    if depth:
        raise _broken(path, number, f"the file ends within the tree of line {first}")


def _broken(path: Path, line: int, came: str) -> UserError:
    return UserError(
        "trees must be whole brackets", f"{path}:{line}: {came}", "mend the line or fetch it anew"
    )


def _tree(path: Path, line: int, text: str, punct: bool) -> Tree:
    from nltk import Tree as Nltk

    try:
        root = Nltk.fromstring(text)
    except ValueError as problem:
        raise _broken(path, line, " ".join(str(problem).split())) from None
    words: list[str] = []
    spans: list[tuple[int, int, str]] = []
    _walk(root, words, spans, punct)
    whole = (0, len(words) - 1)
    return Tree(words, [s for s in spans if s[:2] != whole], line)


def _walk(node: Any, words: list[str], spans: list[tuple[int, int, str]], punct: bool) -> None:
    if len(node) == 1 and isinstance(node[0], str):
        tag = node.label()
        if tag != "-NONE-" and (punct or tag not in PUNCTUATION):
            words.append(_ESCAPES.get(node[0], node[0]))
        return
    first = len(words)
    for child in node:
        if not isinstance(child, str):
            _walk(child, words, spans, punct)
    if len(words) - first >= 2:
        spans.append((first, len(words) - 1, _bare(node.label())))


def _bare(label: str) -> str:
    """NP-SBJ-1 and NP=2 -> NP; -LRB- and the like stay."""
    return label if label.startswith("-") else label.replace("=", "-").partition("-")[0]


def split_spans(distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(first, last), each [..., words - 1]: the span that each place between two words splits.

    A tree is split where the distance between adjacent words is largest, again and again; of equal
    distances the leftmost first. distances [..., words - 1].
    """
    gaps = distances.shape[-1]
    place = np.arange(gaps)
    here, there = distances[..., :, None], distances[..., None, :]
    before = (place[None, :] < place[:, None]) & (there >= here)  # splits earlier, to the left
    after = (place[None, :] > place[:, None]) & (there > here)
    first = np.where(before, place + 1, 0).max(-1)
    last = np.where(after, place, gaps).min(-1)
    return first, last


def balanced(count: int) -> np.ndarray:
    """Distances whose tree halves every span (the left half is the shorter)."""
    depth = np.zeros(count - 1)
    stack = [(0, count, 1.0)]
    while stack:
        start, size, level = stack.pop()
        if size > 1:
            left = size // 2
            depth[start + left - 1] = 1 / level
            stack += [(start, left, level + 1), (start + left, size - left, level + 1)]
    return depth


def baseline_distances(name: str, count: int, generator: np.random.Generator) -> np.ndarray:
    """[words - 1] distances of the baseline's tree; "random" draws a place to split at uniformly."""
    if name == "right":
        return np.arange(count - 1, 0, -1.0)
    if name == "left":
        return np.arange(1.0, count)
    if name == "balanced":
        return balanced(count)
    return generator.random(count - 1)


class GoldSpans:
    """What predicted spans are judged by.

    Sentence F1 over spans of two words or more, the whole sentence left out; without gold spans recall is
    1, without any predicted (two words) precision, too: the field's convention.
    """

    def __init__(self, tree: Tree, labels: Sequence[str] = LABELS) -> None:
        self.count = len(tree.words)
        self.spans = np.zeros((self.count, self.count), bool)
        self.labelled = np.zeros((len(labels), self.count, self.count), np.int16)
        for first, last, label in tree.spans:
            self.spans[first, last] = True
            if label in labels:
                self.labelled[labels.index(label), first, last] += 1
        self.totals = self.labelled.sum((1, 2))
        self.gold = int(self.spans.sum())

    def judge(self, distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(F1 [trees], hits by label [labels, trees]) of the trees of distances [trees, words - 1]."""
        first, last = split_spans(distances)
        predicted = self.count - 2  # the whole sentence is left out
        whole = (first == 0) & (last == self.count - 1)
        hits = (self.spans[first, last] & ~whole).sum(-1)
        recall = hits / self.gold if self.gold else np.ones(len(distances))
        precision = hits / predicted if predicted else np.full(len(distances), float(self.gold == 0))
        with np.errstate(invalid="ignore"):
            f1 = np.nan_to_num(2 * precision * recall / (precision + recall))
        return f1, (self.labelled[:, first, last] * ~whole).sum(-1)
