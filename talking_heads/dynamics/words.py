"""Real text as bags of words: vocabulary, how well each word predicts the label, which words are attended to."""

import hashlib
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import UserError
from ..reading.labelled import labelled_texts
from .bags import Bags, bags

Rows = list[tuple[str, list[str]]]


def words_of(text: str) -> list[str]:
    """Lower case, everything but letters, digits and white space cut out, as in the authors' code."""
    return re.sub(r"[^\w\s]", "", text.lower()).split()


@dataclass(frozen=True)
class Text:
    """Labelled sentences, as float32 bags. The vocabulary comes from the training part only.

    Unknown words of `dev` and `test` are dropped.

    unknown: {"dev", "test": sentences left without a word}. They count as wrongly classified.
    digest: of words and labels of all parts.
    """

    classes: list[str]
    vocabulary: list[str]
    sentences: list[list[str]]  # of train
    train: Bags
    dev: Bags
    test: Bags
    unknown: dict[str, int]
    digest: str

    @property
    def occurrence(self) -> Tensor:
        """float [words]: number of training sentences with the word."""
        return _present(self.train).sum(1, keepdim=True).to_dense().flatten()

    @property
    def purity(self) -> Tensor:
        """float [words]: how well the word predicts the label among the training sentences with it.

        (C max_c p_c - 1) / (C - 1) with p_c the share of class c of C: 1 where all have one label, 0 where
        all labels are as frequent. For two classes |p_1 - p_2|, the paper's.
        """
        count = len(self.classes)
        by_class = torch.nn.functional.one_hot(self.train.labels, count).to(self.train.counts.dtype)
        shares = (_present(self.train) @ by_class) / self.occurrence[:, None]
        return (count * shares.amax(1) - 1) / (count - 1)

    @property
    def others(self) -> Tensor:
        """float [words]: how many other words a word's training sentences have on average, the paper's m."""
        lengths = _present(self.train) @ self.train.lengths[:, None]
        return lengths[:, 0] / self.occurrence - 1


def _present(sentences: Bags) -> Tensor:
    """[words, sentences] of 1 where the word occurs."""
    x = sentences.transposed
    return torch.sparse_csr_tensor(x.crow_indices(), x.col_indices(), torch.ones_like(x.values()), x.shape)


def read(train: Path, dev: Path | None, test: Path | None) -> Text:
    """Files of lines "label text" (gzip allowed). Without dev or test, a tenth of the lines is held out for it.

    Raises:
        UserError: a line without text, fewer than two labels, a label that training has not, too few lines to
            hold some out.
    """
    rows = [(label, words_of(text)) for label, text in labelled_texts(train)]
    rows = [(label, words) for label, words in rows if words]
    classes = sorted({label for label, _ in rows})
    if len(classes) < 2:
        raise UserError(
            "text must have two labels or more", f"{len(classes)} in {train}", "name another file"
        )
    paths = {"dev": dev, "test": test}
    rows, parts = _hold_out(rows, [name for name, path in paths.items() if path is None])
    for name, path in paths.items():
        if path is not None:
            parts[name] = [(label, words_of(text)) for label, text in labelled_texts(path, classes=classes)]
    vocabulary = list(dict.fromkeys(word for _, words in rows for word in words))
    number = {word: i for i, word in enumerate(vocabulary)}
    made, unknown = {}, {}
    for name, part in (("train", rows), *parts.items()):
        strange = {label for label, _ in part} - set(classes)
        if strange:
            raise UserError(
                f"the labels of {name} must occur in training",
                ", ".join(sorted(strange)),
                "correct those lines",
            )
        known = [(label, [number[word] for word in words if word in number]) for label, words in part]
        unknown[name] = sum(not words for _, words in known)
        known = [(label, words) for label, words in known if words]
        if not known:
            raise UserError(
                f"{name} must have words that occur in training", "none", f"name another file with --{name}"
            )
        made[name] = bags(
            [words for _, words in known],
            [classes.index(label) for label, _ in known],
            len(vocabulary),
            torch.float32,
        )
    del unknown["train"]
    parts = {"train": rows, **{name: parts[name] for name in paths}}
    digest = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
    return Text(classes, vocabulary, [words for _, words in rows], **made, unknown=unknown, digest=digest)


def _hold_out(rows: Rows, names: list[str]) -> tuple[Rows, dict[str, Rows]]:
    """(the lines that remain, {name: a random tenth}); one line of each label always remains."""
    if not names:
        return rows, {}
    rows = random.Random(0).sample(rows, len(rows))
    kept = {row[0]: row for row in reversed(rows)}  # the first of each label
    free = [row for row in rows if row is not kept[row[0]]]
    if len(free) < len(names):
        raise UserError(
            "text must have lines to hold out in addition to one of each label",
            f"{len(rows)} lines with {len(kept)} labels",
            "add lines, or name others with --dev and --test",
        )
    parts = {}
    for name in names:
        tenth = max(1, len(free) // 10)
        parts[name], free = free[:tenth], free[tenth:]
    return [*kept.values(), *free], parts


def attended(sentences: Bags, score: Tensor) -> Tensor:
    """int64 [sentences]: each sentence's word of the highest score [words]; of equals the later in order."""
    order = score.argsort(stable=True)
    rank = torch.empty_like(score)
    rank[order] = torch.arange(len(order), dtype=score.dtype)
    best = torch.segment_reduce(
        rank[sentences.counts.col_indices()], "max", offsets=sentences.counts.crow_indices()
    )
    return order[best.long()]


def holding(sentences: Bags, word: int) -> Tensor:
    """int64: the sentences that hold a word."""
    begin, end = sentences.transposed.crow_indices()[word : word + 2].tolist()
    return sentences.transposed.col_indices()[begin:end]


def numbers(words: Sequence[str], vocabulary: Sequence[str]) -> list[int]:
    """The words' places in the vocabulary; those it has not are left out."""
    place = {word: i for i, word in enumerate(vocabulary)}
    return [place[word] for word in words if word in place]
