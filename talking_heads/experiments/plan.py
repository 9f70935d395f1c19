"""What an experiment would take, without running it: arms, parameters, multiplications, time, memory."""

import time
from dataclasses import dataclass
from typing import Any

import torch

from ..results.table import Table
from ..training.arms import parse_arm
from ..training.devices import autocast, device
from ..training.settings import Settings
from .cost import Cost, cost_of
from .tables import Experiment

GPUS = 8
GPU_FLOPS = 150e12  # a second, of one GPU in training: about half an A100's bfloat16 peak of 312e12
_SHARE = 0.5  # of the speed of a large matrix product that training reaches
_STATES = 16  # bytes a parameter: float32 weight, gradient and AdamW's two moments
_ACTIVATIONS = 34  # bytes a position, width and layer in half precision (Korthikanti et al. 2022, without attention matrices)
_CHECKPOINTED = 2  # the same where each layer is recomputed: its input alone


@dataclass(frozen=True)
class Machine:
    """What the time is estimated for. flops: floating-point operations a second of one device, in training."""

    name: str
    devices: int
    flops: float


def this_machine() -> Machine:
    """The speed of a large matrix product here, of which training reaches about half."""
    size = 1024 if device() == "cpu" else 8192
    a, b = torch.randn(2, size, size, device=device())
    best = 0.0
    with autocast():
        for _ in range(5):
            start = time.perf_counter()
            (a @ b).sum().item()
            best = max(best, 2 * size**3 / (time.perf_counter() - start))
    said = f"this machine, at half of the {best / 1e9:,.0f} GFLOP/s that a matrix product reaches"
    return Machine(said, 1, _SHARE * best)


def gpus(count: int = GPUS, flops: float = GPU_FLOPS) -> Machine:
    return Machine(f"{count} GPUs, at {flops / 1e12:g} TFLOP/s each (assumed)", count, flops)


def plan(experiment: Experiment, settings: Settings, scale: str, machine: Machine) -> dict[str, Any]:
    """{"experiment", "question", "scale", "objective", "seeds", "steps", "tokens" (of a run), "machine", "minutes" (all
    runs), "arms": [{"name", "parameters", "attention_multiplications", "multiplications" (both for one example),
    "flops" (of a run), "minutes" (of a run), "memory_gib"}], "settings"}. Pre-training alone: evaluation and transfer
    come on top."""
    arms = [_arm(settings, name, machine) for name in settings.arms]
    tokens = settings.steps * settings.batch * settings.length
    return {
        "experiment": experiment.name,
        "question": experiment.question,
        "scale": scale,
        "objective": settings.objective,
        "seeds": len(settings.seeds),
        "steps": settings.steps,
        "tokens": tokens,
        "machine": machine.name,
        "minutes": sum(arm["minutes"] for arm in arms) * len(settings.seeds),
        "arms": arms,
        "settings": {name: getattr(settings, name) for name in _SHOWN},
    }


_SHOWN = ("vocabulary", "width", "layers", "feed_forward", "length", "batch", "steps", "learning_rate")


def _arm(settings: Settings, name: str, machine: Machine) -> dict[str, Any]:
    arm = parse_arm(name)
    cost = cost_of(settings, arm)
    flops = cost.training_flops * settings.batch * settings.steps
    return {
        "name": arm.name,
        "parameters": cost.parameters,
        "attention_multiplications": cost.attention_multiplications,
        "multiplications": cost.multiplications,
        "flops": flops,
        "minutes": flops / (machine.flops * machine.devices) / 60,
        "memory_gib": _memory(settings, cost, machine.devices),
    }


def _memory(settings: Settings, cost: Cost, devices: int) -> dict[str, float]:
    """GiB a device: {"ddp", "fsdp", "fsdp_checkpointing"}; the output layer's logits, in float32, are counted too."""
    rows = settings.batch / devices
    first, second = cost.positions
    positions = (first + second) * rows * settings.width * settings.layers
    logits = 8 * rows * (second or first) * settings.vocabulary
    states = _STATES * cost.parameters
    plain, again = (x * positions + logits for x in (_ACTIVATIONS, _CHECKPOINTED))
    sizes = {
        "ddp": states + plain,
        "fsdp": states / devices + plain,
        "fsdp_checkpointing": states / devices + again,
    }
    return {name: size / 2**30 for name, size in sizes.items()}


def table(found: dict[str, Any]) -> Table:
    """The arms as a table for people."""
    rows = [
        {
            "arm": arm["name"],
            "parameters": f"{arm['parameters']:,}",
            "attention multiplications": f"{arm['attention_multiplications']:,}",
            "minutes a run": f"{arm['minutes']:,.1f}",
        }
        for arm in found["arms"]
    ]
    return Table(rows, ("arm",), "minutes a run")


def lines(found: dict[str, Any]) -> list[str]:
    """What stands below the table."""
    arms, minutes = found["arms"], found["minutes"]
    time_ = f"{minutes / 60:,.1f} hours" if minutes > 120 else f"{minutes:,.1f} minutes"
    flops = [arm["flops"] for arm in arms]
    most = {way: max(arm["memory_gib"][way] for arm in arms) for way in arms[0]["memory_gib"]}
    return [
        f"{found['question']} {found['objective']}, {found['steps']:,} steps, {found['tokens']:,} tokens a run, {found['seeds']} seeds.",
        "Attention multiplications: of a forward pass of one example, all layers, by formula.",
        f"A run takes {min(flops):.2e} to {max(flops):.2e} FLOPs; all runs about {time_} on {found['machine']}, without "
        "evaluation and transfer.",
        f"Memory of a device, about, for the largest arm: {most['ddp']:.1f} GiB by DDP, {most['fsdp']:.1f} by FSDP2, "
        f"{most['fsdp_checkpointing']:.1f} with gradient checkpointing.",
    ]
