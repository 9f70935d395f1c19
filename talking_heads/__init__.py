"""Attention whose heads exchange information (Talking-Heads Attention, Shazeer et al., 2020)."""

from .functional import Explanation, explain, talking_heads_attention
from .kernels.problem import LowRankMix
from .nn import AttentionCache, GeneralBilinearAttention, HeadMixing, TalkingHeadsAttention
from .optim import param_groups

__version__ = "0.1.0"  # the one place: pyproject.toml reads it

__all__ = [
    "AttentionCache",
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
