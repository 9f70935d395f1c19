import os

import pytest

from .small import FAST, files, run, train_words


@pytest.fixture(scope="package")
def paths(tmp_path_factory):
    return files(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="package")
def learned(paths, tmp_path_factory):
    """A model that has learned the toy language, with heads masked; pytest's processes share one."""
    base = tmp_path_factory.getbasetemp()
    out = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "toy-run"
    with pytest.MonkeyPatch.context() as patch:
        words = ["--arm", "talking-heads:4", "--head-mask", "random:2"]
        assert run(patch, "translate", "train", *train_words(paths), *FAST, *words, "--out", out) == 0
    return out
