"""The attention layers of any model, and the names of their heads: `part.layer:head`, counted from 0."""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from torch import nn

from ..errors import UserError
from ..nn import GeneralBilinearAttention, HeadMixing, TalkingHeadsAttention
from ..nn.mixing import CHILD, unwrapped

PARTS = ("encoder", "decoder", "cross")


class Layer(NamedTuple):
    """One attention layer.

    part: encoder, decoder or cross. number: within its part. name: of the module in its model.
    heads: softmax heads. value_heads: heads of the mixed weights. output_heads: heads of its output; in a layer
    converted with num_value_heads each is put together from several value heads. kind: how it is reached (see
    attach.py).
    """

    part: str
    number: int
    name: str
    module: nn.Module
    heads: int
    value_heads: int
    output_heads: int
    kind: str

    @property
    def label(self) -> str:
        return f"{self.part}.{self.number}"


def layers(model: nn.Module) -> list[Layer]:
    """The model's attention layers, in the order of its modules.

    transformers models: every layer of its attention-function registry, converted or not, and layers with
    projections of their own. Else nn.MultiheadAttention and this package's layers. A module shared by
    several places (ALBERT) is one layer.

    Raises:
        UserError: the model has no attention layer that could be reached.
    """
    found = [*_of_torch(model), *_of_transformers(model)]
    order = {name: place for place, (name, _) in enumerate(model.named_modules())}
    found.sort(key=lambda row: order[row[0]])
    counts = dict.fromkeys(PARTS, 0)
    result = []
    for name, module, output_heads, kind in found:
        part = _part(name, module, model)
        heads, value_heads = _mixed(module) or (output_heads, output_heads)
        result.append(Layer(part, counts[part], name, module, heads, value_heads, output_heads, kind))
        counts[part] += 1
    if not result:
        raise UserError(
            "a model must have attention layers of transformers, torch or this package",
            f"{type(model).__name__} without any",
            "name another model",
        )
    return result


def mixing_of(module: nn.Module) -> HeadMixing | None:
    """The maps of a layer whose heads talk: the layer itself, or what conversion has put into it."""
    found = module if isinstance(module, HeadMixing) else unwrapped(getattr(module, CHILD, None))
    return found if isinstance(found, HeadMixing) else None


def _mixed(module: nn.Module) -> tuple[int, int] | None:
    """(softmax heads, value heads) of a layer whose heads talk."""
    mixing = mixing_of(module)
    return None if mixing is None else (mixing.num_heads, mixing.num_value_heads)


_Found = list[tuple[str, nn.Module, int, str]]  # name, module, heads of its output, kind


def _of_torch(model: nn.Module) -> _Found:
    found: _Found = []
    for name, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            found.append((name, module, module.num_heads, "torch"))
        elif isinstance(module, TalkingHeadsAttention):
            found.append((name, module, module.num_value_heads, "own"))
        elif isinstance(module, GeneralBilinearAttention):
            found.append((name, module, module.num_heads, "own"))
    return found


def _of_transformers(model: nn.Module) -> _Found:
    try:
        from transformers import PreTrainedModel
    except ImportError:
        return []
    if not any(isinstance(part, PreTrainedModel) for part in model.modules()):
        return []
    from ..hf.sites import find, head_count

    sites, left = find(model)
    found: _Found = [(site.name, site.module, site.heads, "registry") for site in sites]
    for name in left:
        module = model.get_submodule(name)
        inside = any(other != name and other.startswith(f"{name}.") for other in left)
        heads = head_count(module)
        if not inside and heads is not None:
            found.append((name, module, heads, "alone"))
    return found


_CROSS = ("encdecattention", "encoder_attn")  # T5's name, BART's


def _part(name: str, module: Any, model: nn.Module) -> str:
    if isinstance(model.get_submodule(name.rpartition(".")[0]), nn.TransformerDecoderLayer):
        return "cross" if name.endswith("multihead_attn") else "decoder"
    if "crossattention" in type(module).__name__.lower():
        return "cross"
    config = getattr(model, "config", None)
    flags = [
        getattr(x, f, False)
        for x, f in ((module, "is_causal"), (module, "is_decoder"), (config, "is_decoder"))
    ]
    return part_of_name(name, "decoder" if True in flags else "encoder")


def part_of_name(name: str, default: str) -> str:
    """encoder, decoder or cross, by the words in a module's name; `default` where none says "decoder" or "cross"."""
    words = name.lower().split(".")
    if any("cross" in x or x in _CROSS for x in words):
        return "cross"
    return "decoder" if any("decoder" in x for x in words) else default


def select_heads(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """The names that match a pattern such as "encoder.2:5", "cross.0:*" or "encoder.*:*".

    Raises:
        UserError: a pattern that matches none.
    """
    names, chosen = list(names), []
    for pattern in patterns:
        matched = [name for name in names if fnmatchcase(name, pattern)]
        if not matched:
            raise UserError(
                f"heads are named part.layer:head, here {names[0]} to {names[-1]}",
                repr(pattern),
                "write for example encoder.2:5 or cross.0:*",
            )
        chosen += [name for name in matched if name not in chosen]
    return chosen
