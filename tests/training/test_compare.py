"""A comparison end to end on real text: what it writes, says, goes on with and leaves alone."""

import json
import math
import re
import shutil

import pytest

from .small import SMALL, TINY, run

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def finished(tmp_path_factory, texts):
    """(folder, results.json) of two arms; each test that changes it takes a copy."""
    out = tmp_path_factory.mktemp("finished") / "out"
    with pytest.MonkeyPatch.context() as patch:
        assert run(patch, "compare", "--out", out, *TINY, *texts, "--json", out.parent / "copy.json") == 0
    results = json.loads((out / "results.json").read_text())
    assert {arm["name"] for arm in json.loads((out.parent / "copy.json").read_text())["arms"]} == {
        arm["name"] for arm in results["arms"]
    }
    return out, results


def files(folder):
    """Every file's bytes, but for locks."""
    found = (path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".lock"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def figures(results):
    """What must not depend on when and where a comparison ran."""
    return {
        arm["name"]: [arm[name] for name in ("parameters", "loss", "transfer", "curves")]
        for arm in results["arms"]
    }


def check_arms(results, seeds):
    for arm in results["arms"]:
        assert arm["parameters"] > 10_000
        for name in ("step_seconds", "loss"):
            assert len(arm[name]) == seeds and all(math.isfinite(x) for x in arm[name]), name
        assert all(len(x) == seeds and all(0 <= y <= 1 for y in x) for x in arm["transfer"].values())
        assert min(arm["step_seconds"]) > 0
        assert all(
            curve[max(curve, key=int)] == x for curve, x in zip(arm["curves"], arm["loss"], strict=True)
        )


def test_results(finished):
    _, results = finished
    assert 4.5 < results["unigram_entropy"] < math.log(512)
    assert [arm["name"] for arm in results["arms"]] == ["multi-head:2", "talking-heads:2"]
    check_arms(results, 1)
    multi, talking = results["arms"]
    assert talking["parameters"] - multi["parameters"] == 3 * 2 * 2 * 2  # layers, maps, heads, heads
    assert [sorted(map(int, arm["curves"][0])) for arm in results["arms"]] == [[1, 2, 3, 4]] * 2
    assert multi["loss"] != talking["loss"]  # the maps learn
    assert abs(multi["curves"][0]["1"] - talking["curves"][0]["1"]) < 1e-3  # from the same start
    assert results["settings"]["steps"] == 4 and results["made_with"][0]["versions"]["torch"]
    assert results["tokens_seen"] == 4 * 2 * 32
    assert (
        "difference" in talking and talking["difference"]["loss"]["interval"] is None
    )  # one seed says nothing


def test_equal_time_gives_the_slower_arm_fewer_steps(finished):
    _, results = finished
    fast, slow = sorted(results["arms"], key=lambda arm: arm["step_seconds"][0])
    assert fast["equal_time_loss"] == fast["loss"]
    steps = 4 * fast["step_seconds"][0] / slow["step_seconds"][0]
    curve = {int(step): loss for step, loss in slow["curves"][0].items()}
    before = max(1, math.floor(steps))
    after = min(4, before + 1)
    low, high = sorted((curve[before], curve[after]))
    assert low - 1e-9 <= slow["equal_time_loss"][0] <= high + 1e-9


def test_pictures_and_the_report_need_no_network(finished):
    out, results = finished
    pictures = {path.name: path.read_bytes() for path in out.glob("*.png")}
    assert {"differences.png", "loss-over-steps.png", "loss-over-time.png"} < pictures.keys()
    assert any("maps" in name for name in pictures) and all(x.startswith(PNG) for x in pictures.values())
    page = (out / "report.html").read_text()
    text = re.sub(r'"data:image/png;base64,[^"]*"', "", page)
    assert not re.search(r"https?:|//[a-z]|<script|<link|<iframe|@import|url\(", text, re.IGNORECASE)
    sources = re.findall(r'\b(?:src|href)\s*=\s*"([^"]{0,30})', page)
    assert len(sources) == len(pictures) and all(x.startswith("data:image/png;base64,") for x in sources)
    for arm in results["arms"]:
        assert arm["name"] in page and f"{arm['parameters']:,}" in page and f"{arm['loss'][0]:.3f}" in page
    assert f"{results['unigram_entropy']:.3f}" in page and "most frequent class" in page
    assert "too few" in page  # one seed


def test_the_table_says_what_was_measured(finished, monkeypatch, capsys):
    out, results = finished
    assert run(monkeypatch, "report", out, "--json", out.parent / "report.json") == 0
    said = capsys.readouterr().out
    for arm in results["arms"]:
        assert arm["name"] in said and f"{arm['loss'][0]:.3f}" in said
        assert all(f"{accuracies[0]:.3f}" in said for accuracies in arm["transfer"].values())
    ratio = results["arms"][1]["step_seconds"][0] / results["arms"][0]["step_seconds"][0]
    assert "(1.00x)" in said and f"({ratio:.2f}x)" in said
    assert f"{results['unigram_entropy']:.3f}" in said and "most frequent class" in said and "too few" in said
    again = json.loads((out.parent / "report.json").read_text())
    assert figures(again) == figures(results)


def test_the_same_command_trains_nothing_again(finished, texts, tmp_path, monkeypatch):
    out, results = finished
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    monkeypatch.setattr("talking_heads.training.run.pretrain", None)  # calling it would be an error
    assert run(monkeypatch, "compare", "--out", copy, *TINY, *texts) == 0
    assert figures(json.loads((copy / "results.json").read_text())) == figures(results)


def test_transfer_goes_on_after_the_last_task_that_was_judged(finished, texts, tmp_path, monkeypatch):
    from talking_heads.training import run as training

    out, arguments = tmp_path / "out", [*TINY, *texts, "--transfer", "file", "--transfer", "half"]
    transfer, judged = training.transfer, []

    def stopped(*given):
        if len(judged) == 3:
            raise KeyboardInterrupt
        judged.append(given[4].name)
        return transfer(*given)

    with monkeypatch.context() as patch:
        patch.setattr(training, "transfer", stopped)
        assert run(patch, "compare", "--out", out, *arguments) == 130
    assert judged == ["file", "half", "file"]
    assert run(monkeypatch, "report", out) == 0  # with what there is
    unfinished = json.loads((out / "results.json").read_text())["arms"][1]
    assert unfinished["loss"] and unfinished["transfer"]["half"] == [None]
    with monkeypatch.context() as patch:
        patch.setattr(training, "pretrain", None)  # calling it would be an error
        patch.setattr(training, "transfer", lambda *given: judged.append(given[4].name) or transfer(*given))
        assert run(patch, "compare", "--out", out, *arguments) == 0
    assert judged == ["file", "half", "file", "half"]
    results = json.loads((out / "results.json").read_text())
    for arm, whole in zip(results["arms"], finished[1]["arms"], strict=True):
        assert arm["loss"] == whole["loss"] and arm["transfer"]["file"] == whole["transfer"]["file"]
    folder = (
        out / "runs" / "talking-heads-2" / "seed-0"
    )  # a result kept without its model, one task not judged
    kept = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(kept | {"transfer": {"file": 0.0}}))
    shutil.rmtree(folder / "model")
    assert run(monkeypatch, "compare", "--out", out, *arguments) == 0
    assert figures(json.loads((out / "results.json").read_text())) == figures(results)


