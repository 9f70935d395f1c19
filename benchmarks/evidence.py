"""The runs of docs/evidence/plan.md, a stage a command.

    python benchmarks/evidence.py pilot --out runs/evidence --other DIR
    python benchmarks/evidence.py primary --out runs/evidence --other DIR
    python benchmarks/evidence.py controls --out runs/evidence --other DIR
    python benchmarks/evidence.py sizes --out runs/evidence --other DIR
    python benchmarks/evidence.py table --out runs/evidence

DIR holds wikitext-2.valid.txt.gz and tinyshakespeare.txt.gz. Each stage needs the stages before it; every one continues
where it stopped. The last prints the table of all comparisons, and keeps in docs/results/evidence what `talking-heads
report` reads.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import typer
from grid_folders import keep

from talking_heads.cli.progress import Screen
from talking_heads.results.files import write_json
from talking_heads.results.statistics import holm, paired_difference
from talking_heads.training.arms import parse_arm
from talking_heads.training.cells import markdown
from talking_heads.training.choices import measure
from talking_heads.training.compare import compare
from talking_heads.training.corpus import Corpus, choose_corpus
from talking_heads.training.gather import gather, read_json
from talking_heads.training.objectives import find
from talking_heads.training.pilot import choose_rates
from talking_heads.training.settings import Settings, preset

STEPS = 2000  # of the primary comparison; the other stages take half
RATES = (1.5e-3, 3e-3, 6e-3)
PILOT_ARMS = [f"multi-head:{n}" for n in (4, 8, 16)] + [f"talking-heads:{n}" for n in (8, 16, 32)]
PILOT_SEEDS, SEEDS, FEW_SEEDS = (1000, 1001), tuple(range(10)), (0, 1, 2)
SIZES = (8, 16, 32, 64)
OTHER = ("wikitext-2.valid.txt.gz", "tinyshakespeare.txt.gz")

app = typer.Typer(help=__doc__)
Out = Annotated[Path, typer.Option(help="Folder for the runs.")]
Other = Annotated[Path, typer.Option(help="Folder of the texts of another kind.")]
Steps = Annotated[int, typer.Option(help="Steps of the primary comparison; fewer only to try the commands.")]


def _settings(arms: Sequence[str], seeds: Sequence[int], steps: int, equal_time: bool = True) -> Settings:
    return preset(
        "demo",
        objective="causal-lm",
        arms=tuple(arms),
        seeds=tuple(seeds),
        steps=steps,
        equal_time=equal_time,
    )


def _compare(settings: Settings, other: Path, out: Path) -> None:
    with Screen() as screen:
        compare(settings, _corpus(other), [], out, progress=screen.progress, show=screen.show)


def _corpus(other: Path) -> Corpus:
    return choose_corpus([], None, [other / name for name in OTHER])


@app.command()
def pilot(other: Other, out: Out = Path("runs/evidence"), steps: Steps = STEPS) -> None:
    """The rate of each arm and the head count of each kind."""
    settings = _settings(PILOT_ARMS, SEEDS, max(1, steps // 2))
    with Screen() as screen:
        news: Any = {"progress": screen.progress, "show": screen.show}
        chosen = choose_rates(settings, _corpus(other), out / "pilot", RATES, PILOT_SEEDS, **news)
    rates = read_json(out / "pilot" / "rates.json")
    losses = {name: fmean(x["losses"][str(x["rate"])]) for name, x in rates.items()}
    rated = {replace(parse_arm(arm), rate=None).name: arm for arm in chosen.arms}
    best = {}
    for kind in ("multi-head", "talking-heads"):
        best[kind] = rated[min((x for x in losses if x.startswith(kind)), key=losses.__getitem__)]
    write_json(out / "best.json", {"arms": best, "losses": losses})


def _best(out: Path) -> tuple[str, str]:
    arms = read_json(out / "best.json")["arms"]
    return arms["multi-head"], arms["talking-heads"]


@app.command()
def primary(other: Other, out: Out = Path("runs/evidence"), steps: Steps = STEPS) -> None:
    """Both kinds, each at its best, in the same time."""
    _compare(_settings(_best(out), SEEDS, steps), other, out / "primary")


@app.command()
def controls(other: Other, out: Out = Path("runs/evidence"), steps: Steps = STEPS) -> None:
    """What of talking heads helps."""
    multi, talking = _best(out)
    arm = parse_arm(talking)
    kinds = [replace(arm, kind=kind).name for kind in ("logits-map", "weights-map")]
    limited = [replace(arm, within=1), replace(arm, within=4), replace(arm, init="random", frozen=True)]
    arms = [talking, *kinds, *(x.name for x in limited), replace(arm, kind="none", heads=0).name]
    settings = _settings(arms, FEW_SEEDS, max(1, steps // 2))
    wide = _of_equal_cost(settings, other, out, multi, talking)
    _compare(replace(settings, arms=(*arms, wide)), other, out / "controls")


def _of_equal_cost(settings: Settings, other: Path, out: Path, multi: str, talking: str) -> str:
    """Multi-head attention with a feed-forward so wide that a step takes as long as talking heads'; measured once."""
    path = out / "equal_cost.json"
    if not path.exists():
        _, data = find(settings.objective).prepare(out / "data", settings, _corpus(other))
        runs_as = read_json(out / "primary" / "arms.json")
        plain = replace(parse_arm(multi), rate=None)
        fast = parse_arm(runs_as[plain.name]["runs_as"])
        widths = (settings.feed_forward, 2 * settings.feed_forward)
        ends = [replace(fast, feed_forward=width, rate=None).name for width in widths]
        times = {arm: fmean(x) for arm, x in measure(settings, [talking, *ends], data).items()}
        slope = (times[ends[1]] - times[ends[0]]) / (widths[1] - widths[0])
        width = widths[0] + max(times[talking] - times[ends[0]], 0) / slope
        arm = replace(parse_arm(multi), feed_forward=max(widths[0] + 1, round(width))).name
        write_json(path, {"arm": arm, "step_seconds": times})
    return str(read_json(path)["arm"])


