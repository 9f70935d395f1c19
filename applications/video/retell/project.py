"""A project folder: a target recording to edit, source recordings to take motion from, edits, cache and results.

project.json      consent, pronunciations, which recordings there are
target/           the recording that is edited: frames.mp4, sound.wav, speech.npz, track.npz, mouth.npz, clip.json
sources/NAME/     recordings of the source speaker, same files without frames.mp4
edits.json        history of operations
sounds/           WAVs of new words
cache/            encoded segments and fitted models; may be deleted
result.mp4        the last rendering
"""

import wave
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import numpy as np

from retell import __version__
from retell.edits import History
from retell.errors import UserError
from retell.files import complete, read_arrays, read_json, sha256, write_json
from retell.media import SOUND, Frames
from retell.mouth import MouthModel
from retell.speech import Speech, join
from retell.words import Lexicon


def write_wav(path: Path, samples: np.ndarray, rate: int = SOUND) -> None:
    with complete(path) as temporary, wave.open(str(temporary), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.asarray(samples, np.int16).tobytes())


def read_wav(path: Path) -> tuple[np.ndarray, int]:
    with wave.open(str(path), "rb") as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
        return samples.reshape(-1, file.getnchannels()).mean(1).astype(np.int16), file.getframerate()


@dataclass
class Recording:
    folder: Path

    @cached_property
    def about(self) -> dict:
        return read_json(self.folder / "clip.json")

    @property
    def rate(self) -> Fraction:
        return Fraction(self.about["rate"])

    @property
    def size(self) -> tuple[int, int]:
        return tuple(self.about["size"])

    @cached_property
    def speech(self) -> Speech:
        return Speech.load(self.folder / "speech.npz")

    @cached_property
    def track(self) -> dict[str, np.ndarray]:
        """points (frames, POINTS, 3), pose (frames, 2) complex, seen (frames,)."""
        return read_arrays(self.folder / "track.npz")

    @cached_property
    def mouth(self) -> MouthModel:
        return MouthModel.load(self.folder / "mouth.npz")

    @cached_property
    def sound(self) -> np.ndarray:
        return read_wav(self.folder / "sound.wav")[0]

    def frames(self) -> Frames:
        return Frames(self.folder / "frames.mp4", self.rate, self.about["frames"])

    def finish(self, about: dict) -> None:
        """Write clip.json, which says that the recording is complete, with the hash of every file."""
        files = {
            p.name: sha256(p) for p in sorted(self.folder.iterdir()) if p.suffix in (".mp4", ".wav", ".npz")
        }
        write_json(self.folder / "clip.json", about | {"files": files})

    def check(self) -> None:
        for name, expected in self.about["files"].items():
            file = self.folder / name
            if not file.is_file() or sha256(file) != expected:
                came = "a changed file" if file.is_file() else "no file"
                raise UserError(f"{file} must be as it was ingested", came, "ingest the recording again")


class Project:
    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        self.file = self.folder / "project.json"

    @classmethod
    def open(cls, folder: Path | str) -> "Project":
        project = cls(folder)
        if not project.file.is_file():
            raise UserError(
                "a project folder is needed", f"{folder} without project.json", "run: retell ingest"
            )
        return project

    @property
    def about(self) -> dict:
        fresh = {"tool": f"retell {__version__}", "consent": [], "pronunciations": {}}
        return read_json(self.file) if self.file.is_file() else fresh

    def add_consent(self, name: str, statement: str) -> None:
        """Keep who said that the person recorded agrees; without this no recording enters a project."""
        if len(statement.split()) < 3:
            raise UserError(
                "a statement of consent is needed: who agrees to what",
                repr(statement),
                'give for example --consent "I am the person recorded and agree to edits of my words"',
            )
        about = self.about
        entry = {
            "recording": name,
            "statement": statement,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        if not any(c["recording"] == name and c["statement"] == statement for c in about["consent"]):
            write_json(self.file, about | {"consent": [*about["consent"], entry]})

    def pronounce(self, word: str, phones: str) -> None:
        from retell.phones import names, numbers

        about = self.about
        said = " ".join(names(numbers(phones)))
        write_json(self.file, about | {"pronunciations": about["pronunciations"] | {word.lower(): said}})

    def lexicon(self) -> Lexicon:
        return Lexicon(own=dict(self.about["pronunciations"]))

    @cached_property
    def target(self) -> Recording:
        recording = Recording(self.folder / "target")
        if not (recording.folder / "clip.json").is_file():
            raise UserError(
                "a target recording is needed", "a project without one", "run: retell ingest VIDEO TRANSCRIPT"
            )
        return recording

    @property
    def sources(self) -> list[Recording]:
        return [Recording(p.parent) for p in sorted(self.folder.glob("sources/*/clip.json"))]

    def repository(self) -> Speech | None:
        """All source recordings in a row, or None without any."""
        speeches = [source.speech for source in self.sources]
        return join(speeches) if speeches else None

    @cached_property
    def history(self) -> History:
        return History.load(self.folder / "edits.json", [w.text for w in self.target.speech.words])

    @property
    def cache(self) -> Path:
        return self.folder / "cache"
