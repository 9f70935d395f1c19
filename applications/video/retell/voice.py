"""The sound of new words: the target's own recorded words, a WAV that the user gives, or an external command.

Nothing here imitates a voice: recorded words are cut and joined, other sound is used as it is.
"""

import itertools
import shlex
import subprocess
import tempfile
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retell import media
from retell.align import align
from retell.errors import UserError
from retell.media import SOUND
from retell.phones import SIL
from retell.project import write_wav
from retell.speech import Speech, Word
from retell.words import Lexicon

FADE = 0.012  # seconds of crossfade where two pieces of sound meet


@dataclass
class Said:
    """Words with their sound (int16 at 48 kHz) and phones in time; `speech` starts at 0 and has no motion."""

    speech: Speech
    samples: np.ndarray
    how: str  # for the user and the manifest: where the sound is from


def cut_before(speech: Speech, word: int) -> float:
    """Where to cut between a word and the one before it: the middle of the pause between them."""
    words = speech.words
    if word >= len(words):
        return (float(speech.end[words[-1].last - 1]) + speech.seconds) / 2
    before = float(speech.end[words[word - 1].last - 1]) if word else 0.0
    start = float(speech.start[words[word].first])
    return max(start - 0.12, (before + start) / 2)


def cut_after(speech: Speech, word: int) -> float:
    end = float(speech.end[speech.words[word].last - 1])
    following = (
        float(speech.start[speech.words[word + 1].first]) if word + 1 < len(speech.words) else speech.seconds
    )
    return min(end + 0.12, (end + following) / 2)


