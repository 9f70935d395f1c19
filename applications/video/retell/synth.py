"""Pictures: a mouth from the target's own frames, warped to the parameters wanted and blended into another frame."""

from dataclasses import dataclass

import cv2
import numpy as np

from retell.media import Frames
from retell.mouth import JAW, NOSE, OUTER, RIGID, MouthModel, to_image
from retell.project import Recording

LIPS = slice(0, 40)
_EYES = (RIGID.start, RIGID.start + 3)
CANDIDATES = 12
GRID = 8  # pixels between the points at which the warp is computed exactly


def nearest_frames(
    wanted: np.ndarray, motion: np.ndarray, usable: np.ndarray, poses: np.ndarray
) -> np.ndarray:
    """The target's frame whose mouth comes closest, for each wanted one; runs of following frames are preferred.

    A shortest path through the best candidates of each frame: distance of parameters, plus a price for not going on
    to the next frame and for a different head pose, so that teeth and light do not flicker.
    """
    if not len(wanted):
        return np.zeros(0, int)
    spread = np.maximum(motion[usable].std(0), 1e-6)
    weight = np.array([2.0, 1.0, 0.7, 0.5, 0.5, 0.5])[: motion.shape[1]] / spread
    places = np.flatnonzero(usable)
    pool, goal = motion[places] * weight, wanted * weight
    distance = (goal**2).sum(1)[:, None] - 2 * goal @ pool.T + (pool**2).sum(1)
    count = min(CANDIDATES, len(places))
    best = np.argpartition(distance, count - 1, axis=1)[:, :count]
    cost = np.take_along_axis(distance, best, 1)
    frame = places[best]
    total, back = cost[0], []
    for t in range(1, len(wanted)):
        step = frame[t][None, :] - frame[t - 1][:, None]
        change = np.where(step == 1, 0.0, np.where(np.abs(step) <= 2, 0.15, 0.4))
        change = change + 2 * np.abs(poses[frame[t], 0][None] - poses[frame[t - 1], 0][:, None]) / np.abs(
            poses[frame[t], 0]
        )
        arrive = total[:, None] + change
        back.append(arrive.argmin(0))
        total = arrive.min(0) + cost[t]
    path = [int(total.argmin())]
    for pointers in reversed(back):
        path.append(int(pointers[path[-1]]))
    return frame[np.arange(len(wanted)), path[::-1]]


def thin_plate(places: np.ndarray, values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """A thin-plate spline through values (n, 2) at places (n, 2), read at other places."""

    def radial(a, b):
        d = ((a[:, None] - b[None]) ** 2).sum(-1)
        return d * np.log(d + 1e-9)

    n = len(places)
    centre, scale = places.mean(0), places.std() + 1e-9
    places, at = (places - centre) / scale, (at - centre) / scale
    system = np.zeros((n + 3, n + 3))
    system[:n, :n] = radial(places, places) + 1e-6 * np.eye(n)
    system[:n, n:] = np.concatenate([np.ones((n, 1)), places], 1)
    system[n:, :n] = system[:n, n:].T
    solved = np.linalg.solve(system, np.concatenate([values, np.zeros((3, values.shape[1]))]))
    return radial(at, places) @ solved[:n] + np.concatenate([np.ones((len(at), 1)), at], 1) @ solved[n:]


@dataclass
class Region:
    """Part of a frame in which the mouth is replaced: a mask, and the box around it."""

    mask: np.ndarray  # uint8, as large as the box
    x: int
    y: int

    @property
    def box(self) -> tuple[slice, slice]:
        return slice(self.y, self.y + self.mask.shape[0]), slice(self.x, self.x + self.mask.shape[1])


def region(present: np.ndarray, lips: np.ndarray, size: tuple[int, int]) -> Region:
    """The area of a frame to replace: both mouths, the one there (all points) and the one wanted, with their skin.

    It ends above at the nose and inside the jaw's outline, where a blend would cross the face's edge.
    """
    both = np.concatenate([present[OUTER], lips])
    centre = (both.min(0) + both.max(0)) / 2
    skin = max(round(0.13 * np.linalg.norm(present[_EYES[1]] - present[_EYES[0]])), 3)
    nose, chin = present[NOSE], present[JAW].mean(0)
    down = (centre - nose) / max(np.linalg.norm(centre - nose), 1e-6)
    jaw = chin + (present[JAW] - chin) * 0.94
    outline = np.concatenate([jaw, jaw[[-1]] - down * np.ptp(jaw[:, 1]), jaw[[0]] - down * np.ptp(jaw[:, 1])])
    low = np.floor(both.min(0)).astype(int) - skin - 8
    high = np.ceil(both.max(0)).astype(int) + skin + 8
    low, high = np.maximum(low, 1), np.minimum(high, np.array(size) - 1)
    width, height = np.maximum(high - low, 2)
    mask, inside = np.zeros((2, height, width), np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(np.round(both - low).astype(np.int32)), 255)
    mask = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * skin + 1, 2 * skin + 1)))
    cv2.fillPoly(inside, [np.round(outline - low).astype(np.int32)], 255)
    mask &= inside
    limit = nose + 0.18 * (centre - nose)
    y, x = np.mgrid[:height, :width]
    mask[(x + low[0] - limit[0]) * down[0] + (y + low[1] - limit[1]) * down[1] < 0] = 0
    mask[[0, -1]], mask[:, [0, -1]] = 0, 0
    return Region(mask, int(low[0]), int(low[1]))


