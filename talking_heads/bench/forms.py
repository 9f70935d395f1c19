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
FLEX = "flex"


class Form(NamedTuple):
    name: str
    function: Function
    computes: str
    is_ours: bool = False  # a backend of this library

    @property
    def mixes(self) -> bool:
        return self.name not in (SDPA, FLEX)

    @property
    def is_compiled(self) -> bool:
        return self.name.startswith("compiled") or self.name == FLEX


def forms() -> dict[str, Form]:
    """By name, in the table's order."""
    plain = [
        Form(SDPA, _sdpa, "multi-head attention (torch's scaled_dot_product_attention), no maps"),
        Form(
            FLEX,
            _flex,
            "multi-head attention by torch.compile of FlexAttention, whose score_mod sees one head at a time: "
            "it cannot mix heads",
        ),
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
    ours = [
        Form(name, partial(_ours, name), f'backend="{name}"', is_ours=True)
        for name in ("auto", *kernels.ORDER)
    ]
    return {form.name: form for form in (*plain, *ours)}


def refuses(form: Form, shape: Shape, inputs: Inputs) -> str | None:
    """Why a form cannot take part at a shape; None if it can."""
    if form.name == FLEX and not inputs.query.is_cuda:
        return "torch gives FlexAttention no backward on a CPU"
    if form.name in (SDPA, FLEX) and shape.key_heads != shape.value_heads:
        return "needs as many value heads as key heads"
    if form.name == "x-transformers":
        if not shape.key_heads == shape.heads == shape.value_heads:
            return "needs equal head counts"
        if shape.groups > 1:
            return "has no groups"
        try:
            import x_transformers.attend  # noqa: F401
        except ImportError:
            return "the package x-transformers is not installed"
    if form.is_ours and form.name != "auto":
        return kernels.BACKENDS[form.name].refuses(prepare(*inputs[:5], is_causal=shape.is_causal))
    return None


def _sdpa(query: Tensor, key: Tensor, value: Tensor, _l: Tensor, _w: Tensor, is_causal: bool) -> Tensor:
    return scaled_dot_product_attention(query, key, value, is_causal=is_causal)


@cache
def _compiled_flex() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


def _flex(query: Tensor, key: Tensor, value: Tensor, _l: Tensor, _w: Tensor, is_causal: bool) -> Tensor:
    from torch.nn.attention.flex_attention import create_block_mask

    mask = None
    if is_causal:
        sizes = (None, None, query.shape[2], key.shape[2])
        mask = create_block_mask(lambda b, h, n, m: n >= m, *sizes, device=query.device)
    return _compiled_flex()(query, key, value, block_mask=mask)


def _ours(name: Any, *arguments: Any) -> Tensor:
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
    logits = _einsum_mix(scores, logits_mix)
    weights = _weights(logits, is_causal)
    mixed = _einsum_mix(weights, weights_mix)
    return torch.einsum("bjnm,bjmv->bjnv", mixed, value)


def _einsum_mix(x: Tensor, mix: Tensor) -> Tensor:
    if mix.dim() == 2:
        return torch.einsum("binm,ih->bhnm", x, mix.to(x.dtype))
    return torch.einsum("bginm,gih->bghnm", x.unflatten(1, mix.shape[:2]), mix.to(x.dtype)).flatten(1, 2)


def _matmul(
    query: Tensor, key: Tensor, value: Tensor, logits_mix: Tensor, weights_mix: Tensor, is_causal: bool
) -> Tensor:
    scores = (query * query.shape[-1] ** -0.5) @ key.mT
    weights = _weights(_matmul_mix(scores, logits_mix), is_causal)
    return _matmul_mix(weights, weights_mix) @ value


def _matmul_mix(x: Tensor, mix: Tensor) -> Tensor:
    b, _, n, m = x.shape
    groups = (b,) if mix.dim() == 2 else (b, mix.shape[0])
    return (mix.mT.to(x.dtype) @ x.view(*groups, -1, n * m)).view(b, -1, n, m)


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
