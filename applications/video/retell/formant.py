"""A voice made by formula, so that tests and the demo need no recording: harmonics under formants, and shaped noise."""

import numpy as np

from retell.phones import PHONES, VOWELS
from retell.speech import Speech

# phone: first three formants in Hz, voice loudness, noise loudness, middle of the noise band in Hz
_SOUND = {
    "SIL": (500, 1500, 2500, 0, 0, 2000), "P": (400, 1100, 2150, 0, 0.5, 900), "B": (200, 1100, 2150, 0.35, 0.2, 700),
    "M": (250, 1100, 2100, 0.5, 0, 500), "F": (340, 1100, 2080, 0, 0.25, 4500), "V": (220, 1100, 2080, 0.4, 0.12, 4500),
    "TH": (320, 1290, 2540, 0, 0.2, 5500), "DH": (270, 1290, 2540, 0.45, 0.1, 5500), "T": (400, 1600, 2600, 0, 0.7, 4500),
    "D": (200, 1600, 2600, 0.35, 0.35, 4000), "N": (250, 1500, 2500, 0.5, 0, 500), "L": (360, 1050, 2880, 0.6, 0, 500),
    "S": (320, 1390, 2530, 0, 0.6, 6200), "Z": (240, 1390, 2530, 0.35, 0.4, 6200), "SH": (300, 1840, 2750, 0, 0.7, 3200),
    "ZH": (260, 1840, 2750, 0.35, 0.45, 3200), "CH": (350, 1800, 2820, 0, 0.8, 3400), "JH": (260, 1800, 2820, 0.35, 0.5, 3400),
    "R": (330, 1060, 1380, 0.6, 0, 500), "Y": (280, 2200, 2950, 0.6, 0, 500), "K": (300, 1900, 2700, 0, 0.6, 2200),
    "G": (200, 1900, 2700, 0.35, 0.3, 2000), "NG": (280, 2000, 2700, 0.5, 0, 500), "W": (290, 610, 2150, 0.6, 0, 500),
    "HH": (500, 1500, 2500, 0, 0.3, 1500), "AA": (730, 1090, 2440, 1, 0, 500), "AE": (660, 1720, 2410, 1, 0, 500),
    "AH": (620, 1190, 2390, 1, 0, 500), "AO": (570, 840, 2410, 1, 0, 500), "AW": (700, 1200, 2450, 1, 0, 500),
    "AY": (680, 1300, 2450, 1, 0, 500), "EH": (530, 1840, 2480, 1, 0, 500), "ER": (490, 1350, 1690, 1, 0, 500),
    "EY": (480, 2000, 2550, 1, 0, 500), "IH": (390, 1990, 2550, 1, 0, 500), "IY": (270, 2290, 3010, 1, 0, 500),
    "OW": (480, 900, 2400, 1, 0, 500), "OY": (550, 950, 2400, 1, 0, 500), "UH": (440, 1020, 2240, 1, 0, 500),
    "UW": (300, 870, 2240, 1, 0, 500),
}  # fmt: skip
_GLIDE = {
    "AW": (400, 900, 2300),
    "AY": (330, 2100, 2700),
    "EY": (320, 2200, 2800),
    "OW": (340, 820, 2300),
    "OY": (330, 2100, 2600),
}
_STOPS = {"P", "B", "T", "D", "K", "G", "CH", "JH"}
STEP = 0.005


def _tracks(speech: Speech) -> np.ndarray:
    """(steps, 6) of formants, loudness and noise every 5 ms, smoothed so that phones run into each other."""
    time = np.arange(int(speech.seconds / STEP) + 1) * STEP
    here = np.clip(np.searchsorted(speech.start, time + 1e-9, side="right") - 1, 0, len(speech) - 1)
    into = np.clip((time - speech.start[here]) / np.maximum(speech.durations[here], 1e-3), 0, 1)
    table = np.array([_SOUND[p] for p in PHONES], float)
    tracks = table[speech.phones[here]]
    for name, end in _GLIDE.items():
        rows = speech.phones[here] == PHONES.index(name)
        late = into[rows, None]
        tracks[rows, :3] = tracks[rows, :3] * (1 - late) + np.array(end) * late
    stops = np.isin(speech.phones[here], [PHONES.index(p) for p in _STOPS])
    tracks[stops & (into < 0.6), 4] = 0.0
    tracks[stops & (into >= 0.6), 3] *= 1.5
    kernel = np.hanning(9)[1:-1] / np.hanning(9)[1:-1].sum()
    padded = np.pad(tracks, [(3, 3), (0, 0)], mode="edge")
    return np.stack([np.convolve(line, kernel, mode="valid") for line in padded.T], 1)


def voice(speech: Speech, rate: int = 16000, pitch: float = 120.0, seed: int = 0) -> np.ndarray:
    """Sound of phones in time, float32 in -1..1, from time 0 to the speech's end."""
    random = np.random.default_rng(seed)
    tracks, count = _tracks(speech), round(speech.seconds * rate)
    time, steps = np.arange(count) / rate, np.arange(len(tracks)) * STEP
    stressed = np.isin(speech.phones, VOWELS)[
        np.clip(np.searchsorted(speech.start, steps) - 1, 0, len(speech) - 1)
    ]
    tune = pitch * (1 + 0.05 * np.sin(2 * np.pi * 0.4 * steps) + 0.03 * stressed)
    phase = 2 * np.pi * np.cumsum(np.interp(time, steps, tune)) / rate
    sound = np.zeros(count)
    for harmonic in range(1, int(4000 / pitch)):
        f = harmonic * tune
        gain = np.ones(len(tracks))
        for formant, band in zip(tracks[:, :3].T, (70, 90, 140), strict=True):
            gain /= np.sqrt((1 - (f / formant) ** 2) ** 2 + (f * band / formant**2) ** 2)
        sound += np.interp(time, steps, gain * tracks[:, 3] / harmonic**0.6) * np.sin(harmonic * phase)
    sound *= 0.1 / max(np.sqrt((sound**2).mean()), 1e-9)
    return (np.clip(sound + 0.2 * _noise(tracks, count, rate, random), -1, 1)).astype(np.float32)


def _noise(tracks: np.ndarray, count: int, rate: int, random: np.random.Generator) -> np.ndarray:
    """White noise, shaped in overlapping windows of 10 ms to each step's band, plus a faint floor."""
    hop = int(STEP * rate)
    frequency = np.fft.rfftfreq(2 * hop, 1 / rate)
    spectra = np.fft.rfft(random.normal(0, 1, (len(tracks), 2 * hop)), axis=1)
    band = np.exp(-0.5 * ((frequency - tracks[:, 5:]) / (0.25 * tracks[:, 5:] + 300)) ** 2)
    pieces = np.fft.irfft(spectra * band * tracks[:, 4:5], axis=1) * np.hanning(2 * hop)
    total = np.zeros((len(tracks) + 1) * hop)
    for half in range(2):
        total[half * hop : half * hop + len(tracks) * hop] += pieces[:, half * hop : (half + 1) * hop].ravel()
    return total[:count] + 0.004 * random.normal(0, 1, count)
