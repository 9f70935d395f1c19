"""Every option that arms of experiments have, on T5, BERT, ALBERT and Llama: it starts as multi-head attention with the
same weights, and all of its maps learn."""

import dataclasses

import pytest
import torch

from talking_heads.experiments.tables import DYNAMIC
from talking_heads.training.models import build
from talking_heads.training.objectives import find

from ..training.small import SMALL

OBJECTIVES = ("span-corruption", "masked-lm", "sentence-order", "causal-lm")
OPTIONS = (
    *("heads=4", "key_heads=4", "value_heads=4", "heads=8:key_heads=4:value_heads=4", "maps=logits", "maps=weights"),
    *(f"dynamic={name}" for name in DYNAMIC),
    f"dynamic={','.join(sorted(DYNAMIC))}",
)  # fmt: skip


def loss_of(objective, arm):
    settings = dataclasses.replace(SMALL, objective=objective)
    model = build(settings, arm, 0).eval()
    block = torch.randint(69, 512, (settings.length,), generator=torch.Generator().manual_seed(1))
    example = find(objective).example(block, torch.Generator().manual_seed(2), False)
    return model, find(objective).loss(model, find(objective).collate([example] * 2))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_option_starts_as_multi_head_and_learns(objective):
    _, plain = loss_of(objective, "multi-head:2")
    for option in OPTIONS:
        model, loss = loss_of(objective, f"talking-heads:2:{option}")
        assert loss.item() == pytest.approx(plain.item(), rel=1e-5), option
        loss.backward()
        maps = {name: x for name, x in model.named_parameters() if "head_mixing" in name}
        kinds = {name.rpartition(".")[2] for name in maps}
        wanted = {"maps=logits": {"logits_mix"}, "maps=weights": {"weights_mix"}}.get(
            option, {"logits_mix", "weights_mix"}
        )
        dynamic = option.partition("dynamic=")[2].split(",") if "dynamic" in option else []
        assert kinds == wanted | {f"{name}_mix" for name in dynamic}
        for name, x in maps.items():
            assert x.grad is not None and x.grad.isfinite().all() and x.grad.abs().sum() > 0, (option, name)


@pytest.mark.parametrize("part", ["encoder", "decoder", "cross"])
def test_talking_in_one_kind_of_attention_alone(part):
    model, loss = loss_of("span-corruption", f"talking-heads:2:kinds={part}")
    _, plain = loss_of("span-corruption", "multi-head:2")
    assert loss.item() == pytest.approx(plain.item(), rel=1e-5)
    names = [name for name, _ in model.named_parameters() if name.endswith("_mix")]
    place = {"encoder": "encoder.block", "decoder": "decoder.block", "cross": "decoder.block"}[part]
    kind = "EncDecAttention" if part == "cross" else "SelfAttention"
    assert len(names) == 2 and all(name.startswith(place) and kind in name for name in names)


def test_general_bilinear_starts_as_multi_head():
    _, plain = loss_of("span-corruption", "multi-head:2")
    model, loss = loss_of("span-corruption", "multi-head:2:bilinear")
    assert loss.item() == pytest.approx(plain.item(), rel=1e-5)
    loss.backward()
    assert all(x.grad is not None for x in model.parameters() if x.numel())
