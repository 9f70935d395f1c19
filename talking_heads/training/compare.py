"""Compare arms: does talking help on this text, and what does it cost?

    for each seed and arm: pre-train (runs/ARM/SEED), keep the curve, fine-tune on the transfer tasks
    time a step of all arms, alternately
    results.json, the pictures, report.html

A run's result is saved after pre-training and after each task. The same command continues with what is missing, and
adds further arms or seeds. Several processes of the same command share the runs: start one on each GPU
(CUDA_VISIBLE_DEVICES). Those that torchrun started train each run together instead.
"""

import json
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..results import folders
from ..results.extras import require
from ..results.files import set_aside, write_json
from ..results.progress import Progress, expect, silent
from ..results.provenance import provenance
from ..results.schema import read_json
from . import together
from .arms import parse_arm
from .choices import decide
from .corpus import Corpus
from .devices import device
from .gather import COMPARISON, RESULT, TIMING, Results, gather
from .hardware import PLAIN, Hardware
from .job import Run
from .models import parameters
from .objectives import find
from .settings import Settings
from .stream import Streamed
from .tasks import Task


def compare(
    settings: Settings,
    corpus: Corpus,
    tasks: Sequence[Task],
    out: Path,
    *,
    snapshots: bool = False,
    experiment: Mapping[str, str] | None = None,
    hardware: Hardware = PLAIN,
    progress: Progress = silent,
    show: Callable[[Results], None] = lambda results: None,
) -> Results:
    """Runs what `out` does not hold yet and writes results.json, PNG figures and report.html there.

    Args:
        tasks: what each pre-trained model is fine-tuned on; none, one or several.
        snapshots: keep each run's model along pre-training, for `talking_heads.dynamics`.
        experiment: {"name", "scale"} where the arms are those of an experiment; kept for the report.
        hardware: how each run is trained. Under torchrun its processes train each run together.
        progress: called with (run, steps done, steps in all, news).
        show: called with the results so far after each run and at the end.

    Returns:
        What results.json holds: see `gather`.

    Raises:
        UserError: `out` holds another comparison, or a corpus too short for the settings.
    """
    from .report import write_results

    require("matplotlib", "scipy")
    together.join()

    def begin() -> tuple[Results, Results]:
        refuse_foreign(out)
        for arm in settings.arms:
            parameters(settings, arm)  # refuses options that the architecture does not take, before any work
        folders.claim(out, "compare", known=is_comparison(out))
        with folders.lock(out):
            is_new = not (out / "comparison.json").exists()
            claim(out, settings, corpus, tasks, experiment)
            try:
                _, data = prepare(out, settings, corpus)
            except UserError:  # refused, so nothing was begun: the folder is free for other settings
                if is_new:
                    (out / "comparison.json").unlink()
                    folders.release(out)
                    shutil.rmtree(out / "data", ignore_errors=True)
                raise
            about = _about(out, settings, corpus, tasks, data)
            decided = decide(out, claim(out, settings, corpus, tasks, experiment), data, progress)
            _set_damaged_aside(out)
        return about, decided

    about, decided = together.first(begin)
    tokenizer, data = prepare(out, settings, corpus)
    streamed = {"stream": Streamed(corpus.stream, tokenizer)} if corpus.stream else {}
    # Seed by seed, so that an early stop leaves whole pairs; then those that other processes had, should one die.
    runs = [(arm, seed) for seed in settings.seeds for arm in settings.arms]
    expect(progress, len(runs))
    for wait in (False, True):
        for arm, seed in runs:
            folder = run_folder(out, arm, seed)
            with together.lock(folder, wait=wait) as mine:
                choice = decided[parse_arm(arm).name]
                run = Run(folder, settings, arm, seed, choice, tokenizer, progress, hardware)
                if mine and not together.first(partial(_is_finished, folder, tasks)):
                    run.pretrain(data | streamed, about, snapshots)
                    run.transfer(tasks)
                    if together.leads():
                        show(gather([out]))
                elif mine and not wait:
                    run.report(1, 1, "")  # kept from before

    def end() -> Results:
        with folders.lock(out):
            every = claim(out, settings, corpus, tasks, experiment)  # with what other processes have added
            _time(out, every, data, progress)
            results = gather([out])
            write_results(out, results)
        show(results)
        return results

    return together.first(end)


def refuse_foreign(out: Path) -> None:
    """Raises UserError where `out` is not a comparison's folder, nor new or empty."""
    folders.check(out, "compare", known=is_comparison(out))


def is_comparison(out: Path) -> bool:
    """Whether a folder holds what `claim` writes; those of earlier versions have no marker."""
    try:
        read_json(out / "comparison.json", COMPARISON)
    except (OSError, UserError):
        return False
    return True


