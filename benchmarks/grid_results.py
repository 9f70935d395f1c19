"""The section "Does talking pay?" of docs/results.md, its JSON and pictures, from the grid's folders alone.

    python benchmarks/grid_results.py runs/grid
    python benchmarks/grid_results.py docs/results/grid/folders    # the same from what the first kept

What fits a repository of the folders is kept in docs/results/grid/folders: all but models, data and maps. Copied to
runs/grid, benchmarks/grid.py goes on from there.
"""

import re
from pathlib import Path
from typing import Annotated, Any

import typer
from grid import HEADS, RATES, best_heads, best_rate, equal_parameters
from grid_folders import keep, machines, map_figures

from talking_heads.results.charts import plot, save
from talking_heads.results.files import write_text
from talking_heads.results.statistics import summary
from talking_heads.training.cells import columns, difference_words, markdown, notes, rows
from talking_heads.training.gather import gather, paired, paired_at_equal_time, read_json
from talking_heads.training.report import write_results

Results = dict[str, Any]
BEGIN, END = "<!-- grid: written by benchmarks/grid_results.py -->", "<!-- grid: end -->"


def write(
    runs: Annotated[Path, typer.Argument(help="What benchmarks/grid.py wrote, finished or not.")],
    docs: Annotated[Path, typer.Option(help="The docs folder to write into.")] = Path("docs"),
) -> None:
    """docs/results/grid/ and the section of docs/results.md."""
    folder = docs / "results" / "grid"
    if runs.resolve() != (folder / "folders").resolve():
        keep(runs, folder / "folders")
    results = gather([runs / "arms"])
    results["rates_tried"] = {str(rate): gather([runs / f"rate-{rate}"])["arms"][0]["loss"] for rate in RATES}
    results["rate"], results["heads"] = best_rate(runs), best_heads(runs)
    cost = runs / "equal_cost.json"
    results["machines"] = machines(folder / "folders", results)
    results["equal_cost"] = read_json(cost) if cost.exists() else None
    for arm in results["arms"]:
        arm["map_figures"] = map_figures(folder / "folders" / "arms", arm)
    write_results(folder, results)
    _picture(folder / "loss-by-heads.png", results)
    page = docs / "results.md"
    text = page.read_text()
    section = "\n".join([BEGIN, *_section(results), END])
    if BEGIN in text:
        text = re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: section, text, flags=re.DOTALL)
    else:
        text = text.replace("# Results\n", f"# Results\n\n{section}\n", 1)
    write_text(page, text)


def _section(results: Results) -> list[str]:
    heads = results["heads"]
    about = results["settings"]
    return [
        "## Does talking pay?",
        "",
        f"T5 of {about['layers']}+{about['layers']} layers, width {about['width']}, {about['steps']:,} steps of "
        f"{about['batch']} x {about['length']} tokens of span corruption on the State of the Union addresses; then the "
        f"party of a paragraph from addresses not seen, and SST-2. AdamW, the rate tuned for multi-head:8 on one seed "
        f"({', '.join(f'{rate}: {loss[0]:.3f}' for rate, loss in results['rates_tried'].items())}), {results['rate']} for all "
        "arms. Everything below is written by the second of these commands from the folders of the first; "
        "[results.json](results/grid/results.json) holds every seed's figures and curves, results/grid/folders each run's "
        f"settings, versions and commit. {results['machines']}",
        "",
        "    python benchmarks/grid.py DATA --out runs/grid",
        "    python benchmarks/grid_results.py runs/grid",
        "",
        *markdown(
            columns(results),
            rows({**results, "arms": [_without_differences(arm) for arm in results["arms"]]}),
        ),
        "",
        *notes(results)[:-2],
        '± is the standard deviation over seeds. "Equal time" in this table: after as long a training as the fastest arm\'s whole '
        "run, the others' curves cut there; in the tables of pairs below: after the faster one's whole run.",
        "",
        "![loss by head count](results/grid/loss-by-heads.png)",
        "![loss over steps](results/grid/loss-over-steps.png)",
        *(
            ["![loss over training time](results/grid/loss-over-time.png)"]
            if all(arm["step_seconds"] for arm in results["arms"])
            else ["Step times are not measured yet, hence nothing at equal time."]
        ),
        "",
        *_by_heads(results),
        "",
        *_at_best(results, heads),
        "",
        "Party: where an arm's accuracy is below the most frequent class's, nothing of use was learned, and differences say nothing.",
        "",
        *_directions(results, heads),
        "",
        *_maps(results),
        "",
        "What this scale cannot say: a model of 1.4 million parameters that has seen 3 million tokens of one kind of text is far "
        "from the paper's, which trained 65,536 steps and more of 128 x 512 tokens. The intervals are over seeds (start and order of the "
        "data) on the same held-out text; they say nothing of other text. With three seeds an interval is 2.5 "
        "standard deviations wide to each side, with five 1.2; with two none is given. At equal time the slower arm is cut off before its "
        "learning rate has come down, which speaks against it; an arm of equal step cost, compared at equal steps, has no such "
        "handicap. The head count of the second table was chosen by talking heads' loss on this held-out text and two of these "
        "seeds, which favours them a little. "
        "At width 128, 32 heads have size 4.",
    ]


