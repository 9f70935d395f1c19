"""What a loss owes to single heads: importance, ablation curves, and how unequal heads are.

Importance is the mean over examples of |dLoss/dgate| at gate 1 (Michel, Levy, Neubig 2019, arXiv:1905.10650;
Sun, Huang, Dai, Chen 2020, arXiv:2009.09672). Unlike code in circulation: absolute values are taken example
by example, gradients start at zero for each batch, and nothing is normalised within layers.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UserError, one_of
from ..results.table import Row, Table
from .gates import Gates, Site, gates, mask
from .losses import Batch, example_losses, examples, in_one_pass, own_loss, size_of
from .modes import eval_mode, frozen
from .record import Progress
from .restart import Restarts, Unknown

Loss = Callable[[nn.Module, Batch], Tensor]  # -> one loss an example
Order = Literal["most", "least", "random"]
ORDERS: tuple[Order, ...] = get_args(Order)
Per = Literal["example", "batch"]


def check_order(order: str) -> None:
    """Raises UserError for an unknown order."""
    if order not in ORDERS:
        raise one_of("order", order, ORDERS)


def draw_importance(path: Path | str | None, table: Table, *, axes: Any = None) -> Any:
    """A heat map of `head_importance`: a line a layer, a column a head.

    Args:
        path: a PNG or SVG to write; None for none. axes: to draw into; default those of a new figure.

    Returns:
        The axes.
    """
    from ..results.charts import grid_of, heat_map, plot, save

    names, grid = grid_of(table.rows, "importance")
    if axes is None:
        size = 1.5 + 0.5 * grid.shape[1], 1 + 0.4 * len(names)
        _, axes = plot().subplots(figsize=size, layout="constrained")
    heat_map(axes, names, grid)
    if path is not None:
        save(axes.figure, path)
    return axes


def head_importance(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    loss: Loss | None = None,
    per: Per = "example",
    site: Site = "output",
    progress: Progress | None = None,
    total: int = 0,
) -> Table:
    """The mean of |dLoss/dgate| at gate 1, for every head. The model runs in eval mode, without dropout.

    Args:
        batches: keyword arguments of the model, with labels.
        loss: (model, batch) -> [batch] losses; default the model's own, see `example_losses`.
        per: "example" takes absolute values example by example (in one backward pass where gates can differ
            between examples; else one example at a time); "batch" of each batch's mean loss, which is
            cheaper and hides what cancels out.
        site: see `gates`.

    Returns:
        Table, a row a head: importance; meta says how it was taken and how unequal it is (`inequality`).
    """
    if per not in get_args(Per):
        raise one_of("per", per, get_args(Per))
    sums: dict[str, Tensor] = {}
    count = done = 0
    with eval_mode(model), frozen(model), gates(model, site) as found:
        measure = _Measure(model, found, loss, per)
        for batch in batches:
            size = size_of(batch)
            for label, gradient in measure(batch).items():
                sums[label] = sums.get(label, 0) + gradient
            count += size if per == "example" else 1
            done += size
            if progress is not None:
                progress(done, total or done, "")
    if not count:
        raise UserError("importance needs examples", "none", "pass batches")
    rows = [
        {"head": f"{label}:{head}", "importance": x / count}
        for label, gradient in sums.items()
        for head, x in enumerate(gradient.tolist())
    ]
    meta = {"importance": f"mean over each {per} of |dLoss/dgate|", "site": site, "examples": done}
    return Table(
        rows, ("head",), "importance", meta | {"inequality": inequality([r["importance"] for r in rows])}
    )


class _Measure:
    """The sum of |dLoss/dgate| over a batch's examples, in one backward pass where that is possible."""

    def __init__(self, model: nn.Module, found: Gates, loss: Loss | None, per: str) -> None:
        self.model, self.found, self.loss, self.per = model, found, loss, per
        # Each example can have gates of its own where a layer's output surely has the batch in front.
        kinds = {layer.kind for layer in found.layers}
        self.one_pass = per == "example" and found.site == "output" and kinds <= {"registry", "own"}

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        if self.per == "batch":
            return self._slopes((self.loss or example_losses)(self.model, batch).mean())
        if self.one_pass:
            self.found.per_example(size_of(batch))
            try:
                losses = (self.loss or in_one_pass)(self.model, batch)
            except (
                RuntimeError,
                UserError,
            ):  # a layer that sees other rows than examples (windows, choices, packed patches)
                losses = None
            if losses is not None:
                return self._slopes(losses.sum())
            self.found.shared()
            self.one_pass = False
        return self._one_by_one(batch)

    def _one_by_one(self, batch: Batch) -> dict[str, Tensor]:
        sums: dict[str, Tensor] = {}
        for row in examples(batch):
            loss = own_loss(self.model, row) if self.loss is None else self.loss(self.model, row).sum()
            for label, slope in self._slopes(loss).items():
                sums[label] = sums.get(label, 0) + slope
        return sums

    def _slopes(self, loss: Tensor) -> dict[str, Tensor]:
        values = self.found.values
        got = torch.autograd.grad(loss, list(values.values()), allow_unused=True)
        return {
            label: torch.zeros(x.shape[-1], dtype=torch.float64)
            if slope is None
            else slope.detach().double().cpu().reshape(-1, x.shape[-1]).abs().sum(0)
            for (label, x), slope in zip(values.items(), got, strict=True)
        }


