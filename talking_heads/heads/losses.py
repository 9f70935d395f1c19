"""Each example's own loss, as the model itself defines it: labels in, loss out.

A model gives one number a batch. Its logits usually tell how that number is made (cross entropy of classes, of tokens
where they stand or moved by one, squared errors, ...): the form that reproduces the model's number gives each example's
loss from the same forward pass. Where none does, or several do, each example is run by itself. So nothing depends on
what a class is called or wrapped in.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import UserError

Batch = dict[str, Tensor]
_TARGETS = ("labels", "start_positions", "next_sentence_label")


def example_losses(model: Any, batch: Batch) -> Tensor:
    """[batch]: for each example the loss that the model gives it in a batch of one.

    Args:
        batch: keyword arguments of the model, with what it takes as labels.

    Raises:
        UserError: a model that gives no loss, a batch that cannot be split into examples.
    """
    found = in_one_pass(model, batch)
    return found if found is not None else torch.stack([own_loss(model, row) for row in examples(batch)])


def in_one_pass(model: Any, batch: Batch) -> Tensor | None:
    """`example_losses` from one forward pass over the batch; None where only running each example alone tells."""
    output = model(**batch)
    loss = loss_in(model, output)
    logits = getattr(output, "logits", None)
    if size_of(batch) == 1:
        return loss[None]
    if "labels" not in batch or not isinstance(logits, Tensor):
        return None
    close = 1e-4 if loss.dtype in (torch.float32, torch.float64) else 1e-2
    matching = [
        each
        for each, mean in _forms(logits, batch["labels"])
        if torch.allclose(mean.detach().to(loss.dtype), loss.detach(), rtol=close, atol=1e-6)
    ]
    return matching[0] if len(matching) == 1 else None


def own_loss(model: Any, batch: Batch) -> Tensor:
    """The loss that the model gives the batch, a scalar."""
    return loss_in(model, model(**batch))


def loss_in(
    model: Any, output: Any, todo: str = "pass loss=, a function (model, batch) -> one loss an example"
) -> Tensor:
    """The loss in what the model gave, a scalar; UserError, with `todo`, where there is none."""
    loss = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    if not isinstance(loss, Tensor):
        raise UserError(
            "a model must give a loss when it is given labels", f"none from {type(model).__name__}", todo
        )
    return loss.mean()  # DataParallel gives one a device


def size_of(batch: Batch) -> int:
    """The number of examples."""
    target = next((batch[name] for name in _TARGETS if name in batch), next(iter(batch.values())))
    return len(target)


def examples(batch: Batch) -> list[Batch]:
    """The batch's examples, each a batch of one.

    Raises:
        UserError: a tensor without a row an example.
    """
    count = size_of(batch)
    odd = [name for name, x in batch.items() if not isinstance(x, Tensor) or not x.dim() or len(x) != count]
    if odd and count > 1:
        raise UserError(
            f"each tensor of a batch must have one row an example, here {count}",
            f"other rows in {', '.join(odd)}",
            "pass batches of one example",
        )
    return (
        [batch] if count == 1 else [{name: x[i : i + 1] for name, x in batch.items()} for i in range(count)]
    )


def _forms(logits: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """(each example's loss, the batch's loss) of every form that fits these logits and labels."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    counted = not labels.is_floating_point()
    if counted and labels.dim() == 2 and logits.dim() == 3 and logits.shape[:2] == labels.shape:
        for shift in (0, 1):
            yield _of_tokens(logits[:, : logits.shape[1] - shift], labels[:, shift:])
    elif counted and labels.dim() == 1 and logits.dim() == 2 and logits.shape[1] > 1:
        each = functional.cross_entropy(logits, labels, reduction="none")
        yield each, each.mean()
    elif logits.numel() == labels.numel() and len(logits) == len(labels):
        rows, targets = logits.flatten(1), labels.reshape(len(labels), -1).to(logits)
        pairwise = [functional.mse_loss(rows, targets, reduction="none")]
        if logits.shape == labels.shape:
            pairwise.append(functional.binary_cross_entropy_with_logits(rows, targets, reduction="none"))
        for each in pairwise:
            yield each.mean(1), each.mean()


def _of_tokens(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    losses = functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none", ignore_index=-100)
    counts = (labels != -100).sum(1)
    return losses.sum(1) / counts.clamp(min=1), losses.sum() / counts.sum()
