"""transformers models whose heads talk: convert in place, save, load."""

from . import attention as _attention  # registers the attention function
from .convert import Conversion, convert
from .load import load

__all__ = ["Conversion", "convert", "load"]

_attention.register()
