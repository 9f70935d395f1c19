"""The attention layers of any model, and the names of their heads: `part.layer:head`, counted from 0."""

import re
import sys
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any, Literal, NamedTuple, get_args

from torch import nn

from ..errors import UserError
from ..nn import GeneralBilinearAttention, HeadMixing, TalkingHeadsAttention
from ..nn.mixing import CHILD, unwrapped
from .projections import head_count, projects
from .source import calls_registry

Part = Literal["encoder", "decoder", "cross"]
PARTS: tuple[str, ...] = get_args(Part)  # self-attention of either stack, attention from one to the other
_CROSS = re.compile(r"cross|encdec|encoder_attn|encoder_decoder|multihead_attn", re.IGNORECASE)


class Layer(NamedTuple):
    """One attention layer.

    part: one of PARTS. number: counts the layers of a part. name: of the module in its model. heads: softmax heads.
    value_heads: heads of the mixed weights. output_heads: heads of its projections and of its output; a layer
    converted with num_value_heads joins several value heads into each. kind: registry (asks transformers' registry
    for its attention function), alone (of transformers, with code of its own), torch (nn.MultiheadAttention) or own
    (this package's). depth: which layer of its stack it belongs to, by its name; None outside a stack.
    """

    part: str
    number: int
    name: str
    module: nn.Module
    heads: int
    value_heads: int
    output_heads: int
    kind: str
    depth: int | None

    @property
    def label(self) -> str:
        return f"{self.part}.{self.number}"


def layers(model: nn.Module) -> list[Layer]:
    """The model's attention layers, in the order of its modules.

    A module that several places share (ALBERT) is one layer.

    Raises:
        UserError: the model has none.
    """
    found = find(model)[0]
    if not found:
        raise UserError(
            "a model must have attention layers of transformers, torch or this package",
            f"{type(model).__name__} without any",
            "name another model",
        )
    return found


def find(model: nn.Module) -> tuple[list[Layer], list[str]]:
    """(the attention layers, the names of those that do not say how many heads they have)."""
    found, unknown = [], []
    counts = dict.fromkeys(PARTS, 0)
    for name, module, kind in _modules(model):
        heads = _heads(module)
        if heads is None:
            unknown.append(name)
            continue
        part = _part(name, module, model)
        mixing = mixing_of(module)
        mixed = (heads, heads) if mixing is None else (mixing.num_heads, mixing.num_value_heads)
        found.append(Layer(part, counts[part], name, module, *mixed, heads, kind, _depth(name)))
        counts[part] += 1
    return found, unknown


def _modules(model: nn.Module) -> list[tuple[str, nn.Module, str]]:
    """(name, module, kind) of everything that attends, in the order of the model's modules."""
    kinds = {name: kind for name, module in model.named_modules() if (kind := _kind(module))}
    if has_transformers(model):
        alone = [n for n, m in model.named_modules() if projects(m) and not any(_nested(n, k) for k in kinds)]
        kinds |= {n: "alone" for n in alone if not any(k.startswith(f"{n}.") for k in alone)}
    return [(name, module, kinds[name]) for name, module in model.named_modules() if name in kinds]


def _kind(module: nn.Module) -> str | None:
    if isinstance(module, nn.MultiheadAttention):
        return "torch"
    if isinstance(module, TalkingHeadsAttention | GeneralBilinearAttention):
        return "own"
    kind: Any = type(module)
    return "registry" if calls_registry(kind) else None


def has_transformers(model: nn.Module) -> bool:
    """Whether the model is one of transformers or holds one; imports nothing."""
    transformers: Any = sys.modules.get("transformers")
    return transformers is not None and any(
        isinstance(part, transformers.PreTrainedModel) for part in model.modules()
    )


def _nested(name: str, other: str) -> bool:
    return name == other or other.startswith(f"{name}.") or name.startswith(f"{other}.")


def _heads(module: Any) -> int | None:
    """Heads of the layer's output."""
    if isinstance(module, TalkingHeadsAttention):
        return module.num_value_heads
    return head_count(module)


def mixing_of(module: nn.Module) -> HeadMixing | None:
    """The maps of a layer whose heads are mixed: the layer itself, or what conversion put into it."""
    found = module if isinstance(module, HeadMixing) else unwrapped(getattr(module, CHILD, None))
    return found if isinstance(found, HeadMixing) else None


def _depth(name: str) -> int | None:
    """The last number in a module's name; T5 writes block.<layer>.layer.<part>."""
    block = re.search(r"(?:^|\.)block\.(\d+)\.layer\.\d+\.", name)
    numbers = re.findall(r"(?:^|\.)(\d+)(?=\.|$)", name)
    return int(block[1]) if block else int(numbers[-1]) if numbers else None


def _part(name: str, module: Any, model: nn.Module) -> str:
    """One of PARTS: by what the module says of itself, else by the words of its name, else by whether it is causal."""
    parent = model.get_submodule(name.rpartition(".")[0])
    if isinstance(parent, nn.TransformerDecoderLayer):
        return "cross" if name.endswith("multihead_attn") else "decoder"
    if getattr(module, "is_cross_attention", False) is True or _CROSS.search(type(module).__name__):
        return "cross"
    decodes = getattr(module, "is_decoder", None)
    causal = getattr(module, "is_causal", None)
    default = "decoder" if causal and decodes is not False else "encoder"
    named = part_of_name(name, default)
    if named == "encoder" and (decodes or (causal is not False and _is_causal_model(_config(name, model)))):
        return "decoder"  # BERT and GIT call their only stack an encoder, also where it generates
    return named


def part_of_name(name: str, default: str) -> str:
    """One of PARTS by the words of a module's name; `default` where none tells."""
    if _CROSS.search(name.rpartition("layer")[2]):
        return "cross"
    words = re.split(r"[._]", name.lower())
    return next((word for word in reversed(words) if word in ("encoder", "decoder")), default)


def _config(name: str, model: Any) -> Any:
    """The config of the module or of the nearest one around it."""
    while True:
        config = getattr(model.get_submodule(name), "config", None)
        if config is not None or not name:
            return config
        name = name.rpartition(".")[0]


def _is_causal_model(config: Any) -> bool:
    """Whether transformers has a causal language model for the config, and nothing says that it encodes."""
    if config is None or getattr(config, "is_decoder", None) is False:
        return False
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

    return getattr(config, "model_type", None) in CAUSAL


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
