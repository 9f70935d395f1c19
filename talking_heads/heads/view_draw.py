"""One head of a view as SVG or PNG: its words and their strongest links, or a picture's patches."""

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from .view_data import Panel, Picture, View
from .view_page import links_of


def draw(
    found: View, path: Path | str | None = None, head: str | None = None, links: int = 3, *, axes: Any = None
) -> Any:
    """One head's words and their strongest links, softmax next to mixed.

    Of a picture the attention from its class token to the patches; without one the mean from all patches.

    Args:
        path: an SVG or PNG to write, by its ending; None for none. head: default the one that talking changed most.
        axes: one, or two where heads are mixed after the softmax; default those of a new figure.

    Returns:
        The axes, [1 or 2].
    """
    from ..results.charts import drawing, plot, save

    name = head or found.most_changed()
    panel, layer, number = found.find(name)
    kinds = [("softmax weights", panel.softmax)] + ([("mixed weights", panel.mixed)] if found.talking else [])
    height = 4.2 if found.picture else 0.24 * max(len(panel.queries), len(panel.memories)) + 0.9
    if axes is None:
        size = 4.2 * len(kinds), height
        _, axes = plot().subplots(1, len(kinds), figsize=size, squeeze=False, layout="constrained")
    axes = np.atleast_1d(axes).ravel()
    if len(axes) != len(kinds):
        names = " and ".join(kind for kind, _ in kinds)
        raise UserError(f"axes must be one for each of {names}", f"{len(axes)}", "make as many subplots")
    with drawing("".join([*panel.queries, *panel.memories])):
        for ax, (title, maps) in zip(axes, kinds, strict=True):
            if found.picture:
                _draw_patches(ax, found.picture, f"{name}  {title}", maps[layer, number])
            else:
                _draw(ax, panel, f"{name}  {title}", maps[layer, number], links)
    if path is not None:
        save(axes[0].figure, path, dpi=min(120, int(4000 / height)))  # a long text stays a file one can open
    return axes


def _draw(ax: Any, panel: Panel, title: str, maps: np.ndarray, links: int) -> None:
    memory, weight, _ = links_of(maps[None, None], min(links, len(panel.memories)))
    for query in range(len(panel.queries)):
        for place, w in zip(memory[0, 0, query], weight[0, 0, query] / 127, strict=True):
            if abs(w) > 0.02:
                ax.plot(
                    [0, 1],
                    [query, place],
                    color="#1f6fb4" if w > 0 else "#c62828",
                    alpha=min(1, abs(w)),
                    lw=1 + 2 * abs(w),
                )
    for x, words, side in ((-0.03, panel.queries, "right"), (1.03, panel.memories, "left")):
        for place, word in enumerate(words):
            ax.text(x, place, word, ha=side, va="center", fontsize=9)
    ax.set_title(title, fontsize=10)
    ax.set_xlim(-0.7, 1.7)
    ax.set_ylim(max(len(panel.queries), len(panel.memories)) - 0.5, -0.5)
    ax.axis("off")


def _draw_patches(ax: Any, seen: Picture, title: str, maps: np.ndarray) -> None:
    """A heat map over the picture in grey; of mixed weights the size."""
    row = maps[0] if seen.first else maps.mean(0)
    heat = np.abs(row[seen.patches]).reshape(seen.rows, seen.columns)
    around = (-0.5, seen.columns - 0.5, seen.rows - 0.5, -0.5)
    ax.imshow(seen.pixels.mean(-1), cmap="gray", extent=around)
    ax.imshow(heat, cmap="inferno", alpha=0.6, extent=around, interpolation="nearest")
    ax.set_title(f"{title}, from {'[class]' if seen.first else 'all patches'}", fontsize=9)
    ax.axis("off")
