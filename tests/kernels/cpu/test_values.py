"""Sizes at the edge, strides, unwritten memory, dropout, masks, half precision, groups."""

from dataclasses import replace

import pytest
import torch

from talking_heads import talking_heads_attention
from talking_heads.kernels import cpu, operator
from talking_heads.kernels.cpu import call
from talking_heads.kernels.problem import Problem
from talking_heads.kernels.random import keep_mask, row_numbers
from tests.cases import DYNAMIC, Case, check, run
from tests.kernels.cpu.common import everything, needs_kernel

pytestmark = needs_kernel

EDGES = {
    "one position": Case(n=1, m=1),
    "one head, one position": Case(b=1, i=1, h=1, j=1, n=1, m=1, k=1, v=1),
    "one head": Case(i=1, h=1, j=1, n=70, m=130),
    "one query": Case(n=1, m=200),
    "one key": Case(n=200, m=1),
    "one number a head": Case(k=1, v=1, n=20, m=20),
    "large heads": Case(b=1, k=515, v=300, n=5, m=5),
    "many key heads": Case(b=1, i=300, h=2, j=2, n=5, m=6, k=2, v=2),
    "many softmax heads": Case(b=1, i=2, h=513, j=2, n=5, m=70, k=2, v=2),
    "many value heads": Case(b=1, i=2, h=2, j=301, n=5, m=6, k=2, v=2),
    "many batches": Case(b=201, n=2, m=3),
}


@pytest.mark.parametrize("name", EDGES)
def test_sizes_at_the_edge(name):
    check(EDGES[name], "cpu")


@pytest.mark.parametrize("sizes", [{"b": 0}, {"n": 0}, {"m": 0}, {"n": 0, "m": 0}, {"v": 0}], ids=str)
@pytest.mark.parametrize("case", [everything(), Case(is_causal=True, dropout_p=0.5)], ids=["all", "causal"])
def test_no_batch_no_positions_no_size(sizes, case):
    case = replace(case, **sizes)
    for name, x in run(talking_heads_attention, case, case.inputs(), backend="cpu").items():
        assert not x.any(), name


@pytest.fixture
def poisoned(monkeypatch):
    """Everything that the operator allocates without writing it holds NaN."""

    def fill(x):
        return x.fill_(torch.nan) if x.is_floating_point() else x

    empty_like, empty, new_empty = torch.empty_like, torch.empty, torch.Tensor.new_empty
    monkeypatch.setattr(torch, "empty_like", lambda *a, **k: fill(empty_like(*a, **k)))
    monkeypatch.setattr(torch, "empty", lambda *a, **k: fill(empty(*a, **k)))
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda *a, **k: fill(new_empty(*a, **k)))
    assert operator.torch.empty_like(torch.zeros(2)).isnan().all()


@pytest.mark.parametrize("layout", ["plain", "heads_inside", "gaps"])
@pytest.mark.parametrize(
    "case",
    [
        everything(n=37, m=70),
        everything(n=20, m=150, is_causal=True),  # keys that no query sees
        Case(n=65, m=65, mask="dead", is_causal=True, k=16, v=32),
        Case(n=20, m=20, bias=True, dropout_p=0.9),
        Case(b=1, i=1, h=1, j=1, n=1, m=1, k=1, v=1),
        Case(n=37, m=70, logits_mix=False, weights_mix=False, dtype=torch.bfloat16),
    ],
    ids=["all", "wide", "dead", "bias", "one", "bfloat16"],
)
def test_every_element_is_written(case, layout, poisoned):
    for name, x in run(
        talking_heads_attention, replace(case, layout=layout), case.inputs(), backend="cpu"
    ).items():
        assert x.isfinite().all(), name


def strided(x: torch.Tensor, order: tuple[int, ...]) -> torch.Tensor:
    """The same numbers, their axes in memory in another order."""
    back = [order.index(axis) for axis in range(x.dim())]
    return x.detach().permute(order).contiguous().permute(back).requires_grad_(x.requires_grad)


