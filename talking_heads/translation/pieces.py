"""Sentences as pieces of words, and batches of about as many target tokens each."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import UserError
from ..training.tokens import train_tokenizer

PAD, END, UNKNOWN = 0, 1, 2
_SPREAD = 2.0  # tokens by which lengths are blurred, so that the sentences that share a batch change


def joint_bpe(texts: Sequence[str], vocabulary: int) -> Any:
    """One byte-level BPE for both languages, as a transformers tokenizer; each sentence ends with </s>."""
    tokenizer = train_tokenizer(texts, vocabulary, ("<pad>", "</s>", "<unk>"))
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    return tokenizer


def encode(tokenizer: Any, lines: Sequence[str]) -> list[list[int]]:
    """Pieces of each line; a special token spelt in a text is text like any other."""
    if not lines:
        return []
    found: list[list[int]] = tokenizer(list(lines), split_special_tokens=True)["input_ids"]
    return found


def padded(rows: Sequence[Sequence[int]], filler: int = PAD) -> Tensor:
    """int64 [rows, longest]."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[filler] * (width - len(row))] for row in rows])


class Batches(Dataset):
    """Batch number i of a training run, a function of the seed and i alone.

    In each pass the pairs are sorted by length, blurred a little, cut into batches of at most `tokens` target tokens
    (padding counted), and the batches shuffled.

    Args:
        count: batches of the whole run.
    """

    def __init__(
        self, source: Sequence[list[int]], target: Sequence[list[int]], tokens: int, seed: int, count: int
    ) -> None:
        self.source, self.target, self.tokens, self.seed, self.count = source, target, tokens, seed, count
        self.lengths = np.array([[len(a), len(b)] for a, b in zip(source, target, strict=True)], float)
        self._starts = [0]  # number of the first batch of each pass
        self._passes: dict[int, list[np.ndarray]] = {}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        rows = self.rows(number)
        return to_batch([self.source[i] for i in rows], [self.target[i] for i in rows])

    def rows(self, number: int) -> np.ndarray:
        """The pairs of a batch."""
        which = 0
        while True:
            if which + 1 == len(self._starts):
                self._starts.append(self._starts[-1] + len(self._cut(which)))
            if number < self._starts[which + 1]:
                return self._cut(which)[number - self._starts[which]]
            which += 1

    def target_tokens(self, count: int) -> int:
        """Tokens of the first batches, without padding."""
        return int(sum(self.lengths[self.rows(number), 1].sum() for number in range(count)))

    def _cut(self, which: int) -> list[np.ndarray]:
        if which in self._passes:
            return self._passes[which]
        draw = np.random.default_rng([self.seed, which])
        blurred = self.lengths + draw.uniform(0, _SPREAD, self.lengths.shape)
        target = np.floor(blurred[:, 1])
        source = np.where(target % 2, -blurred[:, 0], blurred[:, 0])  # to and fro: neighbours stay alike
        order = np.lexsort((source, target))
        cuts: list[np.ndarray] = []
        start, longest = 0, 0
        for place, row in enumerate(order):
            longest = max(longest, int(self.lengths[row, 1]))
            if longest * (place + 1 - start) > self.tokens and place > start:
                cuts.append(order[start:place])
                start, longest = place, int(self.lengths[row, 1])
        cuts.append(order[start:])
        draw.shuffle(cuts)  # type: ignore[arg-type]
        self._passes = {which: cuts}
        return cuts


def to_batch(source: Sequence[list[int]], target: Sequence[list[int]]) -> dict[str, Tensor]:
    """Keyword arguments of the model; -100 where a target is padding."""
    ids = padded(source)
    return {"input_ids": ids, "attention_mask": (ids != PAD).long(), "labels": padded(target, -100)}


def keep_short(
    source: list[list[int]], target: list[list[int]], longest: int, name: str
) -> tuple[list[list[int]], list[list[int]], int]:
    """(source, target, how many pairs were longer on a side and dropped).

    Raises:
        UserError: all of them.
    """
    kept = [(a, b) for a, b in zip(source, target, strict=True) if max(len(a), len(b)) <= longest]
    if not kept:
        raise UserError(
            f"sentences must have at most {longest} pieces, their end counted",
            f"longer ones only in {name}",
            "raise --longest",
        )
    return [a for a, _ in kept], [b for _, b in kept], len(source) - len(kept)