class Synthesiser:
    """Draws any mouth of the target into any of its frames."""

    def __init__(self, target: Recording, frames: Frames | None = None):
        self.frames = frames or target.frames()
        self.points, self.poses = target.track["points"], target.track["pose"]
        self.usable = target.track["seen"].astype(bool)
        self.model: MouthModel = target.mouth
        self.motion = target.speech.motion
        self.size = target.size

    def choose(self, wanted: np.ndarray) -> np.ndarray:
        return nearest_frames(wanted, self.motion, self.usable, self.poses)

    def draw(self, background: int, parameters: np.ndarray, source: int) -> tuple[np.ndarray, Region]:
        """The frame `background` with a mouth of these parameters made from frame `source`."""
        pose = self.poses[background]
        face = self.model.decode(parameters[None])[0]
        picture = self.frames[background].copy()
        where = region(self.points[background, :, :2], to_image(face[OUTER], pose), self.size)
        if not where.mask.any():
            return picture, where
        patch = self._warped(source, to_image(face[LIPS], pose), pose, where)
        rows, columns = where.box
        blended = blend(patch, picture[rows, columns], where.mask)
        soft = cv2.dilate(where.mask, np.ones((3, 3), np.uint8)) > 0
        picture[rows, columns][soft] = blended[soft]
        return picture, where

    def _warped(self, source: int, lips: np.ndarray, pose: np.ndarray, where: Region) -> np.ndarray:
        """The box's picture taken from `source` so that its lips come to lie at `lips`."""
        theirs = self.poses[source]
        turn = theirs[0] / pose[0]
        height, width = where.mask.shape
        x = np.arange(0, width + GRID, GRID, dtype=float)
        y = np.arange(0, height + GRID, GRID, dtype=float)
        corner = np.array([where.x, where.y], float)
        grid = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2) + corner
        frame = np.stack(np.meshgrid(np.linspace(0, width, 6), np.linspace(0, height, 6)), -1).reshape(-1, 2)
        rim = frame[(frame == 0).any(1) | (frame == [width, height]).any(1)] + corner

        def base(p):
            z = (p[:, 0] + 1j * p[:, 1] - pose[1]) * turn + theirs[1]
            return np.stack([z.real, z.imag], 1)

        places = np.concatenate([lips, rim])
        shift = np.concatenate([self.points[source, LIPS, :2] - base(lips), np.zeros((len(rim), 2))])
        field = (base(grid) + thin_plate(places, shift, grid)).reshape(len(y), len(x), 2).astype(np.float32)
        # The coarse field, read at every pixel of the box.
        px, py = np.meshgrid(
            np.arange(width, dtype=np.float32) / GRID, np.arange(height, dtype=np.float32) / GRID
        )
        dense = cv2.remap(field, px, py, cv2.INTER_LINEAR)
        return cv2.remap(self.frames[source], dense, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def blend(patch: np.ndarray, under: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Gradients of the patch inside the mask, colours of the frame at its edge."""
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    # seamlessClone puts the middle of the mask's box here; rounding down instead would move the paste by a pixel.
    centre = (int(xs[0] + xs[-1] + 1) // 2, int(ys[0] + ys[-1] + 1) // 2)
    # It also inverts the mask it is given, so it gets a copy.
    return cv2.seamlessClone(patch, under, mask.copy(), centre, cv2.NORMAL_CLONE)


def label(picture: np.ndarray, altered: bool) -> np.ndarray:
    """The visible label: on every frame that the video is edited, and a mark while the mouth is made."""
    height = picture.shape[0]
    scale = height / 720
    text = "Edited video: words changed"
    (width, tall), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.8 * scale, 1)
    pad = round(10 * scale)
    top, right = height - tall - 3 * pad, width + 2 * pad + round(30 * scale)
    corner = picture[top:height, :right]
    corner[:] = corner // 3
    dot = (pad + round(8 * scale), height - tall // 2 - round(1.5 * pad))
    cv2.circle(picture, dot, round(8 * scale), (60, 60, 255) if altered else (140, 140, 140), -1, cv2.LINE_AA)
    place = (dot[0] + round(16 * scale), height - round(1.5 * pad))
    thick = max(round(1.6 * scale), 1)
    cv2.putText(
        picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.8 * scale, (255, 255, 255), thick, cv2.LINE_AA
    )
    return picture


def label_box(size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the corner at the bottom left that the label covers."""
    blank = np.full((size[1], size[0], 3), 255, np.uint8)
    changed = (label(blank, True) < 255).any(2)
    return int(changed.any(1).sum()), int(changed.any(0).sum())
