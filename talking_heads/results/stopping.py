"""Stop long work cleanly: the first SIGTERM or Ctrl-C asks for a checkpoint, the second one stops at once."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


class Stopped(KeyboardInterrupt):
    """Raised where work ends because of a signal."""


class _State:
    def __init__(self) -> None:
        self.number: int | None = None  # the first signal that came
        self.process = os.getpid()
        self.waits = 0  # how many blocks promise to end soon by themselves


_state = _State()


@contextmanager
def signals() -> Iterator[None]:
    """Take SIGTERM and Ctrl-C over while a command runs in the main thread."""
    _state.number, _state.process = None, os.getpid()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _take) for number in _CODES}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _take(number: int, frame: FrameType | None) -> None:
    if os.getpid() != _state.process:  # a fork, which ends as if nothing had been installed
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        return
    again = _state.number is not None
    _state.number = _state.number or number
    if again or not _state.waits:
        raise Stopped
    if sys.stderr.isatty():
        print("\nstopping after this step; once more to stop at once", file=sys.stderr, flush=True)


@contextmanager
def at_checkpoints() -> Iterator[None]:
    """Work that looks at `asked` often, keeps what it has, and then calls `stop`."""
    _state.waits += 1
    try:
        yield
    finally:
        _state.waits -= 1


def asked() -> bool:
    """Whether a signal asked for an end."""
    return _state.number is not None


def stop() -> None:
    """End the work if a signal asked for it."""
    if asked():
        raise Stopped


def exit_code() -> int:
    """The command's exit code after a signal: 130 for Ctrl-C, 143 for SIGTERM."""
    return _CODES.get(signal.Signals(_state.number), 130) if _state.number else 130
