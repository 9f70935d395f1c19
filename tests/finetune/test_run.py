"""`talking-heads finetune` from end to end: tasks of each kind, a kill, a second process, changed data."""

import json
import shutil

import pytest
import torch
import transformers

from talking_heads.errors import UserError
from talking_heads.finetune import run as running
from talking_heads.finetune.data import Example
from talking_heads.finetune.heads import Heads
from talking_heads.finetune.run import Recipe, finetune
from talking_heads.finetune.tasks import find
from talking_heads.results import folders

from ..training.small import run
from .small import save_model, write_pairs

QUICK = ["--epochs", "1", "--batch", "8", "--rate", "1e-3", "--length", "48"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    arms = {
        "bert": "talking-heads:2",
        "t5": "talking-heads:2",
        "llama": "multi-head:2",
        "albert": "multi-head:2",
    }
    return {name: save_model(folder / name, name, arm) for name, arm in arms.items()}


@pytest.fixture
def rte(tmp_path):
    write_pairs(tmp_path / "data" / "RTE")
    return tmp_path / "data"


def figures(folder):
    found = json.loads((folder / "result.json").read_text())
    return found["scores"], found["floors"], (folder / "metrics.jsonl").read_text()


@pytest.mark.parametrize("name", ["bert", "t5", "llama", "albert"])
def test_a_task_of_pairs_by_every_kind_of_model(name, models, rte, tmp_path, monkeypatch, capsys):
    out, predicted, json_ = (tmp_path / x for x in ("out", "RTE.tsv", "result.json"))
    arguments = [
        models[name],
        "rte",
        "--data",
        rte,
        "--out",
        out,
        "--predict",
        predicted,
        "--json",
        json_,
        *QUICK,
    ]
    assert run(monkeypatch, "finetune", *arguments) == 0
    result = json.loads(json_.read_text())
    assert (
        result["form"] == ("text to text" if name == "t5" else "task head")
        and 0 <= result["scores"]["accuracy"] <= 1
    )
    assert result["floors"]["majority"] == {"accuracy": 0.5} and result["floors"]["bag_of_words"] == {
        "accuracy": 1.0
    }
    lines = predicted.read_text().splitlines()
    assert lines[0] == "index\tprediction" and len(lines) == 13
    assert {x.split("\t")[1] for x in lines[1:]} <= {"entailment", "not_entailment"}
    started = json.loads((out / "run.json").read_text())
    assert {"command", "commit", "versions", "machine", "config", "data"} <= started.keys()
    assert started["data"]["train"]["sha256"] == result["data"]["train"]["sha256"]
    losses = [json.loads(x) for x in (out / "metrics.jsonl").read_text().splitlines()]
    assert [x["step"] for x in losses] == [1, 2, 3, 4, 5]
    assert (out / "model" / "model.safetensors").exists()
    printed = capsys.readouterr().out
    assert "bag of words" in printed and "no evidence" in printed
    assert run(monkeypatch, "report", out, "--json", json_) == 0
    assert "bag of words" in capsys.readouterr().out
    assert json.loads(json_.read_text())["results"][0]["scores"] == result["scores"]


def test_a_killed_run_goes_on_and_ends_with_the_same_figures(models, rte, tmp_path, monkeypatch):
    task, recipe = find("rte"), Recipe(epochs=2, batch=8, learning_rate=1e-3, length=48)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finetune(str(models["bert"]), task, str(rte), whole, recipe)

    def stop(done, total, said):
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(str(models["bert"]), task, str(rte), killed, recipe, progress=lambda run, *said: stop(*said))
    (checkpoint,) = killed.glob("checkpoint-*")
    cut = killed / "checkpoint-9"
    shutil.copytree(checkpoint, cut)
    (cut / "model.safetensors").write_bytes(b"half a file")
    (killed / "metrics.jsonl").write_text('{"loss": 1.0, "step"')
    begun = []
    original = running.last_checkpoint
    monkeypatch.setattr(
        running, "last_checkpoint", lambda folder: begun.append(original(folder)) or begun[-1]
    )
    with pytest.warns(UserWarning, match="set aside"):
        finetune(str(models["bert"]), task, str(rte), killed, recipe)
    assert begun == [str(checkpoint)] and figures(killed) == figures(whole)
    assert (killed / "damaged-checkpoint-9" / "model.safetensors").read_bytes() == b"half a file"
    assert (killed / "metrics.damaged").exists()
    again = finetune(str(models["bert"]), task, str(rte), killed, recipe)
    assert again["scores"] == figures(whole)[0] and len(begun) == 1  # nothing was left to do


def test_what_is_refused(models, rte, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    task, recipe = find("rte"), Recipe(epochs=1, batch=8, length=48)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running._Run, "all", lambda self: {})
        finetune(str(models["bert"]), task, str(rte), out, recipe)
    with folders.lock(out, "run"), pytest.raises(UserError, match="another at work in"):
        finetune(str(models["bert"]), task, str(rte), out, recipe)
    with pytest.raises(UserError, match="differs in config"):
        finetune(str(models["bert"]), task, str(rte), out, Recipe(epochs=2, batch=8, length=48))
    dev = rte / "RTE" / "dev.tsv"
    dev.write_text(dev.read_text().replace("number 1", "number 11"))
    with pytest.raises(UserError, match="data of a run must stay as it was"):
        finetune(str(models["bert"]), task, str(rte), out, recipe)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["race"], "a task must be one of sst2"),
        (["rte", "--rate", "0"], "--rate must be a positive number"),
        (["rte", "--length", "4"], "--length must be at least 16"),
        (["rte", "--predict", "."], "--predict must name a file"),
        (["sst2"], "sst2 must have one column sentence; got pairs of texts"),
    ],
)
def test_mistakes_are_one_line(options, said, models, rte, tmp_path, monkeypatch, capsys):
    data = rte / "RTE" if options == ["sst2"] else rte
    assert (
        run(monkeypatch, "finetune", models["bert"], *options, "--data", data, "--out", tmp_path / "out") == 2
    )
    printed = capsys.readouterr().err
    assert said in printed and printed.count("\n") == 1 and not (tmp_path / "out").exists()


