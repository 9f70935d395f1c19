"""A cut-down copy of scale base: one step on two processes (gloo) is one step on one, by DDP, FSDP2 and accumulation."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from talking_heads.errors import UserError
from talking_heads.experiments.scales import settings_of
from talking_heads.experiments.start import Start
from talking_heads.experiments.tables import find
from talking_heads.training import together
from talking_heads.training.hardware import Hardware

from ..fsdp import allow_on_cpus
from ..training.small import write_texts

ARM = "talking-heads:12:random"
WAYS = {
    "ddp": Hardware(),
    "fsdp": Hardware(fsdp=True),
    "accumulation": Hardware(accumulation=2, checkpointing=True),
}


def start(folder, way):
    """Scale base with fewer and smaller layers; everything else is its own."""
    settings = settings_of(
        find("heads"), "base", [0], arms=[ARM], width=48, layers=2, length=48, batch=8, steps=1
    )
    settings = replace(settings, vocabulary=400, feed_forward=64, judged=8, learning_rate=1e-2)
    texts = [folder / "early.txt", folder / "late.txt"]
    return Start("heads", "base", settings, folder / way, tuple(texts), hardware=WAYS.get(way, Hardware()))


def main(folder):
    with pytest.raises(UserError, match="among GPUs; got processes on CPUs"):
        start(folder, "fsdp").run()
    allow_on_cpus()
    for way in sys.argv[2:]:
        start(folder, way).run()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """{way: (losses, tensors)} of one process and of two."""
    folder = tmp_path_factory.mktemp("together")
    write_texts(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    two = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.experiments.test_together", str(folder), *WAYS],
            cwd=Path(__file__).parents[2],
            env=environment | {"WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (0, 1)
    ]
    start(folder, "alone").run()
    try:
        printed = [process.communicate(timeout=400)[0] for process in two]
    finally:
        for process in two:
            process.kill()
    assert all(process.returncode == 0 for process in two), "\n".join(x[-3000:] for x in printed)
    found = {}
    for way in ("alone", *WAYS):
        run = next((folder / way).glob("runs/*/seed-0"))
        found[way] = (
            json.loads((run / "result.json").read_text()),
            load_file(run / "model" / "model.safetensors"),
        )
    return found


@pytest.mark.parametrize("way", WAYS)
def test_a_step_on_two_processes_is_one_on_one(way, trained):
    result, tensors = trained["alone"]
    same, others = trained[way]
    assert same["loss"] == pytest.approx(result["loss"], abs=2e-5)
    assert same["curve"].keys() == result["curve"].keys() and same["parts"] == pytest.approx(
        result["parts"], abs=2e-5
    )
    assert tensors.keys() == others.keys() and any(x.endswith("logits_mix") for x in tensors)
    for name, x in tensors.items():
        # AdamW's first step is the sign of the gradient times the rate: where that is almost 0, rounding decides it
        far = (x - others[name]).abs() > 1e-5
        assert far.float().mean() < 0.002, name


def test_a_batch_that_cannot_be_shared_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UserError, match="multiple of processes times accumulation; got 8 for 3 x 1"):
        together.share_of(8)
    assert torch.distributed.is_available() and together.share_of(12, 2) == 2


def test_trackers_are_off_unless_asked_for_and_must_be_installed():
    assert Hardware().arguments(4)["report_to"] == "none"
    assert Hardware(report_to=("wandb",)).arguments(4)["report_to"] == ["wandb"]
    with pytest.raises(UserError, match=r"a tracker must be installed and known to Trainer.*got 'ledger'"):
        Hardware(report_to=("ledger",)).check(4)
    with pytest.raises(UserError, match="got --fsdp without it; start it by torchrun"):
        Hardware(fsdp=True).check(4)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
