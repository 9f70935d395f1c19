"""Mouth motion put together from pieces of a repository, on the timing of the speech it is for."""

import numpy as np

from retell.search import Index, Match
from retell.speech import Speech

BLEND = 0.06  # seconds on each side of a cut in which one piece fades into the next


def follow(index: Index, match: Match, speech: Speech, frames: int) -> np.ndarray:
    """The repository's motion along a match, each phone stretched to the length it has in `speech`.

    Near a cut both pieces go on past their ends, in their own recording, and fade into each other.
    """
    source = index.speech
    time = (np.arange(frames) + 0.5) / speech.rate
    total = np.zeros((frames, source.motion.shape[1]), np.float64)
    weight = np.zeros((frames, 1))
    for first, last, place in match.pieces:
        edges = np.concatenate([speech.start[first:last], speech.end[last - 1 : last]])
        theirs = np.concatenate(
            [source.start[place : place + last - first], [source.end[place + last - first - 1]]]
        )
        low = -np.inf if first == 0 else edges[0] - BLEND
        high = np.inf if last == len(speech) else edges[-1] + BLEND
        near = np.flatnonzero((time >= low) & (time <= high))
        if not len(near):
            continue
        t = time[near]
        inside = np.interp(t, edges, theirs) + np.minimum(t - edges[0], 0) + np.maximum(t - edges[-1], 0)
        rise = np.ones(len(t)) if first == 0 else np.clip((t - low) / (2 * BLEND), 0, 1)
        fall = np.ones(len(t)) if last == len(speech) else np.clip((high - t) / (2 * BLEND), 0, 1)
        w = np.maximum(np.minimum(rise, fall), 1e-6)[:, None]
        total[near] += w * source.at(inside - 0.5 / source.rate)
        weight[near] += w
    return (total / np.maximum(weight, 1e-12)).astype(np.float32)


def from_repository(index: Index, speech: Speech, frames: int | None = None) -> np.ndarray:
    """The repository's motion for all sentences of a speech, each searched on its own."""
    count = len(speech.motion) if frames is None else frames
    motion = np.zeros((count, index.speech.motion.shape[1]), np.float32)
    for first, last in speech.sentences():
        part = speech.part(first, last)
        a = round(float(speech.start[first]) * speech.rate)
        b = count if last == len(speech) else round(float(speech.end[last - 1]) * speech.rate)
        b = min(b, count)
        motion[a:b] = follow(index, index.search(part.phones, part.durations), part, b - a)
    return motion


def smooth(motion: np.ndarray, frames: float) -> np.ndarray:
    """A Gaussian over time with this standard deviation in frames."""
    if frames <= 0 or len(motion) < 2:
        return motion
    reach = int(np.ceil(3 * frames))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / frames) ** 2)
    padded = np.pad(motion, [(reach, reach), (0, 0)], mode="edge")
    smoothed = [np.convolve(line, kernel / kernel.sum(), mode="valid") for line in padded.T]
    return np.stack(smoothed, 1).astype(motion.dtype)
