"""Short clips of the GRID corpus: six words whose first letters make the file's name."""

from pathlib import Path

from retell.words import _DIGITS

_WORDS = (
    {"b": "bin", "l": "lay", "p": "place", "s": "set"},
    {"b": "blue", "g": "green", "r": "red", "w": "white"},
    {"a": "at", "b": "by", "i": "in", "w": "with"},
    {chr(c): chr(c) for c in range(ord("a"), ord("z") + 1)},
    dict(zip("z123456789", _DIGITS, strict=True)),
    {"a": "again", "n": "now", "p": "please", "s": "soon"},
)


def sentence_of(path: Path) -> str:
    code = Path(path).stem.split("_")[-1]
    return " ".join(words[letter] for words, letter in zip(_WORDS, code, strict=True))
