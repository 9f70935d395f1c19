"""`retell demo`: everything on drawn speakers whose truth is known, in about two minutes, without any recording."""

import html
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from retell import measure, media, provenance, retarget, studio, voice
from retell.draw import face_points, place
from retell.files import require_space, write_bytes, write_json
from retell.ingest import ingest
from retell.procedural import Speaker, sentence
from retell.project import Project, write_wav
from retell.render import Renderer, Result
from retell.search import Index

SOURCE, TARGET = 1, 2
NEW_WORDS = ["purple", "garden", "window"]


def demo(
    out: Path,
    say: Callable[[str], None],
    target_seconds: float = 40.0,
    minutes: float = 60.0,
    size=(640, 360),
    cases: int = 1000,
) -> dict:
    """Write edited.mp4, index.html and results.json into `out`."""
    began = time.perf_counter()
    out = Path(out)
    require_space(out, 200_000_000)
    say("search: 1,000 small cases against brute force, then a repository of an hour")
    equal = measure.equal_to_brute_force(cases)
    repository = Speaker.draw(SOURCE).talk(60 * minutes, np.random.default_rng(1))
    index = Index(repository)
    timing = measure.search_ms(index, measure.ten_words())
    results: dict = {
        "search": {
            "equal_to_brute_force": equal == cases,
            "cases": cases,
            "ms": round(timing["cpu_ms_median"], 2),
            "wall_ms": round(timing["wall_ms_least"], 2),
            "repository_minutes": round(repository.seconds / 60, 1),
        }
    }
    say(f"retargeting: {target_seconds:.0f} s of the target, all methods")
    results["retargeting"], results["closure"] = _methods(index, target_seconds)
    say("a drawn recording: film, align, track")
    project, shot = _project(out / "project", target_seconds, size)
    measure.add_source(project, Speaker.draw(SOURCE), 60 * minutes, 1)
    before = project.folder / "target" / "frames.mp4"
    say("edits: words replaced, inserted, deleted, a gesture, more energy")
    renderer = Renderer(project)
    renderer.render()  # what a first look at the unedited video encodes is not counted to the edits
    _edits(project)
    result = renderer.render(out / "edited.mp4")
    results |= {
        k: v
        for k, v in measure.altered_frames(result, renderer, shot.artist).items()
        if k != "altered_frames"
    }
    results["altered_frames"] = int(result.plan.altered.sum())
    results["seconds_per_edit"] = {k: round(v, 3) for k, v in result.seconds.items()}
    results["new_words_nrmse"] = _against_truth(project, renderer, result, shot)
    results["alignment_ms"] = _alignment(project, shot)
    results["provenance"] = provenance.read(result.path)["intact"]
    shutil.copyfile(before, out / "before.mp4")
    _sheet(result, out / "sheet.png")
    results["seconds"] = round(time.perf_counter() - began, 1)
    write_json(out / "results.json", results)
    _page(out, project, result, results)
    say(f"{out / 'edited.mp4'}, {out / 'index.html'}, {out / 'results.json'} in {results['seconds']:.0f} s")
    return results


def _methods(index: Index, seconds: float) -> tuple[dict, dict]:
    """Errors of all retargeting methods on the formula's own parameters, of sentences that were not learned from."""
    random = np.random.default_rng(3)
    known, test = (Speaker.draw(TARGET).talk(s, random) for s in (seconds, 60.0))
    errors, closures = {}, {}
    for name, make in retarget.methods(index, known).items():
        predicted = make()(test, len(test.motion))
        errors[name] = round(retarget.nrmse(predicted, test.motion), 4)
        closures[name] = round(retarget.closure(predicted, test.motion, test), 4)
    return errors, closures


def _project(folder: Path, seconds: float, size: tuple[int, int]) -> tuple[Project, studio.Shot]:
    shutil.rmtree(folder, ignore_errors=True)
    random, words, length = np.random.default_rng(8), [], 0.0
    while length < seconds:
        words += [sentence(random) for _ in range(3)]
        length = studio.shoot(TARGET, words, size, 5).speech.seconds
    shot = studio.shoot(TARGET, words, size, 5)
    film = studio.film(shot, folder / "recording.mp4")
    project = Project(folder)
    ingest(
        project, film, shot.transcript, "The drawn speaker agrees to this demonstration", tracker=shot.track
    )
    return project, shot


