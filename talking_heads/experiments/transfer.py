"""What an experiment's models are worth on GLUE, COPA and SQuAD: each run's model, fine-tuned in the run's folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..finetune.run import Recipe, finetune
from ..finetune.table import RESULT
from ..finetune.tasks import find
from ..results import folders
from ..results.schema import read_json
from ..results.statistics import summary
from ..training.arms import parse_arm
from ..training.compare import run_folder
from ..training.settings import Settings

FOLDER = "finetune"  # in a run's


def transfer(out: Path, settings: Settings, tasks: Sequence[str], data: str | None, progress: Any) -> None:
    """Fine-tunes what is not done yet, run by run; those that another process has at work are left to it.

    An arm without attention is left out: transformers has no form for its folder.
    """
    for name in tasks:
        task = find(name)
        for seed in settings.seeds:
            for arm in settings.arms:
                folder = run_folder(out, arm, seed)
                if parse_arm(arm).kind == "none" or not (folder / "model").exists():
                    continue
                with folders.lock(folder, f"{FOLDER}-{task.name}", wait=False) as mine:
                    if mine:
                        recipe = Recipe(
                            epochs=settings.transfer_epochs,
                            batch=settings.batch,
                            learning_rate=settings.transfer_rate,
                            length=max(16, settings.length),
                            seed=seed,
                            limit=settings.transfer_examples,
                        )
                        source = data or ":".join(x for x in task.hub if x)
                        finetune(
                            str(folder / "model"),
                            task,
                            source,
                            folder / FOLDER / task.name,
                            recipe,
                            progress=progress,
                        )


def gathered(runs: Sequence[Path]) -> dict[str, Any]:
    """{task: {"metric", "floors", "arms": {arm: {"mean", "spread", "seeds"}}, "flags"}} of the folders' fine-tuned models.

    Models judged on other data than the first ones are flagged and left out.
    """
    found: dict[str, Any] = {}
    for root in runs:
        for path in sorted(root.glob(f"**/seed-*/{FOLDER}/*/result.json")):
            run = read_json(path.parents[2] / "run.json", {"arm": str, "seed": int})
            result = read_json(path, RESULT)
            held = found.setdefault(
                result["task"],
                {
                    "metric": result["metric"],
                    "floors": result["floors"],
                    "data": result["data"],
                    "values": {},
                    "flags": [],
                },
            )
            if _hashes(result) != _hashes(held):
                held["flags"].append(f"{path.parent} has other data and is left out.")
                continue
            held["values"].setdefault(run["arm"], []).append(result["scores"][result["metric"]])
    for held in found.values():
        values = held.pop("values")
        held["arms"] = {
            arm: {**summary([float("nan") if x is None else x for x in scores]), "seeds": len(scores)}
            for arm, scores in values.items()
        }
    return found


def _hashes(result: dict[str, Any]) -> dict[str, str]:
    return {name: part["sha256"] for name, part in result["data"].items()}


def check(tasks: Sequence[str], data: str | None) -> None:
    """Refuses tasks and data before any work.

    Raises:
        UserError: no such task, files of another, --data without a task.
    """
    from ..finetune.data import read_splits

    if data and not tasks:
        raise UserError("--data must go with a task to fine-tune on", "none", "name one with --task")
    for name in tasks:
        task = find(name)
        if data:
            read_splits(task, data)
