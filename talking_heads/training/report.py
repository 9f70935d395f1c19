"""A comparison for people: the table's cells, the pictures, report.html."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from ..results import page
from ..results.charts import plot, save
from ..results.files import write_json, write_text
from ..results.folders import lock
from ..results.statistics import LEAST_SEEDS
from .arms import parse_arm
from .gather import Results, gather

SHADED = 4  # arms at most whose range over seeds is drawn: more would hide one another


def columns(results: Results) -> list[str]:
    tasks = [f"accuracy, {task['name']}" for task in results["transfer"]]
    return ["arm", "parameters", "step", "loss, equal steps", "loss, equal time", *tasks]


def rows(results: Results, line: str = "; ") -> list[list[str]]:
    """The table, a row an arm: mean ± spread, then `line` and the difference to the first arm."""
    found = []
    first = results["arms"][0] if results["arms"] else {}
    for arm in results["arms"]:
        cells = [arm["name"], f"{arm['parameters']:,}", _step(arm, first)]
        tasks = [f"transfer:{task['name']}" for task in results["transfer"]]
        for name in ("loss", "equal_time_loss", *tasks):
            parts = [_spread(arm["summary"].get(name)), difference_words(arm["difference"].get(name))]
            cells.append(line.join(part for part in parts if part) or "-")
        found.append(cells)
    return found


def _step(arm: Results, first: Results) -> str:
    seconds, base = arm["summary"].get("step_seconds"), first["summary"].get("step_seconds")
    if not seconds or not base:
        return "-"
    return f"{1000 * seconds['mean']:.0f} ms ({seconds['mean'] / base['mean']:.2f}x)"


def _spread(value: Results | None) -> str:
    if not value:
        return ""
    return f"{value['mean']:.3f}" + (f" ± {value['spread']:.3f}" if value["spread"] is not None else "")


def difference_words(value: Results | None) -> str:
    if not value:
        return ""
    text = f"{value['mean']:+.3f}"
    return text + (" [{:+.3f}, {:+.3f}]".format(*value["interval"]) if value["interval"] else "")


def notes(results: Results) -> list[str]:
    """What a reader needs beside the table: what was learned from, what no model would reach, how sure."""
    settings = results["settings"]
    lines = [
        f"Losses are ln(perplexity), nats a token, on held-out text. A model that ignores context reaches the unigram "
        f"entropy, {results['unigram_entropy']:.3f}.",
        f"Corpus {results['corpus']}: {results['tokens']:,} tokens to learn from; each run saw {results['tokens_seen']:,} "
        f"in {settings['steps']:,} steps. Seeds: {_counts(results)}.",
    ]
    if any(not parse_arm(arm["name"]).is_converted for arm in results["arms"]):
        lines.append(
            "Multi-head arms run as transformers runs them, by scaled_dot_product_attention, which PyTorch does not fuse "
            "on CPU where a position bias is learned (T5); talking heads, and arms called fused, by this package's operator."
        )
    lines += [
        f"Transfer: {task['name']} ({', '.join(task['classes'])}) of {task['test']:,} unseen texts after "
        f"learning from {task['train']:,}; always naming the most frequent class gives {task['majority']:.3f}."
        f"{_missing(results, task['name'])}"
        for task in results["transfer"]
    ] or ["Transfer: no task, so none was tried."]
    seeds = max((len(arm["seeds"]) for arm in results["arms"]), default=0)
    if seeds < LEAST_SEEDS:
        lines.append(
            f"± is the standard deviation over seeds, + or - the difference to the first arm; {seeds} seed(s) are too few for an interval."
        )
    else:
        lines.append(
            "± is the standard deviation over seeds; + or - the difference to the first arm, paired by seed, [ ] its 95 % t interval."
        )
    lines.append(_verdict(results))
    return lines


def _counts(results: Results) -> str:
    """How many seeds: one number, or where they differ the most frequent one last."""
    names: dict[int, list[str]] = {}
    for arm in results["arms"]:
        names.setdefault(len(arm["seeds"]), []).append(arm["name"])
    *rare, usual = sorted(names, key=lambda count: len(names[count])) or [0]
    said = [f"{count} of {', '.join(names[count])}" for count in rare]
    return "; ".join([*said, f"{usual} of the others"]) if said else str(usual)


def _missing(results: Results, task: str) -> str:
    """Which arms have fewer seeds there than in their loss."""
    lacks = {arm["name"]: arm["transfer"][task].count(None) for arm in results["arms"]}
    said = ", ".join(f"{count} of {name}" for name, count in lacks.items() if count)
    return f" Seeds not judged yet: {said}." if said else ""


def table_lines(results: Results) -> list[str]:
    """The table in Markdown."""
    return [*markdown(columns(results), rows(results)), "", *notes(results)]


def markdown(names: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table, all columns but the first aligned to the right."""
    lines = ["| " + " | ".join(names) + " |", "|---|" + "---:|" * (len(names) - 1)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in cells)]


