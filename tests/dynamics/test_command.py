"""The command: what it prints and writes, what it refuses, what it redraws."""

import json
import sys

import pytest

from talking_heads.cli import main

QUICK = ["--classifier", "fixed", "--seeds", "1", "--starts", "0", "--epochs", "5"]


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs `talking-heads dynamics ARGUMENTS`; gives (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["talking-heads", "dynamics", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), *capsys.readouterr()

    return run


def test_a_quick_run_and_its_redrawing(command, tmp_path):
    out = tmp_path / "out"
    code, said, mistakes = command(*QUICK, "--out", out, "--json", tmp_path / "all.json")
    assert code == 0 and not mistakes
    assert "The paper's classifiers" in said and "report.html" in said
    results = json.loads((out / "results.json").read_text())
    assert results == json.loads((tmp_path / "all.json").read_text())
    assert results["machine"] and results["versions"]["torch"] and results["settings"]["data"]["others"] == 20
    for path in [*out.glob("*.png"), *out.glob("runs/*"), out / "report.html"]:
        path.unlink()
    code, said, _ = command("--out", out, "--redraw")
    assert code == 0 and (out / "identity.png").exists() and not list(out.glob("runs/*"))
    assert "The paper's classifiers" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--heads", "4", "--text", "x"], "one experiment at a time; got --heads and --text"),
        (["--heads", "4", "--starts", "3"], "options must be those of --heads; got --starts"),
        (["--heads", "1"], "--heads must be at least 2"),
        (["--classifier", "best"], "a classifier must be one of fixed, trainable, two-layer; got 'best'"),
        (["--test", "x"], "--dev and --test go with --text"),
        (["--trace", "x"], "options must be those of the synthetic experiments; got --trace"),
        (["--rate", "0"], "--rate must be more than 0"),
        (["--seeds", "0"], "--seeds must be at least 1"),
        (["--full", "--heads", "2"], "--full is for the synthetic experiments"),
        (["--text", "nowhere.txt"], "a text file must exist"),
        (["--transformer", "nowhere"], "compare --snapshots"),
        (["--transformer", "x", "--epochs", "3"], "options must be those of --transformer; got --epochs"),
        (["--redraw"], "must hold results.json"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(command, tmp_path, arguments, said, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, mistake = command(*arguments, "--out", tmp_path / "out")
    assert code == 2 and said in mistake and mistake.count("\n") == 1


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ('{"settings": {}, "arms": []}', "results of talking-heads dynamics"),
        ('{"kind": "other"}', "results of talking-heads dynamics"),
        ("[]", "results of talking-heads dynamics"),
        ('{"kind": "text", ', "must be whole JSON"),
    ],
)
def test_results_of_something_else_are_not_redrawn(command, tmp_path, held, said):
    (tmp_path / "results.json").write_text(held)
    code, _, mistake = command("--redraw", "--out", tmp_path)
    assert code == 2 and said in mistake and mistake.count("\n") == 1
