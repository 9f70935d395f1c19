"""Accuracy curves of the demo on a terminal, live; lines of the log elsewhere; nothing with --quiet."""

from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..demo import parts
from ..demo.pictures import NAMES
from ..training.recall import Point
from . import volume

_ROWS = 3  # lines of a curve
_LOGS = 4  # lines of the log of a run


class Curves:
    """A demo's `Watch`."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.values: dict[tuple[int, str], list[float]] = {}
        self.said: dict[tuple[int, str], str] = {}
        self.doing = ""
        self.live = Live(console=self.console, refresh_per_second=8) if volume.shows_bars() else None

    def __enter__(self) -> "Curves":
        if self.live:
            self.live.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.live:
            self.doing = ""
            self.live.update(self._table())
            self.live.stop()

    def curve(self, point: Point, steps: int, accuracy: float) -> None:
        place, task = (point.heads, point.kind), parts.TASK
        if steps == parts.EVERY:
            self.values[place] = []
        self.values[place].append(accuracy)
        self.said[place] = f"seed {point.seed}, step {steps}: {accuracy:.2f}"
        if self.live:
            self.live.update(self._table())
        elif steps * _LOGS % task.steps == 0:
            name = f"recall, {NAMES[point.kind]}, {point.heads} x {task.width // point.heads}"
            self.say(f"{name}, seed {point.seed}: step {steps} of {task.steps}, accuracy {accuracy:.3f}")

    def finished(self, point: Point, curve: list[list[float]], accuracy: float) -> None:
        place = point.heads, point.kind
        self.values[place] = [value for _, value in curve]
        self.said[place] = f"seed {point.seed}: {accuracy:.3f}"
        if self.live:
            self.live.update(self._table())

    def say(self, line: str) -> None:
        self.doing = line
        volume.LOGGER.info("%s", line)
        if self.live:
            self.live.update(self._table())

    def _table(self) -> Table:
        """A row a number of heads, a column an arm, a curve in each cell."""
        title = "Associative recall: accuracy while training"
        table = Table(title=title, caption=self.doing, caption_justify="left", box=None, pad_edge=False)
        table.add_column("heads x size", vertical="middle", no_wrap=True)
        for name in NAMES.values():
            table.add_column(name)
        most = max(1, parts.TASK.steps // parts.EVERY)
        width = max(8, min(most, (self.console.width - 18) // 2))
        utf = "utf" in self.console.encoding.lower()
        for heads in parts.HEADS:
            cells = []
            for kind, color in zip(NAMES, ("yellow", "cyan"), strict=True):
                lines = bars(self.values.get((heads, kind), []), most, width, utf)
                cells.append(Text("\n".join(lines), color) + Text("\n" + self.said.get((heads, kind), "")))
            table.add_row(f"{heads} x {parts.TASK.width // heads}", *cells)
        return table


def bars(values: Sequence[float], most: int, width: int, utf: bool = True) -> list[str]:
    """Values from 0 to 1, of which there will be `most`, as bars of _ROWS lines over `width` columns."""
    ramp = " ▁▂▃▄▅▆▇█" if utf else " .:-=+*##"
    every = max(1.0, most / width)
    columns = [values[int(i * every)] for i in range(int(len(values) / every))]
    eighths = [round(8 * _ROWS * min(1.0, max(0.0, x))) for x in columns]
    return [
        "".join(ramp[min(8, max(0, x - 8 * row))] for x in eighths).ljust(width)
        for row in reversed(range(_ROWS))
    ]
