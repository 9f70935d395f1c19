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
from talking_heads.checks import prepare
from talking_heads.kernels.triton import tiles
from tests.cases import Case, check, in_ci, run

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
@pytest.mark.parametrize("which", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_under_the_interpreter(which):
    files = [__file__, str(Path(__file__).with_name("test_triton_pairs.py"))]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", which, *files]
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
    "one query, maps by query": Case(dynamic=BY_QUERY, n=1, m=35),
    "3, 7 and 5 heads": Case(i=3, h=7, j=5, n=33, m=50),
    "causal, many tiles": Case(n=50, m=70, is_causal=True),
    "causal tall, many tiles": Case(n=70, m=33, is_causal=True),
    "scale below 0": Case(n=20, m=20, scale=-0.5),
}
# Seconds each under the interpreter; "causal, many tiles" and "groups" stand for them in CI.
LONG = ("long odd", "causal square", "causal tall, many tiles", "groups, causal, mask, dropout")


@kernels_run
@pytest.mark.parametrize(
    ("name", "dtype"),
    in_ci(
        itertools.product(CONTRACT, DTYPES),
        *((name, torch.float32) for name in CONTRACT if name not in LONG),
        *((name, torch.float16) for name in ("default", "causal and mask", "dynamic by query")),
    ),
)
def test_equals_reference(name, dtype):
    check(replace(CONTRACT[name], dtype=dtype), "triton", DEVICE)


@kernels_run
@pytest.mark.parametrize(
    ("shape", "is_causal"),
    in_ci(
        itertools.product(itertools.product((0, 1), repeat=4), (False, True)),
        *(((1, 0, 0, 1), False), ((0, 1, 1, 0), False), ((1, 1, 1, 1), True)),
    ),
)
def test_gradient_of_masks_of_every_broadcastable_shape(shape, is_causal):
    check(Case(mask="float", mask_shape=shape, is_causal=is_causal, n=18, m=21), "triton", DEVICE)


@kernels_run
@pytest.mark.parametrize(
    ("shape",), in_ci([((1,),), ((1, 1),), ((1, 0, 1, 1),), ((1, 1, 1, 1),)], ((1, 0, 1, 1),)), ids=str
)
def test_bool_masks(shape):
    check(Case(mask="dead", mask_shape=shape, n=18, m=21, dtype=torch.float16), "triton", DEVICE)


@kernels_run
@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("kind", ["none", "dead"])
def test_few_queries_over_several_splits_of_memory(n, kind, monkeypatch):
    """Decoding: logits kept between the two kernels, memory split over programs."""
    monkeypatch.setattr(run_module(), "choose_splits", lambda p, tile: 3)
    case = Case(n=n, m=70, mask=kind, mask_shape=(1, 1, 1, 1) if kind == "dead" else (1,))
    for dtype in DTYPES:
        check(replace(case, dtype=dtype), "triton", DEVICE)


@kernels_run
def test_many_queries_over_several_splits_of_memory(monkeypatch):
    monkeypatch.setattr(run_module(), "choose_splits", lambda p, tile: 2)
    check(Case(n=40, m=50, is_causal=True, dtype=torch.float16), "triton", DEVICE)


def run_module():
    from talking_heads.kernels.triton import run as module  # imports triton

    return module


SIZES = sorted({tile[:2] for known in tiles.CANDIDATES.values() for tile in known})


@kernels_run
@pytest.mark.skipif(DEVICE == "cuda", reason="a GPU may not hold every tile")
@pytest.mark.parametrize(("rows", "columns"), in_ci(SIZES, SIZES[0], SIZES[-1]))
def test_every_size_of_tile(rows, columns, monkeypatch):
    """Each kernel with each size of tile that it may take."""

    def choose(kernel, p):
        same = [tile for tile in tiles.CANDIDATES[kernel] if tile[:2] == (rows, columns)]
        return same[0] if same else tiles.INTERPRETED

    monkeypatch.setattr(run_module(), "choose", choose)
    check(Case(n=41, m=37, is_causal=True), "triton", DEVICE)


@kernels_run
def test_gradients_of_key_and_value_by_kernels_of_their_own(monkeypatch):
    choose = tiles.choose
    apart = lambda kernel, p: None if kernel == "memory_gradient" else choose(kernel, p)  # noqa: E731
    monkeypatch.setattr(run_module(), "choose", apart)
    check(Case(n=20, m=37, dropout_p=0.2), "triton", DEVICE)


@kernels_run
@pytest.mark.parametrize(
    "wanted", in_ci(["query", "key", "value", "logits_mix", "weights_mix", "attn_mask"], "key", "attn_mask")
)
def test_one_gradient_alone(wanted):
    case = Case(n=20, m=21, mask="float", mask_shape=(1, 1))
    inputs = case.inputs()
    everything = run(talking_heads_attention, case, inputs, backend="reference")
    alone = {name: x.detach().to(DEVICE).requires_grad_(name == wanted) for name, x in inputs.items()}
    got = run(talking_heads_attention, case, alone, backend="triton")
    assert set(got) == {"output", f"grad {wanted}"}
    for name, x in got.items():
        torch.testing.assert_close(x.cpu(), everything[name], rtol=1e-4, atol=1e-5)


