"""What is not finite: where it is attended it arrives, where it is masked it does not matter."""

from dataclasses import replace

import pytest
import torch

from talking_heads import talking_heads_attention
from tests.cases import Case, run
from tests.kernels.cpu.common import everything, needs_kernel

pytestmark = needs_kernel

PLACE = (1, 1, 5)  # the batch element, head and position that hold what is not finite


def spoilt(case: Case, name: str, poison: float):
    """The case's inputs with one number of one position replaced."""
    inputs = {key: x.detach() for key, x in case.inputs().items()}
    inputs[name][*PLACE, 2] = poison
    if name in ("key", "value") and "attn_mask" in inputs:
        inputs["attn_mask"][..., :3, PLACE[2]] = (
            False if inputs["attn_mask"].dtype == torch.bool else -torch.inf
        )
    return {key: x.requires_grad_(x.is_floating_point()) for key, x in inputs.items()}


@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", ["query", "key", "value"])
@pytest.mark.parametrize(
    "case",
    [
        Case(b=2, n=9, m=9),
        Case(b=2, n=9, m=9, logits_mix=False, weights_mix=False),
        Case(b=2, n=70, m=70, is_causal=True),
        Case(b=2, n=9, m=70, mask="bool", mask_shape=(1, 0, 1, 1)),
        Case(b=2, n=9, m=9, mask="float", mask_shape=(1, 1, 1, 1)),
        Case(b=2, n=9, m=9, dropout_p=0.5),
        everything(b=2, n=9, m=9),
    ],
    ids=["maps", "no map", "causal", "mask", "float mask", "dropout", "everything"],
)
def test_what_is_not_finite_reaches_whom_it_reaches_in_the_reference(case, name, poison):
    case = replace(case, dtype=torch.float64)
    want = run(talking_heads_attention, case, spoilt(case, name, poison), backend="reference")
    got = run(talking_heads_attention, case, spoilt(case, name, poison), backend="cpu")
    assert torch.equal(got["output"].isnan(), want["output"].isnan())
    assert want["output"].isnan().any() and want["output"].isfinite().any()
    for field in want:
        have, wanted = got[field], want[field]
        if field == f"grad {name}":  # the gradient of the number itself has no meaning
            have[*PLACE, 2] = wanted[*PLACE, 2] = 0
        if name != "value" and field != "output":
            # Rows of NaN weights: no gradient may hide them from a position that is attended, and the other
            # batch element must not feel them. What 0 * NaN gives at masked positions does not matter.
            attended = slice(
                0, PLACE[2] + 1 if case.is_causal and field in ("grad key", "grad value") else None
            )
            assert not (wanted.isnan() & have.isfinite())[..., attended, :].any(), field
            have, wanted = (x[0] if x.dim() == 4 and x.shape[0] == case.b else x[:0] for x in (have, wanted))
        torch.testing.assert_close(have, wanted, equal_nan=True, rtol=1e-9, atol=1e-10, msg=field)


@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", ["key", "value"])
def test_what_is_not_finite_and_masked_matters_to_no_output_and_no_gradient(name, poison):
    case = replace(everything(n=70, m=140, is_causal=True), dtype=torch.float64)
    found = []
    for number in (1.0, poison):
        inputs = {key: x.detach() for key, x in case.inputs().items()}
        inputs["attn_mask"][..., 5] = -torch.inf  # position 5 by the mask, 100 by causality
        inputs[name][1, 1, [5, 100]] = number
        inputs = {key: x.requires_grad_() for key, x in inputs.items()}
        found.append(run(talking_heads_attention, case, inputs, backend="cpu"))
    for field in found[0]:
        assert torch.equal(*(x[field] for x in found)), field


@pytest.mark.parametrize("bits", [0x7FC00000, 0x7FC00001, 0x7FC001FF, -0x003FFE01])
def test_nan_of_any_payload_stays_nan(bits):
    mask = torch.zeros(5, 40)
    mask.view(torch.int32)[2, 3] = bits
    x, memory = torch.randn(1, 2, 5, 4), torch.randn(1, 2, 40, 4)
    output = talking_heads_attention(x, memory, memory, attn_mask=mask, backend="cpu")
    assert output[:, :, 2].isnan().all() and output[:, :, [0, 1, 3, 4]].isfinite().all()


def test_logits_beyond_the_type_give_nan_as_in_the_reference():
    case = Case(b=1)
    inputs = {
        name: x.detach() * (1e30 if name in ("query", "key") else 1) for name, x in case.inputs().items()
    }
    got, want = (talking_heads_attention(**inputs, backend=name) for name in ("cpu", "reference"))
    assert want.isnan().any() and torch.equal(got.isnan(), want.isnan())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_logits_far_beyond_what_exp_can_hold_do_not_overflow(dtype):
    inputs = Case(b=1, n=20, m=150, scale=3000.0, dtype=dtype).inputs()
    got, want = (
        talking_heads_attention(
            **{key: x.to(wide) for key, x in inputs.items()}, scale=3000.0, backend=backend
        )
        for backend, wide in (("cpu", dtype), ("reference", torch.float64))
    )
    assert got.isfinite().all()
    if dtype == torch.float64:
        torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-9)
