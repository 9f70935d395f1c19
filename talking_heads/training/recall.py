"""Associative recall: where do small heads need to talk?

A memory holds pairs of a key and a value, each pair one position; a query names a key, and the model must give its
value. A head of size d can tell d directions of keys apart; therefore many small heads fail where few large ones succeed;
heads that talk add up their scores before the softmax. `diagram` draws the border: accuracy over the number of pairs
and of heads, at a fixed width, with and without talking.
"""

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..functional import talking_heads_attention
from ..nn import HeadMixing
from ..results import folders, page
from ..results.charts import plot, save
from ..results.files import write_json, write_text
from ..results.progress import Progress, expect, silent
from ..results.provenance import provenance
from ..results.schema import read_json
from ..results.statistics import summary
from .devices import device, refuse_torchrun
from .gather import Results

KINDS = {"multi-head": False, "talking-heads": True}
_JUDGED = 4096  # queries that a trained model is judged on
_WATCHED = 512  # while it trains
SOLVED = 0.9  # accuracy at which a number of pairs counts as recalled


@dataclass(frozen=True)
class Task:
    """What is to be recalled, and how it is learned. Keys of a memory are different; values are any."""

    keys: int = 64
    values: int = 64
    width: int = 32
    layers: int = 1
    steps: int = 1000
    batch: int = 128
    rate: float = 3e-3

    def __post_init__(self) -> None:
        for name, least in (
            ("keys", 2),
            ("values", 2),
            ("width", 1),
            ("layers", 1),
            ("steps", 1),
            ("batch", 1),
        ):
            if getattr(self, name) < least:
                raise UserError(f"{name} must be at least {least}", getattr(self, name), "give more")
        if not 0 < self.rate < math.inf:
            raise UserError("rate must be a positive number", self.rate, "give one, as 3e-3")


@dataclass(frozen=True)
class Point:
    """A run of the diagram."""

    kind: str
    pairs: int
    heads: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.heads}-heads-{self.pairs}-pairs-seed-{self.seed}"


class Attention(nn.Module):
    """One attention layer without biases; its maps start as the identity."""

    def __init__(self, width: int, heads: int, talks: bool) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.output = (
            nn.Linear(width, width, bias=False) for _ in range(4)
        )
        for layer in (self.query, self.key, self.value, self.output):
            nn.init.normal_(layer.weight, std=width**-0.5)
        self.mixing = HeadMixing(heads, logits_mix=talks, weights_mix=talks)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """x [batch, queries, width], memory [batch, positions, width]."""
        split = lambda y: y.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # noqa: E731
        query, key, value = split(self.query(x)), split(self.key(memory)), split(self.value(memory))
        maps = self.mixing.logits_mix, self.mixing.weights_mix
        heads = talking_heads_attention(
            query, key, value, *maps, backend="reference"
        )  # the fastest at this size
        mixed: Tensor = self.output(heads.transpose(1, 2).flatten(2))
        return mixed


class Recall(nn.Module):
    """Pairs attend to one another in all layers but the last, in which the query attends to them."""

    def __init__(self, task: Task, heads: int, talks: bool) -> None:
        super().__init__()
        self.keys, self.queries = nn.Embedding(task.keys, task.width), nn.Embedding(task.keys, task.width)
        self.values = nn.Embedding(task.values, task.width)
        self.layers = nn.ModuleList(Attention(task.width, heads, talks) for _ in range(task.layers))
        self.output = nn.Linear(task.width, task.values, bias=False)
        nn.init.normal_(self.output.weight, std=task.width**-0.5)

    def forward(self, keys: Tensor, values: Tensor, query: Tensor) -> Tensor:
        """Logits [batch, values]: keys and values [batch, pairs], query [batch]."""
        memory = self.keys(keys) + self.values(values)
        for layer in list(self.layers)[:-1]:
            memory = memory + layer(memory, memory)
        logits: Tensor = self.output(self.layers[-1](self.queries(query)[:, None], memory)[:, 0])
        return logits


