"""Pictures in `view`: positions are patches, proven by noise in three corners; the page shows and colours them."""

import base64
import hashlib
import html
import json
import subprocess

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers import AutoImageProcessor, ViTImageProcessorPil

from talking_heads import heads
from talking_heads.errors import UserError
from talking_heads.heads import picture as pictures
from talking_heads.hf import convert

from ..browser import browser, widths
from .small import model, tokenizer
from .test_commands import run

SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
FORM = {"image_size": 32, "patch_size": 8}
TEXT = {"vocab_size": 40, "max_position_embeddings": 16, **SIZES}


def _of(name, config=None, **more):
    kind = getattr(transformers, name)
    config = getattr(transformers, config or name.partition("For")[0].removesuffix("Model") + "Config")
    return lambda: kind(config(**SIZES | FORM | more))


def _clip(name):
    config = getattr(transformers, f"{name}Config")(text_config=TEXT, vision_config=SIZES | FORM)
    return lambda: getattr(transformers, f"{name}Model")(config)


# model: (how it is made, tokens before the patches, tokens after them)
MODELS = {
    "ViT": (_of("ViTForImageClassification"), 1, 0),
    "DeiT": (_of("DeiTModel"), 2, 0),
    "BEiT": (_of("BeitModel"), 1, 0),
    "DINOv2 with registers": (_of("Dinov2WithRegistersModel", num_register_tokens=3), 4, 0),
    "YOLOS": (_of("YolosModel", image_size=[32, 32], num_detection_tokens=7), 1, 7),
    "CLIP": (_clip("CLIP"), 1, 0),
    "SigLIP": (_clip("Siglip"), 0, 0),
}


def made(name, seed=0):
    transformers.set_seed(seed)
    found = (MODELS.get(name) or WITHOUT[name])[0]().eval()
    with torch.no_grad():  # as if trained: at random starts attention is all but uniform
        for key, p in found.named_parameters():
            if key.endswith("weight") and p.dim() == 2:
                p.mul_(4)
    return found


def processor(high=32, wide=32):
    return ViTImageProcessorPil(size={"height": high, "width": wide})


@pytest.fixture
def cat(tmp_path):
    """Wider than high; red at the left, green at the bottom."""
    down, across = np.mgrid[0:60, 0:90]
    colours = np.stack([255 - across * 2, down * 4, np.full_like(down, 60)], -1).astype(np.uint8)
    Image.fromarray(colours).save(tmp_path / "cat.png")
    return tmp_path / "cat.png"


@pytest.mark.parametrize("name", MODELS)
def test_positions_are_patches(name, cat):
    _, before, after = MODELS[name]
    network = made(name)
    seen = heads.view(network, processor(), picture=cat)
    assert (seen.picture.rows, seen.picture.columns, seen.picture.first) == (4, 4, before)
    panel = seen.panels[0]
    patches = [f"r{row} c{column}" for row in range(4) for column in range(4)]
    assert panel.queries[before : before + 16] == patches and len(panel.queries) == before + 16 + after
    assert panel.tags[0] == "s" * before + "a" * 16 + "s" * after
    assert before == 0 or panel.queries[0] == "[class]"
    assert seen.title == "cat.png" and set(panel.counts) == {(4, 4)} and len(panel.counts) == 2
    pixels = processor()(images=Image.open(cat), return_tensors="pt")["pixel_values"]
    network.set_attn_implementation("eager")
    part = network.vision_model if name in ("CLIP", "SigLIP") else network
    wanted = part(pixel_values=pixels, output_attentions=True).attentions
    np.testing.assert_allclose(panel.softmax, torch.cat(wanted).detach().numpy(), rtol=1e-4, atol=1e-5)
    assert {x.label for x in heads.layers(network)} >= {f"{panel.part}.{number}" for number in panel.numbers}


def test_rows_and_columns_of_a_picture_that_is_no_square(cat):
    network = transformers.ViTModel(transformers.ViTConfig(**SIZES, image_size=[16, 44], patch_size=8)).eval()
    seen = heads.view(network, processor(16, 44), picture=cat)
    assert (seen.picture.rows, seen.picture.columns) == (2, 5)
    assert seen.picture.pixels.shape == (16, 40, 3)  # what does not fill a patch is not seen
    assert seen.picture.pixels[0, 0, 0] > seen.picture.pixels[0, -1, 0] + 100  # red at the left
    assert seen.picture.pixels[-1, 0, 1] > seen.picture.pixels[0, 0, 1] + 100  # green at the bottom


