"""An experiment in its folder: side by side, refused where another is at work, reported from the folder alone."""

import json
import shutil

import pytest

from talking_heads.experiments.report import direction_lines, summarise
from talking_heads.experiments.start import Start
from talking_heads.results import folders
from talking_heads.training.gather import gather
from talking_heads.training.hardware import Hardware
from talking_heads.training.settings import Settings

from ..finetune.small import write_pairs
from ..training.small import addresses, from_texts, run, write_texts
from ..training.test_compare import figures

SMALL = "--steps 4 --batch 2 --length 32 --width 32 --layers 1 --seeds 1".split()  # noqa: SIM905
ARMS = [word for arm in ("multi-head:8", "talking-heads:8:random", "none") for word in ("--arm", arm)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(texts, the folder of an experiment of three arms in one process)."""
    folder = tmp_path_factory.mktemp("experiment")
    texts = from_texts(write_texts(folder))
    with pytest.MonkeyPatch.context() as patch:
        assert run(patch, "experiment", "causal", *SMALL, *ARMS, *texts, "--out", folder / "out") == 0
    return texts, folder / "out"


@pytest.mark.slow
def test_side_by_side_ends_with_the_same_figures(finished, tmp_path, monkeypatch):
    texts, alone = finished
    out = tmp_path / "out"
    assert run(monkeypatch, "experiment", "causal", *SMALL, *ARMS, *texts, "--jobs", "2", "--out", out) == 0
    both = [json.loads((folder / "results.json").read_text()) for folder in (alone, out)]
    assert figures(both[0]) == figures(both[1]) and len(both[1]["arms"]) == 3


def test_each_run_says_what_it_is(finished):
    _, out = finished
    assert len(list(out.glob("runs/*/seed-0"))) == 3
    for path in out.glob("runs/*/seed-0"):
        started = json.loads((path / "run.json").read_text())
        assert "experiment causal" in started["command"] and started["data"]["corpus_digest"]
        assert {"commit", "versions", "machine", "config", "arm", "seed"} <= started.keys()
        losses = [json.loads(x) for x in (path / "metrics.jsonl").read_text().splitlines()]
        assert [x["step"] for x in losses if "loss" in x] == [1, 2, 3, 4]
        assert [x["step"] for x in losses if "held_out_loss" in x] == [1, 2, 3, 4]


def test_a_second_process_and_changed_data_are_refused(finished, tmp_path, monkeypatch, capsys):
    texts, done = finished
    out = tmp_path / "out"
    shutil.copytree(done, out)
    with folders.lock(out, "experiment"):
        assert run(monkeypatch, "experiment", "causal", *SMALL, *ARMS, *texts, "--out", out) == 2
    assert "one process may run in an experiment's folder; got another at work" in capsys.readouterr().err
    assert run(monkeypatch, "experiment", "causal", *SMALL, *ARMS, *texts[2:], *texts[:2], "--out", out) == 2
    assert "differs in corpus" in capsys.readouterr().err
    assert run(monkeypatch, "experiment", "maps", *SMALL, *texts, "--out", out) == 2
    assert "differs in" in capsys.readouterr().err


def test_the_report_has_cost_floors_and_directions(finished, tmp_path, monkeypatch, capsys):
    _, done = finished
    assert run(monkeypatch, "report", done, "--out", tmp_path / "report") == 0
    printed = capsys.readouterr().out
    assert "Kneser-Ney 6-grams" in printed and "attention multiplications" in printed
    assert "talking heads below multi-head at 8 heads" in printed
    found = json.loads((tmp_path / "report" / "experiment.json").read_text())
    assert found["experiment"] == "causal" and found["scale"] == "tiny" and found["measure"] == "part:test"
    seen = {x["says"]: x["seen"] for x in found["directions"]}
    assert (
        seen["talking heads below multi-head at 16 heads"] == "not run"
        and "multi-head:16" in found["missing"]
    )
    wanted = "no evidence: no arm beats the floors" if found["evidence"] is False else "too few seeds to say"
    assert seen["talking heads below multi-head at 8 heads"] == wanted
    results = json.loads((tmp_path / "report" / "results.json").read_text())
    assert found["floors"]["part:test"] == results["parts"]["test"]["floors"]
    row = next(x for x in printed.splitlines() if x.startswith("| Kneser-Ney 5-grams"))
    told = [
        results["parts"]["test"]["floors"],
        results["floors"],
    ]  # the test text's, then the validation text's
    assert [f"{x['kneser_ney']['5']:.3f}" for x in told] == [x.strip() for x in row.split("|")[5:7]]
    arms = {x["name"]: x for x in found["arms"]}
    assert arms["none"]["attention_multiplications"] == 0 < arms["multi-head:8"]["attention_multiplications"]


def test_a_table_by_another_objective_is_not_the_papers(finished):
    """The arms of `causal` are those of `heads`, whose own objective is span corruption."""
    results = gather([finished[1]])
    own, other = (
        summarise(results | {"experiment": {"name": name, "scale": "tiny"}}) for name in ("causal", "heads")
    )
    assert own["objective"] == other["objective"] == "causal-lm" and other["directions"]
    assert [x["difference"] for x in own["directions"]] == [x["difference"] for x in other["directions"]]
    told = [{tuple(line.split(" | ")[::2][:2]) for line in direction_lines([x])[2:]} for x in (own, other)]
    assert told == [{("| causal", "asked here")}, {("| heads (causal-lm)", "the paper, by span-corruption")}]


def test_what_a_helper_is_told_is_what_was_asked(tmp_path):
    start = Start(
        "maps",
        "tiny",
        Settings(seeds=(1, 2)),
        tmp_path,
        (tmp_path / "a",),
        None,
        ("none",),
        Hardware(2, report_to=("x",)),
        True,
    )
    assert Start.of_json(start.to_json()) == start


def test_models_are_fine_tuned_in_their_runs_folders(finished, tmp_path, monkeypatch, capsys):
    texts, done = finished
    out = tmp_path / "out"
    shutil.copytree(done, out)
    write_pairs(tmp_path / "data" / "RTE", 16, 8)
    given = ["experiment", "causal", *SMALL, *ARMS, *texts, "--out", out, "--task", "rte"]
    assert run(monkeypatch, *given, "--data", tmp_path / "data" / "none") == 2
    assert "must name a folder or a data set" in capsys.readouterr().err
    assert run(monkeypatch, *given, "--data", tmp_path / "data") == 0
    assert run(monkeypatch, "report", out) == 0
    printed = capsys.readouterr().out
    assert "rte (accuracy)" in printed and "bag of words" in printed
    tasks = json.loads((out / "experiment.json").read_text())["tasks"]
    assert tasks["rte"]["arms"].keys() == {"multi-head:8", "talking-heads:8:random"}
    assert tasks["rte"]["floors"]["bag_of_words"] == {"accuracy": 1.0} and not tasks["rte"]["flags"]
    path = next(out.glob("runs/multi*/seed-0/finetune/rte/result.json"))
    other = json.loads(path.read_text())
    other["data"]["judged"]["sha256"] = "another"
    path.write_text(json.dumps(other))
    assert run(monkeypatch, "report", out) == 0
    assert "has other data and is left out" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["experiment", "causal"], ["compare", "--objective", "causal-lm"]])
def test_a_streamed_data_set_is_learned_from(tmp_path, monkeypatch, command):
    """The first part gives tokenizer and floors, the rest is learned from."""
    from talking_heads.training import corpus, stream

    rows = [{"text": f"{i} {x}"} for i in range(6) for x in addresses(True).split("\n") if x.strip()]
    folder, out, opened = tmp_path / "text", tmp_path / "out", []
    folder.mkdir()
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.setattr(corpus, "MEGABYTES", 0.2)
    start = stream.HubText.open
    monkeypatch.setattr(stream.HubText, "open", lambda self: opened.append(self.skip) or start(self))
    given = [*SMALL, "--arm", "multi-head:8", "--transfer", "none", "--hub", folder, "--stream", "--out", out]
    assert run(monkeypatch, *command, *given) == 0
    assert len(opened) == 1 and 20 < opened[0] < len(rows)
    (arm,) = json.loads((out / "results.json").read_text())["arms"]
    assert len(arm["loss"]) == 1 and arm["curves"][0].keys() == {"1", "2", "3", "4"}
