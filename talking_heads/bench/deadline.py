"""The end of a measurement: whatever it does then, it stops, so that the table is printed in time."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class OutOfTime(BaseException):
    """Raised wherever the work is when its time ends; like KeyboardInterrupt no error that is dealt with."""


@contextmanager
def ends(seconds: float | None) -> Iterator[None]:
    """Raises OutOfTime inside once `seconds` have passed (None: never), in the main thread, where the system
    has timers."""
    able = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if seconds is None or not able:
        yield
        return

    def stop(number: int, frame: Any) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
