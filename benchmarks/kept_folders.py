"""What of a comparison's folders fits a repository: every JSON that a report reads or a run is continued from."""

from pathlib import Path

from talking_heads.results.files import write_json
from talking_heads.training.gather import read_json

KEPT = ("comparison.json", "arms.json", "timing.json", "rates.json", "best.json", "equal_cost.json")


def keep(runs: Path, kept: Path) -> None:
    """Copies them from the folder of runs; maps, which are large, are left out."""
    for path in runs.glob("**/*.json"):
        place = kept / path.relative_to(runs)
        if path.name == "result.json" and not place.exists():
            write_json(place, {**read_json(path), "maps": {}})
        elif path.name in KEPT:
            write_json(place, read_json(path))


def restore(kept: Path, runs: Path) -> None:
    """Puts what is kept where the runs are continued; what is there already stays."""
    for path in kept.glob("**/*.json"):
        place = runs / path.relative_to(kept)
        if path.name in (*KEPT, "result.json") and not place.exists():
            write_json(place, read_json(path))