def _without_differences(arm: Results) -> Results:
    return {**arm, "difference": {}}


def _difference(x: Results | None) -> str:
    if not x:
        return "-"
    return difference_words(x) + ("" if x["interval"] else f" ({x['pairs']} seed{'s' * (x['pairs'] > 1)})")


def _named(results: Results) -> dict[str, Results]:
    return {arm["name"]: arm for arm in results["arms"]}


def _by_heads(results: Results) -> list[str]:
    arms = _named(results)
    tasks = [task["name"] for task in results["transfer"]]
    rows = []
    for heads in HEADS:
        base, talking = arms.get(f"multi-head:{heads}"), arms.get(f"talking-heads:{heads}")
        if base and talking:
            cells = [paired(talking, base, "loss"), paired_at_equal_time(talking, base)]
            cells += [paired(talking, base, f"transfer:{task}") for task in tasks]
            rows.append([str(heads), *map(_difference, cells)])
    columns = ["heads", "loss, equal steps", "loss, equal time", *(f"accuracy, {task}" for task in tasks)]
    words = "Talking heads less multi-head with as many heads, paired by seed (95 % t interval; below 0: lower loss):"
    return [words, "", *markdown(columns, rows)]


def _rival(results: Results, heads: int) -> Results:
    """Multi-head attention in the same operator; until it is there, as transformers runs it."""
    arms = _named(results)
    return arms.get(f"multi-head:{heads}:fused") or arms[f"multi-head:{heads}"]


def _at_best(results: Results, heads: int) -> list[str]:
    base = _rival(results, heads)
    tasks = [task["name"] for task in results["transfer"]]
    rows = []
    for name, arm in _named(results).items():
        if name != base["name"] and name.split(":")[1] == str(heads):
            cells = [paired(arm, base, "loss"), paired_at_equal_time(arm, base)]
            cells += [paired(arm, base, f"transfer:{task}") for task in tasks]
            rows.append([name, f"{arm['parameters']:,}", *map(_difference, cells)])
    accuracies = [f"accuracy, {task}" for task in tasks]
    words = (
        f"At {heads} heads, where talking heads are best, less {base['name']} ({base['parameters']:,} parameters), which is "
        f"multi-head:{heads} computed by the operator that computes talking heads. {_cost(results)}"
    )
    names = ["arm", "parameters", "loss, equal steps", "loss, equal time", *accuracies]
    return [words, "", *markdown(names, rows)]


