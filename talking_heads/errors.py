"""The one error that stands for a user's mistake."""

from typing import Self


class UserError(Exception):
    """A mistake that its maker can mend; the command line prints it as one line and exits with 2.

    Args:
        must: what must hold. came: what came instead. mend: how to mend it.
    """

    def __init__(self, must: str, came: object, mend: str) -> None:
        super().__init__(" ".join(f"{must}; got {came}; {mend}".split()))

    @classmethod
    def of(cls, error: Exception) -> Self:
        """From an error whose message has the three parts already."""
        made = cls.__new__(cls)
        made.args = (str(error),)
        return made
