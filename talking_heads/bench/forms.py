"""The competing forms: each a function (query, key, value, logits_mix, weights_mix, is_causal) -> output.

The plain ones are what a person would write; they are measured as written, eager and compiled.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from .. import kernels
from ..checks import prepare
from ..functional import talking_heads_attention
from .shapes import Inputs, Shape

Function = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, bool], Tensor]

SDPA = "sdpa"


class Form(NamedTuple):
    name: str
    function: Function
    computes: str
    is_ours: bool = False  # a backend of this library

    @property
    def mixes(self) -> bool:
        return self.name != SDPA

    @property
    def is_compiled(self) -> bool:
        return self.name.startswith("compiled")


def forms() -> dict[str, Form]:
    """By name, in the table's order."""
    plain = [
        Form(SDPA, _sdpa, "multi-head attention (torch's scaled_dot_product_attention), no maps"),
        Form("einsum", _einsum, "talking heads, four einsums"),
        Form("matmul", _matmul, "talking heads, batched matrix products on [heads, n*m] views"),
        Form("compiled-einsum", _compiled(_einsum), "torch.compile of einsum"),
        Form("compiled-matmul", _compiled(_matmul), "torch.compile of matmul"),
        Form(
            "x-transformers",
            _x_transformers,
            "x_transformers.attend.Attend, which adds scores to mixed scores: given logits_mix minus the "
            "identity, it computes the same function",
        ),
    ]
    ours = [Form(name, partial(_ours, name), f'backend="{name}"', is_ours=True) for name in kernels.ORDER]
    return {form.name: form for form in (*plain, *ours)}


def refuses(form: Form, shape: Shape, inputs: Inputs) -> str | None:
    """Why a form cannot take part at a shape; None if it can."""
    if form.name == SDPA and shape.key_heads != shape.value_heads:
        return "needs as many value heads as key heads"
    if form.name == "x-transformers":
        if not shape.key_heads == shape.heads == shape.value_heads:
            return "needs equal head counts"
        try:
            import x_transformers.attend  # noqa: F401
        except ImportError:
            return "the package x-transformers is not installed"
    if form.is_ours:
        return kernels.BACKENDS[form.name].refuses(prepare(*inputs[:5], is_causal=shape.is_causal))
    return None


def _sdpa(query: Tensor, key: Tensor, value: Tensor, _l: Tensor, _w: Tensor, is_causal: bool) -> Tensor:
    return scaled_dot_product_attention(query, key, value, is_causal=is_causal)


def _ours(name: str, *arguments: Any) -> Tensor:
    return talking_heads_attention(*arguments[:5], is_causal=arguments[5], backend=name)


def _weights(logits: Tensor, is_causal: bool) -> Tensor:
    if is_causal:
        n, m = logits.shape[-2:]
        later = torch.ones(n, m, dtype=torch.bool, device=logits.device).triu(1)
        logits = logits.masked_fill(later, -torch.inf)
    return logits.softmax(-1)


def _einsum(
    query: Tensor, key: Tensor, value: Tensor, logits_mix: Tensor, weights_mix: Tensor, is_causal: bool
) -> Tensor:
    scores = torch.einsum("bink,bimk->binm", query * query.shape[-1] ** -0.5, key)
    logits = torch.einsum("binm,ih->bhnm", scores, logits_mix.to(scores.dtype))
    weights = _weights(logits, is_causal)
    mixed = torch.einsum("bhnm,hj->bjnm", weights, weights_mix.to(weights.dtype))
    return torch.einsum("bjnm,bjmv->bjnv", mixed, value)


def _matmul(
    query: Tensor, key: Tensor, value: Tensor, logits_mix: Tensor, weights_mix: Tensor, is_causal: bool
) -> Tensor:
    scores = (query * query.shape[-1] ** -0.5) @ key.mT
    b, _, n, m = scores.shape
    logits = (logits_mix.mT.to(scores.dtype) @ scores.view(b, -1, n * m)).view(b, -1, n, m)
    weights = _weights(logits, is_causal)
    mixed = (weights_mix.mT.to(weights.dtype) @ weights.view(b, -1, n * m)).view(b, -1, n, m)
    return mixed @ value


def _compiled(function: Function) -> Function:
    @cache
    def compiled() -> Function:
        return torch.compile(function, dynamic=False)

    return lambda *arguments: compiled()(*arguments)


def _x_transformers(
    query: Tensor, key: Tensor, value: Tensor, logits_mix: Tensor, weights_mix: Tensor, is_causal: bool
) -> Tensor:
    identity = torch.eye(len(logits_mix), device=logits_mix.device)
    maps = {
        "pre_softmax_talking_heads.weight": (logits_mix - identity).mT[:, :, None, None].to(query.dtype),
        "post_softmax_talking_heads.weight": weights_mix.mT[:, :, None, None].to(query.dtype),
    }
    attend = _attend(query.shape[1], is_causal)
    return torch.func.functional_call(attend, maps, (query, key, value))[0]


@cache
def _attend(heads: int, is_causal: bool) -> torch.nn.Module:
    from x_transformers.attend import Attend

    return Attend(heads=heads, causal=is_causal, pre_talking_heads=True, post_talking_heads=True)
