"""Heads taken out of a model for good: smaller projections, not zeros."""

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..anatomy.layers import Layer, layers
from ..errors import UserError
from ..results.folders import new_folder
from ..results.table import Table
from .attach import output_projection

KEY = "kept_heads"  # in config.json, where transformers' own fields cannot say it: {module name: its heads kept}
_NAMES = (
    ("q_proj", "q", "query", "q_lin"),
    ("k_proj", "k", "key", "k_lin"),
    ("v_proj", "v", "value", "v_lin"),
)
_COUNTS = ("num_heads", "num_attention_heads", "n_heads", "n_head")
_WIDTHS = ("all_head_size", "inner_dim")
# Fields of a config that say the size of a head and the number of heads apart: such a model stays a plain one.
_EXPRESSED = (("d_kv", "num_heads"), ("head_dim", "num_attention_heads"))


def prune(model: Any, ranking: Table, keep: float) -> dict[str, list[int]]:
    """Takes the least important heads out of a transformers model, in place.

    Where the config can say it (T5: d_kv beside num_heads) every layer keeps the same number, and layers that
    share a position bias the same heads: the model stays a plain one of its type. Elsewhere the heads
    with the lowest importance go, wherever they are, at least one staying in each layer; `save` then notes
    in config.json what is kept, and `load` (or models.open_model) reads it.

    Args:
        ranking: the table of head_importance. keep: share of the heads to keep, above 0, up to 1.

    Returns:
        {module name: heads kept}.

    Raises:
        UserError: a converted model, fused or grouped projections, a share outside (0, 1].
    """
    check_share(keep)
    found = layers(model)
    for layer in found:  # refuse before anything is changed
        _parts(model, layer)
    inside = tuple(f"{layer.name}." for layer in found)
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and "bias" in name and not name.startswith(inside):
            raise UserError(
                "pruning needs layers that stand alone", f"{name}, for all layers", "mask heads instead"
            )
    importance = {row["head"]: row["importance"] for row in ranking.rows}
    count_field = _count_field(model.config)
    kept = _uniform(found, importance, keep) if count_field else _free(found, importance, keep)
    shrink(model, kept)
    if count_field:
        count = len(next(iter(kept.values())))
        setattr(model.config, count_field, count)
        if hasattr(model.config, "num_key_value_heads"):
            model.config.num_key_value_heads = count
    else:
        setattr(model.config, KEY, kept)
    return kept


def check_share(keep: float) -> None:
    if not 0 < keep <= 1:
        raise UserError("keep must be a share above 0 and up to 1", keep, "pass for example 0.6")


def _count_field(config: Any) -> str | None:
    for size, count in _EXPRESSED:
        if isinstance(getattr(config, size, None), int) and isinstance(getattr(config, count, None), int):
            return count
    return None


def _uniform(found: list[Layer], importance: dict[str, float], keep: float) -> dict[str, list[int]]:
    count = max(1, round(keep * found[0].heads))
    groups: dict[str, list[Layer]] = {}
    for layer in found:  # T5's layers of a part share the first one's position bias
        shared = layer.part if layer.part != "cross" else layer.label
        groups.setdefault(shared, []).append(layer)
    kept: dict[str, list[int]] = {}
    for group in groups.values():
        worth = [sum(importance[f"{x.label}:{h}"] for x in group) for h in range(group[0].heads)]
        best = sorted(sorted(range(len(worth)), key=lambda h: -worth[h])[:count])
        kept |= {layer.name: best for layer in group}
    return kept


def _free(found: list[Layer], importance: dict[str, float], keep: float) -> dict[str, list[int]]:
    heads = [(importance[f"{x.label}:{h}"], x.name, h) for x in found for h in range(x.heads)]
    heads.sort(key=lambda row: -row[0])
    kept: dict[str, list[int]] = {}
    for _, name, head in heads:  # every layer's best first, then the best of the rest
        kept.setdefault(name, [head])
    room = max(len(kept), round(keep * len(heads))) - len(kept)
    rest = [(name, head) for _, name, head in heads if head not in kept[name]]
    for name, head in rest[:room]:
        kept[name].append(head)
    return {name: sorted(kept[name]) for name in kept}


