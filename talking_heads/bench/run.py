"""A whole measurement: shapes in turn, each in a process of its own on a CPU, memory if asked for."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from ..devices import device as find_device
from ..errors import UserError, one_of
from ..results.provenance import provenance
from .deadline import OutOfTime, ends
from .forms import forms
from .measure import NO_TIME, measure
from .memory import peak_memory
from .shapes import CPU, CUDA, Shape, parse
from .worker import available_gib, in_child

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
CUDA_MINUTES = 7.0  # so that a GPU lent for a short while gives the whole table
GRACE = 0.5  # minutes that what has begun may go on


class Options(NamedTuple):
    """What to measure. Empty shapes: the device's list. Empty forms: all."""

    device: str = "cpu"
    shapes: tuple[str, ...] = ()
    forms: tuple[str, ...] = ()
    dtype: str = ""  # float32 on a CPU, bfloat16 on CUDA
    rounds: int = 7
    seconds: float = 2.0  # a shape is timed for at least that long
    limit_gib: float = 0.0  # of a child process on a CPU; 0: what is available but 2 GiB
    threads: int = 0  # 0: torch's own number
    minutes: float | None = (
        None  # in all; when they are spent nothing more begins. None: 7 on CUDA; 0: no limit
    )
    memory: bool = False
    timing: bool = True
    seed: int = 0


Progress = Callable[[str], None]


def bench(
    options: Options,
    progress: Progress = lambda text: None,
    keep: Callable[[dict[str, Any]], None] = lambda result: None,
) -> dict[str, Any]:
    """Measures and returns {"options", "provenance", "shapes": [...], "memory": [...]}.

    Args:
        progress: told what is being measured.
        keep: given the result so far after each shape.

    Raises:
        UserError: an unknown device, dtype, form or shape, or no GPU.
    """
    options, shapes = _settled(options)
    result: dict[str, Any] = {
        "options": options._asdict(),
        "provenance": provenance(options.device),
        "computes": {name: form.computes for name, form in forms().items() if name in options.forms},
    }
    if options.timing:
        deadline = time.monotonic() + 60 * (options.minutes or 0)
        result["shapes"] = []
        for k, shape in enumerate(shapes):
            left = deadline - time.monotonic() if options.minutes else None
            if left is not None and left < 0:
                result["shapes"].append(_no_time(shape, options))
                continue
            share = left / 60 / (len(shapes) - k) if left else 0.0
            try:
                with ends(None if left is None else left + 60 * GRACE):
                    result["shapes"].append(_one_shape(shape, options._replace(minutes=share), progress))
            except OutOfTime:
                result["shapes"].append(_no_time(shape, options))
            keep(result)
    if options.memory:
        result["memory"] = []
        for shape in shapes:
            result["memory"].append(_one_memory(shape, options, progress))
            keep(result)
    return result


def _no_time(shape: Shape, options: Options) -> dict[str, Any]:
    return {"shape": str(shape), **NO_TIME, "forms": dict.fromkeys(options.forms, NO_TIME)}


def _settled(options: Options) -> tuple[Options, list[Shape]]:
    """The options with nothing left open, and the shapes."""
    device = find_device(options.device)
    on_gpu = device.type == "cuda"
    dtype = options.dtype or ("bfloat16" if on_gpu else "float32")
    if dtype not in DTYPES:
        raise one_of("--dtype", dtype, DTYPES)
    _check_numbers(options)
    known = forms()
    for name in options.forms:
        if name not in known:
            raise one_of("a form", name, known)
    minutes = (CUDA_MINUTES if on_gpu else 0.0) if options.minutes is None else options.minutes
    texts = options.shapes or (CUDA if on_gpu else CPU)
    shapes = [parse(text) for text in texts]
    limit_gib = options.limit_gib
    if not on_gpu and not limit_gib:
        available = available_gib()
        limit_gib = round(max(available - 2, 1), 1) if available else 0.0
    settled = options._replace(
        device=str(device),
        dtype=dtype,
        shapes=tuple(map(str, shapes)),
        forms=options.forms or tuple(known),
        limit_gib=limit_gib,
        minutes=minutes,
        threads=options.threads or torch.get_num_threads(),
    )
    return settled, shapes


def _check_numbers(options: Options) -> None:
    """Refuse numbers that nothing can be measured with, by the option's name."""
    ranges: dict[str, tuple[float, float, str]] = {
        "rounds": (1, 10**6, "7 or more give a median to rely on"),
        "seconds": (0, 10**6, "2 is the default"),
        "limit_gib": (0, 2**30, "pass 0 for what is free"),
        "threads": (0, 2**12, "pass 0 for torch's own number"),
        "minutes": (0, 10**6, "pass 0 for no limit"),
        "seed": (0, 2**63 - 1, "pass another"),
    }
    for name, (least, most, todo) in ranges.items():
        value = getattr(options, name)
        if value is not None and not least <= value <= most:  # not a number is in no range
            raise UserError(f"--{name.replace('_', '-')} must be from {least} to {most}", value, todo)


def _call(
    function: Callable[..., Any], arguments: tuple[Any, ...], options: Options, progress: Progress
) -> tuple[Any, str | None]:
    """In a child with a limit on a CPU; here on a GPU, whose memory runs out with an exception."""
    if options.device != "cpu":
        return function(*arguments, progress), None
    limit = options.limit_gib or None
    try:
        return in_child(function, arguments, limit_gib=limit, threads=options.threads, progress=progress)
    except RuntimeError as problem:  # inputs that cannot be allocated, say: the other shapes go on
        return None, str(problem)


def _one_shape(shape: Shape, options: Options, progress: Progress) -> dict[str, Any]:
    """A form whose process dies is left out with the reason, and the others start again."""
    names = list(options.forms)
    dead: dict[str, dict[str, str]] = {}
    while True:
        last = [""]

        def say(name: str, last: list[str] = last) -> None:
            last[0] = name
            progress(f"{shape} {name}")

        result, ended = _call(_measure, (shape, tuple(names), options), options, say)
        if ended is None:
            if "status" not in result:
                result["forms"] = {name: result["forms"].get(name) or dead[name] for name in options.forms}
            return result
        if last[0] not in names:
            return {"shape": str(shape), "status": "failed", "why": ended, "forms": dead}
        dead[last[0]] = {"status": "out of memory" if "memory" in ended else "failed", "why": ended}
        names.remove(last[0])


def _measure(shape: Shape, names: tuple[str, ...], options: Options, say: Progress) -> dict[str, Any]:
    chosen = [form for name, form in forms().items() if name in names]
    return measure(
        shape,
        chosen,
        dtype=DTYPES[options.dtype],
        device=options.device,
        seed=options.seed,
        rounds=options.rounds,
        seconds=options.seconds,
        minutes=options.minutes or 0.0,
        say=say,
    )


def _one_memory(shape: Shape, options: Options, progress: Progress) -> dict[str, Any]:
    """Peaks of each form, each from a process of its own."""
    rows: dict[str, Any] = {}
    for name in options.forms:
        progress(f"{shape} {name} memory")
        arguments = (shape, name, DTYPES[options.dtype], options.device, options.seed)
        rows[name], ended = _call(peak_memory, arguments, options, progress)
        if ended:
            rows[name] = {"status": "out of memory" if "memory" in ended else "failed", "why": ended}
    return {"shape": str(shape), "forms": rows}
