"""Results from the folders of finished runs alone: what every table and figure is made of."""

import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from statistics import fmean
from typing import Any

from ..errors import UserError
from ..results.schema import NUMBER, Each, read_json
from ..results.statistics import at, paired_difference, summary
from .arms import parse_arm
from .settings import Settings

Results = dict[str, Any]
PILOT = "pilot"  # the folder, in a comparison's, of the runs that chose its learning rates
AGAIN = "run compare again: it replaces what is damaged"
_DEFAULTS = {x.name: x.default for x in fields(Settings)}

# The shapes of what compare writes.
COMPARISON = {"settings": {"arms": [str], "seeds": [int]}, "corpus": str, "transfer": Each(str)}
TIMING = {"machine": dict, "seconds": Each(Each((int, float)), digits=True)}
CURVE = Each(NUMBER, digits=True)
RESULT = {
    "arm": str,
    "seed": int,
    "parameters": int,
    "loss": NUMBER,
    "curve": CURVE,
    "transfer": Each(NUMBER),
    "maps": Each([[NUMBER]]),
    "settings": {"steps": int},
    "about": {
        "transfer": [
            {
                **{"name": str, "train": int, "test": int, "metric?": str, "classes?": [str]},
                **{"majority?": (int, float), "bag_of_words?": NUMBER, "floor_names?": [str]},
            }
        ],
        **{"unigram_entropy?": NUMBER, "bytes_per_token?": (int, float)},
        "floors?": {"unigram": NUMBER, "kneser_ney?": Each(NUMBER)},
    },
    "parts?": Each(NUMBER),
    "machine": dict,
    "versions": dict,
    "commit": (str, type(None)),
}


def gather(folders: Sequence[Path]) -> Results:
    """All finished runs under `folders`, by arm in the order of the comparisons that made them.

    {"settings", "corpus", ..., "floors": {"unigram", "kneser_ney": {order: nats a token}}, "parts": {name: {"floors"}}
    (texts judged once), "transfer": [{"name", "majority", "bag_of_words", ...}], "arms": [{"name", "parameters",
    "seeds", "steps", "backend", "reason" (why that one), "commit", "loss" (validation), "parts" (losses by text), "transfer"
    (scores by task, None: not judged yet), "curves", "equal_time_loss" (lists by seed; cut through the curve),
    "perplexity", "bits_per_byte" (of causal language models), "step_seconds" (a list over the rounds that took all
    arms in turns), "summary", "difference" (to the first arm, paired by seed)}], "evidence": whether an arm with
    attention beats every floor, "made_with": [{"machine", "versions", "commit", "runs" (how many)}], "timed_on" (the
    machine of step_seconds), "rates": {arm: what a pilot chose, and from what}}

    Runs made by other versions or on other data (text or tasks) are never averaged with these: where there are such, "flags"
    says so in words, and "apart" has the same results of each such group.

    Raises:
        UserError: a folder without a finished run, runs of different settings, or two of one arm and seed.
    """
    paths = dict.fromkeys(path for folder in folders for path in _paths(folder))
    runs = [_run(read_json(path, RESULT, AGAIN)) for path in paths]
    _same(runs)
    groups = _groups(runs)
    found = [_gather(folders, group) for group in groups]
    return found[0] | ({"flags": _flags(groups), "apart": found[1:]} if len(groups) > 1 else {})


def _gather(folders: Sequence[Path], runs: list[Results]) -> Results:
    """Of runs by the same versions on the same data."""
    found: dict[str, dict[int, Results]] = {name: {} for folder in folders for name in _order(folder)}
    for run in runs:
        if found.setdefault(run["arm"], {}).setdefault(run["seed"], run) is not run:
            raise UserError(
                "runs of one report must differ in arm or seed",
                f"{run['arm']}, seed {run['seed']} twice",
                "leave one folder out",
            )
    timing = _timing(folders, {name for name, by_seed in found.items() if by_seed})
    about, given = _about(runs[0]["about"]), runs[0]["settings"]
    tasks = [task["name"] for task in about["transfer"]]
    arms = [_arm(name, found[name], tasks, timing, about) for name in found if found[name]]
    _judge(arms, given)
    seeds = sorted({run["seed"] for run in runs})
    settings = {"arms": [arm["name"] for arm in arms], "seeds": seeds, **given}
    made = {"made_with": _made_with(runs), "timed_on": timing["machine"]}
    made["rates"] = _rates(folders)
    experiment = _experiment(folders)
    if experiment:
        made["experiment"] = experiment
    return {**about, "settings": settings, "arms": arms, "evidence": _evidence(about, arms), **made}


def _experiment(folders: Sequence[Path]) -> Results | None:
    """{"name", "scale"} where all folders are of one experiment."""
    paths = [folder / "comparison.json" for folder in folders]
    named = [read_json(path).get("experiment") for path in paths if path.exists()]
    return named[0] if named and all(x == named[0] for x in named) else None


