"""Maps folded back into plain projections, where mathematics allows.

    logits of head h = sum_i P[i,h] q_i . k_i     = (sum_i P[i,h] W_i x) . k      where all those k_i are one k
    output           = sum_j O_j sum_h W[h,j] A_h v_j = sum_h (sum_j W[h,j] O_j) A_h v  where all those v_j are one v

So maps fold between heads that share their keys (logits_mix) or values (weights_mix): all heads under
multi-query attention, the heads of a group under grouped queries, heads whose projections are equal; and
everywhere where a map is diagonal. Rotary positions and scales commute with it, a norm of queries does not:
a copy of the model is folded and run beside the converted one first.
"""

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ..anatomy import Layer
from ..anatomy.projections import OUTPUTS
from . import probe
from .attention import CHILD
from .choose import convertible
from .mixing import LayerMixing
from .revert import revert

_QUERY, _KEY, _VALUE = (
    tuple(name.format(x, y) for name in ("{0}_proj", "{1}", "{0}", "{0}_lin", "linear_{0}"))
    for x, y in (("q", "query"), ("k", "key"), ("v", "value"))
)


def fold(model: Any, example: dict[str, Any] | None = None) -> Any:
    """Folds every layer's maps into its projections, in place; returns the plain model.

    It is tried on a copy first, in float32 where the model is in half precision, whose rounding would hide
    small maps: for a while there is a second model in memory.

    Args:
        example: arguments of a call on which the folded model is compared with the converted one; default:
            random inputs from the signature of the model's forward.

    Raises:
        ValueError: layers whose maps cannot be folded, each with the reason; the model is as it was.
    """
    if not isinstance(model, PreTrainedModel):
        raise ValueError(
            f"fold: a model must be a converted transformers model; got {type(model).__name__}; keep its maps"
        )
    twin = copy.deepcopy(model).eval()
    if model.dtype not in (torch.float32, torch.float64):
        twin = twin.float()
    given = probe.example(twin) if example is None else _of_dtype(example, twin.dtype)
    before = probe.outputs(twin, given)
    _fold(twin)
    error = probe.error(before, probe.outputs(twin, given))
    if not error <= probe.tolerance(twin.dtype):
        raise ValueError(
            f"fold: what is between projections and attention must be linear and alike for all heads; got outputs "
            f"that differ by {error:.1g} in {type(model).__name__} (a norm or gate of heads); keep the maps"
        )
    _fold(model)
    return revert(model)


def _of_dtype(given: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    return {
        name: x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x
        for name, x in given.items()
    }


def _fold(model: Any) -> None:
    """Folds the maps and leaves the layers without; where a layer cannot be folded raises, and none is changed."""
    sites = [site for site in convertible(model)[0] if getattr(site.module, CHILD, None) is not None]
    why: dict[str, str] = {}
    plans = []
    for site in sites:
        try:
            plans.append(_plan(model, site))
        except _No as reason:
            why[site.name] = str(reason)
    if why:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in why.items())
        raise ValueError(
            f"fold: maps must act between heads that share keys or values; got {reasons}; keep them"
        )
    with torch.no_grad():
        for parts in plans:
            for part in parts:
                part.tensor.copy_(part.folded)
    for site in sites:
        delattr(site.module, CHILD)
        setattr(site.module, CHILD, None)


class _No(Exception):
    """Why a layer cannot be folded."""


class _Part(NamedTuple):
    """A parameter, and what it becomes."""

    tensor: Tensor
    folded: Tensor


