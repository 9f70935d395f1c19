"""Charts, drawn by matplotlib without a screen and without pyplot, whose state belongs to the user.

Functions that draw take matplotlib's axes to draw into, or make a figure of their own, and return the axes.
"""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .files import write_bytes
from .table import Table


class plot:
    """`plot().subplots(...)` as of matplotlib.pyplot, of a figure that pyplot does not know."""

    def subplots(self, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Any, Any]:
        """(figure, axes); figsize and layout are the figure's options, all others those of its subplots."""
        from matplotlib.figure import Figure

        own = {name: options.pop(name) for name in ("figsize", "layout", "dpi") if name in options}
        with drawing():
            figure = Figure(**own)
            return figure, figure.subplots(rows, columns, **options)


@contextmanager
def drawing(text: str = "") -> Iterator[None]:
    """Texts drawn inside are taken as they are: `$` is a dollar, and letters have fonts that have them.

    text: what will be drawn, where it may have letters of any language.
    """
    from matplotlib import rc_context

    from .fonts import families

    given: dict[str, Any] = {"text.parse_math": False, "svg.fonttype": "none"}
    if not text.isascii():
        given["font.family"] = families(text)
    with rc_context(given):
        yield


def save(figure: Any, path: Path | str, dpi: int = 120) -> None:
    """Write PNG or SVG, chosen by the suffix of `path`."""
    data = io.BytesIO()
    with drawing(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # `fonts` names them all at once
        figure.savefig(data, format=Path(path).suffix.lstrip("."), dpi=dpi)
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


def heads_by_layer(
    path: Path | str | None, table: Table, key: str, groups: Sequence[str], *, axes: Any = None
) -> Any:
    """A heat map for each group (a relation, a label): layers downwards, heads to the right.

    Args:
        path: a PNG or SVG to write; None for none. axes: one for each group; default those of a new figure.

    Returns:
        The axes, [groups].
    """
    columns = max(1, min(4, len(groups)))
    lines = max(1, -(-len(groups) // columns))
    if axes is None:
        _, axes = plot().subplots(
            lines, columns, figsize=(3.2 * columns, 2.6 * lines), squeeze=False, layout="constrained"
        )
    axes = np.atleast_1d(axes).ravel()
    for ax in axes[len(groups) :]:
        ax.axis("off")
    for ax, group in zip(axes, groups, strict=False):
        names, grid = grid_of([row for row in table.rows if row[key] == group], table.value)
        with drawing(group):
            heat_map(ax, names, grid, vmax=max(0.01, np.nanmax(grid, initial=0)), size=6)
            ax.set_title(group, fontsize=10)
    if path is not None and len(axes):
        save(axes[0].figure, path)
    return axes[: len(groups)]


def heat_map(
    ax: Any, names: Sequence[str], grid: np.ndarray, *, vmax: float | None = None, size: int = 9
) -> None:
    """A heat map of heads with its colour bar: a line a layer, a column a head."""
    image = ax.imshow(grid, vmin=0, vmax=vmax, cmap="viridis", aspect="auto")
    ax.set_yticks(range(len(names)), names, fontsize=size)
    ax.set_xticks(range(grid.shape[1]), range(grid.shape[1]), fontsize=size)
    ax.set_xlabel("head", fontsize=size)
    ax.figure.colorbar(image, ax=ax)
