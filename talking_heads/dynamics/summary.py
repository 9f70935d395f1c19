"""Summary figures, as printed in the report's tables and in the docs."""

import math
from collections.abc import Iterable, Sequence
from statistics import median

from ..results.statistics import rank_correlation
from .runs import Results

LOW = 0.003  # a final loss that the paper's linear classifiers stay below from the authors' start


def summary(found: Results) -> Results:
    """Of the synthetic experiments' parts: {"classifiers", "frozen", "query", "starts"}, lists of rows."""
    classifiers = []
    for name, runs in grouped(found["curves"], "classifier").items():
        classifiers.append(
            {
                "classifier": name,
                "seeds": len(runs),
                **_spreads(runs),
                "fall": spread(fall(run) for run in runs),
                "fall_by_seed": {run["seed"]: fall(run) for run in runs},
                "seconds": spread(run["seconds"] for run in runs),
            }
        )
    return {
        "classifiers": classifiers,
        "frozen": frozen_rows(found["frozen"]),
        "query": [
            {"classifier": name, **_spreads(runs), "balance": spread(map(_drift, runs))}
            for name, runs in grouped(found["query"], "classifier").items()
        ],
        "starts": [
            {
                "classifier": name,
                "starts": len(runs),
                "below": sum(run["final"]["loss"] < LOW for run in runs),
                **_spreads(runs),
                "query_norm": spread(run["query_norm"] for run in runs),
                "query_norm_to_loss": _norm_to_loss(runs),
            }
            for name, runs in grouped(found["starts"], "kind").items()
        ],
    }


def frozen_rows(runs: Sequence[Results]) -> list[Results]:
    """One row for each classifier and epoch (near 2,000, and the last): losses, and how many times lower training all is."""
    rows = []
    for name, mine in grouped(runs, "classifier").items():
        epochs = mine[0]["epoch"]
        for point in sorted({_nearest(epochs, 2000), len(epochs) - 1}):
            loss = {
                what: {run["seed"]: run["loss"][point] for run in some}
                for what, some in grouped(mine, "trained").items()
            }
            free = loss.pop("all trained")
            factors = [min(x[seed] for x in loss.values()) / free[seed] for seed in free]
            rows.append(
                {
                    "classifier": name,
                    "epoch": epochs[point],
                    "all trained": spread(free.values()),
                    **{what: spread(x.values()) for what, x in loss.items()},
                    "factor": spread(factors),
                }
            )
    return rows


def grouped(runs: Iterable[Results], key: str) -> dict[str, list[Results]]:
    found: dict[str, list[Results]] = {}
    for run in runs:
        found.setdefault(run[key], []).append(run)
    return found


def spread(values: Iterable[float | None]) -> Results | None:
    """{"least", "median", "most"} of the known values; None without any."""
    known = sorted(x for x in values if x is not None and not math.isnan(x))
    return {"least": known[0], "median": median(known), "most": known[-1]} if known else None


def fall(run: Results) -> int | None:
    """The first recorded epoch with a loss below half the initial loss; None if there is none."""
    return next(
        (epoch for epoch, loss in zip(run["epoch"], run["loss"], strict=True) if loss < run["loss"][0] / 2),
        None,
    )


def _nearest(epochs: Sequence[int], epoch: int) -> int:
    return min(range(len(epochs)), key=lambda point: abs(epochs[point] - epoch))


def _spreads(runs: Sequence[Results]) -> Results:
    found = {
        name: spread(run["final"][name] for run in runs) for name in ("loss", "test_accuracy", "attention")
    }
    for name in ("largest", "median"):
        errors = [run["identity_error"] for run in runs if run["identity_error"]]
        found[f"identity_error_{name}"] = spread(error[name] for error in errors)
    return found


def _drift(run: Results) -> float:
    """How far |query|^2 - sum |key|^2, which gradient flow conserves, drifts relative to its start."""
    return max(abs(x / run["balance"][0] - 1) for x in run["balance"])


def _norm_to_loss(runs: Sequence[Results]) -> float | None:
    """Spearman's rho of the query's norm and the final loss."""
    found = rank_correlation([run["query_norm"] for run in runs], [run["final"]["loss"] for run in runs])
    return found and found[0]
