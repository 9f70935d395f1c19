"""What a small call pays for its autograd entry in Python: the most that one registered in C++ could save.

    python benchmarks/autograd_entry.py

Compares a custom function that does nothing with torch's own clone, forward and backward, and times a small call of the operator
next to them. Writes benchmarks/results/autograd_entry.json. The shortest of many turns is taken, since the rest is the machine's noise.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import typer
from torch import Tensor

from talking_heads import talking_heads_attention
from talking_heads.results.files import write_json
from talking_heads.results.provenance import provenance

RESULTS = Path(__file__).parent / "results" / "autograd_entry.json"
TURNS, CALLS = 200, 20


class Nothing(torch.autograd.Function):
    """As many tensors as a call of the operator has."""

    @staticmethod
    def forward(ctx: Any, *x: Tensor) -> Tensor:
        ctx.save_for_backward(*x)
        return x[0].detach()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return (grads[0], *(None for _ in ctx.saved_tensors[1:]))


def main() -> None:
    """Measure, print, save."""
    torch.manual_seed(0)
    heads = [torch.randn(1, 8, 16, 64, requires_grad=True) for _ in range(3)]
    maps = [torch.eye(8).requires_grad_() for _ in range(2)]
    apply = super(torch.autograd.Function, Nothing).apply
    calls: dict[str, Callable[[], Tensor]] = {
        "python entry": lambda: apply(*heads, *maps),
        "torch's own entry": lambda: heads[0].clone(),
        "operator, 8x64x16x1": lambda: talking_heads_attention(*heads, *maps),
    }
    way = torch.ones(1, 8, 16, 64)
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(TURNS):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(CALLS):
                call().backward(way)
            best[name] = min(best[name], (time.perf_counter() - start) / CALLS)
    found = {name: 1e6 * x for name, x in best.items()}
    write_json(RESULTS, {"microseconds": found, "provenance": provenance()})
    for name, x in found.items():
        print(f"{name:22} {x:6.1f} us")


if __name__ == "__main__":
    typer.run(main)
