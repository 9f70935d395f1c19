"""What theory says about score and embedding norm during training; docs/dynamics.md derives every line.

It applies to a word that alone determines its sentence's label, among `others` words whose scores and embeddings
stay near 0, under small steps of plain gradient descent. Shapes: t points in time, w words,
i key heads, h softmax heads, j value heads.
"""

import torch
from torch import Tensor

LEAST_SCORE = 0.2  # the identity is judged above it: below, the norms are a few per cent of the final ones


def growth(score: Tensor, others: float | Tensor) -> Tensor:
    """score + exp(score)/others, whose change is |query|^2/2 times that of the squared embedding norm."""
    return score + score.exp() / others


def closed_norm(
    score: Tensor,
    others: float | Tensor,
    query_norm: float | Tensor,
    start_score: float | Tensor = 0.0,
    start_norm: float | Tensor = 0.0,
) -> Tensor:
    """The embedding norm expected at a score: the persisting identity of Lu, Mao, Nayak (2021).

        |embedding|^2 = |start embedding|^2 + 2/|query|^2 (growth(score) - growth(start score))

    Theirs has both starts 0. It holds for one head, for each head of multi-head attention, and for each
    softmax head's logit under a logits_mix P with P^T diag(|query|^2) P = |query|^2 I.
    """
    start_score, start_norm = (torch.as_tensor(x, dtype=score.dtype) for x in (start_score, start_norm))
    change = growth(score, others) - growth(start_score, others)
    return _root(start_norm**2 + 2 / query_norm**2 * change)


def summed_norm(scores: Tensor, others: float, query_norm: Tensor, square: Tensor) -> Tensor:
    """The norm of a word's embeddings over all heads, [t, w]: the identity that still holds with weights_mix.

    Args:
        scores: [t, w, i]. query_norm: [i]. square: [t, w, j], squared norms; only the first point is used.
    """
    change = growth(scores, others) - growth(scores[:1], others)
    return _root(square[:1].sum(-1) + (2 / query_norm**2 * change).sum(-1))


def path_scores(
    square: Tensor, logits: Tensor, others: float, query_norm: Tensor, logits_mix: Tensor, weights_mix: Tensor
) -> Tensor:
    """The key heads' scores [t, w, i] from everything else along the path: the law for any two maps.

        d score_i = |query_i|^2 sum_h P[i,h] a_h (1 - a_h) sum_j W[h,j] (d square_j / 2) / (sum_h' W[h',j] a_h')

    with a = exp(logit) / (exp(logit) + others), summed over the recorded points by the midpoint rule.

    Args:
        square: [t, w, j], squared norms. logits: [t, w, h]. logits_mix: P [t, i, h]. weights_mix: W [t, h, j].
            Scores start at 0.
    """
    weights = logits.exp() / (logits.exp() + others)
    mixed = torch.einsum("twh,thj->twj", weights, weights_mix)
    step = (square[1:] - square[:-1]) / 2 / _middle(mixed)
    a = _middle(weights)
    force = a * (1 - a) * torch.einsum("thj,twj->twh", _middle(weights_mix), step)
    change = query_norm**2 * torch.einsum("tih,twh->twi", _middle(logits_mix), force)
    return torch.cat([torch.zeros_like(change[:1]), change.cumsum(0)])


def trained_query_norm(score: Tensor, others: float, query_norm: Tensor, start_norm: Tensor) -> Tensor:
    """The embedding norm [t, w] when the query is trained too and keys start at 0 (so that they stay parallel to it).

        d |embedding|^2 / 2 = (1 + exp(score)/others) d(score/|query|) / |query|

    Args:
        score: [t, w]. query_norm: [t]. start_norm: [w].
    """
    along = score / query_norm[:, None]
    rate = 1 + _middle(score).exp() / others
    change = (2 * rate * (along[1:] - along[:-1]) / _middle(query_norm)[:, None]).cumsum(0)
    return _root(start_norm**2 + torch.cat([torch.zeros_like(change[:1]), change]))


def relative_error(measured: Tensor, theory: Tensor, where: Tensor) -> Tensor:
    """|theory/measured - 1| where `where` holds, else NaN."""
    return (theory / measured - 1).abs().where(where, torch.nan)


def _middle(x: Tensor) -> Tensor:
    return (x[1:] + x[:-1]) / 2


def _root(square: Tensor) -> Tensor:
    """The root; NaN-free where rounding (or a law that does not hold) makes the square negative."""
    return square.clamp(min=0).sqrt()
