"""What the kernel holds beyond its tensors, and what happens where even that is too much."""

import sys

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from talking_heads import talking_heads_attention
from tests.kernels.cpu.common import child, needs_kernel

pytestmark = [needs_kernel, pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")]

PEAK = """
import torch
from talking_heads.bench.memory import peak_memory
from talking_heads.bench.shapes import parse
torch.set_num_threads({threads})
for positions in {positions}:
    found = peak_memory(parse(f"12x64x{{positions}}x1"), "cpu", torch.float32, "cpu", 0, print)
    assert found["status"] == "ok", found
    print(found["extra_mib"])
"""


def extra_mib(threads: int, *positions: int) -> list[float]:
    """Forward and backward at 12 x 64, batch 1: MiB of a process of its own beyond inputs, outputs, gradients."""
    done = child(PEAK.format(threads=threads, positions=positions), timeout=900)
    assert done.returncode == 0, done.stderr
    return [float(line) for line in done.stdout.split()]


def test_the_memory_beyond_the_tensors_does_not_grow_as_the_weights_do():
    (extra,) = extra_mib(1, 1536)  # the weights alone of one kind: 108 MiB, and the einsum form has several
    assert extra < 64


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_memory_at_8192_positions_is_below_64_mb_a_thread(threads):
    (extra,) = extra_mib(threads, 8192)
    assert extra * 2**20 < 64e6 * threads


def test_too_large_for_memory_is_an_exception_and_the_process_goes_on():
    code = """
import resource, torch
from contextlib import contextmanager
from talking_heads import talking_heads_attention
torch.set_num_threads(1)

@contextmanager
def short_of_memory(kind, words):
    size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + 24 * 2**20, before[1]))
    try:
        yield
    except kind as problem:
        assert words in str(problem), problem
    else:
        raise SystemExit(f"no {kind}")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)

def attend(*given):
    return talking_heads_attention(*given, backend="cpu")

x = torch.randn(1, 2, 30, 4)
small = attend(x, x, x)
# A few MiB that need many more of workspace.
given = [torch.randn(1, 96, length, 1, requires_grad=True) for length in (32, 8000, 8000)]
with short_of_memory(torch.OutOfMemoryError, "forward needs workspace"):
    attend(*given)
output = attend(*given)
assert torch.equal(attend(x, x, x), small)
with short_of_memory(torch.OutOfMemoryError, "backward needs workspace"):
    output.sum().backward()
one = torch.ones(1, 1, 1, 1)
with short_of_memory(RuntimeError, "allocate memory"):  # torch's own, for the output
    attend(one.expand(1, 1, 2**28, 1), one, one.expand(1, 1, 1, 64))
for length in (2**40, 2**58):  # the sizes of the workspace overflow
    far = one.expand(1, 1, length, 1)
    try:
        attend(one, far, far)
    except torch.OutOfMemoryError as problem:
        assert "needs workspace" in str(problem)
    else:
        raise SystemExit(length)
assert torch.equal(attend(x, x, x), small)
print("goes on")
"""
    done = child(code)
    assert done.returncode == 0 and done.stdout == "goes on\n", (done.returncode, done.stdout, done.stderr)


def test_calls_leave_no_memory_behind():
    code = """
import resource, torch
from talking_heads import talking_heads_attention
torch.set_num_threads(2)
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 2**20
x = [torch.randn(1, 12, 200, 16, requires_grad=True) for _ in range(3)]
def call():
    torch.autograd.grad(talking_heads_attention(*x, backend="cpu").sum(), x)
for _ in range(5):
    call()
before = resident()
for _ in range(50):
    call()
print(resident() - before)
"""
    done = child(code)
    assert float(done.stdout) < 8, done.stderr


@pytest.mark.parametrize("backend", ["cpu", "chunked"])
def test_a_broadcast_mask_of_another_dtype_stays_broadcast(backend):
    query, key, value = (torch.randn(4, 8, 128, 8) for _ in range(3))
    small = torch.randn(1, 1, 128, 128).bfloat16()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        got = talking_heads_attention(
            query, key, value, attn_mask=small.expand(4, 8, 128, 128), backend=backend
        )
    torch.testing.assert_close(got, talking_heads_attention(query, key, value, attn_mask=small.float()))
    scores = 8 * 128 * 128 * 4  # of one batch element, which a block of `chunked` holds several times
    allowed = 4 * scores if backend == "chunked" else 4 * (4 * small.numel() + query.nbytes)
    assert max(event.cpu_memory_usage for event in record.events()) <= allowed
