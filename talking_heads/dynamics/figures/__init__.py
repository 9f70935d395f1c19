"""The figures of each kind of results, by name."""

from . import mixing, synthetic, text, transformer
from .drawing import Make, draw

FIGURES: dict[str, dict[str, Make]] = {
    "synthetic": synthetic.FIGURES,
    "mixing": mixing.FIGURES,
    "text": text.FIGURES,
    "transformer": transformer.FIGURES,
}

__all__ = ["FIGURES", "draw"]
