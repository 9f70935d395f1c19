"""Short clips of the GRID corpus: six words whose first letters make the file's name."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np

from retell import face, media, mouth
from retell.align import align
from retell.encode import encode_segment, write_result
from retell.phones import CLOSED, OPEN_VOWELS
from retell.synth import Synthesiser
from retell.words import DIGITS, Lexicon

_WORDS = (
    {"b": "bin", "l": "lay", "p": "place", "s": "set"},
    {"b": "blue", "g": "green", "r": "red", "w": "white"},
    {"a": "at", "b": "by", "i": "in", "w": "with"},
    {chr(c): chr(c) for c in range(ord("a"), ord("z") + 1)},
    dict(zip("z123456789", DIGITS, strict=True)),
    {"a": "again", "n": "now", "p": "please", "s": "soon"},
)


def sentence_of(path: Path) -> str:
    code = Path(path).stem.split("_")[-1]
    return " ".join(words[letter] for words, letter in zip(_WORDS, code, strict=True))


def study(folder: Path, sheets: Path, say=lambda line: None) -> dict:
    """Align and track all clips, transplant a mouth between two clips of one speaker, and draw contact sheets.

    People in the clips are recognisable: the sheets are for looking at, not for publishing.
    """
    sheets.mkdir(parents=True, exist_ok=True)
    found, openings, tracked_sheet = [], {True: [], False: []}, []
    for path in sorted(folder.glob("*.mpg")):
        clip = media.probe(path)
        pictures = list(media.frames(clip))
        began = time.perf_counter()
        points, seen = face.track(pictures)
        tracking = time.perf_counter() - began
        began = time.perf_counter()
        speech = align(media.sound(path), media.SOUND, sentence_of(path), Lexicon(), float(clip.rate))
        aligning = time.perf_counter() - began
        opening = mouth.measured(points, mouth.pose(points))[:, 0]
        middles = (speech.start + speech.end) / 2 * float(clip.rate)
        for phone, middle in zip(speech.phones, middles, strict=True):
            if phone in OPEN_VOWELS or phone in CLOSED:
                openings[bool(phone in CLOSED)].append(float(opening[min(int(middle), len(opening) - 1)]))
        found.append({"clip": path.stem, "words": len(speech.words), "frames": len(pictures), "frames_tracked": int(seen.sum()),
                      "track_seconds": tracking, "align_seconds": aligning})  # fmt: skip
        tracked_sheet.append(_strip(pictures, points, speech, float(clip.rate)))
        say(f"{path.stem}: {len(speech.words)} words, {int(seen.sum())} of {len(pictures)} frames tracked")
    cv2.imwrite(str(sheets / "tracked.png"), np.vstack(tracked_sheet))
    auc = float(np.mean([[o > c for o in openings[False]] for c in openings[True]]))
    result = {
        "clips": found,
        "opening_auc": auc,
        "open_vowels": len(openings[False]),
        "closed_phones": len(openings[True]),
    }
    return result | _transplant(folder / "id2_vcd_swwp2s.mpg", folder / "pwij3p.mpg", sheets)


def _strip(pictures, points, speech, rate: float) -> np.ndarray:
    """One clip in a row: the middle of each word with the tracked points and the word."""
    cells = []
    for word in speech.words:
        start, end = speech.word_times(word)
        number = min(int((start + end) / 2 * rate), len(pictures) - 1)
        picture = pictures[number].copy()
        for x, y, _ in points[number]:
            cv2.circle(picture, (round(float(x)), round(float(y))), 1, (0, 255, 0), -1)
        x, y = (points[number, :, :2].min(0) + points[number, :, :2].max(0)).astype(int) // 2
        part = picture[max(y - 72, 0) : max(y - 72, 0) + 144, max(x - 80, 0) : max(x - 80, 0) + 160].copy()
        cv2.putText(
            part, f"{word.text} {start:.2f}", (4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 255, 255), 1
        )
        cells.append(cv2.resize(part, (160, 144)))
    return np.hstack(cells)


@dataclass
class _Both:
    """Two clips of one speaker as one recording."""

    track: dict
    mouth: mouth.MouthModel
    speech: object
    size: tuple[int, int]


def _transplant(source: Path, under: Path, sheets: Path) -> dict:
    """The mouth of one sentence in the pictures of another sentence by the same person."""
    clips = [media.probe(p) for p in (source, under)]
    pictures = [list(media.frames(c)) for c in clips]
    points = np.concatenate([face.track(p)[0] for p in pictures])
    first = len(pictures[0])
    poses = np.concatenate([mouth.pose(points[:first]), mouth.pose(points[first:])])

    model = mouth.MouthModel.fit(points, poses)
    motion = model.encode(points, poses)
    seen = np.ones(len(points), bool)
    both = _Both(
        {"points": points, "pose": poses, "seen": seen}, model, SimpleNamespace(motion=motion), clips[0].size
    )
    drawer = Synthesiser(both, [*pictures[0], *pictures[1]])
    count = min(first, len(pictures[1]))
    began = time.perf_counter()
    made = [drawer.draw(first + t, motion[t], t) for t in range(count)]
    seconds = time.perf_counter() - began
    outside, rows = [], []
    for t, (picture, where) in enumerate(made):
        keep = np.ones(picture.shape[:2], bool)
        keep[where.box] = False
        error = ((picture.astype(float) - pictures[1][t])[keep] ** 2).mean()
        outside.append(float(10 * np.log10(255**2 / max(error, 1e-9))))
    for t in range(4, count, 10):
        rows.append(np.vstack([pictures[0][t], pictures[1][t], made[t][0]])[:, 60:300])
    cv2.imwrite(str(sheets / "transplant.png"), np.hstack(rows))
    again = face.track([m[0] for m in made])[0]
    shown = mouth.measured(again, mouth.pose(again))[:, 0]
    reached = float(np.corrcoef(shown, motion[:count, 0])[0, 1])
    kept = _after_encoding([m[0] for m in made], pictures[1], [m[1] for m in made], clips[1])
    return {"transplant": {"frames": count, "ms_per_frame": 1000 * seconds / count, "outside_psnr_db_before_encoding": min(outside),
                           "outside_psnr_db_after_encoding": kept, "opening_asked_and_tracked_correlation": reached}}  # fmt: skip


def _after_encoding(made, originals, regions, clip) -> float:
    """Lowest PSNR of a frame outside its replaced region, in the encoded file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made.mp4"
        sound = np.zeros(round(len(made) * media.SOUND / clip.rate), np.int16)
        write_result(path, [encode_segment(made, clip.rate, clip.size)], sound, clip.rate, clip.size)
        decoded = list(media.frames(media.Clip(path, clip.rate, clip.size, clip.seconds)))
    worst = np.inf
    for picture, original, where in zip(decoded, originals, regions, strict=False):
        keep = np.ones(picture.shape[:2], bool)
        keep[where.box] = False
        error = ((picture.astype(float) - original)[keep] ** 2).mean()
        worst = min(worst, float(10 * np.log10(255**2 / max(error, 1e-9))))
    return worst
