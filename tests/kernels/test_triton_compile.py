"""The fused GPU kernels without running them: who may use them, and what they are compiled to."""

import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from talking_heads import explain, talking_heads_attention
from talking_heads.checks import prepare
from talking_heads.kernels import triton as backend
from talking_heads.kernels.operator import TENSORS
from talking_heads.kernels.triton import tiles
from tests.cases import Case, in_ci

from .test_operator import problem
from .test_triton import INTERPRETED, pretend_gpu

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(INTERPRETED, reason="compiles, hence not where kernels are interpreted")

MAPS = ("logits_mix", "weights_mix")
INPUTS = ("query", "key", "value", *MAPS)


def test_refusals_without_a_gpu(monkeypatch):
    case = problem(Case())
    assert "it needs CUDA tensors" in backend.refuses(case)
    assert "triton" in explain(**Case().inputs()).reasons
    monkeypatch.setattr(backend, "_INSTALLED", False)
    assert backend.refuses(case) == "the package triton is not installed"


@pytest.mark.parametrize(
    ("heads", "size", "capability", "fits"),
    [(12, 64, 80, True), (12, 64, 86, True), (12, 64, 90, True), (16, 128, 90, True), (64, 128, 90, False)],
)
def test_what_a_tile_cannot_hold_is_refused_by_name(heads, size, capability, fits, monkeypatch):
    pretend_gpu(capability, monkeypatch)
    case = problem(Case(i=heads, h=heads, j=heads, k=size, v=size, dtype=torch.bfloat16))
    why = tiles.unable(case)
    assert why is None if fits else "KiB of shared memory" in why


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_fake_cuda_tensors_take_it_where_no_gpu_is():
    """Shapes, layouts and devices of a call that is only traced. (Without CUDA torch has no autograd for them.)"""
    with FakeTensorMode(), torch.no_grad():
        new = lambda heads, size, n: torch.empty(2, n, heads, size, device="cuda").bfloat16().transpose(1, 2)  # noqa: E731
        query, memory, mix = new(12, 64, 5), new(12, 64, 7), torch.empty(12, 12, device="cuda")
        assert explain(query, memory, memory, mix, mix).backend == "triton"
        output = talking_heads_attention(query, memory, memory, mix, mix, backend="triton")
        given = prepare(query, memory, memory, mix, mix)
        _, saved = torch.ops.talking_heads.triton(*given)
        needs = [x is not None for x in given[:TENSORS]]
        found = torch.ops.talking_heads.triton_backward(*given, saved, output, needs)
        huge = new(64, 128, 5)
        refused = explain(huge, huge, huge)
    assert output.device.type == "cuda" and output.dtype == torch.bfloat16 and saved.shape == (2, 2, 5, 12)
    assert output.shape == (2, 12, 5, 64) and output.transpose(1, 2).is_contiguous()
    for x, gradient in zip(given, found, strict=False):
        assert (gradient.shape, gradient.dtype, gradient.stride()) == (x.shape, x.dtype, x.stride())
        assert gradient.device.type == "cuda"
    assert refused.backend == "chunked" and "KiB of shared memory" in refused.reasons["triton"]


def test_meta_tensors():
    case = Case()
    inputs = {name: x.detach().to("meta") for name, x in case.inputs().items()}
    assert explain(**inputs).reasons["triton"].startswith("it needs CUDA tensors")
    assert talking_heads_attention(**inputs).shape == (2, 2, 7, 6)
    output, saved = torch.ops.talking_heads.triton(*prepare(**inputs))
    assert output.is_meta and output.shape == (2, 2, 7, 6) and saved.shape == (2, 2, 7, 5)


@pytest.fixture(params=in_ci(["none", "ieee", "tf32", "high"], "ieee", "high"))
def precision(request):
    """As torch is asked for tf32: by its newer setting, or by set_float32_matmul_precision("high")."""
    settings = torch.backends.cuda.matmul
    before = settings.fp32_precision
    if request.param == "high":
        torch.set_float32_matmul_precision("high")
    else:
        settings.fp32_precision = request.param
    yield request.param
    torch.set_float32_matmul_precision("highest")
    settings.fp32_precision = before


@pytest.mark.parametrize("capability", in_ci([80, 90], 90))
def test_tf32_only_on_request(precision, capability):
    case = Case(b=1, i=3, h=3, j=3, n=64, m=64, k=16, v=16, mask="float", is_causal=True)
    whole = precision in ("ieee", "tf32")
    found = compiled(case, capability, (*INPUTS, "mask")) if whole else compiled(case, capability, ())
    assert len(found) == (6 if whole else 2)
    assert {x.units for x in found} == ({("tf32",)} if precision in ("tf32", "high") else {()})


