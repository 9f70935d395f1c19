"""The kernels of a call compiled ahead of time for a GPU that need not be there, and what they take.

Triton compiles for any target; registers, spills and shared memory are read from what its own ptxas says,
and where the spills lie from its nvdisasm.
"""

import io
import re
import subprocess
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, NamedTuple
from unittest import mock

import torch
import triton
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from triton.backends.compiler import GPUTarget

from ..problem import TENSORS, Problem
from . import run, tiles
from .tiles import Tile

_logs: dict[str, str] = {}  # what ptxas said, by the hash of what it compiled


class Compiled(NamedTuple):
    kernel: str
    tile: Tile
    registers: int  # of a thread
    spilled_bytes: int  # of a thread, stored to local memory
    spills_in_loop: int  # instructions that read or write them in the loop over whole tiles
    shared_bytes: int  # of a program
    units: tuple[str, ...]  # types that the matrix units multiply


@contextmanager
def target(capability: int, only: str | None = None, tile: Tile | None = None) -> Iterator[list[Compiled]]:
    """Inside, the backend takes CPU tensors for those of a GPU of `capability` (80, 90, ...): its launches
    compile and run nothing. Yields what they compiled.

    Args:
        only: the one kernel to compile, with `tile`.
    """
    found: list[Compiled] = []

    def launch(name: str, kernel: Any, grid: Any, tile: Tile, *given: Any, **constants: Any) -> None:
        if only in (None, name):
            found.append(_compile(name, kernel, tile, *given, **constants))

    def choose(kernel: str, p: Problem) -> Tile | None:
        if only is None:
            return tiles.choose(kernel, p)
        if kernel == "memory_gradient" != only:
            return None
        return tile if kernel == only else tiles.INTERPRETED

    limits = tiles.Limits(capability, tiles.SHARED_BYTES[capability], tiles.PROCESSORS)
    active = triton.runtime.driver._active
    triton.runtime.driver.set_active(_Driver(capability))
    try:
        with (
            mock.patch.object(run, "launch", launch),
            mock.patch.object(run, "choose", choose),
            mock.patch.object(tiles, "limits", lambda device: limits),
            mock.patch.object(triton.knobs.nvidia, "dump_ptxas_log", True),
            mock.patch.object(triton.knobs.compilation, "always_compile", True),
        ):
            yield found
    finally:
        triton.runtime.driver._active = active


def compile_call(p: Problem, needs: tuple[str, ...], only: str | None = None) -> None:
    """Inside `target`: forward, and backward to the inputs named in `needs`."""
    if only is None or only in tiles.FORWARD:
        run.forward(p)
    if needs and only not in tiles.FORWARD:
        b, h, n, _ = p.sizes
        wanted = [name in needs for name in p._fields[:TENSORS]]
        run.backward(p, torch.zeros(2, b, n, h), p.empty_output(), wanted)


def extra_bytes(p: Problem, needs: tuple[str, ...]) -> int:
    """The most that a call allocates at one time beyond inputs, output and gradients: what it would on a GPU,
    for its tensors are the same; no kernel runs or is compiled."""
    wanted = [name in needs for name in p._fields[:TENSORS]]
    with target(90, only="none"), _Live(x for x in p if isinstance(x, torch.Tensor)) as live:
        output, normalisers = run.forward(p)
        gradients = run.backward(p, normalisers, torch.empty_like(output), wanted)
    # the output's gradient, allocated here, is the caller's
    return live.peak - 2 * output.nbytes - sum(x.nbytes for x in gradients)


class _Live(TorchDispatchMode):
    """Counts the bytes of the storages that live at one time, but for those of `known`."""

    def __init__(self, known: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen = {x.untyped_storage()._cdata for x in known}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        for x in tree_leaves(found):
            if isinstance(x, torch.Tensor) and x.untyped_storage()._cdata not in self.seen:
                storage = x.untyped_storage()
                self.seen.add(storage._cdata)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._free, storage._cdata, storage.nbytes())
        return found

    def _free(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.now -= size


def _compile(name: str, kernel: Any, tile: Tile, *given: Any, **constants: Any) -> Compiled:
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
    registers, spilled = (
        re.search(r"Used (\d+) registers", said),
        re.search(r"(\d+) bytes spill stores", said),
    )
    assert registers and spilled, said
    units = sorted(set(re.findall(r"mma\S*\.m\d+n\d+k\d+\S*?\.f32\.(\w+)", binary.asm["ptx"])))
    in_loop = _spills_in_loop(binary.asm["cubin"]) if int(spilled[1]) else 0
    return Compiled(
        name, tile, int(registers[1]), int(spilled[1]), in_loop, binary.metadata.shared, tuple(units)
    )


def _spills_in_loop(cubin: bytes) -> int:
    """In the shortest loop with products: tiles that need a guard have loops of their own, which are longer."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [triton.knobs.nvidia.nvdisasm.path, "-c", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    code: list[str] = []
    begins: dict[str, int] = {}
    loops: list[list[str]] = []
    for line in text.splitlines():
        label = re.match(r"\s*(\.L_\w+):", line)
        if label:
            begins[label[1]] = len(code)
        elif re.search(r"/\*[0-9a-f]{4,}\*/", line):
            code.append(line)
            back = re.search(r"\bBRA\b.*`\((\.L_\w+)\)", line)
            if back and back[1] in begins:
                loops.append(code[begins[back[1]] :])
    loops = [loop for loop in loops if any(re.search("HMMA|GMMA|FFMA", line) for line in loop)]
    shortest = min(loops, key=len, default=[])
    return sum("LDL" in line or "STL" in line for line in shortest)


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
