"""Pictures: any text as it is written, axes taken and given back, nothing of pyplot's touched."""

import logging
import re
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure

from talking_heads import heads
from talking_heads.errors import UserError
from talking_heads.heads.mixing import maps_of
from talking_heads.results import fonts

from .small import model, tokenizer


def seen(text, name="bert, talking"):
    return heads.view(model(name), tokenizer(), text)


def words_drawn(path):
    """The texts of an SVG."""
    return re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text())


@pytest.mark.parametrize("text", ["the dog $x^$ ran", "US$5-$6 a dog", "$$ _a_ ^b^", "100 % \\alpha {x}"])
def test_signs_of_formulas_are_signs(text, tmp_path):
    found = seen(text)
    for ending in ("svg", "png"):
        heads.draw(found, tmp_path / f"x.{ending}")
    drawn = words_drawn(tmp_path / "x.svg")
    for word in found.panels[0].queries:
        assert word in drawn, (word, drawn)


@pytest.mark.parametrize("text", ["the 狗 saw", "여우 dog", "كلب dog", "a 🙂 dog", "собака"])
def test_letters_of_any_language_are_texts_in_svg(text, tmp_path):
    heads.draw(seen(text), tmp_path / "x.svg")
    assert set(text.split()) <= set(words_drawn(tmp_path / "x.svg"))
    heads.draw(seen(text), tmp_path / "x.png")


def test_letters_that_no_font_has_are_named(caplog, monkeypatch):
    monkeypatch.setattr(fonts, "_installed", dict)
    monkeypatch.setattr(fonts, "_told", set())
    with caplog.at_level(logging.WARNING, "talking_heads"):
        assert fonts.families("a dog") == [fonts.FIRST, "sans-serif"] and not caplog.records
        fonts.families("the 狗 and 鳥")
        fonts.families("the 鳥")
    assert len(caplog.records) == 1  # each letter once
    assert "no font here has 狗 鳥: PNG pictures show boxes" in caplog.records[0].getMessage()


def test_a_font_that_has_the_letters_is_taken(monkeypatch):
    has = {"plain": "a", "other": "x", "asian": "狗鳥"}
    monkeypatch.setattr(fonts, "_path", lambda name: "plain")
    monkeypatch.setattr(fonts, "_installed", lambda: {"Other": "other", "Asian": "asian"})
    monkeypatch.setattr(fonts, "_letters", lambda path: frozenset(has[path]))
    assert fonts.families("a 狗") == [fonts.FIRST, "Asian", "sans-serif"]


def test_every_drawing_function_takes_axes_and_gives_them_back(tmp_path):
    talking = model("bert, talking")
    maps, found = maps_of(talking), seen("the old dog")
    table = heads.Table(
        [{"relation": "obj", "head": f"encoder.{i}:{j}", "score": i / 2, "importance": j} for i in (0, 1) for j in (0, 1)],
        ("relation", "head"), "score",
    )  # fmt: skip
    moved = heads.Table(
        [{"step": s, "layer": "encoder.0", "map": "logits_mix", "distance": s} for s in (1, 2)],
        ("step",),
        "distance",
    )
    cases = [
        ((1, 2), lambda path, axes: heads.draw(found, path, axes=axes)),
        ((len(maps), 3), lambda path, axes: heads.draw_maps(path, maps, axes=axes)),
        ((1, 1), lambda path, axes: heads.draw_movement(path, moved, axes=axes)),
        ((1, 1), lambda path, axes: heads.draw_importance(path, table, axes=axes)),
        ((1, 1), lambda path, axes: heads.heads_by_layer(path, table, "relation", ["obj"], axes=axes)),
    ]
    for number, (shape, draw) in enumerate(cases):
        mine = Figure().subplots(*shape)
        back = draw(None, mine)
        assert np.ravel(back)[0] is np.ravel(mine)[0], number
        path = tmp_path / f"{number}.png"
        alone = draw(path, None)
        assert path.stat().st_size > 1000 and np.ravel(alone)[0].figure is not np.ravel(mine)[0].figure
    with pytest.raises(
        UserError, match="axes must be one for each of softmax weights and mixed weights; got 1"
    ):
        heads.draw(found, axes=Figure().subplots())


def test_pyplot_and_its_backend_are_the_users(tmp_path):
    code = """
import sys, matplotlib
matplotlib.use("svg")
from talking_heads.results import charts
figure, axes = charts.plot().subplots(1, 2, figsize=(3, 2))
charts.save(figure, sys.argv[1])
assert matplotlib.get_backend() == "svg" and "matplotlib.pyplot" not in sys.modules
assert matplotlib.rcParams["text.parse_math"] is True and matplotlib.rcParams["svg.fonttype"] == "path"
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "x.png")], check=True)


def test_notebooks_show_views_tables_and_results():
    found = seen("</script> & <b>dog")
    shown = found._repr_html_()
    assert (
        shown.startswith("<iframe ") and shown.endswith("></iframe>") and 'sandbox="allow-scripts"' in shown
    )
    inside = re.search(r'srcdoc="([^"]*)"', shown)[1]
    assert "<" not in inside and "&lt;!doctype html&gt;" in inside
    table = heads.mixing(model("bert, talking"))
    shown = table._repr_html_()
    assert shown.startswith("<table>") and "encoder.0" in shown and "<th>distance</th>" in shown
    assert "&lt;b&gt;" in heads.Table([{"a": "<b>"}], ("a",), "a")._repr_html_()


def test_a_view_as_numbers():
    found = seen("the old dog").to_dict()
    (panel,) = found["panels"]
    assert np.array(panel["softmax"]).shape == np.array(panel["mixed"]).shape == (2, 4, 3, 3)
    assert panel["queries"] == ["the", "old", "dog"] and found["talking"]
    assert "mixed" not in seen("the dog", "bert").to_dict()["panels"][0]
