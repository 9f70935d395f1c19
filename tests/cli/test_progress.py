"""Progress: an estimate that stays true from run to run, one bar a level, lines of the log elsewhere."""

import logging

import pytest

from talking_heads.cli import progress, volume
from talking_heads.cli.progress import Pace, Screen, duration
from talking_heads.results.output import Output
from talking_heads.results.progress import expect


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def go(pace, clock, run, steps, seconds, each=None):
    """A run of so many steps; each(step) after every report."""
    for step in range(1, steps + 1):
        clock.now += seconds
        pace.report(run, step, steps)
        if each:
            each(step)


def test_the_estimate_of_a_run_is_true_in_the_second_run_too():
    clock = Clock()
    pace = Pace(3, clock)
    for run, seconds in (("a", 1.0), ("b", 4.0), ("c", 0.5)):

        def check(step, seconds=seconds):
            if step > 1:
                assert pace.in_run == pytest.approx((50 - step) * seconds)

        go(pace, clock, run, 50, seconds, check)


def test_the_estimate_of_all_runs_is_true():
    clock = Clock()
    pace, end = Pace(4, clock), 100.0 + 4 * 50 * 2.0

    def check(step):
        if step > 1:
            assert pace.in_all == pytest.approx(end - clock.now)

    for run in "abcd":
        go(pace, clock, run, 50, 2.0, check)
    assert pace.in_all == 0


def test_runs_that_were_kept_do_not_shorten_the_estimate():
    clock = Clock()
    pace = Pace(4, clock)
    pace.report("kept", 1, 1)
    pace.report("kept, too", 1, 1)
    go(pace, clock, "a", 10, 3.0)
    assert pace.number == 2 and pace.in_all == pytest.approx(30)


def test_a_phase_with_another_total_has_its_own_pace():
    clock = Clock()
    pace = Pace(1, clock)
    go(pace, clock, "a", 100, 1.0)
    go(pace, clock, "a", 10, 7.0, lambda step: step < 2 or pace.in_run == pytest.approx(7.0 * (10 - step)))
    assert pace.number == 0


def test_nothing_is_claimed_before_anything_is_known():
    pace = Pace(2, Clock())
    assert pace.in_run is None and pace.in_all is None
    pace.report("a", 0, 10)
    assert pace.in_run is None and pace.in_all is None


@pytest.mark.parametrize(
    "seconds, said", [(None, "?"), (0.4, "0 s"), (59, "59 s"), (185, "3 min 5 s"), (7620, "2 h 7 min")]
)
def test_durations(seconds, said):
    assert duration(seconds) == said


def screen(monkeypatch, bars):
    monkeypatch.setattr(volume, "shows_bars", lambda: bars)
    return Screen(Output(None), Clock())


def test_a_bar_a_level(monkeypatch):
    made = screen(monkeypatch, bars=True)
    with made:
        expect(made, 3)
        for run in ("a", "b"):
            for step in (1, 2, 3):
                made(run, step, 3, "")
                shown = [task for task in made.bars.tasks if task.visible]
                assert [task.description for task in shown] == ["runs", run]
                assert [(task.completed, task.total) for task in shown] == [(int(run == "b"), 3), (step, 3)]


def test_one_run_has_one_bar(monkeypatch):
    made = screen(monkeypatch, bars=True)
    with made:
        made("a", 1, 3, "")
        assert [task.description for task in made.bars.tasks if task.visible] == ["a"]


def test_lines_of_the_log_where_there_is_no_terminal(monkeypatch, caplog):
    made = screen(monkeypatch, bars=False)
    caplog.set_level(logging.INFO, "talking_heads")
    with made:
        expect(made, 2)
        for run in ("a", "b"):
            for step in range(1, 101):
                made.pace.clock.now += 1
                made(run, step, 100, "loss 3.1" if step == 50 else "")
    said = [record.getMessage() for record in caplog.records]
    assert 6 <= len(said) <= 12 and said[0].startswith("a: 30 of 100; about 2 min 50 s left")
    assert any("a: 50 of 100, loss 3.1; about 2 min 30 s left" in line for line in said)


def test_a_quiet_command_logs_no_progress(monkeypatch, caplog):
    volume.reset()
    volume.louder_or_quieter(True, False)
    try:
        with progress.bar("heads") as tell:
            tell(1, 2, "x")
        assert not caplog.records
    finally:
        volume.reset()
