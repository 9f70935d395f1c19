"""Masked words and the order of two segments (ALBERT): an encoder whose layers share their weights.

Loss: the mean over masked words plus the mean over pairs, as in Lan et al. 2019. The held-out loss is that of the words
alone, next to which the floors stand.
"""

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from ..blocks import Corrupt, Example, Nothing, weight_deviation
from ..judge import CLASS, END, IGNORED, PAD
from ..tokens import ENDS_SENTENCE
from .masked_lm import MaskedWords, hide

if TYPE_CHECKING:
    from ..arms import Arm
    from ..settings import Settings

_SHARE = 4  # the cut between the segments leaves each at least 1 / _SHARE of the block
_EMBEDDING = 128  # ALBERT's factorised embeddings


class SentenceOrder(MaskedWords):
    models: ClassVar = {
        "pretrain": "AlbertForPreTraining",
        "classify": "AlbertForSequenceClassification",
        "answer": "AlbertForQuestionAnswering",
    }
    auto = "AutoModelForPreTraining"
    pairs = "<s> $A </s> $B:1 </s>:1"  # as its segments

    def config(self, settings: "Settings", arm: "Arm") -> Any:
        from transformers import AlbertConfig

        width = arm.width or settings.width
        return AlbertConfig(
            vocab_size=settings.vocabulary,
            embedding_size=min(width, _EMBEDDING),
            hidden_size=width,
            num_hidden_layers=settings.layers,
            num_attention_heads=arm.heads or 1,
            intermediate_size=arm.feed_forward or settings.feed_forward,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            classifier_dropout_prob=0.0,
            max_position_embeddings=settings.length + 8,
            pad_token_id=PAD,
            bos_token_id=CLASS,
            eos_token_id=END,
            initializer_range=weight_deviation(width),
        )

    def drop_attention(self, model: Any) -> None:
        for group in model.base_model.encoder.albert_layer_groups:
            for layer in group.albert_layers:
                layer.attention = Nothing(2, residual=True)

    def example(
        self,
        block: Tensor,
        draw: torch.Generator,
        judged: bool,
        marks: Tensor | None = None,
        whole_words: bool = False,
    ) -> Example:
        return pair(block, draw, marks, whole_words)

    def example_of(self, data: dict[str, Any], settings: "Settings") -> Corrupt:
        if "marks" not in data:
            return self.example
        return partial(self.example, marks=data["marks"].flatten(), whole_words=settings.whole_words)

    def reader(self, tokenizer: Any) -> Any:
        found = super().reader(tokenizer)
        found.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
        found.init_kwargs["model_input_names"] = found.model_input_names  # what is saved
        return found

    def logits(self, output: Any) -> Tensor:
        found: Tensor = output.prediction_logits
        return found


def pair(
    block: Tensor, draw: torch.Generator, marks: Tensor | None = None, whole_words: bool = False
) -> dict[str, Tensor]:
    """[CLASS] first [END] second [END]: the block's two segments, in every second example exchanged (order label 1).

    The cut is after a sentence drawn from those that end in the middle half of the block; anywhere there, where none
    does.
    """
    cut = _cut(block, draw, marks)
    parts = [block[:cut], block[cut:]]
    is_exchanged = int(torch.randint(2, (1,), generator=draw))
    if is_exchanged:
        parts.reverse()
    inputs, labels = hide(torch.cat(parts), draw, marks if whole_words else None)
    first = len(parts[0])
    special, ignored = (torch.tensor([x]) for x in (END, IGNORED))
    return {
        "input_ids": torch.cat([torch.tensor([CLASS]), inputs[:first], special, inputs[first:], special]),
        "labels": torch.cat([ignored, labels[:first], ignored, labels[first:], ignored]),
        "token_type_ids": (torch.arange(len(block) + 3) >= first + 2).long(),
        "sentence_order_label": torch.tensor(is_exchanged),
    }


def _cut(block: Tensor, draw: torch.Generator, marks: Tensor | None) -> int:
    """How many tokens the first segment has."""
    least = max(1, len(block) // _SHARE)
    places = torch.arange(least, max(least + 1, len(block) - least + 1))
    if marks is not None:
        ends = places[(marks[block[places - 1]] & ENDS_SENTENCE) > 0]
        places = ends if len(ends) else places
    return int(places[torch.randint(len(places), (1,), generator=draw)])


objective = SentenceOrder()
