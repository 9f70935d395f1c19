"""From a source speaker's mouth parameters to a target's, learned without parallel recordings.

The target's own phones are searched in the repository; each is stretched to the target's timing. That gives pairs of
source motion (what the repository does for these phones) and target motion (what the target does). Every method
below has the same form: fit on the target's minutes, then predict motion for new phones in time.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from retell.motion import from_repository
from retell.phones import CLOSED, PHONES
from retell.search import Index
from retell.speech import Speech

WINDOW = 4  # frames on each side
STRENGTHS = (1.0, 10.0, 100.0, 1000.0)


def window(motion: np.ndarray) -> np.ndarray:
    padded = np.pad(motion, [(WINDOW, WINDOW), (0, 0)], mode="edge")
    return np.concatenate([padded[i : i + len(motion)] for i in range(2 * WINDOW + 1)], axis=1)


def phone_features(speech: Speech, count: int) -> np.ndarray:
    """What is said around each frame: the phones there, before and after, and how far into its phone it is."""
    here = speech.phone_of_frames(count)
    around = np.clip(here[:, None] + np.arange(-2, 3), 0, len(speech) - 1)
    near = np.eye(len(PHONES), dtype=np.float32)[speech.phones[around]]
    time = (np.arange(count) + 0.5) / speech.rate
    into = np.clip((time - speech.start[here]) / np.maximum(speech.durations[here], 1e-3), 0, 1)
    early, late = np.clip(1 - 2 * into, 0, 1), np.clip(2 * into - 1, 0, 1)
    pull = np.stack([early, np.ones_like(into), late], 1).astype(np.float32)
    # Neighbours count more near their side of the phone; the middle three get both forms.
    shaded = [
        near[:, 1] * pull[:, :1],
        near[:, 2] * pull[:, :1],
        near[:, 2] * pull[:, 2:],
        near[:, 3] * pull[:, 2:],
    ]
    return np.concatenate([near.reshape(count, -1), *shaded], axis=1)


@dataclass
class Ridge:
    weights: np.ndarray
    centre: np.ndarray
    mean: np.ndarray

    @classmethod
    def fit(cls, x: np.ndarray, y: np.ndarray, strength: float) -> "Ridge":
        centre, mean = x.mean(0), y.mean(0)
        a = (x - centre).astype(np.float64)
        gram = a.T @ a + strength * np.eye(x.shape[1])
        return cls(np.linalg.solve(gram, a.T @ (y - mean)), centre, mean)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return ((x - self.centre) @ self.weights + self.mean).astype(np.float32)


@dataclass
class Network:
    """One hidden layer of 64, trained by Adam with early stopping on the validation frames."""

    layers: tuple
    scale: tuple

    @classmethod
    def fit(cls, x, y, held_x, held_y, seed: int = 0, rounds: int = 25) -> "Network":
        random = np.random.default_rng(seed)
        mx, sx, my, sy = x.mean(0), x.std(0) + 1e-6, y.mean(0), y.std(0) + 1e-6
        a, b = ((x - mx) / sx).astype(np.float32), ((y - my) / sy).astype(np.float32)
        net = [
            random.normal(0, 1 / np.sqrt(a.shape[1]), (a.shape[1], 64)).astype(np.float32),
            np.zeros(64, np.float32),
            random.normal(0, 1 / 8, (64, b.shape[1])).astype(np.float32),
            np.zeros(b.shape[1], np.float32),
        ]
        first, second, step = [np.zeros_like(p) for p in net], [np.zeros_like(p) for p in net], 0
        best, kept = np.inf, cls(tuple(net), (mx, sx, my, sy))
        for _ in range(rounds):
            for rows in np.array_split(random.permutation(len(a)), max(len(a) // 192, 4)):
                step += 1
                hidden = np.tanh(a[rows] @ net[0] + net[1])
                error = (hidden @ net[2] + net[3] - b[rows]) / len(rows)
                back = (error @ net[2].T) * (1 - hidden**2)
                slopes = [a[rows].T @ back + 1e-4 * net[0], back.sum(0), hidden.T @ error, error.sum(0)]
                for i, slope in enumerate(slopes):
                    first[i] = 0.9 * first[i] + 0.1 * slope
                    second[i] = 0.999 * second[i] + 0.001 * slope**2
                    rate = 5e-3 * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
                    net[i] = net[i] - rate * first[i] / (np.sqrt(second[i]) + 1e-8)
            model = cls(tuple(net), (mx, sx, my, sy))
            loss = float(((model(held_x) - held_y) ** 2).mean())
            if loss < best:
                best, kept = loss, model
        return kept

    def __call__(self, x: np.ndarray) -> np.ndarray:
        w, b, v, c = self.layers
        mx, sx, my, sy = self.scale
        return ((np.tanh((x - mx) / sx @ w + b) @ v + c) * sy + my).astype(np.float32)


Model = Callable[[Speech, int], np.ndarray]  # phones in time and a number of frames -> target motion
Features = Callable[[Speech, int], np.ndarray]


def _split(speech: Speech) -> tuple[np.ndarray, np.ndarray]:
    """Frames to fit and frames to choose on: every fifth sentence is for choosing (blocks, if there are too few)."""
    sentences = speech.sentences()
    frames = np.arange(len(speech.motion))
    if len(sentences) >= 5:
        number = np.unique(speech.utterance, return_inverse=True)[1]
        group = number[speech.phone_of_frames()]
    else:
        group = frames * 5 // max(len(frames), 1)
    held = group % 5 == 4
    return frames[~held], frames[held]


def _ridge(features: Features, target: Speech) -> Model:
    x, y = features(target, len(target.motion)), target.motion
    fit, held = _split(target)
    losses = {s: float(((Ridge.fit(x[fit], y[fit], s)(x[held]) - y[held]) ** 2).mean()) for s in STRENGTHS}
    model = Ridge.fit(x, y, min(losses, key=losses.__getitem__))
    return lambda speech, count: model(features(speech, count))


def _network(features: Features, target: Speech) -> Model:
    x, y = features(target, len(target.motion)), target.motion
    fit, held = _split(target)
    net = Network.fit(x[fit], y[fit], x[held], y[held])
    return lambda speech, count: net(features(speech, count))


def _scaled(source: Features, target: Speech) -> Model:
    x, y = source(target, len(target.motion)), target.motion
    gain = y.std(0) / np.maximum(x.std(0), 1e-6)
    return lambda speech, count: (source(speech, count) - x.mean(0)) * gain + y.mean(0)


def _remembered(index: Index) -> Features:
    """The repository's motion for a speech, kept, since several methods ask for the same."""
    kept: dict[tuple[int, int], tuple[Speech, np.ndarray]] = {}

    def source(speech: Speech, count: int) -> np.ndarray:
        key = (id(speech), count)
        if key not in kept or kept[key][0] is not speech:
            kept[key] = (speech, from_repository(index, speech, count))
        return kept[key][1]

    return source


