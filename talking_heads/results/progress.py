"""How long work tells how far it is."""

from typing import Protocol


class Progress(Protocol):
    """Takes the name of a run, the steps done of it, their total, and what is to be said ("" for nothing)."""

    def __call__(self, run: str, done: int, total: int, said: str, /) -> None: ...


def silent(run: str, done: int, total: int, said: str) -> None:
    """Progress that shows nothing."""


def expect(progress: Progress, runs: int) -> None:
    """Tell how many runs follow, if `progress` wants to know."""
    takes = getattr(progress, "expect", None)
    if takes is not None:
        takes(runs)
