"""Sentences as bags of words, and the synthetic topics of the paper.

Attention of one query over a bag needs no padded array: with weights exp(logit), the numerators and denominators of
the softmax are sums over a sentence's words. A sparse matrix of counts [sentences, words] times one dense matrix
[words, columns] gives all of them at once, and there is no padding to attend to.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import UserError


class Bags(NamedTuple):
    """Labelled sentences over a vocabulary.

    counts: sparse CSR [sentences, words], how often each word occurs in each sentence.
    transposed: the same, [words, sentences]. labels: int64 [sentences].
    """

    counts: Tensor
    transposed: Tensor
    labels: Tensor

    def sum(self, x: Tensor) -> Tensor:
        """[sentences, columns]: x [words, columns] summed over each sentence's words."""
        return _Sum.apply(x, self.counts, self.transposed)

    @property
    def lengths(self) -> Tensor:
        """float [sentences]: words of each sentence."""
        return self.counts.sum(1, keepdim=True).to_dense().flatten()

    def word_sums(self, x: Tensor) -> Tensor:
        """[words, columns]: x [sentences, columns] summed over the sentences of each word."""
        return self.transposed @ x


class _Sum(torch.autograd.Function):
    """A sparse product whose backward is a sparse product too (torch's own would transpose each time)."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, counts: Tensor, back: Tensor) -> Tensor:
        ctx.back = back  # type: ignore[attr-defined]
        return counts @ x

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        return ctx.back @ gradient.contiguous(), None, None  # type: ignore[attr-defined]


def bags(
    sentences: Sequence[Sequence[int]], labels: Sequence[int], words: int, dtype: torch.dtype = torch.float64
) -> Bags:
    """Bags from word numbers below `words`; each sentence must have at least one word."""
    lengths = torch.tensor([len(sentence) for sentence in sentences])
    if len(lengths) == 0 or lengths.min() == 0:
        raise UserError(
            "each sentence must have a word", "an empty one, or none", "leave empty sentences out"
        )
    rows = torch.repeat_interleave(torch.arange(len(sentences)), lengths)
    columns = torch.tensor([word for sentence in sentences for word in sentence])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse")  # torch warns that CSR is in beta
        counts = torch.sparse_coo_tensor(
            torch.stack([rows, columns]), torch.ones(len(rows), dtype=dtype), (len(sentences), words)
        ).coalesce()
        both = _csr(counts), _csr(counts.t().coalesce())
    return Bags(*both, torch.tensor(labels, dtype=torch.int64))


def _csr(x: Tensor) -> Tensor:
    """With int32 indices, which the CPU's sparse products read without a conversion."""
    wide = x.to_sparse_csr()
    rows, columns = wide.crow_indices().int(), wide.col_indices().int()
    return torch.sparse_csr_tensor(rows, columns, wide.values(), wide.shape)


class Topics(NamedTuple):
    """The synthetic data: words 0 to topic_words - 1 are the topic words, in order of topics."""

    train: Bags
    validation: Bags
    test: Bags
    topic_words: int
    others: int  # other words of a sentence: the paper's m


@dataclass(frozen=True)
class TopicData:
    """Sentences of one topic word, which determines the label, and `others` words that carry no information.

    Topic, topic word and other words are drawn uniformly. The defaults are the paper's.
    """

    topics: int = 4
    words_per_topic: int = 2
    vocabulary: int = 5000  # number of other words
    others: int = 20
    sizes: tuple[int, int, int] = (3999, 50, 950)  # sentences to train on, to validate, to test

    def draw(self, seed: int) -> Topics:
        return _draw(self, seed)


PAPER = TopicData()


@lru_cache(maxsize=1)
def _draw(asked: TopicData, seed: int) -> Topics:
    draw = torch.Generator().manual_seed(1_000_003 + seed)
    count, topic_words = sum(asked.sizes), asked.topics * asked.words_per_topic
    first = torch.randint(topic_words, (count, 1), generator=draw)
    rest = topic_words + torch.randint(asked.vocabulary, (count, asked.others), generator=draw)
    sentences = torch.cat([first, rest], 1).split(asked.sizes)
    labels = (first[:, 0] // asked.words_per_topic).split(asked.sizes)
    train, validation, test = (
        bags(part.tolist(), label.tolist(), topic_words + asked.vocabulary)
        for part, label in zip(sentences, labels, strict=True)
    )
    return Topics(train, validation, test, topic_words, asked.others)
