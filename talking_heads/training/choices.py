"""What is decided once for an arm before its runs: by which path it attends, and how many steps it gets.

Kept in a comparison's arms.json, so that every seed, and a run resumed after a kill, uses the same.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from ..results.files import write_json
from ..results.progress import Progress
from ..results.schema import read_json
from ..results.statistics import paired_difference
from .arms import parse_arm
from .devices import autocast
from .gather import PILOT, Results
from .settings import Settings

BLOCKS = 5  # independent measurements, each of all arms in turns
_SMALL = 200_000  # tokens of a batch x width x layers: below it a step is too short to tell paths apart


def decide(out: Path, settings: Settings, data: dict[str, Any], progress: Progress) -> Results:
    """{arm: {"runs_as", "backend", "reason", "steps", "ratio"}} of every arm; those not decided yet are measured.

    "runs_as" is the arm with its path named. With `settings.equal_time` an arm's steps are those that fit the time of
    the first arm's `settings.steps`: "ratio" is its step's time over the first arm's, with an interval over blocks.
    """
    path, pilot = out / "arms.json", out / PILOT / "arms.json"
    found: Results = {x: y for held in (pilot, path) if held.exists() for x, y in read_json(held).items()}
    names = list(dict.fromkeys(_shape(arm) for arm in settings.arms))
    new = [name for name in names if name not in found]
    for number, name in enumerate(new):
        progress("choosing paths", number, len(new), "")
        runs_as, reason = _path(settings, name, data)
        backend = backend_of(settings, runs_as, data)
        found[name] = {"runs_as": runs_as, "backend": backend, "reason": reason, "steps": settings.steps}
    later = [name for name in new if name != names[0]]
    if settings.equal_time and later:
        times = measure(settings, [found[x]["runs_as"] for x in (names[0], *later)], data)
        base = times[found[names[0]]["runs_as"]]
        for name in later:
            ratio = _ratio(times[found[name]["runs_as"]], base)
            found[name] |= {"ratio": ratio, "steps": max(1, round(settings.steps / ratio["mean"]))}
    if not path.exists() or new:
        write_json(path, found)
    return {parse_arm(arm).name: _at_rate(found[_shape(arm)], parse_arm(arm).rate) for arm in settings.arms}


def _shape(arm: str) -> str:
    """The arm's name without its rate: arms of one shape run alike."""
    return replace(parse_arm(arm), rate=None).name


def _at_rate(choice: Results, rate: float | None) -> Results:
    return {**choice, "runs_as": replace(parse_arm(choice["runs_as"]), rate=rate).name}


def _path(settings: Settings, name: str, data: dict[str, Any]) -> tuple[str, str]:
    """(the arm with its path named, why)."""
    arm = parse_arm(name)
    if not arm.may_choose:
        return name, "the arm says so" if arm.fused or arm.plain else "the only path that computes it"
    ours, theirs = replace(arm, fused=True).name, replace(arm, plain=True).name
    width = arm.width or settings.width
    if settings.batch * settings.length * width * settings.layers < _SMALL:
        return theirs, "transformers' own: steps too short to tell paths apart"
    times = {path: fmean(x) for path, x in measure(settings, [ours, theirs], data, blocks=2).items()}
    said = f"{1000 * times[ours]:.1f} ms a step by this package's operator, {1000 * times[theirs]:.1f} ms by transformers"
    return (ours if times[ours] < times[theirs] else theirs), f"the faster: {said}"


def measure(
    settings: Settings, arms: Sequence[str], data: dict[str, Any], blocks: int = BLOCKS
) -> dict[str, list[float]]:
    """{arm: seconds a step, one value a block}; within a block all arms are timed in turns."""
    from .timing import step_seconds

    given = replace(settings, arms=tuple(arms))
    found = [step_seconds(given, block, data) for block in range(blocks)]
    return {arm: [times[arm] for times in found] for arm in arms}


def _ratio(times: list[float], base: list[float]) -> Results:
    """The mean ratio of step times with a 95 % t interval over blocks, and the machine's load meanwhile."""
    ratios = [a / b for a, b in zip(times, base, strict=True)]
    found = paired_difference(ratios, [0.0] * len(ratios))
    return {
        "mean": found["mean"],
        "interval": found["interval"],
        "values": ratios,
        "load": os.getloadavg()[0],
    }


def backend_of(settings: Settings, arm: str, data: dict[str, Any]) -> str:
    """The kernels of this package that a forward pass of the arm runs, or transformers' function."""
    from torch.utils._python_dispatch import TorchDispatchMode

    from .timing import first_batch

    seen: set[str] = set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func.namespace == "talking_heads":
                seen.add(func.name().partition("::")[2].partition(".")[0])
            return func(*args, **(kwargs or {}))

    if parse_arm(arm).kind == "none":
        return "none"
    if not parse_arm(arm).is_converted:
        return "transformers: sdpa"
    model, batch, loss = first_batch(settings, arm, 0, data)
    with autocast(), Watch():
        loss(model, batch)
    return "talking_heads: " + (", ".join(sorted(seen)) or "PyTorch")
