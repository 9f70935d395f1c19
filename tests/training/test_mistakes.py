"""A user's mistakes on the command line: one line, exit code 2, nothing written."""

import gzip

import pytest

from talking_heads.results import folders

from .small import TINY, run

SPOILT = {
    "missing.txt": None,
    "empty.txt": b"",
    "binary.bin": bytes(range(256)) * 99,
    "short.txt": b"a few words\n" * 30,
    "cut.txt.gz": gzip.compress(b"words " * 9000)[:40],
}
OPTIONS = {
    "preset": (["--preset", "tiny"], "a preset must be one of"),
    "arm": (["--arm", "whispering-heads:4"], "an arm must be KIND:HEADS"),
    "heads": (["--arm", "talking-heads:3"], "multiple of its heads"),
    "twice": (["--arm", "multi-head:2", "--arm", "multi-head:2"], "arms must differ"),
    "objective": (["--objective", "translation"], "an objective must be"),
    "steps": (["--steps", "0"], "steps must be at least 1"),
    "seeds": (["--seeds", "-1"], "a seed or more"),
    "vocabulary": (["--vocabulary", "100"], "vocabulary must"),
    "two sources": (["--hub", "somewhere"], "both --text and --hub"),
    "transfer": (["--transfer", "planet"], "labels (file, half); got planet"),
    "transfer file": (["--transfer", "nowhere.txt,also-nowhere.txt"], "a text file must exist"),
    "long blocks": (["--length", "100000"], "must fill blocks of 100000 tokens"),
}
SIZES = [x for x in TINY if x not in ("--arm", "multi-head:2", "talking-heads:2")]


def one_line(capsys):
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("talking-heads: ") and "; got " in said
    return said


@pytest.mark.parametrize("name", SPOILT)
def test_texts(name, tmp_path, monkeypatch, capsys):
    path = tmp_path / name
    if SPOILT[name] is not None:
        path.write_bytes(SPOILT[name])
    assert run(monkeypatch, "compare", "--out", tmp_path / "out", *TINY, "--text", path) == 2
    assert name in one_line(capsys) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", OPTIONS)
def test_options(name, texts, tmp_path, monkeypatch, capsys):
    options, expected = OPTIONS[name]
    assert run(monkeypatch, "compare", "--out", tmp_path / "out", *SIZES, *texts, *options) == 2
    assert expected in one_line(capsys)
    assert not list((tmp_path / "out").glob("runs/*"))


def test_what_was_refused_leaves_the_folder_free(texts, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    assert run(monkeypatch, "compare", "--out", out, *TINY, *texts, "--length", "100000") == 2
    assert {path.name for path in out.iterdir()} <= {folders.LOCK, folders.MARKER}
    one_line(capsys)
    assert run(monkeypatch, "compare", "--out", out, *TINY, *texts, "--json", tmp_path) == 2
    assert "--json must name a file" in one_line(capsys)


@pytest.mark.slow
def test_training_that_diverges_is_said_to(texts, tmp_path, monkeypatch, capsys):
    options = [*TINY, *texts, "--transfer", "none", "--learning-rate", "1e30"]
    assert run(monkeypatch, "compare", "--out", tmp_path / "out", *options) == 0
    assert run(monkeypatch, "report", tmp_path / "out") == 0
    assert "diverged" in " ".join(capsys.readouterr().out.split())


def test_a_data_set_that_cannot_be_read(tmp_path, monkeypatch, capsys):
    nowhere = tmp_path / "nowhere"
    assert run(monkeypatch, "compare", "--out", tmp_path / "out", *TINY, "--hub", nowhere) == 2
    assert "must be readable" in one_line(capsys) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("folder", ["nowhere", "empty"])
def test_a_report_of_nothing(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "empty").mkdir()
    assert run(monkeypatch, "report", tmp_path / folder) == 2
    one_line(capsys)
    assert not list((tmp_path / "empty").iterdir())
