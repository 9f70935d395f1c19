"""Converted transformers models: the same at an identity start, saved and loaded whole, never as plain ones."""

import copy
import json
import pickle

import pytest
import torch
import transformers

from talking_heads import param_groups
from talking_heads.errors import UserError
from talking_heads.hf import convert, load, mixings

SMALL = {"vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
MODELS = {
    "bert": lambda: transformers.BertForMaskedLM(transformers.BertConfig(**SMALL, intermediate_size=32)),
    "albert": lambda: transformers.AlbertForMaskedLM(
        transformers.AlbertConfig(**SMALL, embedding_size=16, intermediate_size=32)
    ),
    "t5": lambda: transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=50, d_model=24, d_kv=6, d_ff=32, num_layers=2, num_heads=4, decoder_start_token_id=0
        )
    ),
}
LAYERS = {"bert": 2, "albert": 1, "t5": 6}  # ALBERT shares one among all; T5 has encoder, decoder, cross


def model(name, dtype=torch.float64):
    transformers.set_seed(0)
    return MODELS[name]().to(dtype).eval()


def batch():
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 50, (2, 9), generator=draw)
    mask = (torch.arange(9) < torch.tensor([[9], [6]])).long()
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


def run(model):
    result = model(**batch())
    old = {n: p for n, p in model.named_parameters() if not n.endswith("_mix")}
    gradients = torch.autograd.grad(result.loss, list(old.values()), allow_unused=True)
    return result.loss, result.logits, dict(zip(old, gradients, strict=True))


def stir(model):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("_mix"):
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


@pytest.mark.parametrize("name", MODELS)
def test_identity_start_changes_nothing(name):
    plain, talking = model(name), model(name)
    done = convert(talking)
    assert len(done.converted) == LAYERS[name] and not done.left
    assert f"converted {LAYERS[name]} attention layers" in str(done)
    for got, want in zip(run(talking)[:2], run(plain)[:2], strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-11)
    got, want = run(talking)[2], run(plain)[2]
    for parameter, gradient in want.items():
        if gradient is not None:
            torch.testing.assert_close(got[parameter], gradient, rtol=1e-8, atol=1e-10)
    optimizer = torch.optim.AdamW(param_groups(talking, 0.1), lr=0.01)
    talking(**batch()).loss.backward()
    optimizer.step()
    maps = {n: p for n, p in talking.named_parameters() if n.endswith("_mix")}
    assert len(maps) == 2 * LAYERS[name] and all(
        not torch.equal(p, torch.eye(4).double()) for p in maps.values()
    )


@pytest.mark.parametrize("maps", [{"logits_mix": False}, {"weights_mix": False}, {"init": "random"}], ids=str)
def test_which_maps_are_learnt(maps):
    talking = model("bert")
    convert(talking, **maps)
    names = {n.rpartition(".")[2] for n, _ in talking.named_parameters() if n.endswith("_mix")}
    assert names == {"logits_mix", "weights_mix"} - {n for n, learnt in maps.items() if learnt is False}
    if "init" in maps:
        assert (run(talking)[1] - run(model("bert"))[1]).abs().max() > 1e-3


@pytest.mark.parametrize("name", MODELS)
def test_saved_and_loaded(name, tmp_path):
    talking = model(name, torch.float32)
    convert(talking)
    stir(talking).save_pretrained(tmp_path)
    assert {p.suffix for p in tmp_path.iterdir()} == {".json", ".safetensors"}
    loaded = load(tmp_path).eval()
    assert type(loaded) is type(talking)
    assert torch.equal(loaded(**batch()).logits, talking(**batch()).logits)
    auto = transformers.AutoModel.from_pretrained(tmp_path)
    assert sum(n.endswith("_mix") for n, _ in auto.named_parameters()) == 2 * LAYERS[name]
    for twin in (copy.deepcopy(talking), pickle.loads(pickle.dumps(talking))):
        twin.save_pretrained(tmp_path / "again")
        assert json.loads((tmp_path / "again" / "config.json").read_text())["model_type"] == "talking_heads"


def test_a_converted_model_never_loads_as_a_plain_one(tmp_path):
    talking = model("bert", torch.float32)
    convert(talking)
    talking.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"talking_heads\.hf\.load"):
        transformers.BertForMaskedLM.from_pretrained(tmp_path)


def test_a_class_of_ones_own_loads_by_transformers_name_for_it(tmp_path):
    class Mine(transformers.BertForMaskedLM):
        pass

    talking = Mine(model("bert", torch.float32).config)
    convert(talking)
    talking.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="name one with --architecture"):
        load(tmp_path)
    loaded = load(tmp_path, architecture="BertForMaskedLM")
    assert type(loaded) is transformers.BertForMaskedLM and len(mixings(loaded)) == 2
    with pytest.raises(UserError, match="load takes no other attn_implementation"):
        load(tmp_path, architecture="BertForMaskedLM", attn_implementation="flash")


def test_loading_names_what_does_not_fit(tmp_path):
    from safetensors.torch import load_file, save_file

    talking = model("bert", torch.float32)
    convert(talking)
    talking.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    lost = "bert.encoder.layer.1.attention.self.head_mixing.weights_mix"
    save_file(
        {n: x for n, x in weights.items() if n != lost}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(UserError, match=lost):
        load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:500])
    with pytest.raises(UserError, match="whole safetensors"):
        load(tmp_path)
    with pytest.raises(UserError, match="check it"):
        load(tmp_path / "nowhere")


def test_what_cannot_be_converted_is_refused():
    mpnet = transformers.MPNetModel(transformers.MPNetConfig(**SMALL, intermediate_size=32))
    with pytest.raises(ValueError, match="attention-function registry"):
        convert(mpnet)
    talking = model("bert")
    convert(talking)
    with pytest.raises(ValueError, match="converted once"):
        convert(talking)


def test_weight_decay_leaves_the_maps_alone():
    talking = model("t5")
    convert(talking)
    names = {id(p): n for n, p in talking.named_parameters()}
    decayed, kept = ({names[id(p)] for p in group["params"]} for group in param_groups(talking, 0.1))
    assert len(decayed) + len(kept) == len(names)
    assert all(n.endswith(("_mix", "layer_norm.weight")) for n in kept) and "shared.weight" in decayed
