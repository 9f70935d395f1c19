"""Repeated plain calls, which skip the checks: the same bits as the general path, and only where nothing differs."""

import inspect

import pytest
import torch

from talking_heads import talking_heads_attention
from talking_heads.errors import UserError
from talking_heads.kernels import cpu
from talking_heads.kernels.cpu import quick

if cpu.binding.MISSING:
    pytest.skip(cpu.binding.MISSING, allow_module_level=True)


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    monkeypatch.setattr(quick, "_known", {})


def drawn(*shape, **options):
    return torch.randn(*shape, **options)


LAYOUTS = {
    "plain": lambda n, m: (drawn(2, 3, n, 8), drawn(2, 3, m, 8), drawn(2, 2, m, 6)),
    "heads inside": lambda n, m: tuple(
        drawn(2, length, heads, 8).transpose(1, 2) for length, heads in ((n, 3), (m, 3), (m, 2))
    ),
    "shared keys": lambda n, m: (drawn(2, 3, n, 8), drawn(2, 1, m, 8).expand(2, 3, m, 8), drawn(2, 2, m, 8)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("n", [1, 20])
def test_the_second_call_is_the_first(layout, gradients, n):
    for is_causal in (False, True):
        for maps in ((drawn(3, 5), drawn(5, 2)), (drawn(3, 2), None)):
            for call in range(3):
                given = [*LAYOUTS[layout](n, 150), *maps]
                found = []
                for backend in ("auto", "decode" if n == 1 and not gradients else "cpu"):
                    same = [x if x is None else x.detach().requires_grad_(gradients) for x in given]
                    output = talking_heads_attention(*same, is_causal=is_causal, backend=backend)
                    leaves = [x for x in same if x is not None]
                    found.append(
                        [output, *(torch.autograd.grad(output.sin().sum(), leaves) if gradients else ())]
                    )
                for got, want in zip(*found, strict=True):
                    assert torch.equal(got, want), call
            assert len(quick._known) > 0


def test_gradients_of_some_inputs_in_other_layouts():
    q, k, v, mix = drawn(2, 3, 20, 8), drawn(2, 3, 20, 8), drawn(2, 3, 20, 8), drawn(3, 3)
    for _ in range(2):
        for wanted in (q, mix):
            leaf = wanted.clone().requires_grad_()
            given = [leaf if x is wanted else x for x in (q, k, v, mix)]
            results = [
                torch.autograd.grad(
                    (talking_heads_attention(*given, backend=backend).transpose(1, 3) ** 2).sum(), leaf
                )
                for backend in ("auto", "cpu")
            ]
            assert torch.equal(results[0][0], results[1][0])


def test_what_is_not_finite_takes_the_general_path():
    q, k, v = drawn(1, 2, 20, 4), drawn(1, 2, 20, 4), drawn(1, 2, 20, 4)
    talking_heads_attention(q, k, v, is_causal=True)
    k[0, 1, 12] = torch.inf
    for gradients in (False, True):
        leaf = q.clone().requires_grad_(gradients)
        talking_heads_attention(leaf, v, v, is_causal=True)
        got = talking_heads_attention(leaf, k, v, is_causal=True)
        want = talking_heads_attention(leaf, k, v, is_causal=True, backend="reference")
        torch.testing.assert_close(got, want, equal_nan=True)


def test_a_known_signature_hides_no_mistake_and_no_other_kind_of_tensor():
    q, mix = drawn(1, 2, 20, 4), drawn(2, 2)
    want = talking_heads_attention(q, q, q, mix)
    assert quick.find(quick.signature(q, q, q, mix, None, False, None))
    for wrong in (q.double(), q.to("meta"), q.to_sparse(), "no tensor"):
        with pytest.raises(UserError):
            talking_heads_attention(q, wrong, q, mix)
    with torch.autocast("cpu", torch.bfloat16):
        assert talking_heads_attention(q, q, q, mix).dtype == torch.bfloat16
    negative = torch.complex(q, q).conj().imag
    assert negative.is_neg()
    torch.testing.assert_close(talking_heads_attention(negative, -q, q, mix), want)
    torch.testing.assert_close(
        torch.func.vmap(lambda x: talking_heads_attention(x, q, q, mix))(q[None])[0], want
    )
    assert torch.equal(talking_heads_attention(q, q, q, mix), want)


def test_few_signatures_are_kept(monkeypatch):
    monkeypatch.setattr(quick, "_MOST", 3)
    for n in range(3, 12):
        talking_heads_attention(*(drawn(1, 2, n, 4) for _ in range(3)))
    assert 0 < len(quick._known) <= 3


# A value of every argument that a plain call has not; a new argument of the operator needs one here.
OTHERS = {
    "attn_mask": lambda: torch.ones(4, 4, dtype=torch.bool).tril(),
    "dropout_p": lambda: 1.0,
    "query_logits_mix": lambda: drawn(1, 4, 2, 2),
    "memory_logits_mix": lambda: drawn(1, 4, 2, 2),
    "query_weights_mix": lambda: drawn(1, 4, 2, 2),
    "memory_weights_mix": lambda: drawn(1, 4, 2, 2),
    "weights_mix_bias": lambda: drawn(2),
    "enable_gqa": lambda: True,
    "return_weights": lambda: True,
    "backend": lambda: "reference",
}


def test_no_argument_is_lost_after_plain_calls():
    arguments = inspect.signature(talking_heads_attention).parameters.keys()
    plain = {"query", "key", "value", "logits_mix", "weights_mix", "is_causal", "scale"}
    assert OTHERS.keys() == arguments - plain
    given = [*(drawn(1, 2, 4, 8) for _ in range(3)), drawn(2, 2), drawn(2, 2)]
    before = {}
    for name, make in OTHERS.items():
        value = make()
        before[name] = value, talking_heads_attention(*given, **{name: value})
    assert not quick._known
    for _ in range(2):
        talking_heads_attention(*given)
    assert quick._known
    for name, (value, want) in before.items():
        torch.testing.assert_close(talking_heads_attention(*given, **{name: value}), want)