def _plan(model: nn.Module, site: Layer) -> list[_Part]:
    mixing: LayerMixing = getattr(site.module, CHILD)
    counts = {mixing.num_key_heads, mixing.num_heads, mixing.num_value_heads}
    if mixing.dynamic or counts != {site.output_heads}:
        raise _No(
            "its maps change with the position"
            if mixing.dynamic
            else "it has other head counts than its projections"
        )
    found = []
    mix: Any
    for kind, names, mix in (("keys", _KEY, mixing.logits_mix), ("values", _VALUE, mixing.weights_mix)):
        if mix is None:
            continue
        mix = mix.detach().double()
        shared = _shared(site, names, kind)
        apart = (mix != 0) & ~shared
        if apart.any():
            i, h = apart.nonzero()[0].tolist()
            raise _No(
                f"heads {i} and {h} have {kind} of their own, and {'logits' if kind == 'keys' else 'weights'}_mix mixes them"
            )
        found += _folded_queries(site, mix) if kind == "keys" else _folded_outputs(model, site, mix)
    return found


def _shared(site: Layer, names: tuple[str, ...], kind: str) -> Tensor:
    """bool [heads, heads]: which pairs of heads have one key (or value)."""
    rows = _rows(site, names, kind)
    tensors = [x.detach().double() for x in rows if x is not None]
    size = _size(site)
    few = tensors[0].shape[0] // size
    if few == 0 or tensors[0].shape[0] % size or site.output_heads % few:
        raise _No(f"its {kind} are not projected head by head")
    flat = torch.cat([x.reshape(few, -1) for x in tensors], 1).repeat_interleave(site.output_heads // few, 0)
    return (flat[:, None] == flat[None]).all(-1)


def _rows(site: Layer, names: tuple[str, ...], kind: str) -> tuple[Tensor, Tensor | None]:
    """(weight [heads * size, width], bias) of the queries, keys or values, as views of the parameters."""
    layer: Any = site.module
    found = next((x for name in names if isinstance(x := getattr(layer, name, None), nn.Linear)), None)
    if found is not None:
        return found.weight, found.bias
    fused = getattr(layer, "c_attn", None)
    if isinstance(fused, Conv1D) and fused.weight.shape[1] == 3 * layer.embed_dim:  # GPT-2's
        place = ("queries", "keys", "values").index(kind) * layer.embed_dim
        part = slice(place, place + layer.embed_dim)
        return fused.weight[:, part].mT, fused.bias[part]
    raise _No(f"{type(layer).__name__} has no projection of {kind} that is known")


def _size(site: Layer) -> int:
    weight, _ = _rows(site, _QUERY, "queries")
    if weight.shape[0] % site.output_heads:
        raise _No("its queries are not projected head by head")
    return weight.shape[0] // site.output_heads


def _folded_queries(site: Layer, mix: Tensor) -> list[_Part]:
    parts = []
    for x in _rows(site, _QUERY, "queries"):
        if x is not None:
            heads = x.detach().double().unflatten(0, (site.output_heads, -1))
            folded = torch.einsum("i...,ih->h...", heads, mix).flatten(0, 1)
            parts.append(_Part(x.detach(), folded.to(x.dtype)))
    return parts


def _folded_outputs(model: nn.Module, site: Layer, mix: Tensor) -> list[_Part]:
    output = _output(model, site)
    weight = output.weight.detach()
    columns = weight.mT if isinstance(output, Conv1D) else weight  # [width, heads * size]
    if columns.shape[1] % site.output_heads:
        raise _No("its output is not projected head by head")
    heads = columns.double().unflatten(1, (site.output_heads, -1))
    folded = torch.einsum("ojs,hj->ohs", heads, mix).flatten(1)
    return [_Part(columns, folded.to(weight.dtype))]


def _output(model: nn.Module, site: Layer) -> Any:
    """The projection behind the heads; in BERT it is the next module's."""
    parent = model.get_submodule(site.name.rpartition(".")[0])
    places = [getattr(site.module, name, None) for name in OUTPUTS]
    places.append(getattr(getattr(parent, "output", None), "dense", None))
    found = next((x for x in places if isinstance(x, nn.Linear | Conv1D)), None)
    if found is None:
        raise _No(f"{type(site.module).__name__} has no output projection that is known")
    return found
