"""Measuring in a process of its own, which may run out of memory or die without taking the table along."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch

Progress = Callable[[str], None]


def in_child(
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    *,
    limit_gib: float | None,
    threads: int,
    progress: Progress = lambda text: None,
) -> tuple[Any, str | None]:
    """function(*arguments, say) in a fresh process; what it says goes to `progress`.

    Args:
        function: of a module's top level. Its last argument is a function str -> None.
        limit_gib: of private memory; beyond it an allocation fails as it does on a full machine.

    Returns:
        (its result, None), or (None, why the process ended).

    Raises:
        What the function raised, with its message, as RuntimeError.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(there, limit_gib, threads, function, arguments))
    process.start()
    there.close()
    try:
        while True:
            kind, value = here.recv()
            if kind == "said":
                progress(value)
            elif kind == "raised":
                raise RuntimeError(value)
            else:
                return value, None
    except EOFError:
        process.join()
        return None, _ended(process.exitcode or 0)
    finally:
        if process.is_alive():
            process.join(10)
            process.terminate()
        process.join()


def _run(
    pipe: Connection,
    limit_gib: float | None,
    threads: int,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    if limit_gib is not None:
        limit(limit_gib)
    torch.set_num_threads(threads)
    try:
        result = function(*arguments, lambda text: pipe.send(("said", text)))
    except Exception as problem:
        pipe.send(("raised", f"{type(problem).__name__}: {problem}"))
    else:
        pipe.send(("done", result))


def limit(gib: float) -> None:
    """Bounds this process's private memory (RLIMIT_DATA), where the system can."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    size = int(gib * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))


def available_gib() -> float | None:
    """Memory that a process may still take without pushing others out; None where nothing says so."""
    try:
        with open("/proc/meminfo") as file:
            for line in file:
                if line.startswith("MemAvailable"):
                    return int(line.split()[1]) / 2**20
    except OSError:
        pass
    return None


def _ended(code: int) -> str:
    if code < 0:
        name = signal.Signals(-code).name
        return f"its process was ended by {name}" + (" (out of memory)" if name == "SIGKILL" else "")
    return f"its process ended with code {code}" if os.name == "posix" else "its process ended"
