"""transformers models whose heads talk: convert in place, save, load, fold back."""

from . import attention as _attention  # registers the attention function
from . import guards as _guards
from . import late as _late
from .convert import Conversion, convert
from .fold import fold
from .insert import mixings, set_backend
from .load import load
from .maps import load_maps, save_maps, train_only_maps
from .revert import revert

__all__ = [
    "Conversion",
    "convert",
    "fold",
    "load",
    "load_maps",
    "mixings",
    "revert",
    "save_maps",
    "set_backend",
    "train_only_maps",
]

_attention.register()
_guards.install()
_late.install()
