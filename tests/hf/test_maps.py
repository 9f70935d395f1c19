"""Maps by themselves: trained alone, kept from decay by Trainer, saved as a small file, with adapters."""

import re
from pathlib import Path

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

import talking_heads
from talking_heads import param_groups
from talking_heads.errors import UserError
from talking_heads.hf import convert, load, load_maps, mixings, save_maps, train_only_maps
from tests.hf.models import batch, model
from tests.hf.test_named import stir

DYNAMIC = ["query_logits", "memory_weights"]


def talking(name="llama", **options):
    made = model(name).float()
    convert(made, **options)
    return stir(made.double()).float()


def logits(made):
    with torch.no_grad():
        return made(**batch("llama", made)).logits


def maps(made):
    return [x for mixing in mixings(made).values() for x in mixing.parameters()]


@pytest.mark.parametrize("options", [{}, {"layers": [1], "dynamic": DYNAMIC}, {"num_heads": 6}])
def test_a_small_file_holds_the_maps(options, tmp_path):
    made, plain = talking(**options), model("llama").float()
    save_maps(made, tmp_path / "maps.safetensors")
    assert (tmp_path / "maps.safetensors").stat().st_size < 100_000
    for into in (plain, talking(**options)):
        assert load_maps(into, tmp_path / "maps.safetensors") is into
        assert torch.equal(logits(into), logits(made))
    plain.save_pretrained(tmp_path / "whole")
    assert torch.equal(logits(load(tmp_path / "whole")), logits(made))


def test_maps_of_another_model_are_refused(tmp_path):
    file = tmp_path / "maps.safetensors"
    with pytest.raises(UserError, match="needs a converted model; got a plain LlamaForCausalLM"):
        save_maps(model("llama"), file)
    save_maps(talking(), file)
    for into, message in (
        (model("bert"), "layers.0.self_attn"),
        (talking(layers=[0]), "others at"),
        (talking(num_heads=6), "others at"),
    ):
        with pytest.raises(UserError, match=message):
            load_maps(into, file)
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(UserError, match=r"maps\.safetensors"):
        load_maps(model("llama"), file)


def test_only_maps_train():
    made = talking()
    assert train_only_maps(made) == sum(x.numel() for x in maps(made)) == 2 * 2 * 16
    made(**batch("llama", made)).loss.backward()
    assert {n.rpartition(".")[2] for n, x in made.named_parameters() if x.grad is not None} == {
        "logits_mix",
        "weights_mix",
    }
    with pytest.raises(UserError, match="needs a model with maps"):
        train_only_maps(model("llama"))


def arguments(folder, **options):
    return TrainingArguments(str(folder), report_to=[], use_cpu=True, disable_tqdm=True, **options)


def test_trainer_does_not_decay_maps(tmp_path):
    made = talking(dynamic=DYNAMIC)
    optimizer = Trainer(made, arguments(tmp_path, weight_decay=0.5)).create_optimizer()
    own = {id(x) for x in maps(made)}
    decayed = {id(x) for group in optimizer.param_groups if group["weight_decay"] for x in group["params"]}
    everything = {id(x) for group in optimizer.param_groups for x in group["params"]}
    assert own <= everything and not own & decayed and decayed


def test_the_recipe_in_the_documentation(tmp_path):
    """Its own learning rate for maps under Trainer; the code of docs/conversion.md runs."""
    text = (Path(__file__).parents[2] / "docs" / "conversion.md").read_text()
    code = re.search(r"```python\n(optimizer = .*?)```", text, re.DOTALL)[1]
    made = talking()
    rows = [{"input_ids": torch.arange(5, 13), "labels": torch.arange(5, 13)}] * 8
    names = {
        "torch": torch,
        "transformers": transformers,
        "talking_heads": talking_heads,
        "model": made,
        "dataset": rows,
        "arguments": arguments(tmp_path, max_steps=2, save_strategy="no"),
    }
    before = [x.detach().clone() for x in maps(made)]
    exec(code, names)
    groups = names["optimizer"].param_groups
    assert groups[-1]["initial_lr"] == 1e-3 and {id(x) for x in groups[-1]["params"]} == {
        id(x) for x in maps(made)
    }
    assert not any(torch.equal(a, b) for a, b in zip(maps(made), before, strict=True))
    assert len(param_groups(made)) == 2