def examples(
    task: Task, pairs: int, count: int, draw: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(keys, values [count, pairs], query, answer [count])."""
    keys = torch.rand(count, task.keys, generator=draw).argsort(1)[:, :pairs]
    values = torch.randint(task.values, (count, pairs), generator=draw)
    asked = torch.randint(pairs, (count, 1), generator=draw)
    return keys, values, keys.gather(1, asked)[:, 0], values.gather(1, asked)[:, 0]


def train(
    task: Task, point: Point, step: Callable[[int, Callable[[], float]], None] = lambda done, right: None
) -> tuple[Recall, float]:
    """Trains the point's model: (the model, its share of right answers on new memories).

    step: called with the number of steps done and a function that gives the share of right answers so far, on further
        memories; no figure depends on it.
    """
    torch.manual_seed(point.seed)
    model = Recall(task, point.heads, KINDS[point.kind]).to(device())
    optimizer = torch.optim.Adam(model.parameters(), lr=task.rate)
    draw = torch.Generator().manual_seed(point.seed)
    watched = examples(task, point.pairs, _WATCHED, torch.Generator().manual_seed(2**31 + point.seed))
    for done in range(task.steps):
        *given, answer = (x.to(device()) for x in examples(task, point.pairs, task.batch, draw))
        nn.functional.cross_entropy(model(*given), answer).backward()
        optimizer.step()
        optimizer.zero_grad()
        step(done + 1, lambda: _share_right(model, watched))
    return model, _share_right(model, examples(task, point.pairs, _JUDGED, draw))


@torch.no_grad()
def _share_right(model: Recall, asked: tuple[Tensor, Tensor, Tensor, Tensor]) -> float:
    *given, answer = (x.to(device()) for x in asked)
    return (model(*given).argmax(-1) == answer).float().mean().item()


def diagram(
    task: Task,
    pairs: Sequence[int],
    heads: Sequence[int],
    seeds: Sequence[int],
    out: Path,
    progress: Progress = silent,
) -> Results:
    """Runs the points that `out` does not hold yet; writes results.json, a picture and report.html there.

    Several processes of the same command share the points; a killed one loses the point it was at.

    Returns:
        {"task", "points": [{"kind", "pairs", "heads", "seed", "accuracy", "seconds", provenance}]}

    Raises:
        UserError: counts that do not fit, or a folder of another task.
    """
    refuse_torchrun()
    _check(task, pairs, heads, seeds)
    _claim(out, task)
    points = [Point(*x) for x in itertools.product(KINDS, pairs, heads, seeds)]
    points.sort(key=lambda point: seeds.index(point.seed))  # an early stop leaves whole diagrams
    expect(progress, len(points))
    for wait in (False, True):
        for point in points:
            path = out / "points" / f"{point.name}.json"
            with folders.lock(path.parent, point.name, wait=wait) as mine:
                if mine and not path.exists():
                    found = _run(task, point, progress)
                    write_json(path, asdict(point) | found | provenance(device()))
                elif mine and not wait:
                    progress(point.name, 1, 1, "")  # kept from before
    with folders.lock(out):
        every = [read_json(path) for path in sorted((out / "points").glob("*.json"))]
        results = {"task": asdict(task), "points": every}
        write_json(out / "results.json", results)
        _write_page(out, results)
    return results


def _run(task: Task, point: Point, progress: Progress) -> Results:
    start = time.perf_counter()
    found = train(task, point, lambda done, right: progress(point.name, done, task.steps, ""))[1]
    progress(point.name, task.steps, task.steps, f"accuracy {found:.3f}")
    return {"accuracy": found, "seconds": round(time.perf_counter() - start, 2)}


def _check(task: Task, pairs: Sequence[int], heads: Sequence[int], seeds: Sequence[int]) -> None:
    for count in pairs:
        if not 1 <= count <= task.keys:
            raise UserError(
                f"pairs must be from 1 to the {task.keys} keys", count, "give fewer, or more --keys"
            )
    for count in heads:
        if count < 1 or task.width % count:
            raise UserError(f"heads must divide the width, {task.width}", count, "choose other heads")
    for name, values in (("--pairs", pairs), ("--heads", heads), ("--seeds", seeds)):
        if not values or len(set(values)) < len(values):
            raise UserError(f"{name} must be different numbers, one or more", list(values), "name each once")


def _claim(out: Path, task: Task) -> None:
    path = out / "task.json"
    folders.claim(out, "recall", known=_is_task(path))
    with folders.lock(out):
        if path.exists() and read_json(path) != asdict(task):
            raise UserError(
                "a results folder must hold the same task", f"another in {out}", "name another with --out"
            )
        write_json(path, asdict(task))


def _is_task(path: Path) -> bool:
    """Whether a folder without a marker, of an earlier version, holds a task."""
    try:
        read_json(path, dict.fromkeys(asdict(Task()), (int, float)))
    except (OSError, UserError):
        return False
    return True


def table(results: Results) -> list[dict[str, Any]]:
    """A row a kind, number of pairs and of heads: {"kind", "pairs", "heads", "size", "accuracies", "mean", "spread"}."""
    found: dict[tuple[str, int, int], list[float]] = {}
    for point in results["points"]:
        found.setdefault((point["kind"], point["pairs"], point["heads"]), []).append(point["accuracy"])
    width = results["task"]["width"]
    order = sorted(found, key=lambda x: (x[1], -x[2], x[0]))
    return [
        {
            "kind": kind,
            "pairs": pairs,
            "heads": heads,
            "size": width // heads,
            "accuracies": found[x],
            **summary(found[x]),
        }
        for x in order
        for kind, pairs, heads in [x]
    ]


def lines(results: Results) -> list[str]:
    """The table in Markdown: a row a number of pairs and heads, a column a kind."""
    by_place: dict[tuple[int, int], dict[str, Results]] = {}
    for row in table(results):
        by_place.setdefault((row["pairs"], row["heads"]), {})[row["kind"]] = row
    width = results["task"]["width"]
    found = [
        f"| pairs | heads x size | {' | '.join(KINDS)} | seeds |",
        "|---:|---:|" + "---:|" * (len(KINDS) + 1),
    ]
    for (pairs, heads), kinds in by_place.items():
        cells = [_cell(kinds[kind]) if kind in kinds else "-" for kind in KINDS]
        seeds = max(len(row["accuracies"]) for row in kinds.values())
        found.append(f"| {pairs} | {heads} x {width // heads} | {' | '.join(cells)} | {seeds} |")
    return found


def _cell(row: Results) -> str:
    spread = "" if row["spread"] is None else f" ± {row['spread']:.3f}"
    return f"{row['mean']:.3f}{spread}"


def _write_page(out: Path, results: Results) -> None:
    rows = table(results)
    pairs, sizes = (sorted({row[name] for row in rows}) for name in ("pairs", "size"))
    figure, grid = plot().subplots(1, len(KINDS), figsize=(8, 3.6), sharey=True, layout="constrained")
    for axes, kind in zip(grid, KINDS, strict=True):
        mean = {(row["pairs"], row["size"]): row["mean"] for row in rows if row["kind"] == kind}
        values = [[mean.get((count, size), float("nan")) for size in sizes] for count in pairs]
        image = axes.imshow(values, vmin=0, vmax=1, cmap="viridis", origin="lower", aspect="auto")
        for (y, count), (x, size) in itertools.product(enumerate(pairs), enumerate(sizes)):
            if (count, size) in mean:
                value = mean[count, size]
                weight = "bold" if value >= SOLVED else "normal"
                color = "black" if value > 0.6 else "white"
                axes.text(x, y, f"{value:.2f}", ha="center", va="center", color=color, weight=weight)
        axes.set_xticks(range(len(sizes)), [str(size) for size in sizes])
        axes.set_yticks(range(len(pairs)), [str(count) for count in pairs])
        axes.set_xlabel(f"size of a head (width {results['task']['width']})")
        axes.set_title(kind)
    grid[0].set_ylabel("pairs")
    figure.colorbar(image, ax=grid, label="accuracy")
    save(figure, out / "recall.png")
    said = f"Mean accuracy over seeds; {SOLVED} or more in bold"
    names = ["kind", "pairs", "heads", "size", "accuracy", "seeds"]
    cells = [
        [
            row["kind"],
            *(str(row[name]) for name in ("pairs", "heads", "size")),
            _cell(row),
            str(len(row["accuracies"])),
        ]
        for row in rows
    ]
    blocks = [
        page.picture(out / "recall.png", said),
        page.table(names, cells, "Accuracy on new memories"),
        page.paragraph(
            f"Chance among the values is {1 / results['task']['values']:.3f}. Task: {results['task']}."
        ),
    ]
    write_text(out / "report.html", page.page("Where do small heads need to talk?", blocks))


def border(results: Results) -> dict[str, dict[int, int]]:
    """{kind: {size of a head: the most pairs that are recalled}}, of those tried; 0: none."""
    found: dict[str, dict[int, int]] = {kind: {} for kind in KINDS}
    for row in table(results):
        most = found[row["kind"]].setdefault(row["size"], 0)
        if fmean(row["accuracies"]) >= SOLVED:
            found[row["kind"]][row["size"]] = max(most, row["pairs"])
    return found
