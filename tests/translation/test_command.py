"""`talking-heads translate`: learns a toy language, is judged, translates, resumes bit by bit."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from .small import FAST, TINY, run, train_words
from .test_text import refused


def right(found, wanted):
    """The share of words that are right."""
    pairs = [(a.split(), b.split()) for a, b in zip(found, wanted, strict=True)]
    hits = sum(x == y for a, b in pairs for x, y in zip(a, b, strict=False))
    return hits / sum(max(len(a), len(b)) for a, b in pairs)


def test_it_learns_a_toy_language(learned, paths, tmp_path, monkeypatch, capsys):
    """99 % of words of sentences that it has not seen: talking heads, with heads masked in training."""
    words = [
        "--source",
        paths["test.source"],
        "--reference",
        paths["test.target"],
        "--json",
        tmp_path / "j.json",
    ]
    assert (
        run(monkeypatch, "translate", "evaluate", learned, *words, "--translations", tmp_path / "lines") == 0
    )
    held = json.loads((tmp_path / "j.json").read_text())
    wanted = paths["test.target"].read_text().splitlines()
    assert right(held["translations"], wanted) >= 0.99
    assert (tmp_path / "lines").read_text().splitlines() == held["translations"]
    assert held["bleu"] > 97 and held["chrf"] > 97 and held["lowercase_tokenized_bleu"] > 97
    assert held["signature"].startswith("nrefs:1|case:mixed|eff:no|tok:13a")
    assert held["run"]["arm"] == "talking-heads:4" and held["run"]["head_mask"] == "random:2"
    assert {"machine", "versions", "commit"} <= held.keys()
    out = capsys.readouterr().out
    assert f"bleu: {held['bleu']:.2f}" in out and held["signature"] in out
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n" + paths["test.source"].read_text()))
    assert run(monkeypatch, "translate", "run", learned) == 0
    assert capsys.readouterr().out.splitlines() == ["", *held["translations"]]


def test_what_a_run_leaves(learned):
    held = json.loads((learned / "result.json").read_text())
    curve = {int(step): x for step, x in held["curve"].items()}
    assert max(curve.values()) > 80 and curve[40] < max(curve.values())
    assert held["validation"]["signature"] and held["greedy"].keys() == {"last", "average"}
    assert held["target_tokens"] > 0 and held["averaged"] == min(4, held["updates"] // 20)
    assert (learned / "bleu.png").read_bytes().startswith(b"\x89PNG")
    assert "BLEU of the validation text along training" in (learned / "report.html").read_text()
    weights = load_file(learned / "model" / "model.safetensors")
    assert any("logits_mix" in name for name in weights) and not any(
        "parametrizations" in name for name in weights
    )


def test_a_test_set_without_references(learned, paths, monkeypatch, capsys):
    assert (
        run(monkeypatch, "translate", "evaluate", learned, "--source", paths["test.source"], "--beam", "1")
        == 0
    )
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 40 and "bleu" not in out.lower()


def test_mistakes_in_evaluation(learned, paths, tmp_path, monkeypatch, capsys):
    def said(*words):
        return refused(monkeypatch, capsys, "evaluate", *words)

    source, target = paths["test.source"], paths["test.target"]
    assert "must be a folder that `translate train` wrote" in said(tmp_path / "nothing", "--source", source)
    swapped = said(learned, "--source", target, "--reference", source)
    assert "got the other language in" in swapped and "swap the two files" in swapped
    assert "got the other language in" in said(learned, "--source", target)
    assert "must differ" in said(learned, "--source", source, "--reference", source)
    assert "40 in" in said(learned, "--source", source, "--reference", paths["dev.target"])
    kept = said(learned, "--source", source, "--checkpoint", "7")
    assert "a checkpoint must be one of model, " in kept
    number = kept.partition("one of model, ")[2].partition(",")[0]
    assert (
        run(
            monkeypatch,
            "translate",
            "evaluate",
            learned,
            "--source",
            source,
            "--checkpoint",
            number,
            "--beam",
            "1",
        )
        == 0
    )
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "run.json").write_text(json.dumps({"words": {"source": [], "target": []}}))
    assert "a run must be finished" in said(tmp_path / "unfinished", "--source", source)


def test_long_and_empty_lines_in_evaluation(learned, paths, tmp_path, monkeypatch, capsys):
    source, reference = tmp_path / "source", tmp_path / "reference"
    first = paths["test.source"].read_text().splitlines()
    source.write_text("\n".join([first[0], "", " ".join(first * 30)]) + "\n")
    reference.write_text("one\ntwo\nthree\n")
    words = ["--source", source, "--reference", reference, "--beam", "1", "--json", tmp_path / "j"]
    with pytest.warns(UserWarning) as told:
        assert run(monkeypatch, "translate", "evaluate", learned, *words) == 0
    said = " ".join(str(x.message) for x in told)
    assert "1 of 3 pairs have an empty side" in said and "1 lines are too long for the model" in said
    held = json.loads((tmp_path / "j").read_text())
    assert held["dropped"] == {"empty": 1} and held["sentences"] == 2 and held["cut"] == 1
    assert held["translations"][1] == "" and len(held["translations"]) == 3


def test_it_learns_from_few_pairs_by_default(tmp_path, monkeypatch):
    """A text that has fewer pieces than the vocabulary and fewer pairs than a batch."""
    from .small import files

    paths = files(tmp_path, train=5)
    words = [*train_words(paths), "--updates", "2", "--out", tmp_path / "out", "--json", tmp_path / "j"]
    assert run(monkeypatch, "translate", "train", *words) == 0
    held = json.loads((tmp_path / "j").read_text())
    assert held["pairs"] == 5 and held["vocabulary"] < 400 and held["updates"] == 2
    assert held["settings"]["layers"] == 4 and held["settings"]["tokens"] == 8000


def weights(out: Path) -> bytes:
    return (out / "model" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("mask", ["importance:1", "importance:1:previous"])
def test_interrupted_it_ends_the_same_bit_by_bit(paths, tmp_path, monkeypatch, mask):
    """Interrupted within a validation, then within an update; with more updates a finished run goes on."""
    from talking_heads.translation import train as module

    words = ["translate", "train", *train_words(paths), *TINY, "--head-mask", mask, "--patience", "0"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run(monkeypatch, *words, "--out", whole) == 0
    loss, counts = module.batch_loss, {"judged": 0, "losses": 0}

    def broken_judge(self, model, judge=module._Run.judge):
        counts["judged"] += 1
        if counts["judged"] == 2:
            raise KeyboardInterrupt
        return judge(self, model)

    def broken_loss(*args):
        counts["losses"] += 1
        if counts["losses"] == 3:
            raise KeyboardInterrupt
        return loss(*args)

    with monkeypatch.context() as patch:
        patch.setattr(module._Run, "judge", broken_judge)
        assert run(patch, *words, "--out", cut) == 130
    with monkeypatch.context() as patch:
        patch.setattr(module, "batch_loss", broken_loss)
        assert run(patch, *words, "--out", cut) == 130
    assert list(cut.glob("checkpoint-[68]")) and not (cut / "model").exists()
    assert run(monkeypatch, *words, "--out", cut, "--updates", "10") == 0
    assert json.loads((cut / "result.json").read_text())["updates"] == 10
    assert run(monkeypatch, *words, "--out", cut) == 0
    assert weights(cut) == weights(whole)
    first, second = (json.loads((out / "result.json").read_text()) for out in (whole, cut))
    assert first["validation"] == second["validation"] and first["updates"] == second["updates"] == 12
    assert {s: x for s, x in second["curve"].items() if s in first["curve"]} == first["curve"]


def test_another_run_is_refused_and_a_finished_one_left_as_it_is(paths, tmp_path, monkeypatch, capsys):
    words = ["translate", "train", *train_words(paths), *TINY, "--out", tmp_path / "out", "--updates", "2"]
    assert run(monkeypatch, *words) == 0
    written = (tmp_path / "out" / "model" / "model.safetensors").stat().st_mtime_ns
    assert run(monkeypatch, *words) == 0
    assert (tmp_path / "out" / "model" / "model.safetensors").stat().st_mtime_ns == written
    capsys.readouterr()
    said = refused(monkeypatch, capsys, *words[1:], "--dropout", "0.1")
    assert "one that differs in dropout" in said


@pytest.mark.slow
def test_killed_it_ends_the_same_bit_by_bit(paths, tmp_path, monkeypatch):
    words = [
        "translate",
        "train",
        *train_words(paths),
        *TINY,
        "--updates",
        "60",
        "--every",
        "5",
        "--patience",
        "0",
    ]
    words += ["--head-mask", "random:2"]
    assert run(monkeypatch, *words, "--out", tmp_path / "whole") == 0
    out = tmp_path / "cut"
    for wait in (15, 40):
        child = subprocess.Popen(
            [sys.executable, "-m", "talking_heads", *words, "--out", str(out)],
            env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
            cwd=Path(__file__).parents[2],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + 300
        while time.monotonic() < end and child.poll() is None:
            steps = [int(x.name.partition("-")[2]) for x in out.glob("checkpoint-*")]
            if steps and max(steps) >= wait:
                break
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert not (out / "result.json").exists()
    assert run(monkeypatch, *words, "--out", out) == 0
    assert weights(out) == weights(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["multi-head:4:fused", "talking-heads:4:heads=8"])
def test_other_arms_learn_it_too(paths, tmp_path, monkeypatch, arm):
    words = [*train_words(paths), *FAST, "--arm", arm, "--dtype", "bfloat16", "--out", tmp_path / "out"]
    assert run(monkeypatch, "translate", "train", *words) == 0
    held = json.loads((tmp_path / "out" / "result.json").read_text())
    assert held["validation"]["bleu"] > 80


def test_measures_before_and_after(learned, paths, tmp_path, monkeypatch, capsys):
    plain = tmp_path / "plain"
    shutil.copytree(learned, plain)
    held = json.loads((plain / "result.json").read_text())
    held["settings"]["head_mask"] = ""
    (plain / "result.json").write_text(json.dumps(held))
    words = [
        "--source",
        paths["test.source"],
        "--reference",
        paths["test.target"],
        "--limit",
        "12",
        "--points",
        "4",
    ]
    words += ["--draws", "2", "--out", tmp_path / "page", "--json", tmp_path / "j.json", "--no-singles"]
    assert run(monkeypatch, "translate", "measure", learned, plain, *words) == 0
    first, second = json.loads((tmp_path / "j.json").read_text())["models"]
    assert (
        len(first["importance"]) == 24
        and first["ranked_on"] == "other sentences"
        and first["ranked_sentences"] == 28
    )
    assert first["inequality"] == second["inequality"] and 0 < first["inequality"]["gini"] < 1
    assert 0 < first["untrained"]["gini"] < 1 and first["untrained"] != first["inequality"]
    for order in ("most", "least", "random"):
        rows = first["curves"][order]
        assert [row["masked"] for row in rows] == [0, 6, 12, 18, 24]
        assert rows[0]["score"] == first["bleu"] > 90 and rows[-1]["score"] < 20
    assert first["areas"]["most"] < first["areas"]["least"]
    assert 0 < first["share_needed"] <= 1
    out = capsys.readouterr().out
    assert "talking-heads:4, masked random:2, seed 0" in out and "share for 95 %" in out
    assert "arms, over seeds" in out
    page = (tmp_path / "page" / "report.html").read_text()
    assert page.count("data:image/png") == 3
    assert json.loads((tmp_path / "page" / "results.json").read_text())["models"]


def test_report_of_arms_over_seeds(learned, paths, tmp_path, monkeypatch, capsys):
    words = ["--source", paths["test.source"], "--reference", paths["test.target"], "--beam", "1"]
    assert run(monkeypatch, "translate", "evaluate", learned, *words, "--json", tmp_path / "j") == 0
    held = json.loads((tmp_path / "j").read_text())
    given = []
    for arm, spoilt in (("multi-head:4", 0), ("talking-heads:4", 10)):
        for seed in range(3):
            lines = ["ka" if i < spoilt + seed else line for i, line in enumerate(held["translations"])]
            one = held | {"translations": lines, "bleu": held["bleu"] - spoilt - seed / 10}
            one["run"] = held["run"] | {"arm": arm, "seed": seed, "head_mask": ""}
            given.append(tmp_path / f"{arm[0]}-{seed}.json")
            given[-1].write_text(json.dumps(one))
    capsys.readouterr()
    table = tmp_path / "table"
    assert (
        run(monkeypatch, "translate", "report", *given, "--reference", paths["test.target"], "--json", table)
        == 0
    )
    base, other = json.loads(table.read_text())["rows"]
    assert (base["seeds"], other["seeds"]) == (3, 3) and base["spread"] == pytest.approx(0.1)
    assert other["difference"] == pytest.approx(-10) and other["interval over sentences"][1] < 0
    assert "interval over seeds" in capsys.readouterr().out
    assert "must come once" in refused(
        monkeypatch, capsys, "report", *given[:1] * 2, "--reference", paths["test.target"]
    )
