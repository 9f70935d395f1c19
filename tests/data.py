"""Real data for tests: a folder next to the checkout, never part of it."""

import os
from pathlib import Path

import pytest


def shared_data() -> Path:
    """The folder of real data, from TALKING_HEADS_DATA or `shared/data` next to the checkout; else skips."""
    named = os.environ.get("TALKING_HEADS_DATA")
    if named:
        assert Path(named).is_dir(), f"TALKING_HEADS_DATA is no folder: {named}"
        return Path(named)
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real data: set TALKING_HEADS_DATA to a folder that holds it")
    return folder
