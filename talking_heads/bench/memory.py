"""Peak memory of one form at one shape, forward and backward.

On a CPU the maximum resident set of a process that does nothing else; on CUDA the allocator's own peak.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from .forms import forms, refuses
from .measure import cannot_draw, is_out_of_memory, release
from .shapes import Inputs, Shape, draw

MIB = 2**20


def peak_memory(
    shape: Shape, name: str, dtype: torch.dtype, device: str, seed: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """{"status", "peak_mib", "extra_mib"}: the peak, and what of it is not inputs, output and gradients.

    The process's own code and libraries are not counted: a tiny call of the same form comes first. What
    torch.compile needs to compile is counted, since the form cannot do without it.
    """
    form = forms()[name]
    try:
        inputs = draw(shape, dtype, device, seed)
    except Exception as problem:
        return dict(cannot_draw(problem))
    why = refuses(form, shape, inputs)
    if why is not None:
        return {"status": "skipped", "why": why}
    tiny = shape._replace(query_len=min(16, shape.query_len), memory_len=min(16, shape.memory_len), batch=1)
    used = inputs[:5] if form.mixes else inputs[:3]
    kept = sum(x.numel() * x.element_size() for x in (*used, inputs.grad_output)) / MIB
    try:
        _both(name, tiny, draw(tiny, dtype, device, seed))
        release()
        before = _resident(device)
        _both(name, shape, inputs)
    except Exception as problem:
        if not is_out_of_memory(problem):
            return {"status": "failed", "why": f"{type(problem).__name__}: {problem}"[:500]}
        return {"status": "out of memory"}
    grown = _peak(device) - before
    # output and gradients are as large together as inputs and grad_output; the inputs were there before
    return {"status": "ok", "peak_mib": grown + kept, "extra_mib": max(grown - kept, 0.0)}


def _both(name: str, shape: Shape, inputs: Inputs) -> None:
    form = forms()[name]
    output = form.function(*inputs[:5], shape.is_causal)
    used = inputs[:5] if form.mixes else inputs[:3]
    gradients = torch.autograd.grad(output, used, inputs.grad_output)
    del output, gradients


def _resident(device: str) -> float:
    """MiB now; the peak is counted from here."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device) / MIB
    return _status("VmRSS") or _peak(device)


def _peak(device: str) -> float:
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / MIB
    peak = _status("VmHWM")  # ru_maxrss would remember the parent's
    if peak is not None:
        return peak
    import resource  # not on Windows, which has no other figure

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (MIB if sys.platform == "darwin" else 1024)


def _status(field: str) -> float | None:
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return None
