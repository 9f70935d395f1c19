"""Interrupted, killed, out of space: nothing finished is lost, and the same command ends with the same figures."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from talking_heads.training import checkpoints as training_checkpoints
from tests.cases import in_ci

from .small import TINY, run
from .test_compare import figures, files

posix = pytest.mark.skipif(os.name != "posix", reason="needs signals and limits of a POSIX system")
pytestmark = posix
STEPS = ["--steps", "40"]  # a checkpoint every 5
# Without transfer, whose interruption test_compare tests, and with one arm.
PLAIN = [*TINY[: TINY.index("--arm")], "--arm", "talking-heads:2", *STEPS, "--transfer", "none"]


def whole(out, *arguments):
    with pytest.MonkeyPatch.context() as patch:
        assert run(patch, "compare", "--out", out, *arguments) == 0
    return figures(json.loads((out / "results.json").read_text()))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, texts):
    return whole(tmp_path_factory.mktemp("whole") / "out", *PLAIN, *texts)


@pytest.fixture(scope="module")
def with_transfer(tmp_path_factory, texts):
    return whole(tmp_path_factory.mktemp("whole") / "out", *TINY, *STEPS, *texts)


def begin(out: Path, arguments: list[str]) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "talking_heads", "--quiet", "compare", "--out", str(out), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        cwd=Path(__file__).parents[2],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in a shell's background
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def stop(signal_number, out: Path, arguments: list[str], when, patience: float = 300) -> tuple[int, str]:
    """Runs the command in a process of its own, signals it once when(out); (exit code, standard error)."""
    child = begin(out, arguments)
    end = time.monotonic() + patience
    while not when(out) and child.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    child.send_signal(signal_number)
    _, said = child.communicate(timeout=300)
    return child.returncode, said


def checkpoints(count):
    """When a run has written as many checkpoints (and none has its result yet)."""

    def when(out):
        states = list(out.glob("runs/*/seed-*/checkpoint-*/trainer_state.json"))
        return any(int(path.parent.name.partition("-")[2]) >= 5 * count for path in states)

    return when


def test_terminated_then_killed_then_the_same(uninterrupted, texts, tmp_path, monkeypatch):
    """In processes of their own: SIGTERM is a clean stop with a checkpoint, SIGKILL comes at any moment."""
    out, arguments = tmp_path / "out", [*PLAIN, *texts]
    code, said = stop(signal.SIGTERM, out, arguments, checkpoints(1))
    assert code == 143 and "interrupted" in said and said.count("\n") == 1
    assert not (out / "results.json").exists() and checkpoints(1)(out)
    code, said = stop(signal.SIGKILL, out, arguments, checkpoints(4))
    assert code == -signal.SIGKILL and said == ""
    assert not (out / "results.json").exists() and checkpoints(4)(out)
    started = []
    last = training_checkpoints.last_checkpoint
    monkeypatch.setattr(
        training_checkpoints, "last_checkpoint", lambda folder: started.append(last(folder)) or started[-1]
    )
    assert run(monkeypatch, "compare", "--out", out, *arguments) == 0
    # it went on, and did not begin again: the kill may have cut the fourth checkpoint short
    assert started[0] and int(started[0].rpartition("-")[2]) >= 15
    assert figures(json.loads((out / "results.json").read_text())) == uninterrupted
    assert not list(out.glob("**/checkpoint-*"))


@pytest.mark.parametrize(
    ("number", "code", "times"),
    in_ci(
        [
            (signal.SIGTERM, 143, 1),
            (signal.SIGTERM, 143, 2),
            (signal.SIGINT, 130, 1),
            (signal.SIGINT, 130, 2),
        ],
        (signal.SIGTERM, 143, 1),
        (signal.SIGINT, 130, 2),
    ),
)
def test_signals_stop_a_comparison(number, code, times, uninterrupted, texts, tmp_path, monkeypatch, capsys):
    """While the model is evaluated after step 10: one signal ends with a checkpoint of that step, two end at once."""
    from talking_heads.training.objectives import find

    out, arguments = tmp_path / "out", [*PLAIN, *texts]
    objective, calls = find("span-corruption"), []
    evaluate = objective.evaluate

    def interrupted(model, examples):
        calls.append("begun")
        if len(calls) == 2:  # after step 10
            for _ in range(times):
                signal.raise_signal(number)
            calls.append("went on")
        return evaluate(model, examples)

    with monkeypatch.context() as patch:
        patch.setattr(objective, "evaluate", interrupted)
        assert run(patch, "compare", "--out", out, *arguments) == code
    said = capsys.readouterr().err
    assert "interrupted" in said and said.count("\n") == 1
    assert ("went on" in calls) == (times == 1) and calls.count("begun") == 2
    kept = sorted(int(x.name.partition("-")[2]) for x in out.glob("runs/*/seed-0/checkpoint-*"))
    assert kept[-1] == (10 if times == 1 else 5)
    assert run(monkeypatch, "compare", "--out", out, *arguments) == 0
    assert figures(json.loads((out / "results.json").read_text())) == uninterrupted


def test_a_checkpoint_that_a_kill_cut_short_is_passed_over(uninterrupted, texts, tmp_path, monkeypatch):
    """As if the process had died while it wrote: the state, written last, is missing or half there."""
    from talking_heads.training.objectives import find

    out, arguments = tmp_path / "out", [*PLAIN, *texts]

    def broken(model, examples, calls=iter(range(10**6))):  # noqa: B008
        if next(calls) == 5:
            raise KeyboardInterrupt
        return evaluate(model, examples)

    objective = find("span-corruption")
    evaluate = objective.evaluate
    with monkeypatch.context() as patch:
        patch.setattr(objective, "evaluate", broken)
        assert run(patch, "compare", "--out", out, *arguments) == 130
    (whole,) = out.glob("runs/*/seed-0/checkpoint-*")
    for step, text in ((30, None), (35, '{"epoch": 0.')):
        cut = whole.with_name(f"checkpoint-{step}")
        shutil.copytree(whole, cut)
        (cut / "trainer_state.json").unlink()
        if text:
            (cut / "trainer_state.json").write_text(text)
    assert run(monkeypatch, "compare", "--out", out, *arguments) == 0
    assert figures(json.loads((out / "results.json").read_text())) == uninterrupted


@pytest.mark.slow
def test_killed_at_ten_random_moments(with_transfer, texts, tmp_path, monkeypatch):
    out, arguments = tmp_path / "out", [*TINY, *STEPS, *texts]
    for moment in range(10):
        wait = random.Random(moment).uniform(0, 1.5)
        begun = []

        def when(out, wait=wait, begun=begun):
            if not begun and (out / "data" / "blocks.safetensors").exists():
                begun.append(time.monotonic())
            return begun and time.monotonic() - begun[0] > wait

        code, said = stop(signal.SIGKILL, out, arguments, when)
        assert code in (0, -signal.SIGKILL) and "Traceback" not in said
    assert run(monkeypatch, "compare", "--out", out, *arguments) == 0
    assert figures(json.loads((out / "results.json").read_text())) == with_transfer


@pytest.mark.slow
def test_two_at_once_share_the_runs(with_transfer, texts, tmp_path):
    out, arguments = tmp_path / "out", [*TINY, *STEPS, *texts]
    children = [begin(out, arguments) for _ in range(2)]
    ends = [child.communicate(timeout=600)[1] for child in children]
    assert [child.returncode for child in children] == [0, 0] and ends == ["", ""]
    assert figures(json.loads((out / "results.json").read_text())) == with_transfer


# Bytes a file may have: text blocks, a model's checkpoint (safetensors), its optimizer (torch.save).
@pytest.mark.parametrize("limit", [100_000, 300_000, 500_000])
def test_files_that_cannot_be_written(limit, texts, tmp_path, monkeypatch, capsys):
    import resource

    out, arguments = tmp_path / "out", [*TINY, *texts]
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old[1]))
    try:
        code = run(monkeypatch, "compare", "--out", out, *arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    said = capsys.readouterr().err
    assert code == 2 and said.count("\n") == 1 and "rerun the same command" in said
    assert not (out / "results.json").exists()


def test_a_full_disk_leaves_earlier_results_as_they_were(texts, tmp_path, monkeypatch, capsys):
    """A further seed, for which there is no space; then there is."""
    from talking_heads.results import files as writing

    out, arguments = tmp_path / "out", [*TINY, "--steps", "2", *texts]
    assert run(monkeypatch, "compare", "--out", out, *arguments) == 0
    before = files(out)

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(writing.os, "fsync", full)
        assert run(patch, "compare", "--out", out, *arguments, "--seeds", "2") == 2
    said = capsys.readouterr().err
    assert "No space left" in said and "free some space" in said and said.count("\n") == 1
    after = files(out)
    assert all(after[name] == data for name, data in before.items())
    assert not [
        name for name in after if name.rpartition("/")[2].startswith(".") and name not in before
    ]  # nothing half written
    assert run(monkeypatch, "compare", "--out", out, *arguments, "--seeds", "2") == 0
    results = json.loads((out / "results.json").read_text())
    assert all(len(arm["loss"]) == 2 for arm in results["arms"])


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [200, 400, 1000, 1800, 3000])
def test_a_disk_that_is_full_indeed(kilobytes, texts, tmp_path, monkeypatch, capsys):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        code = run(monkeypatch, "compare", "--out", disk / "out", *TINY, *texts)
        said = capsys.readouterr().err
        assert code == 2 and "No space left" in said and said.count("\n") == 1
        subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
        assert run(monkeypatch, "compare", "--out", disk / "out", *TINY, *texts) == 0
    finally:
        subprocess.run(["umount", str(disk)], check=True)
