"""Every backend against the float64 reference: output and all gradients."""

import itertools
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from talking_heads import kernels, talking_heads_attention
from tests.cases import DYNAMIC, FAST, Case, arguments, check

CASES = {
    "default": Case(),
    "one of everything": Case(b=1, i=1, h=1, j=1, n=1, m=1, k=1, v=1),
    "one head": Case(i=1, h=1, j=1, n=33, m=17),
    "many softmax heads": Case(i=4, h=19, j=3, n=13, m=21),
    "long odd": Case(b=1, n=131, m=257, k=17, v=5),
    "one query": Case(n=1, m=70),
    "one memory": Case(n=5, m=1),
    "logits map only": Case(weights_mix=False),
    "weights map only": Case(logits_mix=False),
    "no map": Case(logits_mix=False, weights_mix=False),
    "scale": Case(scale=1.0),
    "causal square": Case(n=65, m=65, is_causal=True),
    "causal wide": Case(n=5, m=12, is_causal=True),
    "causal tall": Case(n=12, m=5, is_causal=True),
    "causal and mask": Case(n=12, m=12, is_causal=True, mask="dead"),
    "dead rows": Case(mask="dead"),
    "dropout": Case(n=20, m=40, dropout_p=0.3),
    "dropout and mask": Case(mask="float", dropout_p=0.3),
    "bias": Case(bias=True),
    "bias and dropout": Case(bias=True, dropout_p=0.5),
    "heads inside": Case(layout="heads_inside", n=19, m=23),
    "gaps": Case(layout="gaps", n=19, m=23),
    "several batches in a block": Case(b=7, n=16, m=16),
    **{f"dynamic {name}": Case(dynamic=(name,)) for name in DYNAMIC},
    "dynamic all": Case(dynamic=DYNAMIC, n=18, m=35, is_causal=True, dropout_p=0.2),
    "dynamic without static": Case(dynamic=DYNAMIC, logits_mix=False, weights_mix=False),
    "groups": Case(i=4, h=8, j=6, groups=2, n=19, m=40),
    "groups, causal, mask, dropout": Case(
        i=6, h=6, j=6, groups=3, n=40, m=40, is_causal=True, mask="dead", dropout_p=0.2
    ),
    "groups and dynamic": Case(i=4, h=8, j=6, groups=2, dynamic=DYNAMIC),
    "low rank": Case(i=5, h=5, j=5, n=18, m=35, dynamic=DYNAMIC, rank=2, mask="float"),
    "low rank and groups": Case(
        i=6, h=6, j=6, groups=2, dynamic=DYNAMIC[:3], rank=1, is_causal=True, dropout_p=0.2
    ),
    "low rank without static": Case(
        i=4, h=4, j=4, dynamic=DYNAMIC[1:], rank=3, logits_mix=False, weights_mix=False
    ),
}


def refuse_or_check(case: Case, backend: str) -> None:
    """A backend may refuse a call, saying which one can; what it does not refuse must be right."""
    try:
        with torch.no_grad():
            talking_heads_attention(**arguments(case.inputs()), **case.options(), backend=backend)
    except ValueError as refusal:
        assert "cannot do this call" in str(refusal) and 'backend="' in str(refusal)
        assert backend != "chunked"
        pytest.skip(str(refusal))
    check(case, backend)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_backend_equals_reference(name, backend, dtype):
    refuse_or_check(replace(CASES[name], dtype=dtype), backend)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("kind", ["bool", "float"])
@pytest.mark.parametrize(
    "shape", [s for r in (1, 2, 3, 4) for s in itertools.product((0, 1), repeat=r)], ids=str
)
def test_masks_of_every_broadcastable_shape(shape, kind, backend):
    refuse_or_check(Case(mask=kind, mask_shape=shape), backend)


@st.composite
def cases(draw):
    size = lambda most: draw(st.integers(1, most))  # noqa: E731
    mask = draw(st.sampled_from(["none", "none", "bool", "float", "dead"]))
    causal = draw(st.booleans())
    return Case(
        b=size(3),
        i=size(9),
        h=size(9),
        j=size(9),
        n=size(40),
        m=size(70),
        k=size(20),
        v=size(20),
        logits_mix=draw(st.booleans()),
        weights_mix=draw(st.booleans()),
        mask=mask,
        mask_shape=draw(st.tuples(*[st.sampled_from([0, 1])] * 4)),
        is_causal=causal,
        dropout_p=draw(st.sampled_from([0.0, 0.0, 0.25])),
        dynamic=draw(st.sampled_from([(), (), *[(name,) for name in DYNAMIC], DYNAMIC])),
        bias=mask == "none" and not causal and draw(st.booleans()),
        layout=draw(st.sampled_from(["plain", "heads_inside", "gaps"])),
        dtype=draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16])),
        seed=draw(st.integers(0, 1000)),
    )


@pytest.mark.parametrize("backend", [name for name in FAST if name != "triton"])
@settings(max_examples=50, deadline=None, derandomize=True)
@given(case=cases())
def test_any_configuration(case, backend):
    if kernels.BACKENDS[backend].refuses(_problem(case)) is None:
        check(case, backend)


def _problem(case):
    from talking_heads.checks import prepare

    return prepare(**case.inputs(), **case.options())


@pytest.mark.parametrize("backend", kernels.ORDER)
@pytest.mark.parametrize("causal", [False, True])
def test_identity_maps_give_sdpa(backend, causal):
    q, k, v = (torch.randn(2, 4, 11, 8, dtype=torch.float64, requires_grad=True) for _ in range(3))
    want = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    eye = torch.eye(4, dtype=torch.float64)
    for maps in ((None, None), (eye, None), (None, eye), (eye, eye)):
        try:
            got = talking_heads_attention(q, k, v, *maps, is_causal=causal, backend=backend)
        except ValueError as refusal:
            assert backend in ("triton", "cpu"), refusal
            pytest.skip(str(refusal))
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-13)
        for a, b in zip(
            torch.autograd.grad(got.square().sum(), (q, k, v)),
            torch.autograd.grad(want.square().sum(), (q, k, v), retain_graph=True),
            strict=True,
        ):
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


GRADCHECK = {
    "maps": Case(n=3, m=4),
    "float mask": Case(n=3, m=4, mask="float", mask_shape=(0, 1, 1, 1)),
    "dynamic": Case(n=3, m=4, dynamic=DYNAMIC),
    "bias": Case(n=3, m=4, bias=True),
    "causal dropout": Case(n=3, m=4, is_causal=True, dropout_p=0.3),
}


@pytest.mark.parametrize("backend", kernels.ORDER)
@pytest.mark.parametrize("name", GRADCHECK)
def test_gradcheck(name, backend):
    case = replace(GRADCHECK[name], b=1, i=2, h=3, j=2, k=2, v=2, dtype=torch.float64)
    inputs = case.inputs()
    if "attn_mask" in inputs:  # differences of infinities are none
        inputs["attn_mask"] = inputs["attn_mask"].detach().clamp(min=-5).requires_grad_()
    if why := kernels.BACKENDS[backend].refuses(_problem(case)):
        pytest.skip(f"{backend}: {why}")

    def function(*tensors):
        torch.manual_seed(0)
        given = dict(zip(inputs, tensors, strict=True))
        return talking_heads_attention(**given, **case.options(), backend=backend)

    assert torch.autograd.gradcheck(function, tuple(inputs.values()))
