"""The tables and the picture of docs/evidence.md, from docs/results/evidence and docs/results/recall alone.

    python benchmarks/evidence_page.py

Each table stands between two marks that name it; what is around them is written by hand and names rows by their label.
Stages that were not run yet have no rows. Writes comparisons.json and frontier.png next to the results.
"""

import re
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import typer

from talking_heads.results.charts import plot, save
from talking_heads.results.files import write_json, write_text
from talking_heads.results.statistics import holm, paired_difference, summary
from talking_heads.training.arms import parse_arm
from talking_heads.training.cells import markdown
from talking_heads.training.gather import gather, read_json

DOCS = Path(__file__).parents[1] / "docs"
PRIMARY = ("primary", "longer")
STAGES = (*PRIMARY, "controls", "sizes")
RESET = "maps reset"  # validation loss with every trained map set to the identity
BY = "written by benchmarks/evidence_page.py"
Results = dict[str, Any]


def main(docs: Annotated[Path, typer.Option(help="Folder of evidence.md and of results.")] = DOCS) -> None:
    """Write the tables into docs/evidence.md, and the picture next to the results."""
    kept = docs / "results" / "evidence"
    stages = {name: gather([kept / name]) for name in STAGES if _ran(kept / name)}
    found = comparisons(stages)
    write_json(kept / "comparisons.json", found)
    tables = {
        "pilot": pilot_lines(kept),
        "arms": [line for name, results in stages.items() for line in arm_lines(kept, name, results)],
        "comparisons": comparison_lines(found),
        "recall": recall_lines(docs / "results" / "recall"),
        "pretrained": pretrained_lines(kept / "pretrained.json"),
    }
    page = (docs / "evidence.md").read_text()
    for name, lines in tables.items():
        begin, end = f"<!-- {name}: {BY} -->", f"<!-- {name}: end -->"
        text = "\n".join([begin, "", *lines, "", end])
        page = re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _, x=text: x, page, flags=re.DOTALL)
    write_text(docs / "evidence.md", page)
    for name in [x for x in PRIMARY if x in stages][-1:]:  # the one that answers the question
        frontier(kept, name, stages[name])


def _ran(stage: Path) -> bool:
    return any(stage.glob("runs/*/*/result.json"))


# --- tables ---


def pilot_lines(kept: Path) -> list[str]:
    """Validation loss of each arm at each rate; the chosen ones in bold."""
    if not (kept / "pilot" / "rates.json").exists():
        return ["Not run yet."]
    rates = read_json(kept / "pilot" / "rates.json")
    best = {x.partition(":rate")[0] for x in read_json(kept / "best.json")["arms"].values()}
    steps = read_json(kept / "pilot" / "pilot" / "arms.json")
    names = ["label", "arm", "steps", "step, times the first's", *next(iter(rates.values()))["losses"]]
    cells = []
    for number, (arm, row) in enumerate(rates.items(), 1):
        losses = [
            f"**{fmean(x):.3f}**" if float(rate) == row["rate"] else f"{fmean(x):.3f}"
            for rate, x in row["losses"].items()
        ]
        ratio = steps[arm].get("ratio", {"mean": 1.0})["mean"]
        shown = f"**{arm}**" if arm in best else arm
        cells.append([f"A{number}", shown, f"{steps[arm]['steps']:,}", f"{ratio:.2f}", *losses])
    return markdown(names, cells)


def arm_lines(kept: Path, stage: str, results: Results) -> list[str]:
    """A stage's arms with what they reached, and its floors."""
    decided, parts = read_json(kept / stage / "arms.json"), list(results["parts"])
    texts = [part.removeprefix("other:") for part in parts]
    names = ["label", "arm", "parameters", "steps", "step, times the first's", "seeds", "validation"]
    cells, letter = [], stage[0].upper()
    for number, arm in enumerate(results["arms"], 1):
        choice = decided[arm["name"].partition(":rate")[0]]
        shown = _step(choice, arm, results["arms"][0])
        row = [f"{letter}{number}", arm["name"], f"{arm['parameters']:,}", f"{choice['steps']:,}", shown]
        losses = [_spread(arm["loss"]), *(_spread(arm["parts"].get(part, [])) for part in (*parts, RESET))]
        cells.append([*row, str(len(arm["seeds"])), *losses])
    for number, (name, losses) in enumerate(floors(results).items(), 1):
        cells.append([f"{letter}F{number}", name, "", "", "", "", *(f"{x:.3f}" for x in losses), ""])
    said = "An arm with attention is" if results["evidence"] else "No evidence about attention: no arm is"
    about = f"`{stage}`: {said} below every floor on the validation text. {made_with(results)}"
    return [about, "", *markdown([*names, *texts, RESET], cells), ""]


