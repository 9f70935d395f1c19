"""Which of the target's own frames lie behind each output frame, so that the head moves on without a jump."""

from dataclasses import dataclass

import numpy as np

REACH = 15  # frames on each side that may be re-timed
FASTEST, SLOWEST = 1.7, 0.6


@dataclass(frozen=True)
class Bridge:
    """Frames behind an edit: `before` output frames ahead of it and `after` behind it are re-timed too."""

    before: int
    after: int
    frames: np.ndarray  # (before + length + after,)
    jump: float = 0.0  # head movement in eye distances where a cut could not be avoided


def bridge(
    first: int, last: int, length: int, poses: np.ndarray, low: int = 0, high: int | None = None
) -> Bridge:
    """Frames for `length` output frames in place of frames first..last-1; neighbours within low..high may be re-timed.

    Similar lengths are re-timed. A longer part is filled by going on, back and on again at normal speed. A shorter
    one re-times its neighbours as well; when that is not enough, a cut is made where the head is most alike.
    """
    total = len(poses)
    high = total if high is None else high
    gap = last - first
    if length and SLOWEST <= gap / length <= FASTEST:
        return Bridge(0, 0, _line(first, last, length))
    if length > gap:
        return Bridge(0, 0, _to_and_fro(first, last, length, total))
    before, after = min(REACH, first - low), min(REACH, high - last)
    for reach in range(1, REACH + 1):
        b, a = min(reach, before), min(reach, after)
        if length + b + a and (gap + b + a) / (length + b + a) <= FASTEST:
            return Bridge(b, a, _line(first - b, last + a, length + b + a))
    return _cut(first, last, length, before, after, poses)


def _line(first: int, last: int, length: int) -> np.ndarray:
    return np.round(first + (np.arange(length) + 0.5) * (last - first) / length - 0.5).astype(int)


def _to_and_fro(first: int, last: int, length: int, total: int) -> np.ndarray:
    """A walk of one frame a step from first to last that turns where it must; steps of 0 use up an odd frame."""
    spare = length - (last - first)
    forth = min(spare // 2, total - last)
    back = min(spare // 2 - forth, first)
    steps = [1] * (last - first + forth) + [-1] * forth
    steps += [-1] * back + [1] * back
    rest = length - len(steps)
    if rest > 2 and forth + back > 0:
        steps += ([1] * forth + [-1] * (forth + back) + [1] * back) * (rest // (2 * (forth + back)) + 1)
        steps = steps[:length]
    steps += [0] * (length - len(steps))
    return np.clip(first - 1 + np.cumsum(steps), 0, total - 1)


def _cut(first: int, last: int, length: int, before: int, after: int, poses: np.ndarray) -> Bridge:
    """Leave at frame i and come in at frame j with the most similar pose; both sides are re-timed to fill."""
    leave = np.arange(first - before, first + 1)
    enter = np.arange(last, last + after + 1)
    scale = np.abs(poses[:, 0]).mean()
    i, j = np.clip(leave - 1, 0, None), np.clip(enter, None, len(poses) - 1)
    move = np.abs(poses[i, 1][:, None] - poses[j, 1][None]) / scale
    turn = np.abs(poses[i, 0][:, None] - poses[j, 0][None]) / scale
    at, to = np.unravel_index((move + turn).argmin(), move.shape)
    head = length // 2
    ahead = _line(first - before, max(leave[at], first - before + 1), before + head)
    behind = _line(min(enter[to], last + after - 1), last + after, length - head + after)
    return Bridge(before, after, np.concatenate([ahead, behind]), float((move + turn)[at, to]))
