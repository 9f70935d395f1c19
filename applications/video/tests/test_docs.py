"""The documents: figures are those of the JSON files, commands exist."""

import re
from pathlib import Path

import pytest

from retell.cli import parser
from retell.figures import report

ROOT = Path(__file__).parents[1]


def test_figures_are_those_of_the_files():
    assert (ROOT / "docs" / "results.md").read_text() == report(ROOT / "docs" / "results")


def commands() -> list[str]:
    lines = re.findall(r"^    retell (.+)$", (ROOT / "README.md").read_text(), re.M)
    return [re.sub(r"\s+#.*", "", line) for line in lines]


@pytest.mark.parametrize("line", commands())
def test_commands_of_the_readme_are_understood(line):
    import shlex

    parser().parse_args(shlex.split(line))


def test_no_import_of_the_other_distribution():
    for file in (ROOT / "retell").rglob("*.py"):
        assert "talking_heads" not in file.read_text()
