"""What single heads are worth to a translation model: unequal importance, BLEU while heads are removed."""

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..heads.importance import ORDERS, ablation, head_importance, inequality, single_ablations
from ..heads.models import random_copy
from ..results.provenance import provenance
from ..results.statistics import paired_difference
from ..results.statistics import summary as over_seeds
from ..results.table import Row, Table
from ..training.devices import device
from .evaluate import about, open_translator
from .names import arm_name, name_of
from .parallel import read_files
from .pieces import encode, to_batch
from .score import bleu
from .search import translate

KEPT = 0.95  # of the BLEU with all heads, for `share_needed`
_SENTENCES = 32  # in a batch of importance
Progress = Callable[[int, int, str], None]


def measure(
    folder: Path,
    source: Path,
    reference: Path,
    *,
    limit: int | None = None,
    rank_limit: int | None = None,
    points: int = 12,
    draws: int = 3,
    singles: bool = True,
    per: Any = "example",
    site: Any = "output",
    seed: int = 0,
    progress: Callable[[str], Progress] = lambda what: lambda done, total, said: None,
) -> dict[str, Any]:
    """Importance of every head, its inequality, and curves of BLEU (without beams) while heads are removed.

    Heads are ranked by |dLoss/dgate| on the sentences after the first `limit`, on which BLEU is taken; where there are
    none, on the same ones ("ranked_on" says so).

    Args:
        limit: sentences for BLEU. rank_limit: sentences for importance. points, draws: see `ablation`.
        singles: also remove each head alone.

    Returns:
        {"model", "importance": rows, "inequality", "untrained": the inequality at random weights, "curves": {order: rows}, "areas", "share_needed", "largest_single_loss",
        "singles": rows, ...}.
    """
    model, tokenizer = open_translator(folder)
    text = read_files(source, reference)
    judged, ranked, ranked_on = _divided(text.source, text.target, limit, rank_limit)
    ids = encode(tokenizer, ranked[0]), encode(tokenizer, ranked[1])

    def importance(network: Any, what: str) -> Table:
        batches = _batches(*ids, network.device)
        return head_importance(
            network, batches, per=per, site=site, progress=progress(what), total=len(ranked[0])
        )

    found = importance(model, "importance")
    untrained = importance(random_copy(model, seed).to(model.device), "importance before training")

    def judge(model: Any) -> float:
        return bleu(translate(model, tokenizer, judged[0], beam=1), judged[1])

    curves = {
        order: ablation(
            model, judge, found, order=order, points=points, site=site, draws=draws, seed=seed,
            progress=progress(f"{order} important first"),
        ).rows
        for order in ORDERS
    }  # fmt: skip
    result: dict[str, Any] = {
        "model": str(folder),
        "run": about(folder),
        "source": str(source),
        "sentences": len(judged[0]),
        "ranked_on": ranked_on,
        "ranked_sentences": len(ranked[0]),
        "per": per,
        "site": site,
        "importance": found.rows,
        "inequality": _spread(found),
        "untrained": _spread(untrained),
        "bleu": curves["least"][0]["score"],
        "curves": curves,
        "areas": {order: area(rows) for order, rows in curves.items()},
        "share_needed": share_needed(curves["least"]),
    }
    if singles:
        costs = single_ablations(model, judge, progress=progress("each head alone"))
        most = max(costs.rows, key=lambda row: row["cost"])
        result |= {"singles": costs.rows, "largest_single_loss": {"head": most["head"], "bleu": most["cost"]}}
    return result | provenance(device())


def _divided(
    source: Sequence[str], target: Sequence[str], limit: int | None, rank_limit: int | None
) -> tuple[tuple[Sequence[str], Sequence[str]], tuple[Sequence[str], Sequence[str]], str]:
    """(sentences for BLEU, sentences for importance, which those are)."""
    judged = source[:limit], target[:limit]
    rest = (source[limit:][:rank_limit], target[limit:][:rank_limit]) if limit is not None else ([], [])
    if rest[0]:
        return judged, rest, "other sentences"
    return judged, (source[:rank_limit], target[:rank_limit]), "the same sentences"


