"""Progress of long work: bars on a terminal, one a level; lines of the log elsewhere; nothing with --quiet.

A level is a list of descriptions from the outside in: the comparison, its runs, the steps of a run.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from ..results.output import Output
from ..results.table import Table
from . import volume

LINE_SECONDS = 30.0  # between two lines of the log
_WINDOW = 20  # reports that the pace of a run is taken from


class Pace:
    """How long the present run and all runs still take, from what was reported so far.

    A run is known by its name; when its count falls or its total changes (another phase of it) its pace starts
    again. Runs that come with everything done (kept from an earlier command) take no time and do not count.

    Args:
        runs: how many there will be. clock: seconds, for tests.
    """

    def __init__(self, runs: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        self.runs, self.clock = runs, clock
        self.run, self.done, self.total = "", 0, 0
        self.finished = 0  # runs that took time, before the present one
        self._closed: set[str] = set()
        self.spent = 0.0  # seconds of the finished ones
        self._began = self._last = clock()
        self._points: list[tuple[float, int]] = []  # of the present phase

    def report(self, run: str, done: int, total: int) -> bool:
        """Takes a report; whether it is of another run than the one before."""
        now = self.clock()
        is_new = run != self.run
        if is_new:
            self._close()
            self.run, self._began = run, self._last
        if is_new or done < self.done or total != self.total:
            self._points = []
        self.done, self.total, self._last = done, total, now
        self._points = [*self._points[-_WINDOW:], (now, done)]
        return is_new

    def _close(self) -> None:
        if not self.run or self.run in self._closed:
            return
        self._closed.add(self.run)
        if len(self._points) > 1 or self.done < self.total:
            self.finished += 1
            self.spent += self._last - self._began

    @property
    def number(self) -> int:
        """Runs before the present one."""
        return len(self._closed - {self.run})

    @property
    def in_run(self) -> float | None:
        """Seconds that the present phase still takes; None while nothing tells."""
        if self.total and self.done >= self.total:
            return 0.0
        if len(self._points) < 2 or not self.total:
            return None
        (start, first), (end, last) = self._points[0], self._points[-1]
        return (self.total - last) * (end - start) / (last - first) if last > first else None

    @property
    def in_all(self) -> float | None:
        """Seconds that all runs still take."""
        here, after = self.in_run, self.runs - self.number - 1
        if here is None:
            return None
        elapsed = self.clock() - self._began
        usual = self.spent / self.finished if self.finished else elapsed + here
        return max(here, usual - elapsed if self.finished else here) + max(after, 0) * usual


def duration(seconds: float | None) -> str:
    """12 s, 3 min 5 s, 2 h 7 min; "?" where nothing is known."""
    if seconds is None:
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class _Left(ProgressColumn):
    """What is left, as `Pace` knows it."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        left = task.fields["left"]()
        return Text("" if left is None else f"{duration(left)} left", style="progress.remaining")


class Screen:
    """Progress of runs and their steps, and the tables of results between them.

    Args:
        output: where results go. clock: seconds, for tests.
    """

    def __init__(self, output: Output, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = Console(soft_wrap=False, stderr=output.is_stdout)
        self.pace = Pace(clock=clock)
        self._said_at = clock()
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),  # 80 columns have room for a run's name, counts and the time left
            MofNCompleteColumn(),
            _Left(),
            TextColumn("{task.fields[said]}"),
            console=Console(stderr=True),
            disable=not volume.shows_bars(),
            transient=True,
        )
        self.all = self.bars.add_task("runs", total=1, said="", visible=False, left=lambda: self.pace.in_all)
        self.one = self.bars.add_task("", total=None, said="", visible=False, left=lambda: self.pace.in_run)

    def __enter__(self) -> "Screen":
        self.bars.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bars.stop()

    def expect(self, runs: int) -> None:
        """Takes the number of runs that follow; more than one have a bar for them all."""
        self.pace = Pace(runs, self.pace.clock)
        self.bars.update(self.all, total=runs, completed=0, visible=runs > 1)

    def __call__(self, run: str, done: int, total: int, said: str = "") -> None:
        """Takes a report: steps done of a run, and what is to be said about it."""
        is_new = self.pace.report(run, done, total)
        fields: dict[str, Any] = {"said": said} if said or is_new else {}
        self.bars.update(
            self.one, description=run, completed=done, total=total or None, visible=True, **fields
        )
        self.bars.update(self.all, completed=min(self.pace.number, self.pace.runs))
        if not volume.shows_bars():
            self._log(run, done, total, said)

    def _log(self, run: str, done: int, total: int, said: str) -> None:
        """A line where there is something to say, else every LINE_SECONDS: short work is silent."""
        now = self.pace.clock()
        if not said and now - self._said_at < LINE_SECONDS:
            return
        self._said_at = now
        left = self.pace.in_all
        rest = f"; about {duration(left)} left" if left else ""
        volume.LOGGER.info("%s: %d of %d%s%s", run, done, total, said and f", {said}", rest)

    @property
    def progress(self) -> "Screen":
        """The screen itself, which takes reports."""
        return self

    def show(self, results: dict[str, Any]) -> None:
        """Print a comparison's results so far."""
        from ..training.cells import columns, headline, notes, rows

        for line in headline(results):
            self.console.print(line, highlight=False)
        table = Table.of(columns(results), rows(results, line="\n"))
        self.console.print(table.to_text(self.console.width), markup=False, highlight=False, soft_wrap=True)
        for line in notes(results):
            self.console.print(line, highlight=False)


@contextmanager
def bar(what: str) -> Iterator[Callable[[int, int, str], None]]:
    """Progress of one piece of work, on standard error: takes (done, total, what is to be said)."""
    with Screen(Output("-")) as screen:

        def tell(done: int, total: int, said: str = "") -> None:
            screen(what, done, total, said)

        yield tell


@contextmanager
def waiting(what: str) -> Iterator[Callable[[str], None]]:
    """Work without a count: takes what is being done."""
    if not volume.shows_bars():

        def log(doing: str) -> None:
            volume.LOGGER.debug("%s: %s", what, doing)

        yield log
        return
    with Console(stderr=True).status(what) as status:
        yield lambda doing: status.update(f"{what}: {doing}")
