"""What is learned after pre-training: the classification of paragraphs, or of a person's own lines."""

import hashlib
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from ..reading.text import labelled_lines
from .corpus import Corpus


def choose_tasks(corpus: Corpus, transfer: Sequence[str], most: int) -> "list[Task]":
    """Of the command line's options: the corpus's first label, labels by name, "none", or files TRAIN[,TEST]."""
    if not transfer:
        first = paragraph_task(corpus, None, most)
        return [first] if first else []
    if "none" in transfer:
        if len(transfer) > 1:
            raise UserError(
                "--transfer none must stand alone", ", ".join(transfer), "leave it out or the others"
            )
        return []
    tasks = [_choose(corpus, text, most) for text in transfer]
    if len({task.name for task in tasks}) < len(tasks):
        raise UserError("transfer tasks must differ in name", ", ".join(transfer), "name each once")
    return tasks


def _choose(corpus: Corpus, text: str, most: int) -> "Task":
    train, _, test = text.partition(",")
    if Path(train).is_file() or test:
        return file_task(Path(train), Path(test) if test else None, most)
    task = paragraph_task(corpus, text, most)
    if task is None:
        raise UserError("a transfer task must have two classes and paragraphs to judge", text, "name another")
    return task


@dataclass(frozen=True)
class Task:
    """A classification of paragraphs: texts and label numbers."""

    name: str
    classes: list[str]
    train: list[tuple[str, int]]
    test: list[tuple[str, int]]

    @property
    def digest(self) -> str:
        """Names the exact examples."""
        rows = "\0".join(f"{label} {text}" for part in (self.train, self.test) for text, label in part)
        return hashlib.sha256(rows.encode()).hexdigest()[:16]

    @property
    def majority(self) -> float:
        """Accuracy on the test part of always naming its most frequent class."""
        counts = Counter(label for _, label in self.test)
        return max(counts.values()) / len(self.test)


def paragraph_task(corpus: Corpus, label: str | None, most: int) -> Task | None:
    """Which `label` a paragraph has; at most `most` paragraphs to learn from and half as many to judge.

    With label None the first that the corpus has of era, file, label, half, party; None where it has none.
    """
    have = {name for document in corpus.transfer_train for name in document.labels}
    if label is None:
        label = next((name for name in ("era", "file", "label", "half", "party") if name in have), None)
        if label is None:
            return None
    if label not in have:
        raise UserError(
            f"the transfer task must be one of this corpus's labels ({', '.join(sorted(have)) or 'none'})",
            label,
            "name one",
        )
    parts = []
    for documents, limit, seed in ((corpus.transfer_train, most, 1), (corpus.transfer_test, most // 2, 2)):
        rows = [(p, d.labels[label]) for d in documents if label in d.labels for p in d.paragraphs]
        random.Random(seed).shuffle(rows)
        parts.append(rows[:limit])
    classes = sorted({name for _, name in parts[0]})
    number = {name: i for i, name in enumerate(classes)}
    train, test = ([(text, number[name]) for text, name in rows if name in number] for rows in parts)
    if len(classes) < 2 or not test:
        return None
    return Task(label, classes, train, test)


def file_task(train: Path, test: Path | None, most: int) -> Task:
    """Lines "label text" (a space or tab between); without a test file a fifth of the lines is judged."""
    rows = labelled_lines(train)
    classes = sorted({label for label, _ in rows})
    if test is None:
        random.Random(0).shuffle(rows)
        cut = max(1, len(rows) // 5)
        rows, judged = rows[cut:], rows[:cut]
    else:
        judged = labelled_lines(test)
        unknown = sorted({label for label, _ in judged} - set(classes))
        if unknown:
            raise UserError(
                f"labels to judge must be among those to learn ({', '.join(classes[:9])})",
                f"{', '.join(unknown[:9])} in {test}",
                "mend those lines or leave them out",
            )
    if len(classes) < 2:
        raise UserError(
            "a transfer file must have two labels or more",
            f"{len(classes)} in {train}",
            "name another or add lines",
        )
    number = {name: i for i, name in enumerate(classes)}
    random.Random(1).shuffle(rows)
    return Task(
        train.name.removesuffix(".gz").removesuffix(".txt"),
        classes,
        [(text, number[label]) for label, text in rows[:most]],
        [(text, number[label]) for label, text in judged],
    )
