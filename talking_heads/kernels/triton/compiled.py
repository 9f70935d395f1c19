"""The kernels of a call compiled ahead of time for a GPU that need not be there, and what they take.

Triton compiles for any target; registers, spills and shared memory are read from what its own ptxas says.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, NamedTuple
from unittest import mock

import triton
from triton.backends.compiler import GPUTarget

from . import run
from .tiles import Tile

_logs: dict[str, str] = {}  # what ptxas said, by the hash of what it compiled


class Compiled(NamedTuple):
    kernel: str
    tile: Tile
    registers: int  # of a thread
    spilled_bytes: int  # stored to local memory, of a thread
    shared_bytes: int
    cubin: bytes


@contextmanager
def target(capability: int) -> Iterator[list[Compiled]]:
    """Inside, launches compile for `capability` (80, 90, ...) and run nothing; yields what they compiled."""
    found: list[Compiled] = []

    def launch(kernel: Any, grid: Any, tile: Tile, *given: Any, **constants: Any) -> None:
        log = io.StringIO()
        with redirect_stdout(log):
            binary = kernel.warmup(
                *given,
                ROWS=tile.rows,
                COLUMNS=tile.columns,
                **constants,
                grid=(1,),
                num_warps=tile.warps,
                num_stages=tile.stages,
                enable_fp_fusion=True,
            )
        said = _logs.setdefault(binary.hash, log.getvalue())
        found.append(_read(kernel.__name__, tile, binary, said))

    old = triton.runtime.driver._active
    triton.runtime.driver.set_active(_Driver(capability))
    try:
        with (
            mock.patch.object(run, "launch", launch),
            mock.patch.object(triton.knobs.nvidia, "dump_ptxas_log", True),
            mock.patch.object(triton.knobs.compilation, "always_compile", True),
        ):
            yield found
    finally:
        triton.runtime.driver._active = old


class _Driver:
    """What Triton asks of a driver before it compiles."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return self.capability  # kernels are cached by device

    def get_current_stream(self, device: int) -> int:
        return 0


def _read(name: str, tile: Tile, binary: Any, said: str) -> Compiled:
    registers, spilled = re.search(r"Used (\d+) registers", said), re.search(r"(\d+) bytes spill stores", said)
    assert registers and spilled, said
    return Compiled(
        name, tile, int(registers[1]), int(spilled[1]), binary.metadata.shared, binary.asm["cubin"]
    )
