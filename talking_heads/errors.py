"""The one error that stands for a user's mistake."""


class UserError(Exception):
    """A mistake that its maker can mend; the command line prints it as one line and exits with 2.

    Args:
        must: what must hold. came: what came instead. mend: how to mend it.
    """

    def __init__(self, must: str, came: object, mend: str) -> None:
        super().__init__(" ".join(f"{must}; got {came}; {mend}".split()))
