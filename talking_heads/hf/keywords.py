"""Keywords that models pass to transformers' attention functions: which of them can be combined with head mixing.

A keyword acts where an attention function that the layer may be given takes it: transformers' own, or the one in the
model's file. `masks` honours some of these, others are known to change nothing here; whatever else acts, or is neither a
keyword of the models nor known, is refused by name, never ignored.
"""

import contextlib
import inspect
import re
from functools import cache
from typing import Any

from transformers import PreTrainedModel
from transformers.integrations.flash_attention import flash_attention_forward
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_flash_attention_utils import _flash_attention_forward
from transformers.utils.generic import TransformersKwargs

from ..anatomy.source import attention_functions, keywords
from ..errors import UserError
from . import masks

# Keywords that act elsewhere and change nothing here: the window and positions that begin again are inside the mask,
# lengths and determinism are for packed kernels, weights are given where they are asked for.
INSIDE = frozenset(
    ("sliding_window", "position_ids", "max_length_q", "max_length_k", "deterministic", "output_attentions")
)
# Arguments of `attention.attend`.
_TAKEN = frozenset(
    ("module", "query", "key", "value", "attention_mask", "dropout", "scaling", "is_causal", "position_bias")
)
# Inputs of models around the layer's own, which go through it.
_INPUTS = frozenset(
    (
        "input_ids",
        "decoder_input_ids",
        "pixel_values",
        "position_ids",
        "cache_position",
        "use_cache",
        "return_dict",
    )
)
_TRANSFORMERS = (
    sdpa_attention_forward,
    flash_attention_forward,
    _flash_attention_forward,
    flex_attention_forward,
)


def refused(module: Any) -> str | None:
    """A keyword that the module's forward passes on and that cannot be combined with head mixing."""
    kind: Any = type(module)
    for keyword, value in keywords(kind):
        if value != "None" and keyword not in _TAKEN | masks.HONOURED and not changes_nothing(keyword, kind):
            own = re.fullmatch(r"self\.(\w+)", value)
            if own is None or getattr(module, own[1], None) is not None:
                return keyword
    return None


def changes_nothing(keyword: str, kind: Any) -> bool:
    """Whether a keyword is known not to change the attention of a layer of this class."""
    if keyword in masks.HONOURED:
        return False
    return keyword in INSIDE or (keyword in _passed(kind) and keyword not in _acting(kind))


# Reads sources, which torch.compile cannot: a constant to it, as torch.compiler.assume_constant_result makes one.
changes_nothing._dynamo_marked_constant = True  # type: ignore[attr-defined]


@cache
def _acting(kind: Any) -> frozenset[str]:
    """Keywords that the attention functions for this class take, by name or out of their **kwargs."""
    found: set[str] = set()
    for function in (*_TRANSFORMERS, *attention_functions(kind)):
        takes = inspect.signature(function).parameters.values()
        found |= {x.name for x in takes if x.kind is not x.VAR_KEYWORD}
        text = ""
        with contextlib.suppress(OSError):  # a function without its source
            text = inspect.getsource(function)
        found |= {
            x
            for pair in re.findall(r'kwargs(?:\.\w+\(|\[)"(\w+)"|"(\w+)" (?:not )?in kwargs', text)
            for x in pair
        }
    return frozenset(found)


@cache
def _passed(kind: Any) -> frozenset[str]:
    """Keywords of transformers' models in general, and of those in the file of this class."""
    near = vars(inspect.getmodule(kind)).values() if inspect.getmodule(kind) else ()
    models: list[Any] = [x for x in near if isinstance(x, type) and issubclass(x, PreTrainedModel)]
    forwards = [kind.forward, *(x.forward for x in models)] if hasattr(kind, "forward") else []
    named = {name for forward in forwards for name in inspect.signature(forward).parameters}
    return frozenset(named | set(TransformersKwargs.__annotations__) | _INPUTS)


def heads_bound(module: Any) -> str | None:
    """A keyword that the module's forward passes on and that has an axis of softmax heads."""
    kind: Any = type(module)
    given = dict(keywords(kind))
    return next((k for k in ("position_bias", "s_aux", "sinks") if given.get(k, "None") != "None"), None)


def set_ones(options: dict[str, Any], kind: Any) -> dict[str, Any]:
    """The keywords of a call that are set and change attention, or may."""
    return {name: x for name, x in options.items() if x is not None and not changes_nothing(name, kind)}


def refuse(extras: dict[str, Any], name: str) -> None:
    """Raises for set keywords that `masks` does not honour."""
    for keyword in extras.keys() - masks.HONOURED:
        raise UserError(
            f"talking_heads: attention must not depend on {keyword}",
            f"{keyword}= from {name}",
            "leave it out or switch the feature off, or keep the model multi-head",
        )
