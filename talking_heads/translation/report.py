"""A training run's page: the validation curve as a picture, and how the model came about."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..results import page
from ..results.charts import plot, save
from ..results.files import write_text
from ..results.schema import Each, read_json
from ..results.statistics import paired_difference, summary
from ..results.table import Table, show
from .names import arm_name
from .score import bootstrap, statistics

EVALUATION = {
    "run": Each((object, bool)),
    "bleu": float,
    "lowercase_tokenized_bleu": float,
    "signature": str,
}
COUNTED = EVALUATION | {"statistics": [list]}  # kept without its text


def run_table(result: dict[str, Any]) -> Table:
    """What a run ended with, a row."""
    settings, found = result["settings"], result["validation"]
    row = {
        "arm": settings["arm"],
        "head mask": settings["head_mask"] or "none",
        "seed": settings["seed"],
        "updates": result["updates"],
        "target tokens": result["target_tokens"],
        "BLEU": found["bleu"],
        "chrF": found["chrf"],
        "lowercase tokenized BLEU": found["lowercase_tokenized_bleu"],
    }
    return Table([row], ("arm",), "BLEU", {"signature": found["signature"]})


def notes(result: dict[str, Any]) -> list[str]:
    """What the figures stand on."""
    dropped = ", ".join(f"{count} {why}" for why, count in result["dropped"].items())
    greedy = result["greedy"]
    return [
        "validation text, beam search; signature " + result["validation"]["signature"],
        f"learned from {result['pairs']} pairs (dropped: {dropped}), {result['vocabulary']} pieces, "
        f"{result['parameters']} parameters",
        f"kept: the {result['kept']} weights; without beams the last have BLEU {greedy['last']:.2f}, "
        f"the average of {result['averaged']} checkpoints {greedy['average']:.2f}",
    ]


def write_run(out: Path, result: dict[str, Any]) -> None:
    """bleu.png and report.html."""
    curve = {int(step): x for step, x in result["curve"].items()}
    figure, axes = plot().subplots(figsize=(7, 4), layout="constrained")
    axes.plot(list(curve), list(curve.values()), marker="o")
    axes.set_xlabel("updates")
    axes.set_ylabel("validation BLEU")
    axes.set_ylim(bottom=0)
    save(figure, out / "bleu.png")
    table = run_table(result)
    rows = [[show(row.get(c)) for c in table.columns] for row in table.rows]
    blocks = [page.table(table.columns, rows, "the model"), *map(page.paragraph, notes(result))]
    blocks.append(page.picture(out / "bleu.png", "BLEU of the validation text along training, without beams"))
    write_text(out / "report.html", page.page("Translation", blocks))


def read_evaluations(paths: Sequence[Path], references: Sequence[str]) -> list[dict[str, Any]]:
    """What `translate evaluate --reference F --json J` wrote, with the statistics of each sentence."""
    shape = EVALUATION | {"translations": [str]}
    found = [read_json(path, shape, "make it again with translate evaluate --reference") for path in paths]
    return [one | {"statistics": statistics(one["translations"], references)} for one in found]


def arms_table(found: Sequence[dict[str, Any]]) -> Table:
    """A row an arm: BLEU over seeds, and the difference from the first arm.

    The spread is the standard deviation over seeds; the interval over seeds is a paired t interval (three seeds or more);
    the interval over sentences is a paired bootstrap for each seed, here the lowest and the highest end of them all.

    Args:
        found: evaluations, as COUNTED.

    Raises:
        UserError: an arm and seed twice, signatures that differ, other sentences.
    """
    signatures = {one["signature"] for one in found}
    if len(signatures) > 1:
        raise UserError(
            "evaluations must have the same signature", " and ".join(signatures), "make them again alike"
        )
    arms: dict[str, dict[Any, dict[str, Any]]] = {}
    for one in found:
        name = arm_name(one)
        seeds = arms.setdefault(name, {})
        if one["run"].get("seed") in seeds:
            raise UserError("each arm and seed must come once", f"{name} twice", "leave one out")
        seeds[one["run"].get("seed")] = one
    first = next(iter(arms.values()))
    return Table([_arm_row(name, seeds, first) for name, seeds in arms.items()], ("arm",), "BLEU")


def _arm_row(name: str, seeds: dict[Any, dict[str, Any]], first: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    over = summary([one["bleu"] for one in seeds.values()])
    lower = summary([one["lowercase_tokenized_bleu"] for one in seeds.values()])
    row: dict[str, Any] = {"arm": name, "seeds": len(seeds), "BLEU": over["mean"], "spread": over["spread"]}
    row["lowercase tokenized"] = lower["mean"]
    shared = [seed for seed in seeds if seed in first]
    if seeds is first or not shared:
        return row
    apart = paired_difference([seeds[s]["bleu"] for s in shared], [first[s]["bleu"] for s in shared])
    drawn = [bootstrap([first[s]["statistics"], seeds[s]["statistics"]])[1] for s in shared]
    ends = [x["difference_interval"] for x in drawn]
    return row | {
        "difference": apart["mean"],
        "interval over seeds": apart["interval"],
        "interval over sentences": [min(a for a, _ in ends), max(b for _, b in ends)],
    }
