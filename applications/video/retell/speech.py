"""Speech with its mouth: phones in time, words, and mouth parameters of every video frame.

It is the one record that search, retargeting and synthesis share. Times are seconds, frames are `rate` a second.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from retell.files import read_arrays, write_arrays


@dataclass(frozen=True)
class Word:
    text: str
    first: int  # number of its first phone
    last: int  # one past its last phone
    score: float = 0.0  # how well the sound fits, log-likelihood for each frame; 0 where not known


@dataclass
class Speech:
    phones: np.ndarray  # (P,) phone numbers
    start: np.ndarray  # (P,) seconds
    end: np.ndarray
    utterance: np.ndarray  # (P,) which sentence; motion is continuous only inside one
    words: list[Word]
    rate: float
    motion: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))  # (frames, parameters)

    def __len__(self) -> int:
        return len(self.phones)

    @property
    def seconds(self) -> float:
        return float(self.end[-1]) if len(self) else 0.0

    @property
    def durations(self) -> np.ndarray:
        return self.end - self.start

    def word_times(self, word: Word) -> tuple[float, float]:
        return float(self.start[word.first]), float(self.end[word.last - 1])

    def frame(self, seconds) -> np.ndarray:
        """Frame numbers of times, inside the recording."""
        return np.clip(np.round(np.asarray(seconds) * self.rate).astype(int), 0, max(len(self.motion) - 1, 0))

    def at(self, seconds: np.ndarray) -> np.ndarray:
        """Mouth parameters at any times, linear between frames."""
        x = np.clip(np.asarray(seconds) * self.rate, 0, len(self.motion) - 1)
        low = np.minimum(x.astype(int), max(len(self.motion) - 2, 0))
        part = (x - low)[:, None]
        high = np.minimum(low + 1, len(self.motion) - 1)
        return self.motion[low] * (1 - part) + self.motion[high] * part

    def phone_of_frames(self, count: int | None = None) -> np.ndarray:
        """The phone's place in this speech at every frame; frames outside all phones take the nearest one."""
        times = np.arange(len(self.motion) if count is None else count) / self.rate
        return np.clip(np.searchsorted(self.start, times + 1e-9, side="right") - 1, 0, len(self) - 1)

    def part(self, first: int, last: int) -> "Speech":
        """Phones first to last as a speech of its own that starts at time 0."""
        zero = float(self.start[first])
        frames = slice(round(zero * self.rate), round(float(self.end[last - 1]) * self.rate))
        words = [
            Word(w.text, w.first - first, w.last - first, w.score)
            for w in self.words
            if w.first >= first and w.last <= last
        ]
        cut = slice(first, last)
        return Speech(
            self.phones[cut],
            self.start[cut] - zero,
            self.end[cut] - zero,
            self.utterance[cut],
            words,
            self.rate,
            self.motion[frames],
        )

    def sentences(self) -> list[tuple[int, int]]:
        """First and one past the last phone of each utterance."""
        edges = np.flatnonzero(np.diff(self.utterance)) + 1
        return list(zip([0, *edges.tolist()], [*edges.tolist(), len(self)], strict=True)) if len(self) else []

    def save(self, path: Path) -> None:
        write_arrays(
            path,
            phones=self.phones.astype(np.int32),
            start=self.start,
            end=self.end,
            utterance=self.utterance.astype(np.int32),
            word_text=np.array([w.text for w in self.words], np.str_),
            word_place=np.array([(w.first, w.last) for w in self.words], np.int32).reshape(-1, 2),
            word_score=np.array([w.score for w in self.words], np.float32),
            rate=np.float64(self.rate),
            motion=self.motion.astype(np.float32),
        )

    @classmethod
    def load(cls, path: Path) -> "Speech":
        a = read_arrays(path)
        words = [
            Word(str(t), int(f), int(e), float(s))
            for t, (f, e), s in zip(a["word_text"], a["word_place"], a["word_score"], strict=True)
        ]
        return cls(
            a["phones"], a["start"], a["end"], a["utterance"], words, float(a["rate"]), motion=a["motion"]
        )


def join(parts: list[Speech]) -> Speech:
    """Several recordings one after the other; each part's length is its number of frames."""
    phones, start, end, utterance, words, motion = [], [], [], [], [], []
    seconds, count, spoken = 0.0, 0, 0
    for part in parts:
        phones.append(part.phones)
        start.append(part.start + seconds)
        end.append(part.end + seconds)
        utterance.append(part.utterance + spoken)
        words += [Word(w.text, w.first + count, w.last + count, w.score) for w in part.words]
        motion.append(part.motion)
        seconds += len(part.motion) / part.rate
        count += len(part)
        spoken += int(part.utterance.max(initial=-1)) + 1
    joined = map(np.concatenate, (phones, start, end, utterance))
    return Speech(*joined, words, parts[0].rate, np.concatenate(motion))
