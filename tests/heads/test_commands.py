"""The commands, on small models and files: what they write, and how they fail."""

import csv
import gzip
import json
import re
import sys

import pytest
import transformers

from talking_heads.cli import main
from talking_heads.errors import UserError
from talking_heads.reading.labelled import label_number, read_examples

from .small import DATA, model, tokenizer


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("models")
    for name in ("bert", "bert, talking", "t5", "gpt2"):
        folder = place / name.replace(", ", "-")
        model(name).save_pretrained(folder)
        tokenizer().save_pretrained(folder)
    lines = ["sentence\tlabel"] + [
        f"the old dog chased {x}\t{i % 2}" for i, x in enumerate(["a", "red", "ball", ".", "she", "sing"])
    ]
    (place / "task.tsv").write_text("\n".join(lines) + "\n")
    (place / "pairs.tsv").write_text("source\ttarget\nthe old dog\tshe sing\na ball .\the whistles .\n")
    return place


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["talking-heads", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code or 0


def test_dependencies(folders, tmp_path, monkeypatch, capsys):
    sample, out = DATA / "sample.conllu", tmp_path / "out"
    command = ["dependencies", folders / "bert", "--select", sample, "--report", sample, "--draws", 20]
    assert run(monkeypatch, *command, "--against", folders / "bert-talking", "--out", out) == 0
    found = json.loads((out / "results.json").read_text())
    assert found["options"]["direction"] == "either" and found["machine"] and found["best"]
    assert set(found["against"]) == {str(folders / "bert-talking")}
    assert (out / "heads.png").exists() and "random model" in (out / "report.html").read_text()
    said = capsys.readouterr().out
    assert "direction either, diagonal kept, punct no" in said and "| relation" in said


def test_baselines_only(tmp_path, monkeypatch):
    path = tmp_path / "b.json"
    for arguments in ([DATA / "sample.conllu"], ["no-such-model", DATA / "sample.conllu"]):
        assert run(monkeypatch, "dependencies", *arguments, "--baselines-only", "--json", path) == 0
        found = json.loads(path.read_text())
        assert 0 < found["chain"]["uuas"] < 1 and set(found["offset"]["obj"]) == {
            "accuracy",
            "offset",
            "count",
        }
    assert run(monkeypatch, "constituency", DATA / "sample.mrg", "--baselines-only", "--json", path) == 0
    found = json.loads(path.read_text())
    assert (
        set(found["baselines"]) == {"right", "left", "balanced", "random"}
        and found["options"]["punct"] is False
    )


def test_trees_left_out_are_named(tmp_path, monkeypatch, capsys):
    (tmp_path / "00").mkdir()
    (tmp_path / "00" / "a.mrg").write_text("(S (DT the) (JJ old) (NN dog))\n(S (UH Well))")
    (tmp_path / "b.ptb.gz").write_bytes(gzip.compress(b"\n(S (UH Oh))"))
    assert run(monkeypatch, "constituency", tmp_path, "--baselines-only") == 0
    said = "".join(capsys.readouterr())
    assert f"{tmp_path.name}: 2 left out: fewer than two words (the first at 00/a.mrg:2)" in said
    bank = tmp_path / "x.conllu"
    sample = (DATA / "sample.conllu").read_text()
    bank.write_text(sample + "1\ta\ta\tDET\tDT\t_\t1\tdet\t_\t_\n\n")
    assert run(monkeypatch, "dependencies", bank, "--baselines-only") == 0
    line = sample.count("\n") + 1
    assert f"x.conllu: 1 left out: no root (the first at x.conllu:{line})" in "".join(capsys.readouterr())


def test_constituency(folders, tmp_path, monkeypatch, capsys):
    command = [
        "constituency",
        folders / "bert",
        DATA / "sample.mrg",
        "--draws",
        20,
        "--json",
        tmp_path / "c.json",
    ]
    others = ["--against", folders / "bert", "--against", folders / "bert-talking"]
    assert run(monkeypatch, *command, *others, "--ablate", folders / "task.tsv") == 0
    found = json.loads((tmp_path / "c.json").read_text())
    assert found["layers"][0]["layer"] == "encoder.0" and len(found["ablate"]["costs"]) == 8
    assert {row["label"] for row in found["ablate"]["relation"]} >= {"S-F1", "NP"}
    assert len(found["against"]) == 2
    assert run(monkeypatch, *command, "--weights", "mixed") == 2
    assert "--normalise clip or abs" in capsys.readouterr().err


def test_importance_ablate_prune(folders, tmp_path, monkeypatch):
    data = folders / "task.tsv"
    assert (
        run(
            monkeypatch,
            "importance",
            folders / "bert-talking",
            data,
            "--site",
            "softmax",
            "--out",
            tmp_path / "i",
        )
        == 0
    )
    found = json.loads((tmp_path / "i" / "results.json").read_text())
    assert found["site"] == "softmax" and len(found["rows"]) == 8 and 0 < found["inequality"]["gini"] < 1
    assert (
        run(monkeypatch, "importance", folders / "t5", folders / "pairs.tsv", "--json", tmp_path / "t5.json")
        == 0
    )
    assert len(json.loads((tmp_path / "t5.json").read_text())["rows"]) == 24
    assert run(monkeypatch, "ablate", folders / "bert", data, "--points", 4, "--out", tmp_path / "a") == 0
    found = json.loads((tmp_path / "a" / "results.json").read_text())
    assert [row["masked"] for row in found["rows"]] == [0, 2, 4, 6, 8] and (
        tmp_path / "a" / "ablation.png"
    ).exists()
    small = tmp_path / "small"
    assert (
        run(monkeypatch, "prune", folders / "bert", data, small, "--keep", 0.5, "--json", tmp_path / "p.json")
        == 0
    )
    found = json.loads((tmp_path / "p.json").read_text())
    assert [row["heads"] for row in found["rows"]] == [8, 4] and found["rows"][1]["parameters"] < found[
        "rows"
    ][0]["parameters"]
    assert run(monkeypatch, "ablate", small, data, "--order", "least", "--points", 2) == 0
    assert run(monkeypatch, "prune", folders / "bert", data, small) == 2


def test_mixing_and_view(folders, tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, "mixing", folders / "bert-talking", "--out", tmp_path / "m") == 0
    found = json.loads((tmp_path / "m" / "results.json").read_text())
    assert len(found["rows"]) == 6 and (tmp_path / "m" / "maps.png").exists()
    for step in (1, 2):
        model("bert, talking").save_pretrained(tmp_path / "run" / f"checkpoint-{step}")
    assert run(monkeypatch, "mixing", tmp_path / "run", "--out", tmp_path / "r") == 0
    assert len(json.loads((tmp_path / "r" / "results.json").read_text())["movement"]) == 12
    assert run(monkeypatch, "mixing", folders / "bert") == 2
    view = ["view", folders / "bert-talking", "the old dog", "--out", tmp_path / "v"]
    assert run(monkeypatch, *view, "--layer", 1, "--head", 2) == 0
    assert {p.name for p in (tmp_path / "v").glob("[!.]*")} == {"view.html", "view.svg", "view.png"}
    assert '"first": "encoder.1:2"' in (tmp_path / "v" / "view.html").read_text()
    assert run(monkeypatch, *view, "--head", 9) == 2
    assert "encoder.0:0 to encoder.1:3" in capsys.readouterr().err
    two = ["--pair", "a ball", "--pieces", "--against", folders / "bert", "--json", "-"]
    assert run(monkeypatch, *view, *two) == 0
    assert json.loads(capsys.readouterr().out)["panels"][0]["queries"][-3:] == ["a", "ball", "[SEP]"]
    made = (tmp_path / "v" / "view.html").read_text()
    assert '"other softmax"' in made and f"of {folders / 'bert'}" in made and '"saaasbbs"' in made
    assert run(monkeypatch, *view, "--against", folders / "gpt2") == 2
    assert "the same words in the same parts; got " in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["dependencies", "/no/such/model", DATA / "sample.conllu"], "a model must be a folder"),
        (["dependencies", "--baselines-only"], "a treebank must be named"),
        (["dependencies", "", DATA / "sample.conllu"], "a model must be named"),
        (["dependencies", "x", DATA / "sample.conllu", "--direction", "up"], "either, dependent, head"),
        (["dependencies", "--baselines-only", "nowhere.conllu"], "check its name"),
        (["constituency", "x", DATA / "sample.conllu"], "sample.conllu:1: text outside brackets"),
        (["constituency", "x", DATA / "sample.mrg", "--weights", "mixed"], "mixed weights are not"),
        (["constituency", "x", DATA / "sample.mrg", "--ablate", "nowhere.tsv"], "nowhere.tsv"),
        (["ablate", "x", "nowhere.tsv", "--order", "worst"], "order must be one of"),
        (["prune", "x", "nowhere.tsv", "out", "--keep", "2"], "keep must be a share"),
        (["importance", "x", "nowhere.tsv", "--json", "."], "--json must name a file"),
        (["mixing", "x", "--out", DATA / "sample.mrg"], "--out must name a folder"),
    ],
)
def test_mistakes_are_one_line(arguments, said, monkeypatch, capsys):
    assert run(monkeypatch, *arguments) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["dependencies", "x", "y", "--limit", 0],
        ["constituency", "x", "y", "--draws", -1],
        ["dependencies", "x", "y", "--seed", -1],
        ["importance", "x", "y", "--batch", 0],
        ["ablate", "x", "y", "--points", 0],
        ["mixing", "x", "--top", -1],
    ],
    ids=lambda x: " ".join(map(str, x)),
)
def test_numbers_out_of_range(arguments, monkeypatch, capsys):
    assert run(monkeypatch, *arguments) == 2
    said = capsys.readouterr().err
    assert f"{arguments[-2]} must be a whole number at least" in said and f"got '{arguments[-1]}'" in said


