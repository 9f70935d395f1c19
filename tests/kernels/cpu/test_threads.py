"""Threads: of torch's count, with one result whatever the count; several Python threads; the GIL."""

import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from talking_heads import talking_heads_attention
from talking_heads.kernels import cpu
from talking_heads.kernels.cpu import binding
from tests.cases import DYNAMIC, Case, check, run
from tests.kernels.cpu.common import child, needs_kernel, threads

pytestmark = needs_kernel

# Several blocks of queries, tiles of keys and segments of tiles, no size a multiple of anything.
LONG = Case(b=1, i=3, h=4, j=5, n=150, m=333, k=11, v=16, mask="float", mask_shape=(1, 1, 1, 1))
CASES = {
    "batch 1": LONG,
    "dynamic": replace(LONG, dynamic=DYNAMIC, dropout_p=0.2),
    "causal": replace(LONG, n=333, is_causal=True),
    "batch 17, mask broadcast over it": replace(LONG, b=17, n=70, m=150, mask_shape=(0, 1, 1, 1)),
    "mask broadcast over queries": replace(LONG, b=2, mask_shape=(1, 0, 0, 1)),
    "bias": replace(LONG, mask="none", bias=True),
    "no map": replace(LONG, logits_mix=False, weights_mix=False, b=7),
    "bfloat16": replace(LONG, dtype=torch.bfloat16),
    "float64": replace(LONG, dtype=torch.float64, b=2),
}


def results(case: Case, count: int):
    with threads(count):
        return run(talking_heads_attention, case, case.inputs(), backend="cpu")


@pytest.mark.parametrize("name", CASES)
def test_results_are_the_same_bit_for_bit_with_any_thread_count(name):
    one = results(CASES[name], 1)
    for count in (2, 3, 5):
        for field, got in results(CASES[name], count).items():
            assert torch.equal(got, one[field]), f"{field} with {count} threads"


@pytest.mark.parametrize("parts", [1, 3, 17])
def test_a_shared_masks_gradient_is_the_same_where_elements_take_turns(parts, monkeypatch):
    case = replace(LONG, b=17, n=70, m=150, mask_shape=(0, 1, 1, 1))
    monkeypatch.setattr(cpu, "MOST_FOR_MASKS", parts * case.h * case.n * case.m)
    check(case, "cpu")
    one = results(case, 1)
    for count in (2, 3):
        assert all(torch.equal(got, one[field]) for field, got in results(case, count).items())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts threads in /proc")
def test_it_takes_as_many_threads_as_torch_has():
    code = """
import os, torch
from talking_heads import talking_heads_attention
x = torch.randn(1, 2, 400, 8)
started = []
for count in (1, 3):
    torch.set_num_threads(count)
    before = len(os.listdir("/proc/self/task"))
    talking_heads_attention(x, x, x, backend="cpu")
    started.append(len(os.listdir("/proc/self/task")) - before)
assert started == [0, 2], started
"""
    assert (done := child(code)).returncode == 0, done.stderr


def test_calls_from_several_python_threads_do_not_disturb_each_other():
    cases = [replace(CASES["dynamic"], seed=seed, dropout_p=0.0, n=40 + 30 * seed) for seed in range(4)]
    alone = [results(case, 1) for case in cases]

    def again(place):
        torch.set_num_threads(2)  # a Python thread has its own count
        return run(talking_heads_attention, cases[place], cases[place].inputs(), backend="cpu")

    with threads(1), ThreadPoolExecutor(4) as pool:
        places = [place for _ in range(5) for place in range(4)]
        for place, found in zip(places, pool.map(again, places), strict=True):
            for field, got in found.items():
                assert torch.equal(got, alone[place][field]), field


def test_the_gil_is_released(monkeypatch):
    span = []

    class Timed:
        """The library, noting when its function begins and ends."""

        def __init__(self, library):
            self.library = library

        def __getattr__(self, name):
            def call(*arguments):
                span.append(time.perf_counter())
                status = getattr(self.library, name)(*arguments)
                span.append(time.perf_counter())
                return status

            return call

    monkeypatch.setattr(binding, "_library", Timed(binding._library))
    x = torch.randn(1, 8, 1500, 64)
    worker = threading.Thread(target=lambda: talking_heads_attention(x, x, x, torch.eye(8), backend="cpu"))
    ticks = []
    with threads(1):
        worker.start()
        while worker.is_alive():
            ticks.append(time.perf_counter())
            time.sleep(0.0005)
    begun, ended = span
    # Held, the GIL would let this thread do nothing between the two.
    assert sum(begun < tick < ended for tick in ticks) >= 3, (ended - begun, len(ticks))


def test_fewer_threads_than_asked_for_end_in_the_same_result():
    code = """
import torch
from talking_heads import talking_heads_attention
from tests.cases import run
from tests.kernels.cpu.test_threads import CASES
def found(count):
    torch.set_num_threads(count)
    return [run(talking_heads_attention, case, case.inputs(), backend="cpu") for case in CASES.values()]
one, two = found(1), found(2)
assert torch.get_num_threads() == 2
for a, b in zip(one, two):
    assert all(torch.equal(a[name], b[name]) for name in a)
print("same")
"""
    done = child(code, OMP_THREAD_LIMIT="1")
    assert done.stdout == "same\n", done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_worker_can_call_it_with_one_thread():
    code = """
import os, torch
from talking_heads import talking_heads_attention
x = torch.randn(1, 2, 400, 8)
torch.set_num_threads(2)
want = talking_heads_attention(x, x, x, backend="cpu")
worker = os.fork()
if worker == 0:
    torch.set_num_threads(1)  # as the DataLoader's workers do
    os._exit(not torch.equal(talking_heads_attention(x, x, x, backend="cpu"), want))
assert os.waitpid(worker, 0)[1] == 0
"""
    assert (done := child(code)).returncode == 0, done.stderr
