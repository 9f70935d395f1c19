"""Keywords of transformers' attention functions that say who attends to whom, as the operator's mask.

s_aux, sinks     a logit a softmax head that takes weight and gives nothing: one more memory position,
                 in front, with key and value 0 and the sink as its mask
cu_seq_lens_q/k  borders of the sequences packed into one row of the batch
indices          which memory positions each query position may attend to (sparse attention)
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..errors import UserError

HONOURED = frozenset(("s_aux", "sinks", "cu_seq_lens_q", "cu_seq_lens_k", "indices"))
SINKS = 1  # memory positions that sinks add


def has_sinks(extras: dict[str, Any]) -> bool:
    return "s_aux" in extras or "sinks" in extras


def apply(
    extras: dict[str, Any], query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool
) -> tuple[Tensor, Tensor, Tensor | None, bool]:
    """(key, value, mask, is_causal) with the keywords of HONOURED in them."""
    n, m = query.shape[2], key.shape[2]
    if "cu_seq_lens_q" in extras or "cu_seq_lens_k" in extras:
        mask = both(mask, _same_sequence(extras, query, key))
    if "indices" in extras:
        chosen = extras["indices"].long()
        allowed = torch.zeros(*chosen.shape[:2], m, dtype=torch.bool, device=query.device)
        mask = both(mask, allowed.scatter(-1, chosen, True)[:, None])
    if not has_sinks(extras):
        return key, value, mask, causal
    sink = extras["s_aux"].view(1, -1, 1, 1) if "s_aux" in extras else extras["sinks"]
    if causal:
        lower = torch.ones(n, m, dtype=torch.bool, device=query.device).tril()
        mask, causal = both(mask, lower[None, None]), False
    if mask is None:
        mask = query.new_zeros(1, 1, 1, m)
    logits = (
        torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, -torch.inf)
        if mask.dtype == torch.bool
        else mask
    )
    shape = torch.broadcast_shapes(logits.shape[:-1], sink.shape[:-1])
    logits = torch.cat([sink.expand(*shape, 1), logits.expand(*shape, m)], -1)
    return pad(key, (0, 0, SINKS, 0)), pad(value, (0, 0, SINKS, 0)), logits, causal


def behind_sinks(maps: Tensor) -> Tensor:
    """Dynamic maps of memory positions [b, m, in, out] with those of the sinks, whose key and value are 0: any would do."""
    return pad(maps, (0, 0, 0, 0, SINKS, 0))


def _same_sequence(extras: dict[str, Any], query: Tensor, key: Tensor) -> Tensor:
    """bool [1, 1, query_len, memory_len]: positions of one packed sequence."""
    if query.shape[0] != 1:
        raise UserError(
            "talking_heads: packed sequences must be one row",
            f"cu_seq_lens for a batch of {query.shape[0]}",
            "pass a padding mask instead",
        )
    numbers = []
    for side, x in (("q", query), ("k", key)):
        borders = extras.get(f"cu_seq_lens_{side}")
        if borders is None:
            raise UserError(f"talking_heads: packed sequences need cu_seq_lens_{side}", "none", "pass both")
        numbers.append(torch.searchsorted(borders, torch.arange(x.shape[2], device=x.device), right=True))
    return (numbers[0][:, None] == numbers[1])[None, None]


def both(mask: Tensor | None, other: Tensor | None) -> Tensor | None:
    """One mask of two, each bool (True: may attend) or float (added)."""
    if mask is None or other is None:
        return other if mask is None else mask
    if mask.dtype == torch.bool and other.dtype == torch.bool:
        return mask & other
    if other.dtype == torch.bool:
        mask, other = other, mask
    return torch.where(mask, other, -torch.inf) if mask.dtype == torch.bool else mask + other
