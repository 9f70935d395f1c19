"""Parameters divided among processes (FSDP2): the same model, whatever is tied or shared in it."""

from dataclasses import replace

import pytest
import torch
from torch import distributed
from torch.distributed.fsdp import FSDPModule

from talking_heads.training.hardware import divide
from talking_heads.training.models import build
from talking_heads.training.objectives import find, names

from .small import SMALL


@pytest.fixture
def alone(tmp_path):
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize("arm", ["talking-heads:2:random", "none"])
@pytest.mark.parametrize("objective", names())
def test_a_divided_model_has_the_same_loss_and_gradients(objective, arm, alone):
    settings = replace(SMALL, objective=objective, arms=(arm,), vocabulary=400, layers=2)
    block = torch.randint(80, 380, (settings.length,), generator=torch.Generator().manual_seed(0))
    example = find(objective).example(block, torch.Generator().manual_seed(1), False)
    batch = find(objective).collate([example, example])
    whole, divided = (build(settings, arm, 0) for _ in range(2))
    divide(divided)
    assert isinstance(divided, FSDPModule)
    if objective != "sentence-order":  # ALBERT's layers share their parameters: one group
        assert sum(isinstance(x, FSDPModule) for x in divided.modules()) > settings.layers
    losses = [find(objective).loss(model, batch) for model in (whole, divided)]
    torch.testing.assert_close(losses[0], losses[1])
    for loss in losses:
        loss.backward()
    weights = dict(divided.named_parameters())
    for name, x in whole.named_parameters():  # 0 or None: unused, as T5's encoder without attention
        wanted, got = x.grad, weights[name].grad
        wanted = torch.zeros_like(x) if wanted is None else wanted
        got = torch.zeros_like(x) if got is None else got.full_tensor()
        torch.testing.assert_close(got, wanted, msg=name)
    assert sum(x.grad is not None for x in weights.values()) > len(weights) // 4
