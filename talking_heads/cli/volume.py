"""How much a command says: the options -q and -v, and the logger's handler.

On a terminal progress is shown by bars, elsewhere (a file, a pipe, CI) by lines of the logger "talking_heads" on
standard error.
"""

import logging
import sys
from typing import Any

from ..errors import UserError

LOGGER = logging.getLogger("talking_heads")


class _ToStandardError(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to what standard error is at the time."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:  # type: ignore[override]
        return sys.stderr


class _Volume:
    def __init__(self) -> None:
        self.quiet = self.verbose = False
        self.handler: logging.Handler | None = None


_volume = _Volume()


def reset() -> None:
    """As a new command starts: neither quiet nor verbose."""
    _volume.quiet = _volume.verbose = False
    if _volume.handler is None:
        _volume.handler = _ToStandardError()
        _volume.handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        LOGGER.addHandler(_volume.handler)
    _level()


def louder_or_quieter(quiet: bool, verbose: bool) -> None:
    """Takes the options of the program or of a command; both may be given in either place.

    Raises:
        UserError: quiet and verbose at once.
    """
    _volume.quiet |= quiet
    _volume.verbose |= verbose
    if _volume.quiet and _volume.verbose:
        raise UserError("a command must be quiet or verbose", "--quiet and --verbose", "leave one out")
    _level()


def is_verbose() -> bool:
    """Whether details are to be logged."""
    return _volume.verbose


def shows_bars() -> bool:
    """Whether progress is shown by bars: on a terminal."""
    return sys.stderr.isatty() and not _volume.quiet


def _level() -> None:
    usual = logging.WARNING if sys.stderr.isatty() else logging.INFO
    LOGGER.setLevel(logging.WARNING if _volume.quiet else logging.DEBUG if _volume.verbose else usual)