@pytest.mark.parametrize("order", [(2, 1, 0, 3), (1, 2, 0, 3), (3, 2, 1, 0), (0, 1, 3, 2)], ids=str)
def test_any_layout_of_any_input(order):
    """Gradients have their inputs' strides, which the kernel must heed or stand in for."""
    case = replace(everything(n=6, m=9, mask_shape=(1, 1, 1, 1)), dtype=torch.float64)
    inputs = {name: strided(x, order if x.dim() == 4 else (1, 0)) for name, x in case.inputs().items()}
    assert not any(x.is_contiguous() for x in inputs.values())
    want = run(talking_heads_attention, case, case.inputs(), backend="cpu")
    got = run(talking_heads_attention, case, inputs, backend="cpu")
    for name in want:
        torch.testing.assert_close(got[name], want[name], rtol=1e-12, atol=1e-12, msg=name)


def test_an_expanded_input_is_read_as_it_lies():
    case = Case(b=3, i=4, h=4, j=4, n=9, m=11, mask="float", mask_shape=(1, 1, 1, 1))
    inputs = {name: x.detach() for name, x in case.inputs().items()}
    wide = dict(inputs)
    for name in ("query", "key", "value", "attn_mask"):
        wide[name] = inputs[name][:1, :1].expand_as(inputs[name])
    want = {name: x.contiguous().requires_grad_() for name, x in wide.items()}
    wide = {name: x.detach().requires_grad_() for name, x in wide.items()}
    want, got = (run(talking_heads_attention, case, given, backend="cpu") for given in (want, wide))
    assert all(torch.equal(got[name], want[name]) for name in want)


def test_offsets_beyond_2_to_the_31():
    """Heads 2^31 numbers apart: of the 8 GiB between them no page is touched."""
    case = Case(b=1, i=2, h=2, j=2, n=5, m=9, k=4, v=4)
    inputs = {name: x.detach() for name, x in case.inputs().items()}
    want = talking_heads_attention(**inputs, backend="cpu")
    try:
        far = torch.empty(2**31 + 1000)
    except RuntimeError:
        pytest.skip("this machine gives no 8 GiB of address space")
    for name in ("query", "key", "value"):
        x = inputs[name]
        apart = far.as_strided(x.shape, (0, 2**31, x.shape[3], 1)).copy_(x)
        assert torch.equal(talking_heads_attention(**(inputs | {name: apart}), backend="cpu"), want)


def pointers(monkeypatch) -> list[call.Call]:
    seen: list[call.Call] = []
    original = call.of
    monkeypatch.setattr(call, "of", lambda *a, **k: seen.append(original(*a, **k)) or seen[-1])
    return seen


def test_strides_are_taken_without_a_copy_where_the_innermost_is_1(monkeypatch):
    calls = pointers(monkeypatch)
    joint = torch.randn(2, 9, 3, 4, 8)  # [batch, positions, query key value, heads, size], of one projection
    query, key, value = (x.transpose(1, 2).requires_grad_() for x in joint.unbind(2))
    mask = torch.zeros(2, 9, 4, 9).transpose(1, 2)
    output = talking_heads_attention(query, key, value, attn_mask=mask, backend="cpu")
    gradients = torch.autograd.grad(output.sum(), (query, key, value))
    for made in calls:
        for x, seen in ((query, made.query), (key, made.key), (value, made.value)):
            assert (seen.at, seen.batch, seen.head, seen.row) == (x.data_ptr(), *x.stride()[:3])
        assert (made.mask.at, made.mask.batch, made.mask.head) == (mask.data_ptr(), *mask.stride()[:2])
    assert calls[0].output.at == output.data_ptr() and output.transpose(1, 2).is_contiguous()
    assert len(calls) == 2  # forward and backward
    places = (calls[1].grad_query, calls[1].grad_key, calls[1].grad_value)
    assert [x.data_ptr() for x in gradients] == [place.at for place in places]


def test_an_innermost_stride_above_1_is_copied(monkeypatch):
    calls = pointers(monkeypatch)
    x = Case(layout="gaps").inputs()["query"].detach()
    talking_heads_attention(x, x, x, backend="cpu")
    assert calls[0].query.at != x.data_ptr()