@kernels_run
@pytest.mark.parametrize(
    ("n", "poison", "place"),
    in_ci(
        itertools.product([1, 20], [torch.nan, torch.inf], ["key", "value"]),
        *((1, torch.inf, "value"), (20, torch.nan, "key"), (20, torch.inf, "value")),
    ),
)
def test_what_is_masked_may_hold_anything(n, poison, place):
    case = Case(b=1, n=n, m=37, mask="bool", mask_shape=(1, 1))
    inputs = {name: x.to(DEVICE) for name, x in case.inputs().items()}
    inputs["attn_mask"][:, 30] = False
    clean = run(talking_heads_attention, case, inputs, backend="triton")
    spoilt = dict(inputs)
    spoilt[place] = inputs[place].detach().clone()
    spoilt[place][:, :, 30] = poison
    spoilt[place].requires_grad_()
    for name, x in run(talking_heads_attention, case, spoilt, backend="triton").items():
        assert torch.equal(x, clean[name]), name


@kernels_run
@pytest.mark.parametrize("masked", [False, True])
def test_who_attends_to_what_is_not_finite_sees_it_and_nobody_else(masked):
    case = Case(b=1, i=2, h=2, j=2, n=20, m=20, is_causal=not masked)
    inputs = {name: x.detach().to(DEVICE) for name, x in case.inputs().items()}
    if masked:
        inputs["attn_mask"] = torch.ones(20, 20, dtype=torch.bool, device=DEVICE).tril()
    inputs["value"][0, 1, 12, 3] = torch.inf
    got = talking_heads_attention(**inputs, **case.options(), backend="triton")
    assert got[:, 0].isfinite().all() and got[:, 1, :12].isfinite().all()
    assert not got[:, 1, 12:].isfinite().all(-1).any()
    inputs["value"][0, 1, 12, 3] = 0
    inputs["key"][0, 1, 12, 3] = torch.nan
    got = talking_heads_attention(**inputs, **case.options(), backend="triton")
    assert got[:, :, :12].isfinite().all() and got[:, :, 12:].isnan().all()


LARGE = {
    "padding rows": (1.0, lambda mask: mask[:5].fill_(-1e9)),
    "finfo.min": (1.0, lambda mask: mask[2:8].fill_(torch.finfo(torch.float32).min)),
    "a row of finfo.max": (1.0, lambda mask: mask[1].fill_(torch.finfo(torch.float32).max)),
    "large columns": (1.0, lambda mask: mask[:, 3:6].fill_(1e30)),
    "scores of thousands": (60.0, lambda mask: mask),
    "both, and a dead row": (60.0, lambda mask: mask[1:3].fill_(-1e9)[0].fill_(-torch.inf)),
}


@kernels_run
@pytest.mark.parametrize(
    ("name", "dtype", "n"),
    in_ci(
        itertools.product(LARGE, DTYPES, (9, 20)),
        *((name, torch.float32, 20) for name in LARGE),
        ("both, and a dead row", torch.float16, 9),
    ),
    ids=str,
)
def test_rows_of_large_finite_masks_and_scores(name, dtype, n, monkeypatch):
    """The maximum of a row says nothing about its sum: outputs and gradients are as exact as the reference's in the
    same dtype, also where memory is split."""
    monkeypatch.setattr(run_module(), "choose_splits", lambda p, tile: 2)
    times, change = LARGE[name]
    case = Case(i=2, h=2, j=2, n=n, m=24, dtype=dtype)
    inputs = {key: x.detach().to(DEVICE) for key, x in case.inputs().items()}
    inputs["query"] = inputs["query"] * times
    inputs["attn_mask"] = torch.zeros(n, 24, device=DEVICE)
    change(inputs["attn_mask"])
    exact = {key: x.double() for key, x in inputs.items()}
    found = []
    for given, backend in ((inputs, "triton"), (inputs, "reference"), (exact, "reference")):
        given = {key: x.clone().requires_grad_() for key, x in given.items()}
        found.append(run(talking_heads_attention, case, given, backend=backend))
    got, plain, want = found
    for key, x in want.items():
        size = x.norm() + 1e-9
        error, allowed = (got[key] - x).norm() / size, 4 * (plain[key] - x).norm() / size
        assert error <= allowed + 20 * torch.finfo(dtype).eps, f"{key}: {error:.1e}, allowed {allowed:.1e}"


@kernels_run
def test_inputs_whose_last_axis_is_not_contiguous():
    """Their gradients are laid out like them, which the kernels cannot write."""
    case = Case(n=20, m=21)
    inputs = {name: x.detach().to(DEVICE) for name, x in case.inputs().items()}
    turned = {name: x.mT.contiguous().mT if x.dim() == 4 else x for name, x in inputs.items()}
    found = []
    for given in (inputs, turned):
        given = {name: x.requires_grad_() for name, x in given.items()}
        found.append(run(talking_heads_attention, case, given, backend="triton"))
    assert turned["key"].stride(-1) != 1
    assert all(torch.equal(x, found[1][name]) for name, x in found[0].items())


