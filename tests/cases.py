"""Calls of the operator to compare backends on, and the one tolerance that every comparison uses.

A backend's error against float64 may be at most twice that of the plain form (`plain`, below) run wholly
in the same dtype, plus a few units in the last place of the largest element.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from talking_heads import LowRankMix, kernels, talking_heads_attention
from talking_heads.kernels.random import keep_mask, row_numbers

FAST = [name for name in kernels.ORDER if name != "reference"]
DYNAMIC = ("query_logits_mix", "memory_logits_mix", "query_weights_mix", "memory_weights_mix")


@dataclass(frozen=True)
class Case:
    b: int = 2
    i: int = 3
    h: int = 5
    j: int = 2
    n: int = 7
    m: int = 9
    k: int = 4
    v: int = 6
    logits_mix: bool = True
    weights_mix: bool = True
    mask: str = "none"  # none, bool, float, dead (bool with rows that may attend nowhere)
    mask_shape: tuple[int, ...] = (1, 1, 1, 1)  # 1 where full, 0 where broadcast; the last axes only
    is_causal: bool = False
    dropout_p: float = 0.0
    scale: float | None = None
    dynamic: tuple[str, ...] = ()
    groups: int = 1  # of the static maps
    rank: int = 0  # of the dynamic maps; 0: full
    bias: bool = False
    layout: str = "plain"  # plain, heads_inside ([b, n, heads, size]), gaps (every second element)
    dtype: torch.dtype = torch.float32
    seed: int = 0

    def __post_init__(self) -> None:
        for heads, learnt in (("h", self.logits_mix), ("j", self.weights_mix)):
            if not learnt and not any(
                name.endswith("logits_mix" if heads == "h" else "weights_mix") for name in self.dynamic
            ):
                object.__setattr__(self, heads, self.i if heads == "h" else self.h)

    def inputs(self) -> dict[str, Tensor]:
        """Every tensor argument, leaves of the case's dtype (maps float32 or float64)."""
        make = torch.Generator().manual_seed(self.seed)
        draw = lambda *shape: torch.randn(*shape, generator=make, dtype=torch.float64)  # noqa: E731
        b, i, h, j, n, m = self.b, self.i, self.h, self.j, self.n, self.m
        found = {"query": draw(b, i, n, self.k), "key": draw(b, i, m, self.k), "value": draw(b, j, m, self.v)}
        found = {name: _lay(x.to(self.dtype), self.layout) for name, x in found.items()}
        maps: dict[str, Tensor] = {}
        if self.logits_mix:
            maps["logits_mix"] = self._static(draw, i, h)
        if self.weights_mix:
            maps["weights_mix"] = self._static(draw, h, j)
        for name in self.dynamic:
            sizes = (i, h) if name.endswith("logits_mix") else (h, j)
            positions = n if name.startswith("query") else m
            if self.rank:
                maps[f"{name}.down"] = draw(b, positions, self.rank, h) / h**0.5
                maps[f"{name}.up"] = draw(b, positions, self.rank, h) / 3
                maps[f"{name}.diagonal"] = draw(b, positions, h) / 3
            else:
                maps[name] = draw(b, positions, *sizes) / 3
        if self.bias:
            maps["weights_mix_bias"] = draw(j)
        if self.mask != "none":
            found["attn_mask"] = self._mask(draw)
        wide = torch.float64 if self.dtype == torch.float64 else torch.float32
        found |= {name: x.to(wide) for name, x in maps.items()}
        return {name: x.requires_grad_(x.is_floating_point()) for name, x in found.items()}

    def _static(self, draw: Callable[..., Tensor], ins: int, outs: int) -> Tensor:
        x = draw(self.groups, ins // self.groups, outs // self.groups) / (ins // self.groups) ** 0.5
        return x if self.groups > 1 else x[0]

    def _mask(self, draw: Callable[..., Tensor]) -> Tensor:
        full = (self.b, self.h, self.n, self.m)[4 - len(self.mask_shape) :]
        shape = [size if keep else 1 for size, keep in zip(full, self.mask_shape, strict=True)]
        x = draw(*shape)
        if self.mask == "float":
            return x.masked_fill(x > 1.2, -torch.inf).to(self.dtype)
        if self.mask == "dead" and len(shape) > 1:
            x[..., 0, :] = 9
        return x < 0.8

    def options(self) -> dict[str, Any]:
        return {"is_causal": self.is_causal, "dropout_p": self.dropout_p, "scale": self.scale}


def arguments(inputs: dict[str, Tensor]) -> dict[str, Any]:
    """Inputs by argument: the three tensors of a low-rank map, NAME.down and so on, as one."""
    found: dict[str, Any] = {name: x for name, x in inputs.items() if "." not in name}
    for name in {name.partition(".")[0] for name in inputs if "." in name}:
        found[name] = LowRankMix(*(inputs[f"{name}.{part}"] for part in LowRankMix._fields))
    return found


def _lay(x: Tensor, layout: str) -> Tensor:
    if layout == "heads_inside":
        return x.transpose(1, 2).contiguous().transpose(1, 2)
    if layout == "gaps":
        wide = torch.full((*x.shape[:-1], 2 * x.shape[-1]), torch.nan, dtype=x.dtype)
        wide[..., ::2] = x
        return wide[..., ::2]
    return x


def plain(
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
    weights_mix_bias: Tensor | None = None,
    **dynamic: Any,
) -> Tensor:
    """The equation as a person would write it, everything in query's dtype."""
    dtype = query.dtype
    static = {"logits_mix": logits_mix, "weights_mix": weights_mix}
    static = {
        name: torch.block_diag(*y) if y is not None and y.dim() == 3 else y for name, y in static.items()
    }
    logits_mix, weights_mix = static.values()
    dynamic = {
        name: y.down.mT @ y.up + torch.diag_embed(y.diagonal) if isinstance(y, LowRankMix) else y
        for name, y in dynamic.items()
    }
    x = torch.einsum("bink,bimk->binm", query, key) * (query.shape[-1] ** -0.5 if scale is None else scale)

    def mix(x: Tensor, static: Tensor | None, kind: str) -> Tensor:
        out = x if static is None and not any(name.endswith(kind) for name in dynamic) else 0
        if static is not None:
            out = out + torch.einsum("binm,ih->bhnm", x, static.to(dtype))
        elif any(name.endswith(kind) for name in dynamic):
            heads = next(y.shape[-1] for name, y in dynamic.items() if name.endswith(kind))
            out = out + torch.einsum("binm,ih->bhnm", x, torch.eye(x.shape[1], heads, dtype=dtype))
        for name, letters in ((f"query_{kind}", "bnih"), (f"memory_{kind}", "bmih")):
            if name in dynamic:
                out = out + torch.einsum(f"binm,{letters}->bhnm", x, dynamic[name].to(dtype))
        return out

    x = mix(x, logits_mix, "logits_mix")
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        x = x.masked_fill(~attn_mask, -torch.inf)
    elif attn_mask is not None:
        x = x + attn_mask.to(dtype)
    if is_causal:
        x = x.masked_fill(torch.ones(x.shape[-2:]).triu(1).bool(), -torch.inf)
    dead = (x == -torch.inf).all(-1, keepdim=True)
    x = x.masked_fill(dead, 0).softmax(-1).masked_fill(dead, 0)
    x = mix(x, weights_mix, "weights_mix")
    if weights_mix_bias is not None:
        x = x + weights_mix_bias.to(dtype)[:, None, None]
    if dropout_p:
        b, j, n, m = x.shape
        seed = torch.randint(0, 2**31 - 1, (2,))
        x = (
            x
            * keep_mask(seed, row_numbers(torch.arange(b), j, torch.arange(n), n), m, dropout_p)
            / (1 - dropout_p)
        )
    return torch.einsum("bjnm,bjmv->bjnv", x, value)


Results = dict[str, Tensor]


def run(function: Callable[..., Tensor], case: Case, inputs: dict[str, Tensor], **extra: Any) -> Results:
    """Output and every gradient, in float64; the dropout seed comes from the case's seed."""
    torch.manual_seed(case.seed)
    output = function(**arguments(inputs), **case.options(), **extra)
    weight = torch.randn(
        output.shape, generator=torch.Generator().manual_seed(case.seed + 1), dtype=torch.float64
    )
    leaves = {name: x for name, x in inputs.items() if x.requires_grad}
    found = torch.autograd.grad(output, list(leaves.values()), weight.to(output))
    for (name, x), gradient in zip(leaves.items(), found, strict=True):
        assert gradient.dtype == x.dtype and gradient.shape == x.shape, name
    return {"output": output.detach().double()} | {
        f"grad {name}": gradient.double() for name, gradient in zip(leaves, found, strict=True)
    }


def exact(case: Case, inputs: dict[str, Tensor]) -> Results:
    """The reference's results in float64 on the same numbers."""
    up = {
        name: x.detach().double().requires_grad_() if x.is_floating_point() else x
        for name, x in inputs.items()
    }
    return run(talking_heads_attention, case, up, backend="reference")


@cache
def allowed_error(case: Case) -> dict[str, float]:
    """Twice the plain form's largest error in the case's dtype over several draws, plus a few eps.

    The maximum over a handful of elements that are long sums is luck, and another on each processor: a
    gradient of fewer than 100 elements may have the largest relative error that the plain form has anywhere,
    and where even the largest tensor is small, many draws say what that is.
    """
    finest = case.dtype == torch.float64  # which has no finer oracle: float32's error, scaled
    eps = torch.finfo(case.dtype).eps
    shrink = eps / torch.finfo(torch.float32).eps if finest else 1.0
    errors: dict[str, float] = {}
    scales: dict[str, float] = {}
    counts: dict[str, int] = {}
    draws = 30 if case.b * case.n * case.m * case.h < 2000 or case.mask == "float" else 6
    for seed in range(case.seed, case.seed + 1000 * draws, 1000):
        draw = replace(case, seed=seed, dtype=torch.float32 if finest else case.dtype)
        inputs = draw.inputs()
        wanted = exact(draw, inputs)
        for name, x in run(plain, draw, inputs).items():
            error = (x - wanted[name]).abs().max().item() * shrink
            errors[name] = max(errors.get(name, 0.0), error)
            scales[name] = max(scales.get(name, 0.0), wanted[name].abs().max().item())
            counts[name] = x.numel()
    worst = max((errors[name] / scales[name] for name in errors if scales[name]), default=0.0)
    times = 3 if finest else 2  # float64's oracle has an error of its own
    few = {name: worst * scales[name] if counts[name] < 100 else 0.0 for name in errors}
    return {name: times * max(errors[name], few[name]) + 4 * eps * scales[name] for name in errors}


def check(case: Case, backend: str, device: str = "cpu") -> None:
    """The backend's output and gradients are as near to float64 as the tolerance asks."""
    inputs = case.inputs()
    if device != "cpu":
        inputs = {name: x.detach().to(device).requires_grad_(x.requires_grad) for name, x in inputs.items()}
    wanted, allowed = exact(case, inputs), allowed_error(case)
    for name, got in run(talking_heads_attention, case, inputs, backend=backend).items():
        error = (got - wanted[name]).abs().max().item()
        assert error <= allowed[name], f"{name}: error {error:.3g}, allowed {allowed[name]:.3g}, {case}"


def in_ci(values: Iterable[Any], *kept: Any) -> list[Any]:
    """Parameters (a tuple: several names) of which CI tests those that are kept; `make test-all` tests all."""
    slow = lambda x: pytest.param(*x if isinstance(x, tuple) else (x,), marks=pytest.mark.slow)  # noqa: E731
    return [x if x in kept else slow(x) for x in values]
