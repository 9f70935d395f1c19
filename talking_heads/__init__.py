"""Attention whose heads exchange information (Talking-Heads Attention, Shazeer et al., 2020).

What is named here is imported when it is first used, so that `import talking_heads` and the command line's help take no
time. `import talking_heads.kernels` registers the operators with torch at once, as torch.export.load needs.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .functional import Backend, Explanation, explain, talking_heads_attention
    from .kernels.problem import LowRankMix
    from .nn import AttentionCache, GeneralBilinearAttention, HeadMixing, TalkingHeadsAttention
    from .optim import param_groups

__version__ = "0.1.0"  # the one place: pyproject.toml reads it

__all__ = [
    "AttentionCache",
    "Backend",
    "Explanation",
    "GeneralBilinearAttention",
    "HeadMixing",
    "LowRankMix",
    "TalkingHeadsAttention",
    "__version__",
    "explain",
    "param_groups",
    "talking_heads_attention",
]

_HOMES = {
    "functional": ("Backend", "Explanation", "explain", "talking_heads_attention"),
    "kernels.problem": ("LowRankMix",),
    "nn": ("AttentionCache", "GeneralBilinearAttention", "HeadMixing", "TalkingHeadsAttention"),
    "optim": ("param_groups",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
_ROOMS = ("anatomy", "bench", "dynamics", "heads", "hf", "kernels", "nn", "training")

logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f".{name}", __name__)
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f".{_HOME_OF[name]}", __name__), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_ROOMS})
