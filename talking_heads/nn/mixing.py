"""The learned maps across heads as a module."""

from collections.abc import Collection
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ..errors import UserError, did_you_mean
from ..functional import talking_heads_attention
from .shapes import count

CHILD = "head_mixing"  # under which conversion puts one into an attention layer; None there: left multi-head
Dynamic = Literal["query_logits", "memory_logits", "query_weights", "memory_weights"]
DYNAMIC: tuple[Dynamic, ...] = get_args(Dynamic)
Init = Literal["identity", "random"]


class HeadMixing(nn.Module):
    """The learned maps across heads: static, and dynamic where asked for.

    Parameters: logits_mix [num_key_heads, num_heads] and weights_mix [num_heads, num_value_heads] (None
    where left out), and for each name in `dynamic` a projection `NAME_mix` [width, heads in, heads out]
    that makes a map from the layer's input at each position (the paper's dynamic projections).

    Args:
        num_heads: softmax heads. num_key_heads, num_value_heads: default num_heads.
        logits_mix, weights_mix: whether to learn that map; a map left out needs equal head counts on both sides.
        dynamic: any of "query_logits", "memory_logits", "query_weights", "memory_weights".
        model_dim, memory_dim: widths of what dynamic maps are projected from; needed with `dynamic` only.
        mix_init: "identity" (torch.eye(in, out), dynamic maps 0: starts as multi-head attention) or
            "random" (the authors' fan-in truncated normal: std 1/sqrt(heads in); dynamic maps std
            0.1/sqrt(width * heads in)).

    Raises:
        UserError: head counts that do not fit, unknown names.
    """

    logits_mix: nn.Parameter | None
    weights_mix: nn.Parameter | None

    def __init__(
        self,
        num_heads: int,
        *,
        num_key_heads: int | None = None,
        num_value_heads: int | None = None,
        logits_mix: bool = True,
        weights_mix: bool = True,
        dynamic: Collection[Dynamic] = (),
        model_dim: int | None = None,
        memory_dim: int | None = None,
        mix_init: Init = "identity",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.num_heads = count("num_heads", num_heads)
        self.num_key_heads = (
            self.num_heads if num_key_heads is None else count("num_key_heads", num_key_heads)
        )
        self.num_value_heads = (
            self.num_heads if num_value_heads is None else count("num_value_heads", num_value_heads)
        )
        self.dynamic = _names(dynamic)
        self.mix_init = mix_init
        self._check(logits_mix, weights_mix, model_dim)
        memory_dim = model_dim if memory_dim is None else count("memory_dim", memory_dim)
        sizes = {
            "logits": (self.num_key_heads, self.num_heads),
            "weights": (self.num_heads, self.num_value_heads),
        }
        for kind, learnt in (("logits", logits_mix), ("weights", weights_mix)):
            mix = nn.Parameter(torch.empty(sizes[kind], device=device, dtype=dtype)) if learnt else None
            self.register_parameter(f"{kind}_mix", mix)
        for name in self.dynamic:
            place, kind = name.split("_")
            width = model_dim if place == "query" else memory_dim
            assert width is not None
            mix = nn.Parameter(torch.empty(width, *sizes[kind], device=device, dtype=dtype))
            self.register_parameter(f"{name}_mix", mix)
        self.reset_mixing()

    def _check(self, logits_mix: bool, weights_mix: bool, model_dim: int | None) -> None:
        if self.mix_init not in ("identity", "random"):
            raise UserError(
                'mix_init must be "identity" or "random"',
                repr(self.mix_init),
                did_you_mean(self.mix_init, get_args(Init), "pass one of them"),
            )
        if self.dynamic and model_dim is None:
            raise UserError(
                "dynamic maps are projected from the layer's input, of width model_dim",
                "no model_dim",
                "pass it",
            )
        for kind, learnt, before, after in (
            ("logits", logits_mix, self.num_key_heads, self.num_heads),
            ("weights", weights_mix, self.num_heads, self.num_value_heads),
        ):
            if not learnt and before != after:
                raise UserError(
                    f"without {kind}_mix the heads before and after it must be equal",
                    f"{before} and {after}",
                    f"pass {kind}_mix=True or equal head counts",
                )

    def reset_parameters(self) -> None:
        """Sets the maps to their start, `mix_init`."""
        self.reset_mixing()

    @torch.no_grad()
    def reset_mixing(self) -> None:
        """Sets the maps to their start, `mix_init`."""
        for name in ("logits_mix", "weights_mix"):
            mix = getattr(self, name)
            if mix is None:
                continue
            if self.mix_init == "identity":
                nn.init.eye_(mix)
            else:
                _truncated_normal(mix, mix.shape[0] ** -0.5)
        for name in self.dynamic:
            mix = getattr(self, f"{name}_mix")
            if self.mix_init == "identity":
                nn.init.zeros_(mix)
            else:
                _truncated_normal(mix, 0.1 * (mix.shape[0] * mix.shape[1]) ** -0.5)

    def query_maps(self, x: Tensor) -> dict[str, Tensor]:
        """The dynamic maps of query positions, from x [batch, query_len, model_dim]."""
        return self._maps("query", x)

    def memory_maps(self, memory: Tensor) -> dict[str, Tensor]:
        """The dynamic maps of memory positions, from memory [batch, memory_len, memory_dim]."""
        return self._maps("memory", memory)

    def _maps(self, place: str, x: Tensor) -> dict[str, Tensor]:
        names = [f"{name}_mix" for name in self.dynamic if name.startswith(place)]
        return {name: torch.einsum("bnd,dih->bnih", x, getattr(self, name)) for name in names}

    def attend(self, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Any:
        """talking_heads_attention with this module's static maps; options go to it as they are."""
        return talking_heads_attention(query, key, value, self.logits_mix, self.weights_mix, **options)

    def extra_repr(self) -> str:
        maps = [name for name in ("logits_mix", "weights_mix") if getattr(self, name) is not None]
        text = f"key_heads={self.num_key_heads}, heads={self.num_heads}, value_heads={self.num_value_heads}"
        return f"{text}, maps=[{', '.join(maps + list(self.dynamic))}]"


def _names(dynamic: Any) -> tuple[str, ...]:
    """The names of dynamic maps, in DYNAMIC's order."""
    if isinstance(dynamic, str) or not isinstance(dynamic, Collection) or set(dynamic) - set(DYNAMIC):
        raise UserError(
            f"dynamic must be a collection of {', '.join(DYNAMIC)}",
            repr(dynamic),
            f'pass for example ["{DYNAMIC[0]}"], or all four names',
        )
    return tuple(name for name in DYNAMIC if name in dynamic)


def _truncated_normal(x: Tensor, std: float) -> None:
    """A normal cut at two standard deviations, widened so that what is left has `std`."""
    kept_std = 0.87962566103423978  # of a unit normal cut at +-2
    nn.init.trunc_normal_(x, std=std / kept_std, a=-2 * std / kept_std, b=2 * std / kept_std)


def unwrapped(module: Any) -> Any:
    """The maps that act, where peft has wrapped them to train a copy (modules_to_save); else the module itself."""
    copies = getattr(module, "modules_to_save", None)
    if copies is None:
        return module
    active = [name for name in module.active_adapters if name in copies]
    return copies[active[0]] if active and not module.disable_adapters else module.original_module