def _verdict(results: Results) -> str:
    said = []
    for arm in results["arms"][1:]:
        for name, words in (("loss", "at equal steps"), ("equal_time_loss", "at equal time")):
            difference = arm["difference"].get(name)
            if not difference:
                continue
            interval = difference["interval"]
            if not math.isfinite(difference["mean"]):
                said.append(f"{arm['name']} {words}: training diverged, here or in the first arm")
            elif interval is None:
                said.append(f"{arm['name']} {words}: {difference['mean']:+.3f}, too few seeds to say")
            elif interval[0] <= 0 <= interval[1]:
                said.append(f"{arm['name']} {words}: no difference shown")
            else:
                said.append(f"{arm['name']} {words}: {'lower' if interval[1] < 0 else 'higher'} loss")
    return "Against the first arm: " + ("; ".join(said) or "nothing to compare yet") + "."


def rebuild(folders: Sequence[Path], out: Path) -> Results:
    """results.json, results.md, figures and report.html in `out`, from the folders of runs alone.

    Raises:
        UserError: no finished run in a folder, or runs that do not belong together.
    """
    results = gather(folders)
    with lock(out / ".lock"):
        write_results(out, results)
    write_text(out / "results.md", "\n".join(table_lines(results)) + "\n")
    return results


def write_results(out: Path, results: Results) -> None:
    """results.json (the maps themselves stay in the runs' folders), report.html with its pictures inside; the
    PNGs also beside it."""
    arms = [{key: x for key, x in arm.items() if key != "maps"} for arm in results["arms"]]
    write_json(out / "results.json", {**results, "arms": arms})
    pictures = [*_curves(out, results), *_maps(out, results)]
    blocks = [page.table(columns(results), rows(results), "Arms compared")]
    blocks += [page.paragraph(line) for line in notes(results)]
    blocks += [page.picture(path, caption) for path, caption in pictures]
    machine = json.dumps({name: results[name] for name in ("made_with", "timed_on")}, indent=1)
    blocks += [
        page.heading("Settings"),
        page.preformatted(json.dumps(results["settings"], indent=1)),
        page.heading("Machine and versions"),
        page.preformatted(machine),
    ]
    write_text(out / "report.html", page.page("Does talking help?", blocks))


def _curves(out: Path, results: Results) -> list[tuple[Path, str]]:
    found = []
    for clock in ("steps", "time"):
        if clock == "time" and not all("step_seconds" in arm["summary"] for arm in results["arms"]):
            continue
        figure, axes = plot().subplots(figsize=(8, 4.5), layout="constrained")
        for number, arm in enumerate(results["arms"]):
            scale = 1.0 if clock == "steps" else arm["summary"]["step_seconds"]["mean"]
            steps = sorted(map(int, arm["curves"][0]))
            by_seed = [[curve[str(step)] for curve in arm["curves"]] for step in steps]
            places = [step * scale for step in steps]
            style = {"color": f"C{number % 10}", "ls": ("-", "--", ":")[number // 10 % 3]}
            axes.plot(places, [fmean(x) for x in by_seed], label=arm["name"], marker=".", **style)
            if len(arm["curves"]) > 1 and len(results["arms"]) <= SHADED:
                low, high = [min(x) for x in by_seed], [max(x) for x in by_seed]
                axes.fill_between(places, low, high, color=style["color"], alpha=0.15, lw=0)
        axes.axhline(results["unigram_entropy"], color="gray", ls="--", lw=1, label="unigram entropy")
        axes.set_xlabel("steps" if clock == "steps" else "training time in seconds (steps x step time)")
        axes.set_ylabel("held-out loss (nats a token)")
        figure.legend(loc="outside right upper", fontsize="small")
        path = out / f"loss-over-{clock}.png"
        save(figure, path)
        axis = "steps" if clock == "steps" else "training time"
        found.append(
            (
                path,
                f"Held-out loss over {axis}: the mean of the seeds (of few arms, shaded from the lowest to the highest)",
            )
        )
    return found


def _maps(out: Path, results: Results) -> list[tuple[Path, str]]:
    """One picture an arm that has maps: every layer's maps after training, first seed."""
    found = []
    for arm in results["arms"]:
        maps = arm["maps"][0]
        if not maps:
            continue
        columns = min(6, len(maps))
        lines = -(-len(maps) // columns)
        figure, grid = plot().subplots(
            lines, columns, figsize=(2.2 * columns, 2.5 * lines), squeeze=False, layout="constrained"
        )
        limit = max((abs(x) for mix in maps.values() for row in mix for x in row if x == x), default=1.0)
        for axes in grid.flat:
            axes.axis("off")
        for axes, (name, mix) in zip(grid.flat, maps.items(), strict=False):
            image = axes.imshow(mix, cmap="RdBu", vmin=-limit, vmax=limit)
            axes.set_title(_short(name), fontsize=6)
        figure.colorbar(image, ax=grid, shrink=0.6)
        path = out / f"maps-{parse_arm(arm['name']).folder}.png"
        save(figure, path, dpi=110)
        found.append(
            (path, f"{arm['name']}: the maps after training (seed {arm['seeds'][0]}); rows in, columns out")
        )
    return found


def _short(name: str) -> str:
    """encoder.block.0.layer.0.SelfAttention.head_mixing.logits_mix -> encoder.0 SelfAttention logits."""
    parts = [
        part
        for part in name.split(".")
        if part not in ("block", "layer", "head_mixing", "attention", "self", "bert")
    ]
    return " ".join(parts[:-1]) + "\n" + parts[-1]
