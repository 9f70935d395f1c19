"""Does talking pay? Head counts, single maps, starts, equal parameters and equal cost, at tiny scale.

    python benchmarks/grid.py DATA --out runs/grid
    python benchmarks/grid_results.py runs/grid

DATA is a folder with stsa.binary.train.gz and .test ("label sentence" a line: SST-2). The first tunes the learning
rate for multi-head attention, runs the head counts, then at the best of them the other arms; every finished run is
kept, the same command goes on where it stopped, and several of it share the runs. The second makes the JSON, the
pictures and the section of docs/results.md from the folders alone, and keeps of them what the first can go on from.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Annotated

import typer

from talking_heads.cli.progress import Screen
from talking_heads.results.files import write_json
from talking_heads.results.folders import lock
from talking_heads.results.provenance import provenance
from talking_heads.training.compare import compare, prepare
from talking_heads.training.corpus import state_of_the_union
from talking_heads.training.gather import gather
from talking_heads.training.models import build
from talking_heads.training.settings import Settings
from talking_heads.training.tasks import choose_tasks
from talking_heads.training.timing import step_seconds

SETTINGS = Settings(steps=1600, judged=512, transfer_examples=3200)  # the rest as in the demo
RATES = (1.5e-3, 3e-3, 6e-3)
TUNED = "multi-head:8"
HEADS = (4, 8, 16, 32)
CHOOSING_SEEDS, SEEDS = (0, 1), (0, 1, 2)
DECIDING_SEEDS = (0, 1, 2, 3, 4)


def run(
    data: Annotated[Path, typer.Argument(help="Folder with SST-2.")],
    out: Annotated[Path, typer.Option(help="Folder for the runs.")] = Path("runs/grid"),
) -> None:
    """Whatever of the grid is not there yet."""
    for rate in RATES:  # one run each
        _compare([TUNED], SEEDS[:1], rate, out / f"rate-{rate}", [])
    rate = best_rate(out)
    tasks = [f"{data / 'stsa.binary.train.gz'},{data / 'stsa.binary.test'}"]
    every = ["party", *tasks]
    by_heads = [f"{kind}:{heads}" for heads in HEADS for kind in ("multi-head", "talking-heads")]
    _compare(by_heads, CHOOSING_SEEDS, rate, out / "arms", every)
    heads = best_heads(out)
    deciding = [f"multi-head:{heads}:fused", f"talking-heads:{heads}", equal_cost(out, heads, rate)]
    others = [f"logits-map:{heads}", f"weights-map:{heads}", f"talking-heads:{heads}:random"]
    # What answers most first, should the time end.
    _compare(by_heads, SEEDS, rate, out / "arms", every)
    _compare(deciding, SEEDS, rate, out / "arms", every)
    _compare([*deciding, *others, equal_parameters(heads)], SEEDS, rate, out / "arms", every)
    _compare(deciding, DECIDING_SEEDS, rate, out / "arms", every)


def _compare(arms: Sequence[str], seeds: Sequence[int], rate: float, out: Path, tasks: list[str]) -> None:
    settings = replace(SETTINGS, arms=tuple(arms), seeds=tuple(seeds), learning_rate=rate)
    corpus = state_of_the_union()
    chosen = choose_tasks(corpus, tasks or ["none"], settings.transfer_examples)
    with Screen() as screen:
        compare(settings, corpus, chosen, out, progress=screen.progress, show=screen.show)


def best_rate(out: Path) -> float:
    """The rate with the lowest loss of multi-head attention; the same for every arm."""
    return min(RATES, key=lambda rate: gather([out / f"rate-{rate}"])["arms"][0]["loss"][0])


def best_heads(out: Path) -> int:
    """The head count at which talking heads have the lowest mean loss over the choosing seeds."""
    arms = {arm["name"]: arm for arm in gather([out / "arms"])["arms"]}
    return min(HEADS, key=lambda heads: fmean(arms[f"talking-heads:{heads}"]["loss"][: len(CHOOSING_SEEDS)]))


def equal_parameters(heads: int) -> str:
    """Multi-head attention with at least as many parameters as talking heads have, by a wider feed-forward."""
    width, wanted = SETTINGS.feed_forward, _parameters(f"talking-heads:{heads}")
    while _parameters(f"multi-head:{heads}:fused:ff={width}") < wanted:
        width += 1
    return f"multi-head:{heads}:fused:ff={width}"


def _parameters(arm: str) -> int:
    return sum(x.numel() for x in build(SETTINGS, arm, 0).parameters())


def equal_cost(out: Path, heads: int, rate: float) -> str:
    """Multi-head attention whose step takes as long as talking heads', by a wider feed-forward: measured once.

    Both in this package's operator: as transformers runs T5 (scaled_dot_product_attention with the position bias's
    gradient, which PyTorch does not fuse) multi-head attention takes longer than talking heads do, and the arm would
    be no wider.
    """
    path = out / "equal_cost.json"
    with lock(out):
        if not path.exists():
            widths = [SETTINGS.feed_forward * k for k in (1, 2, 3)]
            fused = [f"multi-head:{heads}:fused:ff={width}" for width in widths]
            arms = (f"talking-heads:{heads}", f"multi-head:{heads}", *fused)
            settings = replace(SETTINGS, arms=arms, learning_rate=rate)
            _, data = prepare(out / "arms", settings, state_of_the_union())
            mean = _mean([step_seconds(settings, seed, data) for seed in range(3)])
            slope = (mean[fused[2]] - mean[fused[0]]) / (widths[2] - widths[0])
            width = widths[0] + max(mean[arms[0]] - mean[fused[0]], 0) / slope
            arm = f"multi-head:{heads}:fused:ff={round(width / 8) * 8}"
            write_json(path, {"arm": arm, "step_seconds": mean} | provenance())
    return str(json.loads(path.read_text())["arm"])


def _mean(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {arm: fmean(times[arm] for times in rounds) for arm in rounds[0]}


if __name__ == "__main__":
    typer.run(run)
