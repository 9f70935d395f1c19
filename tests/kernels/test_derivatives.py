"""Derivatives of every kind that torch computes, of every backend: equal to the reference's."""

from dataclasses import replace

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vmap

from talking_heads import TalkingHeadsAttention, talking_heads_attention
from talking_heads.errors import UserError
from tests.cases import DYNAMIC, Case

from .test_operator import CPU, available

CASES = {
    "maps": Case(n=3, m=4),
    "everything": Case(n=3, m=4, mask="float", dynamic=DYNAMIC, is_causal=True, dropout_p=0.3),
    "bias": Case(n=3, m=4, bias=True),
}
SMALL = {"b": 2, "i": 2, "h": 3, "j": 2, "k": 2, "v": 2, "dtype": torch.float64}


def small(name):
    return replace(CASES[name], **SMALL)


def loss(case, backend, names):
    """(a function of the inputs `names`, and they)"""
    inputs = {name: x.detach() for name, x in case.inputs().items()}
    if "attn_mask" in inputs:
        inputs["attn_mask"] = inputs["attn_mask"].clamp(min=-5)

    def function(*tensors):
        torch.manual_seed(0)
        given = inputs | dict(zip(names, tensors, strict=True))
        return talking_heads_attention(**given, **case.options(), backend=backend)

    return function, [inputs[name] for name in names]


@pytest.mark.parametrize("backend", CPU)
@pytest.mark.parametrize("name", CASES)
def test_second_derivatives(name, backend):
    case = small(name)
    available(backend, case)
    names = [name for name, x in case.inputs().items() if x.is_floating_point()]
    function, inputs = loss(case, backend, names)
    leaves = tuple(x.clone().requires_grad_() for x in inputs)
    assert torch.autograd.gradgradcheck(function, leaves, fast_mode=True)


@pytest.mark.parametrize("backend", CPU)
@pytest.mark.parametrize("wrt", ["query", "logits_mix", "attn_mask"])
def test_transforms_equal_the_reference(wrt, backend):
    case = small("everything")
    available(backend, case)
    found = []
    for name in (backend, "reference"):
        function, (x,) = loss(case, name, [wrt])
        scalar = lambda x, function=function: function(x).sin().sum()  # noqa: E731
        leaf = x.clone().requires_grad_()
        output = function(leaf)
        along = torch.stack([output.detach(), output.detach().cos()])
        found.append(
            {
                "grad": grad(scalar)(x),
                "jacrev": jacrev(function)(x),
                "vmap": vmap(function, randomness="same")(torch.stack([x, 2 * x])),
                "vmap of grad": vmap(grad(scalar), randomness="same")(torch.stack([x, 2 * x])),
                "batched": torch.autograd.grad(output, leaf, along, is_grads_batched=True)[0],
                "second": grad(lambda x, scalar=scalar: grad(scalar)(x).square().sum())(x),
                "vectorized": torch.autograd.functional.jacobian(function, x, vectorize=True),
            }
        )
    for kind, got in found[0].items():
        torch.testing.assert_close(got, found[1][kind], msg=lambda text, kind=kind: f"{kind}: {text}")


FORWARD = {
    "jvp": lambda f, x: jvp(f, (x,), (x.cos(),))[1],
    "jacfwd": lambda f, x: jacfwd(f)(x),
    "hessian": lambda f, x: hessian(lambda x: f(x).sin().sum())(x),
    "reverse over forward": lambda f, x: jacrev(lambda x: jvp(f, (x,), (x.cos(),))[1].sum())(x),
    "dual": lambda f, x: _tangent(f, x),
    "dual gradient": lambda f, x: _tangent_of_backward(f, x),
}


def _tangent(function, x):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(function(forward_ad.make_dual(x, x.cos()))).tangent


def _tangent_of_backward(function, x):
    """The forward was an ordinary call; its backward is given a dual tensor."""
    leaf = x.clone().requires_grad_()
    output = function(leaf)
    with forward_ad.dual_level():
        (found,) = torch.autograd.grad(
            output, leaf, forward_ad.make_dual(output.detach(), output.detach().cos())
        )
        return forward_ad.unpack_dual(found).tangent


@pytest.mark.parametrize("kind", FORWARD)
def test_forward_mode_keeps_every_tangent(kind):
    case = replace(small("everything"), dropout_p=0.0)
    for wrt in ("value", "weights_mix"):
        got, want = (FORWARD[kind](*_one(loss(case, name, [wrt]))) for name in ("auto", "reference"))
        assert want.any()
        torch.testing.assert_close(got, want)


def _one(given):
    function, (x,) = given
    return function, x


@pytest.mark.parametrize("backend", CPU)
def test_forward_mode_is_refused_by_a_backend_that_has_none(backend):
    function, x = _one(loss(small("maps"), backend, ["query"]))
    with pytest.raises(UserError, match=r'it has no forward-mode derivatives .*; backend="reference" can'):
        jvp(function, (x,), (x,))


def test_few_rows_under_a_transform_take_a_path_that_depends_on_shapes_only():
    function, x = _one(loss(small("maps"), "auto", ["query"]))
    with torch.no_grad():
        got = vmap(function)(torch.stack([x, 2 * x]))
    torch.testing.assert_close(got, torch.stack([function(x), function(2 * x)]))


def test_dropout_differs_between_the_elements_of_vmap_only_where_asked():
    x = torch.ones(3, 1, 2, 20, 4)
    attend = lambda x: talking_heads_attention(x, x, x, dropout_p=0.5)  # noqa: E731
    same, different = (vmap(attend, randomness=kind)(x) for kind in ("same", "different"))
    assert torch.equal(same[0], same[1]) and not torch.equal(different[0], different[1])


def test_per_sample_gradients_of_a_layer():
    torch.manual_seed(0)
    layer, x = TalkingHeadsAttention(12, 3, mix_init="random"), torch.randn(3, 20, 12)
    parameters = {name: x.detach() for name, x in layer.named_parameters()}
    loss = lambda p, sample: functional_call(layer, p, (sample[None],)).sin().sum()  # noqa: E731
    found = vmap(grad(loss), (None, 0))(parameters, x)
    for k, sample in enumerate(x):
        layer.zero_grad()
        layer(sample[None]).sin().sum().backward()
        for name, p in layer.named_parameters():
            torch.testing.assert_close(found[name][k], p.grad, rtol=1e-4, atol=1e-5)


def test_a_scale_may_be_learned():
    q, k, v = (torch.randn(2, 3, 5, 4, dtype=torch.float64) for _ in range(3))
    scale = torch.nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda scale: talking_heads_attention(q, k, v, scale=scale), scale)
    got = talking_heads_attention(q, k, v, scale=scale)
    torch.testing.assert_close(got, talking_heads_attention(q, k, v, scale=0.3))
