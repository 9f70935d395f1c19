"""The runs of docs/evidence/plan.md, a stage a command.

    python benchmarks/evidence.py pilot --out runs/evidence --other DIR
    python benchmarks/evidence.py primary --out runs/evidence --other DIR
    python benchmarks/evidence.py longer --out runs/evidence --other DIR
    python benchmarks/evidence.py none --out runs/evidence --other DIR
    python benchmarks/evidence.py controls --out runs/evidence
    python benchmarks/evidence.py sizes --out runs/evidence --other DIR

DIR holds wikitext-2.valid.txt.gz and tinyshakespeare.txt.gz. `pilot` comes before `primary` and `longer`; every stage continues
where it stopped, and two processes of one stage share its runs. After each run its result is kept in docs/results/evidence,
from where a stage goes on on another machine. evidence_page.py makes docs/evidence.md of them.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import typer
from experiments import double
from kept_folders import keep, restore

from talking_heads.cli.progress import Screen
from talking_heads.results.files import write_json
from talking_heads.results.output import Output
from talking_heads.training import devices
from talking_heads.training.arms import parse_arm
from talking_heads.training.choices import measure
from talking_heads.training.compare import compare, prepare
from talking_heads.training.corpus import Corpus, choose_corpus
from talking_heads.training.gather import PILOT, read_json
from talking_heads.training.pilot import choose_rates
from talking_heads.training.settings import Settings, preset

STEPS, LONGER = 4000, 6000  # of the primary comparison, and of that which passes the 6-grams
DTYPE = "bfloat16"  # mixed precision
RATES = (2e-3, 3e-3, 4.5e-3)
PILOT_ARMS = [f"multi-head:{n}" for n in (4, 8, 16, 2)] + [f"talking-heads:{n}" for n in (8, 16, 32, 4)]
PILOT_SEEDS, SEEDS, NEW_SEEDS, FEW_SEEDS = (1000,), tuple(range(10)), tuple(range(10, 20)), (0, 1, 2)
COPYING: dict[str, Any] = {"width": 64, "layers": 2, "length": 128, "batch": 16, "steps": 600}
COPYING_HEADS, COPYING_RATES = 8, (2.5e-3, 5e-3, 1e-2)
SIZES = (8, 16, 32, 64)
OTHER = ("wikitext-2.valid.txt.gz", "tinyshakespeare.txt.gz")
OUT = Path("runs/evidence")
DOCS = Path(__file__).parents[1] / "docs" / "results" / "evidence"

app = typer.Typer(help=__doc__)
Out = Annotated[Path, typer.Option(help="Folder for the runs.")]
Other = Annotated[Path, typer.Option(help="Folder of the texts of another kind.")]
Kept = Annotated[Path, typer.Option(help="Folder for the results that are committed.")]
Steps = Annotated[int, typer.Option(help="Steps of the primary comparison; fewer only to try the commands.")]
Seeds = Annotated[int, typer.Option(help="Use only the first N seeds.")]


def _settings(arms: Sequence[str], seeds: Sequence[int], steps: int, equal_time: bool = True) -> Settings:
    return preset(
        "demo",
        objective="causal-lm",
        dtype=DTYPE,
        batch=8,
        arms=tuple(arms),
        seeds=tuple(seeds),
        steps=steps,
        equal_time=equal_time,
    )


def _compare(settings: Settings, corpus: Corpus, out: Path, kept: Path) -> None:
    with Screen(Output(None)) as screen:
        compare(settings, corpus, [], out, **_news(screen, out, kept))


def _news(screen: Screen, out: Path, kept: Path) -> dict[str, Any]:
    """Progress, and what is done after each run."""

    def show(results: Any) -> None:
        screen.show(results)
        keep(out, kept)

    return {"progress": screen.progress, "show": show}


def _corpus(other: Path) -> Corpus:
    return choose_corpus([], None, [other / name for name in OTHER])


@app.command()
def pilot(other: Other, out: Out = OUT, kept: Kept = DOCS, steps: Steps = STEPS) -> None:
    """The rate of each arm and the head count of each kind."""
    restore(kept, out)
    settings = _settings(PILOT_ARMS, SEEDS, max(1, steps // 4))
    with Screen(Output(None)) as screen:
        news = _news(screen, out, kept)
        chosen = choose_rates(settings, _corpus(other), out / "pilot", RATES, PILOT_SEEDS, **news)
    rates = read_json(out / "pilot" / "rates.json")
    losses = {name: fmean(x["losses"][str(x["rate"])]) for name, x in rates.items()}
    rated = {replace(parse_arm(arm), rate=None).name: arm for arm in chosen.arms}
    best = {}
    for kind in ("multi-head", "talking-heads"):
        best[kind] = rated[min((x for x in losses if x.startswith(kind)), key=losses.__getitem__)]
    write_json(out / "best.json", {"arms": best, "losses": losses})
    keep(out, kept)


def _best(out: Path, kept: Path) -> tuple[str, str]:
    restore(kept, out)
    arms = read_json(out / "best.json")["arms"]
    return arms["multi-head"], arms["talking-heads"]


@app.command()
def primary(other: Other, out: Out = OUT, kept: Kept = DOCS, steps: Steps = STEPS, seeds: Seeds = 10) -> None:
    """Both kinds, each at its best, in the same time."""
    arms = _best(out, kept)
    _compare(_settings(arms, SEEDS[:seeds], steps), _corpus(other), out / "primary", kept / "primary")


@app.command()
def longer(other: Other, out: Out = OUT, kept: Kept = DOCS, steps: Steps = LONGER, seeds: Seeds = 10) -> None:
    """The primary comparison with more steps and seeds of its own."""
    arms = _best(out, kept)
    _compare(_settings(arms, NEW_SEEDS[:seeds], steps), _corpus(other), out / "longer", kept / "longer")


@app.command()
def none(other: Other, out: Out = OUT, kept: Kept = DOCS, steps: Steps = LONGER, seeds: Seeds = 1) -> None:
    """The floor of `longer` that is trained: no attention, as many parameters, the same time."""
    rate = parse_arm(_best(out, kept)[0]).rate
    settings = _settings([f"none:rate={rate}"], NEW_SEEDS[:seeds], steps)
    _compare(settings, _corpus(other), out / "longer", kept / "longer")


@app.command()
def controls(out: Out = OUT, kept: Kept = DOCS, steps: Steps = COPYING["steps"], seeds: Seeds = 5) -> None:
    """What of talking heads helps, on the text made for copying."""
    folder = out / "controls"
    restore(kept / "controls", folder)
    text = out / "double.txt"
    double(text)
    corpus = choose_corpus([text], None)
    arms = (f"multi-head:{COPYING_HEADS}", f"talking-heads:{COPYING_HEADS}")
    settings = _settings(arms, NEW_SEEDS[:seeds], steps, equal_time=False)
    settings = replace(settings, **(COPYING | {"steps": steps}))
    with Screen(Output(None)) as screen:
        news = _news(screen, folder, kept / "controls")
        chosen = choose_rates(settings, corpus, folder, COPYING_RATES, PILOT_SEEDS, **news)
    multi, talking = chosen.arms
    arm = parse_arm(talking)
    kinds = [replace(arm, kind=kind) for kind in ("logits-map", "weights-map")]
    limited = [replace(arm, within=1), replace(arm, within=4), replace(arm, init="random")]
    limited += [replace(arm, init="random", frozen=True), replace(arm, kind="none", heads=0)]
    names = [talking, multi, *(x.name for x in (*kinds, *limited))]
    wide = _of_equal_cost(settings, corpus, folder, multi, talking)
    keep(folder, kept / "controls")
    _compare(replace(settings, arms=(*names, wide)), corpus, folder, kept / "controls")


def _of_equal_cost(settings: Settings, corpus: Corpus, folder: Path, multi: str, talking: str) -> str:
    """Multi-head attention with a feed-forward so wide that a step takes as long as talking heads'; measured once."""
    path = folder / "equal_cost.json"
    if not path.exists():
        _, data = prepare(folder, settings, corpus)
        plain = replace(parse_arm(multi), rate=None)
        fast = parse_arm(read_json(folder / PILOT / "arms.json")[plain.name]["runs_as"])
        widths = (settings.feed_forward, 2 * settings.feed_forward)
        ends = [replace(fast, feed_forward=width, rate=None).name for width in widths]
        times = {arm: fmean(x) for arm, x in measure(settings, [talking, *ends], data).items()}
        slope = (times[ends[1]] - times[ends[0]]) / (widths[1] - widths[0])
        width = widths[0] + max(times[talking] - times[ends[0]], 0) / slope
        arm = replace(parse_arm(multi), feed_forward=max(widths[0] + 1, round(width))).name
        write_json(path, {"arm": arm, "step_seconds": times})
    return str(read_json(path)["arm"])


@app.command()
def sizes(other: Other, out: Out = OUT, kept: Kept = DOCS, steps: Steps = STEPS, seeds: Seeds = 3) -> None:
    """Loss against the size of a head at fixed width."""
    restore(kept, out)
    arms = [f"{kind}:{heads}:rate=0.003" for heads in SIZES for kind in ("multi-head", "talking-heads")]
    settings = _settings(arms, FEW_SEEDS[:seeds], max(1, steps // 4), equal_time=False)
    settings = replace(settings, batch=16, length=128)
    _compare(settings, _corpus(other), out / "sizes", kept / "sizes")


if __name__ == "__main__":
    devices.choose(dtype=DTYPE)
    app()