def _groups(runs: list[Results]) -> list[list[Results]]:
    """Runs by the same versions of packages on the same data, the largest group first: only such are averaged."""
    groups: list[list[Results]] = []
    for run in runs:
        same = next((x for x in groups if not _differs(run, x[0])), None)
        if same is None:
            groups.append([run])
        else:
            same.append(run)
    return sorted(groups, key=len, reverse=True)


def _differs(run: Results, other: Results) -> dict[str, tuple[Any, Any]]:
    """{what: (of the run, of the other)} in versions and data."""
    found: dict[str, tuple[Any, Any]] = {}
    for part in ("versions", "about"):
        mine, theirs = _given(run[part]), _given(other[part])
        found |= {
            name: (mine.get(name), theirs.get(name))
            for name in dict.fromkeys([*mine, *theirs])
            if mine.get(name) != theirs.get(name)
        }
    return found


def _flags(groups: list[list[Results]]) -> list[str]:
    """In words why runs stand apart."""
    found = []
    for group in groups[1:]:
        parts = []
        for name, (mine, other) in _differs(group[0], groups[0][0]).items():
            is_short = all(isinstance(x, str | int | float | None) for x in (mine, other))
            parts.append(f"{name} {mine} in place of {other}" if is_short else name)
        runs = ", ".join(sorted({run["arm"] for run in group}))
        found.append(
            f"{len(group)} runs ({runs}) stand apart and are not averaged with the others: {', '.join(parts)}."
        )
    return found


def _rates(folders: Sequence[Path]) -> Results:
    """What the pilots of these comparisons found, by arm."""
    paths = [folder / "rates.json" for folder in folders]
    return {arm: x for path in paths if path.exists() for arm, x in read_json(path).items()}


def _evidence(about: Results, arms: list[Results]) -> bool | None:
    """Whether an arm with attention beats every floor and every arm without; None where n-grams were not counted."""
    counted = list(about["floors"]["kneser_ney"].values())
    if not counted:
        return None
    means = {arm["name"]: arm["summary"]["loss"]["mean"] for arm in arms}
    without = [mean for name, mean in means.items() if parse_arm(name).kind == "none"]
    best = min((mean for name, mean in means.items() if parse_arm(name).kind != "none"), default=math.inf)
    return bool(best < min([about["floors"]["unigram"], *counted, *without]))


def _about(about: Results) -> Results:
    """With floors, of which older folders hold the unigram entropy only."""
    floors = about.get("floors") or {"unigram": about["unigram_entropy"]}
    found = {**about, "unigram_entropy": floors["unigram"], "floors": {"kneser_ney": {}, **floors}}
    return {"parts": {}, **found}


def _made_with(runs: list[Results]) -> list[Results]:
    """Machine, versions and commit of the runs, each once."""
    found: list[Results] = []
    for run in runs:
        mine = {name: run[name] for name in ("machine", "versions", "commit")}
        same = next((x for x in found if mine.items() <= x.items()), None)
        if same:
            same["runs"] += 1
        else:
            found.append({**mine, "runs": 1})
    return found


