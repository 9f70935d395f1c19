"""What every backend receives: one call, checked and brought to one form."""

from typing import NamedTuple, get_type_hints

import torch
from torch import Tensor


class LowRankMix(NamedTuple):
    """A map of each position across heads, low-rank plus diagonal: sum over r of down[r, in] * up[r, out], plus
    diagonal[in] where in = out. 2 * rank * heads + heads numbers a position, in place of heads * heads.
    """

    down: Tensor  # [batch, positions, rank, heads]
    up: Tensor  # [batch, positions, rank, heads]
    diagonal: Tensor | None = None  # [batch, positions, heads]; None: zeros


class Problem(NamedTuple):
    """One call of the operator after its checks. The arguments of the torch operators are these fields in this
    order (`SCHEMA`), and every tensor before `seed` may need a gradient (`TENSORS`).

    Head counts are settled (grouped queries repeated, except for `decode`) and the maps have `compute_dtype`. Letters: b batch, i key heads, h softmax heads, j value heads, n query positions,
    m memory positions, k and v sizes of a head.
    """

    query: Tensor  # [b, i, n, k]
    key: Tensor  # [b, i, m, k]
    value: Tensor  # [b, j, m, v]
    logits_mix: Tensor | None  # [i, h], or [groups, i/groups, h/groups]; None: identity
    weights_mix: Tensor | None  # [h, j], or in groups; None: identity
    mask: Tensor | None  # bool or float, four dimensions, each 1 or that of [b, h, n, m]
    query_logits_mix: Tensor | None  # [b, n, i, h], or low-rank: [b, n, 1, 2R+1, h], see `factors`
    memory_logits_mix: Tensor | None  # [b, m, i, h]
    query_weights_mix: Tensor | None  # [b, n, h, j]
    memory_weights_mix: Tensor | None  # [b, m, h, j]
    weights_mix_bias: Tensor | None  # [j]
    seed: Tensor | None  # two int64 below 2**31, on query's device; None: no dropout
    is_causal: bool
    dropout_p: float
    scale: float

    @property
    def compute_dtype(self) -> torch.dtype:
        """dtype of softmax, maps and accumulators: float64 for float64 inputs, else float32."""
        return torch.float64 if self.query.dtype == torch.float64 else torch.float32

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """(batch, softmax heads, query_len, memory_len)"""
        return _sizes(self)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to attend from or to, so that the output is zeros."""
        return 0 in self.query.shape or 0 in self.value.shape

    @property
    def is_dynamic(self) -> bool:
        return any(
            mix is not None
            for mix in (
                self.query_logits_mix,
                self.memory_logits_mix,
                self.query_weights_mix,
                self.memory_weights_mix,
            )
        )

    def repeated(self) -> "Problem":
        """With as many key heads as query heads and as many value heads as the maps give."""
        key, value = _repeat(self.key, self.query.shape[1]), _repeat(self.value, _value_heads(self))
        return self if key is self.key and value is self.value else self._replace(key=key, value=value)

    def is_low_rank(self) -> bool:
        """Whether a map by position is given as factors and a diagonal."""
        maps = (
            self.query_logits_mix,
            self.memory_logits_mix,
            self.query_weights_mix,
            self.memory_weights_mix,
        )
        return any(mix is not None and mix.dim() == 5 for mix in maps)

    def expanded(self) -> "Problem":
        """With the groups of static maps as blocks of full ones."""
        grouped = {
            name: torch.block_diag(*mix.unbind(0))
            for name, mix in (("logits_mix", self.logits_mix), ("weights_mix", self.weights_mix))
            if mix is not None and mix.dim() == 3
        }
        return self._replace(**grouped) if grouped else self

    @property
    def value_heads(self) -> int:
        """Heads after weights_mix."""
        return _value_heads(self)

    def empty_output(self) -> Tensor:
        """Uninitialised [b, j, n, v], laid out [b, n, j, v] so that joining the heads copies nothing."""
        b, _, n, _ = self.query.shape
        _, j, _, v = self.value.shape
        return self.query.new_empty(b, n, j, v).transpose(1, 2)


# What torch.compile traces calls these functions: torch 2.9 cannot trace a property of a named tuple.
def _sizes(p: Problem) -> tuple[int, int, int, int]:
    b, heads, n, _ = p.query.shape
    for mix in (p.logits_mix, p.query_logits_mix, p.memory_logits_mix):
        if mix is not None:
            return b, heads_out(mix), n, p.key.shape[2]
    if p.weights_mix is not None:
        heads = p.weights_mix.shape[:-1].numel()
    return b, heads, n, p.key.shape[2]


def _value_heads(p: Problem) -> int:
    for mix in (p.weights_mix, p.query_weights_mix, p.memory_weights_mix):
        if mix is not None:
            return heads_out(mix)
    return _sizes(p)[1]


def heads_out(mix: Tensor) -> int:
    """Heads after a map."""
    return mix.shape[0] * mix.shape[2] if mix.dim() == 3 else mix.shape[-1]


def factors(mix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(down [b, n, R, h], up [b, n, R, h], diagonal [b, n, h]) of a low-rank map by position."""
    x, rank = mix[:, :, 0], mix.shape[3] // 2
    return x[:, :, :rank], x[:, :, rank : 2 * rank], x[:, :, 2 * rank]


TENSORS = Problem._fields.index("seed")  # the leading fields, which may need a gradient

_KINDS = {Tensor: "Tensor", Tensor | None: "Tensor?", bool: "bool", float: "float"}
SCHEMA = ", ".join(f"{_KINDS[kind]} {name}" for name, kind in get_type_hints(Problem).items())


def _repeat(x: Tensor, heads: int) -> Tensor:
    b, few, length, size = x.shape
    if few == heads:
        return x
    return x[:, :, None].expand(b, few, heads // few, length, size).reshape(b, heads, length, size)
