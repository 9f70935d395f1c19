"""A few query rows without gradients, as when decoding: plain PyTorch, and keys and values as they lie.

    scores  = query keys^T     grouped keys are multiplied once a group, not repeated
    output  = mixed values

Nothing of the size of keys or values is copied or looked through. Whether something in them is not finite
shows in the sums of scores and output; then the reference does the call, as it knows who may see it.
"""

import math

import torch
from torch import Tensor

from . import reference
from .problem import Problem

ROWS = 16  # more of them are better done in blocks


def refuses(problem: Problem) -> str | None:
    if problem.query.device.type != "cpu":
        return "it is for the CPU: elsewhere looking at a sum would wait for the device"
    if torch.compiler.is_compiling():
        return "it looks at values, which a compiled graph cannot"
    if problem.dropout_p > 0:
        return "it has no dropout"
    if problem.query.shape[2] > ROWS:
        return f"it is for at most {ROWS} query rows"
    if torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in problem):
        return "it has no backward"
    return None


def attention(p: Problem) -> Tensor:
    dtype = p.compute_dtype
    scores = _grouped(p.query, p.key.mT).to(dtype).mul_(p.scale)
    logits = _mix(scores, p.logits_mix, p.query_logits_mix, p.memory_logits_mix)
    weights = _softmax(logits, p)
    mixed = _mix(weights, p.weights_mix, p.query_weights_mix, p.memory_weights_mix)
    if p.weights_mix_bias is not None:
        mixed = mixed + p.weights_mix_bias[:, None, None]
    output = _grouped(mixed.to(p.value.dtype), p.value)
    if not math.isfinite((scores.sum() + output.sum()).item()):
        return reference.attention(p.repeated())
    return output


def _grouped(x: Tensor, y: Tensor) -> Tensor:
    """x [b, heads, n, k] times y [b, heads / r, k, m], each head of y for r heads of x: [b, heads, n, m]"""
    b, heads, n, k = x.shape
    if y.shape[1] == heads:
        return torch.matmul(x, y)
    return torch.matmul(x.reshape(b, y.shape[1], -1, k), y).view(b, heads, n, -1)


def _mix(x: Tensor, static: Tensor | None, by_query: Tensor | None, by_memory: Tensor | None) -> Tensor:
    """[b, in, n, m] -> [b, out, n, m]"""
    b, _, n, m = x.shape
    mixed = x
    if static is not None:
        mixed = torch.matmul(static.mT, x.flatten(2)).view(b, -1, n, m)
    if by_query is not None:
        mixed = mixed + torch.matmul(by_query.mT, x.transpose(1, 2)).transpose(1, 2)
    if by_memory is not None:
        mixed = mixed + torch.matmul(by_memory.mT, x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    return mixed


def _softmax(logits: Tensor, p: Problem) -> Tensor:
    """Over memory, under mask and causality; a row that may attend nowhere is 0."""
    if p.mask is not None and p.mask.dtype == torch.bool:
        logits = logits.masked_fill(~p.mask, -torch.inf)
    elif p.mask is not None:
        logits = (logits + p.mask).masked_fill(p.mask == -torch.inf, -torch.inf)
    if p.is_causal and logits.shape[-1] > 1:
        n, m = logits.shape[-2:]
        logits = logits.masked_fill(torch.ones(n, m, dtype=torch.bool).triu(1), -torch.inf)
    weights = torch.softmax(logits, -1)
    if p.mask is None:  # causal rows always see position 0
        return weights
    nowhere = logits.amax(-1, keepdim=True) == -torch.inf
    return weights.masked_fill(nowhere, 0)
