"""The operator: the mathematics, the choice of a backend, nothing else."""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from . import kernels
from .checks import prepare
from .errors import one_of
from .kernels.cpu import quick
from .kernels.derivatives import has_tangents, transforms
from .kernels.operator import without_autocast
from .kernels.problem import LowRankMix, Problem
from .operands import fail, unfold_batch

Backend = Literal["auto", "reference", "chunked", "cpu", "triton", "decode"]


def talking_heads_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    logits_mix: Tensor | None = None,
    weights_mix: Tensor | None = None,
    *,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    dropout_p: float = 0.0,
    scale: float | None = None,
    query_logits_mix: Tensor | LowRankMix | None = None,
    memory_logits_mix: Tensor | LowRankMix | None = None,
    query_weights_mix: Tensor | LowRankMix | None = None,
    memory_weights_mix: Tensor | LowRankMix | None = None,
    weights_mix_bias: Tensor | None = None,
    enable_gqa: bool = False,
    return_weights: bool = False,
    backend: Backend = "auto",
) -> Any:
    r"""Attention with learned projections across the heads before and after the softmax.

    Talking-Heads Attention (Shazeer, Lan, Cheng, Ding, Hou, 2020, arXiv:2003.02436)::

        scores[b,i,n,m]  = scale * sum_k query[b,i,n,k] * key[b,i,m,k]
        logits[b,h,n,m]  = sum_i scores[b,i,n,m] * logits_mix[i,h]  (+ attn_mask)
        weights[b,h,n,m] = softmax over m of logits
        mixed[b,j,n,m]   = sum_h weights[b,h,n,m] * weights_mix[h,j]
        output[b,j,n,v]  = sum_m mixed[b,j,n,m] * value[b,j,m,v]

    with i the key heads, h the softmax heads, j the value heads. Where a map is left out it is the
    identity; without both this is torch.nn.functional.scaled_dot_product_attention, whose conventions
    hold for everything they share.

    Args:
        query: [batch, key_heads, query_len, head_dim], float64, float32, bfloat16 or float16.
        key: [batch, key_heads, memory_len, head_dim], of query's dtype.
        value: [batch, value_heads, memory_len, value_head_dim], of query's dtype.
        logits_mix: [key_heads, heads], or [groups, key_heads/groups, heads/groups] to mix inside groups
            only. Any float dtype; used in float32 (float64 for float64 heads), as softmax and sums are.
        weights_mix: [heads, value_heads], or in groups.
        attn_mask: bool (True: may attend) or float (added to the logits, -inf forbids), broadcastable to
            [batch, heads, query_len, memory_len]. It acts after logits_mix, on the softmax heads; what is
            masked stays exactly 0 after weights_mix. A row that may attend nowhere gives 0.
        is_causal: position n attends to m <= n, counted from the top left; combines with attn_mask.
        dropout_p: share of the mixed weights to drop (after weights_mix, as in the authors' code).
        scale: multiplies the scores before any map; default head_dim ** -0.5. (The authors' T5 has none
            at run time: pass 1.0.)
        query_logits_mix: [batch, query_len, key_heads, heads] or a LowRankMix, added to logits_mix at each query
            position (the paper's dynamic projections).
        memory_logits_mix: [batch, memory_len, key_heads, heads], likewise at each memory position.
        query_weights_mix: [batch, query_len, heads, value_heads].
        memory_weights_mix: [batch, memory_len, heads, value_heads].
        weights_mix_bias: [value_heads], added to every mixed weight before dropout; refused with a mask.
        enable_gqa: key may have fewer heads than query, value fewer than weights_mix gives, by an
            integer factor; they are repeated.
        return_weights: also return the weights, both before dropout (reference path only).
        backend: "auto", "reference" (einsum, stores everything), "chunked" (plain PyTorch, O(positions)
            memory), "cpu" (fused C++), "triton" (fused, NVIDIA GPUs) or "decode" (a few queries without
            gradients). A named backend does the work or raises; only "auto" chooses: see `explain`.

    Returns:
        [batch, value_heads, query_len, value_head_dim] of query's dtype; with return_weights a tuple of it,
        weights [batch, heads, query_len, memory_len] and mixed [batch, value_heads, query_len, memory_len].

    Raises:
        ValueError: shapes, head counts or options that do not fit. TypeError: wrong dtypes.
        RuntimeError: a second derivative (except by "reference").
    """
    plain = None
    if (
        backend == "auto"
        and not torch.compiler.is_compiling()
        and attn_mask is None
        and query_logits_mix is None
        and memory_logits_mix is None
        and query_weights_mix is None
        and memory_weights_mix is None
        and weights_mix_bias is None
        and enable_gqa is False
        and return_weights is False
        and type(dropout_p) is float
        and dropout_p == 0.0
    ):
        plain = quick.signature(query, key, value, logits_mix, weights_mix, is_causal, scale)
        known = plain and quick.find(plain)
        if known:
            return known(query, key, value, logits_mix, weights_mix)
    problem = prepare(
        query,
        key,
        value,
        logits_mix,
        weights_mix,
        attn_mask=attn_mask,
        is_causal=is_causal,
        dropout_p=dropout_p,
        scale=scale,
        query_logits_mix=query_logits_mix,
        memory_logits_mix=memory_logits_mix,
        query_weights_mix=query_weights_mix,
        memory_weights_mix=memory_weights_mix,
        weights_mix_bias=weights_mix_bias,
        enable_gqa=enable_gqa,
    )
    choice = _choose(problem, backend, return_weights)
    if plain and query.dim() == 4:
        quick.remember(plain, problem, choice.backend)
    if choice.backend not in kernels.INFERENCE:
        problem = problem.repeated()
    if problem.dropout_p > 0:
        seed = torch.randint(0, 2**31 - 1, (2,), device=problem.query.device)
        problem = problem._replace(seed=seed)
    batch = query.shape[:-3]
    with without_autocast(problem.query.device.type):
        if return_weights:
            found = kernels.reference.attention_with_weights(problem)
            return tuple(unfold_batch(x, batch) for x in found)
        return unfold_batch(kernels.ALL[choice.backend].attention(problem), batch)


