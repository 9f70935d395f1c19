"""How words are said: the user's own list, the CMU dictionary that pocketsphinx carries, then letter rules."""

import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

from retell import phones
from retell.errors import UserError

DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]

# Letter patterns, longest first at each place; `^` is a word's start and `$` its end. Guesses only: users correct them.
_RULES = {
    "tion$": "SH AH N", "sion$": "ZH AH N", "cian$": "SH AH N", "ture$": "CH ER", "ight": "AY T", "ough": "AO",
    "augh": "AO", "eigh": "EY", "tch": "CH", "dge": "JH", "sch": "SH", "ing$": "IH NG", "ious$": "IY AH S",
    "ous$": "AH S", "able$": "AH B AH L", "ible$": "AH B AH L", "^kn": "N", "^wr": "R", "^ps": "S", "^gn": "N",
    "^x": "Z", "^ex": "IH G Z", "ph": "F", "sh": "SH", "ch": "CH", "th": "TH", "wh": "W", "ck": "K", "ng": "NG",
    "qu": "K W", "gh": "G", "ee": "IY", "ea": "IY", "oo": "UW", "ou": "AW", "ow": "OW", "oa": "OW", "oi": "OY",
    "oy": "OY", "ai": "EY", "ay": "EY", "au": "AO", "aw": "AO", "ei": "IY", "ey$": "IY", "ie": "IY", "ew": "UW",
    "ue$": "UW", "igh": "AY", "ar": "AA R", "er": "ER", "ir": "ER", "ur": "ER", "or": "AO R", "all": "AO L",
    "ce": "S", "ci": "S IH", "cy": "S IY", "ge$": "JH", "gi": "JH IH", "gy": "JH IY", "le$": "AH L", "y$": "IY",
    "^y": "Y", "es$": "Z", "ed$": "D", "e$": "", "a$": "AH", "o$": "OW", "i$": "IY", "u$": "UW", "bb": "B",
    "cc": "K", "dd": "D", "ff": "F", "gg": "G", "ll": "L", "mm": "M", "nn": "N", "pp": "P", "rr": "R", "ss": "S",
    "tt": "T", "zz": "Z", "a": "AE", "b": "B", "c": "K", "d": "D", "e": "EH", "f": "F", "g": "G", "h": "HH",
    "i": "IH", "j": "JH", "k": "K", "l": "L", "m": "M", "n": "N", "o": "AA", "p": "P", "q": "K", "r": "R",
    "s": "S", "t": "T", "u": "AH", "v": "V", "w": "W", "x": "K S", "y": "IH", "z": "Z",
}  # fmt: skip
_LONG = {"a": "EY", "e": "IY", "i": "AY", "o": "OW", "u": "UW"}  # before one consonant and a final silent e


@cache
def dictionary() -> dict[str, str]:
    """The CMU dictionary, first pronunciation of each word."""
    from pocketsphinx import get_model_path

    found: dict[str, str] = {}
    for line in Path(get_model_path("en-us/cmudict-en-us.dict")).read_text(encoding="utf-8").splitlines():
        word, _, said = line.partition(" ")
        if said and not word.endswith(")"):
            found[word] = said.strip()
    return found


def split(text: str) -> list[str]:
    """A text's words as they are said: lower case, no punctuation, digits spelled one by one."""
    plain = text.lower().replace("’", "'").replace("‘", "'")
    plain = re.sub(r"\d", lambda d: f" {DIGITS[int(d[0])]} ", plain)
    return [word for part in re.findall(r"[^\W_]+(?:'[^\W_]+)*'?", plain) if (word := part.strip("'"))]


def guess(word: str) -> str:
    """Phones of a word by letter rules."""
    said, i, letters = [], 0, re.sub("[^a-z]", "", word.lower())
    while i < len(letters):
        if (
            i + 3 == len(letters)
            and letters[i] in _LONG
            and letters[i + 1] not in "aeiouwxyr"
            and letters[-1] == "e"
        ):
            said.append(_LONG[letters[i]])
            i += 1
            continue
        for length in range(min(5, len(letters) - i), 0, -1):
            part = letters[i : i + length]
            forms = [part]
            if i == 0:
                forms.insert(0, "^" + part)
            if i + length == len(letters):
                forms.insert(0, part + "$")
            hit = next((form for form in forms if form in _RULES), None)
            if hit is not None:
                said += _RULES[hit].split()
                i += length
                break
    return " ".join(said)


@dataclass
class Lexicon:
    """Pronunciations, with the user's own first. `guessed` collects the words that only letter rules could say."""

    own: dict[str, str] = field(default_factory=dict)
    guessed: dict[str, str] = field(default_factory=dict)

    def say(self, word: str) -> np.ndarray:
        word = word.lower()
        said = self.own.get(word) or dictionary().get(word)
        if said is None and word.endswith("'s") and word[:-2] in dictionary():
            said = dictionary()[word[:-2]] + " Z"
        if said is None:
            said = guess(word)
            if not said:
                raise UserError(
                    "words must be written in Latin letters",
                    repr(word),
                    f'give its phones: retell pronounce "{word}" "HH AH ..."',
                )
            self.guessed[word] = said
        return phones.numbers(said)

    def say_all(self, words: list[str]) -> tuple[np.ndarray, list[tuple[int, int]]]:
        """Phones of several words in a row, and each word's first and one past its last phone."""
        said = [self.say(word) for word in words]
        ends = np.cumsum([len(s) for s in said]).tolist()
        return np.concatenate(said), list(zip([0, *ends[:-1]], ends, strict=True))
