"""Attention layers and the names of their heads, under the name that they had before `talking_heads.anatomy`."""

from ..anatomy.layers import PARTS, Layer, layers, mixing_of, part_of_name, select_heads

__all__ = ["PARTS", "Layer", "layers", "mixing_of", "part_of_name", "select_heads"]
