"""What the tests of comparisons share."""

import pytest

from .small import from_texts, write_texts


@pytest.fixture(scope="session")
def texts(tmp_path_factory):
    """--text FILE twice: addresses of two eras."""
    return from_texts(write_texts(tmp_path_factory.mktemp("texts")))
