"""transformers models whose heads talk: convert in place, save, load, fold back."""

from . import attention as _attention  # registers the attention function
from . import guards as _guards
from .convert import Conversion, convert
from .fold import fold
from .insert import mixings
from .load import load
from .revert import revert

__all__ = ["Conversion", "convert", "fold", "load", "mixings", "revert"]

_attention.register()
_guards.install()