def lora(**more):
    peft = pytest.importorskip("peft")
    return peft.LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False, **more)


def test_an_adapter_names_the_folder_that_has_the_maps(tmp_path):
    peft = pytest.importorskip("peft")
    model("llama").float().save_pretrained(tmp_path / "plain")
    made = AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    convert(made)
    stir(made.double()).float()
    with_maps = lora(modules_to_save=["head_mixing"])
    peft.get_peft_model(made, with_maps).save_pretrained(tmp_path / "unsaved")
    with pytest.raises(OSError, match="talking_heads conversion"):
        peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "unsaved")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    with pytest.raises(UserError, match=r"adapters: onto the converted model"):
        peft.PeftModel.from_pretrained(plain, tmp_path / "unsaved")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    with pytest.raises(UserError, match=r"adapters: onto the converted model"):
        plain.load_adapter(str(tmp_path / "unsaved"))

    made = talking()
    made.save_pretrained(tmp_path / "base")  # first the base, then adapters: they find it again
    adapted = peft.get_peft_model(made, with_maps).eval()
    for mixing in mixings(adapted).values():
        torch.nn.init.normal_(mixing.logits_mix)
    adapted.save_pretrained(tmp_path / "adapter")
    for again in (
        peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter"),
        peft.PeftModel.from_pretrained(load(tmp_path / "base"), tmp_path / "adapter"),
        AutoModelForCausalLM.from_pretrained(tmp_path / "adapter"),
    ):
        torch.testing.assert_close(logits(again.eval()), logits(adapted), rtol=1e-4, atol=1e-4)


def test_maps_trained_beside_an_adapter_are_not_left_out_of_it(tmp_path):
    peft = pytest.importorskip("peft")
    adapted = peft.get_peft_model(model("llama").float(), lora()).eval()
    convert(adapted.get_base_model())
    stir(adapted.double()).float()
    with pytest.raises(UserError, match="modules_to_save"):
        adapted.save_pretrained(tmp_path / "adapter")
    save_maps(adapted, tmp_path / "maps.safetensors")
    for x in maps(adapted):
        x.requires_grad_(False)
    adapted.save_pretrained(tmp_path / "adapter")
    again = load_maps(model("llama").float(), tmp_path / "maps.safetensors")
    again = peft.PeftModel.from_pretrained(again, tmp_path / "adapter").eval()
    torch.testing.assert_close(logits(again), logits(adapted))


def test_maps_trained_beside_an_adapter_of_transformers_own_are_not_left_out_of_it(tmp_path):
    pytest.importorskip("peft")
    made = talking()
    made.add_adapter(lora())
    for x in maps(made):
        x.requires_grad_(True)
    with pytest.raises(UserError, match="modules_to_save"):
        made.save_pretrained(tmp_path / "adapter")
    for x in maps(made):
        x.requires_grad_(False)
    made.save_pretrained(tmp_path / "adapter")


def test_maps_that_could_not_be_loaded_again_are_not_saved(tmp_path):
    from torch.nn.utils import parametrize
    from torch.nn.utils.parametrizations import orthogonal

    made = talking()
    for mixing in mixings(made).values():
        orthogonal(mixing, "logits_mix")
    want = logits(made)
    with pytest.raises(UserError, match="remove_parametrizations"):
        made.save_pretrained(tmp_path)
    for mixing in mixings(made).values():
        parametrize.remove_parametrizations(mixing, "logits_mix")
    made.save_pretrained(tmp_path)
    torch.testing.assert_close(logits(load(tmp_path)), want)
