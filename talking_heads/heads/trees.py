"""Constituency trees: brackets read with nltk, spans, and the trees that need no model."""

import gzip
import io
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from unicodedata import category

import numpy as np

from ..errors import UserError
from ..reading.text import inflated
from .treebank import MOST_WORDS

LABELS = ("SBAR", "NP", "VP", "PP", "ADJP", "ADVP")
BASELINES = ("right", "left", "balanced", "random")
# Tags of punctuation: the Penn Treebank's, OntoNotes' and GUM's (hyphens, other marks), and other treebanks' that are
# common. Under any other tag than Penn's for words, a word made only of Unicode punctuation is punctuation too.
PUNCTUATION = frozenset(
    [
        ",",
        ".",
        ":",
        "``",
        "''",
        '"',
        "-LRB-",
        "-RRB-",
        "-LSB-",
        "-RSB-",
        "-LCB-",
        "-RCB-",
        "HYPH",
        "NFP",
        "PU",
        "PUNCT",
        "PUNC",
        "PONCT",
        "$,",
        "$.",
        "$(",
        "$[",
    ]
)
_PENN_WORDS = frozenset(
    [
        "CC",
        "CD",
        "DT",
        "EX",
        "FW",
        "IN",
        "JJ",
        "JJR",
        "JJS",
        "LS",
        "MD",
        "NN",
        "NNS",
        "NNP",
        "NNPS",
        "PDT",
        "POS",
        "PRP",
        "PRP$",
        "RB",
        "RBR",
        "RBS",
        "RP",
        "SYM",
        "TO",
        "UH",
        "VB",
        "VBD",
        "VBG",
        "VBN",
        "VBP",
        "VBZ",
        "WDT",
        "WP",
        "WP$",
        "WRB",
        "$",
        "#",
        "ADD",
        "AFX",
        "GW",
        "XX",
    ]
)
_ESCAPES = {"LRB": "(", "RRB": ")", "LSB": "[", "RSB": "]", "LCB": "{", "RCB": "}"}
_ESCAPED = re.compile(rf"-({'|'.join(_ESCAPES)})-|\\([/*])")
_LEAF = r"[^ \t\r\n()]+"  # not \s: a no-break or an ideographic space is part of its word


@dataclass(frozen=True)
class Tree:
    """A sentence's constituents.

    words: as the text has them. spans: (first word, last word, label) of constituents of 2 words or more, without the
    sentence itself, function tags cut. line: where it starts in its file. removed: marks of punctuation left out.
    """

    words: list[str]
    spans: list[tuple[int, int, str]]
    line: int
    removed: int = 0


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
            elif len(found.words) > MOST_WORDS:
                skipped.append((f"{name}:{line}", f"more than {MOST_WORDS:,} words"))
            else:
                trees.append(found)
    if not trees:
        raise UserError(
            f"a file of trees must hold trees of 2 to {MOST_WORDS:,} words", f"none in {path}", "name another"
        )
    return trees


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(x for x in path.rglob("*") if x.name.removesuffix(".gz").endswith((".mrg", ".ptb")))


def _bracketed(path: Path) -> Iterator[tuple[int, str]]:
    """(first line, text) of each outermost pair of brackets."""
    depth = number = 0
    parts: list[str] = []
    first = 0
    try:
        with inflated(path) as file:
            for number, line in enumerate(io.TextIOWrapper(file, "utf-8-sig"), 1):
                if depth == 0 and line.strip() and not line.lstrip().startswith("("):
                    raise _broken(path, number, f"text outside brackets: {line.strip()[:30]!r}")
                start = 0
                for bracket in re.finditer("[()]", line):
                    place = bracket.start()
                    if bracket[0] == "(":
                        if depth == 0:
                            first, start = number, place
                        depth += 1
                    else:
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
            "trees must be complete UTF-8 text",
            f"{path}: {problem} after line {number}",
            "fetch the file again",
        ) from None
    if depth:
        raise _broken(path, number, f"the file ends within the tree of line {first}")


def _broken(path: Path, line: int, came: str) -> UserError:
    return UserError(
        "each tree must be complete brackets",
        f"{path}:{line}: {came}",
        "fix the line or fetch the file again",
    )


def _tree(path: Path, line: int, text: str, punct: bool) -> Tree:
    from nltk import Tree as Nltk

    try:
        root = Nltk.fromstring(text, node_pattern=_LEAF, leaf_pattern=_LEAF)
    except (ValueError, RecursionError) as problem:
        raise _broken(path, line, " ".join(str(problem).split())) from None
    words: list[str] = []
    spans: list[tuple[int, int, str]] = []
    removed = 0
    todo: list[Any] = [root]  # a stack, not recursion: brackets may be nested thousands deep
    while todo:
        node = todo.pop()
        if isinstance(node, _End):
            if len(words) - node.first >= 2:
                spans.append((node.first, len(words) - 1, _bare(node.label)))
            continue
        tag, word = ("", node) if isinstance(node, str) else (node.label(), _word(node))
        if word is None:
            todo += [_End(len(words), tag), *reversed(node)]
        elif tag != "-NONE-":
            word = _unescaped(word)
            if punct or not _is_punctuation(word, tag):
                words.append(word)
            else:
                removed += 1
    sentence = (0, len(words) - 1)
    return Tree(words, [s for s in spans if s[:2] != sentence], line, removed)


class _End(NamedTuple):
    """Where a phrase ends: its label, and the place of its first word."""

    first: int
    label: str


def _word(node: Any) -> str | None:
    """The word under a tag; None for a phrase. A number may have spaces inside: (CD 10 000)."""
    if not all(isinstance(child, str) for child in node):
        return None
    if len(node) == 1 or (len(node) > 1 and all(child[0].isdigit() for child in node)):
        return " ".join(node)
    return None


def _unescaped(word: str) -> str:
    if word in ("``", "''"):
        return '"'
    return _ESCAPED.sub(lambda found: _ESCAPES[found[1]] if found[1] else found[2], word)


def _is_punctuation(word: str, tag: str) -> bool:
    if tag in PUNCTUATION:
        return True
    return tag not in _PENN_WORDS and all(category(letter).startswith("P") for letter in word)


def _bare(label: str) -> str:
    """NP-SBJ-1, NP=2, NP_SBJ, NP:SBJ and NP|QP -> NP; -LRB- and the like stay."""
    return re.split(r"(?<=.)[-=_:|]", label, maxsplit=1)[0]


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
