"""Changes of mouth motion after retargeting: gestures, energy, smoothness, phone timing and drawn curves."""

import numpy as np

from retell.edits import Token
from retell.motion import smooth
from retell.phones import SIL
from retell.speech import Speech


class Style:
    """What rest and range are for one target."""

    def __init__(self, speech: Speech):
        silent = speech.phones[speech.phone_of_frames()] == SIL
        motion = speech.motion
        self.rest = np.median(motion[silent] if silent.sum() > 5 else motion, axis=0)
        self.spread = np.maximum(motion.std(0), 1e-6)
        self.low, self.high = np.percentile(motion, [1, 99], axis=0)

    def gesture(self, name: str, frames: int) -> np.ndarray:
        """Motion of a gesture that grows and fades; only the measured parameters take part."""
        peak = self.rest.copy()
        if name == "smile":
            peak[1] = self.high[1] + 0.5 * self.spread[1]
            peak[0] = self.low[0]
        elif name == "closed":
            peak[0] = self.low[0]
        elif name == "open":
            peak[0] = self.high[0]
        grow = np.sin(np.pi * np.clip((np.arange(frames) + 0.5) / max(frames, 1), 0, 1)) ** 0.5
        return (self.rest + grow[:, None] * (peak - self.rest)).astype(np.float32)

    def energy(self, motion: np.ndarray, scale: float) -> np.ndarray:
        """Scale around rest; lips that touch stay in touch."""
        changed = self.rest + scale * (motion - self.rest)
        changed[:, 0] = np.where(
            motion[:, 0] <= self.low[0] + 0.02, np.minimum(changed[:, 0], motion[:, 0]), changed[:, 0]
        )
        changed[:, 0] = np.maximum(changed[:, 0], 0)
        return changed.astype(np.float32)


def perform(motion: np.ndarray, a: int, b: int, token: Token, edges: np.ndarray, style: Style) -> np.ndarray:
    """Motion of frames a..b-1 of `motion` under a token's controls; `edges` are its phones' bounds in frames from a."""
    part = motion[a:b].copy()
    if token.shifts:
        part = _shifted(part, dict(token.shifts), edges)
    if token.smooth:
        wide = motion.copy()
        wide[a:b] = part
        part = smooth(wide, token.smooth)[a:b]
    if token.energy != 1:
        part = style.energy(part, token.energy)
    for parameter, points in token.curves:
        if parameter < part.shape[1]:
            places, values = zip(*points, strict=True)
            drawn = np.interp((np.arange(len(part)) + 0.5) / max(len(part), 1), places, values)
            part[:, parameter] += drawn * style.spread[parameter]
    part[:, 0] = np.maximum(part[:, 0], 0)
    return part.astype(np.float32)


def _shifted(part: np.ndarray, shifts: dict[int, float], edges: np.ndarray) -> np.ndarray:
    """Stretch time between phone bounds so that phone k starts `shifts[k]` frames later."""
    moved = edges.astype(float)
    for phone, frames in shifts.items():
        if phone < len(edges) - 1:
            moved[phone] += frames
    moved = np.maximum.accumulate(np.clip(moved, 0, len(part)))
    moved += np.arange(len(moved)) * 1e-6
    x = np.interp(np.arange(len(part)) + 0.5, [0, *moved, len(part) + 1e-3], [0, *edges, len(part)]) - 0.5
    return np.stack([np.interp(x, np.arange(len(part)), line) for line in part.T], 1)
