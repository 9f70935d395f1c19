"""Packages that only some commands need."""

import importlib

from ..errors import UserError


def require(*packages: str) -> None:
    """Import packages that are needed later, so that a missing one is named before the work.

    Raises:
        UserError: a package is not installed.
    """
    for name in packages:
        try:
            importlib.import_module(name)
        except ImportError as problem:
            raise UserError(
                f"this needs the package {name}",
                f"{problem}",
                "pip install 'talking-heads-attention[all]'",
            ) from None
