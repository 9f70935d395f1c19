"""Label-smoothed cross entropy of an output layer, without keeping its logits."""

from typing import Any

import torch
from torch import Tensor

_ROWS = 512  # tokens whose logits are made at a time: 20 MB for a vocabulary of 10,000, which a cache holds


def smoothed_loss(hidden: Tensor, weight: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """The mean of torch's cross_entropy(hidden @ weight.T, labels, label_smoothing=smoothing) over tokens.

    The gradient is computed in the forward pass, block by block: the logits [tokens, vocabulary] never exist at once.
    `benchmarks/translation.py step` times it next to the plain form.

    Args:
        hidden: [tokens, width]. weight: [vocabulary, width]. labels: [tokens].

    Returns:
        A scalar, float32, once differentiable.
    """
    loss: Tensor = _Smoothed.apply(hidden, weight, labels, smoothing)
    return loss


class _Smoothed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, smoothing: float) -> Tensor:
        count, vocabulary = len(hidden), len(weight)
        exact, table = weight.float(), weight.to(hidden.dtype)  # products in hidden's dtype, sums in float32
        to_hidden = torch.empty_like(hidden, dtype=torch.float32)
        to_weight = torch.zeros_like(exact) if ctx.needs_input_grad[1] else None
        total = hidden.new_zeros((), dtype=torch.float64)
        mean = exact.sum(0) * (smoothing / vocabulary)
        for start in range(0, count, _ROWS):
            rows, right = hidden[start : start + _ROWS], labels[start : start + _ROWS]
            wide = rows.float()
            logits = rows @ table.T
            chosen = (wide * exact[right]).sum(1)
            most = logits.amax(1, keepdim=True)
            logits.sub_(most).exp_()
            sums = logits.sum(1, dtype=torch.float32)
            total += (sums.log() + most[:, 0] - (1 - smoothing) * chosen - wide @ mean).double().sum()
            out = torch.mm(logits, table).float().div_(sums[:, None])
            to_hidden[start : start + _ROWS] = out.sub_(mean).sub_(exact[right], alpha=1 - smoothing)
            if to_weight is not None:
                to_weight += logits.T @ (wide / sums[:, None]).to(rows.dtype)
        if to_weight is not None:
            wide = hidden.float()
            to_weight.index_add_(0, labels, wide, alpha=smoothing - 1)
            to_weight.sub_(wide.sum(0), alpha=smoothing / vocabulary)
            to_weight.div_(count)
        ctx.save_for_backward(to_hidden.div_(count).to(hidden.dtype), to_weight)
        return (total / count).float()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        to_hidden, to_weight = ctx.saved_tensors
        return (
            to_hidden * slope.to(to_hidden.dtype),
            None if to_weight is None else to_weight * slope,
            None,
            None,
        )
