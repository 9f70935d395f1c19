"""The page: what it holds, how large it is, and that a real browser draws it and its keys work."""

import base64
import hashlib
import html
import json
import subprocess
from functools import cache

import numpy as np
import pytest

from talking_heads.errors import UserError
from talking_heads.heads import draw, layers, page, view
from talking_heads.heads.prune import shrink
from talking_heads.heads.view_data import Panel, View
from talking_heads.heads.view_page import links_of
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


def test_pairs_and_pieces():
    seen = view(model("bert"), tokenizer(), "the old dogs", pair="a ball", pieces=True)
    (panel,) = seen.panels
    assert panel.queries == ["[CLS]", "the", "old", "[UNK]", "[SEP]", "a", "ball", "[SEP]"]
    assert panel.tags == ("saaasbbs",) * 2
    np.testing.assert_allclose(panel.softmax.sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(panel.special, panel.softmax[..., [0, 4, 7]].sum(-1).mean(-1), rtol=1e-4)
    (words,) = view(model("bert"), tokenizer(), "the old dogs", pair="a ball").panels
    assert words.queries == ["the", "old", "dogs", "a", "ball"] and words.tags == ("aaabb",) * 2
    places = [1, 2, 3, 5, 6]
    np.testing.assert_allclose(words.softmax, panel.softmax[:, :, places][..., places], rtol=1e-5)
    with pytest.raises(UserError, match=r"two texts must fit the model together; got .*40 tokens"):
        view(model("bert"), tokenizer(), "dog " * 20, pair="ball " * 20)


def test_a_pair_has_the_token_types_of_its_texts():
    made = model("bert")
    (panel,) = view(made, tokenizer(), "the dog", pair="a ball", pieces=True).panels
    read = tokenizer()("the dog", "a ball", return_tensors="pt")
    made.set_attn_implementation("eager")
    wanted = made(**read, output_attentions=True).attentions
    np.testing.assert_allclose(panel.softmax, [x[0].detach().numpy() for x in wanted], rtol=1e-4, atol=1e-6)


def test_links_of_a_pair_are_kept_to_each_text():
    maps = np.array([[[[0.4, 0.3, 0.2, 0.1]]]])
    memory, weight, _ = links_of(maps, 2, [np.array([0, 1, 2]), np.array([3])])
    assert memory.tolist() == [[[[0, 3]]]] and weight.tolist() == [[[[127, 32]]]]
    memory, weight, _ = links_of(maps, 4, [np.array([0, 1, 2]), np.array([3])])
    assert memory[0, 0, 0, :3].tolist() == [0, 1, 3] and weight[0, 0, 0, 3] == 0


def test_two_models_side_by_side():
    talking, plain = (view(model(name), tokenizer(), TEXT) for name in ("bert, talking", "bert"))
    both = talking.against(plain, "before")
    made = page(both)
    for name in ("softmax weights of BertForSequenceClassification", "softmax weights of before"):
        assert name in made
    assert set(_data(made)["panels"][0]["maps"]) == {"softmax", "mixed", "other softmax"}
    assert (
        _data(made)["panels"][0]["maps"]["other softmax"]
        == _data(page(plain))["panels"][0]["maps"]["softmax"]
    )
    with pytest.raises(UserError, match="must see the same words in the same parts"):
        talking.against(view(model("bert"), tokenizer(), "a dog"))


def _data(made):
    return json.loads(made.partition('id="data">')[2].partition("</script>")[0])


KEYS = """<script>
const press = key => document.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
const lines = () => document.querySelectorAll("svg[data-map=softmax] line").length;
const name = () => $("name").textContent, set = (id, key, value) => { $(id)[key] = value; $(id).dispatchEvent(new Event("input")); };
const said = {first: name(), all: lines()};
press("ArrowRight"); said.right = name();
press("ArrowDown"); said.down = name();
press("ArrowLeft"); press("ArrowUp"); said.back = name();
press("j"); said.word = document.querySelector("svg text.on").textContent; said.of = lines(); said.told = $("said").textContent;
press("Escape"); press("+"); said.more = lines(); said.focus = document.activeElement.dataset.name; said.place = location.hash;
set("between", "value", "ab"); said.ab = lines();
said.from = Math.max(...[...document.querySelectorAll("svg[data-map=softmax] line")].map(x => +x.dataset.queries));
set("between", "value", ""); set("special", "checked", true); said.plain = [...new Set([...document.querySelectorAll("svg[data-map=softmax] text")].map(x => x.textContent))];
set("special", "checked", false); set("sink", "checked", true); said.sink = document.querySelectorAll('line[data-memories="0"], line[data-queries="0"]').length;
set("find", "value", "BALL"); said.found = $("said").textContent; said.hits = $("hits").textContent;
press("t"); said.thumbs = document.querySelectorAll(".thumbs canvas").length;
const pixels = document.querySelector(".thumbs canvas").getContext("2d").getImageData(0, 0, 64, 56).data; said.ink = pixels.some(x => x > 0);
set("least", "value", 90); said.strong = lines();
document.body.append(Object.assign(document.createElement("pre"), {id: "result", textContent: JSON.stringify(said)}));
</script></body>"""


def test_keys_and_controls_in_a_real_browser(tmp_path):
    seen = view(model("bert, talking"), tokenizer(), "the old dog chased", pair="a small ball", pieces=True)
    path = tmp_path / "view.html"
    added = base64.b64encode(hashlib.sha256(KEYS[8:-16].encode()).digest()).decode()
    made = page(seen, "encoder.0:3").replace("script-src ", f"script-src 'sha256-{added}' ")
    path.write_text(made.replace("</body>", KEYS))
    command = [*browser(tmp_path / "user"), "--dump-dom", f"file://{path}"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=90).stdout
    said = json.loads(html.unescape(shown.partition('id="result">')[2].partition("</pre>")[0]))
    moves = [said[x] for x in ("first", "right", "down", "back")]
    assert moves == ["encoder.0:3", "encoder.0:0", "encoder.1:0", "encoder.0:3"]
    assert said["word"] == "[CLS]" and 0 < said["of"] <= 3 and said["of"] < said["all"] <= 30
    assert said["told"].startswith("\u201c[CLS]\u201d attends to; softmax weights: ")
    assert said["all"] < said["more"] <= 40 and said["focus"] == "encoder.0:3"
    assert said["place"] == "#encoder.0:3"
    assert 0 < said["ab"] < said["more"] and said["from"] <= 4
    assert said["plain"] == ["the", "old", "dog", "chased", "a", "small", "ball"]
    assert said["sink"] == 0 and said["thumbs"] == 8 and said["ink"]
    assert said["found"].startswith("\u201cball\u201d attends to")
    assert said["hits"] == "1 among words that attend, 1 among those attended to"
    assert said["strong"] < said["all"]


@pytest.mark.slow
def test_several_in_a_notebook(tmp_path):
    seen = view(model("bert, talking"), tokenizer(), TEXT)
    (tmp_path / "note.html").write_text(f"<!doctype html><body>{seen._repr_html_() * 2}</body>")
    command = [
        *browser(tmp_path / "user"),
        "--enable-logging=stderr",
        "--virtual-time-budget=4000",
        f"--screenshot={tmp_path / 'note.png'}",
    ]
    done = subprocess.run(
        [*command, "--window-size=900,1200", f"file://{tmp_path / 'note.html'}"],
        capture_output=True, text=True, timeout=90, check=True,
    )  # fmt: skip
    assert "Uncaught" not in done.stderr and "Refused" not in done.stderr
    assert (tmp_path / "note.png").stat().st_size > 30_000


def test_a_page_stays_inside_a_narrow_window(tmp_path):
    (tmp_path / "view.html").write_text(page(large(30, 3, 16), "encoder.1:11"))
    for name, (window, content) in widths(tmp_path, ["view.html"], (400, 1280), tmp_path / "user").items():
        assert content <= window, name


@pytest.mark.slow
def test_a_large_page_draws_in_a_real_browser(tmp_path):
    (tmp_path / "view.html").write_text(page(large(), "encoder.11:11"))
    shot = tmp_path / "view.png"
    command = [*browser(tmp_path / "user"), f"--screenshot={shot}", "--window-size=1200,900"]
    subprocess.run(
        [*command, f"file://{tmp_path / 'view.html'}"], capture_output=True, timeout=90, check=True
    )
    assert shot.stat().st_size > 30_000
