"""A drawn face whose mouth follows the parameters of `procedural.PARAMETERS`, with the points a tracker would find."""

from dataclasses import dataclass

import cv2
import numpy as np

from retell.motion import smooth
from retell.mouth import POINTS, RIGID

MOUTH = 0.98  # how far below the eyes, in eye distances
LIP, CAVITY, TEETH, TONGUE = (88, 84, 178), (38, 18, 48), (236, 240, 244), (128, 92, 214)  # BGR
_SHIFT = 4  # bits of sub-pixel precision when drawing


@dataclass(frozen=True)
class Look:
    skin: tuple[int, int, int]
    hair: tuple[int, int, int]
    shirt: tuple[int, int, int]
    wall: tuple[int, int, int]


LOOKS = (
    Look((150, 184, 228), (40, 52, 78), (150, 96, 52), (196, 190, 176)),
    Look((104, 138, 190), (28, 26, 30), (92, 130, 70), (178, 190, 198)),
)


def face_points(mouth: np.ndarray) -> np.ndarray:
    """(frames, POINTS, 3) in the face frame, for mouth parameters (frames, 6)."""
    opening, width, protrusion, _, _, smile = np.clip(mouth, 0, 1.4).T
    half = 0.20 + 0.20 * width - 0.05 * protrusion
    gap = 0.40 * opening
    lift = 0.10 * (smile - 0.3)
    count = len(mouth)
    s = np.concatenate([np.linspace(-1, 1, 11), np.linspace(0.8, -0.8, 9)])
    lower = np.concatenate([np.ones(11), np.zeros(9)])
    bow = 1 - np.abs(s) ** 2.2
    points = np.zeros((count, POINTS, 3))
    depth = -(0.10 + 0.15 * protrusion)

    def ring(half, up, down):
        y = np.where(lower, down[:, None] * bow, -up[:, None] * bow)
        x = half[:, None] * s
        return np.stack([x, MOUTH + y - lift[:, None] * s**2, np.broadcast_to(depth[:, None], x.shape)], -1)

    inner_half = 0.9 * half
    points[:, 20:40] = ring(inner_half, 0.3 * gap, 0.7 * gap)
    points[:, :20] = ring(half, 0.3 * gap + 0.055 + 0.02 * protrusion, 0.7 * gap + 0.075 + 0.03 * protrusion)
    angle = np.linspace(0.12 * np.pi, 0.88 * np.pi, 13)[::-1]
    drop = 0.6 * gap
    points[:, 40:53, 0] = 0.80 * np.cos(angle)
    points[:, 40:53, 1] = 0.52 + (1.02 + drop[:, None]) * np.sin(angle)
    points[:, RIGID, :2] = [(-0.5, 0), (-0.17, 0), (0.17, 0), (0.5, 0), (0, 0), (0, 0.16)]
    points[:, 59, :2] = (0, 0.66)
    return points


def head_motion(
    frames: int, size: tuple[int, int], random: np.random.Generator, rate: float = 25.0
) -> np.ndarray:
    """(frames, 2) complex turn and shift: a head that sways slowly around the middle of the picture."""
    width, height = size
    unit = 0.26 * height
    sway = smooth(random.normal(0, 1, (frames + 50, 4)), rate * 0.6)[25 : 25 + frames]
    sway /= np.maximum(sway.std(0), 1e-6)
    turn = unit * np.exp(0.02 * sway[:, 0] + 0.04j * sway[:, 1])
    shift = width / 2 + 0.42j * height + unit * (0.05 * sway[:, 2] + 0.03j * sway[:, 3])
    return np.stack([turn, shift], 1)