def test_anothers_results_are_not_replaced(folders, tmp_path, monkeypatch, capsys):
    command = ["mixing", folders / "bert-talking", "--out", tmp_path]
    assert run(monkeypatch, *command) == run(monkeypatch, *command) == 0
    mine = (tmp_path / "results.json").read_text()
    assert (
        run(monkeypatch, "dependencies", "--baselines-only", DATA / "sample.conllu", "--out", tmp_path) == 2
    )
    assert "must be new or this command's own" in capsys.readouterr().err
    assert (tmp_path / "results.json").read_text() == mine
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "comparison.json").write_text("{}")
    assert run(monkeypatch, *command[:-1], tmp_path / "other") == 2


def test_two_models_are_compared_on_what_both_can_do(folders, tmp_path, monkeypatch, capsys):
    for command, trees, limit in (("dependencies", "sample.conllu", 11), ("constituency", "sample.mrg", 9)):
        reader, short = tokenizer(), tmp_path / command
        reader.model_max_length = limit
        model("bert").save_pretrained(short)
        reader.save_pretrained(short)
        options = ["--no-random-model", "--draws", 5, "--against"]
        for first, other in ((folders / "bert", short), (short, folders / "bert")):
            assert run(monkeypatch, command, first, DATA / trees, *options, other) == 0
            said = capsys.readouterr().out
            assert bool(re.search(r"on the \d sentences that both can do", said)) == (first != short)


