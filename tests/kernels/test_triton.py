"""The fused GPU kernels: on a GPU where there is one, else under Triton's interpreter, in a process of its
own, since Triton decides at import which of the two it does."""

import itertools
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from talking_heads import explain, talking_heads_attention
from talking_heads.kernels import triton as backend
from tests.cases import Case, check, run

from .test_contract import CASES
from .test_operator import problem

pytest.importorskip("triton")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED or not torch.cuda.is_available() else "cuda"
# bfloat16 is wrong under the interpreter
DTYPES = [torch.float32, torch.float16] + ([torch.bfloat16] if DEVICE == "cuda" else [])
kernels_run = pytest.mark.skipif(
    DEVICE == "cpu" and not INTERPRETED, reason="runs in test_under_the_interpreter or on a GPU"
)
BY_QUERY = ("query_logits_mix", "query_weights_mix")


@pytest.mark.skipif(INTERPRETED or DEVICE == "cuda", reason="the kernels run here")
def test_under_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--no-header", __file__]
    done = subprocess.run(
        command,
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-3000:] + done.stderr[-1000:]


CONTRACT = {
    name: case for name, case in CASES.items() if not any(x.startswith("memory") for x in case.dynamic)
} | {
    "dynamic by query": Case(dynamic=BY_QUERY, n=18, m=35, is_causal=True, dropout_p=0.2),
    "dynamic by query without static": Case(dynamic=BY_QUERY, logits_mix=False, weights_mix=False),
    "3, 7 and 5 heads": Case(i=3, h=7, j=5, n=33, m=50),
    "causal, many tiles": Case(n=50, m=70, is_causal=True),
    "causal tall, many tiles": Case(n=70, m=33, is_causal=True),
    "scale below 0": Case(n=20, m=20, scale=-0.5),
}


@kernels_run
@pytest.mark.parametrize("name", CONTRACT)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equals_reference(name, dtype):
    check(replace(CONTRACT[name], dtype=dtype), "triton", DEVICE)


@kernels_run
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("shape", list(itertools.product((0, 1), repeat=4)), ids=str)
def test_gradient_of_masks_of_every_broadcastable_shape(shape, is_causal):
    check(Case(mask="float", mask_shape=shape, is_causal=is_causal, n=18, m=21), "triton", DEVICE)


@kernels_run
@pytest.mark.parametrize("shape", [(1,), (1, 1), (1, 0, 1, 1), (1, 1, 1, 1)], ids=str)
def test_bool_masks(shape):
    check(Case(mask="dead", mask_shape=shape, n=18, m=21, dtype=torch.float16), "triton", DEVICE)
