"""`--head-mask random:6`: the word for a HeadMask."""

from typing import TYPE_CHECKING, Any

from ..errors import UserError

if TYPE_CHECKING:
    from ..heads.headmask import HeadMask

_BY, _WAYS = ("random", "importance"), ("exact", "previous")


def parse(word: str) -> tuple[Any, int, Any]:
    """(by, n, way) of "BY:N" or "importance:N:WAY".

    Raises:
        UserError: another form.
    """
    by, _, rest = word.partition(":")
    count, colon, way = rest.partition(":")
    known = by in _BY and count.isascii() and count.isdecimal()
    if not known or (colon and (way not in _WAYS or by == "random")):
        raise UserError(
            "--head-mask must be random:N, importance:N or importance:N:previous",
            repr(word),
            "write for example random:6",
        )
    return by, int(count), way or "exact"


def head_mask(word: str, seed: int) -> "HeadMask | None":
    """The callback; None for an empty word."""
    from ..heads.headmask import HeadMask

    if not word:
        return None
    by, count, way = parse(word)
    return HeadMask(count, by, seed=seed, importance=way)
