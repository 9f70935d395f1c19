"""What is learned from a block of text: span corruption (T5) and masked words (BERT).

An example is a pure function of (seed, number), so every arm sees the same examples in the same order and
a resumed run goes on exactly where it stopped.
"""

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from .tokens import SENTINELS, SPECIAL

PAD, END, CLASS, MASK, FIRST_SENTINEL = 0, 1, 3, 4, 5
IGNORED = -100  # what the loss of transformers leaves out
_DENSITY, _MEAN_SPAN = 0.15, 3.0


class Examples(Dataset):
    """Example number i of a training run (or, with `judged`, of the held-out set)."""

    def __init__(self, blocks: Tensor, count: int, seed: int, objective: str, judged: bool = False) -> None:
        self.blocks, self.count, self.seed, self.judged = blocks, count, seed, judged
        self.corrupt = OBJECTIVES[objective]
        self.order: tuple[int, Tensor] = (-1, torch.empty(0))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        passes, place = divmod(number, len(self.blocks))
        if not self.judged:  # each pass over the blocks in an order of its own
            if self.order[0] != passes:
                draw = torch.Generator().manual_seed(self.seed * 1_000_003 + passes)
                self.order = (passes, torch.randperm(len(self.blocks), generator=draw))
            place = int(self.order[1][place])
        draw = torch.Generator().manual_seed(self.seed * 1_000_003 + 7 * number + 1)
        return self.corrupt(self.blocks[place].long(), draw, self.judged)


def span_corruption(block: Tensor, draw: torch.Generator, judged: bool) -> dict[str, Tensor]:
    """T5's objective: 15 % of the tokens in spans of 3 on average, each replaced by a sentinel.

    Judged, the loss counts the text's own tokens only: sentinels and the end are known beforehand and
    would flatter the comparison with unigram entropy.
    """
    length = len(block)
    hidden = max(1, round(length * _DENSITY))
    spans = min(max(1, round(hidden / _MEAN_SPAN)), SENTINELS, length - hidden)
    inside, outside = _parts(hidden, spans, draw), _parts(length - hidden, spans, draw)
    inputs: list[Tensor] = []
    targets: list[Tensor] = []
    place = 0
    for i, (shown, gone) in enumerate(zip(outside, inside, strict=True)):
        sentinel = torch.tensor([FIRST_SENTINEL + i])
        inputs += [block[place : place + shown], sentinel]
        targets += [sentinel, block[place + shown : place + shown + gone]]
        place += shown + gone
    end = torch.tensor([END])
    labels = torch.cat([*targets, end])
    if judged:
        labels_kept = labels.clone()
        labels_kept[(labels >= FIRST_SENTINEL) & (labels < FIRST_SENTINEL + SENTINELS)] = IGNORED
        labels_kept[-1] = IGNORED
        shifted = torch.cat([torch.tensor([PAD]), labels[:-1]])
        return {"input_ids": torch.cat([*inputs, end]), "labels": labels_kept, "decoder_input_ids": shifted}
    return {"input_ids": torch.cat([*inputs, end]), "labels": labels}


def _parts(total: int, count: int, draw: torch.Generator) -> list[int]:
    """`total` cut into `count` positive lengths, all such cuts equally likely."""
    cuts = torch.randperm(total - 1, generator=draw)[: count - 1].sort().values + 1
    ends = [0, *cuts.tolist(), total]
    return [b - a for a, b in itertools.pairwise(ends)]


def masked_words(block: Tensor, draw: torch.Generator, judged: bool) -> dict[str, Tensor]:
    """BERT's objective: 15 % of the tokens are judged; of these 80 % masked, 10 % random, 10 % left."""
    chosen = torch.rand(len(block), generator=draw) < _DENSITY
    chosen[torch.randint(len(block), (1,), generator=draw)] = True
    labels = block.masked_fill(~chosen, IGNORED)
    fate = torch.rand(len(block), generator=draw)
    inputs = block.masked_fill(chosen & (fate < 0.8), MASK)
    most = max(int(block.max()), len(SPECIAL))  # a block of ends has no words
    words = torch.randint(len(SPECIAL), most + 1, (len(block),), generator=draw)
    inputs = torch.where(chosen & (fate >= 0.9), words, inputs)
    return {
        "input_ids": torch.cat([torch.tensor([CLASS]), inputs, torch.tensor([END])]),
        "labels": torch.cat([torch.tensor([IGNORED]), labels, torch.tensor([IGNORED])]),
    }


OBJECTIVES: dict[str, Callable[[Tensor, torch.Generator, bool], dict[str, Tensor]]] = {
    "span-corruption": span_corruption,
    "masked-lm": masked_words,
}


def collate(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Pads a batch to its longest row; labels with what the loss leaves out."""
    batch: dict[str, Tensor] = {}
    for name in rows[0]:
        values = [torch.as_tensor(row[name]) for row in rows]
        if values[0].dim() == 0:
            batch[name] = torch.stack(values)
            continue
        filler = IGNORED if name == "labels" else PAD
        batch[name] = torch.nn.utils.rnn.pad_sequence(values, batch_first=True, padding_value=filler)
    batch["attention_mask"] = (batch["input_ids"] != PAD).long()
    return batch