def _swin():
    return transformers.SwinModel(
        transformers.SwinConfig(image_size=32, patch_size=4, window_size=4, embed_dim=8, depths=[1, 1], num_heads=[2, 2])
    )  # fmt: skip


def _segformer():
    return transformers.SegformerModel(transformers.SegformerConfig(hidden_sizes=[8, 8, 8, 8], num_attention_heads=[1, 1, 2, 2], depths=[1] * 4))  # fmt: skip


WITHOUT = {
    "Swin": (_swin,),
    "Segformer": (_segformer,),
    "MAE": (_of("ViTMAEModel"),),
}


@pytest.mark.parametrize("name", WITHOUT)
def test_sequences_that_are_no_grid_are_refused_in_one_line(name, cat):
    with pytest.raises(UserError, match=r"^[^\n]*; got [^\n]*Model[^\n]*; [^\n]*$"):
        heads.view(made(name), processor(), picture=cat)


def test_what_is_no_picture(cat, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"\x89PNG")
    network = made("ViT")
    for picture, why in ((tmp_path / "bad.png", "Pillow reads"), (tmp_path / "none.png", "Pillow reads")):
        with pytest.raises(UserError, match=why):
            heads.view(network, processor(), picture=picture)
    with pytest.raises(UserError, match=r"must be one .* \[2, 3, 32, 32\]"):
        heads.view(network, None, picture=torch.rand(2, 3, 32, 32))
    with pytest.raises(UserError, match="layers that read it alone"):
        heads.view(model("bert"), tokenizer(), picture=torch.rand(3, 32, 32))
    for more in ({}, {"text": "a", "picture": cat}, {"picture": cat, "pair": "a"}):
        with pytest.raises(UserError, match="or a picture alone"):
            heads.view(network, processor(), **more)


def test_mixed_weights_and_two_models(cat):
    network = made("ViT")
    plain = heads.view(network, processor(), picture=cat)
    convert(network)
    with torch.no_grad():
        for name, p in network.named_parameters():
            if name.endswith("_mix"):
                p.add_(torch.randn(p.shape) * 0.3)
    talking = heads.view(network, processor(), picture=cat)
    assert talking.talking and (talking.panels[0].mixed < 0).any()
    page = heads.page(talking.against(plain, "before"))
    assert set(_data(page)["panels"][0]["maps"]) == {"softmax", "mixed", "other softmax"}
    assert talking.to_dict()["patches"] == {"rows": 4, "columns": 4, "first": 1}


def _data(made):
    return json.loads(made.partition('id="data">')[2].partition("</script>")[0])


def test_a_page_of_197_positions_and_144_heads_is_under_2_mb_and_asks_no_network():
    softmax = np.random.default_rng(0).random((12, 12, 197, 197), np.float32) ** 8
    softmax /= softmax.sum(-1, keepdims=True)
    noise = np.random.default_rng(1).integers(
        0, 255, (336, 336, 3), np.uint8
    )  # no picture is larger as a JPEG
    seen = heads.view_data.Picture(14, 14, 1, noise)
    side = pictures._side(seen, 197)
    panel = heads.view_data.Panel(
        "encoder", side.names, side.names, softmax, softmax - 0.3 * softmax[:, ::-1],
        np.zeros((12, 12)), [(12, 12)] * 12, tags=(side.tags, side.tags),
    )  # fmt: skip
    made = heads.page(heads.View([panel], "large", True, picture=seen), "encoder.11:11")
    assert 1e6 < len(made.encode()) < 2e6 and _data(made)["panels"][0]["links"] > 6
    for word in ("http://", "https://", "src=", "@import", "url("):
        assert word not in made.replace("http://www.w3.org/2000/svg", "")


def test_the_attention_of_tokens_that_are_no_patches_is_whole(cat):
    seen = heads.view(made("DeiT"), processor(), picture=cat)
    panel, data = seen.panels[0], _data(heads.page(seen))["panels"][0]
    assert data["tokens"] == [0, 1] and data["kept"] == 1
    held = data["maps"]["softmax"]
    whole = np.frombuffer(base64.b64decode(held["whole"]), np.int8).reshape(2, 4, 3, 18)
    peaks = np.frombuffer(base64.b64decode(held["peaks"]), "<f4").reshape(2, 4, 3, 1)
    wanted = np.concatenate([panel.softmax[:, :, 2:].mean(2, keepdims=True), panel.softmax[:, :, :2]], 2)
    np.testing.assert_allclose(whole / 127 * peaks, wanted, atol=0.005)


