"""What is wrong with parallel text is said in one line; what may be dropped is dropped and counted."""

import json

import pytest

from .small import TINY, files, run, train_words


def refused(monkeypatch, capsys, *arguments):
    assert run(monkeypatch, "translate", *arguments) == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    return said


def change(paths, folder, **texts):
    """The same files with other texts."""
    found = dict(paths)
    for name, text in texts.items():
        name = name.replace("_", ".")
        found[name] = folder / name
        found[name].write_bytes(text if isinstance(text, bytes) else text.encode())
    return found


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ({"train_target": "one line\n"}, "1200 in {train.source} and 1 in {train.target}"),
        (
            {"train_target": b"\xff\xfe bytes\n" * 1200},
            "text must be UTF-8 (plain or gzip); got other bytes in {train.target}",
        ),
        ({"train_target": "\n" * 1200 + "x"}, "same number of lines"),
        (
            {"dev_source": "\n\nx\n", "dev_target": "y\n\n\n"},
            "must have pairs of sentences; got none in {dev.source}, {dev.target}",
        ),
    ],
)
def test_files_that_do_not_fit(paths, tmp_path, monkeypatch, capsys, texts, said):
    given = change(paths, tmp_path, **texts)
    found = refused(monkeypatch, capsys, "train", *train_words(given), *TINY, "--out", tmp_path / "out")
    for name, path in given.items():
        said = said.replace("{" + name + "}", str(path))
    assert said in found
    assert not (tmp_path / "out").exists()


def test_the_same_side_twice(paths, tmp_path, monkeypatch, capsys):
    twin = paths | {"train.target": paths["train.source"]}
    assert "two files" in refused(
        monkeypatch, capsys, "train", *train_words(twin), *TINY, "--out", tmp_path / "out"
    )
    copied = change(paths, tmp_path, train_target=paths["train.source"].read_text())
    said = refused(monkeypatch, capsys, "train", *train_words(copied), *TINY, "--out", tmp_path / "out")
    assert "source and target must differ; got the same 1200 lines twice" in said


def test_validation_files_that_are_swapped(paths, tmp_path, monkeypatch, capsys):
    swapped = paths | {"dev.source": paths["dev.target"], "dev.target": paths["dev.source"]}
    said = refused(monkeypatch, capsys, "train", *train_words(swapped), *TINY, "--out", tmp_path / "out")
    assert "got the other language in" in said and "swap the two files" in said


def test_half_of_the_options(paths, tmp_path, monkeypatch, capsys):
    words = train_words(paths)
    said = refused(monkeypatch, capsys, "train", *words[2:], *TINY, "--out", tmp_path / "out")
    assert "--source and --target, or --pairs; got --target" in said
    said = refused(monkeypatch, capsys, "train", *words[:4], *TINY, "--out", tmp_path / "out")
    assert "--dev-source and --dev-target, or --dev-pairs; got none" in said


def test_too_many_masked_heads_and_other_mistakes(paths, tmp_path, monkeypatch, capsys):
    words = [*train_words(paths), *TINY, "--out", tmp_path / "out"]
    said = refused(monkeypatch, capsys, "train", *words, "--head-mask", "random:7")
    assert "--head-mask must mask at most the 6 heads that there are; got random:7" in said
    assert "--head-mask must be random:N" in refused(monkeypatch, capsys, "train", *words, "--head-mask", "6")
    assert "must have attention" in refused(monkeypatch, capsys, "train", *words, "--arm", "none")
    said = refused(monkeypatch, capsys, "train", *words, "--arm", "talking-heads:2:layers=7")
    assert not (tmp_path / "out" / "run.json").exists(), said
    said = refused(monkeypatch, capsys, "train", *words, "--longest", "1")
    assert "at most 1 pieces" in said  # another setting of the same folder, as nothing had begun
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("kept")
    words[-1] = tmp_path / "mine"
    assert "must be new or empty" in refused(monkeypatch, capsys, "train", *words)


def test_tables_empty_lines_and_long_sentences(tmp_path, monkeypatch, capsys):
    """A table with a header in place of files, more than two columns; pairs dropped are counted."""
    given = files(tmp_path / "texts", train=30)
    sides = [given[f"train.{side}"].read_text().splitlines() for side in ("source", "target")]
    rows = [f"{i}\t{a}\t{b}" for i, (a, b) in enumerate(zip(*sides, strict=True))]
    rows += ["30\t\tnothing", f"31\t{'long ' * 300}\tlong", "32\tnothing\t"]
    table = tmp_path / "text.tsv"
    table.write_text("\n".join(["id\txx\tyy", *rows]) + "\n")
    words = [
        "--pairs",
        str(table),
        *train_words(given)[4:],
        *TINY,
        "--updates",
        "2",
        "--out",
        tmp_path / "out",
    ]
    said = refused(monkeypatch, capsys, "train", *words)
    assert "a table must have two columns, separated by a tab, or --columns must name them; got 3" in said
    said = refused(monkeypatch, capsys, "train", *words, "--columns", "xx,zz")
    assert "--columns must name two columns" in said and "id, xx, yy" in said
    result = tmp_path / "result.json"
    with pytest.warns(UserWarning) as told:
        assert run(monkeypatch, "translate", "train", *words, "--columns", "xx,yy", "--json", result) == 0
    said = " ".join(str(x.message) for x in told)
    assert "2 of 33 pairs have an empty side and were dropped" in said
    assert "1 of 31 pairs are longer than 256 pieces and were dropped" in said
    held = json.loads(result.read_text())
    assert held["pairs"] == 30 and held["dropped"] == {"empty": 2, "too long": 1}
    assert "dropped: 2 empty, 1 too long" in capsys.readouterr().out


def test_a_data_set_in_a_folder(tmp_path, monkeypatch, capsys):
    given = files(tmp_path / "texts", train=30)
    folder = tmp_path / "set"
    folder.mkdir()
    for part, name in (("train", "train"), ("validation", "dev")):
        sides = [given[f"{name}.{side}"].read_text().splitlines() for side in ("source", "target")]
        rows = [json.dumps({"translation": {"xx": a, "yy": b}}) for a, b in zip(*sides, strict=True)]
        (folder / f"{part}.jsonl").write_text("\n".join(rows) + "\n")
    words = [
        "--pairs",
        str(folder),
        "--dev-pairs",
        str(folder),
        *TINY,
        "--updates",
        "2",
        "--out",
        tmp_path / "out",
    ]
    result = tmp_path / "result.json"
    assert run(monkeypatch, "translate", "train", *words, "--columns", "xx,yy", "--json", result) == 0
    assert json.loads(result.read_text())["pairs"] == 30
    capsys.readouterr()  # with the library's progress bars
    said = refused(monkeypatch, capsys, "train", *words[:1], str(tmp_path / "nothing"), *words[2:])
    assert "must be readable and have a part train" in said
