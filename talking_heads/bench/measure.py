"""The clock: the forms of one shape, checked, then timed in turns in one process."""

import gc
import time
from collections.abc import Callable
from typing import Any

import torch

from ..checks import prepare
from ..kernels.flops import backward_flops, forward_flops
from .check import TOLERANCE, largest_error
from .deadline import OutOfTime
from .forms import SDPA, Form, refuses
from .shapes import Inputs, Shape, draw

PEAK = 1024, 8192  # sides of the square product whose rate stands for the machine's peak: CPU, CUDA

NO_TIME = {"status": "skipped", "why": "no time left"}
MIB = 2**20

Say = Callable[[str], None]


def measure(
    shape: Shape,
    forms: list[Form],
    *,
    dtype: torch.dtype,
    device: str,
    seed: int,
    rounds: int,
    seconds: float,
    minutes: float = 0.0,
    say: Say = lambda name: None,
) -> dict[str, Any]:
    """One shape's figures.

    Args:
        rounds: how often each form is timed at least; more often while `seconds` are not spent.
        minutes: when they are spent no form is begun and rounds end early, after one at least; 0: no limit.
        say: told the name of each form before it runs for the first time.

    Returns:
        {"shape", "peak_gflops", "forms": {name: {"status", "why" | "error", "forward_ms", "both_ms",
        "forward_gflops", "both_gflops", "times"}}}; for inputs that cannot be allocated {"shape", "status", "why",
        "forms": {}}. On CUDA "extra_mib"; a causal shape has each form's time without
        causality, too ("full_forward_ms", "full_both_ms"), for SDPA and this library's backends.
    """
    deadline = time.monotonic() + 60 * (minutes or torch.inf)
    try:
        inputs = draw(shape, dtype, device, seed)
    except Exception as problem:  # larger than memory, or than a tensor can be
        return {"shape": str(shape), **cannot_draw(problem), "forms": {}}
    if any(form.is_compiled for form in forms):
        torch.compiler.reset()  # one process may recompile a function only a few times
    rows: dict[str, dict[str, Any]] = {form.name: NO_TIME for form in forms}
    running: dict[str, Callable[[bool], float]] = {}
    for form in sorted(forms, key=lambda form: form.is_compiled):  # what takes longest to begin, last
        if time.monotonic() > deadline:
            continue
        say(form.name)
        rows[form.name] = row = _check(form, shape, inputs)
        if row["status"] == "ok":
            running[form.name] = _clock(form, shape.is_causal, inputs)
            if shape.is_causal and (form.is_ours or form.name == SDPA):
                running[f"{form.name} full"] = _clock(form, False, inputs)
    say("timing")
    times, peak = _take_turns(running, dtype, device, rounds, seconds, deadline)
    for form in forms:
        if rows[form.name]["status"] == "ok" and not times[form.name][True]:
            rows[form.name] = NO_TIME
        elif rows[form.name]["status"] == "ok":
            rows[form.name] |= _figures(form, shape, inputs, times)
    return {"shape": str(shape), "peak_gflops": peak, "forms": rows}


def _check(form: Form, shape: Shape, inputs: Inputs) -> dict[str, Any]:
    """{"status": "ok" | "skipped" | "out of memory" | "wrong" | "failed", ...}; also the warm-up."""
    why = refuses(form, shape, inputs)
    if why is not None:
        return {"status": "skipped", "why": why}
    try:
        error = largest_error(form, shape, inputs)
        run = _clock(form, shape.is_causal, inputs)
        seconds = run(True)
        extra = {"extra_mib": _extra_mib(form, inputs, run)} if inputs.query.is_cuda else {}
    except Exception as problem:
        if not is_out_of_memory(problem):
            return {"status": "failed", "why": f"{type(problem).__name__}: {problem}"[:500]}
        del problem
        release()
        return {"status": "out of memory"}
    release()
    bound = TOLERANCE[inputs.query.dtype]
    status = "ok" if error <= bound else "wrong"  # NaN is wrong
    return {"status": status, "error": error, "error_bound": bound, "first_both_ms": seconds * 1e3, **extra}