LOOK = """<script>
const said = {}, patch = place => document.querySelector(`#maps rect[data-place="${place}"]`);
const opacities = () => [...document.querySelectorAll("#maps rect")].map(x => +x.style.fillOpacity);
said.patches = document.querySelectorAll("#maps rect").length;
said.image = document.querySelector("#maps image").getAttribute("href").slice(0, 22); said.alt = document.querySelector("#seen img").alt;
said.mean = opacities();
patch(7).onmouseenter(); said.hovered = opacities(); said.from = document.querySelectorAll("rect.from").length;
patch(7).ownerSVGElement.onmouseleave(); said.back = opacities();
document.dispatchEvent(new KeyboardEvent("keydown", {key: "j"})); said.first = opacities(); said.told = document.getElementById("said").textContent;
patch(7).onclick(); said.chosen = opacities(); said.svg = document.querySelector("#maps svg").getAttribute("aria-label");
const find = document.getElementById("find"); find.value = "r2 c3"; find.dispatchEvent(new Event("input"));
said.found = document.getElementById("said").textContent; said.hits = document.getElementById("hits").textContent;
document.getElementById("small").checked = true; document.getElementById("small").dispatchEvent(new Event("input"));
const drawn = document.querySelector(".thumbs canvas"); said.ink = drawn.getContext("2d").getImageData(0, 0, drawn.width, drawn.height).data.some(x => x > 0);
document.body.append(Object.assign(document.createElement("pre"), {id: "result", textContent: JSON.stringify(said)}));
</script></body>"""


def test_patches_are_coloured_in_a_real_browser(cat, tmp_path):
    seen = heads.view(made("ViT"), processor(), picture=cat)
    path = tmp_path / "view.html"
    added = base64.b64encode(hashlib.sha256(LOOK[8:-16].encode()).digest()).decode()
    page = heads.page(seen, "encoder.1:2").replace("script-src ", f"script-src 'sha256-{added}' ")
    path.write_text(page.replace("</body>", LOOK))
    command = [*browser(tmp_path / "user"), "--dump-dom", f"file://{path}"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=90).stdout
    said = json.loads(html.unescape(shown.partition('id="result">')[2].partition("</pre>")[0]))
    maps = seen.panels[0].softmax[1, 2]
    assert said["patches"] == 17 and said["image"] == "data:image/jpeg;base64"
    assert said["alt"] == "cat.png, as the model sees it"
    for name, row in (
        ("mean", maps[1:].mean(0)), ("hovered", maps[7]), ("first", maps[0]), ("chosen", maps[7]),
    ):  # fmt: skip
        wanted = 0.9 * row / row.max()
        np.testing.assert_allclose(said[name], np.where(wanted < 0.045, 0, wanted), atol=0.02)
    assert said["from"] == 1 and said["back"] == said["mean"]
    assert said["told"].startswith("“[class]” attends to; softmax weights: ")
    assert said["svg"] == "softmax weights, encoder.1:2, from r1 c2"
    assert said["found"].startswith("“r2 c3” attends to") and said["hits"] == "1 found" and said["ink"]


def test_a_page_of_a_picture_stays_inside_a_narrow_window(cat, tmp_path):
    (tmp_path / "view.html").write_text(heads.page(heads.view(made("YOLOS"), processor(), picture=cat)))
    for name, (window, content) in widths(tmp_path, ["view.html"], (400, 1280), tmp_path / "user").items():
        assert content <= window, name


def test_the_command(cat, tmp_path, monkeypatch, capsys):
    made("ViT").save_pretrained(tmp_path / "vit")
    processor().save_pretrained(tmp_path / "vit")
    assert AutoImageProcessor.from_pretrained(tmp_path / "vit").size.height == 32
    out = tmp_path / "out"
    options = ["--picture", cat, "--head", 2, "--out", out, "--json", tmp_path / "view.json"]
    assert run(monkeypatch, "view", tmp_path / "vit", *options) == 0
    assert {p.name for p in out.glob("[!.]*")} == {"view.html", "view.svg", "view.png"}
    assert "data:image/jpeg" in (out / "view.html").read_text()
    assert json.loads((tmp_path / "view.json").read_text())["patches"]["rows"] == 4
    capsys.readouterr()
    assert run(monkeypatch, "view", tmp_path / "vit", "--out", out) == 2
    assert "a text or --picture" in capsys.readouterr().err
