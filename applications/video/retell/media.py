"""Reading any video as frames at a constant rate, upright and at a workable size, with sound at 48 kHz mono."""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from retell.errors import UserError

SOUND = 48000
LARGEST = 1280  # longer side of the frames that are edited
GROUP = 12  # frames between key frames of a project's own video


@dataclass
class Clip:
    """What a video file is, and what reading it changes (`notes`, sentences for the user)."""

    path: Path
    rate: Fraction
    size: tuple[int, int]
    seconds: float
    notes: list[str] = field(default_factory=list)


def _open(path: Path):
    try:
        return av.open(str(path))
    except FileNotFoundError:
        raise UserError("a video file is needed", f"no file {path}", "check the path") from None
    except IsADirectoryError:
        raise UserError("a video file is needed", f"the folder {path}", "name the file itself") from None
    except (av.FFmpegError, OSError, ValueError) as error:
        todo = "give an MP4, MOV, MKV, WebM, AVI or MPEG file"
        raise UserError("a video file that FFmpeg can read is needed", f"{path} ({error})", todo) from None


def _stamps(path: Path) -> tuple[np.ndarray, int]:
    """Times of all frames and the rotation to display them with; reads packets, decodes one frame."""
    with _open(path) as file:
        if not file.streams.video:
            raise UserError("a video stream is needed", f"{path} with none", "give a file that has a picture")
        if not file.streams.audio:
            raise UserError(
                "a sound track is needed, since words are found in time by their sound",
                f"{path} without one",
                "give the video with its sound",
            )
        stream = file.streams.video[0]
        base = stream.time_base or Fraction(1, 1000)
        times = [float(p.pts * base) for p in file.demux(stream) if p.pts is not None and p.size]
    with _open(path) as file:
        first = _first(file, path)
        rotation = int(first.rotation)
    return np.sort(np.array(times)), rotation


def _first(file, path: Path):
    try:
        return next(file.decode(video=0))
    except (StopIteration, av.FFmpegError, IndexError) as error:
        raise UserError(
            "a video with readable frames is needed",
            f"{path} ({error or 'no frames'})",
            "record or export it again",
        ) from None


def probe(path: Path) -> Clip:
    path = Path(path)
    times, rotation = _stamps(path)
    if len(times) < 2:
        raise UserError(
            "a video of at least two frames is needed", f"{path} with {len(times)}", "give a longer one"
        )
    with _open(path) as file:
        frame = _first(file, path)
        stream = file.streams.video[0]
        width, height = frame.width, frame.height
        pixel = float(stream.sample_aspect_ratio or 1) or 1.0
    notes = []
    steps = np.diff(times)
    exact = Fraction((len(times) - 1) / max(times[-1] - times[0], 1e-6)).limit_denominator(1001)
    usual = [Fraction(n) for n in (12, 15, 24, 25, 30, 48, 50, 60)] + [
        Fraction(24000, 1001),
        Fraction(30000, 1001),
    ]
    rate = min(usual, key=lambda r: abs(r - exact))
    if abs(rate - exact) > Fraction(1, 100) * rate:
        rate = Fraction(round(exact)) if exact >= 1 else Fraction(1)
    if rate > 30:
        notes.append(f"{float(rate):g} frames a second: edited at {float(rate / 2):g}")
        rate = rate / 2
    if steps.max() > 1.6 * np.median(steps) or steps.min() < 0.4 * np.median(steps):
        notes.append(
            f"the frame rate varies: frames are repeated or left out to give {float(rate):g} a second"
        )
    width = round(width * pixel)
    if rotation % 360 in (90, 270):
        width, height = height, width
    if rotation % 360:
        notes.append(f"the file asks for a rotation by {rotation % 360} degrees: frames are turned upright")
    scale = min(1.0, LARGEST / max(width, height))
    size = (2 * round(width * scale / 2), 2 * round(height * scale / 2))
    if scale < 1:
        notes.append(f"{width}x{height} is scaled down to {size[0]}x{size[1]}")
    if min(size) < 96:
        raise UserError(
            "a picture of at least 96 pixels is needed", f"{width}x{height}", "give a larger video"
        )
    return Clip(path, rate, size, float(times[-1] - times[0] + 1 / rate), notes)


