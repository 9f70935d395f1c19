"""Signals end long work with a checkpoint; a second one at once. Missing packages are named before the work."""

import os
import signal

import pytest

from talking_heads.errors import UserError
from talking_heads.results import stopping
from talking_heads.results.extras import require


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_first_signal_waits_for_a_checkpoint_and_the_second_does_not(number, code):
    before = signal.getsignal(number)
    steps = []
    with pytest.raises(stopping.Stopped), stopping.signals(), stopping.at_checkpoints():
        os.kill(os.getpid(), number)
        steps.append("went on")
        assert stopping.asked()
        os.kill(os.getpid(), number)
        steps.append("not reached")
    assert steps == ["went on"] and stopping.exit_code() == code and signal.getsignal(number) is before


def test_work_without_checkpoints_stops_at_once():
    with pytest.raises(stopping.Stopped), stopping.signals():
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("not reached")
    with pytest.raises(stopping.Stopped), stopping.signals():
        with stopping.at_checkpoints():
            os.kill(os.getpid(), signal.SIGTERM)
        stopping.stop()
    with stopping.signals():
        stopping.stop()


def test_a_missing_package_is_named():
    require("json")
    with pytest.raises(UserError, match=r"needs the package no_such_package; got .*; pip install"):
        require("json", "no_such_package")
