"""An experiment's own table, from the folders of its runs: cost next to loss, and the paper's directions."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..training.arms import parse_arm
from ..training.cells import difference_words, markdown
from ..training.gather import Results, paired
from ..training.settings import Settings
from .cost import cost_of
from .tables import SCALES, find
from .transfer import gathered

_MEASURES = ("loss", "part:test", "step_seconds")


def summarise(results: Results, runs: Sequence[Path] = ()) -> dict[str, Any]:
    """{"experiment", "scale", "question", "settings", "evidence", "floors", "made_with", "seeds", "arms": [{"name",
    "parameters", "attention_multiplications", "loss", "part:test", "step_seconds", "transfer:..." (mean and spread)}],
    "directions": [{"says", "arm", "less", "difference", "interval", "p", "pairs", "seen"}]} of what `training.gather` found
    in an experiment's folders `runs`; "tasks" are the models fine-tuned there, see `transfer.gathered`. Directions compare the test text's loss, paired by seed; of a text without test part the
    validation loss."""
    named = results["experiment"]
    experiment, scale = find(named["name"]), named["scale"]
    known = {x.name for x in fields(Settings)}
    given = {x: y for x, y in results["settings"].items() if x in known and x not in ("arms", "seeds")}
    settings = Settings(arms=tuple(results["settings"]["arms"]), seeds=(0,), **given)
    arms = {arm["name"]: arm for arm in results["arms"]}
    measure = "part:test" if all("test" in arm["parts"] for arm in arms.values()) else "loss"
    directions = experiment.directions_at(scale) if scale in SCALES else []
    return {
        "experiment": named["name"],
        "scale": scale,
        "question": experiment.question,
        "objective": settings.objective,
        "settings": results["settings"],
        "evidence": results["evidence"],
        "floors": {"loss": results["floors"]}
        | {f"part:{name}": part["floors"] for name, part in results["parts"].items()},
        "made_with": results["made_with"],
        "flags": results.get("flags", []),
        "seeds": results["settings"]["seeds"],
        "tasks": gathered(runs),
        "transfer": results["transfer"],
        "arms": [_arm(settings, arm) for arm in arms.values()],
        "missing": [x for x in (parse_arm(y).name for y in experiment.arms_at(scale)) if x not in arms],
        "measure": measure,
        "directions": [_direction(x, arms, measure, results["evidence"]) for x in directions],
    }


def _arm(settings: Settings, arm: Results) -> dict[str, Any]:
    cost = cost_of(settings, arm["name"])
    kept = {
        name: x for name, x in arm["summary"].items() if name in _MEASURES or name.startswith("transfer:")
    }
    return {
        "name": arm["name"],
        "parameters": arm["parameters"],
        "attention_multiplications": cost.attention_multiplications,
        "seeds": arm["seeds"],
        **kept,
    }


def _direction(
    direction: Any, arms: dict[str, Results], measure: str, evidence: bool | None
) -> dict[str, Any]:
    names = [parse_arm(x).name for x in (direction.arm, direction.less)]
    said = {"says": direction.says, "arm": names[0], "less": names[1], "reported": direction.reported}
    if not all(x in arms for x in names):
        return said | {"difference": None, "seen": "not run"}
    found = paired(arms[names[0]], arms[names[1]], measure)
    if found is None:
        return said | {"difference": None, "seen": "no seed in common"}
    interval = found["interval"]
    if evidence is False:
        seen = "no evidence: no arm beats the floors"
    elif interval is None:
        seen = "too few seeds to say"
    elif interval[0] <= 0 <= interval[1]:
        seen = "no difference shown"
    else:
        seen = "yes" if (interval[1] < 0) == (direction.sign < 0) else "the contrary"
    return said | {"difference": found, "seen": seen}


def lines(summary: dict[str, Any]) -> list[str]:
    """The experiment's table in Markdown, and what was not run; see also `direction_lines`."""
    first = {"part:test": "test loss", "loss": "validation loss"}[summary["measure"]]
    names = ["arm", "parameters", "attention multiplications", "step", first, "validation loss"]
    names = names[: 6 if summary["measure"] == "part:test" else 5]
    shown = [summary["measure"], *(["loss"] if summary["measure"] != "loss" else [])]
    tasks = [x["name"] for x in summary["transfer"]]
    tuned = summary["tasks"]
    names += [*tasks, *(f"{task} ({x['metric']})" for task, x in tuned.items())]
    rows = []
    for arm in summary["arms"]:
        step = arm.get("step_seconds")
        cells = [arm["name"], f"{arm['parameters']:,}", f"{arm['attention_multiplications']:,}"]
        cells.append(f"{1000 * step['mean']:.0f} ms" if step else "-")
        cells += [_spread(arm.get(name)) for name in (*shown, *(f"transfer:{task}" for task in tasks))]
        rows.append([*cells, *(_spread(x["arms"].get(arm["name"])) for x in tuned.values())])
    floors = [summary["floors"][name] for name in shown]  # each on its column's text
    grams = {"unigram": [x["unigram"] for x in floors]}
    grams |= {f"Kneser-Ney {n}-grams": [x["kneser_ney"][n] for x in floors] for n in floors[0]["kneser_ney"]}
    for name, losses in grams.items():
        told = [f"{loss:.3f}" for loss in losses]
        rows.append([name, *["-"] * 3, *told, *["-"] * (len(names) - 4 - len(told))])
    for floor in ("majority", "bag_of_words") if tasks or tuned else ():
        of_tasks = [x.get(floor) for x in summary["transfer"]]
        of_tasks += [x["floors"][floor].get(x["metric"]) for x in tuned.values()]
        told = [f"{x:.3f}" if isinstance(x, float) else "-" for x in of_tasks]
        rows.append([floor.replace("_", " "), *["-"] * (len(names) - 1 - len(told)), *told])
    missing = [f"Not run: {', '.join(summary['missing'])}.", ""] if summary["missing"] else []
    flags = [*summary["flags"], *(flag for x in tuned.values() for flag in x["flags"])]
    return [*flags, "", *markdown(names, rows), "", *missing]


def direction_lines(summaries: Sequence[dict[str, Any]]) -> list[str]:
    """The directions and what is seen, a row each."""
    rows = [
        [_named(x), row["says"], _source(x, row["reported"]), _words(row), row["seen"]]
        for x in summaries
        for row in x["directions"]
    ]
    return markdown(["experiment", "direction", "from", "difference in loss", "seen here"], rows)


def _is_own(summary: dict[str, Any]) -> bool:
    """Whether the arms were trained by the table's own objective."""
    return summary.get("objective") in (None, find(summary["experiment"]).objective)


def _named(summary: dict[str, Any]) -> str:
    name: str = summary["experiment"]
    return name if _is_own(summary) else f"{name} ({summary['objective']})"


def _source(summary: dict[str, Any], reported: bool) -> str:
    """Who says so: the paper measured its tables by their own objectives alone."""
    if not reported:
        return "asked here"
    return "the paper" if _is_own(summary) else f"the paper, by {find(summary['experiment']).objective}"


def _words(row: dict[str, Any]) -> str:
    return difference_words(row["difference"]) or "-"


def _spread(value: Any) -> str:
    if not value:
        return "-"
    return f"{value['mean']:.3f}" + (f" ± {value['spread']:.3f}" if value["spread"] is not None else "")