def inequality(values: Sequence[float], top: Sequence[float] = (0.1, 0.25, 0.5)) -> Row:
    """How unequally importance is spread: variance, coefficient of variation, Gini, shares of the top heads.

    Gini is 0 where all are equal, (n - 1) / n where one head has all. top: shares of the heads, rounded up.
    """
    x = np.sort(np.asarray(values, float))
    total, n = x.sum(), len(x)
    if n == 0 or total <= 0:
        raise UserError("inequality needs values above 0", list(values)[:3], "pass importances")
    gini = float((2 * np.arange(1, n + 1) - n - 1) @ x / (n * total))
    shares = {f"top {share:.0%}": float(x[n - int(np.ceil(share * n)) :].sum() / total) for share in top}
    return {
        "heads": n,
        "mean": float(x.mean()),
        "variance": float(x.var()),
        "coefficient of variation": float(x.std() / x.mean()),
        "gini": gini,
        **shares,
    }


def ablation(
    model: nn.Module,
    judge: Callable[[nn.Module], float],
    ranking: Table,
    *,
    order: str = "most",
    points: int = 12,
    site: Site = "output",
    draws: int = 3,
    seed: int = 0,
    progress: Progress | None = None,
) -> Table:
    """The task's score as more and more heads are masked, in the order of their importance.

    Args:
        judge: model -> score (accuracy, or a loss). ranking: the table of `head_importance`.
        order: "most" important heads first, "least" first, or "random": the mean of `draws` orders by `seed`.
        points: how many steps from no head masked to all of them.

    Returns:
        Table, a row a point: masked (number of heads), share, score; of random orders their range, too.
    """
    check_order(order)
    names = [row["head"] for row in sorted(ranking.rows, key=lambda row: -row["importance"])]
    if order == "least":
        names = names[::-1]
    generator = np.random.default_rng(seed)
    orders = [names]
    if order == "random":
        orders = [[names[i] for i in generator.permutation(len(names))] for _ in range(draws)]
    counts = sorted({round(len(names) * i / points) for i in range(points + 1)})
    rows: list[Row] = []
    for done, count in enumerate(counts, 1):
        scores = []
        for one in orders if 0 < count < len(names) else orders[:1]:
            with mask(model, one[:count], site):
                scores.append(judge(model))
        rows.append({"masked": count, "share": count / len(names), "score": float(np.mean(scores))})
        if order == "random":
            rows[-1]["range"] = [min(scores), max(scores)]
        if progress is not None:
            progress(done, len(counts), f"{count} masked: {rows[-1]['score']:.3f}")
    return Table(rows, ("masked",), "score", {"order": order, "site": site, "seed": seed})


def single_ablations(
    model: nn.Module,
    judge: Callable[[nn.Module], float],
    *,
    restart: bool = True,
    progress: Progress | None = None,
) -> Table:
    """What masking each head alone costs: cost = score with all heads - score without this one.

    The blocks before a masked head are not run again: see `restart`. Where the model or the judge does not allow that
    (one that generates, say), or `judge` is random, the whole model runs for each head, as with restart=False.

    Returns:
        Table, a row a head: cost; meta: score with all heads; restarted: whether blocks were left out, or why not;
        gain: how many times fewer blocks ran than with whole runs.
    """
    with gates(model) as found:
        names = found.names
    try:
        if not restart:
            raise Unknown("not asked for")
        restarts = Restarts(model, judge)
        whole, costs = restarts.score, _restarted(restarts, names, progress)
        gain = (1 + len(names)) * len(restarts.order) / restarts.computed
        how: Row = {"restarted": "from the masked head's block on", "gain": gain}
    except Unknown as why:
        whole = judge(model)
        costs = {}
        for done, name in enumerate(names, 1):
            with mask(model, [name]):
                costs[name] = whole - judge(model)
            if progress is not None:
                progress(done, len(names), "")
        how = {"restarted": f"no: {why}", "gain": 1.0}
    rows = [{"head": name, "cost": costs[name]} for name in names]
    return Table(rows, ("head",), "cost", {"score": whole} | how)


def _restarted(restarts: Restarts, names: list[str], progress: Progress | None) -> dict[str, float]:
    costs: dict[str, float] = {}
    for layer in restarts.layers:
        restarts.at(layer)
        for name in (x for x in names if x.partition(":")[0] == layer):
            with mask(restarts.model, [name]):
                costs[name] = restarts.score - restarts.run()
            if progress is not None:
                progress(len(costs), len(names), "")
    return costs