def _paths(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError("a results folder must exist", folder, "name the folder that compare wrote")
    paths = [folder / "result.json", *sorted(folder.glob("**/seed-*/result.json"))]
    paths = [path for path in paths if PILOT not in path.relative_to(folder).parts]
    found = [path.resolve() for path in paths if path.exists()]
    if not found:
        raise UserError(
            "a comparison must have a finished run", f"none in {folder}", "rerun compare: it continues"
        )
    return found


def _run(run: Results) -> Results:
    """With NaN for what is not finite, which JSON cannot write: training diverged."""
    number = lambda x: math.nan if x is None else x  # noqa: E731
    curve = {step: number(loss) for step, loss in run["curve"].items()}
    maps = {name: [[number(x) for x in row] for row in mix] for name, mix in run["maps"].items()}
    parts = {part: number(loss) for part, loss in run.get("parts", {}).items()}
    return {**run, "loss": number(run["loss"]), "curve": curve, "maps": maps, "parts": parts}


def _order(folder: Path) -> list[str]:
    """The arms as its comparison was asked for them; a run's own folder has none."""
    path = folder / "comparison.json"
    if not path.exists():
        return []
    return [parse_arm(arm).name for arm in read_json(path, COMPARISON)["settings"]["arms"]]


def _timing(folders: Sequence[Path], arms: set[str]) -> Results:
    """{"machine", "rounds": [{arm: seconds}]} of those measurements, on one machine, that took all arms in turns:
    others cannot be compared."""
    found: Results = {"machine": None, "rounds": []}
    for path in (folder / "timing.json" for folder in folders):
        timing = read_json(path, TIMING, AGAIN) if path.exists() else {"machine": None, "seconds": {}}
        rounds = [times for times in timing["seconds"].values() if arms <= times.keys()]
        if rounds and found["machine"] in (None, timing["machine"]):
            found = {"machine": timing["machine"], "rounds": found["rounds"] + rounds}
    return found


def _same(runs: list[Results]) -> None:
    for run in runs:
        # a run of before a setting has its default
        mine, first = (_DEFAULTS | x["settings"] for x in (run, runs[0]))
        differs = [key for key in mine if mine[key] != first.get(key)]
        if differs:
            raise UserError(
                "runs of one report must have the same settings",
                f"runs that differ in {', '.join(differs)}",
                "report them apart",
            )


def _given(about: Results) -> Results:
    """Without what is computed from the rest: its last bit depends on the number of threads."""
    kept = {key: x for key, x in about.items() if key not in ("unigram_entropy", "floors", "parts")}
    tasks = [
        {key: x for key, x in task.items() if key != "bag_of_words"} for task in kept.get("transfer", [])
    ]
    return kept | ({"transfer": tasks} if tasks else {})


def _arm(
    name: str, by_seed: dict[int, Results], tasks: list[str], timing: Results, about: Results
) -> Results:
    seeds = sorted(by_seed)
    runs = [by_seed[seed] for seed in seeds]
    texts = list(dict.fromkeys(part for run in runs for part in run["parts"]))
    arm = {
        "name": name,
        "parameters": runs[0]["parameters"],
        "seeds": seeds,
        **{key: runs[0].get(key) for key in ("steps", "ratio", "backend", "reason")},
        "commit": [run["commit"] for run in runs],
        "loss": [run["loss"] for run in runs],
        "parts": {part: [run["parts"].get(part) for run in runs] for part in texts},
        "transfer": {task: [run["transfer"].get(task) for run in runs] for task in tasks},
        "step_seconds": [times[name] for times in timing["rounds"]],
        "curves": [run["curve"] for run in runs],
        "maps": [run["maps"] for run in runs],
    }
    if about.get("judges_all"):
        arm["perplexity"] = [math.exp(min(loss, 700)) for loss in arm["loss"]]
        arm["bits_per_byte"] = [loss / math.log(2) / about["bytes_per_token"] for loss in arm["loss"]]
    return arm


def _judge(arms: list[Results], settings: Results) -> None:
    """Adds to each arm its means and its differences to the first, at equal steps and at equal time."""
    timed = all(arm["step_seconds"] for arm in arms)
    cut = timed and not settings.get("equal_time")  # else the arms have had equal time
    whole = min(fmean(arm["step_seconds"]) for arm in arms) * settings["steps"] if cut else None
    for arm in arms:
        if whole:
            arm["equal_time_loss"] = loss_after(arm, whole)
        arm["summary"] = {"step_seconds": summary(arm["step_seconds"])} if timed else {}
        arm["difference"] = {}
        for name, values in measured(arm).items():
            arm["summary"][name] = summary(list(values.values()))
            difference = paired(arm, arms[0], name) if arm is not arms[0] else None
            if difference:
                arm["difference"][name] = difference


def loss_after(arm: Results, seconds: float) -> list[float]:
    """The held-out loss of each seed after so much training time (steps x step time)."""
    step = seconds / fmean(arm["step_seconds"])
    return [at({int(step): loss for step, loss in curve.items()}, step) for curve in arm["curves"]]


def paired_at_equal_time(arm: Results, other: Results) -> Results | None:
    """The difference in loss after the time that the faster of the two takes for its whole run, the slower one's
    curve cut there; None without step times or common seeds."""
    if not arm["step_seconds"] or not other["step_seconds"]:
        return None
    steps = max(map(int, arm["curves"][0]))
    seconds = steps * min(fmean(x["step_seconds"]) for x in (arm, other))
    ours, theirs = ({**x, "equal_time_loss": loss_after(x, seconds)} for x in (arm, other))
    return paired(ours, theirs, "equal_time_loss")


def measured(arm: Results) -> dict[str, dict[int, float]]:
    """{name: {seed: value}} of everything that an arm has by seed: losses, "part:TEXT" and "transfer:TASK"."""
    names = ("loss", "equal_time_loss", "perplexity", "bits_per_byte")
    lists = {name: arm.get(name) or [] for name in names}
    lists |= {f"part:{part}": values for part, values in arm.get("parts", {}).items()}
    lists |= {f"transfer:{task}": values for task, values in arm["transfer"].items()}
    by_seed = {
        name: {seed: x for seed, x in zip(arm["seeds"], values, strict=bool(values)) if x is not None}
        for name, values in lists.items()
    }
    return {name: values for name, values in by_seed.items() if values}


def paired(arm: Results, other: Results, name: str) -> Results | None:
    """The difference in what `measured` calls `name`, over the seeds that both have; None where there are none."""
    ours, theirs = measured(arm).get(name, {}), measured(other).get(name, {})
    both = [seed for seed in ours if seed in theirs]
    return paired_difference([ours[x] for x in both], [theirs[x] for x in both]) if both else None
