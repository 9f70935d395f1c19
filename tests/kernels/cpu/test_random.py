"""A sample of the random calls; `python -m tests.kernels.cpu.random_calls --count 2000` checks as many as one likes."""

import subprocess
import sys

import pytest

from talking_heads.kernels.cpu import binding
from tests.cases import check
from tests.kernels.cpu import random_calls
from tests.kernels.cpu.common import needs_kernel

pytestmark = needs_kernel


@pytest.mark.parametrize("first", range(0, 60, 10))
def test_random_calls(first):
    for seed in range(first, first + 10):
        check(random_calls.draw(seed), "cpu")


@pytest.mark.slow
def test_two_thousand_random_calls():
    done = subprocess.run(
        [sys.executable, "-m", random_calls.__name__, "--count", "2000"], capture_output=True, text=True
    )
    assert done.returncode == 0 and "2000 calls from seed 0: 0 wrong" in done.stdout, done.stdout


def test_the_command_reports_a_wrong_call_and_fails(monkeypatch, capsys):
    """A kernel that gives twice what it should."""
    right = binding.run

    def wrong(direction, p, **tensors):
        right(direction, p, **tensors)
        if tensors.get("output") is not None:
            tensors["output"].mul_(2)

    monkeypatch.setattr(binding, "run", wrong)
    monkeypatch.setattr(sys, "argv", ["random", "--count", "2", "--seed", "7"])
    assert random_calls.main() == 1
    printed = capsys.readouterr()
    assert "seed 7: output: error" in printed.out and "2 wrong 7 8" in printed.out and "Case(" in printed.out
    assert "2 of 2 calls" in printed.err
