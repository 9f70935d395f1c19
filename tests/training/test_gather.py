"""Results from folders: pairs, what must not be mixed, what does not matter."""

import json

import pytest

from talking_heads.dynamics.transformer import _runs
from talking_heads.errors import UserError
from talking_heads.training.cells import table_lines
from talking_heads.training.compare import claim, refuse_foreign
from talking_heads.training.corpus import Corpus
from talking_heads.training.gather import gather, paired_at_equal_time
from talking_heads.training.judge import CLASS, END
from talking_heads.training.objectives import find
from talking_heads.training.settings import Settings
from talking_heads.training.tasks.classification import Texts

from .small import run


def write_run(out, arm, seed, losses, entropy=5.0, versions=None, digest="a", steps=10):
    folder = out / "runs" / arm.replace(":", "-") / f"seed-{seed}"
    folder.mkdir(parents=True)
    about = {"unigram_entropy": entropy, "transfer": [], "corpus_digest": digest}
    about |= {"corpus": "x", "tokens": 9, "tokens_seen": 9}
    result = {"arm": arm, "seed": seed, "parameters": 1, "loss": losses[-1], "transfer": {}, "maps": {}}
    result["curve"] = {str(step): loss for step, loss in zip((5, 10), losses, strict=True)}
    made = {"machine": {}, "versions": versions or {}, "commit": None}
    (folder / "result.json").write_text(
        json.dumps(result | {"settings": {"steps": steps}, "about": about} | made)
    )


def test_a_pair_at_equal_time_is_cut_at_the_faster_ones_end_whichever_it_is(tmp_path):
    for seed in range(3):
        write_run(tmp_path, "multi-head:2", seed, [6.0, 4.0])
        write_run(tmp_path, "talking-heads:2", seed, [5.0, 3.0])
    times = {"multi-head:2": 2.0, "talking-heads:2": 1.0}
    (tmp_path / "timing.json").write_text(json.dumps({"machine": {}, "seconds": {"0": times}}))
    slow, fast = gather([tmp_path])["arms"]
    assert paired_at_equal_time(fast, slow)["mean"] == pytest.approx(3 - 6)
    assert paired_at_equal_time(slow, fast)["mean"] == pytest.approx(6 - 3)


def test_one_arm_and_seed_twice_is_refused_and_one_folder_twice_is_not(tmp_path):
    for name in ("monday", "tuesday"):
        write_run(tmp_path / name, "multi-head:2", 0, [5.0, 4.0])
    monday = tmp_path / "monday"
    assert gather([monday, monday])["made_with"][0]["runs"] == 1
    with pytest.raises(UserError, match="multi-head:2, seed 0 twice"):
        gather([monday, tmp_path / "tuesday"])


def test_other_versions_or_data_are_flagged_and_not_averaged(tmp_path, monkeypatch, capsys):
    """As folders gathered from several machines may be."""
    for seed in range(3):
        write_run(tmp_path / "one", "multi-head:2", seed, [5.0, 4.0], versions={"torch": "2.13"})
    write_run(tmp_path / "two", "multi-head:2", 0, [5.0, 9.0], versions={"torch": "2.12"})
    write_run(tmp_path / "three", "multi-head:2", 1, [5.0, 7.0], versions={"torch": "2.13"}, digest="b")
    places = [tmp_path / name for name in ("two", "one", "three")]
    results = gather(places)
    assert (
        results["arms"][0]["loss"] == [4.0, 4.0, 4.0] and results["arms"][0]["summary"]["loss"]["mean"] == 4.0
    )
    assert [x["arms"][0]["loss"] for x in results["apart"]] == [[9.0], [7.0]]
    two, three = results["flags"]
    assert (
        "1 runs (multi-head:2) stand apart and are not averaged" in two
        and "torch 2.12 in place of 2.13" in two
    )
    assert "corpus_digest b in place of a" in three
    assert run(monkeypatch, "report", *places, "--out", tmp_path / "report") == 0
    printed = capsys.readouterr().out
    assert printed.startswith("1 runs (multi-head:2) stand apart") and printed.count("Apart from these:") == 2
    assert "torch 2.12 in place of 2.13" in (tmp_path / "report" / "report.html").read_text()
    write_run(tmp_path / "four", "multi-head:2", 5, [5.0, 4.0], versions={"torch": "2.13"}, steps=11)
    with pytest.raises(UserError, match="same settings; got runs that differ in steps"):
        gather([*places, tmp_path / "four"])


def test_the_last_bit_of_the_unigram_entropy_is_no_difference(tmp_path):
    write_run(tmp_path, "multi-head:2", 0, [5.0, 4.0])
    write_run(tmp_path, "multi-head:2", 1, [5.0, 4.0], entropy=5.000000000000001)
    assert len(gather([tmp_path])["arms"][0]["loss"]) == 2


def test_what_a_kill_cut_short_does_not_close_a_folder(tmp_path):
    (tmp_path / ".talking-heads-0123.tmp").write_text("{")
    refuse_foreign(tmp_path)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="new or empty"):
        refuse_foreign(tmp_path)
    steps = tmp_path / "run" / "runs" / "multi-head-2" / "seed-0" / "steps"
    for name in ("10", "5", ".talking-heads-0123.folder"):
        (steps / name).mkdir(parents=True)
    (tmp_path / "run" / "comparison.json").write_text("{}")
    assert [path.name for path in _runs(tmp_path / "run")["multi-head-2", 0]] == ["5", "10"]


def test_only_bert_reads_a_class_token_before_a_text():
    def tokenizer(texts, **given):
        return {"input_ids": [[100, END] for _ in texts]}

    for objective, start in (("masked-lm", [CLASS]), ("span-corruption", [])):
        texts = Texts([("a", 0)], find(objective), tokenizer, Settings(objective=objective))
        assert texts[0]["input_ids"].tolist() == [*start, 100, END]


def test_an_arm_spelt_otherwise_is_no_further_arm(tmp_path):
    for arm in ("talking-heads:2", "talking-heads:2:identity"):
        settings = claim(tmp_path, Settings(arms=(arm,)), Corpus("x", [], [], [], []), [])
    assert settings.arms == ("talking-heads:2",)


def test_results_of_before_there_were_floors_are_read(tmp_path):
    write_run(tmp_path, "multi-head:2", 0, [6.0, 4.0], entropy=5.0)
    results = gather([tmp_path])
    assert results["evidence"] is None and results["floors"] == {"unigram": 5.0, "kneser_ney": {}}
    assert table_lines(results)[0].startswith("| arm ")
