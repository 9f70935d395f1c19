"""Commands run in this process, as a user types them."""

import sys
from typing import NamedTuple

import pytest

from talking_heads.cli import main


class Done(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def talking_heads(monkeypatch, capsys):
    """talking_heads("view", model, text): the exit code, and what was printed to standard output and error."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["talking-heads", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        return Done(stop.value.code or 0, *capsys.readouterr())

    return run


def refused(done: Done, *parts: str) -> str:
    """The one line of a refusal, which has each of the parts."""
    assert done.code == 2, done
    assert done.err.count("\n") == 1 and done.err.startswith("talking-heads: "), done.err
    assert "; got " in done.err and all(part in done.err for part in parts), done.err
    return done.err
