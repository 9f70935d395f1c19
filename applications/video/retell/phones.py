"""The 39 phones of English and silence: how they are made, what they look like, how far apart two of them are.

A phone is a small integer, its place in PHONES. Distances are integers from 0 (same phone) to 100.
"""

import numpy as np

from retell.errors import UserError

SIL = 0
# name: (viseme, place, manner, voiced) for consonants
_CONSONANTS = {
    "P": ("closed", "lips", "stop", 0),
    "B": ("closed", "lips", "stop", 1),
    "M": ("closed", "lips", "nasal", 1),
    "F": ("lip-teeth", "lip-teeth", "fricative", 0),
    "V": ("lip-teeth", "lip-teeth", "fricative", 1),
    "TH": ("dental", "teeth", "fricative", 0),
    "DH": ("dental", "teeth", "fricative", 1),
    "T": ("alveolar", "ridge", "stop", 0),
    "D": ("alveolar", "ridge", "stop", 1),
    "N": ("alveolar", "ridge", "nasal", 1),
    "L": ("alveolar", "ridge", "liquid", 1),
    "S": ("sibilant", "ridge", "fricative", 0),
    "Z": ("sibilant", "ridge", "fricative", 1),
    "SH": ("rounded-sibilant", "behind ridge", "fricative", 0),
    "ZH": ("rounded-sibilant", "behind ridge", "fricative", 1),
    "CH": ("rounded-sibilant", "behind ridge", "affricate", 0),
    "JH": ("rounded-sibilant", "behind ridge", "affricate", 1),
    "R": ("r", "behind ridge", "liquid", 1),
    "Y": ("spread", "palate", "glide", 1),
    "K": ("back", "velum", "stop", 0),
    "G": ("back", "velum", "stop", 1),
    "NG": ("back", "velum", "nasal", 1),
    "W": ("rounded", "lips", "glide", 1),
    "HH": ("open", "throat", "fricative", 0),
}
# name: (viseme, height 0 open .. 3 closed, backness 0 front .. 2 back, rounded)
_VOWELS = {
    "AA": ("open", 0, 2, 0),
    "AE": ("open", 0, 0, 0),
    "AH": ("mid", 1, 1, 0),
    "AO": ("round-open", 1, 2, 1),
    "AW": ("open", 0, 1, 1),
    "AY": ("open", 0, 1, 0),
    "EH": ("mid", 1, 0, 0),
    "ER": ("r", 2, 1, 1),
    "EY": ("spread", 2, 0, 0),
    "IH": ("spread", 2, 0, 0),
    "IY": ("spread", 3, 0, 0),
    "OW": ("rounded", 2, 2, 1),
    "OY": ("round-open", 1, 2, 1),
    "UH": ("rounded", 2, 2, 1),
    "UW": ("rounded", 3, 2, 1),
}
PHONES = ("SIL", *_CONSONANTS, *_VOWELS)
NUMBER = {name: i for i, name in enumerate(PHONES)}
VISEMES = ("silent", *[features[0] for features in (*_CONSONANTS.values(), *_VOWELS.values())])
CLOSED = tuple(NUMBER[name] for name in "PBM")
OPEN_VOWELS = tuple(NUMBER[name] for name in ("AA", "AE", "AW", "AY"))
VOWELS = tuple(NUMBER[name] for name in _VOWELS)


def _distance(a: str, b: str) -> int:
    if a == b:
        return 0
    if "SIL" in (a, b):
        return 100
    same_look = VISEMES[NUMBER[a]] == VISEMES[NUMBER[b]]
    if a in _CONSONANTS and b in _CONSONANTS:
        (_, place, manner, voice), (_, place2, manner2, voice2) = _CONSONANTS[a], _CONSONANTS[b]
        made = 5 * (voice != voice2) + 15 * (manner != manner2) + 30 * (place != place2)
    elif a in _VOWELS and b in _VOWELS:
        (_, height, back, rounded), (_, height2, back2, rounded2) = _VOWELS[a], _VOWELS[b]
        made = 5 + 10 * abs(height - height2) + 6 * abs(back - back2) + 15 * (rounded != rounded2)
    else:
        made = 55  # a vowel and a consonant are told apart by eye unless their lips look the same
    if same_look:
        return min(made, 25)
    lips = ("closed", "lip-teeth")  # the eye notices a missing closure first
    differ = 40 if VISEMES[NUMBER[a]] in lips or VISEMES[NUMBER[b]] in lips else 20
    return min(made + differ, 100)


DISTANCE = np.array([[_distance(a, b) for b in PHONES] for a in PHONES], np.int32)


def numbers(names: str | list[str]) -> np.ndarray:
    """Phone numbers of names such as "HH AH L OW"; stress marks (AH0) are dropped."""
    names = names.split() if isinstance(names, str) else names
    plain = [name.upper().rstrip("012") for name in names]
    unknown = [name for name in plain if name not in NUMBER]
    if unknown:
        raise UserError(
            "phones must be ARPAbet names such as HH AH L OW",
            ", ".join(map(repr, unknown)),
            f"use only {' '.join(PHONES[1:])}",
        )
    return np.array([NUMBER[name] for name in plain], np.int32)


def names(phones) -> list[str]:
    return [PHONES[p] for p in phones]
