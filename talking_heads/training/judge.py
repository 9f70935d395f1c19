"""Batches, and going through them without training."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

PAD, END, CLASS, MASK, FIRST_SENTINEL = 0, 1, 3, 4, 5  # places of the special tokens
IGNORED = -100  # what the loss of transformers leaves out


def batches(
    model: Any, dataset: Dataset, collate: Callable[[list[Any]], dict[str, Tensor]]
) -> Iterator[dict[str, Tensor]]:
    """The dataset in batches on the model's device, the model in evaluation mode meanwhile."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    try:
        for batch in DataLoader(dataset, batch_size=32, collate_fn=collate):
            yield {name: x.to(device) for name, x in batch.items()}
    finally:
        model.train(was_training)


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
