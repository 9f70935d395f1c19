"""Finding and tracking one face: a detector, then the 468-point mesh from frame to frame, of which `mouth.MESH` is kept."""

from collections.abc import Callable, Iterable

import cv2
import numpy as np

from retell import models
from retell.errors import UserError
from retell.mouth import MESH

SURE = 0.7  # detection score from which a second face counts
LOST = 0.5  # mesh score under which the face counts as lost
_EYES = [MESH.index(33), MESH.index(263)]


def _interpreter(name: str):
    from ai_edge_litert.interpreter import Interpreter

    model = Interpreter(str(models.path(name)), num_threads=1)
    model.allocate_tensors()
    return model


def _sigmoid(x) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(np.asarray(x, np.float64), -50, 50)))


class Detector:
    """Boxes and eyes of faces in a BGR frame, best first."""

    def __init__(self):
        self.model = _interpreter("face_detection_short_range.tflite")
        self.input = self.model.get_input_details()[0]["index"]
        outputs = {o["shape"][-1]: o["index"] for o in self.model.get_output_details()}
        self.boxes, self.scores = outputs[16], outputs[1]
        grids = [(16, 2), (8, 6)]
        self.anchors = np.concatenate(
            [
                np.stack(np.meshgrid(*[(np.arange(n) + 0.5) / n] * 2), -1)
                .reshape(-1, 1, 2)
                .repeat(k, 1)
                .reshape(-1, 2)
                for n, k in grids
            ]
        )

    def __call__(self, frame: np.ndarray, least: float = 0.6) -> list[tuple[float, np.ndarray, np.ndarray]]:
        """(score, box x0 y0 x1 y1, eyes 2x2) in pixels."""
        height, width = frame.shape[:2]
        side = max(height, width)
        square = np.zeros((side, side, 3), np.uint8)
        top, left = (side - height) // 2, (side - width) // 2
        square[top : top + height, left : left + width] = frame
        small = cv2.cvtColor(cv2.resize(square, (128, 128), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB)
        self.model.set_tensor(self.input, (small.astype(np.float32) / 127.5 - 1)[None])
        self.model.invoke()
        raw = self.model.get_tensor(self.boxes)[0].reshape(-1, 8, 2) / 128
        score = _sigmoid(self.model.get_tensor(self.scores)[0, :, 0])
        found = []
        for i in np.argsort(-score)[:60]:
            if score[i] < least:
                break
            centre, size, eyes = raw[i, 0] + self.anchors[i], raw[i, 1], raw[i, 2:4] + self.anchors[i]
            box = np.concatenate([centre - size / 2, centre + size / 2]) * side - [left, top, left, top]
            if all(_overlap(box, other) < 0.3 for _, other, _ in found):
                found.append((float(score[i]), box, eyes * side - [left, top]))
        return found


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    inner = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0).prod()
    return float(inner / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - inner))


class Mesh:
    """All 468 points of a face in a square around it that is turned with the eyes."""

    def __init__(self):
        self.model = _interpreter("face_landmark.tflite")
        self.input = self.model.get_input_details()[0]["index"]
        outputs = {int(np.prod(o["shape"])): o["index"] for o in self.model.get_output_details()}
        self.points, self.score = outputs[1404], outputs[1]

    def __call__(self, frame: np.ndarray, centre: np.ndarray, side: float, angle: float):
        zoom = 192 / side
        turn = zoom * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        matrix = np.concatenate([turn, (96 - turn @ centre)[:, None]], 1)
        crop = cv2.warpAffine(
            frame, matrix, (192, 192), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        crop = cv2.cvtColor(crop, cv2.COLOR_BGR2RGB).astype(np.float32) / 255
        self.model.set_tensor(self.input, crop[None])
        self.model.invoke()
        raw = self.model.get_tensor(self.points).reshape(468, 3).astype(np.float64)
        score = float(_sigmoid(self.model.get_tensor(self.score).ravel()[0]))
        flat = (raw[:, :2] - matrix[:, 2]) @ np.linalg.inv(turn).T
        return np.concatenate([flat, raw[:, 2:] / zoom], 1), score


def _square(points: np.ndarray) -> tuple[np.ndarray, float, float]:
    low, high = points[:, :2].min(0), points[:, :2].max(0)
    eye = points[263, :2] - points[33, :2]
    return (low + high) / 2, 1.5 * float((high - low).max()), float(np.arctan2(eye[1], eye[0]))


class Tracker:
    """Points frame by frame; when the face is lost it is looked for again."""

    def __init__(self):
        self.detect, self.mesh, self.square = Detector(), Mesh(), None

    def __call__(self, frame: np.ndarray) -> tuple[np.ndarray | None, int]:
        """All 468 points, or None, and how many faces a detection found (0 when none was made)."""
        faces = 0
        if self.square is None:
            found = self.detect(frame)
            faces = sum(score >= SURE for score, _, _ in found)
            if not found:
                return None, 0
            _, box, eyes = found[0]
            line = eyes[1] - eyes[0]
            self.square = (
                (box[:2] + box[2:]) / 2,
                1.5 * float((box[2:] - box[:2]).max()),
                float(np.arctan2(line[1], line[0])),
            )
            points, score = self.mesh(frame, *self.square)
            self.square = _square(points)
        points, score = self.mesh(frame, *self.square)
        inside = (points[:, :2] > 0).all() and (points[:, :2] < [frame.shape[1], frame.shape[0]]).all()
        self.square = _square(points) if score >= LOST else None
        return (points if score >= LOST and inside else None), faces


def track(
    frames: Iterable[np.ndarray], progress: Callable[[int], None] = lambda n: None
) -> tuple[np.ndarray, np.ndarray]:
    """(frames, points, 3) and which frames show the face fully; frames without take the nearest one's points.

    Two faces are refused: nothing says which of them speaks. The detector looks again every second.
    """
    tracker, rows, seen = Tracker(), [], []
    for number, frame in enumerate(frames):
        points, faces = tracker(frame)
        if number % 25 == 0:
            faces = max(faces, sum(score >= SURE for score, _, _ in tracker.detect(frame)))
        if faces > 1:
            raise UserError(
                "one face is needed",
                f"{faces} faces in frame {number}",
                "crop the video to the person who speaks",
            )
        rows.append(np.zeros((len(MESH), 3)) if points is None else points[list(MESH)])
        seen.append(points is not None)
        progress(number + 1)
    good = np.array(seen, bool)
    if good.sum() < 5:
        raise UserError(
            "a face that looks at the camera is needed",
            "no face found",
            "give a video in which one face is seen",
        )
    places = np.flatnonzero(good)
    nearest = (
        places[np.abs(places[None, :] - np.arange(len(good))[:, None]).argmin(1)]
        if not good.all()
        else slice(None)
    )
    return np.array(rows)[nearest].astype(np.float32), good