class Explanation(NamedTuple):
    """Which backend does a call, and why each one before it does not."""

    backend: str
    reasons: dict[str, str]

    def _repr_html_(self) -> str:
        """In a notebook."""
        import html

        return f"<pre>{html.escape(str(self))}</pre>"

    def __str__(self) -> str:
        return "\n".join(
            [*(f"not {name}: {why}" for name, why in self.reasons.items()), f"-> {self.backend}"]
        )


def explain(
    *args: Any, backend: Backend = "auto", return_weights: bool = False, **kwargs: Any
) -> Explanation:
    """Which backend `talking_heads_attention` would take with the same arguments, and why.

    Returns:
        Explanation(backend, reasons): reasons maps each backend passed over to what it cannot do.

    Raises:
        What the call itself would raise.
    """
    return _choose(prepare(*args, **kwargs), backend, return_weights)


def _to_onnx() -> bool:
    """Whether the call is being exported to ONNX, which takes the operations of the equation."""
    return (torch.compiler.is_exporting() or torch.jit.is_tracing()) and torch.onnx.is_in_onnx_export()


def _choose(problem: Problem, backend: str, return_weights: bool) -> Explanation:
    if backend != "auto" and backend not in kernels.ALL:
        todo = 'use "auto" to let the library choose'
        names = tuple(f'"{name}"' for name in ("auto", *kernels.ALL))
        raise one_of("backend", backend, names, todo)
    reasons: dict[str, str] = {}
    for name in kernels.ALL if backend == "auto" else (backend,):
        if name == "reference":
            return Explanation(name, reasons)
        if return_weights:
            reason: str | None = "it never holds the weights that return_weights asks for"
        elif _to_onnx():
            reason = "ONNX has no such operator"
        elif torch.compiler.is_compiling() and transforms():
            reason = "torch compiles no operator of its own kind inside torch.func's transforms"
        elif has_tangents():
            reason = "it has no forward-mode derivatives (jvp, jacfwd, dual tensors)"
        else:
            reason = kernels.ALL[name].refuses(problem)
            if reason is None and backend == "auto" and name in kernels.INFERENCE:
                reason = kernels.ALL[name].yields(problem)
        if reason is None:
            return Explanation(name, reasons)
        reasons[name] = reason
    able = _choose(problem, "auto", return_weights).backend
    fail(
        f'talking_heads_attention: backend="{backend}" cannot do this call',
        f"a call it refuses: {reasons[backend]}",
        f'backend="{able}" can',
    )
