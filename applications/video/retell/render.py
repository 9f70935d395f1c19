"""From an edited transcript to a playable, signed MP4, with the seconds each stage takes."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from retell import provenance, retarget, synth
from retell.encode import Packets, encode_segment, segment_name, write_result
from retell.errors import UserError
from retell.files import digest
from retell.plan import Plan, Planner
from retell.project import Project
from retell.search import Index

Progress = Callable[[str, float], None]


@dataclass
class Result:
    path: Path
    plan: Plan
    seconds: dict[str, float]  # by stage
    encoded: int  # frames that were drawn and encoded
    segments: list[tuple[int, int]]
    fresh: list[tuple[int, int]] = field(default_factory=list)  # segments that were not in the cache


class Renderer:
    """A project held ready: the repository's index, the fitted model and open frames, for one edit after the other."""

    def __init__(self, project: Project):
        self.project, self.target = project, project.target
        if self.target.speech.motion.shape[1] != 6:
            raise UserError(
                "a target with six mouth parameters is needed",
                str(self.target.speech.motion.shape),
                "ingest again",
            )
        self.synthesiser = synth.Synthesiser(self.target)
        self._model: retarget.Model | None = None
        self.planner = Planner(project, self.model)
        self.seconds: dict[str, float] = {}

    def model(self) -> retarget.Model:
        """The retargeting model, fitted at the first need: with a source repository if there is one."""
        if self._model is None:
            began = time.perf_counter()
            repository = self.project.repository()
            if repository is None:
                self._model = retarget.fit(Index(self.target.speech), self.target.speech, retarget.NO_SOURCE)
            else:
                self._model = retarget.fit(Index(repository), self.target.speech)
            self.seconds["prepare"] = time.perf_counter() - began
        return self._model

    def prepare(self, labelled: bool = True) -> tuple[Plan, dict]:
        """The plan of the edits as they are now, and what the manifest will say about them."""
        plan = self.planner.plan()
        return plan, self.statement(plan, labelled)

    def render(
        self,
        out: Path | None = None,
        labelled: bool = True,
        progress: Progress = lambda stage, part: None,
        prepared: tuple[Plan, dict] | None = None,
    ) -> Result:
        """Write the result; with `prepared`, edits that were made since do not take part."""
        self.seconds = seconds = {}
        out = Path(out) if out else self.project.folder / "result.mp4"
        began = time.perf_counter()
        progress("plan", 0.0)
        plan, statement = prepared or self.prepare(labelled)
        seconds["plan"] = time.perf_counter() - began - seconds.get("prepare", 0.0)
        clock = time.perf_counter()
        sources = np.zeros(len(plan.background), int)
        for a, b in _runs(plan.altered):
            sources[a:b] = self.synthesiser.choose(plan.motion[a:b])
        seconds["choose frames"] = time.perf_counter() - clock
        segments, fresh, encoded = self._segments(plan, sources, labelled, seconds, progress)
        progress("write", 1.0)
        clock = time.perf_counter()
        unsigned = self.project.cache / "unsigned.mp4"
        write_result(unsigned, [s for _, s in segments], plan.samples, self.target.rate, self.target.size)
        seconds["write"] = time.perf_counter() - clock
        clock = time.perf_counter()
        provenance.sign(unsigned, out, statement)
        unsigned.unlink()
        seconds["sign"] = time.perf_counter() - clock
        seconds["total"] = time.perf_counter() - began
        return Result(out, plan, seconds, encoded, [s for s, _ in segments], fresh)

    def statement(self, plan: Plan, labelled: bool) -> dict:
        """What the manifest says about the result."""
        history, about = self.project.history, self.project.about
        rate = float(self.target.rate)
        return {
            "source_sha256": self.target.about["source_sha256"],
            "edits": history.done,
            "text_before": " ".join(history.words),
            "text_after": history.text(),
            "altered_seconds": [[round(a / rate, 3), round(b / rate, 3)] for a, b in _runs(plan.altered)],
            "sound": plan.notes,
            "consent": [c for c in about["consent"] if c["recording"] == "target"],
            "visible_label": labelled,
        }

    def _segments(self, plan, sources, labelled, seconds, progress) -> tuple[list, list, int]:
        """Encoded segments in order, from the cache where their frames are the same as before."""
        keys = self._keys(plan, sources, labelled)
        folder = self.project.cache / "segments"
        bounds = _bounds(plan, round(float(self.target.rate)))
        found, fresh, done = [], [], 0
        names = [segment_name(keys[a:b], self.target.rate, self.target.size) for a, b in bounds]
        missing = sum(
            b - a for (a, b), name in zip(bounds, names, strict=True) if not (folder / f"{name}.npz").exists()
        )
        seconds["draw"] = seconds["encode"] = 0.0
        for (a, b), name in zip(bounds, names, strict=True):
            file = folder / f"{name}.npz"
            packets = _cached(file)
            if packets is None:
                clock = time.perf_counter()
                pictures = []
                for t in range(a, b):
                    pictures.append(self._picture(plan, t, int(sources[t]), labelled))
                    done += 1
                    progress("draw", done / max(missing, done))
                seconds["draw"] += time.perf_counter() - clock
                clock = time.perf_counter()
                packets = encode_segment(pictures, self.target.rate, self.target.size)
                packets.save(file)
                seconds["encode"] += time.perf_counter() - clock
                fresh.append((a, b))
            found.append(((a, b), packets))
        return found, fresh, done

    def _picture(self, plan: Plan, t: int, source: int, labelled: bool) -> np.ndarray:
        background = int(plan.background[t])
        if plan.altered[t]:
            picture, _ = self.synthesiser.draw(background, plan.motion[t], source)
        else:
            picture = self.synthesiser.frames[background].copy()
        return synth.label(picture, bool(plan.altered[t])) if labelled else picture

    def _keys(self, plan: Plan, sources: np.ndarray, labelled: bool) -> list[str]:
        start = digest(self.target.about["files"], labelled)
        return [
            f"{start}-{plan.background[t]}"
            + (f"-{sources[t]}-{digest(np.round(plan.motion[t], 5))}" if plan.altered[t] else "")
            for t in range(len(plan.background))
        ]


def _cached(file: Path) -> Packets | None:
    try:
        return Packets.load(file)
    except (FileNotFoundError, UserError):  # absent, or damaged: encode again
        return None


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """First and one past the last of each run of true flags."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _bounds(plan: Plan, length: int) -> list[tuple[int, int]]:
    """Segments of about a second. In untouched parts they begin at whole seconds of the source, so that an edit
    earlier in the video does not change them."""
    count = len(plan.background)
    breaks = {0, count}
    follows = (np.diff(plan.background) == 1) & ~plan.altered[1:] & ~plan.altered[:-1]
    same = plan.altered[1:] & plan.altered[:-1]
    breaks |= set((np.flatnonzero(~(follows | same)) + 1).tolist())
    whole = (plan.background % length == 0) & ~plan.altered
    breaks |= set(np.flatnonzero(whole).tolist())
    for a, b in _runs(plan.altered):
        breaks |= set(range(a, b, length))
    return list(pairwise(sorted(breaks)))
