"""Full-batch gradient descent and its recorded history."""

import contextlib
import math
import time
from collections.abc import Callable, Collection
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..errors import UserError
from ..results import stopping
from ..results.files import write_bytes
from .bags import Bags
from .model import WordAttention

Point = dict[str, Tensor | float]  # one epoch
Measure = Callable[[WordAttention], Point]
Progress = Callable[[int, int], None]  # epochs done, of
SAVE_SECONDS = 30.0


def train(
    model: WordAttention,
    sentences: Bags,
    measure: Measure,
    at: Collection[int],
    *,
    kept: Path | None = None,
    progress: Progress = lambda done, total: None,
) -> dict[str, Tensor]:
    """Train the model with the settings of its setup.

    Args:
        measure: what to record of the model. at: the epochs to record, including 0.
        kept: checkpoint file, from which the same call resumes after a kill; deleted at the end.

    Returns:
        {"epoch": int64 [points], "loss": [points] on `sentences`, "seconds": [points] elapsed, and the results of
        `measure`, stacked}.

    Raises:
        UserError: the loss is no longer finite.
    """
    setup = model.setup
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    points = _resume(kept, model) if kept else []
    begin = int(points[-1]["epoch"]) if points else 0
    saved = time.monotonic()
    begun = saved - (float(points[-1]["seconds"]) if points else 0.0)
    with stopping.at_checkpoints() if kept else contextlib.nullcontext():
        for epoch in range(begin, setup.epochs + 1):
            loss = cross_entropy(model(sentences), sentences.labels)
            if epoch in at and not (points and epoch == begin):
                if not math.isfinite(loss.item()):
                    raise UserError(
                        "the loss must stay finite", f"{loss.item()} at epoch {epoch}", "lower the rate"
                    )
                with torch.no_grad():
                    points.append({"epoch": epoch, "loss": loss.item(), **measure(model)})
                points[-1]["seconds"] = time.monotonic() - begun
                progress(epoch, setup.epochs)
                if kept and (stopping.asked() or time.monotonic() - saved > SAVE_SECONDS):
                    _save(kept, model, points)
                    saved = time.monotonic()
                    stopping.stop()
            if epoch < setup.epochs:
                with torch.no_grad():
                    for parameter, gradient in zip(learnt, torch.autograd.grad(loss, learnt), strict=True):
                        parameter.sub_(gradient, alpha=setup.rate)
    if kept:
        kept.unlink(missing_ok=True)
    return _stack(points)


def _stack(points: list[Point]) -> dict[str, Tensor]:
    return {name: torch.stack([torch.as_tensor(point[name]) for point in points]) for name in points[0]}


def _save(path: Path, model: WordAttention, points: list[Point]) -> None:
    parts = {"model": model.state_dict(), "course": _stack(points)}
    write_bytes(path, save({f"{part}.{name}": x for part, held in parts.items() for name, x in held.items()}))


def _resume(path: Path, model: WordAttention) -> list[Point]:
    """Restore the model from `path`; returns the points recorded so far, none without a file or with a damaged one."""
    if not path.exists():
        return []
    try:
        held = load(path.read_bytes())
        course = {name[7:]: x for name, x in held.items() if name.startswith("course.")}
        points: list[Point] = [
            {name: x[point] for name, x in course.items()} for point in range(len(course["epoch"]))
        ]
        model.load_state_dict({name[6:]: x for name, x in held.items() if name.startswith("model.")})
    except (SafetensorError, KeyError, IndexError, RuntimeError):
        return []
    return points


def evenly(epochs: int, points: int) -> list[int]:
    """About `points` epochs at equal distances, including the first and the last."""
    return sorted({*range(0, epochs + 1, max(1, epochs // points)), epochs})


def ever_rarer(epochs: int, points: int) -> list[int]:
    """About `points` epochs at equal ratios, including the first and the last."""
    return sorted({0, *(round(epochs ** (point / points)) for point in range(points + 1))})


def thin(x: Tensor, step: int) -> Tensor:
    """Every `step`-th of x's points, including the first and the last."""
    return x[sorted({*range(0, len(x), step), len(x) - 1})]


@torch.no_grad()
def judge(model: WordAttention, sentences: Bags) -> tuple[float, float]:
    """(mean cross entropy in nats, accuracy)"""
    logits = model(sentences)
    right = (logits.argmax(1) == sentences.labels).double().mean()
    return cross_entropy(logits, sentences.labels).item(), right.item()