def test_several_gpus_do_not_make_the_batch_larger(texts, tmp_path, monkeypatch, capsys):
    import transformers

    from talking_heads.training import run as training
    from talking_heads.training.models import build

    monkeypatch.setattr(transformers.TrainingArguments, "n_gpu", property(lambda self: 2))
    model = build(SMALL, "multi-head:2", 0)
    trainer = training.make_trainer(
        model, [], tmp_path, 4, 1e-3, 0.0, 0, collate=None, loss=None, callbacks=[], max_steps=1
    )
    assert trainer.args._n_gpu == 1
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run(monkeypatch, "compare", "--out", tmp_path / "out", *TINY, *texts) == 2
    assert "without torchrun" in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    assert run(monkeypatch, "compare", "--out", tmp_path / "out", "--text", "nowhere") == 2
    assert "without torchrun" in capsys.readouterr().err


def test_steps_timed_on_another_machine_are_timed_again(finished, texts, tmp_path, monkeypatch):
    out = tmp_path / "moved"
    shutil.copytree(finished[0], out)
    timing = json.loads((out / "timing.json").read_text())
    assert timing["machine"] == finished[1]["timed_on"]
    timing["machine"]["processor"] = "another"
    timing["seconds"]["0"] = dict.fromkeys(timing["seconds"]["0"], 1000.0)
    (out / "timing.json").write_text(json.dumps(timing))
    path = next(out.glob("runs/*/seed-0/result.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"commit": "another"}))
    assert run(monkeypatch, "compare", "--out", out, *TINY, *texts) == 0
    results = json.loads((out / "results.json").read_text())
    assert results["timed_on"] == finished[1]["timed_on"]
    assert max(arm["step_seconds"][0] for arm in results["arms"]) < 1000
    assert figures(results) == figures(finished[1])
    assert sorted(made["commit"] == "another" for made in results["made_with"]) == [False, True]
    assert [made["runs"] for made in results["made_with"]] == [1, 1]


@pytest.mark.parametrize(
    "change",
    [
        ["--steps", 5],
        ["--width", 64],
        ["--objective", "masked-lm"],
        ["--learning-rate", 0.1],
        ["--transfer", "none"],
    ],
    ids=str,
)
def test_another_comparisons_folder_is_refused_and_left_alone(
    change, finished, texts, tmp_path, monkeypatch, capsys
):
    copy = tmp_path / "copy"
    shutil.copytree(finished[0], copy)
    before = files(copy)
    assert run(monkeypatch, "compare", "--out", copy, *TINY, *texts, *change) == 2
    said = capsys.readouterr().err
    assert "same comparison or none" in said and said.count("\n") == 1
    name = "transfer" if "--transfer" in change else change[0].lstrip("-").replace("-", "_")
    assert name in said and files(copy) == before


def test_another_text_is_refused(finished, texts, tmp_path, monkeypatch, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(finished[0], copy)
    before = files(copy)
    other = tmp_path / "other.txt"
    other.write_text("\n".join(f"{i} other words of a text of one's own" for i in range(5000)))
    assert run(monkeypatch, "compare", "--out", copy, *TINY, "--text", other) == 2
    said = capsys.readouterr().err
    assert "same comparison or none" in said and "corpus" in said and files(copy) == before


def test_a_folder_with_other_files_is_refused(texts, tmp_path, monkeypatch, capsys):
    (tmp_path / "letter.txt").write_text("mine")
    for out in (tmp_path, tmp_path / "letter.txt"):
        assert run(monkeypatch, "compare", "--out", out, *TINY, *texts) == 2
        said = capsys.readouterr().err
        assert "must be new or empty" in said and said.count("\n") == 1
        assert files(tmp_path) == {"letter.txt": b"mine"}


def test_masked_words_and_a_task_from_files(texts, tmp_path, monkeypatch, capsys):
    """BERT; a task of the user's own; three seeds, which are enough for an interval."""
    lines = tmp_path / "lines.txt"
    lines.write_text("".join(f"{'union' if i % 2 else 'war'} the state of {i}\n" for i in range(20)))
    arms = ["--arm", "multi-head:2", "--arm", "logits-map:2:random"]
    sizes = [
        *TINY[: TINY.index("--arm")],
        "--seeds",
        3,
        "--seed",
        5,
        "--steps",
        2,
        "--objective",
        "masked-lm",
    ]
    assert (
        run(monkeypatch, "compare", "--out", tmp_path / "o", *sizes, *arms, *texts, "--transfer", lines) == 0
    )
    results = json.loads((tmp_path / "o" / "results.json").read_text())
    assert [arm["name"] for arm in results["arms"]] == ["multi-head:2", "logits-map:2:random"]
    check_arms(results, 3)
    for arm in results["arms"]:
        assert arm["seeds"] == [5, 6, 7] and len(set(arm["loss"])) == 3
    difference = results["arms"][1]["difference"]["loss"]
    (low, high), mean = difference["interval"], difference["mean"]
    assert low < mean < high
    said = capsys.readouterr().out
    assert f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]".split()[0] in said and "±" in said and "95 %" in said
    assert "95 %" in (tmp_path / "o" / "report.html").read_text()


@pytest.mark.slow
def test_the_demo_learns_what_no_model_without_context_can(tmp_path, monkeypatch):
    assert run(monkeypatch, "compare", "--preset", "demo", "--seeds", 1, "--out", tmp_path / "o") == 0
    results = json.loads((tmp_path / "o" / "results.json").read_text())
    majority = results["transfer"][0]["majority"]
    for arm in results["arms"]:
        assert arm["loss"][0] < results["unigram_entropy"] - 0.25
        assert arm["transfer"]["era"][0] > majority + 0.1
