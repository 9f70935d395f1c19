"""A folder of results: the settings, one file for each finished run, and results.json; no run is repeated."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import UserError
from ..results import folders
from ..results.files import write_json
from ..results.progress import Progress, expect, silent
from ..results.provenance import provenance

__all__ = ["Job", "Progress", "Results", "claim", "complete", "finish", "load", "plain", "silent"]

Results = dict[str, Any]
Job = Callable[[Path, Callable[[int, int], None]], Results]  # arguments: the checkpoint file, progress


KINDS = ("synthetic", "mixing", "text", "transformer")


def claim(out: Path, asked: Results) -> None:
    """Marks the folder as holding what was asked; refuses one that holds something else."""
    asked = json.loads(json.dumps(asked))
    path = out / "asked.json"
    held = _held(path)
    folders.claim(out, "dynamics", known=held is not None)
    if held is None:
        write_json(path, asked)
    elif held != asked:
        differs = sorted(name for name in {*held, *asked} if held.get(name) != asked.get(name))
        raise UserError(
            "a results folder must hold the same runs or none",
            f"others in {out}, which differ in {', '.join(differs)}",
            "name another folder with --out, or repeat its settings",
        )


def _held(path: Path) -> Results | None:
    """What a folder was asked for; None where it is new, or has a file of that name by somebody else."""
    try:
        held = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return held if isinstance(held, dict) and held.get("kind") in KINDS else None


def complete(out: Path, jobs: Mapping[str, Job], progress: Progress) -> dict[str, Results]:
    """{name: result} of every job; a job whose file out/runs/NAME.json holds a result is read instead of run.

    Raises:
        UserError: another process is at work in the folder.
    """
    found = {}
    with folders.lock(out, wait=False) as mine:
        if not mine:
            raise UserError(
                "a folder must have one process at a time", f"another at work in {out}", "wait for its end"
            )
        expect(progress, len(jobs))
        for name, job in jobs.items():
            path = out / "runs" / f"{name}.json"
            result = _result(path)
            if result is None:
                kept = path.with_suffix(".safetensors")
                write_json(path, job(kept, lambda done, total, name=name: progress(name, done, total, "")))  # type: ignore[misc]
                result = json.loads(path.read_text())
            else:
                progress(name, 1, 1, "")
            found[name] = result
    return found


def _result(path: Path) -> Results | None:
    """A finished run's result; None where there is none, or a damaged one."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def finish(out: Path, results: Results) -> Results:
    """Adds machine, versions and commit, writes results.json; returns what it holds."""
    results = {**results, **provenance()}
    write_json(out / "results.json", results)
    return results


def load(out: Path) -> Results:
    """What results.json of a finished folder holds."""
    path = out / "results.json"
    if not path.exists():
        raise UserError("a results folder must hold results.json", out, "run the command without --redraw")
    try:
        results = json.loads(path.read_text())
    except ValueError:
        raise UserError("results.json must be whole JSON", path, "run the command without --redraw") from None
    if not isinstance(results, dict) or results.get("kind") not in KINDS:
        raise UserError(
            "--redraw needs results of talking-heads dynamics", f"others in {path}", "name another folder"
        )
    return results


def plain(x: Tensor, digits: int = 6) -> Any:
    """Nested lists of numbers with the given number of significant digits; NaN becomes null."""
    if x.dim() > 0:
        return [plain(part, digits) for part in x]
    value = x.item()
    return value if isinstance(value, int | bool) or value != value else float(f"{value:.{digits}g}")
