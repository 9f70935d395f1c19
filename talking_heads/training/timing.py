"""What a step costs, arms timed alternately so that a busy machine slows all of them alike."""

import time
from statistics import median
from typing import Any

import torch

from ..optim import param_groups
from .models import build
from .objectives import find
from .settings import Settings

ROUNDS = 9


def step_seconds(settings: Settings, seed: int, data: dict[str, Any]) -> dict[str, float]:
    """{arm: median seconds of a training step} (forward, backward, optimizer) on one batch, after a warm-up."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    objective = find(settings.objective)
    examples: Any = objective.train(data, settings, seed, settings.batch)
    rows = objective.collate([examples[i] for i in range(settings.batch)])
    batch = {name: x.to(device) for name, x in rows.items()}
    steps = {
        arm: _step(settings, build(settings, arm, seed).to(device).train(), batch) for arm in settings.arms
    }
    times: dict[str, list[float]] = {arm: [] for arm in settings.arms}
    for turn in range(ROUNDS + 2):
        for arm, step in steps.items():
            start = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn >= 2:
                times[arm].append(time.perf_counter() - start)
    return {arm: median(found) for arm, found in times.items()}


def _step(settings: Settings, model: Any, batch: dict[str, Any]) -> Any:
    device, objective = model.device, find(settings.objective)
    optimizer = torch.optim.AdamW(param_groups(model, settings.weight_decay), lr=1e-5)
    half = device.type == "cuda" and torch.cuda.is_bf16_supported()

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            loss = objective.loss(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step
