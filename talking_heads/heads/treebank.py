"""Universal Dependencies treebanks in CoNLL-U, read with the package conllu, checked line by line."""

import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..reading.text import inflated

MOST_WORDS = 1000  # scores of a sentence need words x words numbers a head


@dataclass(frozen=True)
class Sentence:
    """words; heads [words]: the head's place, -1 for the root; relations: with their subtypes.

    line: where the sentence starts in its file.
    """

    words: list[str]
    heads: np.ndarray
    relations: list[str]
    line: int

    @property
    def root(self) -> int:
        return int(np.flatnonzero(self.heads == -1)[0])


def read_treebank(path: Path | str, skipped: dict[int, str] | None = None) -> list[Sentence]:
    """The trees of a .conllu file (gzip allowed). Multiword and empty tokens are left out.

    Args:
        skipped: takes {line: why} of sentences whose heads are no tree: no root or several, a cycle, a head
            that is not there.

    Raises:
        UserError: a line that is no CoNLL-U, a file that ends within a sentence (the line is named), no sentence.
    """
    skipped = {} if skipped is None else skipped
    sentences = []
    for line, block in _blocks(Path(path)):
        found = _parse(Path(path), line, block)
        why = f"more than {MOST_WORDS:,} words" if len(found.words) > MOST_WORDS else _fault(found.heads)
        if why:
            skipped[line] = why
        else:
            sentences.append(found)
    if not sentences:
        raise UserError("a treebank must hold trees", f"none in {path}", "name a CoNLL-U file")
    return sentences


def _blocks(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(number of the first line, lines) of each sentence."""
    block: list[str] = []
    number = 0
    try:
        with inflated(path) as file:
            for number, line in enumerate(io.TextIOWrapper(file, "utf-8-sig"), 1):
                text = line.rstrip("\r\n")
                if text.strip():
                    block.append(text)
                elif block:
                    yield number - len(block), block
                    block = []
    except (EOFError, gzip.BadGzipFile, zlib.error, UnicodeDecodeError) as problem:
        raise UserError(
            "a treebank must be complete UTF-8 text",
            f"{path}: {problem} after line {number}",
            "fetch it again",
        ) from None
    if block:  # no empty line after the last sentence: complete, or cut off?
        first = number - len(block) + 1
        heads = _parse(path, first, block).heads
        if len(heads) and heads.max() >= len(heads):
            raise _broken(path, number, "the file ends within a sentence")
        yield first, block


def _parse(path: Path, first: int, block: list[str]) -> Sentence:
    import conllu

    for number, line in enumerate(block, first):
        if not line.startswith("#") and line.count("\t") != 9:
            raise _broken(path, number, f"{line.count(chr(9)) + 1} columns of 10")
    try:
        tokens = [t for t in conllu.parse("\n".join(block) + "\n\n")[0] if isinstance(t["id"], int)]
        heads = np.array([int(t["head"]) - 1 for t in tokens], dtype=np.int64)
    except (conllu.exceptions.ParseException, TypeError, ValueError, OverflowError, IndexError) as problem:
        raise _broken(path, first, f"a sentence that does not parse ({str(problem) or 'no words'})") from None
    if [t["id"] for t in tokens] != list(range(1, len(tokens) + 1)):
        raise _broken(path, first, "words that are not numbered 1, 2, 3 ...")
    return Sentence([t["form"] for t in tokens], heads, [t["deprel"] or "dep" for t in tokens], first)


def _broken(path: Path, line: int, came: str) -> UserError:
    return UserError(
        "each line must be complete CoNLL-U", f"{path}:{line}: {came}", "fix the line or fetch the file again"
    )


def _fault(heads: np.ndarray) -> str | None:
    count = len(heads)
    if count == 0:
        return "no words"
    if (heads == -1).sum() != 1:
        return "no root" if not (heads == -1).any() else "several roots"
    if heads.max() >= count or heads.min() < -1:
        return "a head that is not there"
    reached = np.arange(count)
    for _ in range(count):  # every word climbs to the root in at most count steps
        reached = np.where(reached == -1, -1, heads[reached])
        if (reached == -1).all():
            return None
    return "a cycle"


def trees_of(source: "Sequence[Sentence] | Path | str") -> Sequence[Sentence]:
    """Sentences as they are, or read from a file."""
    return read_treebank(source) if isinstance(source, Path | str) else source


def fold(relation: str) -> str:
    """nsubj:pass -> nsubj."""
    return relation.partition(":")[0]