def crossfade(pieces: list[np.ndarray]) -> np.ndarray:
    """Pieces end to end; each joint is faded over FADE without changing the length."""
    total = np.concatenate([p.astype(np.float32) for p in pieces])
    reach, at = int(FADE * SOUND / 2), 0
    for a, b in itertools.pairwise(pieces):
        at += len(a)
        n = min(reach, len(a) // 2, len(b) // 2)
        ramp = np.linspace(1, 0, n + 1)[1:]
        total[at - n : at] *= 0.3 + 0.7 * ramp
        total[at : at + n] *= 0.3 + 0.7 * ramp[::-1]
    return np.clip(total, -32768, 32767).astype(np.int16)


def recorded(words: list[str], speech: Speech, sound: np.ndarray) -> tuple[Said | None, list[str]]:
    """New words from the target's own recording, in as few pieces as a longest match from the left gives.

    Returns None and the words that were never recorded when there are any.
    """
    texts = [w.text for w in speech.words]
    missing = sorted({w for w in words if w not in texts})
    if missing:
        return None, missing
    pieces, parts, i = [], [], 0
    while i < len(words):
        best, length = 0, 0
        for j in range(len(texts)):
            n = 0
            while i + n < len(words) and j + n < len(texts) and words[i + n] == texts[j + n]:
                n += 1
            if n > length:
                best, length = j, n
        start, end = cut_before(speech, best), cut_after(speech, best + length - 1)
        pieces.append(sound[round(start * SOUND) : round(end * SOUND)])
        parts.append(_excerpt(speech, best, best + length, start, end))
        i += length
    names = "own recording" if len(pieces) == 1 else f"own recording, {len(pieces)} pieces"
    return Said(in_a_row(parts, speech.rate), crossfade(pieces), names), []


def _excerpt(speech: Speech, first: int, last: int, start: float, end: float) -> tuple[Speech, float]:
    """Words first to last of a speech between two times, with silence at the ends."""
    a, b = speech.words[first].first, speech.words[last - 1].last
    phones, times, ends = speech.phones[a:b], speech.start[a:b] - start, speech.end[a:b] - start
    words = [Word(w.text, w.first - a + 1, w.last - a + 1) for w in speech.words[first:last]]
    length = end - start
    phones = np.concatenate([[SIL], phones, [SIL]])
    times = np.concatenate([[0.0], times, ends[-1:]])
    ends = np.concatenate([times[1:2], ends, [length]])
    part = Speech(phones, times, ends, np.zeros(len(phones), np.int32), words, speech.rate)
    return _without_empty(part), length


def _without_empty(speech: Speech) -> Speech:
    keep = speech.end - speech.start > 1e-6
    number = np.concatenate([[0], np.cumsum(keep)])
    words = [Word(w.text, int(number[w.first]), int(number[w.last])) for w in speech.words]
    return Speech(
        speech.phones[keep], speech.start[keep], speech.end[keep], speech.utterance[keep], words, speech.rate
    )


def in_a_row(parts: list[tuple[Speech, float]], rate: float) -> Speech:
    seconds, count, phones, start, end, words = 0.0, 0, [], [], [], []
    for part, length in parts:
        phones.append(part.phones)
        start.append(part.start + seconds)
        end.append(part.end + seconds)
        words += [Word(w.text, w.first + count, w.last + count) for w in part.words]
        seconds, count = seconds + length, count + len(part)
    total = np.concatenate(phones)
    return Speech(
        total, np.concatenate(start), np.concatenate(end), np.zeros(len(total), np.int32), words, rate
    )


def from_sound(path: Path, words: list[str], lexicon: Lexicon, rate: float, how: str) -> Said:
    """New words from a sound file; its phones are found by alignment."""
    samples = media.sound(path)
    try:
        speech = align(samples, SOUND, " ".join(words), lexicon, rate)
    except UserError as error:
        raise UserError(
            f'the sound must say "{" ".join(words)}"',
            f"{Path(path).name}, which does not fit",
            "record these words",
        ) from error
    start = max(float(speech.start[speech.words[0].first]) - 0.06, 0.0)
    end = min(float(speech.end[speech.words[-1].last - 1]) + 0.06, len(samples) / SOUND)
    excerpt, _ = _excerpt(speech, 0, len(words), start, end)
    return Said(excerpt, samples[round(start * SOUND) : round(end * SOUND)], how)


def command(template: str, words: list[str], folder: Path) -> Path:
    """Run a text-to-speech command: {text} and {wav} are replaced, no shell takes part. Returns the WAV it wrote."""
    if "{wav}" not in template or "{text}" not in template:
        raise UserError(
            "a text-to-speech command must contain {text} and {wav}",
            template,
            'give for example "say -o {wav} {text}"',
        )
    text = " ".join(words)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        wav = Path(temporary) / "said.wav"
        parts = [p.replace("{text}", text).replace("{wav}", str(wav)) for p in shlex.split(template)]
        try:
            done = subprocess.run(parts, capture_output=True, text=True, timeout=300)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UserError(
                "the text-to-speech command must run", f"{parts[0]}: {error}", "try it by hand"
            ) from None
        if done.returncode or not wav.is_file():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            came = f"exit status {done.returncode}: {last}" if done.returncode else "no WAV"
            raise UserError("the text-to-speech command must write {wav}", came, "try it by hand")
        return import_sound(wav, folder)


def import_sound(path: Path, folder: Path) -> Path:
    """Copy any readable sound file into the project as a WAV named by its content."""
    from retell.files import digest

    samples = media.sound(path)
    target = folder / f"{digest(samples)[:16]}.wav"
    if not target.exists():
        write_wav(target, samples)
    return target


def is_wav(data: bytes) -> bool:
    import io

    try:
        with wave.open(io.BytesIO(data)) as file:
            return file.getnframes() > 0
    except (wave.Error, EOFError):
        return False


def room(sound: np.ndarray, length: int) -> np.ndarray:
    """Quiet sound of the recording, as long as asked: its quietest 0.2 s, mirrored back and forth."""
    block = round(0.2 * SOUND)
    if len(sound) < 2 * block:
        return np.zeros(length, np.int16)
    hop = block // 4
    power = [
        float((sound[i : i + block].astype(np.float32) ** 2).mean())
        for i in range(0, len(sound) - block, hop)
    ]
    quiet = sound[int(np.argmin(power)) * hop :][:block]
    loop = np.concatenate([quiet, quiet[::-1]])
    return np.tile(loop, length // len(loop) + 1)[:length]
