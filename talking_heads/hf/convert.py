"""Gives a model's attention layers their maps, in place."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from ..anatomy import Layer
from ..anatomy.layers import Part
from ..anatomy.projections import projections
from ..errors import UserError
from ..functional import Backend
from ..nn.mixing import Dynamic, Init
from ..nn.shapes import known_backend
from ..results import page
from . import bias
from . import config as saved
from .attention import CHILD
from .choose import choose, convertible
from .dynamic import widths
from .insert import insert, set_backend
from .keywords import heads_bound
from .torch_layers import find_torch, insert_torch


@dataclass(frozen=True)
class Conversion:
    """What was done: names of the layers changed, and {name: why} of those left as they were."""

    converted: list[str]
    left: dict[str, str]

    def __str__(self) -> str:
        lines = [f"converted {len(self.converted)} attention layers"]
        lines += [f"left {name}: {why}" for name, why in self.left.items()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """In a notebook."""
        rows = [(name, "converted") for name in self.converted]
        rows += [(name, f"left: {why}") for name, why in self.left.items()]
        return page.table(("layer", "done"), rows)


def convert(
    model: Any,
    *,
    logits_mix: bool = True,
    weights_mix: bool = True,
    init: Init = "identity",
    layers: Collection[int | str] | None = None,
    kinds: Collection[Part] | None = None,
    dynamic: Collection[Dynamic] = (),
    num_heads: int | None = None,
    num_key_heads: int | None = None,
    num_value_heads: int | None = None,
    bilinear: bool = False,
    backend: Backend = "auto",
) -> Conversion:
    """Talking heads for a transformers model, in place.

    Every attention layer that goes through transformers' attention-function registry gets a LayerMixing
    under the name `head_mixing`, with parameters logits_mix and weights_mix [heads, heads]. With identity
    start the outputs are those of the model before, to float rounding. Dropout acts on the mixed weights.

    Args:
        model: any PreTrainedModel, or a torch module made of torch.nn.MultiheadAttention (nn.TransformerEncoder
            and the like). logits_mix, weights_mix: which maps to learn; with neither, attention stays multi-head
            and goes through this package's operator, which on CPU is faster than PyTorch's where a position
            bias is learned (T5).
        init: "identity" or "random" (see HeadMixing).
        layers: numbers of layers in their stack, labels ("encoder.2"), or patterns of names or labels; default all.
        kinds: any of "encoder", "decoder" (self-attention) and "cross"; default all.
        dynamic: dynamic projections to learn in addition to the maps, by HeadMixing's names.
        num_heads, num_key_heads, num_value_heads: softmax, key and value heads where they shall differ from
            the layer's own: see LayerMixing. T5's table of position biases grows with num_heads, further heads
            start with a copy of the first ones' biases; sinks are one a head, whose number they fix.
        bilinear: T5 only: full bilinear forms in place of its thin projections (see `bilinear`).
        backend: of talking_heads_attention, for this process (see `set_backend`).

    Returns:
        Conversion: the layers converted, and those left with the reason. print() it.

    Raises:
        ValueError: nothing in the model can be converted, or it is converted already.
    """
    known_backend(backend)
    ours = isinstance(model, PreTrainedModel)
    found, left = convertible(model) if ours else find_torch(model)
    if not found and not ours and (inside := _inside(model)):
        raise UserError(
            "convert: a model must be a transformers model itself",
            f"{type(model).__name__} around the {type(inside[1]).__name__} at {inside[0]}",
            f"convert(model.{inside[0]}), before compiling or wrapping it",
        )
    if not found:
        reasons = "; ".join(dict.fromkeys(left.values())) or "no attention layer"
        raise UserError(
            (
                "convert: a model must attend through transformers' attention-function "
                "registry (or be made of torch.nn.MultiheadAttention), by nothing but scores, "
                "masks and biases"
            ),
            f"{type(model).__name__}: {reasons}",
            "convert another model",
        )
    if any(hasattr(layer.module, CHILD) for layer in found):
        raise UserError("convert: a model is converted once", "one with maps", "load the plain model again")
    if not ours and (dynamic or bilinear):
        raise UserError(
            "convert: dynamic and bilinear are for transformers models",
            "torch.nn.MultiheadAttention",
            "use talking_heads.TalkingHeadsAttention or GeneralBilinearAttention",
        )
    for name, count in (
        ("num_heads", num_heads),
        ("num_key_heads", num_key_heads),
        ("num_value_heads", num_value_heads),
    ):
        if count is not None and count < 1:
            raise UserError(f"convert: {name} must be at least 1", count, "leave it out for the layer's own")
    chosen, passed_over = choose(found, layers, kinds)
    given = {
        "num_heads": num_heads,
        "num_key_heads": num_key_heads,
        "num_value_heads": num_value_heads,
        "dynamic": list(dynamic)
        if isinstance(dynamic, Collection) and not isinstance(dynamic, str)
        else dynamic,
        "bilinear": bilinear,
    }
    options: dict[str, Any] = {"logits_mix": logits_mix, "weights_mix": weights_mix, "mix_init": init}
    options |= {name: x for name, x in given.items() if x}
    plan = {layer.name: {"layer_heads": layer.output_heads, **options} for layer in chosen}
    for layer in chosen:
        _check_heads(model, layer, num_heads, num_key_heads, num_value_heads)
        if dynamic:
            plan[layer.name] |= widths(layer, dynamic)
    if ours:
        insert(model, found, plan)
        saved.mark(model)
        saved.rename(model)
    else:
        insert_torch(model, found, plan)
    if backend != "auto":
        set_backend(model, backend)
    return Conversion(list(plan), left | passed_over)


def _inside(model: Any) -> tuple[str, PreTrainedModel] | None:
    """The first transformers model inside a module, with its name."""
    return next(((n, m) for n, m in model.named_modules() if isinstance(m, PreTrainedModel)), None)


def _check_heads(
    model: Any, layer: Layer, num_heads: int | None, num_key_heads: int | None, num_value_heads: int | None
) -> None:
    heads = layer.output_heads
    known = projections(model, layer.name, heads)
    sizes = (known.query and known.query.size, known.output and known.output.size)
    for name, count, size in zip(
        ("num_key_heads", "num_value_heads"),
        (num_key_heads, num_value_heads),
        sizes,
        strict=True,
    ):
        if count and size and count % heads == 0 and size % (count // heads):
            raise UserError(
                f"convert: {name} must cut heads of size {size} into equal parts",
                f"{count} for the {heads} heads of {layer.name}",
                f"pass for example {2 * heads}",
            )
    keyword = heads_bound(layer.module)
    extends = keyword == "position_bias" and bias.extends(model, layer)
    if keyword and not extends and num_heads not in (None, heads):
        raise UserError(
            f"convert: softmax heads must stay {heads} where {keyword} has one a head",
            f"{num_heads} for {layer.name}",
            "leave num_heads out, or the layer with layers= or kinds=",
        )