@app.command()
def sizes(other: Other, out: Out = Path("runs/evidence"), steps: Steps = STEPS) -> None:
    """Loss against the size of a head at fixed width."""
    arms = [f"{kind}:{heads}:rate=0.003" for heads in SIZES for kind in ("multi-head", "talking-heads")]
    _compare(_settings(arms, FEW_SEEDS, max(1, steps // 2), equal_time=False), other, out / "sizes")


@app.command()
def table(out: Out = Path("runs/evidence"), docs: Path = Path("docs/results/evidence")) -> None:
    """All comparisons in one table, from the runs' folders alone."""
    found = _comparisons(out)
    secondary = [x for x in found if x["stage"] != "primary" and x["p"] is not None]
    for row, p in zip(secondary, holm([x["p"] for x in secondary]), strict=True):
        row["holm"] = p
    if out.resolve() != docs.resolve():
        keep(out, docs)
    write_json(docs / "comparisons.json", found)
    names = ["stage", "arm", "less", "difference in test loss", "pairs", "p", "p by Holm"]
    typer.echo("\n".join(markdown(names, [_row(x) for x in found])))


def _comparisons(out: Path) -> list[dict[str, Any]]:
    found = []
    for stage in ("primary", "controls", "sizes"):
        if not list((out / stage).glob("runs/*/*/result.json")):
            continue
        results = gather([out / stage])
        losses = {
            arm["name"]: dict(zip(arm["seeds"], arm["parts"]["test"], strict=True)) for arm in results["arms"]
        }
        for arm, other in _pairs(stage, list(losses)):
            both = [seed for seed in losses[arm] if seed in losses[other]]
            values = [[losses[x][seed] for seed in both] for x in (arm, other)]
            row = {"stage": stage, "arm": arm, "less": other, "evidence": results["evidence"], "holm": None}
            found.append(row | paired_difference(*values))
    return found


def _pairs(stage: str, arms: list[str]) -> list[tuple[str, str]]:
    """(arm, the arm it is compared with)."""
    if stage == "primary":
        return [(arms[1], arms[0])] if len(arms) > 1 else []
    if stage == "controls":
        return [(arm, arms[0]) for arm in arms[1:]]
    pairs = [(arm, arm.replace("talking-heads", "multi-head")) for arm in arms if arm.startswith("talking")]
    return [(arm, other) for arm, other in pairs if other in arms]


def _row(x: dict[str, Any]) -> list[str]:
    interval = " [{:+.4f}, {:+.4f}]".format(*x["interval"]) if x["interval"] else ""
    p, by_holm = (f"{x[name]:.4f}" if x[name] is not None else "-" for name in ("p", "holm"))
    return [x["stage"], x["arm"], x["less"], f"{x['mean']:+.4f}{interval}", str(x["pairs"]), p, by_holm]


if __name__ == "__main__":
    app()