def _spread(importance: Table) -> Row:
    return inequality([row["importance"] for row in importance.rows])


def _batches(source: list[list[int]], target: list[list[int]], where: Any) -> Any:
    order = sorted(range(len(source)), key=lambda i: (len(target[i]), len(source[i])))
    for start in range(0, len(order), _SENTENCES):
        rows = order[start : start + _SENTENCES]
        batch = to_batch([source[i] for i in rows], [target[i] for i in rows])
        yield {name: x.to(where) for name, x in batch.items()}


def area(rows: Sequence[Row]) -> float:
    """The area under a curve of scores over the share of heads removed: the mean score on the way from all to none."""
    pairs = itertools.pairwise(rows)
    return float(sum((b["share"] - a["share"]) * (a["score"] + b["score"]) / 2 for a, b in pairs))


def share_needed(rows: Sequence[Row], kept: float = KEPT) -> float:
    """The share of heads that must stay for `kept` of the score, the least important removed first.

    On the points of the curve: the last one before the score first falls below. NaN for a model without a score.
    """
    if not rows[0]["score"]:
        return math.nan
    removed = 0.0
    for row in rows:
        if row["score"] < kept * rows[0]["score"]:
            break
        removed = row["share"]
    return 1 - removed


def summary(measured: Sequence[dict[str, Any]]) -> Table:
    """A row a model: BLEU, inequality, areas, the share of heads needed, the largest loss from one head."""
    if not measured:
        raise UserError("measures need models", "none", "name a folder")
    rows = []
    for one in measured:
        spread = one["inequality"]
        row = {"model": name_of(one), "BLEU": one["bleu"]}
        row |= {name: spread[name] for name in spread if name not in ("heads", "mean")}
        row["gini, untrained"] = one["untrained"]["gini"]
        row |= {f"area, {order} important first": one["areas"][order] for order in ("most", "least")}
        row |= {"area, random": one["areas"]["random"], "share for 95 %": one["share_needed"]}
        if "largest_single_loss" in one:
            row["largest loss from one head"] = one["largest_single_loss"]["bleu"]
        rows.append(row)
    return Table(rows, ("model",), "BLEU")


_COMPARED = {
    "gini": lambda one: one["inequality"]["gini"],
    "coefficient of variation": lambda one: one["inequality"]["coefficient of variation"],
    "area, most important first": lambda one: one["areas"]["most"],
    "area, least important first": lambda one: one["areas"]["least"],
    "area, random": lambda one: one["areas"]["random"],
    "share for 95 %": lambda one: one["share_needed"],
}


def arms(measured: Sequence[dict[str, Any]]) -> Table:
    """A row a measure and arm: mean and spread over seeds, and the paired difference from the first arm with its 95 % t
    interval (three seeds or more)."""
    seeds: dict[str, dict[Any, dict[str, Any]]] = {}
    for one in measured:
        seeds.setdefault(arm_name(one), {})[one["run"].get("seed")] = one
    first = next(iter(seeds.values()))
    rows = []
    for name, value in _COMPARED.items():
        for arm, found in seeds.items():
            over = over_seeds([_number(value(one)) for one in found.values()])
            row: Row = {"measure": name, "arm": arm, "seeds": len(found), **over}
            pairs = [
                (_number(value(one)), _number(value(first[s]))) for s, one in found.items() if s in first
            ]
            pairs = [pair for pair in pairs if not any(map(math.isnan, pair))]
            if found is not first and pairs:
                apart = paired_difference([mine for mine, _ in pairs], [base for _, base in pairs])
                row |= {"difference": apart["mean"], "interval": apart["interval"]}
            rows.append(row)
    return Table(rows, ("measure", "arm"), "mean")


def _number(value: float | None) -> float:
    """What JSON has as null is not a number."""
    return math.nan if value is None else value