def test_forward_and_backward_drop_what_the_references_mask_drops():
    """With equal weights over one-hot values the output is the mask, and the values' gradient its transpose."""
    b, h, n, m, p = 2, 3, 50, 70, 0.3
    seed = torch.tensor([2**31 - 2, 12345])
    zeros = torch.zeros(b, h, n, 4), torch.zeros(b, h, m, 4)
    value = torch.eye(m).expand(b, h, m, m).requires_grad_()
    maps = [None] * 8
    problem = Problem(*zeros, value, *maps, seed, False, p, 1.0)
    output = cpu.attention(problem)
    keep = keep_mask(seed, row_numbers(torch.arange(b), h, torch.arange(n), n), m, p)
    assert 0.68 < keep.float().mean() < 0.72
    assert torch.equal(output != 0, keep)
    torch.testing.assert_close(output, keep / (m * (1 - p)))
    probe = torch.randn(b, h, n, m)
    (gradient,) = torch.autograd.grad(output, value, probe)
    torch.testing.assert_close(gradient, (keep / (m * (1 - p))).mT @ probe)


@pytest.mark.parametrize("most", [0, cpu.MOST_FOR_MASKS], ids=["in turn", "apart"])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (0, 1, 1, 1), (1, 0, 0, 1), (0, 0, 1, 1), (0, 0, 0, 1)], ids=str
)
def test_a_masks_gradient_is_summed_over_what_it_broadcast(shape, most, monkeypatch):
    added, add = [], cpu._summed
    monkeypatch.setattr(cpu, "_summed", lambda x: added.append(x.shape[0]) or add(x))
    monkeypatch.setattr(cpu, "MOST_FOR_MASKS", most)
    case = Case(b=3, n=70, m=133, mask="float", mask_shape=shape)
    check(case, "cpu")
    wide = case.inputs()
    narrow = wide["attn_mask"]
    wide["attn_mask"] = narrow.detach().expand(case.b, case.h, case.n, case.m).contiguous().requires_grad_()
    full = run(talking_heads_attention, case, wide, backend="cpu")["grad attn_mask"]
    summed = run(talking_heads_attention, case, case.inputs(), backend="cpu")["grad attn_mask"]
    assert added == ([3, 3] if most and not shape[0] else [])
    torch.testing.assert_close(summed, full.sum_to_size(narrow.shape), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_in_and_out_with_float32_inside(dtype, monkeypatch):
    calls = pointers(monkeypatch)
    case = replace(everything(n=40, m=70), dtype=dtype)
    given = case.inputs()
    output = talking_heads_attention(**given, backend="cpu")
    gradients = torch.autograd.grad(output.float().sum(), [x for x in given.values()])
    assert output.dtype == dtype and calls
    for (name, x), gradient in zip(given.items(), gradients, strict=True):
        assert gradient.dtype == x.dtype, name
    # What float32 gives on the same numbers, rounded once.
    wide = {name: x.detach().float() for name, x in given.items()}
    assert torch.equal(output, talking_heads_attention(**wide, backend="cpu").to(dtype))


def test_grouped_maps_and_grouped_heads_and_their_gradients():
    options = {"dtype": torch.float64, "requires_grad": True}
    query = torch.randn(2, 8, 33, 5, **options)
    key, value = torch.randn(2, 2, 66, 5, **options), torch.randn(2, 3, 66, 7, **options)
    logits, weights = torch.randn(4, 2, 3, **options), torch.randn(3, 4, 2, **options)
    leaves = (query, key, value, logits, weights)
    found = []
    for backend in ("cpu", "reference"):
        output = talking_heads_attention(*leaves, enable_gqa=True, backend=backend)
        found.append((output, *torch.autograd.grad(output.square().sum(), leaves)))
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", DYNAMIC)
def test_each_dynamic_map_alone_without_a_static_one(name):
    check(Case(n=37, m=70, dynamic=(name,), logits_mix=False, weights_mix=False), "cpu")