def _cost(results: Results) -> str:
    """What the arm of equal step cost was chosen by."""
    found = results["equal_cost"]
    if not found:
        return "The arm of equal step cost is not chosen yet."
    times = ", ".join(f"{arm} {seconds:.3f} s" for arm, seconds in found["step_seconds"].items())
    machine = found["machine"]
    return (
        f"The width of {found['arm']} was chosen so that its step takes as long as talking heads': {times} "
        f"({machine['threads']} thread of {machine['processor']})."
    )


def _directions(results: Results, heads: int) -> list[str]:
    """What the paper found and what is seen here; each is a difference whose sign the paper gives."""
    arms = _named(results)
    talking, rival, most = f"talking-heads:{heads}", _rival(results, heads)["name"], HEADS[-1]
    claims = [
        (f"talking heads below multi-head at {heads} heads", talking, rival),
        (f"multi-head worse with {most} heads than with {HEADS[-2]}", f"multi-head:{HEADS[-2]}", f"multi-head:{most}"),
        (f"talking heads better with {most} heads than with {HEADS[-2]}", f"talking-heads:{most}", f"talking-heads:{HEADS[-2]}"),
        ("the logits map alone below multi-head", f"logits-map:{heads}", rival),
        ("the weights map alone below multi-head", f"weights-map:{heads}", rival),
        ("both maps below the logits map alone", talking, f"logits-map:{heads}"),
        ("both maps below the weights map alone", talking, f"weights-map:{heads}"),
    ]  # fmt: skip
    cost = (results["equal_cost"] or {}).get("arm")
    claims += [("talking heads below multi-head of equal parameters", talking, equal_parameters(heads))]
    claims += [("talking heads below multi-head of equal step cost", talking, cost)] if cost else []
    rows = []
    for words, low, high in claims:
        if low in arms and high in arms:
            x = paired(arms[low], arms[high], "loss")
            rows.append([words, _difference(x), _verdict(x)])
    return [
        "The paper's direction (its own figures are of other models and are not repeated), and the loss here:",
        "",
        *markdown(["direction", "difference", "seen here"], rows),
    ]


def _verdict(x: Results | None) -> str:
    if not x or not x["interval"]:
        return "too few seeds"
    low, high = x["interval"]
    return "yes" if high < 0 else "the contrary" if low > 0 else "no difference shown"


def _maps(results: Results) -> list[str]:
    rows = []
    for arm in results["arms"]:
        for name, x in arm["map_figures"].items():
            cells = (x["distance"], x["diagonal"], x["least_eigenvalue"])
            rows.append([arm["name"], name, *(f"{cell:.3f}" for cell in cells)])
    return [
        "The maps after training, means over layers and seeds: the distance from the identity (Frobenius norm, over that "
        "of the identity), the diagonal's share of its row by absolute value, and the smallest absolute eigenvalue of any. "
        "Pictures of each arm's maps (first seed): results/grid/maps-ARM.png.",
        "",
        *markdown(["arm", "map", "distance", "diagonal", "least eigenvalue"], rows),
    ]


def _picture(path: Path, results: Results) -> None:
    arms = _named(results)
    figure, axes = plot().subplots(figsize=(6.5, 4), layout="constrained")
    for color, kind in (("C0", "multi-head"), ("C1", "talking-heads")):
        found = [(heads, arms[f"{kind}:{heads}"]) for heads in HEADS if f"{kind}:{heads}" in arms]
        means = [summary(arm["loss"])["mean"] for _, arm in found]
        axes.plot([heads for heads, _ in found], means, color=color, label=kind)
        for heads, arm in found:
            axes.plot([heads] * len(arm["loss"]), arm["loss"], ".", color=color, alpha=0.6)
    axes.set_xscale("log", base=2)
    axes.set_xticks(HEADS, [str(heads) for heads in HEADS])
    axes.set_xlabel(f"heads (of width {results['settings']['width']})")
    axes.set_ylabel("held-out loss (nats a token)")
    axes.legend()
    save(figure, path)


if __name__ == "__main__":
    typer.run(write)
