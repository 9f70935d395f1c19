"""The figures of the documentation: `retell measure WHAT --json FILE` writes them with machine and versions."""

import importlib.metadata
import itertools
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from retell import draw, media, retarget, studio, synth
from retell.files import write_json
from retell.ingest import ingest
from retell.mouth import OUTER, MouthModel, pose, to_image
from retell.procedural import Speaker, sentence
from retell.project import Project, Recording
from retell.render import Renderer, Result
from retell.search import Costs, Index
from retell.speech import Speech, join

Say = Callable[[str], None]


def machine() -> dict:
    """Where and with what figures were measured."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        models = [
            line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line
        ]
        cpu = models[0] if models else cpu
    here = str(Path(__file__).parent)
    git = subprocess.run(["git", "-C", here, "rev-parse", "HEAD:./"], capture_output=True, text=True)
    names = ("numpy", "opencv-python-headless", "av", "pocketsphinx", "ai-edge-litert", "c2pa-python")
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load_at_start": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in names},
        "code": git.stdout.strip() or None,  # git's name of the tree of retell/
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def small_case(random: np.random.Generator) -> tuple[Index, np.ndarray, np.ndarray | None]:
    """A repository and a query small enough to try every match."""
    size = int(random.integers(1, 6))
    length = random.choice([0.03, 0.06, 0.12, 0.24], size)
    end = np.cumsum(length)
    utterance = np.cumsum(random.random(size) < 0.25)
    motion = random.random((int(end[-1] * 25) + 2, 3)).astype(np.float32)
    speech = Speech(random.integers(0, 5, size), end - length, end, utterance, [], 25.0, motion)
    drawn = (int(random.integers(0, 90)), int(random.integers(0, 30)), int(random.integers(0, 9)))
    index = Index(speech, Costs(*drawn, levels=4))
    query = random.integers(0, 5, random.integers(1, 5))
    return index, query, random.choice([0.03, 0.1, 0.3], len(query)) if random.random() < 0.5 else None


def least_cost(index: Index, query: np.ndarray, durations: np.ndarray | None) -> int:
    """The least cost of a match by trying every one; prices of single phones and of pairs come from `Index.cost`."""
    places = range(len(index.speech))
    given = [None if durations is None else durations[i : i + 1] for i in range(len(query))]
    one = [[index.cost([q], [j], d) for j in places] for q, d in zip(query, given, strict=True)]
    free = [index.cost([index.phones[j]], [j]) for j in places]
    pair = [[index.cost(index.phones[[k, j]], [k, j]) - free[k] - free[j] for j in places] for k in places]
    return min(
        sum(one[i][j] for i, j in enumerate(match)) + sum(pair[k][j] for k, j in itertools.pairwise(match))
        for match in itertools.product(places, repeat=len(query))
    )


def equal_to_brute_force(cases: int, seed: int = 0) -> int:
    """In how many random small cases the search finds the cost that trying every match finds."""
    random, equal = np.random.default_rng(seed), 0
    for _ in range(cases):
        index, query, durations = small_case(random)
        least = least_cost(index, query, durations)
        match = index.search(query, durations)
        equal += match.cost == least == index.cost(query, match.places, durations)
    return equal


def ten_words(seed: int = 5) -> Speech:
    """A query of ten words by a speaker who is not in the repository."""
    random = np.random.default_rng(seed)
    speaker = Speaker.draw(99)
    words = list(itertools.chain.from_iterable(sentence(random, wide=True) for _ in range(3)))[:10]
    return speaker.speak([words], random)


def search_ms(index: Index, query: Speech, times: int = 15) -> dict:
    """Least and median of the processor time and of the time on the wall, in milliseconds."""
    index.search(query.phones, query.durations)
    used, passed = [], []
    for _ in range(times):
        a, b = time.process_time(), time.perf_counter()
        match = index.search(query.phones, query.durations)
        used.append(time.process_time() - a)
        passed.append(time.perf_counter() - b)
    return {
        "cpu_ms_median": 1000 * float(np.median(used)),
        "wall_ms_median": 1000 * float(np.median(passed)),
        "wall_ms_least": 1000 * min(passed),
        "pieces": len(match.pieces),
        "exact_phones": float((index.phones[match.places] == query.phones).mean()),
    }


def search(say: Say) -> dict:
    say("1,000 small cases against brute force")
    result: dict = {"cases": 1000, "equal_to_brute_force": equal_to_brute_force(1000)}
    hours = []
    query, speaker = ten_words(), Speaker.draw(1)
    result["query_phones"] = len(query)
    result["by_minutes"] = {}
    for minutes in (1, 10, 60, 180, 600):
        while sum(h.seconds for h in hours) < 60 * minutes:
            missing = 60 * minutes - sum(h.seconds for h in hours)
            hours.append(speaker.talk(min(missing + 5, 3600), np.random.default_rng([len(hours), 60])))
        speech = join(hours)
        last = int(np.searchsorted(speech.end, 60 * minutes))
        index = Index(speech.part(0, last))
        result["by_minutes"][minutes] = {"phones": last, "mouth_states": len(index.first)} | search_ms(
            index, query
        )
        say(f"{minutes} min: {result['by_minutes'][minutes]}")
    return result


def retargeting(say: Say, pairs: int = 5, lengths=(15, 30, 60, 150), owns=(0.02, 0.10)) -> dict:
    """Errors of every method for pairs of speakers, by how much of the target is known and how much is its own."""
    rows = []
    for own, pair in itertools.product(owns, range(pairs)):
        random = np.random.default_rng([pair, 7])
        source, target = Speaker.draw(2 * pair + 100, own), Speaker.draw(2 * pair + 101, own)
        index = Index(source.talk(3600, random))
        known, test = target.talk(max(lengths), random), target.talk(120, random)
        for seconds in lengths:
            last = next(
                b for _, b in known.sentences() if known.end[b - 1] >= min(seconds, known.seconds) - 1e-6
            )
            part = known.part(0, last)
            for method, make in retarget.methods(index, part).items():
                if "network" in method and (seconds < max(lengths) or own < max(owns)):
                    continue
                predicted = make()(test, len(test.motion))
                rows.append(
                    {
                        "own": own,
                        "pair": pair,
                        "target_seconds": seconds,
                        "method": method,
                        "nrmse": retarget.nrmse(predicted, test.motion),
                        "closure": retarget.closure(predicted, test.motion, test),
                    }
                )
        say(f"own {own}, pair {pair}: {rows[-1]}")
    return {"rows": rows, "repository_minutes": 60, "test_seconds": 120, "pairs": pairs}


def altered_frames(result: Result, renderer: Renderer, artist: draw.Artist) -> dict:
    """What is seen in a result: lips against the parameters asked for, and PSNR of what should not change."""
    plan, poses = result.plan, renderer.synthesiser.poses
    originals = renderer.target.frames()
    height, width = synth.label_box(renderer.target.size)
    seen, asked, psnr = [], [], []
    for t, frame in enumerate(media.frames(media.probe(result.path))):
        background = int(plan.background[t])
        keep = np.ones(frame.shape[:2], bool)
        keep[-height:, :width] = False
        if plan.altered[t]:
            lips = to_image(renderer.target.mouth.decode(plan.motion[t][None])[0][OUTER], poses[background])
            points = renderer.synthesiser.points[background, :, :2]
            keep[synth.region(points, lips, renderer.target.size).box] = False
            seen.append(draw.seen_opening(frame, poses[background], artist.look))
            asked.append(plan.motion[t, 0])
        error = ((frame.astype(float) - originals[background])[keep] ** 2).mean()
        psnr.append(10 * np.log10(255**2 / max(error, 1e-9)))
    return {
        "lip_correlation": float(np.corrcoef(seen, asked)[0, 1]),
        "altered_frames": len(seen),
        "outside_psnr_db": float(np.mean(psnr)),
        "outside_psnr_db_least": float(np.min(psnr)),
    }


def add_source(project: Project, speaker: Speaker, seconds: float, seed: int) -> None:
    """A repository by formula in a project: mouth parameters as a tracker would measure them, without video."""
    speech = speaker.talk(seconds, np.random.default_rng(seed))
    still = np.tile([[100.0 + 0j, 0j]], (4000, 1))
    blocks = [speech.motion[i : i + 4000] for i in range(0, len(speech.motion), 4000)]
    points = [draw.place(draw.face_points(b), still[: len(b)]) for b in blocks]
    model = MouthModel.fit(points[0], pose(points[0]))
    speech.motion = np.concatenate([model.encode(p, still[: len(p)]) for p in points])
    recording = Recording(project.folder / "sources" / "drawn")
    project.add_consent("drawn", "The drawn speaker agrees to lend its mouth")
    speech.save(recording.folder / "speech.npz")
    recording.finish(
        {"name": "made by formula", "rate": str(int(speech.rate)), "frames": len(speech.motion), "notes": []}
    )


def edit(say: Say, seconds: float = 10.0, size=(1280, 720)) -> dict:
    """Seconds of each stage for edits of a 720p clip."""
    with tempfile.TemporaryDirectory() as folder:
        random = np.random.default_rng(4)
        words: list[list[str]] = []
        shot = None
        while shot is None or shot.speech.seconds < seconds:
            words.append(sentence(random))
            shot = studio.shoot(2, words, size, seed=9)
        film = studio.film(shot, Path(folder) / "clip.mp4")
        project = Project(Path(folder) / "project")
        clock = time.perf_counter()
        ingest(project, film, shot.transcript, "The drawn speaker agrees to edits", tracker=shot.track)
        result: dict = {
            "clip_seconds": shot.speech.seconds,
            "size": list(size),
            "ingest_seconds": time.perf_counter() - clock,
        }
        add_source(project, Speaker.draw(1), 3600, 1)
        renderer = Renderer(project)
        known = project.history.words
        result["first_render"] = _timed(renderer, say)
        project.history.do({"op": "replace", "first": 5, "last": 7, "text": " ".join(known[14:17])})
        result["three_words_replaced"] = _timed(renderer, say)
        project.history.do({"op": "perform", "first": 11, "last": 12, "energy": 1.4})
        result["one_word_performed"] = _timed(renderer, say)
        fresh = Renderer(Project(project.folder))
        fresh.project.history.do({"op": "replace", "first": 18, "last": 19, "text": known[2]})
        result["one_word_replaced_in_a_new_process"] = _timed(fresh, say)
        return result


def _timed(renderer: Renderer, say: Say) -> dict:
    """One rendering: seconds by stage, and the processor's seconds of all threads, which other load changes less."""
    began = time.process_time()
    result = renderer.render()
    used = time.process_time() - began
    say(f"{used:.1f} processor seconds; " + str({k: round(v, 2) for k, v in result.seconds.items()}))
    frames = len(result.plan.background)
    return {
        "seconds": result.seconds,
        "processor_seconds": used,
        "frames_encoded": result.encoded,
        "frames": frames,
    }


def clips(say: Say) -> dict:
    from retell import clips as real

    folder = Path(os.environ.get("RETELL_CLIPS", Path(__file__).parents[4] / "shared" / "data" / "video"))
    sheets = Path(tempfile.gettempdir()) / "retell-sheets"
    found = real.study(folder, sheets, say)
    say(f"contact sheets to look at: {sheets}")
    return found


def measure(what: str, path: Path, say: Say) -> None:
    about = machine()
    measures = {"search": search, "retargeting": retargeting, "edit": edit, "clips": clips}
    write_json(path, {"what": what, "machine": about, "result": measures[what](say)})
