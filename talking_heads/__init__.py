"""Attention whose heads exchange information (Talking-Heads Attention, Shazeer et al., 2020)."""

from .functional import Explanation, explain, talking_heads_attention
from .nn import HeadMixing

__all__ = ["Explanation", "HeadMixing", "explain", "talking_heads_attention"]
