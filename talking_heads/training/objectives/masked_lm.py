"""Masked words (BERT): an encoder tells what was masked."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from ..blocks import BlockObjective, Example, Nothing
from ..judge import CLASS, END, IGNORED, MASK, PAD
from ..tokens import SPECIAL

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

    def config(self, settings: "Settings", arm: "Arm") -> Any:
        from transformers import BertConfig

        return BertConfig(
            vocab_size=settings.vocabulary,
            hidden_size=arm.width or settings.width,
            num_hidden_layers=settings.layers,
            num_attention_heads=arm.heads or 1,
            intermediate_size=arm.feed_forward or settings.feed_forward,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            max_position_embeddings=settings.length + 8,
            pad_token_id=PAD,
        )

    def drop_attention(self, model: Any) -> None:
        for layer in model.base_model.encoder.layer:
            layer.attention = Nothing(2, residual=True)

    def example(self, block: Tensor, draw: torch.Generator, judged: bool) -> Example:
        return mask(block, draw)

    def encode(self, tokenizer: Any, texts: Sequence[str], settings: "Settings") -> list[list[int]]:
        return [[CLASS, *ids] for ids in super().encode(tokenizer, texts, settings)]


def mask(block: Tensor, draw: torch.Generator) -> dict[str, Tensor]:
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


objective = MaskedWords()
