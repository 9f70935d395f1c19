"""Maps folded back into plain projections, where mathematics allows.

    logits of head h = sum_i P[i,h] q_i . k_i     = (sum_i P[i,h] W_i x) . k      where all those k_i are one k
    output           = sum_j O_j sum_h W[h,j] A_h v_j = sum_h (sum_j W[h,j] O_j) A_h v  where all those v_j are one v

So maps fold between heads that share their keys (logits_mix) or values (weights_mix): all heads under
multi-query attention, the heads of a group under grouped queries, heads whose projections are equal; and
everywhere where a map is diagonal. Rotary positions and scales commute with it, a norm of queries does not:
each layer of a folded copy is compared with the converted one first, on noise.
"""

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..anatomy import Layer, trial
from ..anatomy.projections import Projection, inside, projections
from ..errors import UserError
from .attention import CHILD
from .choose import convertible
from .mixing import LayerMixing
from .revert import revert


def fold(model: Any, example: dict[str, Any] | None = None) -> Any:
    """Folds every layer's maps into its projections, in place; returns the plain model.

    Identity maps change nothing and are taken out. Others are folded in a copy first, in float32 where the model is
    in half precision, whose rounding would hide small maps: for a while there is a second model in memory.

    Args:
        example: arguments of a call that runs the layers; default: random inputs from the signature of the model's
            forward, and of the forwards of the models inside it.

    Raises:
        ValueError: layers whose maps cannot be folded, with the reason; the model is as it was.
    """
    if not isinstance(model, PreTrainedModel):
        raise UserError(
            "fold: a model must be a converted transformers model", type(model).__name__, "keep its maps"
        )
    if _mapped(model):
        twin = copy.deepcopy(model).eval()
        if model.dtype not in (torch.float32, torch.float64):
            twin = twin.float()
        _try(twin, None if example is None else _of_dtype(example, twin.dtype))
        _fold(model)
    return revert(model)


def _mapped(model: Any) -> list[Layer]:
    """The layers with maps that are not the identity."""
    found = []
    for layer in convertible(model)[0]:
        mixing = getattr(layer.module, CHILD, None)
        if mixing is not None and not _is_identity(mixing):
            found.append(layer)
    return found


def _is_identity(mixing: LayerMixing) -> bool:
    """Whether the maps are static identities, or start heads as parts of the layer's own."""
    if mixing.dynamic:
        return False
    start = copy.deepcopy(mixing)
    start.mix_init = "identity"
    try:
        start.reset_mixing()
    except UserError:
        return False
    return all(torch.equal(x, y) for x, y in zip(mixing.parameters(), start.parameters(), strict=True))


def _try(twin: Any, example: dict[str, Any] | None) -> None:
    """Folds the copy, and raises where a layer gives something else than before."""
    layers = _mapped(twin)
    made, left = trial.calls(twin, layers, example)
    watched = {x.name: _behind(twin, x) for x in layers}
    before = trial.gives(twin, made, watched, layers)
    _fold(twin)
    if left:
        raise _refusal({name: "a trial does not reach it: pass example=" for name in left})
    after = trial.gives(twin, made, watched, layers)
    errors = list(map(trial.error, before, after))
    if not all(error <= trial.tolerance(twin.dtype) for error in errors):
        raise UserError(
            "fold: what is between projections and attention must be linear and alike for all heads",
            f"outputs that differ by {max(errors):.1g} in {type(twin).__name__} (a norm or gate of heads)",
            "keep the maps",
        )


def _behind(model: Any, layer: Layer) -> nn.Module:
    """What ends a layer: its output projection, or the layer where that is not known."""
    output = projections(model, layer.name, layer.output_heads).output
    return layer.module if output is None else output.module


def _of_dtype(given: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    return {
        name: x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x
        for name, x in given.items()
    }


def _fold(model: Any) -> None:
    """Folds the maps and leaves the layers without; where a layer cannot be folded raises, and none is changed."""
    why: dict[str, str] = {}
    plans = []
    layers = _mapped(model)
    for layer in layers:
        try:
            plans += _plan(model, layer)
        except _No as reason:
            why[layer.name] = str(reason)
    if why:
        raise _refusal(why)
    with torch.no_grad():
        for part in plans:
            part.tensor.copy_(part.folded)
    for layer in layers:
        delattr(layer.module, CHILD)
        setattr(layer.module, CHILD, None)


def _refusal(why: dict[str, str]) -> ValueError:
    """One line however many layers: the first with its reason, and the number of the others."""
    name, reason = next(iter(why.items()))
    more = f" (and {len(why) - 1} more layers)" if len(why) > 1 else ""
    return ValueError(
        f"fold: maps must act between heads that share keys or values; got {name}: {reason}{more}; keep them"
    )


class _No(Exception):
    """Why a layer cannot be folded."""


class _Part(NamedTuple):
    """A view of a parameter, and what it becomes."""

    tensor: Tensor
    folded: Tensor


def _plan(model: nn.Module, layer: Layer) -> list[_Part]:
    mixing: LayerMixing = getattr(layer.module, CHILD)
    if mixing.dynamic:
        raise _No("its maps change with the position")
    if {mixing.num_key_heads, mixing.num_heads, mixing.num_value_heads} != {layer.output_heads}:
        raise _No("it has other head counts than its projections")
    known = projections(model, layer.name, layer.output_heads)
    query, key, value = (_floats(layer, x) for x in (known.query, known.key, known.value))
    found: list[_Part] = []
    if mixing.logits_mix is not None:
        mix = mixing.logits_mix.detach().double()
        _check_shared(mix, key, "keys")
        for parts in zip(*(query.head(i) for i in range(query.heads)), strict=True):
            if parts[0] is not None:
                found += _mixed([x for x in parts if x is not None], mix)
    if mixing.weights_mix is not None:
        mix = mixing.weights_mix.detach().double()
        _check_shared(mix, value, "values")
        if known.output is None:
            raise _No(f"{type(layer.module).__name__} has no output projection that is known")
        if inside(known.output.holder) is not None:
            raise _No(f"{type(known.output.holder).__name__} may change what its output projection is given")
        found += _mixed([known.output.head(i) for i in range(layer.output_heads)], mix.mT)
    return found


def _floats(layer: Layer, made: Projection | None) -> Projection:
    if made is None:
        raise _No(
            f"{type(layer.module).__name__} has no projections of queries, keys and values that are known"
        )
    if not made.module.weight.is_floating_point():
        raise _No("its weights are packed integers")
    if made.holder is not layer.module:
        raise _No(f"{type(made.holder).__name__} may change what its projections give")
    return made


def _check_shared(mix: Tensor, made: Projection, kind: str) -> None:
    """Raises where the map [in, out] mixes heads that do not have one key (or value)."""
    heads = mix.shape[0]
    of = [number * made.heads // heads for number in range(heads)]
    for i, h in (mix != 0).nonzero().tolist():
        pairs = zip(made.head(of[i]), made.head(of[h]), strict=True)
        if of[i] != of[h] and not all(x is None or y is None or torch.equal(x, y) for x, y in pairs):
            name = "logits_mix" if kind == "keys" else "weights_mix"
            raise _No(f"heads {i} and {h} have {kind} of their own, and {name} mixes them")


def _mixed(heads: list[Tensor], mix: Tensor) -> list[_Part]:
    """Each head becomes the sum over i of mix[i, head] times head i."""
    every = torch.stack([x.detach().double() for x in heads])
    folded = torch.einsum("i...,ih->h...", every, mix.to(every.device))
    return [_Part(x.detach(), y.to(x.dtype)) for x, y in zip(heads, folded, strict=True)]
