"""The form for decoding: forward only, keys and values as they lie, equal to the reference."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from talking_heads import explain, talking_heads_attention
from talking_heads.kernels import decode
from tests.cases import DYNAMIC, Case, allowed_error, exact

CASES = {
    "one query": Case(n=1, m=70),
    "a few": Case(n=5, m=33),
    "one of everything": Case(b=1, i=1, h=1, j=1, n=1, m=1, k=1, v=1),
    "many softmax heads": Case(i=4, h=19, j=3, n=2, m=21),
    "no map": Case(n=1, logits_mix=False, weights_mix=False),
    "bool mask": Case(n=1, m=40, mask="bool", mask_shape=(1, 0, 1, 1)),
    "float mask": Case(n=3, m=40, mask="float", mask_shape=(0, 1, 1, 1)),
    "dead rows": Case(n=4, mask="dead"),
    "causal": Case(n=5, m=9, is_causal=True),
    "bias": Case(n=1, bias=True),
    "dynamic": Case(n=3, m=20, dynamic=DYNAMIC),
    "heads inside": Case(n=3, layout="heads_inside"),
    "gaps": Case(n=1, layout="gaps"),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_equals_the_reference(name, dtype):
    case = replace(CASES[name], dtype=dtype)
    inputs = {key: x.detach() for key, x in case.inputs().items()}
    got = talking_heads_attention(**inputs, **case.options(), backend="decode")
    want = exact(case, {key: x.requires_grad_(x.is_floating_point()) for key, x in inputs.items()})["output"]
    assert got.dtype == dtype and got.shape == want.shape
    assert (got.double() - want).abs().max() <= allowed_error(case)["output"]


@pytest.mark.parametrize("masked", [False, True])
def test_grouped_heads_are_not_copied(masked, monkeypatch):
    query, key, value = torch.randn(2, 6, 1, 4), torch.randn(2, 2, 9, 4), torch.randn(2, 3, 9, 5)
    mix = torch.randn(6, 6)
    mask = torch.rand(2, 6, 1, 9) < 0.7 if masked else None
    want = talking_heads_attention(
        query, key, value, mix, mix, attn_mask=mask, enable_gqa=True, backend="reference"
    )
    monkeypatch.setattr("talking_heads.kernels.problem._repeat", None)
    got = talking_heads_attention(query, key, value, mix, mix, attn_mask=mask, enable_gqa=True)
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("place", ["key", "value", "query"])
def test_what_is_not_finite_reaches_only_who_attends(poison, place):
    given = {
        "query": torch.randn(2, 3, 2, 4),
        "key": torch.randn(2, 3, 6, 4),
        "value": torch.randn(2, 3, 6, 4),
    }
    given[place][1, 1, 1] = poison
    seen = torch.ones(2, 1, 2, 6, dtype=torch.bool)
    seen[:, :, 0, 1] = False
    mix = torch.randn(3, 3)
    got, want = (
        talking_heads_attention(**given, logits_mix=mix, weights_mix=mix, attn_mask=seen, backend=name)
        for name in ("decode", "reference")
    )
    torch.testing.assert_close(got, want, equal_nan=True)
    assert not want.isfinite().all() and want.isfinite().any()


def test_when_it_is_chosen():
    q, k = torch.randn(1, 2, 1, 4), torch.randn(1, 2, decode.LONG, 4)
    assert explain(q, k, k).backend == "decode"
    assert explain(q, k[:, :1], k[:, :1], enable_gqa=True).backend == "decode"
    leaf = q.clone().requires_grad_()
    assert explain(leaf, k, k).reasons["decode"] == "it has no backward"
    with torch.no_grad():
        assert explain(leaf, k, k).backend == "decode"
    many = torch.randn(1, 2, decode.ROWS + 1, 4)
    for call in (lambda: explain(q, k, k, dropout_p=0.5), lambda: explain(many, k, k)):
        assert call().backend != "decode"
    if explain(q, q, q).backend == "cpu":
        assert "is faster" in explain(q, q, q).reasons["decode"]
    with pytest.raises(ValueError, match="it has no backward"):
        talking_heads_attention(leaf, k, k, backend="decode")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_summed_in_float32(dtype):
    """About as exact as SDPA; also where the numbers are converted in several parts."""
    draw = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 8, n, 64, generator=draw).to(dtype) for n in (1, 256, 256))
    query = 3 * query
    want = F.scaled_dot_product_attention(query.double(), key.double(), value.double())
    error = lambda x: ((x.double() - want).norm() / want.norm()).item()  # noqa: E731
    got = talking_heads_attention(query, key, value, backend="decode")
    assert error(got) <= 2 * error(F.scaled_dot_product_attention(query, key, value)) + 1e-3


def test_under_autocast_and_with_nothing_to_attend():
    q = torch.randn(1, 2, 1, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert talking_heads_attention(q, q, q, torch.eye(2)).dtype == torch.bfloat16
    empty = talking_heads_attention(q, q[:, :1, :0], q[:, :1, :0], torch.eye(2), enable_gqa=True)
    assert empty.shape == q.shape and not empty.any()


def test_a_mask_of_another_dtype():
    q, mask = torch.randn(1, 2, 3, 4), torch.randn(3, 3, dtype=torch.float64)
    mix = torch.randn(2, 2)
    want = talking_heads_attention(q, q, q, mix, mix, attn_mask=mask, backend="reference")
    got = talking_heads_attention(q, q, q, mix, mix, attn_mask=mask, backend="decode")
    torch.testing.assert_close(got, want)


def test_large_finite_halves_stay_here(monkeypatch):
    q, value = torch.randn(1, 2, 4, 8).half(), 100 * torch.ones(1, 2, 4, 8).half()
    monkeypatch.setattr(decode.reference, "attention", None)
    got = talking_heads_attention(q, q, value, torch.eye(2), backend="decode")
    torch.testing.assert_close(got, value)


def test_what_has_no_values_leaves_nothing_behind():
    q = torch.randn(1, 2, 3, 4)
    want = talking_heads_attention(q, q, q, torch.eye(2), is_causal=True)
    with FakeTensorMode() as mode:
        fake = mode.from_tensor(q)
        assert talking_heads_attention(fake, fake, fake, fake.new_empty(2, 2)).shape == q.shape
        assert "FakeTensor" in explain(fake, fake, fake).reasons["decode"]
    with torch.device("meta"):
        got = talking_heads_attention(q, q, q, torch.eye(2, device="cpu"), is_causal=True)
    assert torch.equal(got, want)
    assert torch.equal(talking_heads_attention(q, q, q, torch.eye(2), is_causal=True), want)
