"""Points of the mouth, head pose, and mouth parameters in a frame that moves with the head.

A tracked face is an array (frames, POINTS, 3): x and y in pixels, z towards the viewer negative, in the same unit.
Pose is a similarity of the plane, two complex numbers for each frame: image = turn * face + shift, where the face
frame has its origin between the outer eye corners and the distance of these as its unit.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retell.files import read_arrays, write_arrays
from retell.motion import smooth

# Points of the face mesh with 468 points. Lips go round from one corner: lower lip first, then the upper one back.
_OUTER = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
_INNER = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)
_JAW = (172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397)
_RIGID = (33, 133, 362, 263, 168, 6)
_NOSE = (2,)
MESH = (*_OUTER, *_INNER, *_JAW, *_RIGID, *_NOSE)
OUTER, INNER, JAW = slice(0, 20), slice(20, 40), slice(40, 53)
RIGID, NOSE = slice(53, 59), 59
MOVING = slice(0, 53)  # what the mouth moves: lips and jaw
POINTS = len(MESH)
PARAMETERS = ("opening", "width", "protrusion", "shape 1", "shape 2", "shape 3")


def plane(points: np.ndarray) -> np.ndarray:
    return points[..., 0] + 1j * points[..., 1]


def pose(points: np.ndarray, calm: float = 1.5) -> np.ndarray:
    """(frames, 2) complex turn and shift, fitted to the points that the mouth does not move, smoothed over time."""
    seen = plane(points[:, RIGID])
    left, right = seen[:, 0], seen[:, 3]
    own = (seen - ((left + right) / 2)[:, None]) / (right - left)[:, None]
    model = own.mean(0)
    centred = model - model.mean()
    turn = ((seen - seen.mean(1, keepdims=True)) @ centred.conj()) / (centred @ centred.conj())
    shift = seen.mean(1) - turn * model.mean()
    flat = smooth(np.stack([turn.real, turn.imag, shift.real, shift.imag], 1), calm)
    return np.stack([flat[:, 0] + 1j * flat[:, 1], flat[:, 2] + 1j * flat[:, 3]], 1)


def to_face(points: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """Complex points in the face frame."""
    return (plane(points) - poses[:, 1:]) / poses[:, :1]


def to_image(face: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """(points, 2) pixels of complex points of the face frame under one pose."""
    seen = face * pose[0] + pose[1]
    return np.stack([seen.real, seen.imag], -1)


def measured(points: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """Opening and width of the lips and their protrusion, in eye distances."""
    face, scale = to_face(points, poses), np.abs(poses[:, 0])
    depth = (points[:, RIGID, 2].mean(1) - points[:, :40, 2].mean(1)) / scale
    return np.stack([np.abs(face[:, 25] - face[:, 35]), np.abs(face[:, 0] - face[:, 10]), depth], 1)


def _flat(face: np.ndarray) -> np.ndarray:
    return np.concatenate([face.real, face.imag], axis=-1)


@dataclass
class MouthModel:
    """One speaker's mouth: parameters of tracked points, and the points of parameters.

    Parameters are the three measured ones and three principal components of what they leave of the shape.
    """

    shape: np.ndarray  # (4, 106): constant and the measured three -> points in the face frame
    basis: np.ndarray  # (3, 106): components of the rest
    spread: np.ndarray  # (3,) their standard deviations

    @classmethod
    def fit(cls, points: np.ndarray, poses: np.ndarray) -> "MouthModel":
        flat, x = _flat(to_face(points, poses)[:, MOVING]), _design(measured(points, poses))
        shape = np.linalg.lstsq(x.T @ x + 1e-9 * np.eye(4), x.T @ flat, rcond=None)[0]
        rest = flat - x @ shape
        _, values, basis = np.linalg.svd(rest.T @ rest / len(rest))
        return cls(shape, basis[:3], np.sqrt(values[:3]) + 1e-9)

    def encode(self, points: np.ndarray, poses: np.ndarray) -> np.ndarray:
        seen = measured(points, poses)
        rest = _flat(to_face(points, poses)[:, MOVING]) - _design(seen) @ self.shape
        return np.concatenate([seen, rest @ self.basis.T], axis=1).astype(np.float32)

    def decode(self, parameters: np.ndarray) -> np.ndarray:
        """Complex points (frames, 53) in the face frame; lips never cross."""
        flat = _design(parameters[:, :3]) @ self.shape + parameters[:, 3:6] @ self.basis
        face = flat[:, :53] + 1j * flat[:, 53:]
        lower, upper = face[:, 21:30], face[:, 39:30:-1]
        crossed = np.maximum(upper.imag - lower.imag, 0) / 2
        face[:, 21:30] += 1j * crossed
        face[:, 39:30:-1] -= 1j * crossed
        return face

    def save(self, path: Path) -> None:
        write_arrays(path, shape=self.shape, basis=self.basis, spread=self.spread)

    @classmethod
    def load(cls, path: Path) -> "MouthModel":
        return cls(**read_arrays(path))


def _design(three: np.ndarray) -> np.ndarray:
    return np.concatenate([np.ones((len(three), 1)), three], axis=1)