def test_no_model(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert run(monkeypatch, "finetune", tmp_path / "nothing", "rte", "--data", tmp_path) == 2
    assert "a model must be a folder" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["bert", "t5"])
def test_a_model_without_attention_is_not_filled_with_random_attention(name, rte, tmp_path):
    model = save_model(tmp_path / name, name, "none")
    with pytest.raises(UserError, match=r"weights of all layers; got none of .*[aA]ttention"):
        finetune(str(model), find("rte"), str(rte), tmp_path / "out", Recipe(length=48))


def test_a_disk_that_is_full(models, rte, tmp_path, monkeypatch, capsys):
    """As in tests/training/test_resume.py: no file may have more bytes than a checkpoint needs."""
    import resource

    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    arguments = [models["bert"], "rte", "--data", rte, "--out", tmp_path / "out", *QUICK]
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, old[1]))
    try:
        code = run(monkeypatch, "finetune", *arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    said = capsys.readouterr().err
    assert code == 2 and said.count("\n") == 1 and "rerun the same command" in said
    assert run(monkeypatch, "finetune", *arguments) == 0


@pytest.mark.parametrize("name", ["bert", "t5"])
def test_questions_and_alternatives_and_similarities(name, models, tmp_path):
    """Each kind of task once: the answers have their form, and are scored."""
    context = "The cat sat on the mat. Dogs bark at night, it is said."
    asked = [
        {"id": f"{i}", "question": "What sat?", "answers": [{"text": "cat", "answer_start": 4}]}
        for i in range(8)
    ] + [{"id": "none", "question": "Who flew?", "is_impossible": True, "answers": []}]
    squad = {"data": [{"title": "a", "paragraphs": [{"context": context, "qas": asked}]}]}
    for part in ("train", "dev"):
        (tmp_path / f"{part}-v2.0.json").write_text(json.dumps(squad))
    row = {"premise": "It rained.", "choice1": "Wet.", "choice2": "Dry.", "question": "effect", "label": 0}
    lines = [json.dumps(row | {"label": i % 2}) for i in range(8)]
    scored = "sentence1\tsentence2\tscore\n" + "".join(f"A cat {i}.\tA dog.\t{i % 5}.0\n" for i in range(10))
    for part, other in (("train", "val"), ("train", "dev")):
        for file in (part, other):
            (tmp_path / f"{file}.jsonl").write_text("\n".join(lines))
    (tmp_path / "STS-B").mkdir()
    for part in ("train", "dev"):
        (tmp_path / "STS-B" / f"{part}.tsv").write_text(scored)
    recipe = Recipe(epochs=1, batch=4, learning_rate=1e-3, length=48)
    for task, keys in (
        ("squad2", {"f1", "exact_match"}),
        ("copa", {"accuracy"}),
        ("stsb", {"pearson", "spearman"}),
    ):
        out = tmp_path / f"{task}-out"
        result = finetune(str(models[name]), find(task), str(tmp_path), out, recipe, predict=True)
        assert keys <= result["scores"].keys() and keys <= result["floors"]["majority"].keys()
        text = (out / "prediction.txt").read_text()
        if task == "squad2":
            assert json.loads(text).keys() == {x["id"] for x in asked}
        else:
            assert len(text.splitlines()) == (8 if task == "copa" else 11)


def test_predictions_come_in_the_order_of_the_examples(models):
    reader = transformers.AutoTokenizer.from_pretrained(models["bert"])
    model = transformers.AutoModelForSequenceClassification.from_pretrained(models["bert"], num_labels=1)
    torch.manual_seed(0)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.5)  # scores far apart
    form = Heads(find("stsb"), reader, 48)
    rows = [Example("war " * times, "peace", label=1.0) for times in (5, 1, 7, 3, 6, 2)]
    alone = [form.predict(model, [row])[0] for row in rows]
    assert min(abs(a - b) for i, a in enumerate(alone) for b in alone[:i]) > 1e-3
    assert form.predict(model, rows) == pytest.approx(alone, abs=1e-4)


def test_batches_of_like_lengths_are_a_function_of_the_seed():
    examples = [{"input_ids": [0] * (1 + 7 * i % 40), "number": i} for i in range(403)]
    first = running.in_order(examples, 4, 2, 0)
    assert first == running.in_order(examples, 4, 2, 0) != running.in_order(examples, 4, 2, 1)
    for start in (0, 400):  # each pass has every example but what does not fill a batch, once
        assert len({x["number"] for x in first[start : start + 400]}) == 400
    cuts = [[len(x["input_ids"]) for x in first[i : i + 4]] for i in range(0, len(first), 4)]
    assert sum(4 * max(cut) - sum(cut) for cut in cuts) < 0.05 * sum(map(sum, cuts))
