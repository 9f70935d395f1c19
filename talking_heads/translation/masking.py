"""`--head-mask random:6`: the word for a HeadMask."""

from ..errors import UserError
from ..heads.headmask import WAYS, HeadMask


def head_mask(word: str, seed: int) -> HeadMask | None:
    """ "BY:N" or "importance:N:WAY"; None for an empty word.

    Raises:
        UserError: another form.
    """
    if not word:
        return None
    by, _, rest = word.partition(":")
    count, _, way = rest.partition(":")
    known = by in ("random", "importance") and count.isascii() and count.isdecimal()
    if not known or (way and (way not in WAYS or by == "random")):
        raise UserError(
            "--head-mask must be random:N, importance:N or importance:N:previous",
            repr(word),
            "write for example random:6",
        )
    return HeadMask(int(count), by, seed=seed, **({"importance": way} if way else {}))
