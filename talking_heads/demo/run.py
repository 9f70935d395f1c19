"""The demo from start to end: parts that are kept in its folder, results.json and index.html."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..results import folders
from ..results.extras import require
from ..results.files import write_json, write_text
from ..results.provenance import provenance
from ..results.schema import NUMBER, read_json
from ..training.devices import device, refuse_torchrun
from ..training.recall import KINDS, Point, Task
from . import parts
from .index import index
from .parts import Results, Watch


def demo(out: Path, seeds: Sequence[int], watch: Watch) -> Results:
    """Runs the parts that `out` does not hold yet; writes results.json and index.html there.

    Args:
        seeds: of recall; each is one more run of every arm.
        watch: told what happens.

    Returns:
        {"recall": [{"arm", "heads", "head_dim", "accuracy": [by seed]}], "operator": {"shape", "sdpa_ms",
        "ours_ms", "next_best": {"form", "ms"}}, "convert": {"model", "layers", "max_error"}, "seconds", provenance}.
        Times are of forward and backward together, medians; seconds are those of all parts, also of earlier runs
        of the same command.

    Raises:
        UserError: a missing package, a folder that is not the demo's, a form of the operator that is wrong.
    """
    refuse_torchrun()
    if not seeds:
        raise UserError("--seeds must be at least 1", 0, "give more")
    require("matplotlib", "transformers")
    parts.check_model()
    folders.claim(out, "demo")
    with folders.lock(out, "demo", wait=False) as mine:
        if not mine:
            raise UserError("a demo must have its folder alone", f"another at work in {out}", "wait for it")
        return _run(out, seeds, watch, parts.TASK)


def _run(out: Path, seeds: Sequence[int], watch: Watch, task: Task) -> Results:
    start, earlier = time.perf_counter(), 0.0

    def kept(name: str, shape: Any, make: Callable[[], Results]) -> Results:
        nonlocal earlier
        path = out / "parts" / f"{name}.json"
        if path.exists():
            found: Results = read_json(
                path, {**shape, "seconds": NUMBER}, "delete it and rerun the same command"
            )
            earlier += found["seconds"]
            return found
        begun = time.perf_counter()
        found = make()
        found |= {"seconds": round(time.perf_counter() - begun, 2)} | provenance(device())
        write_json(path, found)
        return found

    points = []
    for seed in seeds:
        for heads in parts.HEADS:
            for kind in KINDS:
                point = Point(kind, parts.PAIRS, heads, seed)
                make = partial(parts.recall, task, point, watch)
                points.append(kept(f"recall-{point.name}", parts.RECALL, make))
                if points[-1]["task"] != asdict(task):
                    raise UserError(
                        "a demo's folder must hold the same task",
                        f"another in {out}",
                        "name another with --out",
                    )
                watch.finished(point, points[-1]["curve"], points[-1]["accuracy"])
    operator = kept("operator", parts.OPERATOR, lambda: parts.operator(watch))
    convert = kept("convert", parts.CONVERT, lambda: parts.convert(watch))
    results: Results = {
        "recall": parts.by_arm(points, task.width),
        "operator": {name: operator[name] for name in ("shape", "sdpa_ms", "ours_ms", "next_best")},
        "convert": {name: convert[name] for name in ("model", "layers", "max_error")},
    }
    pictures = {"recall": points, "operator": operator, "convert": convert}
    seconds = earlier + time.perf_counter() - start
    write_text(out / "index.html", index(out, results, pictures, task, seconds))
    results["seconds"] = round(earlier + time.perf_counter() - start, 1)
    results |= provenance(device())
    write_json(out / "results.json", results)
    return results
