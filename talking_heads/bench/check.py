"""Right before fast: a form's output and every gradient against the reference in float64.

At full size, on a few rows of queries: an output row depends on its query alone, and a gradient that is
zero elsewhere flows from those rows alone, so the reference on those rows is the whole truth, at any length.
"""

import torch
from torch import Tensor

from ..functional import talking_heads_attention
from .forms import Form
from .shapes import Inputs, Shape

ROWS = 16
# of ||error|| / ||reference||, on the output and on each gradient
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}


def largest_error(form: Form, shape: Shape, inputs: Inputs) -> float:
    """The largest relative error (Euclidean norms) over the output's rows and each input's gradient."""
    n, device = shape.query_len, inputs.query.device
    rows = torch.linspace(0, n - 1, min(ROWS, n), device=device).long()
    grad_output = torch.zeros_like(inputs.grad_output)
    grad_output[:, :, rows] = inputs.grad_output[:, :, rows]
    used = inputs[:5] if form.mixes else inputs[:3]
    output = form.function(*inputs[:5], shape.is_causal)
    found = (output.detach()[:, :, rows], *torch.autograd.grad(output, used, grad_output))
    del output
    wanted = _reference(form, shape, inputs, rows)
    return max(_relative_error(a, b) for a, b in zip(found, wanted, strict=True))


def _reference(form: Form, shape: Shape, inputs: Inputs, rows: Tensor) -> list[Tensor]:
    """The output at `rows` and the gradients; that of the query is 0 in all other rows."""
    wide = [x.detach().double().requires_grad_() for x in inputs[:5]]
    query, key, value, *maps = wide
    used = wide if form.mixes else wide[:3]
    mask = None
    if shape.is_causal:
        mask = torch.arange(shape.memory_len, device=rows.device) <= rows[:, None]
    output = talking_heads_attention(
        query[:, :, rows], key, value, *(maps if form.mixes else ()), attn_mask=mask, backend="reference"
    )
    gradients = torch.autograd.grad(output, used, inputs.grad_output[:, :, rows].double())
    return [output.detach(), *gradients]


def _relative_error(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted).norm() / wanted.norm())
