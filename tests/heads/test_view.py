"""The page: what it holds, how large it is, and that a real browser draws it and its keys work."""

import base64
import hashlib
import subprocess
from functools import cache

import numpy as np
import pytest

from talking_heads.errors import UserError
from talking_heads.heads import draw, layers, page, view
from talking_heads.heads.prune import shrink
from talking_heads.heads.view import Panel, View, links_of
from talking_heads.heads.words import split_words

from ..browser import browser, widths
from .small import model, tokenizer

TEXT = "The old dog chased a tired brothers ball ."


def test_what_is_seen():
    seen = view(model("bert, talking"), tokenizer(), TEXT)
    (panel,) = seen.panels
    assert seen.talking and panel.softmax.shape == panel.mixed.shape == (2, 4, 9, 9)
    np.testing.assert_allclose(panel.softmax.sum(-1).mean(-1) + panel.special, 1, rtol=1e-5)
    assert not (panel.softmax < 0).any() and not np.allclose(panel.softmax, panel.mixed)
    plain = view(model("bert"), tokenizer(), TEXT)
    assert not plain.talking and '"mixed"' not in page(plain).partition("<script>")[0].split('id="data">')[1]
    name = seen.most_changed()
    change = np.abs(panel.mixed - panel.softmax).mean((2, 3))
    assert seen.find(name)[1:] == np.unravel_index(change.argmax(), change.shape)
    with pytest.raises(UserError, match=r"encoder\.0:0 to encoder\.1:3"):
        page(seen, "encoder.2:0")


def test_an_encoder_decoder_with_a_target():
    seen = view(model("t5, talking"), tokenizer(), TEXT, "She does n't sing")
    assert [(p.part, len(p.queries), len(p.memories)) for p in seen.panels] == [
        ("encoder", 9, 9), ("decoder", 4, 4), ("cross", 4, 9),
    ]  # fmt: skip
    decoder = seen.panels[1].softmax
    assert np.allclose(decoder, np.tril(decoder))
    assert len(view(model("t5"), tokenizer(), TEXT).panels) == 1
    with pytest.raises(UserError, match="encoder-decoder"):
        view(model("bert"), tokenizer(), TEXT, "no")
    with pytest.raises(UserError, match="must fit the model"):
        view(model("bert"), tokenizer(), "dog " * 60)


def test_words():
    assert split_words('He said: "don\'t!" (twice)') == [
        *["He", "said", ":"],
        '"',
        "don't",
        "!",
        '"',
        "(",
        "twice",
        ")",
    ]
    assert split_words("猫が眠る。 שלום!") == ["猫", "が", "眠", "る", "。", "שלום", "!"]
    assert split_words("नमस्ते दुनिया") == ["नमस्ते", "दुनिया"]


@pytest.mark.parametrize("name", ["bert, talking, 8 value heads", "bert, talking, 8 softmax heads"])
def test_other_numbers_of_heads_before_and_after_mixing(name, tmp_path):
    found = view(model(name), tokenizer(), "the old dog chased a ball")
    (panel,) = found.panels
    assert panel.softmax.shape == panel.mixed.shape and panel.softmax.shape[1] == 8
    assert not panel.changes().any() and found.most_changed() == "encoder.0:0"
    assert f'"mixes": ["{"4 heads to 8" if "value" in name else "8 heads to 4"}"' in page(found)
    draw(found, tmp_path / "view.svg", "encoder.1:7")
    with pytest.raises(UserError, match=r"encoder\.1:7"):
        found.find("encoder.0:8")


def test_layers_pruned_to_other_numbers_of_heads():
    made = model("bert")
    kept = {layer.name: heads for layer, heads in zip(layers(made), ([0, 1, 2], [3]), strict=True)}
    shrink(made, kept)
    found = view(made, tokenizer(), "the old dog chased a ball")
    assert found.panels[0].counts == [(3, 3), (1, 1)]
    assert '"counts": [3, 1]' in page(found)
    with pytest.raises(UserError, match="a head must be one of"):
        found.find("encoder.1:1")


