"""The one exception that reports a user's mistake."""

from typing import Self


class UserError(ValueError):
    """A mistake that the user can fix; the command line prints it as one line and exits with status 2.

    Args:
        must: what must hold. came: what was given. todo: what the user can do about it.
    """

    def __init__(self, must: str, came: object, todo: str) -> None:
        super().__init__(" ".join(f"{must}; got {came}; {todo}".split()))

    @classmethod
    def of(cls, error: Exception) -> Self:
        """From an error whose message already has the three parts."""
        made = cls.__new__(cls)
        made.args = (str(error),)
        return made