def frames(clip: Clip) -> Iterator[np.ndarray]:
    """BGR frames at the clip's constant rate and size. Each shows what a player shows at its middle."""
    wanted, kept = 0, None
    zero = None
    with _open(clip.path) as file:
        file.streams.video[0].thread_type = "AUTO"
        for frame in file.decode(video=0):
            time = 0.0 if frame.time is None else frame.time
            zero = time if zero is None else zero
            while kept is not None and (wanted + 0.5) / clip.rate < time - zero:
                yield kept
                wanted += 1
            kept = _upright(frame, clip.size)
    while kept is not None and wanted < round(clip.seconds * clip.rate):
        yield kept
        wanted += 1


def _upright(frame, size: tuple[int, int]) -> np.ndarray:
    picture = frame.to_ndarray(format="bgr24")
    turns = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_CLOCKWISE}
    if frame.rotation % 360 in turns:
        picture = cv2.rotate(picture, turns[frame.rotation % 360])
    if (picture.shape[1], picture.shape[0]) != size:
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return picture


def sound(path: Path, rate: int = SOUND) -> np.ndarray:
    """A file's sound as int16 mono, starting where its first video frame is shown (or at its own start)."""
    with _open(path) as file:
        if not file.streams.audio:
            raise UserError("a sound track is needed", f"{path} without one", "give a file with sound")
        start = None
        if file.streams.video:
            video = file.streams.video[0]
            start = float((video.start_time or 0) * video.time_base)
        resampler = av.AudioResampler(format="s16", layout="mono", rate=rate)
        pieces, first = [], None
        try:
            for frame in file.decode(audio=0):
                first = frame.time if first is None else first
                pieces += [f.to_ndarray()[0] for f in resampler.resample(frame)]
            pieces += [f.to_ndarray()[0] for f in resampler.resample(None)]
        except av.FFmpegError as error:
            raise UserError(
                "readable sound is needed", f"{path} ({error})", "export the file again"
            ) from None
    samples = np.concatenate(pieces) if pieces else np.zeros(0, np.int16)
    if not len(samples) or not samples.any():
        raise UserError(
            "sound with speech is needed", f"{path} with silence", "give the video with its sound"
        )
    offset = round(((first or 0.0) - (start or 0.0)) * rate) if start is not None else 0
    return samples[-offset:] if offset < 0 else np.concatenate([np.zeros(offset, np.int16), samples])


def resample(samples: np.ndarray, rate: int, to: int) -> np.ndarray:
    """int16 mono at another rate."""
    if rate == to:
        return samples
    frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
    frame.rate = rate
    resampler = av.AudioResampler(format="s16", layout="mono", rate=to)
    return np.concatenate(
        [f.to_ndarray()[0] for f in [*resampler.resample(frame), *resampler.resample(None)]]
    )


class Frames:
    """Frames of a project's own video by number; whole groups between key frames are decoded and some kept."""

    def __init__(self, path: Path, rate: Fraction, count: int, keep: int = 10):
        self.path, self.rate, self.count, self.keep = path, rate, count, keep
        self.groups: OrderedDict[int, list[np.ndarray]] = OrderedDict()

    def __getitem__(self, number: int) -> np.ndarray:
        number = min(max(int(number), 0), self.count - 1)
        group = number // GROUP
        if group not in self.groups:
            self.groups[group] = self._decode(group)
            while len(self.groups) > self.keep:
                self.groups.popitem(last=False)
        self.groups.move_to_end(group)
        return self.groups[group][number - group * GROUP]

    def _decode(self, group: int) -> list[np.ndarray]:
        first, last = group * GROUP, min((group + 1) * GROUP, self.count)
        found = []
        with _open(self.path) as file:
            stream = file.streams.video[0]
            file.seek(round((first + 0.5) / self.rate / stream.time_base), stream=stream)
            for frame in file.decode(stream):
                number = round(frame.time * self.rate)
                if number >= first:
                    found.append(frame.to_ndarray(format="bgr24"))
                if number >= last - 1:
                    break
        if len(found) != last - first:
            raise UserError(
                f"{self.path} must hold frames {first} to {last - 1}", f"{len(found)} of them", "ingest again"
            )
        return found
