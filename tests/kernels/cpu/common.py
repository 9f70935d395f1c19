"""What the tests of the CPU kernel share."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from talking_heads.kernels.cpu import binding
from tests.cases import Case

needs_kernel = pytest.mark.skipif(binding.MISSING is not None, reason=f"no CPU kernel: {binding.MISSING}")


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def child(code: str, timeout: float = 120, **environment: str) -> subprocess.CompletedProcess:
    """The code in a Python of its own, in which a crash or a hang is one failed test."""
    import os

    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **environment},
    )


def everything(**changes) -> Case:
    """A case in which every input that can go together has a gradient."""
    from tests.cases import DYNAMIC

    return Case(**{"mask": "float", "mask_shape": (0, 0, 1, 1), "dynamic": DYNAMIC, **changes})