def shrink(model: Any, kept: dict[str, list[int]]) -> None:
    """Cuts the projections of the layers named to the heads kept."""
    for layer in layers(model):
        heads = kept.get(layer.name)
        if heads is None or len(heads) == layer.heads:
            continue
        module = layer.module
        inputs, (holder, name) = _parts(model, layer)
        size = getattr(module, inputs[0]).out_features // layer.heads
        rows = torch.tensor([h * size + i for h in heads for i in range(size)])
        for projection in inputs:
            setattr(module, projection, _cut(getattr(module, projection), rows, 0))
        setattr(holder, name, _cut(getattr(holder, name), rows, 1))
        bias = getattr(module, "relative_attention_bias", None)
        if isinstance(bias, nn.Embedding):
            smaller = nn.Embedding(
                bias.num_embeddings, len(heads), device=bias.weight.device, dtype=bias.weight.dtype
            )
            smaller.weight = _kept(bias.weight, torch.tensor(heads), 1)
            module.relative_attention_bias = smaller
        for attribute in _COUNTS:
            if isinstance(getattr(module, attribute, None), int):
                setattr(module, attribute, len(heads))
        for attribute in _WIDTHS:
            if isinstance(getattr(module, attribute, None), int):
                setattr(module, attribute, len(rows))


def _parts(model: Any, layer: Layer) -> tuple[list[str], tuple[nn.Module, str]]:
    """(names of the layer's query, key and value projections, (the module, the name in it) of the output's)."""
    module: Any = layer.module
    if getattr(module, "head_mixing", None) is not None:
        raise UserError(
            "pruning takes whole heads", f"{layer.name}, whose heads talk", "mask them instead: heads.mask"
        )
    inputs = [
        next((n for n in names if isinstance(getattr(module, n, None), nn.Linear)), None) for names in _NAMES
    ]
    inside = output_projection(layer)
    holder: Any = module
    if inside is None:  # BERT and its kin: attention.self beside attention.output.dense
        holder = getattr(model.get_submodule(layer.name.rpartition(".")[0]), "output", None)
        inside = getattr(holder, "dense", None)
    name = next((n for n, x in getattr(holder, "named_children", lambda: ())() if x is inside), None)
    widths = {getattr(module, n).out_features for n in inputs if n is not None}
    fits = None not in inputs and isinstance(inside, nn.Linear) and widths == {inside.in_features}
    if not fits or name is None or inside.in_features % layer.heads:  # type: ignore[union-attr,operator]
        raise UserError(
            "pruning needs separate query, key, value and output projections with the same heads",
            f"{layer.name} ({type(module).__name__}) without",
            "mask heads instead: heads.mask",
        )
    return [n for n in inputs if n is not None], (holder, name)


def _cut(linear: nn.Linear, places: torch.Tensor, axis: int) -> nn.Linear:
    weight, bias = linear.weight, linear.bias
    smaller = nn.Linear(1, 1, bias=bias is not None, device="meta")
    smaller.weight = _kept(weight, places, axis)
    smaller.out_features, smaller.in_features = smaller.weight.shape
    if bias is not None:
        smaller.bias = _kept(bias, places, 0) if axis == 0 else bias
    return smaller.train(linear.training)


def _kept(x: torch.Tensor, places: torch.Tensor, axis: int) -> nn.Parameter:
    return nn.Parameter(x.detach().index_select(axis, places.to(x.device)), requires_grad=x.requires_grad)


def save(model: Any, tokenizer: Any, out: Path | str) -> None:
    """Writes a new folder with weights (safetensors), config and tokenizer."""
    with new_folder(out) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def load(path: Path | str, **options: Any) -> Any:
    """A model that `save` wrote with its heads kept noted in config.json; through from_pretrained, in eval mode."""
    import transformers
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(path)
    kind = getattr(transformers, (config.architectures or ["none"])[0], None)
    if kind is None or not hasattr(config, KEY):
        raise UserError(
            "load needs a pruned model", f"{path} without {KEY} in config.json", "use transformers"
        )
    return _pruned(kind).from_pretrained(path, config=config, use_safetensors=True, **options).eval()


@cache
def _pruned(plain: Any) -> Any:
    """A subclass that is cut before weights are loaded; instances are `plain` after."""

    class Pruned(plain):
        def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
            super().__init__(config, *args, **kwargs)
            shrink(self, getattr(config, KEY))

        @classmethod
        def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
            model = super().from_pretrained(*args, **kwargs)
            model.__class__ = plain
            return model

    Pruned.__name__ = Pruned.__qualname__ = plain.__name__
    Pruned.__module__ = plain.__module__
    return Pruned