def _step(choice: Results, arm: Results, first: Results) -> str:
    """The time of an arm's step over that of the first one's, as it was measured before the runs or after them."""
    if "ratio" in choice or arm is first:
        return _interval(choice.get("ratio", {"mean": 1.0, "interval": None}), ".3f")
    if not (arm["step_seconds"] and first["step_seconds"]):
        return "-"
    ratios = [a / b for a, b in zip(arm["step_seconds"], first["step_seconds"], strict=True)]
    return f"{fmean(ratios):.3f}"


def floors(results: Results) -> dict[str, list[float]]:
    """{floor: its loss on the validation text and on each part}."""
    texts = [results["floors"], *(part["floors"] for part in results["parts"].values())]
    found = {"unigram": [text["unigram"] for text in texts]}
    for order in results["floors"]["kneser_ney"]:
        found[f"Kneser-Ney {order}-grams"] = [text["kneser_ney"][order] for text in texts]
    return found


def _spread(values: list[float | None]) -> str:
    values = [x for x in values if x is not None]
    if not values:
        return "-"
    found = summary(values)
    return f"{found['mean']:.4f}" + (f" ± {found['spread']:.4f}" if found["spread"] is not None else "")


def made_with(results: Results) -> str:
    return "; ".join(
        f"{x['runs']} runs on {x['machine']['processor']}, torch {x['versions']['torch']}, commit {x['commit']}"
        for x in results["made_with"]
    )


def comparisons(stages: dict[str, Results]) -> list[Results]:
    """Paired differences in test loss; the secondary ones with p-values corrected together by Holm's method."""
    found: list[Results] = []
    for stage, results in stages.items():
        losses = {
            arm["name"]: dict(zip(arm["seeds"], arm["parts"]["test"], strict=True)) for arm in results["arms"]
        }
        for arm, other in _pairs(stage, list(losses)):
            row = {"stage": stage, "arm": arm, "less": other, "evidence": results["evidence"], "holm": None}
            found.append(row | _paired(losses[arm], losses[other]))
    secondary = [x for x in found if x["stage"] not in PRIMARY and x["p"] is not None]
    for row, p in zip(secondary, holm([x["p"] for x in secondary]), strict=True):
        row["holm"] = p
    return found


def _pairs(stage: str, arms: list[str]) -> list[tuple[str, str]]:
    """(arm, the arm it is compared with)."""
    if stage in PRIMARY:
        return [(arms[1], arms[0])] if len(arms) > 1 else []
    if stage == "controls":
        return [(arm, arms[0]) for arm in arms[1:]]
    pairs = [(arm, arm.replace("talking-heads", "multi-head")) for arm in arms if arm.startswith("talking")]
    return [(arm, other) for arm, other in pairs if other in arms]


def _paired(mine: dict[int, float], others: dict[int, float]) -> Results:
    """Mine less the others', by seed, over the seeds that both have."""
    both = [seed for seed in mine if seed in others]
    return paired_difference([mine[seed] for seed in both], [others[seed] for seed in both])


def _interval(found: Results, form: str) -> str:
    interval = found["interval"]
    return f"{found['mean']:{form}}" + (f" [{interval[0]:{form}}, {interval[1]:{form}}]" if interval else "")


def comparison_lines(found: list[Results]) -> list[str]:
    names = ["label", "stage", "arm", "less", "difference in test loss", "pairs", "p", "p by Holm"]
    cells = []
    for number, x in enumerate(found, 1):
        p, by_holm = (f"{x[name]:.4f}" if x[name] is not None else "-" for name in ("p", "holm"))
        row = [f"D{number}", x["stage"], x["arm"], x["less"], _interval(x, "+.4f"), str(x["pairs"])]
        cells.append([*row, p, by_holm])
    return markdown(names, cells) if cells else ["Not run yet."]