@kernels_run
def test_the_same_bits_again():
    case = Case(n=20, m=37, dropout_p=0.1, mask="float", mask_shape=(0, 1, 1, 1))
    inputs = {name: x.detach().to(DEVICE).requires_grad_() for name, x in case.inputs().items()}
    first, second = (run(talking_heads_attention, case, inputs, backend="triton") for _ in range(2))
    assert all(torch.equal(x, second[name]) for name, x in first.items())


@kernels_run
def test_operator():
    """Schema, fake kernels and what lives between forward and backward."""
    case = Case(n=17, mask="float", dynamic=BY_QUERY, dropout_p=0.25, layout="heads_inside")
    arguments = [x.to(DEVICE) if isinstance(x, torch.Tensor) else x for x in problem(case)]
    torch.library.opcheck(
        torch.ops.talking_heads.triton.default,
        tuple(arguments),
        test_utils=("test_schema", "test_faketensor"),
    )
    inputs = {name: x.detach().to(DEVICE).requires_grad_() for name, x in Case(n=64, m=64).inputs().items()}
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        talking_heads_attention(**inputs, backend="triton")
    new = {x.untyped_storage().data_ptr(): x.numel() for x in kept}
    for x in inputs.values():
        new.pop(x.untyped_storage().data_ptr(), None)
    assert list(new.values()) == [2 * 2 * 64 * 5]  # the rows' maxima and sums [2, b, n, h]


@kernels_run
def test_compiles_whole_with_dynamic_shapes():
    torch._dynamo.reset()
    compiled = torch.compile(talking_heads_attention, fullgraph=True, dynamic=True)
    for n, m in ((7, 9), (12, 5)):
        case = Case(n=n, m=m, mask="float", is_causal=True)
        inputs = {name: x.detach().to(DEVICE).requires_grad_() for name, x in case.inputs().items()}
        same = {name: x.detach().clone().requires_grad_() for name, x in inputs.items()}
        got = compiled(**inputs, **case.options(), backend="triton")
        want = talking_heads_attention(**same, **case.options(), backend="triton")
        torch.testing.assert_close(got, want)
        got.sum().backward()
        want.sum().backward()
        for name, x in inputs.items():
            torch.testing.assert_close(x.grad, same[name].grad)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


REFUSED = {
    "float64": (Case(dtype=torch.float64), "it computes in float32"),
    "large batches": (Case(b=65536, i=1, h=1, j=1, n=1, m=1, k=1, v=1), "at most 65,535 batch"),
    "maps by memory": (Case(dynamic=("memory_weights_mix",)), "not on the memory position"),
}

if DEVICE == "cpu":
    REFUSED["bfloat16 under the interpreter"] = (Case(dtype=torch.bfloat16), "computes bfloat16 wrongly")


@kernels_run
def test_a_mask_of_float64_is_refused():
    inputs = {name: x.to(DEVICE) for name, x in Case(mask="float").inputs().items()}
    inputs["attn_mask"] = inputs["attn_mask"].double()
    assert "at most 32 bits" in explain(**inputs).reasons["triton"]


@kernels_run
@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    case, words = REFUSED[name]
    with pytest.raises(ValueError, match=words):
        talking_heads_attention(**{k: x.to(DEVICE) for k, x in case.inputs().items()}, backend="triton")


def pretend_gpu(capability, monkeypatch):
    limits = tiles.Limits(capability, tiles.SHARED_BYTES[capability], 100)
    monkeypatch.setattr(tiles, "limits", lambda device: limits)


def test_grouped_heads_are_chosen_for_as_they_are_computed():
    query, few = torch.randn(1, 32, 3, 64), torch.randn(1, 8, 3, 64)
    problem = prepare(query, few, few, enable_gqa=True)
    assert tiles.kind(problem) == tiles.kind(problem.repeated())


@kernels_run
def test_auto_takes_it_first_and_another_for_what_no_tile_holds(monkeypatch):
    pretend_gpu(90, monkeypatch)
    small, large = (
        Case(b=1, i=heads, h=heads, j=heads, n=3, m=3, k=size, v=size, dtype=torch.float16)
        for heads, size in ((12, 64), (64, 128))
    )
    inputs = {name: x.to(DEVICE) for name, x in small.inputs().items()}
    assert explain(**inputs).backend == "triton"
    inputs = {name: x.to(DEVICE) for name, x in large.inputs().items()}
    found = explain(**inputs)
    assert found.backend in ("cpu", "chunked") and "KiB of shared memory" in found.reasons["triton"]
    with pytest.raises(ValueError, match=r"no tile .* KiB of shared memory.*can$"):
        talking_heads_attention(**inputs, backend="triton")
    check(large, "auto", DEVICE)
