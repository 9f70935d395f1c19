"""Results of fine-tuning as a table: each run next to what trivial methods reach."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..results.schema import NUMBER, Each, read_json
from ..results.table import Table

# The shape of result.json.
RESULT = {
    "task": str,
    "model": str,
    "scores": Each(NUMBER),
    "floors": Each(Each(NUMBER)),
    "data": dict,
    "config": dict,
}


def gather(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """The results in folders that `finetune` wrote.

    Raises:
        UserError: a folder without a result.
    """
    found = []
    for folder in folders:
        path = folder / "result.json"
        if not path.exists():
            raise UserError(
                "a run must be finished", f"no result in {folder}", "rerun finetune: it continues"
            )
        found.append(read_json(path, RESULT))
    return found


def table(results: Sequence[dict[str, Any]]) -> Table:
    """A row a run, and below those of one task and the same data its floors."""
    rows = []
    for task, data in dict.fromkeys((x["task"], _judged(x)) for x in results):
        mine = [x for x in results if (x["task"], _judged(x)) == (task, data)]
        floors = mine[0]["floors"]
        named = [
            *((x["model"], x["scores"]) for x in mine),
            *((name.replace("_", " "), x) for name, x in floors.items()),
        ]
        several = len({_judged(x) for x in results if x["task"] == task}) > 1
        said = f"{task} ({data[:8]})" if several else task  # other data: not the same task
        rows += [{"task": said, "model": name, **scores} for name, scores in named]
    return Table(rows, ("task", "model"), results[0]["metric"], {"results": list(results)})


def _judged(result: dict[str, Any]) -> str:
    return str(result["data"].get("judged", {}).get("sha256", ""))


def lines(result: dict[str, Any]) -> list[str]:
    """What stands below the table of one run."""
    said = [
        f"{name}: {part['examples']:,} examples of {part['source']}, sha256 {part['sha256'][:12]}"
        for name, part in result["data"].items()
    ]
    best = max((x.get(result["metric"]) or 0.0) for x in result["floors"].values())
    score = result["scores"].get(result["metric"])
    if score is None or score <= best:
        said.append("The model does no better than a trivial method: this score is no evidence about it.")
    return said
