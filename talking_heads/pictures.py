"""Pictures, with matplotlib and without a screen."""

import io
from pathlib import Path
from typing import Any

from .files import write_bytes


def plot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot

    return matplotlib.pyplot


def save(figure: Any, path: Path | str, dpi: int = 120) -> None:
    """PNG or SVG by the path's ending, written whole."""
    data = io.BytesIO()
    figure.savefig(data, format=Path(path).suffix.lstrip("."), dpi=dpi)
    plot().close(figure)
    write_bytes(path, data.getvalue())