def test_labels_that_are_no_numbers(folders, tmp_path, monkeypatch, capsys):
    config = transformers.BertConfig(
        vocab_size=99,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        num_labels=1,
    )
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    (tmp_path / "task.tsv").write_text("sentence\tlabel\na dog\tgood\na ball\tbad\n")
    assert run(monkeypatch, "importance", tmp_path, tmp_path / "task.tsv") == 2
    assert "labels must be numbers" in capsys.readouterr().err
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    assert run(monkeypatch, "importance", tmp_path, tmp_path / "task.tsv") == 2
    assert "safetensors" in capsys.readouterr().err


def test_a_model_of_another_task_is_refused(folders, monkeypatch, capsys):
    assert run(monkeypatch, "importance", folders / "gpt2", folders / "task.tsv") == 2
    assert "sequence classifier" in capsys.readouterr().err


def test_files_of_examples(tmp_path):
    path = tmp_path / "x.tsv"
    path.write_text("gj04\t0\t*\tThe dog old.\ngj04\t1\t\tThe old dog.\n")
    assert [(x.text, x.label) for x in read_examples(path)] == [("The dog old.", "0"), ("The old dog.", "1")]
    path.write_text('id\tquestion1\tquestion2\tis_duplicate\n1\tHow?\t"Is ""it"" so?"\t1\n')
    assert read_examples(path)[0].pair == 'Is "it" so?'  # as csv writers have it
    path.write_text('sentence\tlabel\n"it is so\t1\nor " not\t0\n"So."\t1\n')
    assert [x.text for x in read_examples(path)] == ['"it is so', 'or " not', '"So."']  # GLUE's
    path.write_text('"sentence"\t"label"\n"a\tfine ""day"""\t"1"\n"bad"\t"0"\n')
    assert [(x.text, x.label) for x in read_examples(path)] == [('a\tfine "day"', "1"), ("bad", "0")]
    path.write_text("good a fine day\nbad\n")
    with pytest.raises(UserError, match=r"x.tsv:2"):
        read_examples(path)
    path.write_text("sentence\tlabel\nfine\t1\t2\n")
    with pytest.raises(UserError, match=r"3 at .*x.tsv:2"):
        read_examples(path)
    path.write_text("sentence\tlabel\nfine\t1\n")
    with pytest.raises(UserError, match="pair column"):
        read_examples(path, pair="other")
    lines = tmp_path / "x.jsonl"
    lines.write_text(
        '{"premise": "a", "hypothesis": "b", "label": "-"}\n{"premise": "c", "hypothesis": "d", "label": "no"}\n'
    )
    assert [(x.text, x.pair, x.label) for x in read_examples(lines)] == [("c", "d", "no")]
    config = model("bert").config
    assert label_number("LABEL_1", config) == label_number("1", config) == 1
    with pytest.raises(UserError, match="labels must be the model's"):
        label_number("maybe", config)


