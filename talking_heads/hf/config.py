"""The saved form of a converted model: a type of its own, which no plain model takes for its own.

config.json of a converted BERT:

    {"model_type": "talking_heads", "base_model_type": "bert", ... BERT's own fields ...,
     "talking_heads": {"layers": {"encoder.layer.0.attention.self": {HeadMixing's arguments}, ...}},
     "attn_implementation": "talking_heads.hf.load"}

In memory the config stays BERT's, in a subclass that writes this form. AutoConfig knows the type once this
package is imported and fails clearly without it; BertModel.from_pretrained fails on the attention
implementation, which names what to use and which nobody registers.
"""

import inspect
import json
from functools import cache
from typing import Any

from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.models.auto import auto_factory, modeling_auto

TYPE = "talking_heads"
_TRIPWIRE = "talking_heads.hf.load"


def mark(model: Any, layers: dict[str, dict[str, Any]]) -> None:
    """Makes the configs of the model and of its sub-models say which layers talk, when they are saved."""
    done: set[int] = set()
    for prefix, part in model.named_modules():
        if not isinstance(part, PreTrainedModel) or id(part.config) in done:
            continue
        done.add(id(part.config))
        inside = {_below(name, prefix): options for name, options in layers.items() if _within(name, prefix)}
        if inside:
            base = f"{part.base_model_prefix}."
            inside = {name.removeprefix(base): options for name, options in inside.items()}
            _turn(part.config)
            part.config.talking_heads = {"layers": inside}


def _turn(config: PreTrainedConfig) -> None:
    plain: Any = type(config)
    config.__class__ = talking(plain)


def _within(name: str, prefix: str) -> bool:
    return not prefix or name == prefix or name.startswith(f"{prefix}.")


def _below(name: str, prefix: str) -> str:
    return name[len(prefix) + 1 :] if prefix else name


def layers_of(model: Any) -> dict[str, dict[str, Any]]:
    """{layer name in this model: HeadMixing's arguments} as the model's config says."""
    names = {name for name, _ in model.named_modules()}
    prefixes = ("", f"{model.base_model_prefix}.")
    found = {}
    for name, options in model.config.talking_heads["layers"].items():
        full = next((prefix + name for prefix in prefixes if prefix + name in names), None)
        if full is not None:  # a part of the model (its encoder, say) has a part of the layers
            found[full] = options
    return found


def unmark(model: Any) -> None:
    """Undoes `mark`."""
    for part in model.modules():
        if isinstance(part, PreTrainedModel) and issubclass(type(part.config), Talking):
            del part.config.talking_heads
            part.config.__class__ = type(part.config).plain


class Talking:
    """What the subclasses of config classes add; see the module's docstring."""

    plain: type[PreTrainedConfig]

    def to_json_string(self, use_diff: bool = True) -> str:
        written = json.loads(super().to_json_string(use_diff))  # type: ignore[misc]
        written["base_model_type"] = written.get("model_type")
        written |= {"model_type": TYPE, "attn_implementation": _TRIPWIRE}
        return json.dumps(written, indent=2, sort_keys=True) + "\n"

    def __reduce_ex__(self, protocol: Any) -> Any:  # the class is made when needed: pickle how
        return _remake, (self.plain, self.__dict__.copy())


def _remake(plain: Any, state: dict[str, Any]) -> PreTrainedConfig:
    kind: Any = talking(plain)
    config = object.__new__(kind)
    config.__dict__.update(state)
    return config


@cache
def talking(plain: Any) -> Any:
    """The subclass of a config class that writes the saved form; known to every Auto class."""
    from .load import talking_model

    if issubclass(plain, Talking):
        return plain
    kind = type(f"TalkingHeads{plain.__name__}", (Talking, plain), {"plain": plain, "__module__": __name__})
    for name in dir(modeling_auto):
        auto: Any = getattr(modeling_auto, name)
        if inspect.isclass(auto) and issubclass(auto, auto_factory._BaseAutoModelClass):
            mapping = auto.__dict__.get("_model_mapping")
            if mapping is not None and plain in mapping:
                known = mapping[plain]
                model = talking_model(known[0] if isinstance(known, tuple) else known)
                model.config_class = kind
                mapping.register(kind, model, exist_ok=True)
    return kind


class TalkingHeadsConfig(PreTrainedConfig):
    """What AutoConfig finds under the saved type: makes the subclass of the base model's config."""

    model_type = TYPE

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        given = dict(config_dict)
        base = given.pop("base_model_type")
        given |= {"model_type": base}
        given.pop("attn_implementation", None)
        layers = given.pop("talking_heads")
        plain: Any = type(AutoConfig.for_model(base))
        found = plain.from_dict(given, **kwargs)
        config = found[0] if isinstance(found, tuple) else found
        _turn(config)
        config.talking_heads = layers
        return found


AutoConfig.register(TYPE, TalkingHeadsConfig, exist_ok=True)
