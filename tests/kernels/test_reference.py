"""The oracle itself: against the equation written as loops, as einsums, and as torch's own attention."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from talking_heads import kernels, talking_heads_attention
from tests.cases import DYNAMIC, Case, exact, plain, run
from tests.kernels.test_contract import CASES


@pytest.mark.parametrize("name", CASES)
def test_equals_the_plain_form(name):
    """On which the tolerance of every other comparison rests: output and all gradients in float64."""
    case = replace(CASES[name], dtype=torch.float64)
    inputs = case.inputs()
    wanted = run(plain, case, inputs)
    for key, got in exact(case, inputs).items():
        torch.testing.assert_close(
            got, wanted[key], rtol=1e-9, atol=1e-11, msg=lambda text, key=key: f"{key}: {text}"
        )


def loops(case, given):
    """One number at a time, as the paper's equation reads."""
    scale = case.k**-0.5 if case.scale is None else case.scale
    number = lambda name, *place: given[name][place].item() if name in given else 0.0  # noqa: E731
    output = torch.zeros(case.b, case.j, case.n, case.v, dtype=torch.float64)
    for b in range(case.b):
        for n in range(case.n):
            weights = []
            for h in range(case.h):
                logits = []
                for m in range(case.m):
                    allowed = given["attn_mask"].expand(case.b, case.h, case.n, case.m)[b, h, n, m]
                    if not allowed or (case.is_causal and m > n):
                        logits.append(-math.inf)
                        continue
                    logits.append(
                        sum(
                            scale
                            * sum(
                                number("query", b, i, n, k) * number("key", b, i, m, k) for k in range(case.k)
                            )
                            * (
                                number("logits_mix", i, h)
                                + number("query_logits_mix", b, n, i, h)
                                + number("memory_logits_mix", b, m, i, h)
                            )
                            for i in range(case.i)
                        )
                    )
                total = sum(math.exp(x) for x in logits)
                weights.append([math.exp(x) / total if total else 0.0 for x in logits])
            for j in range(case.j):
                for m in range(case.m):
                    mixed = sum(
                        weights[h][m]
                        * (
                            number("weights_mix", h, j)
                            + number("query_weights_mix", b, n, h, j)
                            + number("memory_weights_mix", b, m, h, j)
                        )
                        for h in range(case.h)
                    )
                    output[b, j, n] += mixed * given["value"][b, j, m].detach()
    return output


@pytest.mark.parametrize("scale", [None, 0.3])
def test_equals_the_equation_one_number_at_a_time(scale):
    case = Case(
        b=2, i=2, h=3, j=2, n=3, m=4, k=2, v=2, mask="dead", mask_shape=(1, 1, 1, 1), is_causal=True,
        dynamic=DYNAMIC, scale=scale, dtype=torch.float64,
    )  # fmt: skip
    given = case.inputs()
    got = talking_heads_attention(**given, **case.options(), backend="reference")
    torch.testing.assert_close(got, loops(case, given), rtol=1e-12, atol=1e-13)


def attend(*args, backend, **kwargs):
    try:
        return talking_heads_attention(*args, backend=backend, **kwargs)
    except ValueError as refusal:
        assert backend not in ("reference", "chunked"), refusal
        pytest.skip(str(refusal))


MASKS = {
    "bool": lambda: torch.rand(2, 4, 5, 9) < 0.7,
    "padding": lambda: torch.rand(2, 1, 1, 9) < 0.7,
    "float": lambda: torch.randn(4, 5, 9, dtype=torch.float64),
    "float with -inf": lambda: torch.randn(5, 9, dtype=torch.float64).masked_fill(
        torch.rand(5, 9) < 0.3, -torch.inf
    ),
}


@pytest.mark.parametrize("backend", kernels.ORDER)
@pytest.mark.parametrize("name", [*MASKS, "tall", "wide", "scale"])
def test_identity_maps_under_masks_are_scaled_dot_product_attention(name, backend):
    torch.manual_seed(0)
    n, m = {"tall": (9, 5), "wide": (5, 9)}.get(name, (5, 9))
    query, key, value = (torch.randn(2, 4, size, 8, dtype=torch.float64) for size in (n, m, m))
    options = {"scale": 0.7} if name == "scale" else {"is_causal": name in ("tall", "wide")}
    if name in MASKS:
        mask = MASKS[name]()
        mask[..., 0] = (
            True if mask.dtype == torch.bool else 0.0
        )  # a row without any is torch's NaN, and our 0
        options = {"attn_mask": mask}
    eye = torch.eye(4, dtype=torch.float64)
    got = attend(query, key, value, eye, eye, backend=backend, **options)
    want = F.scaled_dot_product_attention(query, key, value, **options)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("backend", kernels.ORDER)
@pytest.mark.parametrize("kind", ["bool", "float"])
@pytest.mark.parametrize("which", ["one row", "one head", "everything"])
def test_a_row_that_may_attend_nowhere_is_0_and_so_is_its_gradient(which, kind, backend):
    torch.manual_seed(0)
    leaves = [torch.randn(2, 3, size, 4, requires_grad=True) for size in (5, 7, 7)]
    maps = [torch.randn(3, 3, requires_grad=True) for _ in range(2)]
    allowed = torch.ones(2, 3, 5, 7, dtype=torch.bool)
    allowed[
        (slice(1), slice(None), 2) if which == "one row" else (slice(1), 1) if which == "one head" else ...
    ] = False
    mask = (
        allowed
        if kind == "bool"
        else torch.zeros(2, 3, 5, 7).masked_fill(~allowed, -torch.inf).requires_grad_()
    )
    output = attend(*leaves, *maps, attn_mask=mask, backend=backend)
    output.square().sum().backward()
    assert output.isfinite().all() and all(x.grad.isfinite().all() for x in (*leaves, *maps))
    if kind == "float":
        assert mask.grad.isfinite().all() and not mask.grad[~allowed].any()
    if which == "one row":
        assert not output[0, :, 2].any() and output[0, :, 1].all()
        assert not leaves[0].grad[0, :, 2].any() and leaves[0].grad[1, :, 2].all()
    elif which == "one head":  # the other heads still attend, and are mixed
        assert output.all()
        weights = talking_heads_attention(*leaves, *maps, attn_mask=mask, return_weights=True)[1]
        assert not weights[0, 1].any() and weights[0, 0].all()
    else:
        assert not output.any() and not any(x.grad.any() for x in (*leaves, *maps))