def place(points: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """Points of the face frame as a tracker sees them in the image."""
    seen = (points[..., 0] + 1j * points[..., 1]) * poses[:, :1] + poses[:, 1:]
    return np.stack([seen.real, seen.imag, points[..., 2] * np.abs(poses[:, :1])], -1).astype(np.float32)


class Artist:
    """Draws one speaker's frames: everything at twice the size, then averaged down."""

    def __init__(self, look: Look, size: tuple[int, int], seed: int = 0):
        self.look, self.size = look, size
        width, height = size
        random = np.random.default_rng(seed)
        rough = cv2.resize(random.normal(0, 14, (height // 40, width // 40, 1)), (width, height))
        light = np.linspace(1.08, 0.9, width)[None, :, None]
        wall = np.clip(np.array(look.wall) * light + rough[..., None], 0, 255).astype(np.uint8)
        cv2.rectangle(wall, (width // 14, height // 10), (width // 4, height // 2), (96, 120, 150), -1)
        cv2.rectangle(wall, (width // 14, height // 10), (width // 4, height // 2), (60, 70, 84), 3)
        self.wall = cv2.resize(wall, (2 * width, 2 * height), interpolation=cv2.INTER_NEAREST)

    def frame(self, mouth: np.ndarray, pose: np.ndarray, blink: float = 0.0) -> np.ndarray:
        """One BGR frame: mouth parameters (6,), pose (turn, shift), blink 0 to 1."""
        picture, look = self.wall.copy(), self.look
        points = place(face_points(mouth[None]), pose[None])[0, :, :2]
        drop = float(np.clip(mouth[0], 0, 1.4)) * 0.24

        def at(x, y):
            seen = (np.asarray(x) + 1j * np.asarray(y)) * pose[0] + pose[1]
            return np.stack([seen.real, seen.imag], -1)

        def fill(polygon, colour):
            scaled = np.round((2 * np.asarray(polygon) + 0.5) * 2**_SHIFT).astype(np.int32)
            cv2.fillPoly(picture, [scaled], colour, cv2.LINE_AA, _SHIFT)

        def disc(x, y, rx, ry, colour):
            turn = np.linspace(0, 2 * np.pi, 40)
            fill(at(x + rx * np.cos(turn), y + ry * np.sin(turn)), colour)

        body = at([-1.9, -1.2, -0.4, 0.4, 1.2, 1.9, 2.1, -2.1], [2.4, 1.9, 1.75, 1.75, 1.9, 2.4, 5, 5])
        fill(body, look.shirt)
        shade = tuple(int(0.82 * c) for c in look.skin)
        fill(at([-0.38, 0.38, 0.42, -0.42], [1.1, 1.1, 1.95, 1.95]), shade)
        disc(0, -0.05, 1.0, 1.12, look.hair)
        angle = np.linspace(0, 2 * np.pi, 80)
        tall = np.where(np.sin(angle) > 0, 1.02 + drop, 1.05)
        fill(
            at(0.82 * np.cos(angle), 0.52 + tall * np.sin(angle) * np.where(np.sin(angle) > 0, 1, 1.0)),
            look.skin,
        )
        fringe = np.linspace(np.pi, 2 * np.pi, 30)
        fill(
            np.concatenate(
                [
                    at(0.84 * np.cos(fringe), -0.15 + 0.6 * np.sin(fringe)),
                    at([0.5, 0, -0.5], [-0.3, -0.38, -0.3]),
                ]
            ),
            look.hair,
        )
        for side in (-1, 1):
            disc(
                side * 0.335, 0, 0.165, 0.085 * (1 - blink) + 0.006, (245, 245, 245) if blink < 0.8 else shade
            )
            if blink < 0.8:
                disc(side * 0.335, 0.0, 0.07, min(0.07, 0.085 * (1 - blink)), (70, 60, 40))
            fill(at(side * 0.335 + np.array([-0.2, 0.2, 0.18, -0.18]), [-0.2, -0.2, -0.25, -0.25]), look.hair)
        fill(at([-0.03, 0.03, 0.12, 0, -0.12], [0.15, 0.15, 0.58, 0.66, 0.58]), shade)
        self._mouth(fill, at, points, np.clip(mouth, 0, 1.4))
        return cv2.resize(picture, self.size, interpolation=cv2.INTER_AREA)

    @staticmethod
    def _mouth(fill, at, points, mouth) -> None:
        fill(points[0:20], LIP)
        inner = points[20:40]
        fill(inner, CAVITY)
        upper, lower = np.concatenate([inner[[0]], inner[:10:-1], inner[[10]]]), inner[:11]
        gap = lower - upper
        if mouth[3] > 0.05:  # teeth hang from the upper lip, the tongue rises from the lower one
            fill(np.concatenate([upper, (upper + gap * 0.45 * min(mouth[3], 1))[::-1]]), TEETH)
        if mouth[4] > 0.05:
            fill(np.concatenate([lower, (lower - gap * 0.4 * min(mouth[4], 1))[::-1]])[2:-2], TONGUE)


def blinks(frames: int, random: np.random.Generator, rate: float = 25.0) -> np.ndarray:
    closed = np.zeros(frames)
    at = random.uniform(1, 3)
    while at * rate < frames:
        distance = np.abs(np.arange(frames) - at * rate)
        closed = np.maximum(closed, np.clip(1.6 - distance / 2.2, 0, 1))
        at += random.uniform(2, 5)
    return closed


def seen_opening(frame: np.ndarray, pose: np.ndarray, look: Look) -> float:
    """The mouth's opening in a picture of a drawn face, in eye distances: how much of the middle is inside the lips."""
    x, y = np.linspace(-0.04, 0.04, 9), np.linspace(MOUTH - 0.35, MOUTH + 0.5, 240)
    grid = (x[None, :] + 1j * y[:, None]) * pose[0] + pose[1]
    seen = cv2.remap(frame, grid.real.astype(np.float32), grid.imag.astype(np.float32), cv2.INTER_LINEAR)
    palette = np.array([look.skin, [0.82 * c for c in look.skin], LIP, CAVITY, TEETH, TONGUE], float)
    nearest = ((seen[:, :, None].astype(float) - palette) ** 2).sum(-1).argmin(-1)
    return float((nearest >= 3).mean() * (y[-1] - y[0]))
