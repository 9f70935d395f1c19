"""The figures of maps by hand; maps of models, folders and runs."""

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file

from talking_heads.errors import UserError
from talking_heads.heads.mixing import (
    checkpoints,
    draw_maps,
    draw_movement,
    figures,
    maps_in,
    maps_of,
    mixing,
    movement,
    strongest,
)
from talking_heads.hf import convert, mixings

from .small import Own, model


def test_figures_by_hand():
    even = figures(np.eye(3))
    assert even == {"diagonal": 1, "distance": 0, "condition": 1, "determinant": 1, "eigenvalue": 1}
    found = figures(np.array([[2.0, 0, 0], [0, 1, -1], [0, 0, 0.5]]))
    assert found["diagonal"] == pytest.approx((1 + 0.5 + 1) / 3)
    assert found["determinant"] == pytest.approx(1) and found["eigenvalue"] == pytest.approx(0.5)
    assert found["distance"] == pytest.approx(((1 + 1 + 0.25) / 3) ** 0.5)
    assert figures(np.diag([1.0, 0.0]))["condition"] == np.inf
    wide = figures(np.ones((2, 4)))
    assert wide["determinant"] is None and wide["diagonal"] == pytest.approx(0.25)
    assert strongest(np.array([[1, 0.2, -0.5], [0, 1, 0], [0.1, 0, 1]]), 2) == ["0>2 -0.50", "0>1 +0.20"]


@pytest.mark.parametrize("name", ["bert, talking", "t5, talking"])
def test_a_folder_says_what_its_model_does(name, tmp_path):
    made = model(name)
    made.save_pretrained(tmp_path)
    mine, saved = maps_of(made), maps_in(tmp_path)
    assert mine.keys() == saved.keys() and len(mine) == (2 if name.startswith("bert") else 6)
    for layer, maps in mine.items():
        assert maps.keys() == saved[layer].keys() == {"logits_mix", "weights_mix", "product"}
        for key, mix in maps.items():
            assert np.array_equal(mix, saved[layer][key])
    table = mixing(made)
    assert len(table.rows) == 3 * len(mine) and {r["map"] for r in table.rows} == {
        "logits_mix",
        "weights_mix",
        "product",
    }


def test_own_layers_and_models_that_do_not_talk(tmp_path):
    maps = maps_of(Own())
    assert {k: x.shape for k, x in maps["encoder.0"].items()} == {
        "logits_mix": (3, 4),
        "weights_mix": (4, 2),
        "product": (3, 2),
    }
    with pytest.raises(UserError, match="whose heads talk"):
        maps_of(model("bert"))
    model("bert").save_pretrained(tmp_path)
    with pytest.raises(UserError, match="no maps in"):
        maps_in(tmp_path)
    whole = tmp_path / "model.safetensors"
    whole.write_bytes(whole.read_bytes()[:300])
    with pytest.raises(UserError, match="whole safetensors"):
        maps_in(tmp_path)


def test_a_run_and_its_pictures(tmp_path):
    made = model("bert, talking")
    for step in (10, 9, 100):
        with torch.no_grad():
            for mix in mixings(made).values():
                mix.weights_mix.copy_(torch.eye(4) * (1 + step / 100))
        made.save_pretrained(tmp_path / f"checkpoint-{step}")
    found = checkpoints(tmp_path)
    assert list(found) == [9, 10, 100]
    table = movement({step: maps_in(path) for step, path in found.items()})
    rows = [r for r in table.rows if (r["layer"], r["map"]) == ("encoder.0", "weights_mix")]
    assert [r["distance"] for r in rows] == pytest.approx([0.09, 0.10, 1.0])
    assert rows[0]["moved"] is None and [r["moved"] for r in rows[1:]] == pytest.approx([0.01, 0.9])
    draw_maps(tmp_path / "maps.png", maps_of(made))
    draw_movement(tmp_path / "movement.svg", table)
    assert (tmp_path / "maps.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (tmp_path / "movement.svg").read_bytes()


@pytest.mark.parametrize("kind", ["GPT2Model", "GPT2ForSequenceClassification"])
def test_a_folders_layers_are_called_as_its_models(kind, tmp_path):
    small = transformers.GPT2Config(vocab_size=9, n_embd=8, n_layer=3, n_head=2)
    made = getattr(transformers, kind)(small)
    convert(made, layers=[1, 2])
    made.save_pretrained(tmp_path)
    assert list(maps_in(tmp_path)) == list(maps_of(made)) == ["decoder.1", "decoder.2"]


def test_a_folder_of_a_class_of_ones_own_keeps_its_part(tmp_path):
    class MyForCausalLM(transformers.GPT2LMHeadModel):
        pass

    made = MyForCausalLM(transformers.GPT2Config(vocab_size=9, n_embd=8, n_layer=2, n_head=2))
    convert(made)
    made.save_pretrained(tmp_path)
    assert list(maps_in(tmp_path)) == list(maps_of(made)) == ["decoder.0", "decoder.1"]
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace("gelu_new", "no such function"))
    assert list(maps_in(tmp_path)) == ["decoder.0", "decoder.1"]


def test_a_folder_of_own_layers_is_named_by_its_keys(tmp_path):
    save_file(
        {"stack.10.logits_mix": torch.eye(2), "stack.9.logits_mix": torch.eye(2)}, tmp_path / "a.safetensors"
    )
    assert list(maps_in(tmp_path)) == ["encoder.0", "encoder.1"]
