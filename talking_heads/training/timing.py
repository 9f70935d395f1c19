"""What a step costs, arms timed alternately so that a busy machine slows all of them alike."""

import time
from statistics import median
from typing import Any

import torch

from ..optim import param_groups
from .devices import autocast, device
from .models import build
from .objectives import find
from .settings import Settings

ROUNDS = 9


def step_seconds(settings: Settings, seed: int, data: dict[str, Any]) -> dict[str, float]:
    """{arm: median seconds of a training step} (forward, backward, optimizer) on one batch, after a warm-up."""
    steps = {arm: _step(settings, *first_batch(settings, arm, seed, data)) for arm in settings.arms}
    times: dict[str, list[float]] = {arm: [] for arm in settings.arms}
    for turn in range(ROUNDS + 2):
        for arm, step in steps.items():
            start = time.perf_counter()
            step()
            if device() == "cuda":
                torch.cuda.synchronize()
            if turn >= 2:
                times[arm].append(time.perf_counter() - start)
    return {arm: median(found) for arm, found in times.items()}


def first_batch(settings: Settings, arm: str, seed: int, data: dict[str, Any]) -> tuple[Any, Any, Any]:
    """(the arm's model in training mode, its first batch, the objective's loss), on the device of training."""
    objective = find(settings.objective)
    examples: Any = objective.train(data, settings, seed, settings.batch)
    rows = objective.collate([examples[i] for i in range(settings.batch)])
    model = build(settings, arm, seed).to(device()).train()
    return model, {name: x.to(device()) for name, x in rows.items()}, objective.loss


def _step(settings: Settings, model: Any, batch: dict[str, Any], loss_of: Any) -> Any:
    optimizer = torch.optim.AdamW(param_groups(model, settings.weight_decay), lr=1e-5)

    def step() -> None:
        with autocast():
            loss = loss_of(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step
