"""Any transformers config shrunk to toy size, by the names of its fields.

Relations between fields (a width that must be heads times their size, a list as long as the stack) hold
because every width, count and size of one meaning gets one value. What else an architecture asks for is
in `exceptions`.
"""

import dataclasses
import inspect
import re
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from .exceptions import CONFIGS

WIDTH, HEADS, LAYERS, TOKENS, IMAGE, PATCH = 64, 4, 2, 128, 32, 8

# (pattern of a field's name, its value where the default is larger); the first that matches counts.
_RULES: tuple[tuple[str, int], ...] = (
    (r"(_id|_index|_token|_token_index)$", -1),
    (r"vocab_size|codebook_size", TOKENS),
    (r"(key_value|kv)_heads$", 2),
    (r"heads?$", HEADS),
    (r"(^|_)head_(dim|size)$|^d_kv$|_rope_dim$", WIDTH // HEADS),
    (r"lora_rank|_rank$", 16),
    (r"^(n|topk|num)_(expert_)?groups?$", 1),
    (r"(num_|n_).*(experts|groups)$|experts$", 4),
    (r"(top_?k|_per_tok(en)?)$", 2),
    (r"(layers?|depth|blocks|stages)$", LAYERS),
    (r"(intermediate|ffn|mlp|d_ff|inner|feed_forward).*", WIDTH + 32),
    (r"(sliding_window|local_attention|window_size|attention_window|_chunk_size|chunk_size)", 4),
    (r"image_size|img_size$", IMAGE),
    (r"^patch_size$", PATCH),
    (r"(num_queries|num_denoising|num_.*tokens|num_query_tokens)$", 8),
    (r"max_.*(positions?|position_embeddings|length|len)$|context_length|block_size", 128),
    (r"(hidden|embed|embd|embedding|model|proj|projection|filter|latent|adapter|state|condition).*", WIDTH),
    (r"(dim|dims|width|size|channels|planes)$", WIDTH),
)


def toy(kind: Any, exceptions: dict[str, Any] | None = None) -> PreTrainedConfig:
    """A small config of the class; `exceptions` are its fields, those of a sub-config in a dictionary.

    Raises:
        Exception: whatever the config class raises of values that do not fit.
    """
    given = CONFIGS.get(kind.__name__, {}) | (exceptions or {})
    values: dict[str, Any] = {}
    parts = _parts(kind)
    for name, part in parts.items():
        own = given.pop(name, {})
        if isinstance(own, dict) and "model_type" in own:
            part = type(AutoConfig.for_model(own["model_type"]))
        if own is not None:
            values[name] = toy(part, own) if isinstance(own, dict) else own
    given = _one_layer_a_type(kind, given) | _short_sections(kind) | given
    defaults = {field.name: _default(field) for field in dataclasses.fields(kind)}
    spare = iter(range(TOKENS - 2, TOKENS // 2, -1))
    for field in dataclasses.fields(kind):
        if field.name in given or field.name in parts or not field.init:
            continue
        default = defaults[field.name]
        small = _small(field.name, default, spare)
        if field.name == "head_dim" and default is None:
            small = WIDTH // HEADS
        if field.name == "num_key_value_heads" and default == defaults.get("num_attention_heads"):
            small = HEADS
        if small != default:
            values[field.name] = small
    return kind(**values, **given)


def _one_layer_a_type(kind: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Layer lists that hold every type of layer that the full-size default has."""
    names = {field.name for field in dataclasses.fields(kind)} & {"layer_types", "mlp_layer_types"}
    if not names or "num_hidden_layers" in given:
        return {}
    whole = kind()
    types = {name: list(dict.fromkeys(getattr(whole, name) or ())) for name in names}
    count = max(LAYERS, *map(len, types.values()))
    lists = {name: (found * count)[:count] for name, found in types.items() if found}
    return lists | {"num_hidden_layers": count} if lists else {}


def _short_sections(kind: Any) -> dict[str, Any]:
    """Rotary parameters whose sections (of time, rows and columns) add up to half a small head."""
    names = {field.name for field in dataclasses.fields(kind)}
    rope = getattr(kind(), "rope_parameters", None) if "rope_parameters" in names else None
    if not isinstance(rope, dict) or "mrope_section" not in rope:
        return {}
    half = int(WIDTH // HEADS * rope.get("partial_rotary_factor", 1)) // 2
    parts = len(rope["mrope_section"])
    first = half - (parts - 1) * (half // parts)
    return {"rope_parameters": rope | {"mrope_section": [first] + [half // parts] * (parts - 1)}}


def _parts(kind: Any) -> dict[str, Any]:
    """{field: config class} of the sub-configs that have a class; AutoConfig's come from the defaults."""
    found = dict(kind.sub_configs or {})
    if any(part is AutoConfig or not inspect.isclass(part) for part in found.values()):
        whole = kind()
        for name in found:
            found[name] = type(getattr(whole, name, None))
    return {name: part for name, part in found.items() if issubclass(part, PreTrainedConfig)}


def _default(field: Any) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else None


def _small(name: str, value: Any, spare: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | list | tuple):
        return value
    if not isinstance(value, int):
        numbers = value and all(isinstance(x, int) and not isinstance(x, bool) for x in value)
        return type(value)(_small(name, x, spare) for x in value) if numbers else value
    for pattern, limit in _RULES:
        if re.search(pattern, name):
            if limit < 0:
                return value if value < TOKENS // 2 else next(spare)
            return min(value, limit)
    return value
