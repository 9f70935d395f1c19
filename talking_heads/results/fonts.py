"""Fonts for pictures: of those installed, some that together have every letter of a text."""

import logging
from functools import cache
from typing import Any

LOGGER = logging.getLogger(__name__)
FIRST = "DejaVu Sans"  # comes with matplotlib
_MOST = 12  # letters that a warning names
_told: set[str] = set()  # letters that were warned of


def families(text: str) -> list[str]:
    """Names of fonts in the order in which a letter looks for one that has it; a warning names letters that no font has.

    SVG pictures keep texts as texts, so that their viewer looks for fonts of its own.
    """
    left = {letter for letter in text if not letter.isspace()} - _letters(_path(FIRST))
    found = [FIRST]
    for name, path in _installed().items() if left else ():
        if has := left & _letters(path):
            found.append(name)
            left -= has
        if not left:
            break
    if left - _told:
        _told.update(left)
        LOGGER.warning(
            "no font here has %s: PNG pictures show boxes, SVG pictures the letters; install a font that has them, "
            "for example Noto Sans CJK",
            " ".join(sorted(left)[:_MOST]) + (" ..." if len(left) > _MOST else ""),
        )
    return [*found, "sans-serif"]


def _path(name: str) -> str:
    from matplotlib.font_manager import FontProperties, findfont

    return str(findfont(FontProperties(family=[name])))


@cache
def _installed() -> dict[str, str]:
    """{name: path} of upright fonts of ordinary weight, sans-serif ones first."""
    from matplotlib.font_manager import fontManager

    plain = [
        x
        for x in fontManager.ttflist
        if "LastResort" not in x.name.replace(" ", "")  # has every letter, all as boxes
        and x.style == "normal"
        and x.stretch == "normal"
        and x.weight in (400, "normal", "regular")
    ]
    plain.sort(key=lambda x: ("Sans" not in x.name, "Mono" in x.name, x.name))
    return {x.name: x.fname for x in plain}


@cache
def _letters(path: str) -> frozenset[str]:
    """Letters that a font has outlines for; none of a font of bitmaps, which matplotlib cannot draw."""
    from matplotlib.ft2font import FT2Font

    try:
        font: Any = FT2Font(path)
        if not font.scalable:
            return frozenset()
        return frozenset(map(chr, font.get_charmap()))
    except (RuntimeError, OSError, ValueError):
        return frozenset()
