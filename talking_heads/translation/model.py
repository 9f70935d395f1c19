"""A transformer of Marian's shape from random weights, converted as an arm says; its loss, its averages."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from ..hf import convert
from ..training.models import limit
from .loss import smoothed_loss
from .pieces import END, PAD
from .settings import Settings

LEAST_POSITIONS = 512


def build(settings: Settings, vocabulary: int) -> Any:
    """The seed fixes every parameter; identity maps draw no random numbers, so arms that differ in maps start alike."""
    arm, width = settings.parsed, settings.model_width
    transformers.set_seed(settings.seed)
    inner = arm.feed_forward or settings.feed_forward
    sides: dict[str, int] = {}
    for side in ("encoder", "decoder"):
        sides |= {
            f"{side}_layers": settings.layers,
            f"{side}_ffn_dim": inner,
            f"{side}_attention_heads": arm.heads,
        }
    config = transformers.MarianConfig(
        vocab_size=vocabulary,
        d_model=width,
        max_position_embeddings=max(LEAST_POSITIONS, 2 * settings.longest),
        activation_function="relu",
        dropout=settings.dropout,
        init_std=width**-0.5,
        scale_embedding=True,
        pad_token_id=PAD,
        eos_token_id=END,
        forced_eos_token_id=None,
        decoder_start_token_id=PAD,
        **sides,
    )
    model = transformers.MarianMTModel(config)
    model.generation_config = transformers.GenerationConfig(
        pad_token_id=PAD, eos_token_id=END, decoder_start_token_id=PAD, suppress_tokens=[PAD]
    )
    if arm.is_converted:
        convert(model, **arm.options)
        limit(model, arm)
    return model


def batch_loss(model: Any, batch: dict[str, Tensor], smoothing: float, learns_output: bool = True) -> Tensor:
    """The label-smoothed loss, a mean over target tokens. learns_output: the output layer takes a gradient, too."""
    labels = batch["labels"]
    shifted = labels.new_full(labels.shape, PAD)
    shifted[:, 1:] = labels[:, :-1].clamp(min=PAD)
    found = model.model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        decoder_input_ids=shifted,
        use_cache=False,
    )
    counted = labels != -100
    weight = model.lm_head.weight
    return smoothed_loss(
        found.last_hidden_state[counted],
        weight if learns_output else weight.detach(),
        labels[counted],
        smoothing,
    )


@torch.no_grad()
def load_average(model: Any, files: Sequence[Path]) -> None:
    """Sets the parameters to their mean over the files, which `named_parameters` were written to."""
    from safetensors.torch import load_file

    sums: dict[str, Tensor] = {}
    for file in files:
        for name, x in load_file(file).items():
            sums[name] = sums[name] + x.double() if name in sums else x.double()
    for name, parameter in model.named_parameters():
        parameter.copy_(sums[name] / len(files))
