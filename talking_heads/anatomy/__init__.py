"""What an attention layer of any model is: its name, part and heads, its projections, and how to reach inside it.

Imports torch, and transformers only for a model of its own.
"""

from .layers import PARTS, Layer, layers, mixing_of, select_heads

__all__ = ["PARTS", "Layer", "layers", "mixing_of", "select_heads"]
