"""How many floating-point operations a call takes, for torch's FLOP counter."""

from torch import Tensor

from .problem import Problem


def _products(p: Problem) -> tuple[int, int]:
    """Multiply-adds of the products with keys and values, and of the mixing across heads."""
    b, _, n, m = p.sizes
    i, k = p.key.shape[1], p.key.shape[3]
    j, v = p.value.shape[1], p.value.shape[3]
    maps = (p.logits_mix, p.query_logits_mix, p.memory_logits_mix, p.weights_mix, p.query_weights_mix)
    mixing = sum(_numbers(mix) for mix in (*maps, p.memory_weights_mix) if mix is not None)
    return b * n * m * (i * k + j * v), b * n * m * mixing


def _numbers(mix: Tensor) -> int:
    """Of the map that one pair of positions is mixed with."""
    return mix.numel() if mix.dim() < 4 else mix.shape[2:].numel()


def forward_flops(problem: Problem) -> int:
    products, mixing = _products(problem)
    return 2 * (products + mixing)


def backward_flops(problem: Problem) -> int:
    """As computed: scores and both mixes again, then two products for each one of the forward."""
    products, mixing = _products(problem)
    b, _, n, m = problem.sizes
    again = b * n * m * problem.key.shape[1] * problem.key.shape[3] + mixing
    return 2 * (again + 2 * products + 2 * mixing)
