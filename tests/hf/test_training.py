"""Together with what else people do with a model: copies, gradient checkpointing, adapters, half precision."""

import copy

import pytest
import torch

from talking_heads.heads.mixing import maps_of
from talking_heads.hf import convert, mixings
from talking_heads.hf.survey.check import run
from tests.hf.models import batch, model, without_dropout
from tests.hf.test_named import assert_equal, stir

DYNAMIC = ("query_logits", "memory_logits", "query_weights", "memory_weights")


def talking(name, **options):
    made = model(name)
    convert(made, **options)
    return stir(made)


@pytest.mark.parametrize("dynamic", [(), DYNAMIC], ids=["static", "dynamic"])
def test_a_deep_copy_talks_on_its_own(dynamic):
    made = talking("bert", dynamic=dynamic)
    twin = copy.deepcopy(made)
    given = batch("bert", made)
    want = run(made, given)
    assert_equal(run(twin, given), want)
    stir(twin)
    assert_equal(run(made, given), want)
    assert (run(twin, given)["logits"] - want["logits"]).abs().max() > 1e-3


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("dynamic", [(), DYNAMIC], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", ["bert", "llama", "t5", "gpt2"])
def test_gradient_checkpointing_changes_nothing(name, dynamic, reentrant):
    made = without_dropout(talking(name, dynamic=dynamic)).train()
    given = batch(name, made) | {"use_cache": False}
    if name == "bert":
        del given["use_cache"]

    def gradients():
        made.zero_grad()
        loss = made(**given).loss
        loss.backward()
        return {n: p.grad.clone() for n, p in made.named_parameters() if p.grad is not None}

    want = gradients()
    assert any("head_mixing" in key for key in want)
    made.enable_input_require_grads()  # which reentrant checkpoints need
    made.gradient_checkpointing_enable({"use_reentrant": reentrant})
    got = gradients()
    assert got.keys() == want.keys()
    for key, x in want.items():
        torch.testing.assert_close(got[key], x, rtol=1e-5, atol=1e-6 * float(x.abs().max().clamp(min=1e-3)))


def test_lora_beside_trainable_maps(tmp_path):
    peft = pytest.importorskip("peft", reason="adapters need peft")
    made = talking("llama")
    before = {name: x.clone() for name, x in made.state_dict().items()}
    given = batch("llama", made)
    with torch.no_grad():
        plain = made(**given).logits
    config = peft.LoraConfig(target_modules=["q_proj", "v_proj"], modules_to_save=["head_mixing"], r=2)
    adapted = peft.get_peft_model(made, config)
    with torch.no_grad():
        torch.testing.assert_close(adapted(**given).logits, plain, rtol=1e-5, atol=1e-5)
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=0.01)
    adapted(**given).loss.backward()
    optimizer.step()
    moved = {
        name
        for name, p in adapted.named_parameters()
        if p.requires_grad and p.grad is not None and p.grad.any()
    }
    assert any("lora_B" in name for name in moved)
    assert sum("logits_mix" in name for name in moved) == sum("weights_mix" in name for name in moved) == 2
    found = mixings(adapted)
    assert len(found) == 2 and all(mixing.logits_mix.grad is not None for mixing in found.values())
    assert all(name.endswith("self_attn") for name in found)
    shown = maps_of(adapted.get_base_model())
    assert len(shown) == 2
    for maps, mixing in zip(shown.values(), found.values(), strict=True):
        assert torch.equal(torch.tensor(maps["logits_mix"]), mixing.logits_mix.detach().float())
    adapted.add_adapter("second", config)
    adapted.set_adapter("second")
    other = mixings(adapted)
    assert all(other[name] is not mixing for name, mixing in found.items())
    with adapted.disable_adapter():
        assert all(mixing not in (found[name], other[name]) for name, mixing in mixings(adapted).items())
    adapted.set_adapter("default")
    assert all(mixings(adapted)[name] is mixing for name, mixing in found.items())
    adapted.delete_adapter("second")
    with torch.no_grad():
        after = adapted(**given).logits
    assert (after - plain).abs().max() > 1e-4
    adapted.save_pretrained(tmp_path)
    fresh = model("llama")
    convert(fresh)
    fresh.load_state_dict(before)
    loaded = peft.PeftModel.from_pretrained(fresh, tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(**given).logits, after, rtol=1e-5, atol=1e-5)
        merged = loaded.merge_and_unload()
        torch.testing.assert_close(merged(**given).logits, after, rtol=1e-5, atol=1e-5)
    assert len(mixings(merged)) == 2


def test_bfloat16_models():
    made, whole = talking("llama").bfloat16(), talking("llama")
    given = batch("llama", whole)
    with torch.no_grad():
        got, want = made(**given).logits, whole(**given).logits
    assert got.dtype == torch.bfloat16
    assert (got - want).abs().mean() < 0.05 * want.abs().mean()