def test_links_keep_the_strongest():
    maps = np.array([[[[0.1, -0.6, 0.3]]]])
    memory, weight, scale = links_of(maps, 2)
    assert memory.tolist() == [[[[1, 2]]]] and scale[0, 0] == np.float32(0.6)
    np.testing.assert_allclose(weight * scale[..., None, None] / 127, [[[[-0.6, 0.3]]]], atol=0.003)


@cache
def large(words=512, layers=12, heads=12):
    draw = np.random.default_rng(0)
    softmax = draw.random((layers, heads, words, words), np.float32) ** 8
    softmax /= softmax.sum(-1, keepdims=True)
    mixed = softmax - 0.3 * softmax[:, ::-1]
    names = [f"unbelievable{i}" for i in range(words)]
    return View(
        [
            Panel(
                "encoder", names, names, softmax, mixed, np.zeros((layers, heads)), [(heads, heads)] * layers
            )
        ],
        "large",
        True,
    )


def test_a_page_of_512_words_and_144_heads_is_under_2_mb():
    made = page(large(), "encoder.11:11")
    assert 0.5e6 < len(made.encode()) < 2e6


def test_the_page_asks_no_network_and_takes_any_text():
    seen = view(model("bert, talking"), tokenizer(), "</script><b>old & dog @DATA@")
    made = page(seen)
    assert made.count("</script>") == 2 and "<b>" not in made
    for word in ("http://", "https://", "src=", "@import", "url("):
        assert word not in made.replace("http://www.w3.org/2000/svg", "")


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_pictures(tmp_path, ending):
    path = tmp_path / f"view.{ending}"
    draw(view(model("bert, talking"), tokenizer(), TEXT), path, "encoder.1:2")
    assert path.stat().st_size > 5000
    draw(large(400, 1, 1), path)
    assert path.stat().st_size < 4e6


KEYS = """<script>
const press = key => document.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
const lines = () => document.querySelectorAll("svg[data-map=softmax] line").length;
const said = [document.getElementById("name").textContent, lines()];
press("ArrowRight"); said.push(document.getElementById("name").textContent);
press("ArrowDown"); said.push(document.getElementById("name").textContent);
press("ArrowLeft"); press("ArrowUp"); said.push(document.getElementById("name").textContent);
press("j"); said.push(document.querySelector("svg text.on").textContent, lines());
press("Escape"); press("+"); said.push(lines(), document.activeElement.dataset.name, location.hash);
document.body.append(Object.assign(document.createElement("pre"), {id: "said", textContent: JSON.stringify(said)}));
</script></body>"""


def test_keys_in_a_real_browser(tmp_path):
    seen = view(model("bert, talking"), tokenizer(), TEXT)
    path = tmp_path / "view.html"
    added = base64.b64encode(hashlib.sha256(KEYS[8:-16].encode()).digest()).decode()
    made = page(seen, "encoder.0:3").replace("script-src ", f"script-src 'sha256-{added}' ")
    path.write_text(made.replace("</body>", KEYS))
    command = [*browser(tmp_path / "user"), "--dump-dom", f"file://{path}"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=90).stdout
    import json

    first, lines, right, down, back, word, of_word, more, focus, place = json.loads(
        shown.partition('id="said">')[2].partition("</pre>")[0]
    )
    assert [first, right, down, back] == ["encoder.0:3", "encoder.0:0", "encoder.1:0", "encoder.0:3"]
    assert word == "The" and 0 < of_word <= 3 and 9 < lines <= 27 and lines < more <= 36
    assert focus == "encoder.0:3" and place == "#encoder.0:3"


def test_a_page_stays_inside_a_narrow_window(tmp_path):
    (tmp_path / "view.html").write_text(page(large(30, 3, 16), "encoder.1:11"))
    for name, (window, content) in widths(tmp_path, ["view.html"], (400, 1280), tmp_path / "user").items():
        assert content <= window, name


def test_a_large_page_draws_in_a_real_browser(tmp_path):
    (tmp_path / "view.html").write_text(page(large(), "encoder.11:11"))
    shot = tmp_path / "view.png"
    command = [*browser(tmp_path / "user"), f"--screenshot={shot}", "--window-size=1200,900"]
    subprocess.run(
        [*command, f"file://{tmp_path / 'view.html'}"], capture_output=True, timeout=90, check=True
    )
    assert shot.stat().st_size > 30_000
