"""The saved form of a converted model's config: no plain model takes it for its own.

config.json of a converted BERT:

    {"model_type": "talking_heads", "base_model_type": "bert", ... BERT's own fields ...,
     "architectures": ["TalkingHeadsBertForMaskedLM"],
     "talking_heads": {"layers": {"encoder.layer.0.attention.self": {LayerMixing's arguments}, ...}},
     "transformers_weights": "talking_heads: ... load it with talking_heads.hf.load"}

In memory it is BERT's own config with the attribute `talking_heads`; a model built from it gets its maps
(see `guards`). transformers without this package does not know the model type and the architecture. A plain
class that is named all the same (BertModel.from_pretrained) looks for the file `transformers_weights`, which
does not exist, whatever its options: its error shows that text. Each sub-config holds it too, since half of
a CLIP can be loaded by itself.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from ..errors import UserError
from .insert import PLAN

TYPE = "talking_heads"
_PREFIX = "TalkingHeads"
_TRIPWIRE = "talking_heads: this model has maps across its heads; load it with talking_heads.hf.load"
_KEY = "talking_heads"
_IN_MEMORY = "a talking_heads conversion, not saved when the adapter was made, of "


def mark(model: Any) -> None:
    """Notes in the configs of the model and of its sub-models which layers have maps, by what is in the model now."""
    layers = {name: x.__dict__[PLAN] for name, x in model.named_modules() if PLAN in x.__dict__}
    parts: dict[int, tuple[Any, dict[str, Any]]] = {}
    for prefix, part in model.named_modules():
        if isinstance(part, PreTrainedModel) and id(part.config) not in parts:
            parts[id(part.config)] = part.config, _within(layers, prefix, part.base_model_prefix)
    twins = Counter(type(config) for config, _ in parts.values())
    for config, inside in parts.values():
        _note(config, inside)
    for config in tree(model.config):  # a sub-model often has a copy of its sub-config
        if id(config) not in parts and twins[type(config)] == 1:
            _note(config, next(x for other, x in parts.values() if type(other) is type(config)))


def _within(layers: dict[str, Any], prefix: str, base: str) -> dict[str, Any]:
    """The layers inside a part, named as the part's base model names them."""
    start = f"{prefix}." if prefix else ""
    inside = {name.removeprefix(start): plan for name, plan in layers.items() if name.startswith(start)}
    return {name.removeprefix(f"{base}."): plan for name, plan in inside.items()}


def _note(config: Any, layers: dict[str, Any]) -> None:
    if layers:
        setattr(config, _KEY, {"layers": layers})
    else:
        config.__dict__.pop(_KEY, None)


def unmark(model: Any) -> None:
    """Undoes `mark`."""
    for part in model.modules():
        if isinstance(part, PreTrainedModel):
            for config in tree(part.config):
                config.__dict__.pop(_KEY, None)


def tree(config: Any) -> Iterator[Any]:
    """A config and all its sub-configs."""
    yield config
    for value in config.__dict__.values():
        if isinstance(value, PreTrainedConfig):
            yield from tree(value)


def is_talking(config: Any) -> bool:
    """Whether a config says that the model, or a part of it, has maps."""
    return any(_KEY in x.__dict__ for x in tree(config))


def planned(model: Any) -> dict[str, dict[str, Any]]:
    """{layer name in this model: LayerMixing's arguments} by the model's config; empty without maps."""
    named = model.config.__dict__.get(_KEY, {}).get("layers", {})
    return {full: named[name] for full, name in full_names(model, named).items()} if named else {}


def inner_name(name: str, model: Any) -> str:
    """A layer's name as the base model has it."""
    return name.removeprefix(f"{model.base_model_prefix}.")


def full_names(model: Any, named: Collection[str]) -> dict[str, str]:
    """{name in this model: name in its base model} of the layers named that it has."""
    names = {name for name, _ in model.named_modules()}
    prefixes = ("", f"{model.base_model_prefix}.")
    full = {name: next((p + name for p in prefixes if p + name in names), None) for name in named}
    return {place: name for name, place in full.items() if place is not None}


def rename(model: Any) -> None:
    """Says where a model converted in memory comes from: an adapter notes that name as its base, and the plain
    checkpoint is not what it belongs on."""
    model.name_or_path = f"{_IN_MEMORY}{model.name_or_path or type(model).__name__}"


def is_renamed(model: Any) -> bool:
    return str(getattr(model, "name_or_path", "")).startswith(_IN_MEMORY)


def rename_back(model: Any) -> None:
    """Undoes `rename`."""
    if is_renamed(model):
        model.name_or_path = model.name_or_path.removeprefix(_IN_MEMORY)


def saved_form(written: dict[str, Any]) -> dict[str, Any]:
    """A config's dictionary as it is saved."""
    form = _wired(written) | {"model_type": TYPE, "base_model_type": written.get("model_type")}
    names = written.get("architectures") or []
    return form | {"architectures": [_PREFIX + name.removeprefix(_PREFIX) for name in names]}


def _wired(written: dict[str, Any]) -> dict[str, Any]:
    parts = {key: _wired(x) for key, x in written.items() if isinstance(x, dict) and "model_type" in x}
    return written | parts | {"transformers_weights": _TRIPWIRE}


def _unwired(written: dict[str, Any]) -> dict[str, Any]:
    kept = {key: _unwired(x) if isinstance(x, dict) else x for key, x in written.items()}
    if kept.get("transformers_weights") == _TRIPWIRE:
        del kept["transformers_weights"]
    return kept


class TalkingHeadsConfig(PreTrainedConfig):
    """What AutoConfig finds under the saved type: makes the base model's config."""

    model_type = TYPE

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        given = _unwired(config_dict)
        base = given.pop("base_model_type", None)
        if not isinstance(base, str) or not isinstance(given.get(_KEY, {}), dict):
            raise UserError(
                "the config of a converted model must have base_model_type and talking_heads",
                f"base_model_type {base!r}",
                "convert the original model again",
            )
        asked = kwargs.get("attn_implementation")
        if asked is not None and not str(asked).startswith(TYPE):
            raise UserError(
                "a model whose heads talk must attend by this package's function",
                f"attn_implementation={asked!r}",
                "leave attn_implementation out; output_attentions=True gives the weights",
            )
        given.pop("attn_implementation", None)  # of folders that earlier versions wrote
        names = given.get("architectures") or []
        given |= {"model_type": base, "architectures": [str(x).removeprefix(_PREFIX) for x in names]}
        plain: Any = type(AutoConfig.for_model(base))
        return plain.from_dict(given, **kwargs)


def to_json(written: str) -> str:
    """The saved form of what a config writes of itself."""
    return json.dumps(saved_form(json.loads(written)), indent=2, sort_keys=True) + "\n"


AutoConfig.register(TYPE, TalkingHeadsConfig, exist_ok=True)
