"""What a loss owes to single heads: importance, ablation curves, and how unequal heads are.

Importance is the mean over examples of |dLoss/dgate| at gate 1 (Michel, Levy, Neubig 2019, arXiv:1905.10650;
Sun, Huang, Dai, Chen 2020, arXiv:2009.09672). Unlike code in circulation: absolute values are taken example
by example, gradients start at zero for each batch, and nothing is normalised within layers.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UserError
from ..results.table import Row, Table
from .gates import Gates, gates, mask
from .record import Progress

Batch = dict[str, Tensor]
Loss = Callable[[nn.Module, Batch], Tensor]  # -> one loss an example
ORDERS = ("most", "least", "random")


def check_order(order: str) -> None:
    if order not in ORDERS:
        raise UserError(f"order must be one of {', '.join(ORDERS)}", order, "name one")


def example_losses(model: Any, batch: Batch) -> Tensor:
    """[batch]: each example's own loss, as transformers' models define it for a batch of one.

    Classes: cross entropy; numbers (one output): squared error; tokens: the mean cross entropy over the
    labels that are not -100, shifted by one for causal language models.

    Raises:
        UserError: labels of another kind.
    """
    labels = batch["labels"]
    logits = model(
        **{name: x for name, x in batch.items() if name != "labels"} | _decoder_side(model, batch)
    ).logits
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if labels.dim() == 1 and logits.dim() == 2:
        if logits.shape[1] == 1:
            return (logits[:, 0] - labels.to(logits)).pow(2)
        if not labels.is_floating_point():
            return nn.functional.cross_entropy(logits, labels, reduction="none")
    if labels.dim() == 2 and logits.dim() == 3:
        if type(model).__name__.endswith(("ForCausalLM", "LMHeadModel")):
            logits, labels = logits[:, :-1], labels[:, 1:]
        losses = nn.functional.cross_entropy(
            logits.transpose(1, 2), labels, reduction="none", ignore_index=-100
        )
        return losses.sum(1) / (labels != -100).sum(1).clamp(min=1)
    raise UserError(
        "labels must be classes, numbers or tokens",
        f"labels {list(labels.shape)} for logits {list(logits.shape)}",
        "pass loss=, a function (model, batch) -> one loss an example",
    )


def _decoder_side(model: Any, batch: Batch) -> Batch:
    """What an encoder-decoder makes of labels by itself."""
    if "labels" not in batch or "decoder_input_ids" in batch or batch["labels"].dim() != 2:
        return {}
    make = getattr(model, "prepare_decoder_input_ids_from_labels", None)
    return {} if make is None else {"decoder_input_ids": make(labels=batch["labels"])}


def head_importance(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    loss: Loss | None = None,
    per: str = "example",
    site: str = "output",
    progress: Progress | None = None,
    total: int = 0,
) -> Table:
    """The mean of |dLoss/dgate| at gate 1, for every head. The model runs in eval mode, without dropout.

    Args:
        batches: keyword arguments of the model, with labels.
        loss: (model, batch) -> [batch] losses; default `example_losses`.
        per: "example" takes absolute values example by example (in one backward pass where gates can differ
            between examples; else one example at a time); "batch" of each batch's mean loss, which is
            cheaper and hides what cancels out.
        site: see `gates`.

    Returns:
        Table, a row a head: importance; meta says how it was taken and how unequal it is (`inequality`).
    """
    if per not in ("example", "batch"):
        raise UserError('per must be "example" or "batch"', per, "name one")
    loss = loss or example_losses
    was_training, before = model.training, [(p, p.requires_grad) for p in model.parameters()]
    model.eval()
    for p, _ in before:
        p.requires_grad_(False)
    sums: dict[str, Tensor] = {}
    count = done = 0
    try:
        with gates(model, site) as found:
            for batch in batches:
                size = len(next(iter(batch.values())))
                for part in _parts(batch, size, per, found):
                    for label, gradient in _gradients(model, part, loss, per, found).items():
                        sums[label] = sums.get(label, 0) + gradient
                count += size if per == "example" else 1
                done += size
                if progress is not None:
                    progress(done, total or done, "")
    finally:
        model.train(was_training)
        for p, needed in before:
            p.requires_grad_(needed)
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


def _parts(batch: Batch, size: int, per: str, found: Gates) -> Iterable[Batch]:
    if per == "batch" or _one_pass(found):
        return [batch]
    return [{name: x[i : i + 1] for name, x in batch.items()} for i in range(size)]


def _one_pass(found: Gates) -> bool:
    """Whether each example can have gates of its own: where the layer's output surely is batch first."""
    return found.site == "output" and all(layer.kind in ("registry", "own") for layer in found.layers)


def _gradients(model: nn.Module, batch: Batch, loss: Loss, per: str, found: Gates) -> dict[str, Tensor]:
    size = len(next(iter(batch.values())))
    if per == "example" and _one_pass(found):
        found.per_example(size)
        losses = loss(model, batch).sum()
    else:
        losses = loss(model, batch).mean()
    values = list(found.values.values())
    got = torch.autograd.grad(losses, values, allow_unused=True)
    return {
        label: torch.zeros(x.shape[-1], dtype=torch.float64)
        if gradient is None
        else gradient.detach().double().cpu().reshape(-1, x.shape[-1]).abs().sum(0)
        for (label, x), gradient in zip(found.values.items(), got, strict=True)
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
    site: str = "output",
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
    model: nn.Module, judge: Callable[[nn.Module], float], *, progress: Progress | None = None
) -> Table:
    """What masking each head alone costs: cost = score with all heads - score without this one."""
    with gates(model) as found:
        names = found.names
    whole = judge(model)
    rows = []
    for done, name in enumerate(names, 1):
        with mask(model, [name]):
            rows.append({"head": name, "cost": whole - judge(model)})
        if progress is not None:
            progress(done, len(names), "")
    return Table(rows, ("head",), "cost", {"score": whole})
