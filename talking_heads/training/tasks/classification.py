"""Which class a text has: a label of the corpus, or one given by labelled files."""

import hashlib
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Dataset

from ...errors import UserError, did_you_mean
from ...reading.labelled import labelled_texts
from ..corpus import Corpus, Documents
from ..judge import batches, collate

if TYPE_CHECKING:
    from ..objectives import Objective
    from ..settings import Settings

_ENOUGH = 50  # times the paragraphs that are wanted: then the rest of the documents is not read


@dataclass(frozen=True)
class Classification:
    """Texts and label numbers; the score is accuracy. See `tasks.Task`."""

    name: str
    classes: list[str]
    train: list[tuple[str, int]]
    test: list[tuple[str, int]]

    @property
    def digest(self) -> str:
        """Names the exact examples."""
        rows = "\0".join(f"{label} {text}" for part in (self.train, self.test) for text, label in part)
        return hashlib.sha256(rows.encode()).hexdigest()[:16]

    head, metric = "classify", "accuracy"

    @property
    def changes(self) -> dict[str, Any]:
        """Of the model's config."""
        return {"num_labels": len(self.classes)}

    def about(self) -> dict[str, Any]:
        """Sizes, and what trivial methods reach."""
        return {
            "classes": self.classes,
            "train": len(self.train),
            "test": len(self.test),
            "metric": self.metric,
            "majority": self.majority,
            "bag_of_words": self.bag_of_words,
        }

    def examples(self, objective: "Objective", tokenizer: Any, settings: "Settings") -> Dataset:
        """What is learned from."""
        return Texts(self.train, objective, tokenizer, settings)

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return collate(rows)

    def score(self, model: Any, objective: "Objective", tokenizer: Any, settings: "Settings") -> float:
        """Accuracy on the texts to judge."""
        with torch.no_grad():
            texts = Texts(self.test, objective, tokenizer, settings)
            found = [model(**x).logits.argmax(-1) == x["labels"] for x in batches(model, texts, collate)]
        return torch.cat(found).float().mean().item()

    @property
    def majority(self) -> float:
        """Accuracy on the test part of always naming its most frequent class."""
        counts = Counter(label for _, label in self.test)
        return max(counts.values()) / len(self.test)

    @property
    def bag_of_words(self) -> float:
        """Accuracy of logistic regression on word counts, learned from the same examples."""
        from sklearn.feature_extraction.text import CountVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        model = make_pipeline(
            CountVectorizer(token_pattern=r"(?u)\S+"), LogisticRegression(max_iter=1000, random_state=0)
        )
        (train, labels), (test, wanted) = (zip(*rows, strict=True) for rows in (self.train, self.test))
        if len(set(labels)) < 2:  # of few examples
            return wanted.count(labels[0]) / len(wanted)
        return float(model.fit(train, labels).score(test, wanted))


def paragraph_task(corpus: Corpus, label: str | None, most: int) -> Classification | None:
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
            did_you_mean(label, have, "name one of them, or labelled files"),
        )
    parts = []
    for documents, limit, seed in ((corpus.transfer_train, most, 1), (corpus.transfer_test, most // 2, 2)):
        rows = _paragraphs(documents, label, limit, random.Random(seed))
        parts.append(rows)
    classes = sorted({name for _, name in parts[0]})
    number = {name: i for i, name in enumerate(classes)}
    train, test = ([(text, number[name]) for text, name in rows if name in number] for rows in parts)
    if len(classes) < 2 or not test:
        return None
    return Classification(label, classes, train, test)


def _paragraphs(documents: Documents, label: str, most: int, draw: random.Random) -> list[tuple[str, str]]:
    """(paragraph, label): at most `most`, drawn from all documents, or of a large corpus from some of them."""
    rows: list[tuple[str, str]] = []
    for document in draw.sample(documents, len(documents)):
        if label in document.labels and len(rows) < _ENOUGH * most:
            rows += [(text, document.labels[label]) for text in document.paragraphs]
    draw.shuffle(rows)
    return rows[:most]


def file_task(train: Path, test: Path | None, most: int) -> Classification:
    """Lines "label text" (a space or tab between); without a test file a fifth of the lines is judged."""
    rows = labelled_texts(train)
    classes = sorted({label for label, _ in rows})
    if test is None:
        random.Random(0).shuffle(rows)
        cut = max(1, len(rows) // 5)
        rows, judged = rows[cut:], rows[:cut]
    else:
        judged = labelled_texts(test, classes=classes)
        unknown = sorted({label for label, _ in judged} - set(classes))
        if unknown:
            raise UserError(
                f"labels to judge must be among those to learn ({', '.join(classes[:9])})",
                f"{', '.join(unknown[:9])} in {test}",
                "correct those lines or leave them out",
            )
    if len(classes) < 2:
        raise UserError(
            "a transfer file must have two labels or more",
            f"{len(classes)} in {train}",
            "name another or add lines",
        )
    number = {name: i for i, name in enumerate(classes)}
    random.Random(1).shuffle(rows)
    return Classification(
        train.name.removesuffix(".gz").removesuffix(".txt"),
        classes,
        [(text, number[label]) for label, text in rows[:most]],
        [(text, number[label]) for label, text in judged],
    )


class Texts(Dataset):
    """Texts as the objective's models read them, with label numbers."""

    def __init__(
        self, rows: list[tuple[str, int]], objective: "Objective", tokenizer: Any, settings: "Settings"
    ) -> None:
        self.labels = [label for _, label in rows]
        self.ids = objective.encode(tokenizer, [text for text, _ in rows], settings)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        return {"input_ids": torch.tensor(self.ids[number]), "labels": torch.tensor(self.labels[number])}
