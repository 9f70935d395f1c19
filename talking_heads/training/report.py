"""A comparison's results.json, pictures and report.html."""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from ..results import page
from ..results.charts import plot, save
from ..results.files import write_json, write_text
from ..results.folders import claim, lock
from .arms import parse_arm
from .cells import columns, floor_rows, headline, notes, rows, table_lines
from .gather import Results, gather

SHADED = 4  # arms at most whose range over seeds is drawn: more would hide one another


def rebuild(folders: Sequence[Path], out: Path) -> Results:
    """results.json, results.md, figures and report.html in `out`, from the folders of runs alone.

    Raises:
        UserError: no finished run in a folder, or runs that do not belong together.
    """
    results = gather(folders)
    mine = any(folder.samefile(out) for folder in folders if out.exists())
    claim(out, "report", "compare", known=mine)
    with lock(out):
        write_results(out, results)
        write_text(out / "results.md", "\n".join(table_lines(results)) + "\n")
    return results


def write_results(out: Path, results: Results) -> None:
    """results.json (the maps themselves stay in the runs' folders), report.html with its pictures inside; the
    PNGs also next to it."""
    write_json(out / "results.json", _kept(results))
    pictures = [*_curves(out, results), *_maps(out, results)]
    blocks = [page.paragraph(line) for line in headline(results)]
    names = [_with_unit(name) for name in columns(results)]
    blocks += [page.table(names, rows(results, line="\n"), "Arms compared")]
    blocks += [page.picture(path, caption) for path, caption in _differences(out, results)]
    if floor_rows(results):
        names = ["floor", "loss (nats a token)", *results["parts"]]
        blocks += [page.table(names, floor_rows(results), "What trivial methods reach on the same tokens")]
    blocks += [page.paragraph(line) for line in notes(results)]
    for other in results.get("apart", []):
        blocks += [page.table(columns(other), rows(other), "Apart from these: other versions or data")]
        blocks += [page.paragraph(line) for line in notes(other)]
    blocks += [page.picture(path, caption) for path, caption in pictures]
    machine = json.dumps({name: results[name] for name in ("made_with", "timed_on")}, indent=1)
    blocks += [
        page.heading("Settings"),
        page.preformatted(json.dumps(results["settings"], indent=1)),
        page.heading("Machine and versions"),
        page.preformatted(machine),
    ]
    write_text(out / "report.html", page.page("Does talking help?", blocks))


def _with_unit(name: str) -> str:
    if name == "step":
        return "training step (x the first arm's)"
    return f"{name} (nats a token)" if name.startswith("loss") else name


def _differences(out: Path, results: Results) -> list[tuple[Path, str]]:
    """Each arm's loss less the first arm's, with its interval where there are seeds enough."""
    arms = [arm for arm in results["arms"][1:] if arm["difference"].get("loss")]
    measures = [
        (name, label)
        for name, label in (("loss", "at equal steps"), ("equal_time_loss", "cut at equal time"))
        if any(arm["difference"].get(name) for arm in arms)
    ]
    if not arms:
        return []
    if results["settings"].get("equal_time"):
        measures = [("loss", "at equal time")]
    figure, grid = plot().subplots(
        1, len(measures), figsize=(8, 1.2 + 0.3 * len(arms)), sharey=True, squeeze=False, layout="constrained"
    )
    for axes, (name, label) in zip(grid[0], measures, strict=True):
        for place, arm in enumerate(arms):
            found = arm["difference"].get(name)
            if found:
                axes.plot(found["mean"], place, "o", color="C0", ms=5)
                axes.plot(found["interval"] or [found["mean"]] * 2, [place] * 2, color="C0", lw=2)
        axes.axvline(0, color="0.5", lw=1)
        axes.set_title(label, fontsize=10)
        axes.set_xlabel("difference in loss (nats a token)")
        axes.set_yticks(range(len(arms)), [arm["name"] for arm in arms])
    grid[0][0].invert_yaxis()
    path = out / "differences.png"
    save(figure, path)
    first = results["arms"][0]["name"]
    return [
        (path, f"Loss less that of {first}, paired by seed, with its 95 % t interval; left of 0 is better")
    ]


def _kept(results: Results) -> Results:
    arms = [{key: x for key, x in arm.items() if key != "maps"} for arm in results["arms"]]
    apart = {"apart": [_kept(x) for x in results["apart"]]} if "apart" in results else {}
    return {**results, "arms": arms, **apart}


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
        lines = {"unigram": results["floors"]["unigram"]}
        lines |= {f"{n}-grams": x for n, x in results["floors"]["kneser_ney"].items() if n in ("2", "4", "6")}
        for shade, (name, loss) in enumerate(lines.items()):
            axes.axhline(loss, color=str(0.75 - 0.2 * shade), ls="--", lw=1, label=name)
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
