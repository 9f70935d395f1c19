"""A comparison of causal language models: floors, texts judged once, equal time, an arm without attention."""

import json
import math

import pytest
import torch

from talking_heads.training.cells import headline, table_lines
from talking_heads.training.compare import run_folder
from talking_heads.training.floors import floors
from talking_heads.training.gather import gather
from talking_heads.training.objectives import find
from talking_heads.training.objectives.causal_lm import BYTES
from talking_heads.training.tokens import load_blocks

from .small import addresses, run

SIZES = "--seeds 1 --steps 4 --batch 2 --length 32 --width 32 --layers 1 --transfer none".split()  # noqa: SIM905
ARMS = ["multi-head:2", "talking-heads:2:heads=4", "none"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("lm")
    (folder / "verse.txt").write_text("Shall I compare thee to a summer's day?\n" * 40)
    options = ["--objective", "causal-lm", "--equal-time", "--other", folder / "verse.txt", *SIZES, *texts]
    arms = [word for arm in ARMS for word in ("--arm", arm)]
    with pytest.MonkeyPatch.context() as patch:
        assert run(patch, "compare", "--out", folder / "out", *options, *arms) == 0
    return folder / "out", json.loads((folder / "out" / "results.json").read_text())


def test_floors_are_those_of_the_tokens_that_are_judged(finished):
    out, results = finished
    data = load_blocks(out / "data" / "blocks.safetensors")
    assert results["tokens"] == data["train"].numel() and int(data["train"].max()) < BYTES
    assert len(data["held_out"]) < 256 or results["judged_tokens"] == 256 * 32
    for name, found in (("test", results["parts"]["test"]), ("other:verse", results["parts"]["other:verse"])):
        assert found["floors"] == floors(data["train"], data[name], BYTES)
    assert results["floors"].keys() == {"unigram", "kneser_ney"} == results["parts"]["test"]["floors"].keys()
    assert list(results["floors"]["kneser_ney"]) == ["2", "3", "4", "5", "6"]
    assert results["unigram_entropy"] == results["floors"]["unigram"] > results["floors"]["kneser_ney"]["3"]


def test_every_text_has_a_loss_and_a_text_of_bytes_its_bits(finished):
    out, results = finished
    for arm in results["arms"]:
        assert arm["parts"].keys() >= {"test", "other:verse"}
        assert ("maps reset" in arm["parts"]) is False  # none, or maps that are not square
        assert arm["perplexity"][0] == pytest.approx(math.exp(arm["loss"][0]))
        bits = arm["loss"][0] / math.log(2) / results["bytes_per_token"]
        assert arm["bits_per_byte"][0] == pytest.approx(bits) and 0.99 < results["bytes_per_token"] <= 1
    page = (out / "report.html").read_text()
    assert "bits a byte" in page and "loss, verse" in page and "Kneser-Ney 6-grams" in page


def test_a_run_that_learned_nothing_is_said_to_be_no_evidence(finished):
    _, results = finished
    assert results["evidence"] is False
    first = table_lines(results)[0]
    assert first.startswith("This run is no evidence about attention") and "none " in first
    better = {**results, "evidence": True}
    assert headline(better) == [] and table_lines(better)[0].startswith("| arm")


def test_equal_time_gives_each_arm_its_own_schedule(finished):
    out, results = finished
    first, *others = results["arms"]
    assert first["steps"] == 4 and first["ratio"] is None
    for arm in others:
        assert len(arm["ratio"]["values"]) == 5 and arm["ratio"]["interval"]
        assert arm["steps"] == max(1, round(4 / arm["ratio"]["mean"]))
        assert max(map(int, arm["curves"][0])) == arm["steps"] and "equal_time_loss" not in arm
    assert any("others in the same time: talking-heads" in line for line in table_lines(results))
    kept = json.loads((out / "arms.json").read_text())
    assert kept["multi-head:2"]["runs_as"] == "multi-head:2:plain" and "transformers" in first["reason"]
    assert [arm["backend"] for arm in results["arms"]][::2] == ["transformers: sdpa", "none"]
    assert others[0]["backend"].startswith("talking_heads: ")


def test_evidence_needs_an_arm_below_every_floor_and_every_arm_without_attention(finished, tmp_path):
    out, _ = finished
    for arm, loss in (("multi-head:2", 1.0), ("talking-heads:2:heads=4", 0.9), ("none", 0.95)):
        path = run_folder(out, arm, 0) / "result.json"
        target = run_folder(tmp_path, arm, 0) / "result.json"
        target.parent.mkdir(parents=True)
        target.write_text(json.dumps(json.loads(path.read_text()) | {"loss": loss}))
    assert gather([tmp_path])["evidence"] is True
    (run_folder(tmp_path, "talking-heads:2:heads=4", 0) / "result.json").unlink()
    assert gather([tmp_path])["evidence"] is False


def test_a_causal_model_sees_only_what_came_before():
    from talking_heads.training.models import build
    from talking_heads.training.settings import preset

    settings = preset("demo", objective="causal-lm", width=16, layers=1, length=12)
    assert settings.vocabulary == BYTES and settings.steps == 2000
    model = build(settings, "talking-heads:2", 0).eval()
    ids = torch.randint(3, BYTES, (1, 12), generator=torch.Generator().manual_seed(0))
    other = ids.clone()
    other[0, 7] = 3 + (ids[0, 7] - 2) % 250
    same = torch.isclose(model(input_ids=ids).logits, model(input_ids=other).logits, atol=1e-6).all(-1)[0]
    assert same.tolist() == [True] * 7 + [False] * 5
    example = find("causal-lm").train({"train": ids.int()}, settings, 0, 1)[0]
    assert torch.equal(example["labels"], ids[0])


def test_a_text_of_words_is_in_the_vocabulary_that_is_asked_for(texts, tmp_path):
    from talking_heads.training.corpus import Corpus, Document
    from talking_heads.training.settings import preset

    text = [Document(addresses(True)[:20_000])]
    settings = preset("demo", objective="causal-lm", vocabulary=400, length=16, judged=9999)
    objective = find("causal-lm")
    tokenizer, data = objective.prepare(tmp_path, settings, Corpus("x", text, text, [], []))
    assert len(tokenizer) == 400 and data["train"].max() >= BYTES
    per_token = data["bytes"].flatten()[data["held_out"].long()].double().mean().item()
    assert objective.about(data, settings)["bytes_per_token"] == pytest.approx(per_token) and per_token > 1.3
