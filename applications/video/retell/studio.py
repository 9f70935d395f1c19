"""Procedural recordings as files: a drawn speaker with a formula voice, and everything that is true about it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retell import draw, formant
from retell.encode import encode_segment, write_result
from retell.media import SOUND, resample
from retell.procedural import Speaker
from retell.speech import Speech

VOICE = 16000


@dataclass
class Shot:
    """A drawn recording: its truth, with points as a tracker would find them."""

    speaker: Speaker
    artist: draw.Artist
    speech: Speech  # true phones, words and the six parameters of `procedural`
    poses: np.ndarray
    points: np.ndarray
    blink: np.ndarray

    @property
    def transcript(self) -> str:
        return " ".join(w.text for w in self.speech.words)

    def frame(self, number: int) -> np.ndarray:
        return self.artist.frame(self.speech.motion[number], self.poses[number], float(self.blink[number]))

    def track(self, frames) -> tuple[np.ndarray, np.ndarray]:
        """In place of a tracker: the points that were drawn."""
        count = sum(1 for _ in frames)
        return self.points[:count], np.ones(count, bool)


def voice(speech: Speech, pitch: float, seed: int) -> np.ndarray:
    sound = formant.voice(speech, VOICE, pitch, seed)
    return resample((sound * 20000).astype(np.int16), VOICE, SOUND)


def shoot(speaker: int, words: list[list[str]], size: tuple[int, int], seed: int, rate: float = 25.0) -> Shot:
    random = np.random.default_rng([seed, speaker])
    who = Speaker.draw(speaker)
    speech = who.speak(words, random, rate)
    count = len(speech.motion)
    poses = draw.head_motion(count, size, random, rate)
    artist = draw.Artist(draw.LOOKS[speaker % len(draw.LOOKS)], size, speaker)
    points = draw.place(draw.face_points(speech.motion), poses)
    return Shot(who, artist, speech, poses, points, draw.blinks(count, random, rate))


def film(shot: Shot, path: Path, pitch: float = 120.0, seed: int = 0) -> Path:
    """Write the recording as an MP4 with sound."""
    from fractions import Fraction

    rate = Fraction(shot.speech.rate)
    frames = (shot.frame(i) for i in range(len(shot.speech.motion)))
    sound = voice(shot.speech, pitch, seed)
    length = round(len(shot.speech.motion) * SOUND / shot.speech.rate)
    write_result(
        path, [encode_segment(frames, rate, shot.artist.size)], sound[:length], rate, shot.artist.size
    )
    return path
