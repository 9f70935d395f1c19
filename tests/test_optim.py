"""Which parameters weight decay may pull: never the maps."""

import torch
import transformers
from torch import nn

from talking_heads import TalkingHeadsAttention, param_groups
from talking_heads.hf import convert
from tests.hf.models import model


def names(module, decay=0.1):
    """({decayed}, {not decayed})"""
    known = {id(x): name for name, x in module.named_parameters()}
    groups = param_groups(module, decay)
    assert [group["weight_decay"] for group in groups] == [decay, 0.0]
    return tuple({known[id(x)] for x in group["params"]} for group in groups)


def test_maps_biases_and_norms_are_kept_out():
    layer = TalkingHeadsAttention(8, 2, dynamic=("query_logits", "memory_weights"))
    decayed, kept = names(
        nn.ModuleDict({"attention": layer, "norm": nn.LayerNorm(8), "out": nn.Linear(8, 8)})
    )
    assert decayed == {"out.weight"} | {
        f"attention.{x}_proj.weight" for x in ("query", "key", "value", "output")
    }
    maps = ("logits_mix", "weights_mix", "query_logits_mix", "memory_weights_mix")
    assert kept >= {f"attention.{x}" for x in maps} | {"norm.weight", "norm.bias", "out.bias"}


def test_torch_attention_keeps_its_biases_out():
    _, kept = names(nn.MultiheadAttention(8, 2, add_bias_kv=True))
    assert kept == {"in_proj_bias", "out_proj.bias", "bias_k", "bias_v"}


def test_every_parameter_that_learns_is_there_once():
    module = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    module["b"].weight = module["a"].weight
    module["b"].bias.requires_grad_(False)
    assert names(module) == ({"a.weight"}, {"a.bias"})


class NoGradient(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, number):
        return {"input_ids": torch.arange(5, 13), "labels": torch.full((8,), 5)}


def test_a_trainer_leaves_an_identity_that_learns_nothing(tmp_path):
    """With these groups, and with those that it makes itself."""
    kept = {}
    for ours in (True, False):
        made = model("bert").float()
        convert(made)
        maps = {name: x for name, x in made.named_parameters() if name.endswith("_mix")}
        optimizer = torch.optim.AdamW(param_groups(made, 0.5), lr=0.1) if ours else None
        for x in maps.values():  # what is left is the decay
            x.register_hook(torch.zeros_like)
        options = transformers.TrainingArguments(
            str(tmp_path), max_steps=2, weight_decay=0.5, learning_rate=0.1, use_cpu=True, report_to="none",
            save_strategy="no", logging_strategy="no", disable_tqdm=True, per_device_train_batch_size=2,
        )  # fmt: skip
        transformers.Trainer(made, options, train_dataset=NoGradient(), optimizers=(optimizer, None)).train()
        kept[ours] = [torch.equal(x.detach(), torch.eye(4)) for x in maps.values()]
    assert all(kept[True]) and all(kept[False])
