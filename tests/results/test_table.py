"""Tables for terminals of any width, for Markdown, and as files."""

import json
import sys

import pytest

from talking_heads.errors import UserError
from talking_heads.results.table import Table

WORDS = "a longer explanation in words"


def table():
    return Table.of(
        ("arm", "parameters", "loss, equal steps", "said"),
        [("multi-head:8", "1,234", "4.212 ± 0.010", WORDS), ("talking-heads:16", "1,300", "-", "a|b")],
    )


@pytest.mark.parametrize("width", [10, 30, 40, 60, 200])
def test_no_cell_is_broken_within_a_word(width):
    made = table().to_text(width)
    lines = made.splitlines()
    for word in ("multi-head:8", "talking-heads:16", "parameters", "1,300", "steps", *WORDS.split()):
        assert any(word in line.split() or word in line for line in lines)
    blocks = made.split("\n\n")
    assert all(block.startswith("arm") for block in blocks) and (len(blocks) == 1) == (width == 200)
    if width >= 40:
        assert max(map(len, lines)) <= width


def test_figures_stand_right_and_cells_may_have_lines():
    made = Table.of(("name", "figure"), [("x", "1.5\n+0.1"), ("y", "12.25")]).to_text(80)
    assert made.splitlines() == [
        "name  figure",
        "----  ------",
        "x        1.5",
        "        +0.1",
        "y      12.25",
    ]


def test_markdown_keeps_one_line_a_row():
    lines = table().to_markdown().splitlines()
    assert len(lines) == 4 and r"a\|b" in lines[3]
    assert len(Table.of(("a", "b"), [("x\ny", "z")]).to_markdown().splitlines()) == 3


def test_files_of_a_table_follow_links_as_any_named_output_does(tmp_path):
    (tmp_path / "real").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    table().to_json(tmp_path / "link")
    assert json.loads((tmp_path / "real").read_text())["rows"][0]["arm"] == "multi-head:8"
    assert table().to_csv(tmp_path / "link").startswith("arm,parameters") and (tmp_path / "link").is_symlink()


def test_pandas():
    pandas = pytest.importorskip("pandas")
    made = Table(
        [{"head": "encoder.0:1", "score": 0.5}, {"head": "encoder.0:2"}], ("head",), "score", {"limit": 3}
    )
    frame = made.to_pandas()
    assert isinstance(frame, pandas.DataFrame) and list(frame.columns) == ["head", "score"]
    assert frame["score"][0] == 0.5 and pandas.isna(frame["score"][1]) and frame.attrs == {"limit": 3}


def test_without_pandas_the_command_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match=r"to_pandas needs the package pandas; got .*; pip install pandas"):
        table().to_pandas()
