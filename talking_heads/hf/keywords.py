"""Keywords that models pass to transformers' attention functions: which of them can be combined with head mixing.

`masks` honours some. A keyword that changes attention and is not honoured is refused by name, never ignored.
"""

import re
from typing import Any

from ..anatomy.source import keywords
from ..errors import UserError
from . import masks

# Keywords that change attention and cannot be honoured: the soft cap is no function of one row of logits that the
# operator has, blocks are those of a sparse kernel, a paged cache updates itself inside.
REFUSED = ("softcap", "block_indices", "cache")
# Keywords that change nothing here: the window is inside the mask, lengths only speed up packed kernels, the rest is
# for other parts of the model.
HARMLESS = frozenset(
    (
        "sliding_window",
        "max_length_q",
        "max_length_k",
        "deterministic",
        "position_ids",
        "cache_position",
        "use_cache",
        "input_ids",
        "decoder_input_ids",
        "pixel_values",
        "output_attentions",
        "output_hidden_states",
        "output_router_logits",
        "num_items_in_batch",
        "return_dict",
    )
)


def refused(module: Any) -> str | None:
    """A keyword that the module's forward passes on and that cannot be combined with head mixing."""
    kind: Any = type(module)
    for keyword, value in keywords(kind):
        if keyword in REFUSED and value != "None":
            own = re.fullmatch(r"self\.(\w+)", value)
            if own is None or getattr(module, own[1], None) is not None:
                return keyword
    return None


def heads_bound(module: Any) -> str | None:
    """A keyword that the module's forward passes on and that has an axis of softmax heads."""
    kind: Any = type(module)
    given = dict(keywords(kind))
    return next((k for k in ("position_bias", "s_aux", "sinks") if given.get(k, "None") != "None"), None)


def set_ones(options: dict[str, Any]) -> dict[str, Any]:
    """The keywords of a call that are set and change attention."""
    return {name: x for name, x in options.items() if x is not None and name not in HARMLESS}


def refuse(extras: dict[str, Any], name: str) -> None:
    """Raises for set keywords that `masks` does not honour."""
    for keyword in extras.keys() - masks.HONOURED:
        raise UserError(
            f"talking_heads: attention must not depend on {keyword}",
            f"{keyword}= from {name}",
            "leave it out or switch the feature off, or keep the model multi-head",
        )
