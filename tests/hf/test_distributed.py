"""A converted model trains on two processes as on one: Trainer with DDP, and FSDP2's fully_shard."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from transformers import Trainer, TrainingArguments

from talking_heads.hf import convert, mixings
from tests.hf.models import model, without_dropout
from tests.hf.test_named import stir

NAMES = ("bert", "t5")
STEPS, BATCH = 3, 4  # a step's batch is divided among the processes
DYNAMIC = ("query_logits", "memory_weights")


def talking(name):
    made = model(name)
    convert(made, dynamic=DYNAMIC)
    return without_dropout(stir(made)).train()


def examples():
    draw = torch.Generator().manual_seed(1)
    tokens = torch.randint(5, 60, (STEPS * BATCH, 8), generator=draw)
    return [{"input_ids": row, "labels": row.roll(1)} for row in tokens]


def results(made, losses):
    """The mean losses of all processes, and a map and a weight after training."""
    losses = torch.tensor(losses, dtype=torch.float64)
    if dist.is_initialized():
        dist.all_reduce(losses)
        losses /= dist.get_world_size()
    full = {name: getattr(p, "full_tensor", lambda p=p: p)().detach() for name, p in made.named_parameters()}
    maps = [name for name in full if name.endswith("logits_mix")]
    others = [name for name in full if name.endswith(("query.weight", "SelfAttention.q.weight"))]
    assert maps and others
    return {
        "losses": losses.tolist(),
        **{name: full[name].sum(-1).flatten().tolist() for name in (*maps, *others)},
    }


class Recorder(Trainer):
    def compute_loss(self, *args, **kwargs):
        loss = super().compute_loss(*args, **kwargs)
        self.losses = [*getattr(self, "losses", []), float(loss.detach())]
        return loss

    def _get_train_sampler(self, *args, **kwargs):
        return torch.utils.data.SequentialSampler(self.train_dataset)


def by_trainer(name, folder):
    made, processes = talking(name), int(os.environ.get("WORLD_SIZE", 1))
    arguments = TrainingArguments(
        str(folder),
        use_cpu=True,
        ddp_backend="gloo" if processes > 1 else None,
        per_device_train_batch_size=BATCH // processes,
        max_steps=STEPS,
        learning_rate=0.01,
        lr_scheduler_type="constant",
        average_tokens_across_devices=False,  # or Trainer doubles the losses that these two models average themselves
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = Recorder(made, arguments, train_dataset=examples())
    trainer.train()
    return results(made, trainer.losses)


def by_hand(name):
    made, given, losses = talking(name), examples(), []
    rank, processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if processes > 1:
        mesh = dist.init_device_mesh("cpu", (processes,))
        for layer in dict.fromkeys(mixings(made)):
            fully_shard(made.get_submodule(layer), mesh=mesh)
        fully_shard(made, mesh=mesh)
        assert all(type(p).__name__ == "DTensor" for p in made.parameters())
    optimizer = torch.optim.AdamW(made.parameters(), lr=0.01)
    for start in range(0, len(given), BATCH):
        mine = given[start : start + BATCH][rank::processes]
        loss = made(**{key: torch.stack([x[key] for x in mine]) for key in mine[0]}).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return results(made, losses)


def main(folder):
    dist.init_process_group("gloo")
    found = {name: {"ddp": by_trainer(name, folder), "fsdp2": by_hand(name)} for name in NAMES}
    if dist.get_rank() == 0:
        (folder / "found.json").write_text(json.dumps(found))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def on_two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distributed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "tests.hf.test_distributed", str(folder)]
    processes = [
        subprocess.Popen(
            command,
            cwd=Path(__file__).parents[2],
            env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        printed = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert all(process.returncode == 0 for process in processes), "\n".join(x[-2000:] for x in printed)
    return json.loads((folder / "found.json").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_train_as_one(name, on_two, tmp_path):
    for way, want in {"ddp": by_trainer(name, tmp_path), "fsdp2": by_hand(name)}.items():
        got = on_two[name][way]
        assert got.keys() == want.keys() and len(want["losses"]) == STEPS
        assert want["losses"][-1] != want["losses"][0]
        for key, numbers in want.items():
            assert got[key] == pytest.approx(numbers, rel=0, abs=1e-6), (way, key)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
