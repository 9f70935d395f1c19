"""What tables call a model, from its JSON of `evaluate` or `measure`."""

from typing import Any


def arm_name(found: dict[str, Any]) -> str:
    """What a table calls an arm, its seeds together."""
    run = found["run"]
    if not run:
        return str(found["model"])
    return run["arm"] + (f", masked {run['head_mask']}" if run["head_mask"] else "")


def name_of(found: dict[str, Any]) -> str:
    """What a table calls a model, from its JSON of `evaluate` or `measure`."""
    return f"{arm_name(found)}, seed {found['run']['seed']}" if found["run"] else str(found["model"])
