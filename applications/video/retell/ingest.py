"""A recording enters a project in steps; each leaves a complete file, so that a stopped ingest goes on where it was."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from retell import face, media
from retell.align import align, doubtful
from retell.encode import project_video
from retell.errors import UserError
from retell.files import read_arrays, read_json, require_space, sha256, write_arrays, write_json
from retell.mouth import MouthModel, pose
from retell.project import Project, Recording, read_wav, write_wav
from retell.speech import Speech

Tracker = Callable[[Iterable[np.ndarray]], tuple[np.ndarray, np.ndarray]]


def transcript_of(video: Path, transcript: Path | None) -> str:
    path = Path(transcript) if transcript else Path(video).with_suffix(".txt")
    try:
        return path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(
            "a transcript is needed: a text file of what is said", f"no file {path}", "write one"
        ) from None
    except UnicodeDecodeError:
        raise UserError("a transcript must be UTF-8 text", str(path), "save it as UTF-8") from None


def ingest(
    project: Project,
    video: Path,
    transcript: str,
    consent: str,
    name: str = "target",
    tracker: Tracker | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Recording:
    """Take a video into a project as its target, or as a source of motion under another name."""
    if name != "target" and (not name or "/" in name or name.startswith(".")):
        raise UserError("a source's name must be a plain word", repr(name), "give for example --source anna")
    video = Path(video)
    clip = media.probe(video)
    folder = project.folder / ("target" if name == "target" else f"sources/{name}")
    frames = round(clip.seconds * clip.rate)
    pixels = clip.size[0] * clip.size[1]
    require_space(project.folder, int(frames * pixels * 0.15 if name == "target" else 0) + 20_000_000)
    project.add_consent(name, consent)
    recording = Recording(folder)
    steps = _steps(folder, {"video": sha256(video), "transcript": transcript.strip()})

    def step(file: str, make: Callable[[Path], None]) -> Path:
        if file not in steps["done"] or not (folder / file).is_file():
            say(f"{name}: {file}")
            make(folder / file)
            steps["done"] = [*steps["done"], file]
            write_json(folder / "steps.json", steps)
        return folder / file

    lexicon = project.lexicon()
    wav = step("sound.wav", lambda p: write_wav(p, media.sound(video)))
    rate = float(clip.rate)
    aligned = step("aligned.npz", lambda p: align(*read_wav(wav), transcript, lexicon, rate).save(p))
    own = step(
        "frames.mp4",
        lambda p: project_video(p, media.frames(clip), clip.rate, clip.size, read_wav(wav)[0]),
    )
    track = step("track.npz", lambda p: _track(p, own, clip, tracker or face.track))
    speech, tracked = Speech.load(aligned), read_arrays(track)
    model = MouthModel.fit(tracked["points"][tracked["seen"]], tracked["pose"][tracked["seen"]])
    speech.motion = model.encode(tracked["points"], tracked["pose"])
    speech.end = np.minimum(speech.end, len(speech.motion) / rate)
    model.save(folder / "mouth.npz")
    speech.save(folder / "speech.npz")
    for leftover in ("aligned.npz", *([] if name == "target" else ["frames.mp4"])):
        (folder / leftover).unlink(missing_ok=True)
    for word in speech.words:  # collects the words that only letter rules can say
        lexicon.say(word.text)
    notes = [*clip.notes, *_doubts(speech, lexicon.guessed), *_away(tracked["seen"], rate)]
    recording.finish(
        {
            "name": video.name,
            "source_sha256": steps["input"]["video"],
            "rate": str(clip.rate),
            "size": list(clip.size),
            "frames": len(speech.motion),
            "transcript": transcript.strip(),
            "notes": notes,
            "guessed": lexicon.guessed,
            "doubtful": doubtful(speech),
        }
    )
    (folder / "steps.json").unlink()
    recording.__dict__.pop("about", None)
    project.__dict__.pop("target", None)
    return recording


def _steps(folder: Path, source: dict) -> dict:
    """Which steps an earlier, stopped ingest of the same input has finished."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "clip.json").is_file():
        raise UserError(
            "a recording is ingested once",
            f"{folder}, which is complete",
            "use another project or source name",
        )
    file = folder / "steps.json"
    if file.is_file():
        stored = read_json(file)
        if stored["input"] == source:
            return stored
    for old in folder.iterdir():
        if old.is_file():
            old.unlink()
    return {"input": source, "done": []}


def _track(path: Path, own: Path, clip: media.Clip, tracker: Tracker) -> None:
    points, seen = tracker(media.frames(media.Clip(own, clip.rate, clip.size, clip.seconds)))
    write_arrays(path, points=points.astype(np.float32), pose=pose(points), seen=seen.astype(bool))


def _doubts(speech: Speech, guessed: dict[str, str]) -> list[str]:
    notes = [
        f'"{word}" is not in the dictionary; guessed as {said}: correct with retell pronounce'
        for word, said in guessed.items()
    ]
    words = [
        f'"{speech.words[i].text}" at {speech.word_times(speech.words[i])[0]:.2f} s' for i in doubtful(speech)
    ]
    if words:
        notes.append(
            f"the sound fits these words less than the others, check the transcript: {', '.join(words)}"
        )
    return notes


def _away(seen: np.ndarray, rate: float) -> list[str]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], (~seen).astype(int), [0]])))
    spans = [f"{a / rate:.2f}-{b / rate:.2f} s" for a, b in zip(edges[::2], edges[1::2], strict=True)]
    return [f"the face is not seen fully at {', '.join(spans)}: edits there look wrong"] if spans else []
