"""Full-batch gradient descent, and what is kept of its course."""

import math
from collections.abc import Callable, Collection

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..errors import UserError
from .bags import Bags
from .model import WordAttention

Measure = Callable[[WordAttention], dict[str, Tensor | float]]
Progress = Callable[[int, int], None]  # epochs done, of


def train(
    model: WordAttention,
    sentences: Bags,
    measure: Measure,
    at: Collection[int],
    *,
    progress: Progress = lambda done, total: None,
) -> dict[str, Tensor]:
    """Trains the model as its setup says.

    Args:
        measure: what to keep of the model. at: the epochs at which it is kept.

    Returns:
        {"epoch": int64 [points], "loss": [points] on `sentences`, and what measure gave, stacked}.

    Raises:
        UserError: the loss left the finite numbers.
    """
    setup = model.setup
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learnt, lr=setup.rate)
    points: list[dict[str, Tensor | float]] = []
    for epoch in range(setup.epochs + 1):
        loss = cross_entropy(model(sentences), sentences.labels)
        if epoch in at:
            if not math.isfinite(loss.item()):
                raise UserError(
                    "the loss must stay finite", f"{loss.item()} at epoch {epoch}", "lower the rate"
                )
            with torch.no_grad():
                points.append({"epoch": epoch, "loss": loss.item(), **measure(model)})
            progress(epoch, setup.epochs)
        if epoch < setup.epochs:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return {name: torch.stack([torch.as_tensor(point[name]) for point in points]) for name in points[0]}


def evenly(epochs: int, points: int) -> list[int]:
    """About so many epochs at equal distances, the start and the end among them."""
    return sorted({*range(0, epochs + 1, max(1, epochs // points)), epochs})


def ever_rarer(epochs: int, points: int) -> list[int]:
    """About so many epochs at equal ratios, the start and the end among them."""
    return sorted({0, *(round(epochs ** (point / points)) for point in range(points + 1))})


@torch.no_grad()
def judge(model: WordAttention, sentences: Bags) -> tuple[float, float]:
    """(mean cross entropy in nats, accuracy)"""
    logits = model(sentences)
    right = (logits.argmax(1) == sentences.labels).double().mean()
    return cross_entropy(logits, sentences.labels).item(), right.item()
