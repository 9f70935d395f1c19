"""Charts, drawn by matplotlib without a screen."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .files import write_bytes
from .table import Table


def plot() -> Any:
    """matplotlib.pyplot, imported when it is first needed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot

    return matplotlib.pyplot


def save(figure: Any, path: Path | str, dpi: int = 120) -> None:
    """Write PNG or SVG, chosen by the suffix of `path`."""
    data = io.BytesIO()
    figure.savefig(data, format=Path(path).suffix.lstrip("."), dpi=dpi)
    plot().close(figure)
    write_bytes(path, data.getvalue())


def grid_of(rows: Sequence[dict[str, Any]], value: str) -> tuple[list[str], np.ndarray]:
    """(layers, [layers, heads]) of rows that have a head "part.layer:head"; NaN where there is no head."""
    names = list(dict.fromkeys(row["head"].partition(":")[0] for row in rows))
    heads = 1 + max(int(row["head"].partition(":")[2]) for row in rows)
    grid = np.full((len(names), heads), np.nan)
    for row in rows:
        layer, _, head = row["head"].partition(":")
        grid[names.index(layer), int(head)] = row[value]
    return names, grid


def heads_by_layer(path: Path | str, table: Table, key: str, groups: Sequence[str]) -> None:
    """A heat map for each group (a relation, a label): layers downwards, heads to the right."""
    columns = min(4, len(groups))
    lines = -(-len(groups) // columns)
    figure, axes = plot().subplots(
        lines, columns, figsize=(3.2 * columns, 2.6 * lines), squeeze=False, layout="constrained"
    )
    for ax in axes.flat[len(groups) :]:
        ax.axis("off")
    for ax, group in zip(axes.flat, groups, strict=False):
        names, grid = grid_of([row for row in table.rows if row[key] == group], table.value)
        image = ax.imshow(
            grid, vmin=0, vmax=max(0.01, np.nanmax(grid, initial=0)), cmap="viridis", aspect="auto"
        )
        ax.set_title(group, fontsize=10)
        ax.set_yticks(range(len(names)), names, fontsize=6)
        ax.set_xticks(range(grid.shape[1]), range(grid.shape[1]), fontsize=6)  # type: ignore[arg-type]
        figure.colorbar(image, ax=ax)
    save(figure, path)
