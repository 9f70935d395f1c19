"""What convert takes in addition to a model's own folder: a checkpoint with other heads, an adapter; and a named backend."""

import contextlib
import json
from unittest import mock

import pytest
import torch
import transformers

from talking_heads.cli import main
from talking_heads.errors import UserError
from talking_heads.hf import convert, load, mixings, set_backend
from talking_heads.hf.folder import convert_folder

SMALL = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
IDS = torch.randint(3, 60, (2, 7), generator=torch.Generator().manual_seed(0))


def bert(kind="BertForMaskedLM"):
    torch.manual_seed(0)
    return getattr(transformers, kind)(transformers.BertConfig(**SMALL, intermediate_size=37)).eval()


@torch.no_grad()
def logits(model):
    return model.eval()(IDS)[0]


def as_published(folder):
    """BERT as it was published: the weights of pretraining, a config that names the masked language model."""
    model = bert("BertForPreTraining")
    model.save_pretrained(folder)
    written = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(written | {"architectures": ["BertForMaskedLM"]}))
    return model


def test_a_checkpoint_with_other_heads_converts_by_its_own_architecture(tmp_path):
    model = as_published(tmp_path / "bert")
    done, error = convert_folder(tmp_path / "bert", tmp_path / "out")
    assert error < 1e-6
    left = [name.removeprefix("tensor ") for name in done.files if name.startswith("tensor ")]
    assert sorted(left) == [
        "bert.pooler.dense.bias",
        "bert.pooler.dense.weight",
        "cls.seq_relationship.bias",
        "cls.seq_relationship.weight",
    ]
    made = load(tmp_path / "out")
    assert type(made).__name__ == "BertForMaskedLM"
    torch.testing.assert_close(logits(made), logits(model), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["bert.encoder.layer.2.attention.self.query.weight", "cls.surprise", "surprise"]
)
def test_tensors_of_no_head_are_still_refused(name, tmp_path):
    from safetensors.torch import load_file, save_file

    as_published(tmp_path / "bert")
    file = tmp_path / "bert/model.safetensors"
    save_file(load_file(file) | {name: torch.ones(32, 32)}, file, {"format": "pt"})
    with pytest.raises(UserError, match=f"extra {name};"):
        convert_folder(tmp_path / "bert", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def adapter(tmp_path):
    """(the folder of an adapter, the model with it)"""
    peft = pytest.importorskip("peft")
    bert().save_pretrained(tmp_path / "base")
    base = transformers.BertForMaskedLM.from_pretrained(tmp_path / "base")
    config = peft.LoraConfig(target_modules=["query", "value"], init_lora_weights=False)
    model = peft.get_peft_model(base, config).eval()
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter", model


def test_an_adapter_is_refused_or_merged_on_request(adapter, tmp_path):
    folder, model = adapter
    with pytest.raises(UserError, match=r"got an adapter in .*; pass --merge-adapter"):
        convert_folder(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    words = ["talking-heads", "convert", str(folder), str(tmp_path / "out"), "--merge-adapter"]
    with mock.patch("sys.argv", words), contextlib.suppress(SystemExit):
        main()
    made = load(tmp_path / "out")
    assert len(mixings(made)) == 2 and not any("lora" in name for name, _ in made.named_parameters())
    torch.testing.assert_close(logits(made), logits(model), rtol=1e-4, atol=1e-5)
    assert (logits(made) - logits(bert())).abs().max() > 1e-3


def test_mistakes_with_adapters_are_one_line(adapter, tmp_path):
    folder, _ = adapter
    with pytest.raises(UserError, match="merge_adapter needs an adapter's folder; got no adapter_config"):
        convert_folder(tmp_path / "base", tmp_path / "out", merge_adapter=True)
    settings = json.loads((folder / "adapter_config.json").read_text())
    for change, match in (
        ({"peft_type": "IA3"}, "must be LoRA to be merged; got 'IA3'"),
        ({"base_model_name_or_path": None}, "must name its base model"),
        ({"base_model_name_or_path": str(tmp_path / "nowhere")}, "a model must be a folder"),
    ):
        (folder / "adapter_config.json").write_text(json.dumps(settings | change))
        with pytest.raises(UserError, match=match):
            convert_folder(folder, tmp_path / "out", merge_adapter=True)
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(UserError, match="must hold weights as safetensors"):
        convert_folder(folder, tmp_path / "out", merge_adapter=True)
    assert not (tmp_path / "out").exists()


def test_a_backend_by_name(tmp_path, monkeypatch):
    from talking_heads import kernels

    made = bert()
    convert(made, backend="chunked")
    want, calls = logits(bert()), []
    chunked = kernels.ALL["chunked"].attention
    monkeypatch.setattr(kernels.ALL["chunked"], "attention", lambda x: calls.append(1) or chunked(x))
    torch.testing.assert_close(logits(made), want, rtol=1e-4, atol=1e-5)
    assert len(calls) == 2
    made.save_pretrained(tmp_path)
    logits(load(tmp_path))
    assert len(calls) == 2  # a choice of the process, not of the model
    logits(load(tmp_path, backend="chunked"))
    assert len(calls) == 4
    set_backend(made, "auto")
    logits(made)
    assert len(calls) == 4
    with torch.no_grad():
        assert made(IDS, output_attentions=True).attentions[0].shape == (2, 4, 7, 7)
    set_backend(made, "decode")
    with pytest.raises(UserError, match='backend="decode" cannot do this call'):
        made(IDS)
    for wrong in (lambda: convert(bert(), backend="gpu"), lambda: set_backend(made, "gpu")):
        with pytest.raises(UserError, match="backend must be"):
            wrong()
    with pytest.raises(UserError, match="set_backend needs a converted model"):
        set_backend(bert(), "chunked")
