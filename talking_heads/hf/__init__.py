"""transformers models whose heads talk: convert in place, save, load."""

from . import attention as _attention  # registers the attention function
from .convert import Conversion, convert
from .insert import mixings
from .load import load
from .revert import revert

__all__ = ["Conversion", "convert", "load", "mixings", "revert"]

_attention.register()
