"""H.264 and AAC: a project's own video with frequent key frames, and results joined from cached segments.

Each segment is encoded alone. libx264 gives the same parameter sets for the same settings, so the packets of any
segments, shifted in time, make one stream: an edit encodes only the segments whose frames it changes.
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from retell.errors import UserError
from retell.files import complete, digest, read_arrays, write_arrays
from retell.media import GROUP, SOUND

SETTINGS = {"preset": "superfast", "crf": "10", "threads": "2"}
DELAY = (
    2  # frames by which decoding runs ahead of showing, enough for any order of B-frames of these settings
)
PROJECT_SETTINGS = {
    "preset": "ultrafast",
    "crf": "8",
    "g": str(GROUP),
    "sc_threshold": "0",
    "bf": "0",
    "threads": "2",
}


def _video_frame(picture: np.ndarray, number: int, rate: Fraction) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
    frame = frame.reformat(format="yuv420p", dst_colorspace="ITU601", dst_color_range="MPEG")
    frame.pts, frame.time_base = number, 1 / rate
    return frame


def _describe(context) -> None:
    context.pix_fmt = "yuv420p"
    context.colorspace, context.color_primaries, context.color_trc, context.color_range = 6, 6, 6, 1


def project_video(
    path: Path, pictures: Iterable[np.ndarray], rate: Fraction, size: tuple[int, int], audio: np.ndarray
) -> None:
    """Write frames so that any one can be found fast, with the sound, so that the file can be played."""
    with complete(path) as temporary, av.open(str(temporary), "w", options={"movflags": "faststart"}) as file:
        stream = file.add_stream("libx264", rate=rate, options=PROJECT_SETTINGS)
        stream.width, stream.height = size
        _describe(stream.codec_context)
        sound = file.add_stream("aac", rate=SOUND, layout="mono")

        def encoded() -> Iterator[av.Packet]:
            for number, picture in enumerate(pictures):
                yield from stream.encode(_video_frame(picture, number, rate))
            yield from stream.encode(None)

        for packet in _interleaved(encoded(), _sound(sound, audio)):
            file.mux(packet)


@dataclass
class Packets:
    """A segment's encoded frames in the order of decoding: bytes, and when each is shown, in frames from the first."""

    data: list[bytes]
    pts: np.ndarray
    key: np.ndarray
    extradata: bytes
    count: int

    def save(self, path: Path) -> None:
        write_arrays(
            path,
            data=np.frombuffer(b"".join(self.data), np.uint8),
            length=np.array([len(d) for d in self.data]),
            times=np.array([self.pts, self.key]),
            extradata=np.frombuffer(self.extradata, np.uint8),
            count=np.int64(self.count),
        )

    @classmethod
    def load(cls, path: Path) -> "Packets":
        a = read_arrays(path)
        edges = np.concatenate([[0], np.cumsum(a["length"])])
        whole = a["data"].tobytes()
        data = [whole[x:y] for x, y in itertools.pairwise(edges)]
        return cls(data, *a["times"], a["extradata"].tobytes(), int(a["count"]))


def encode_segment(pictures: Iterable[np.ndarray], rate: Fraction, size: tuple[int, int]) -> Packets:
    context = av.CodecContext.create("libx264", "w")
    context.width, context.height, context.framerate, context.time_base = *size, rate, 1 / rate
    _describe(context)
    context.options = SETTINGS
    context.flags |= av.codec.context.Flags.global_header
    packets, count = [], 0
    for picture in pictures:
        packets += context.encode(_video_frame(picture, count, rate))
        count += 1
    packets += context.encode(None)
    if any(p.pts < order - DELAY for order, p in enumerate(packets)):
        raise RuntimeError("the encoder reorders frames further than DELAY")
    times = np.array([(p.pts, p.is_keyframe) for p in packets]).T
    return Packets([bytes(p) for p in packets], *times, bytes(context.extradata or b""), count)


def segment_name(keys: list[str], rate: Fraction, size: tuple[int, int]) -> str:
    """The cache name of a segment: what its frames are made of and how they are encoded."""
    return digest(keys, str(rate), list(size), SETTINGS, av.__version__)


def write_result(
    path: Path, segments: list[Packets], audio: np.ndarray, rate: Fraction, size: tuple[int, int]
) -> None:
    """One MP4 of segments in a row and sound (int16 mono at 48 kHz) from the same time zero."""
    if not segments:
        raise UserError("a result needs at least one frame", "none", "keep at least one word")
    with complete(path) as temporary, av.open(str(temporary), "w", options={"movflags": "faststart"}) as file:
        video = file.add_stream("libx264", rate=rate, options=SETTINGS)  # gives the segments' parameter sets
        video.width, video.height, video.time_base = *size, 1 / rate
        _describe(video.codec_context)
        sound = file.add_stream("aac", rate=SOUND, layout="mono")
        sound.bit_rate = 128000
        for packet in _interleaved(_shifted(segments, rate, video), _sound(sound, audio)):
            file.mux(packet)


def _shifted(segments: list[Packets], rate: Fraction, stream) -> Iterator[av.Packet]:
    start = 0
    for segment in segments:
        for order, (data, pts, key) in enumerate(zip(segment.data, segment.pts, segment.key, strict=True)):
            packet = av.Packet(data)
            packet.stream, packet.time_base = stream, 1 / rate
            packet.pts, packet.dts = start + int(pts), start + order - DELAY
            packet.is_keyframe = bool(key)
            yield packet
        start += segment.count


def _sound(stream, audio: np.ndarray) -> Iterator[av.Packet]:
    for start in range(0, len(audio), 1024):
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(audio[None, start : start + 1024]), "s16", "mono"
        )
        frame.rate, frame.pts, frame.time_base = SOUND, start, Fraction(1, SOUND)
        yield from stream.encode(frame)
    yield from stream.encode(None)


def _interleaved(pictures: Iterator[av.Packet], sounds: Iterator[av.Packet]) -> Iterator[av.Packet]:
    picture, heard = next(pictures, None), next(sounds, None)
    while picture is not None or heard is not None:
        early = heard is None or (
            picture is not None and picture.dts * picture.time_base <= (heard.dts or 0) * heard.time_base
        )
        if early:
            yield picture
            picture = next(pictures, None)
        else:
            yield heard
            heard = next(sounds, None)
