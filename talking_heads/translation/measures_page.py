"""Pictures and tables of `measures`, one page for all models, before and after HeadMask side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..heads.importance import ORDERS
from ..results import page
from ..results.charts import grid_of, plot, save
from ..results.files import write_json, write_text
from ..results.table import show
from .measures import arms, summary
from .names import name_of

TITLES = {"most": "most important first", "least": "least important first", "random": "random order"}


def notes(measured: Sequence[dict[str, Any]]) -> list[str]:
    first = measured[0]
    return [
        f"BLEU without beams on {first['sentences']} sentences of {first['source']}; importance is the mean over each "
        f"{first['per']} of |dLoss/dgate| on {first['ranked_sentences']} sentences ({first['ranked_on']}), site {first['site']}",
        "areas are the mean BLEU between no and all heads removed; the share for 95 % is that of the heads that stay, "
        "the least important removed first",
    ]


def write_measures(out: Path, measured: Sequence[dict[str, Any]]) -> None:
    """results.json, curves.png, importance.png, sorted.png and report.html."""
    write_json(out / "results.json", {"models": list(measured)})
    pictures = [
        (_curves(out / "curves.png", measured), "BLEU while heads are removed"),
        (_maps(out / "importance.png", measured), "Importance of every head, each model on its own scale"),
        (
            _sorted(out / "sorted.png", measured),
            "Importance of heads, sorted, as a multiple of the model's mean",
        ),
    ]
    table = summary(measured)
    rows = [[show(row.get(c)) for c in table.columns] for row in table.rows]
    blocks = [*map(page.paragraph, notes(measured)), page.table(table.columns, rows, "models")]
    apart = arms(measured)
    blocks.append(
        page.table(apart.columns, [[show(row.get(c)) for c in apart.columns] for row in apart.rows], "arms")
    )
    blocks += [page.picture(path, caption) for path, caption in pictures]
    write_text(out / "report.html", page.page("Heads of translation models", blocks))


def _curves(path: Path, measured: Sequence[dict[str, Any]]) -> Path:
    figure, axes = plot().subplots(1, len(ORDERS), figsize=(13, 4), sharey=True, layout="constrained")
    for ax, order in zip(axes, ORDERS, strict=True):
        for one in measured:
            rows = one["curves"][order]
            ax.plot(
                [row["share"] for row in rows], [row["score"] for row in rows], marker=".", label=name_of(one)
            )
        ax.set_title(TITLES[order])
        ax.set_xlabel("share of heads removed")
    axes[0].set_ylabel("BLEU")
    axes[-1].legend(fontsize=8)
    save(figure, path)
    return path


def _maps(path: Path, measured: Sequence[dict[str, Any]]) -> Path:
    figure, axes = plot().subplots(
        1, len(measured), figsize=(0.5 + 3.6 * len(measured), 4), squeeze=False, layout="constrained"
    )
    for ax, one in zip(axes[0], measured, strict=True):
        names, grid = grid_of(one["importance"], "importance")
        figure.colorbar(ax.imshow(grid, cmap="viridis", aspect="auto", vmin=0), ax=ax)
        ax.set_yticks(range(len(names)), names, fontsize=7)
        ax.set_xlabel("head")
        ax.set_title(name_of(one), fontsize=9)
    save(figure, path)
    return path


def _sorted(path: Path, measured: Sequence[dict[str, Any]]) -> Path:
    figure, axes = plot().subplots(figsize=(7, 4), layout="constrained")
    for one in measured:
        mean = one["inequality"]["mean"]
        values = sorted((row["importance"] / mean for row in one["importance"]), reverse=True)
        axes.plot(range(1, len(values) + 1), values, label=name_of(one))
    axes.set_xlabel("head, by importance")
    axes.set_ylabel("importance / mean")
    axes.legend(fontsize=8)
    save(figure, path)
    return path
