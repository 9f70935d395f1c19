"""Masked words (BERT): an encoder tells what was masked."""

import copy
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from ..blocks import BlockObjective, Corrupt, Example, Nothing, weight_deviation
from ..judge import CLASS, END, IGNORED, MASK, PAD
from ..tokens import SPECIAL, STARTS_WORD

if TYPE_CHECKING:
    from ..arms import Arm
    from ..settings import Settings

_DENSITY = 0.15


class MaskedWords(BlockObjective):
    models: ClassVar = {
        "pretrain": "BertForMaskedLM",
        "classify": "BertForSequenceClassification",
        "answer": "BertForQuestionAnswering",
    }
    auto = "AutoModelForMaskedLM"
    masks_words = True
    pairs = "<s> $A </s> $B </s>"  # two texts of a task, as tokenizers writes templates

    def config(self, settings: "Settings", arm: "Arm") -> Any:
        from transformers import BertConfig

        width = arm.width or settings.width
        return BertConfig(
            vocab_size=settings.vocabulary,
            hidden_size=width,
            num_hidden_layers=settings.layers,
            num_attention_heads=arm.heads or 1,
            intermediate_size=arm.feed_forward or settings.feed_forward,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            max_position_embeddings=settings.length + 8,
            pad_token_id=PAD,
            initializer_range=weight_deviation(width),
        )

    def drop_attention(self, model: Any) -> None:
        for layer in model.base_model.encoder.layer:
            layer.attention = Nothing(2, residual=True)

    def example(
        self, block: Tensor, draw: torch.Generator, judged: bool, marks: Tensor | None = None
    ) -> Example:
        return mask(block, draw, marks)

    def example_of(self, data: dict[str, Any], settings: "Settings") -> Corrupt:
        if not settings.whole_words:
            return self.example
        return partial(self.example, marks=data["marks"].flatten())

    def reader(self, tokenizer: Any) -> Any:
        """Texts begin with the class token, whose state a classifier reads."""
        from tokenizers.processors import TemplateProcessing

        found = copy.deepcopy(tokenizer)
        found.backend_tokenizer.post_processor = TemplateProcessing(
            single="<s> $A </s>",
            pair=self.pairs,
            special_tokens=[("<s>", CLASS), ("</s>", END)],
        )
        return found

    def encode(self, tokenizer: Any, texts: Sequence[str], settings: "Settings") -> list[list[int]]:
        return [[CLASS, *ids] for ids in super().encode(tokenizer, texts, settings)]


def mask(block: Tensor, draw: torch.Generator, marks: Tensor | None = None) -> dict[str, Tensor]:
    """BERT's objective: 15 % of the tokens are judged; of these 80 % masked, 10 % random, 10 % left.

    Args:
        marks: what `token_marks` says of each token of the vocabulary; with it all tokens of a word are judged, or none.
    """
    inputs, labels = hide(block, draw, marks)
    return {
        "input_ids": torch.cat([torch.tensor([CLASS]), inputs, torch.tensor([END])]),
        "labels": torch.cat([torch.tensor([IGNORED]), labels, torch.tensor([IGNORED])]),
    }


def hide(block: Tensor, draw: torch.Generator, marks: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(inputs, labels), both as long as the block.

    As in BERT's own preparation the number of judged tokens is fixed, so that every device of a shared batch has as
    many. transformers' DataCollatorForLanguageModeling draws each token by itself, and from one generator for all
    examples: an example would depend on those before it.
    """
    chosen = torch.zeros(len(block), dtype=torch.bool)
    chosen[_chosen(block, draw, marks)] = True
    labels = block.masked_fill(~chosen, IGNORED)
    fate = torch.rand(len(block), generator=draw)
    inputs = block.masked_fill(chosen & (fate < 0.8), MASK)
    most = max(int(block.max()), len(SPECIAL))  # a block of ends has no words
    words = torch.randint(len(SPECIAL), most + 1, (len(block),), generator=draw)
    return torch.where(chosen & (fate >= 0.9), words, inputs), labels


def _chosen(block: Tensor, draw: torch.Generator, marks: Tensor | None) -> Tensor:
    """Places of the tokens to judge: single ones, or words in random order as long as they fit (the shortest, where
    none fits). A word is what stands between white space."""
    count = max(1, round(len(block) * _DENSITY))
    if marks is None:
        return torch.randperm(len(block), generator=draw)[:count]
    word = word_numbers(block, marks)
    sizes = torch.bincount(word)
    found: list[int] = []
    for number in torch.randperm(len(sizes), generator=draw).tolist():
        size = int(sizes[number])
        if size <= count:
            found.append(number)
            count -= size
    return torch.isin(word, torch.tensor(found or [int(sizes.argmin())])).nonzero()[:, 0]


def word_numbers(block: Tensor, marks: Tensor) -> Tensor:
    """[positions]: which word of the block each token belongs to."""
    starts = (marks[block] & STARTS_WORD) > 0
    starts[1:] |= block[:-1] < len(SPECIAL)
    starts[0] = True
    return starts.cumsum(0) - 1


objective = MaskedWords()