def pretrained_lines(path: Path) -> list[str]:
    """Held-out losses of SmolLM2-135M after the same time, and differences from LoRA."""
    if not path.exists():
        return ["Not run yet."]
    found = read_json(path)
    by_arm: dict[str, dict[int, Results]] = {}
    for run in found["runs"]:
        by_arm.setdefault(run["arm"], {})[run["seed"]] = run
    names = ["label", "trained", "numbers", "steps", "rate", "loss", "less LoRA's", "seeds"]
    cells = [["T0", "nothing", "0", "0", "", f"{found['nothing']:.4f}", "", ""]]
    for number, (arm, runs) in enumerate(by_arm.items(), 1):
        one, losses = next(iter(runs.values())), [x["loss"] for x in runs.values()]
        kinds = [kind for kind in ("maps", "lora") if kind in arm]
        rates = ", ".join(f"{found['rates'][kind][one['rate']]:g}" for kind in kinds)
        row = [f"T{number}", arm, f"{one['parameters']:,}", str(one["steps"]), rates, _spread(losses)]
        less = [{seed: x["loss"] for seed, x in y.items()} for y in (runs, by_arm.get("lora", {}))]
        compared = arm != "lora" and less[0].keys() & less[1].keys()
        cells.append([*row, _interval(_paired(*less), "+.4f") if compared else "", str(len(losses))])
    return markdown(names, cells)


def recall_lines(kept: Path) -> list[str]:
    """Mean accuracy of both kinds by layers, pairs and heads."""
    cells: list[list[str]] = []
    for path in (kept / "results.json", kept / "two-layers.json"):
        found = read_json(path) if path.exists() else {"points": []}
        by_place: dict[tuple[int, int], dict[str, list[float]]] = {}
        for point in found["points"]:
            kinds = by_place.setdefault((point["pairs"], point["heads"]), {})
            kinds.setdefault(point["kind"], []).append(point["accuracy"])
        for (pairs, heads), kinds in sorted(by_place.items()):
            place = [str(found["task"]["layers"]), str(pairs), f"{heads} x {found['task']['width'] // heads}"]
            both = [kinds.get(kind, []) for kind in ("multi-head", "talking-heads")]
            seeds = str(max(map(len, both)))
            cells.append(
                [f"R{len(cells) + 1}", *place, *(f"{fmean(x):.3f}" if x else "-" for x in both), seeds]
            )
    names = ["label", "layers", "pairs", "heads x size", "multi-head", "talking-heads", "seeds"]
    return markdown(names, cells)


# --- picture ---


def frontier(kept: Path, stage: str, results: Results) -> None:
    """Validation loss against training time, the mean of the seeds, a line an arm; a mark at the end: the test loss.
    No line for the arm without attention, which lies far above."""
    decided = read_json(kept / stage / "arms.json")
    figure, axes = plot().subplots(figsize=(8, 4.5), layout="constrained")
    arms = [arm for arm in results["arms"] if parse_arm(arm["name"]).kind != "none"]
    for number, arm in enumerate(arms):
        ratio = decided[arm["name"].partition(":rate")[0]].get("ratio", {"mean": 1.0})["mean"]
        steps = sorted(map(int, arm["curves"][0]))
        means = [fmean(curve[str(step)] for curve in arm["curves"]) for step in steps]
        times = [step * ratio for step in steps]
        axes.plot(
            times,
            means,
            f"C{number}",
            ls=("-", "--")[number % 2],
            marker=".",
            label=f"{arm['name']}, validation",
        )
        test = fmean(arm["parts"]["test"])
        axes.plot(times[-1], test, "*", color=f"C{number}", ms=12, label=f"{arm['name']}, test")
    for order, loss in results["parts"]["test"]["floors"]["kneser_ney"].items():
        if order in ("4", "5", "6"):
            axes.axhline(loss, color="0.6", ls="--", lw=1)
            place = axes.get_yaxis_transform()  # x in shares of the axes
            axes.text(
                0.01, loss, f"{order}-grams, test", fontsize=8, color="0.4", va="bottom", transform=place
            )
    axes.set_xlabel(f"training time, in steps of {results['arms'][0]['name']}")
    axes.set_ylabel("loss, nats a byte")
    axes.legend(fontsize="small")
    save(figure, kept / "frontier.png")


if __name__ == "__main__":
    typer.run(main)
