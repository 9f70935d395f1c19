"""What every figure is made with; all are made from results.json alone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...results.charts import plot, save
from ..runs import Results

Make = Callable[[Path, Results], str | None]  # draws to a PNG file, gives its caption; None: nothing to draw


@contextmanager
def figure(
    path: Path, rows: int = 1, columns: int = 1, size: tuple[float, float] = (4.2, 3.4), **options: Any
) -> Iterator[Any]:
    """A grid of axes, [rows, columns], saved to `path` when the block ends."""
    drawn, axes = plot().subplots(
        rows,
        columns,
        figsize=(size[0] * columns, size[1] * rows),
        squeeze=False,
        layout="constrained",
        **options,
    )
    yield axes
    save(drawn, path, dpi=110)


def draw(out: Path, results: Results, figures: dict[str, Make]) -> list[tuple[Path, str]]:
    """Every figure as out/NAME.png, but for those that the results have nothing for."""
    found = []
    for name, make in figures.items():
        path = out / f"{name}.png"
        caption = make(path, results)
        if caption:
            found.append((path, caption))
    return found
