"""Span corruption (T5): spans of a block are hidden, and an encoder-decoder writes them."""

import itertools
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from ..blocks import BlockObjective, Example, Nothing
from ..judge import END, FIRST_SENTINEL, IGNORED, PAD
from ..tokens import SENTINELS

if TYPE_CHECKING:
    from ..arms import Arm
    from ..settings import Settings

_DENSITY, _MEAN_SPAN = 0.15, 3.0


class SpanCorruption(BlockObjective):
    models: ClassVar = {
        "pretrain": "T5ForConditionalGeneration",
        "classify": "T5ForSequenceClassification",
        "answer": "T5ForQuestionAnswering",
    }
    auto = "AutoModelForSeq2SeqLM"
    sizes_heads = True

    def config(self, settings: "Settings", arm: "Arm") -> Any:
        from transformers import T5Config

        width = arm.width or settings.width
        return T5Config(
            vocab_size=settings.vocabulary,
            d_model=width,
            d_kv=arm.size or width // (arm.heads or 1),
            d_ff=arm.feed_forward or settings.feed_forward,
            num_layers=settings.layers,
            num_decoder_layers=settings.layers,
            num_heads=arm.heads or 1,
            dropout_rate=0.0,
            pad_token_id=PAD,
            eos_token_id=END,
            decoder_start_token_id=PAD,
            use_cache=False,
        )

    def drop_attention(self, model: Any) -> None:
        for layer in model.modules():
            for name in ("SelfAttention", "EncDecAttention"):
                if hasattr(layer, name):
                    setattr(layer, name, Nothing(3))

    def example(self, block: Tensor, draw: torch.Generator, judged: bool) -> Example:
        return corrupt(block, draw, judged)


def corrupt(block: Tensor, draw: torch.Generator, judged: bool) -> dict[str, Tensor]:
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


objective = SpanCorruption()