def test_lines_of_examples_end_where_an_editor_ends_them(tmp_path):
    path = tmp_path / "x.tsv"
    path.write_bytes('sentence\tlabel\r\na\u0085b\u2028c\x0bd\t1\n\n"e\t0\r'.encode("utf-8-sig"))
    assert [(x.text, x.label, x.line) for x in read_examples(path)] == [
        ("a\u0085b\u2028c\x0bd", "1", 2),
        ('"e', "0", 4),
    ]
    path.write_text('sentence\tlabel\n"' + "long " * 30_000 + "\t1\n")
    assert len(read_examples(path)[0].text) == 150_001


def test_comma_separated_fields_span_lines(tmp_path):
    limit = csv.field_size_limit()
    path = tmp_path / "x.csv"
    long = "long " * 30_000
    path.write_text(f'sentence,label\n"one,\n""two""",1\n\n{long},0\nsaid "so",1\n', "utf-8-sig", newline="")
    assert [(x.text, x.label, x.line) for x in read_examples(path)] == [
        ('one,\n"two"', "1", 2),
        (long, "0", 5),
        ('said "so"', "1", 6),
    ]
    assert csv.field_size_limit() == limit
    path.write_text('sentence,label\nfine,1\nbad,"0\nfine,1\n')
    with pytest.raises(UserError, match=r"must be closed.*x.csv:3"):
        read_examples(path)


def test_json_lines_are_objects(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('\n{"text": "a", "label": 1}\n  \n{"text": "b", "label": 0}\n\n')
    assert [(x.text, x.label, x.line) for x in read_examples(path)] == [("a", "1", 2), ("b", "0", 4)]
    for line in ('["b", 0]', "3", "{"):
        path.write_text('{"text": "a", "label": 1}\n' + line + "\n")
        with pytest.raises(UserError, match=r"must be a JSON object.*x.jsonl:2"):
            read_examples(path)


def test_a_damaged_archive_of_examples_is_named(tmp_path):
    path = tmp_path / "x.tsv.gz"
    whole = gzip.compress(b"sentence\tlabel\n" + b"a fine day\t1\n" * 50)
    path.write_bytes(whole[:10] + b"\xff" * 10 + whole[20:])
    with pytest.raises(UserError, match=r"must be UTF-8.*x.tsv.gz"):
        read_examples(path)
