"""`talking-heads importance`, `ablate` and `prune`: how much heads matter to a task."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import Device, Dtype, Json, Limit, Model, Out, Seed

Data = Annotated[Path, typer.Argument(help="The task's examples: .tsv, .csv, .jsonl, or lines 'label text'.")]
Text = Annotated[str | None, typer.Option("--text-column", help="Column of the (first) text.")]
Pair = Annotated[
    str | None, typer.Option("--pair-column", help="Column of the second text; none: there is none.")
]
Label = Annotated[str | None, typer.Option("--label-column", help="Column of the label (or target text).")]
Batch = Annotated[int, typer.Option(min=1, help="Examples in each batch.")]
Per = Annotated[str, typer.Option(help="example, or batch (cheaper, but gradients of opposite sign cancel).")]
Site = Annotated[str, typer.Option(help="output, or softmax (before weights_mix).")]

_IMPORTANCE, _ABLATION = "Importance of heads", "Ablation of heads"


def add(app: typer.Typer) -> None:
    app.command()(importance)
    app.command()(ablate)
    app.command()(prune)


def importance(
    model: Model,
    data: Data,
    text: Text = None,
    pair: Pair = None,
    label: Label = None,
    limit: Limit = None,
    batch: Batch = 32,
    device: Device = "cpu",
    dtype: Dtype = None,
    per: Per = "example",
    site: Site = "output",
    json: Json = None,
    out: Out = None,
) -> None:
    """How much each head matters to a task: the mean of |dLoss/dgate|, and how unequal heads are.

    MODEL is a sequence classifier or an encoder-decoder.

    Example: talking-heads importance sst2-model dev.tsv --out importance
    """
    from ..results.table import Table
    from .show import give, options_line, places

    places(_IMPORTANCE, json, out)
    opened = {"limit": limit, "batch": batch, "device": device, "dtype": dtype}
    task = _open(model, data, text, pair, label, opened)
    table = _ranking(task, per, site)
    rows = sorted(table.rows, key=lambda row: -row["importance"])
    spread = Table([table.meta["inequality"]], ("heads",), "gini")
    notes = [options_line({k: v for k, v in table.meta.items() if k != "inequality"})]
    shown = [("heads by importance", Table(rows, ("head",), "importance")), ("inequality", spread)]
    give(
        table.to_dict() | {"model": model, "data": data}, shown, notes, title=_IMPORTANCE, json=json, out=out,
        pictures=lambda folder: _map(folder, table),
    )  # fmt: skip


def ablate(
    model: Model,
    data: Data,
    order: Annotated[str, typer.Option(help="most, least (important first), random, or all three.")] = "all",
    points: Annotated[int, typer.Option(min=1, help="Number of steps from no masked head to all.")] = 12,
    rank_on: Annotated[
        Path | None, typer.Option(help="Rank heads on these examples; default: on DATA.")
    ] = None,
    text: Text = None,
    pair: Pair = None,
    label: Label = None,
    limit: Limit = None,
    batch: Batch = 32,
    device: Device = "cpu",
    dtype: Dtype = None,
    per: Per = "example",
    site: Site = "output",
    seed: Seed = 0,
    json: Json = None,
    out: Out = None,
) -> None:
    """Accuracy as heads are masked one after another: most important first, least important first, or at random.

    Example: talking-heads ablate sst2-model dev.tsv --order all --out ablation
    """
    from ..heads.importance import ORDERS, ablation, check_order
    from ..results.table import Table
    from .progress import bar
    from .show import give, options_line, places

    orders: Any = ORDERS if order == "all" else (order,)
    places_of: Any = site  # checked there
    for name in orders:
        check_order(name)
    places(_ABLATION, json, out)
    opened = {"limit": limit, "batch": batch, "device": device, "dtype": dtype}
    task = _open(model, data, text, pair, label, opened)
    ranked = task if rank_on is None else _open(model, rank_on, text, pair, label, opened)
    ranking = _ranking(ranked, per, site)
    curves = {}
    for name in orders:
        with bar(f"{name} important first") as progress:
            curves[name] = ablation(
                task.model,
                task.score,
                ranking,
                order=name,
                points=points,
                site=places_of,
                seed=seed,
                progress=progress,
            )
    first = next(iter(curves.values()))
    rows = [
        {"masked": row["masked"], **{name: curve.rows[i]["score"] for name, curve in curves.items()}}
        for i, row in enumerate(first.rows)
    ]
    if "random" in curves:
        for row, drawn in zip(rows, curves["random"].rows, strict=True):
            row["random, range"] = drawn["range"]
    options = {
        "ranked on": str(rank_on or data),
        "examples": len(task),
        "per": per,
        "site": site,
        "seed": seed,
        "random": "mean of 3 orders",
    }
    result = {"model": model, "data": data, "options": options, "rows": rows, "importance": ranking.rows}
    give(
        result, [("accuracy with heads masked", Table(rows, ("masked",), next(iter(curves))))],
        [options_line(options)], title=_ABLATION, json=json, out=out,
        pictures=lambda folder: _curves(folder, rows, list(curves)),
    )  # fmt: skip


def prune(
    model: Model,
    data: Data,
    folder: Annotated[Path | None, typer.Argument(help="New folder for the pruned model, or --out.")] = None,
    keep: Annotated[float, typer.Option(help="Share of the heads to keep.")] = 0.6,
    text: Text = None,
    pair: Pair = None,
    label: Label = None,
    limit: Limit = None,
    batch: Batch = 32,
    device: Device = "cpu",
    dtype: Dtype = None,
    per: Per = "example",
    out: Annotated[Path | None, typer.Option(help="New folder for the pruned model.", metavar="DIR")] = None,
    json: Json = None,
) -> None:
    """Permanently remove the heads that matter least to a task, and save the smaller model.

    If the config can express it (T5), the result is a plain transformers model. Otherwise config.json lists the heads
    kept, and talking_heads.heads.load_pruned (or any command here) opens it.

    Example: talking-heads prune sst2-model dev.tsv smaller --keep 0.6
    """
    from ..errors import UserError
    from ..heads.prune import KEY, check_share, save
    from ..heads.prune import prune as cut
    from ..hf.source import quiet
    from ..results import folders
    from ..results.table import Table
    from .show import give, new_folder, places

    out = new_folder(out, folder)
    check_share(keep)
    places("", json, None)
    folders.check_place(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError("the folder to write must be new or empty", out, "name another folder")
    opened = {"limit": limit, "batch": batch, "device": device, "dtype": dtype}
    task = _open(model, data, text, pair, label, opened)
    table = _ranking(task, per, "output")
    before = task.score(), sum(p.numel() for p in task.model.parameters())
    kept = cut(task.model, table, keep)
    after = task.score(), sum(p.numel() for p in task.model.parameters())
    with quiet():
        save(task.model, task.tokenizer, out)
    plain = not hasattr(task.model.config, KEY)
    rows = [
        {"model": name, "heads": heads, "parameters": size, "accuracy": score}
        for name, heads, (score, size) in (
            ("before", len(table.rows), before),
            ("pruned", sum(map(len, kept.values())), after),
        )
    ]
    how = "transformers' from_pretrained" if plain else "talking_heads.heads.load_pruned"
    result = {"model": model, "data": data, "keep": keep, "kept": kept, "plain": plain, "rows": rows}
    notes = [f"{out} loads with {how}"]
    give(
        result,
        [("before and after", Table(rows, ("model",), "accuracy"))],
        notes,
        title="",
        json=json,
        out=None,
    )


def _open(
    model: str, data: Path, text: str | None, pair: str | None, label: str | None, given: dict[str, Any]
) -> Any:
    from ..heads.task import open_task

    return open_task(model, data, **given, text=text, pair=pair, label=label)


def _ranking(task: Any, per: Any, site: Any) -> Any:
    from ..heads.importance import head_importance
    from .progress import bar

    with bar("importance: examples") as progress:
        return head_importance(
            task.model, task.batches(), per=per, site=site, progress=progress, total=len(task)
        )


def _map(folder: Path, table: Any) -> list[tuple[Path, str]]:
    from ..heads.importance import draw_importance

    path = folder / "importance.png"
    draw_importance(path, table)
    return [(path, "Importance of every head")]


def _curves(folder: Path, rows: list[dict[str, Any]], names: list[str]) -> list[tuple[Path, str]]:
    from ..results.charts import plot, save

    figure, axes = plot().subplots(figsize=(7, 4), layout="constrained")
    for name in names:
        label = "random order" if name == "random" else f"{name} important first"
        axes.plot([r["masked"] for r in rows], [r[name] for r in rows], marker="o", label=label)
    axes.set_xlabel("heads masked")
    axes.set_ylabel("accuracy")
    axes.legend()
    path = folder / "ablation.png"
    save(figure, path)
    return [(path, "Accuracy as heads are masked")]