def methods(index: Index, target: Speech) -> dict[str, Callable[[], Model]]:
    """All ways to predict the target's motion, the floors that use no source among them."""
    source = _remembered(index)

    def windowed(speech, count):
        return window(source(speech, count))

    def both(speech, count):
        return np.concatenate([windowed(speech, count), phone_features(speech, count)], axis=1)

    return {
        "copy": lambda: source,
        "scale": lambda: _scaled(source, target),
        "ridge on source window": lambda: _ridge(windowed, target),
        "network on source window": lambda: _network(windowed, target),
        "no source: search in the target": lambda: _remembered(Index(target, index.costs)),
        "no source: ridge on phones": lambda: _ridge(phone_features, target),
        "ridge on source window and phones": lambda: _ridge(both, target),
        "network on source window and phones": lambda: _network(both, target),
    }


DEFAULT = "ridge on source window and phones"
NO_SOURCE = "no source: ridge on phones"


def fit(index: Index, target: Speech, method: str = DEFAULT) -> Model:
    return methods(index, target)[method]()


def nrmse(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Root mean square error over standard deviation, mean over parameters; 1 is what predicting the mean gives."""
    error = np.sqrt(((predicted - truth) ** 2).mean(0))
    return float((error / np.maximum(truth.std(0), 1e-6)).mean())


def closure(predicted: np.ndarray, truth: np.ndarray, speech: Speech) -> float:
    """Mean absolute error of the opening at the middle of p, b and m, over the opening's standard deviation."""
    middles = ((speech.start + speech.end) / 2)[np.isin(speech.phones, CLOSED)]
    frames = np.clip((middles * speech.rate).astype(int), 0, len(truth) - 1)
    return float(np.abs(predicted[frames, 0] - truth[frames, 0]).mean() / truth[:, 0].std())
