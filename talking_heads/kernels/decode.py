"""A few query rows without gradients, as when decoding: plain products, keys and values as they lie.

    scores  = scale * query keys^T     grouped keys are multiplied once a group, not repeated
    output  = mixed values

Nothing of the size of keys or values is copied or looked through (except to lay them out for torch.bmm where
batch and heads do not join, and a part at a time to convert half precision to float32, in which all is summed).
Whether something in them is not finite, or a row may attend nowhere, shows in the sums of scores and output; then
the reference does the call.
"""

from math import isfinite

import torch
from torch import Tensor, nn

from . import cpu, reference
from .derivatives import transforms
from .problem import Problem

ROWS = 16  # more of them are better done in blocks
FEW, LONG = 2, 128  # queries and memory positions of the calls for which it is the fastest
CONVERTED = 2**17  # numbers of half precision converted to float32 at a time


def refuses(problem: Problem) -> str | None:
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return "it looks at values, which a compiled or traced graph cannot"
    if transforms():
        return "it looks at values, which tensors inside torch.func transforms may not have"
    if type(problem.query) not in (Tensor, nn.Parameter):
        return f"it looks at values, which a {type(problem.query).__name__} may not have"
    if problem.query.device.type != "cpu":
        return "it is for the CPU: elsewhere looking at a sum would wait for the device"
    if problem.query.shape[2] > ROWS:
        return f"it is for at most {ROWS} query rows"
    if problem.dropout_p > 0:
        return "it has no dropout"
    if problem.is_low_rank():
        return "its maps by position are full matrices"
    if problem.is_empty:
        return "it needs at least one position to attend from and to"
    if torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in problem):
        return "it has no backward"
    return None


def yields(problem: Problem) -> str | None:
    """Why another backend is faster, where one is."""
    if cpu.refuses(problem) is not None or problem.key.shape[1] != problem.query.shape[1]:
        return None
    if problem.query.shape[2] > FEW or problem.key.shape[2] < LONG:
        return f'backend="cpu" is faster, except for at most {FEW} queries over at least {LONG} positions'
    return None


def attention(p: Problem) -> Tensor:
    p = p.expanded()
    b, heads, n, k = p.query.shape
    dtype, few, m = p.compute_dtype, p.key.shape[1], p.key.shape[2]
    query = p.query.reshape(b * few, -1, k).to(dtype)  # rows of the heads that share a key
    scores = _product(query, p.key.flatten(0, 1).mT, p.scale).view(b, heads, n * m)
    logits = _mix(scores, n, p.logits_mix, p.query_logits_mix, p.memory_logits_mix)
    if p.mask is not None or p.is_causal:
        logits = _masked(logits.view(b, -1, n, m), p)
    weights = torch.softmax(logits.view(b, -1, n, m), -1).view(b, -1, n * m)
    mixed = _mix(weights, n, p.weights_mix, p.query_weights_mix, p.memory_weights_mix)
    if p.weights_mix_bias is not None:
        mixed = mixed + p.weights_mix_bias[:, None]
    output = _product(mixed.view(b * p.value.shape[1], -1, m), p.value.flatten(0, 1))
    if not isfinite((scores.sum() + output.sum()).item()):
        return reference.attention(p.repeated())
    return output.to(p.query.dtype).view(b, -1, n, output.shape[-1])


def _product(x: Tensor, y: Tensor, scale: float = 1.0) -> Tensor:
    """scale * x y in x's dtype; y of half precision is converted in parts that stay in the cache."""
    if y.dtype == x.dtype:
        return torch.baddbmm(x.new_zeros(()), x, y, beta=0, alpha=scale)
    parts = max(1, y.numel() // CONVERTED)
    pairs = zip(x.chunk(parts), y.chunk(parts), strict=True)
    return torch.cat(
        [torch.baddbmm(x.new_zeros(()), a, b.to(x.dtype), beta=0, alpha=scale) for a, b in pairs]
    )


def _mix(
    x: Tensor, n: int, static: Tensor | None, by_query: Tensor | None, by_memory: Tensor | None
) -> Tensor:
    """[b, in, n * m] -> [b, out, n * m]"""
    mixed = x
    if static is not None:
        mixed = torch.bmm(static.mT.expand(x.shape[0], -1, -1), x)
    if by_query is not None or by_memory is not None:
        x = x.unflatten(-1, (n, -1))
    if by_query is not None:
        mixed = mixed + torch.matmul(by_query.mT, x.transpose(1, 2)).transpose(1, 2).flatten(2)
    if by_memory is not None:
        mixed = mixed + torch.matmul(by_memory.mT, x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).flatten(2)
    return mixed


def _masked(logits: Tensor, p: Problem) -> Tensor:
    if p.mask is not None:
        is_bool = p.mask.dtype == torch.bool
        logits = torch.where(p.mask, logits, -torch.inf) if is_bool else logits + p.mask.to(logits.dtype)
    if p.is_causal:
        later = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).triu(1)
        logits = logits.masked_fill(later, -torch.inf)
    return logits
