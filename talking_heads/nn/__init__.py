"""Layers: the two maps as a module, attention with its projections, general bilinear attention."""

from .attention import TalkingHeadsAttention
from .bilinear import GeneralBilinearAttention
from .decoding import AttentionCache
from .mixing import HeadMixing

__all__ = ["AttentionCache", "GeneralBilinearAttention", "HeadMixing", "TalkingHeadsAttention"]
