"""What of the grid's folders fits a repository: every run's result without model and maps, and what is read off them."""

from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from talking_heads.heads.mixing import figures
from talking_heads.results.files import write_json
from talking_heads.training.compare import run_folder
from talking_heads.training.gather import read_json

Results = dict[str, Any]


def keep(runs: Path, kept: Path) -> None:
    """Copies every JSON of the runs that a report reads; of maps, which are large, only `_figures`."""
    for path in runs.glob("**/*.json"):
        if path.name in ("comparison.json", "timing.json", "equal_cost.json"):
            write_json(kept / path.relative_to(runs), read_json(path))
        elif path.name == "result.json":
            run = read_json(path)
            record = {"map_figures": _figures(run["maps"]), **run, "maps": {}}
            write_json(kept / path.relative_to(runs), record)


def _figures(maps: Results) -> Results:
    """{"logits_mix" and "weights_mix": {"distance", "diagonal": means over layers, "least_eigenvalue", ...}}."""
    found: Results = {}
    for name in ("logits_mix", "weights_mix"):
        by_layer = [figures(np.array(mix)) for key, mix in maps.items() if key.endswith(name)]
        if by_layer:
            found[name] = {key: fmean(x[key] for x in by_layer) for key in ("distance", "diagonal")}
            found[name] |= {
                f"least_{key}": min(x[key] for x in by_layer) for key in ("eigenvalue", "determinant")
            }
    return found


def map_figures(kept: Path, arm: Results) -> Results:
    """`_figures` over the arm's seeds: means, and the least of the least."""
    runs = [read_json(run_folder(kept, arm["name"], seed) / "result.json") for seed in arm["seeds"]]
    return {
        name: {
            key: (min if key.startswith("least") else fmean)(run["map_figures"][name][key] for run in runs)
            for key in mine
        }
        for name, mine in runs[0]["map_figures"].items()
    }


def machines(kept: Path, results: Results) -> str:
    """Where the runs and the timings were made, in words."""
    counts: dict[str, int] = {}
    for made in results["made_with"]:
        processor = made["machine"]["processor"]
        counts[processor] = counts.get(processor, 0) + made["runs"]
    said = "Runs: " + ", ".join(f"{count} on {processor}" for processor, count in counts.items())
    notes = ["note" in read_json(path) for path in (kept / "arms").glob("runs/*/seed-*/result.json")]
    timed, again = results["timed_on"], sum(notes)
    said += f"; steps timed on {timed['processor']}, {timed['threads']} threads." if timed else "."
    if again:
        said += (
            f" {again} of the folders were written again from an earlier results.json, as their `note` says: their machine, "
            "versions and commit are that file's."
        )
    return said
