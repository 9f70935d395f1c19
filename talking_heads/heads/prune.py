"""Permanently removing heads from a model: smaller projections, not zeros."""

import copy
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..anatomy import trial
from ..anatomy.layers import Layer, layers
from ..anatomy.projections import Output, Projection, projections
from ..errors import UserError
from ..nn.mixing import CHILD
from ..results.folders import new_folder
from ..results.table import Table
from .gates import mask

KEY = "kept_heads"  # in config.json, where transformers' own fields cannot say it: {module name: its heads kept}
_COUNTS = ("num_heads", "num_attention_heads", "n_heads", "n_head")
_WIDTHS = ("all_head_size", "inner_dim")
# Fields of a config that say the size of a head and the number of heads apart: such a model stays a plain one.
_EXPRESSED = (("d_kv", "num_heads"), ("head_dim", "num_attention_heads"))


def prune(model: Any, ranking: Table, keep: float) -> dict[str, list[int]]:
    """Takes the least important heads out of a transformers model, in place.

    If the config can express it (T5: d_kv and num_heads), every layer keeps the same number, and layers that
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
    for layer in found:
        _parts(model, layer)
    importance = {row["head"]: row["importance"] for row in ranking.rows}
    count_field = _count_field(model.config)
    kept = _uniform(found, importance, keep) if count_field else _free(found, importance, keep)
    if count_field and not _says(model, kept, count_field):
        count_field, kept = None, _free(found, importance, keep)
    _try(model, kept, count_field)
    shrink(model, kept)
    _note(model.config, kept, count_field)
    return kept


def _note(config: Any, kept: dict[str, list[int]], count_field: str | None) -> None:
    if count_field is None:
        setattr(config, KEY, kept)
        return
    count = len(next(iter(kept.values())))
    setattr(config, count_field, count)
    if hasattr(config, "num_key_value_heads"):
        config.num_key_value_heads = count


def _says(model: Any, kept: dict[str, list[int]], count_field: str) -> bool:
    """Whether the class makes a model of the pruned sizes from the config alone."""
    config = copy.deepcopy(model.config)
    _note(config, kept, count_field)
    smaller = copy.deepcopy(model)
    try:
        shrink(smaller, kept)
        with torch.device("meta"):
            made = type(model)(config)
    except Exception:  # a config that does not fit its class
        return False
    shapes = [{name: x.shape for name, x in m.state_dict().items()} for m in (smaller, made)]
    return shapes[0] == shapes[1]


def _try(model: Any, kept: dict[str, list[int]], count_field: str | None) -> None:
    """Raises where a pruned copy, or a new model made from its config, does not give what the model gives with those heads
    masked."""
    twin = copy.deepcopy(model).eval()
    found = layers(twin)
    gone = [f"{x.label}:{head}" for x in found for head in range(x.heads) if head not in kept[x.name]]
    if not gone:
        return
    made, left = trial.calls(twin, found)
    if left:
        raise _refusal(f"{left[0]} ({type(model).__name__}), which a trial does not reach")
    with mask(twin, gone):
        want = trial.gives(twin, made, {}, [])
    try:
        shrink(twin, kept)
        got = trial.gives(twin, made, {}, [])
        got += trial.gives(_from_config(twin, kept, count_field), made, {}, [])
    except Exception as problem:  # sizes that do not fit any more
        raise _refusal(f"{type(model).__name__}, which fails with fewer: {problem}") from None
    if not all(trial.error(x, y) <= trial.tolerance(x.dtype) for x, y in zip(want * 2, got, strict=True)):
        raise _refusal(
            f"{type(model).__name__}, which gives something else without them than with them masked"
        )


def _from_config(pruned: Any, kept: dict[str, list[int]], count_field: str | None) -> Any:
    """A model of the pruned config with the pruned weights, as loading makes it."""
    config = copy.deepcopy(pruned.config)
    _note(config, kept, count_field)
    plain: Any = type(pruned)
    kind = plain if count_field else _pruned(plain)
    again = kind(config).to(pruned.device, pruned.dtype).eval()
    again.load_state_dict(pruned.state_dict())
    return again


def _refusal(came: str) -> UserError:
    return UserError(
        "pruning needs heads that depend on nothing but their own projections",
        " ".join(came.split())[:300],
        "mask heads instead: heads.mask",
    )


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
        module: Any = layer.module
        inputs, output = _parts(model, layer)
        rows = output.columns(heads)
        for made in inputs:
            setattr(made.holder, made.name, _cut(made.module, made.rows(heads), 0))
        setattr(output.holder, output.name, _cut(output.module, rows, 1))
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


def _parts(model: Any, layer: Layer) -> tuple[list[Projection], Output]:
    """The layer's query, key and value projections, and its output projection."""
    if getattr(layer.module, CHILD, None) is not None:
        raise UserError(
            "pruning takes whole heads",
            f"{layer.name}, whose heads are mixed",
            "mask them instead: heads.mask",
        )
    known = projections(model, layer.name, layer.output_heads)
    inputs = [x for x in known[:3] if x is not None]
    plain = all(type(x.module) is nn.Linear for x in (*inputs, *known[3:]) if x is not None)
    alone = len({id(x.module) for x in inputs}) == 3 and all(x.heads == layer.heads for x in inputs)
    if known.output is None or not (alone and plain):
        raise UserError(
            "pruning needs separate query, key, value and output projections with the same heads",
            f"{layer.name} ({type(layer.module).__name__}) without",
            "mask heads instead: heads.mask",
        )
    return inputs, known.output


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
    """Writes a new folder with weights (safetensors), config and tokenizer.

    Raises:
        UserError: a class that only `load` could open, and that is not one of transformers'.
    """
    import transformers

    kind = type(model)
    if hasattr(model.config, KEY) and getattr(transformers, kind.__name__, None) is not kind:
        raise UserError(
            "a pruned model that is saved must be of a class that transformers names",
            f"{kind.__module__}.{kind.__name__}",
            "keep it in memory, or prune the model it is part of",
        )
    with new_folder(out) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def load(path: Path | str, **options: Any) -> Any:
    """A model that `save` wrote with its heads kept noted in config.json; through from_pretrained, in eval mode."""
    from ..hf.source import config_of
    from ..hf.weights import model_class, read

    folder = Path(path)
    config = config_of(folder)
    if not hasattr(config, KEY):
        raise UserError(
            "load needs a pruned model", f"{path} without {KEY} in config.json", "use transformers"
        )
    kind: Any = model_class(config, folder)
    model = read(_pruned(kind), folder, config=config, **options)
    model.__class__ = kind
    return model.eval()


@cache
def _pruned(plain: Any) -> Any:
    """A subclass that is cut before weights are loaded; `load` makes instances `plain` again."""

    class Pruned(plain):
        def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
            super().__init__(config, *args, **kwargs)
            shrink(self, getattr(config, KEY))

    Pruned.__name__ = Pruned.__qualname__ = plain.__name__
    Pruned.__module__ = plain.__module__
    return Pruned