def claim(
    out: Path,
    settings: Settings,
    corpus: Corpus,
    tasks: Sequence[Task],
    experiment: Mapping[str, str] | None = None,
) -> Settings:
    """Marks the folder as this comparison's; refuses one that holds another.

    Returns the settings with every arm and seed of the folder, those it has before the new ones.
    """
    path = out / "comparison.json"
    if path.exists():
        held = read_json(path, COMPARISON)
        names = {parse_arm(arm).name for arm in held["settings"]["arms"]}
        new = [arm for arm in settings.arms if parse_arm(arm).name not in names]
        arms = _joined(held["settings"]["arms"], new)
        seeds = _joined(held["settings"]["seeds"], settings.seeds)
        settings = replace(settings, arms=arms, seeds=seeds)
        other = {
            **asdict(Settings()),
            **held["settings"],
            **held,
        }  # a folder of before a setting has its default
        now = json.loads(json.dumps(_identity(settings, corpus, tasks, experiment)))
        now = {**now["settings"], **now}
        differs = [x for x in now if x not in ("settings", "arms", "seeds") and other.get(x) != now[x]]
        if differs:
            raise UserError(
                "a results folder must hold the same comparison or none",
                f"one that differs in {', '.join(differs)} in {out}",
                "name another folder with --out, or repeat its settings",
            )
    write_json(path, _identity(settings, corpus, tasks, experiment))
    return settings


def _identity(
    settings: Settings, corpus: Corpus, tasks: Sequence[Task], experiment: Mapping[str, str] | None
) -> Results:
    return {
        "settings": asdict(settings),
        "corpus": corpus.digest,
        "transfer": {task.name: task.digest for task in tasks},
        "experiment": dict(experiment) if experiment else None,
    }


def _joined(held: Sequence[Any], new: Sequence[Any]) -> tuple[Any, ...]:
    return (*held, *(x for x in new if x not in held))


def prepare(out: Path, settings: Settings, corpus: Corpus) -> tuple[Any, dict[str, Any]]:
    """Tokenizer and data, made once and kept under out/data."""
    return find(settings.objective).prepare(out / "data", settings, corpus)


def _about(
    out: Path, settings: Settings, corpus: Corpus, tasks: Sequence[Task], data: dict[str, Any]
) -> Results:
    """What the runs learn from and are judged on; counted once and kept with the data."""
    path = out / "data" / "about.json"
    if not path.exists():
        about = {"corpus": corpus.name, "corpus_digest": corpus.digest, "words": corpus.words}
        about |= find(settings.objective).about(data, settings)
        about["transfer"] = [{"name": task.name, "digest": task.digest, **task.about()} for task in tasks]
        write_json(path, about)
    found: Results = read_json(path)
    return found


def run_folder(out: Path, arm: str, seed: int) -> Path:
    return out / "runs" / parse_arm(arm).folder / f"seed-{seed}"


def _is_finished(folder: Path, tasks: Sequence[Task]) -> bool:
    path = folder / "result.json"
    return path.exists() and all(task.name in read_json(path, RESULT)["transfer"] for task in tasks)


def _set_damaged_aside(out: Path) -> None:
    """Rename results that somebody changed or a disk lost, so that their runs are trained again."""
    shapes = {path: RESULT for path in out.glob("runs/*/seed-*/result.json")} | {out / "timing.json": TIMING}
    for path, shape in shapes.items():
        if not path.exists():
            continue
        try:
            read_json(path, shape)
        except UserError as why:
            place = set_aside(path)
            warnings.warn(f"{why}: done again now, the old file is {place.name}", stacklevel=2)


def _time(out: Path, settings: Settings, data: Results, progress: Any) -> None:
    """timing.json: {"machine", "seconds": {seed: {arm: seconds a step}}}.

    A seed that lacks an arm is measured again, all arms in turns; so is everything where the machine is another.
    """
    from .timing import step_seconds

    path, machine = out / "timing.json", provenance(device())["machine"]
    held = read_json(path, TIMING) if path.exists() else {}
    found = held["seconds"] if held.get("machine") == machine else {}
    arms = {name: choice["runs_as"] for name, choice in decide(out, settings, data, progress).items()}
    names = list(arms)
    for seed in settings.seeds:
        if not set(names) <= found.get(str(seed), {}).keys():
            progress("timing", len(found), len(settings.seeds), "")
            times = step_seconds(replace(settings, arms=tuple(arms.values())), seed, data)
            found[str(seed)] = {name: times[arms[name]] for name in names}
            write_json(path, {"machine": machine, "seconds": found})