@pytest.mark.parametrize("capability", in_ci([80, 90], 80))
@pytest.mark.parametrize("kind", in_ci(["none", "bool"], "bool"))
def test_half_precision_multiplies_on_the_matrix_units(kind, capability):
    """Also where a mask makes values be clamped, whose functions may widen bfloat16."""
    case = Case(b=1, k=16, v=16, n=33, m=40, mask=kind, dtype=torch.bfloat16)
    found = compiled(case, capability, INPUTS)
    assert {x.units for x in found} == {("bf16", "f16")} and len(found) == 5
    (found,) = compiled(replace(case, dtype=torch.float16), capability, (), "values")
    assert found.units == ("f16",)


def compiled(case, capability, needs, only=None):
    from talking_heads.kernels.triton.compiled import compile_call, target

    inputs = problem(case)
    with target(capability, only, None if only is None else tiles.INTERPRETED) as found:
        compile_call(inputs, needs, only)
    return found


@pytest.mark.parametrize("installed", [True, False])
def test_the_package_works_without_triton(installed):
    """And imports what needs it only where the backend is used (torch itself may import triton)."""
    code = """
    query = torch.randn(1, 2, 3, 4, requires_grad=True)
    talking_heads_attention(query, query, query).sum().backward()
    assert not any(name.startswith("talking_heads.kernels.triton.run") for name in sys.modules)
    assert not sys.modules.get("triton") or sys.argv[1] == "it"
    assert explain(query, query, query).reasons["triton"].startswith(sys.argv[1])
    """
    head = "import sys; import torch; "
    head += "" if installed else "sys.modules['triton'] = None; "  # importing it fails, find_spec finds none
    head += "from talking_heads import explain, talking_heads_attention"
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            head + textwrap.dedent(code),
            "it" if installed else "the package triton is not",
        ],
        env={name: x for name, x in os.environ.items() if name != "TRITON_INTERPRET"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("is_causal", in_ci([False, True], True))
@pytest.mark.parametrize("capability", in_ci([80, 90], 90))
def test_12_heads_of_64_spill_nothing_in_loops(capability, is_causal):
    from talking_heads.kernels.triton.compiled import compile_call, target

    case = Case(b=1, i=12, h=12, j=12, n=64, m=64, k=64, v=64, layout="heads_inside", dtype=torch.bfloat16)
    with target(capability) as found:
        compile_call(
            problem(replace(case, is_causal=is_causal)),
            ("query", "key", "value", "logits_mix", "weights_mix"),
        )
    kernels = ["statistics", "values", "row_terms", "query_gradient", "memory_gradient"]
    assert [x.kernel for x in found] == kernels
    limit = tiles.SHARED_BYTES[capability]
    # A row's maximum and sum are two numbers: on sm_90 a causal call spills outside its loops, `values` most (104 bytes).
    assert all(x.spills_in_loop == 0 and x.spilled_bytes <= 104 for x in found), found
    assert all(x.shared_bytes <= limit for x in found), found
    assert {x.units for x in found} == {("bf16", "f16")}


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 86, 90])
@pytest.mark.parametrize("mask", [(0, 0, 1, 1), (1, 1, 1, 1)])
@pytest.mark.parametrize(
    ("counts", "size"),
    [((4, 4, 4), 128), ((12, 12, 12), 64), ((12, 12, 12), 32), ((20, 40, 20), 16), ((24, 24, 24), 64)],
)
def test_tiles_fit_with_masks(counts, size, mask, capability):
    """Those that the table lists, and those thought to take at most what a program may."""
    from talking_heads.kernels.triton.compiled import compile_call, target

    i, h, j = counts
    case = Case(
        b=1, i=i, h=h, j=j, n=64, m=64, k=size, v=size, mask="float", mask_shape=mask, dtype=torch.bfloat16
    )
    inputs = problem(case)
    inputs = inputs._replace(mask=inputs.mask.float())
    with target(capability) as found:
        if tiles.unable(inputs) is None:
            compile_call(inputs, ("query", "key", "value", "mask", "logits_mix", "weights_mix"))
    assert all(x.shared_bytes <= tiles.SHARED_BYTES[capability] for x in found), found


def test_a_long_call_allocates_little():
    """Beyond inputs, output and gradients: numbers a row and head, and one copy of inputs laid out otherwise."""
    from talking_heads.kernels.triton.compiled import extra_bytes

    n, names = 16384, ("query", "key", "value", "logits_mix", "weights_mix")
    inputs = [torch.empty(1, n, 12, 64, dtype=torch.bfloat16) for _ in range(3)]
    maps = torch.zeros(12, 12), torch.zeros(12, 12)
    inside = prepare(*(x.transpose(1, 2) for x in inputs), *maps)
    outside = prepare(*(x.view(1, 12, n, 64) for x in inputs), *maps)
    rows = 4 * n * 12
    assert 2 * rows < extra_bytes(inside, names) < 4 * rows
    copies = sum(x.nbytes for x in inputs)
    assert copies < extra_bytes(outside, names) < copies + 4 * rows < 200e6
