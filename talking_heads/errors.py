"""The one exception that reports a user's mistake."""

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Self


class UserError(ValueError):
    """A mistake that the user can fix; the command line prints it as one line and exits with status 2.

    Args:
        must: what must hold. came: what was given. todo: what the user can do about it.
    """

    def __init__(self, must: str, came: object, todo: str) -> None:
        super().__init__(" ".join(f"{must}; got {came}; {todo}".split()))

    @classmethod
    def of(cls, error: Exception) -> "Self":
        """From an error whose message already has the three parts."""
        made = cls.__new__(cls)
        made.args = (str(error),)
        return made


def one_of(what: str, came: object, names: Iterable[object], todo: str = "name one of them") -> UserError:
    """The error for a name that is not among those known; suggests the nearest one.

    Args:
        what: what is named, as "a preset". todo: what to do if no known name is near.
    """
    known = [str(name) for name in names]
    return UserError(f"{what} must be one of {', '.join(known)}", repr(came), did_you_mean(came, known, todo))


def did_you_mean(came: object, names: Iterable[str], todo: str) -> str:
    """A question with the nearest of the names, or `todo` if none is near."""
    near = difflib.get_close_matches(str(came), list(names), 1)
    return f"did you mean {near[0]}?" if near else todo
