"""Speakers made by formula: sentences, phone timing and mouth motion whose truth is known.

A speaker has its own mouth target for each phone, its own coarticulation (how wide and how late each phone pulls on
the mouth), a mixing of parameters, bends, a slow drift and noise. Parameters are 0 to 1 at rest and in normal use:
opening, width, protrusion, teeth, tongue, smile.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from retell.phones import CLOSED, NUMBER, PHONES, SIL, VISEMES, VOWELS
from retell.speech import Speech, Word
from retell.words import Lexicon, dictionary

PARAMETERS = ("opening", "width", "protrusion", "teeth", "tongue", "smile")
# viseme: opening, width, protrusion, teeth, tongue, smile
_SHAPE = {
    "silent": (0.02, 0.50, 0.10, 0.0, 0.1, 0.3),
    "closed": (0.00, 0.48, 0.15, 0.0, 0.1, 0.3),
    "lip-teeth": (0.10, 0.52, 0.10, 0.9, 0.1, 0.3),
    "dental": (0.20, 0.52, 0.10, 0.7, 0.9, 0.3),
    "alveolar": (0.24, 0.55, 0.10, 0.6, 0.7, 0.3),
    "sibilant": (0.14, 0.64, 0.05, 1.0, 0.3, 0.4),
    "rounded-sibilant": (0.22, 0.30, 0.70, 0.9, 0.3, 0.1),
    "r": (0.26, 0.34, 0.55, 0.4, 0.5, 0.2),
    "spread": (0.30, 0.80, 0.02, 0.6, 0.4, 0.6),
    "back": (0.32, 0.52, 0.10, 0.3, 0.2, 0.3),
    "rounded": (0.24, 0.15, 0.95, 0.1, 0.2, 0.1),
    "round-open": (0.60, 0.32, 0.65, 0.2, 0.1, 0.2),
    "mid": (0.45, 0.56, 0.10, 0.4, 0.2, 0.3),
    "open": (0.85, 0.58, 0.10, 0.5, 0.1, 0.3),
}
_SPOKEN = {
    "adjective": "big small old new warm cold happy quiet bright simple famous early open brave smooth purple",
    "noun": "house river garden picture people market bottle window teacher mother family paper island story member "
    "problem village chair bridge voice beach morning weather number lamb song boat shop path thing judge youth",
    "verb": "finds keeps opens makes brings shows takes builds remembers watches moves loves pays visits thanks sees",
    "place": "behind above before under beyond near with from about over",
    "when": "today tomorrow again slowly together always maybe perhaps outside every week",
}
_WORDS = {kind: text.split() for kind, text in _SPOKEN.items()}
_ORDERS = (
    "the adjective noun verb the noun when",
    "my noun verb the adjective noun place the noun",
    "when the noun verb your adjective noun",
    "we thought the noun place the noun was adjective",
    "they show people the adjective noun when",
    "you could move the noun place my adjective noun",
)


@cache
def _any_words() -> list[str]:
    return [word for word in dictionary() if word.isalpha() and 3 <= len(word) <= 9]


def sentence(random: np.random.Generator, wide: bool = False) -> list[str]:
    """A sentence of simple words; a wide one takes half of them from anywhere in the dictionary."""
    order = _ORDERS[random.integers(len(_ORDERS))].split()
    words = [str(random.choice(_WORDS[w])) if w in _WORDS else w for w in order]
    everywhere = _any_words()
    return [
        everywhere[random.integers(len(everywhere))] if wide and w in _WORDS else word
        for w, word in zip(order, words, strict=True)
    ]


def timed(
    words: list[list[str]], random: np.random.Generator, pace: float = 1.0, rate: float = 25.0
) -> Speech:
    """Phones in time for sentences with a short silence around each."""
    lexicon = Lexicon()
    phones, spoken, records, length = [], [], [], []
    for number, text in enumerate(words):
        said, places = lexicon.say_all(text)
        offset = len(phones) + 1
        records += [Word(w, offset + a, offset + b) for w, (a, b) in zip(text, places, strict=True)]
        sequence = [SIL, *said.tolist(), SIL]
        phones += sequence
        spoken += [number] * len(sequence)
        base = [0.16 if p == SIL else 0.105 if p in VOWELS else 0.068 for p in sequence]
        length += (np.array(base) * pace * random.lognormal(0, 0.2, len(base))).tolist()
    end = np.round(np.cumsum(np.maximum(length, 0.03)) * 100) / 100
    start = np.concatenate([[0.0], end[:-1]])
    return Speech(np.array(phones, np.int32), start, end, np.array(spoken, np.int32), records, rate)


@dataclass(frozen=True)
class Speaker:
    target: np.ndarray  # (phones, 6)
    width: np.ndarray  # (phones,) seconds: how far a phone's pull reaches
    lag: np.ndarray  # (phones,) seconds
    mix: np.ndarray  # (6, 6)
    bend: np.ndarray  # (6,) strength of the quadratic
    drift: float
    noise: float
    pace: float

    @classmethod
    def draw(cls, seed: int, own: float = 0.10, style: float = 0.25) -> "Speaker":
        """A speaker; `own` is the spread of the phone targets that belong to this speaker alone."""
        random = np.random.default_rng([seed, 25])
        target = np.array([_SHAPE[v] for v in VISEMES]) + random.normal(0, own, (len(PHONES), 6))
        target[list(CLOSED), 0] = random.normal(0, 0.01, len(CLOSED)).clip(0)
        width = 0.045 * random.lognormal(0, 0.25, len(PHONES))
        width[NUMBER["SIL"]] *= 1.5
        return cls(
            target,
            width,
            random.normal(0, 0.012, len(PHONES)),
            np.eye(6) + random.normal(0, style, (6, 6)),
            random.normal(0, style, 6),
            0.03,
            0.008,
            float(random.uniform(0.9, 1.15)),
        )

    def motion(self, speech: Speech, random: np.random.Generator, frames: int | None = None) -> np.ndarray:
        """Mouth parameters at every frame: each is pulled by its 9 nearest phones."""
        count = round(speech.seconds * speech.rate) if frames is None else frames
        time = (np.arange(count) + 0.5) / speech.rate
        near = np.clip(np.searchsorted(speech.start, time) - 1, 0, len(speech) - 1)
        around = np.clip(near[:, None] + np.arange(-4, 5), 0, len(speech) - 1)
        phone = speech.phones[around]
        centre = ((speech.start + speech.end) / 2)[around] + self.lag[phone]
        reach = self.width[phone] * (0.5 + speech.durations[around] / 0.16)
        pull = np.exp(-(np.abs((time[:, None] - centre) / reach) ** 1.5)) + 1e-12
        pull *= np.where(np.isin(phone, CLOSED), 4.0, 1.0)
        base = (pull[..., None] * self.target[phone]).sum(1) / pull.sum(1, keepdims=True)
        centred = base - 0.35
        shaped = 0.35 + centred @ self.mix + self.bend * centred**2 + 0.05 * np.tanh(4 * centred)
        held = np.clip(base[:, :1] / 0.12, 0, 1)  # a style does not undo a closure
        shaped[:, :1] = shaped[:, :1] * held
        slow = np.cumsum(random.normal(0, 1, (count // 25 + 2, 6)), axis=0) / np.sqrt(count / 25 + 1)
        knots = np.arange(len(slow)) * 25
        drift = np.stack([np.interp(np.arange(count), knots, line) for line in slow.T], 1)
        shaped += self.drift * drift * held + self.noise * random.normal(0, 1, shaped.shape)
        return np.clip(shaped, 0, 1.3).astype(np.float32)

    def speak(self, words: list[list[str]], random: np.random.Generator, rate: float = 25.0) -> Speech:
        speech = timed(words, random, self.pace, rate)
        speech.motion = self.motion(speech, random)
        return speech

    def talk(
        self, seconds: float, random: np.random.Generator, rate: float = 25.0, wide: bool = True
    ) -> Speech:
        """Sentences until they fill the time."""
        words, length = [], 0.0
        while length < seconds:
            batch = [sentence(random, wide) for _ in range(max(int((seconds - length) / 4), 1))]
            words += batch
            length += timed(batch, np.random.default_rng(0), self.pace, rate).seconds
        return self.speak(words, random, rate)