def _edits(project: Project) -> None:
    """Recorded words elsewhere, new words in a WAV by the formula voice, a deletion, a gesture, more energy."""
    history, random = project.history, np.random.default_rng(6)
    words = history.words
    spoken = Speaker.draw(TARGET).speak([NEW_WORDS], random)
    write_wav(project.folder / "said.wav", studio.voice(spoken, 120.0, 1))
    sound = voice.import_sound(project.folder / "said.wav", project.folder / "sounds").name
    history.do({"op": "replace", "first": 2, "last": 4, "text": " ".join(words[14:17])})
    history.do({"op": "replace", "first": 8, "last": 8, "text": " ".join(NEW_WORDS), "sound": sound})
    history.do({"op": "delete", "first": 13, "last": 15})
    history.do({"op": "replace", "first": 17, "last": 17, "text": "[smile]"})
    history.do({"op": "perform", "first": 20, "last": 23, "energy": 1.4})


def _against_truth(project: Project, renderer: Renderer, result: Result, shot: studio.Shot) -> dict:
    """Mouth of the inserted words against what the speaker's formula does for the same phones, by timing as aligned."""
    words = [
        w for w in result.plan.words if w["text"] in NEW_WORDS and project.history.tokens[w["token"]].sound
    ]
    a = round(words[0]["start"] * renderer.planner.rate)
    b = round(words[-1]["end"] * renderer.planner.rate)
    truth = Speaker.draw(TARGET).speak([NEW_WORDS], np.random.default_rng(6))
    points = place(face_points(truth.motion), np.tile([[100.0 + 0j, 0j]], (len(truth.motion), 1)))
    known = renderer.target.mouth.encode(points, np.tile([[100.0 + 0j, 0j]], (len(points), 1)))
    start = round(truth.word_times(truth.words[0])[0] * truth.rate)
    known = known[start : start + b - a]
    made = result.plan.motion[a : a + len(known)]
    spread = project.target.speech.motion.std(0)
    names = ("opening", "width", "protrusion")
    return {
        n: round(float(np.sqrt(((made - known)[:, i] ** 2).mean()) / spread[i]), 3)
        for i, n in enumerate(names)
    }


def _alignment(project: Project, shot: studio.Shot) -> dict:
    found, truth = project.target.speech, shot.speech
    pairs = zip(found.words, truth.words, strict=True)
    errors = [1000 * abs(found.start[a.first] - truth.start[b.first]) for a, b in pairs]
    return {"median": round(float(np.median(errors)), 1), "p90": round(float(np.percentile(errors, 90)), 1)}


def _sheet(result: Result, path: Path) -> None:
    """Every fourth altered frame, small."""
    altered = set(np.flatnonzero(result.plan.altered)[::4].tolist())
    cells = [
        cv2.resize(
            f[:, f.shape[0] * 4 // 10 : f.shape[0] * 14 // 10], (180, 180), interpolation=cv2.INTER_AREA
        )
        for t, f in enumerate(media.frames(media.probe(result.path)))
        if t in altered
    ]
    cells += [np.zeros((180, 180, 3), np.uint8)] * (-len(cells) % 8)
    sheet = np.vstack([np.hstack(cells[i : i + 8]) for i in range(0, len(cells), 8)])
    write_bytes(path, cv2.imencode(".png", sheet)[1].tobytes())


def _page(out: Path, project: Project, result: Result, results: dict) -> None:
    history = project.history
    words = " ".join(
        f"<b>{html.escape(t.text(history.words))}</b>"
        if t.keep is None or t.refined
        else html.escape(t.text(history.words))
        for t in history.tokens
    )
    rows = "".join(
        f"<tr><td>{html.escape(m)}<td>{e:.3f}<td>{results['closure'][m]:.3f}"
        for m, e in results["retargeting"].items()
    )
    notes = "".join(f"<li>{html.escape(n)}" for n in result.plan.notes)
    page = f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>retell demo</title>
<style>body{{font:16px/1.5 system-ui;max-width:1320px;margin:20px auto;padding:0 16px}}video{{width:640px}}td{{padding:2px 12px}}b{{background:#d5efda}}</style>
<h1>retell demo: two drawn speakers</h1>
<p><video controls src="before.mp4"></video> <video controls src="edited.mp4"></video>
<p>Before: {html.escape(" ".join(history.words))}<p>After: {words}<ul>{notes}</ul>
<h2>Retargeting: error over standard deviation (1 = predicting the mean), and at p, b, m</h2><table>{rows}</table>
<h2>All figures</h2><pre>{html.escape(json.dumps(results, indent=1))}</pre>
<h2>Every fourth altered frame</h2><img src="sheet.png" alt="altered frames"></html>"""
    write_bytes(out / "index.html", page.encode())
