"""What users see when something they gave cannot be used."""


class UserError(ValueError):
    """One line of three parts: what is required; what was given; what to do."""

    def __init__(self, must: str, came: str, todo: str):
        super().__init__(f"{must}; got {came}; {todo}")