def _extra_mib(form: Form, inputs: Inputs, run: Callable[[bool], float]) -> float:
    """The GPU memory that forward and backward need beyond inputs, output and gradients."""
    device = inputs.query.device
    release()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run(True)
    used = inputs[:5] if form.mixes else inputs[:3]
    results = sum(x.nbytes for x in (*used, inputs.grad_output))  # as large as gradients and output
    return max(torch.cuda.max_memory_allocated(device) - before - results, 0) / MIB


def cannot_draw(problem: Exception) -> dict[str, str]:
    first = (str(problem).splitlines() or [""])[0]
    return {"status": "failed", "why": f"its inputs cannot be allocated ({first[:200]})"}


def is_out_of_memory(problem: BaseException) -> bool:
    words = ("can't allocate memory", "not enough memory", "bad_alloc", "Cannot allocate memory")
    return isinstance(problem, MemoryError | torch.OutOfMemoryError) or any(x in str(problem) for x in words)


def release() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _clock(form: Form, is_causal: bool, inputs: Inputs) -> Callable[[bool], float]:
    """A function (with backward?) -> seconds of one call."""
    used = inputs[:5] if form.mixes else inputs[:3]

    def run(backward: bool) -> float:
        with torch.set_grad_enabled(backward):
            start = _now(inputs.query.device)
            output = form.function(*inputs[:5], is_causal)
            if backward:
                torch.autograd.grad(output, used, inputs.grad_output)
            return _now(inputs.query.device) - start

    return run


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _take_turns(
    running: dict[str, Callable[[bool], float]],
    dtype: torch.dtype,
    device: str,
    rounds: int,
    seconds: float,
    deadline: float,
) -> tuple[dict[str, dict[bool, list[float]]], float]:
    """Seconds by form and direction, and the matrix product's GFLOP/s, all from the same rounds."""
    side = PEAK[device.startswith("cuda")]
    square = torch.randn(side, side, dtype=dtype, device=device)
    times: dict[str, dict[bool, list[float]]] = {name: {False: [], True: []} for name in running}
    products: list[float] = []
    for run in running.values():  # causality changed, gradients off: compile again what that changes
        run(False)
    start, done = time.perf_counter(), 0
    try:
        while done < rounds or (time.perf_counter() - start < seconds and done < 20 * rounds):
            if done and time.monotonic() > deadline:
                break
            begin = _now(square.device)
            square @ square
            products.append(_now(square.device) - begin)
            for name, run in running.items():
                for backward in (False, True):
                    times[name][backward].append(run(backward))
            done += 1
    except OutOfTime:
        if not products:
            raise
    return times, 2 * side**3 / median(products) / 1e9


def median(values: list[float]) -> float:
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(values) % 2 else (ordered[half - 1] + ordered[half]) / 2


def _figures(
    form: Form, shape: Shape, inputs: Inputs, times: dict[str, dict[bool, list[float]]]
) -> dict[str, Any]:
    maps = inputs[3:5] if form.mixes else ()
    problem = prepare(*inputs[:3], *maps)
    once = forward_flops(problem)
    operations: dict[bool, float] = {False: once, True: once + backward_flops(problem)}
    if shape.is_causal:
        attended = sum(min(n + 1, shape.memory_len) for n in range(shape.query_len))
        share = attended / (shape.query_len * shape.memory_len)
        operations = {key: count * share for key, count in operations.items()}
    row: dict[str, Any] = {}
    for backward, name in ((False, "forward"), (True, "both")):
        taken = median(times[form.name][backward])
        row[f"{name}_ms"] = taken * 1e3
        row[f"{name}_gflops"] = operations[backward] / taken / 1e9
        full = times.get(f"{form.name} full")
        if full:
            row[f"full_{name}_ms"] = median(full[backward]) * 1e3
    row["times_ms"] = {
        "forward": [x * 1e3 for x in times[form.name][False]],
        "both": [x * 1e3 for x in times[form.name][True]],
    }
    return row
