"""The nine experiments as data: each has floors, its arms can be built at every scale, and its directions name arms."""

import json

import pytest

from talking_heads.errors import UserError
from talking_heads.experiments import plan
from talking_heads.experiments.cost import cost_of
from talking_heads.experiments.scales import PAPER_STEPS, settings_of
from talking_heads.experiments.tables import DYNAMIC, EXPERIMENTS, SCALES, find
from talking_heads.nn.mixing import DYNAMIC as KNOWN
from talking_heads.training.arms import parse_arm
from talking_heads.training.models import build

from ..training.small import run

NAMES = ("heads", "counts", "maps", "where", "dynamic", "bilinear", "bert", "albert", "causal")


def test_there_are_nine_and_they_know_the_dynamic_maps():
    assert tuple(EXPERIMENTS) == NAMES and set(DYNAMIC) == set(KNOWN)
    with pytest.raises(UserError, match="must be one of heads, counts"):
        find("tables")


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", NAMES)
def test_every_arm_is_built_at_every_scale_and_directions_name_arms(name, scale):
    experiment = find(name)
    settings = settings_of(experiment, scale, [0])
    arms = [parse_arm(arm).name for arm in settings.arms]
    assert arms[-1] == "none" and len(set(arms)) == len(arms) >= 5
    for direction in experiment.directions_at(scale):
        assert {parse_arm(x).name for x in (direction.arm, direction.less)} <= set(arms)
    costs = {arm: cost_of(settings, arm) for arm in arms}
    assert all(x.parameters > 0 and x.multiplications > 0 for x in costs.values())
    plain = [x for x in arms if x.startswith("multi-head") and x.count(":") == 1]
    cheapest = min(x.attention_multiplications for arm, x in costs.items() if arm != "none")
    assert plain and all(costs[x].attention_multiplications == cheapest for x in plain)


def test_base_is_the_papers_shape():
    settings = settings_of(find("heads"), "base", [0])
    assert (settings.layers, settings.width, settings.steps, settings.batch) == (12, 768, PAPER_STEPS, 128)
    cost = cost_of(settings, "multi-head:12")
    assert cost.positions == (512, 114) and 2.2e8 < cost.parameters < 2.3e8
    heads = [parse_arm(arm).heads for arm in settings.arms]
    assert sorted({x for x in heads if x}) == [6, 12, 24, 48]
    assert (
        max(parse_arm(arm).heads for arm in settings_of(find("bert"), "base", [0]).arms) == 768
    )  # of size 1


def test_counts_are_varied_one_by_one():
    arms = [parse_arm(arm) for arm in find("counts").arms_at("tiny") if arm.startswith("talking")]
    found = {(x.key_heads or x.heads, x.softmax_heads or x.heads, x.value_heads or x.heads) for x in arms}
    assert {(4, 16, 4), (16, 4, 4), (4, 4, 16), (4, 4, 4), (16, 16, 16)} <= found


def test_heads_of_twice_the_size():
    settings = settings_of(find("bilinear"), "tiny", [0])
    sizes = {
        arm: build(settings, arm, 0).config.d_kv for arm in settings.arms if arm.startswith("multi-head")
    }
    assert sizes == {"multi-head:8": 16, "multi-head:8:size=32": 32, "multi-head:8:bilinear": 16}


def test_a_plan_says_what_a_run_takes():
    settings = settings_of(find("heads"), "base", [0, 1, 2])
    found = plan.plan(find("heads"), settings, "base", plan.gpus(8, 150e12))
    assert found["tokens"] == PAPER_STEPS * 128 * 568
    for arm in found["arms"]:
        assert arm["flops"] == 6 * arm["multiplications"] * 128 * PAPER_STEPS
        assert arm["minutes"] == pytest.approx(arm["flops"] / (8 * 150e12) / 60)
        states = 16 * arm["parameters"] / 2**30
        memory = arm["memory_gib"]
        assert memory["ddp"] > states and memory["ddp"] - memory["fsdp"] == pytest.approx(states * 7 / 8)
    assert found["minutes"] == pytest.approx(3 * sum(arm["minutes"] for arm in found["arms"]))
    said = " ".join(plan.lines(found))
    assert "8 GPUs, at 150 TFLOP/s each (assumed)" in said and "tokens a run" in said


def test_a_dry_run_on_the_command_line(tmp_path, monkeypatch, capsys):
    out = tmp_path / "plan.json"
    options = ["--dry-run", "--json", out, "--out", tmp_path / "runs", "--vocabulary", 325]
    assert run(monkeypatch, "experiment", "maps", *options) == 0
    plan = json.loads(out.read_text())
    arms = plan["arms"]
    assert plan["settings"]["vocabulary"] == 325  # bytes
    assert [x["name"] for x in arms] == [
        *("multi-head:16", "logits-map:16:random", "weights-map:16:random", "talking-heads:16:random", "none")
    ]
    assert all({"name", "parameters", "attention_multiplications", "minutes"} <= x.keys() for x in arms)
    assert "talking-heads:16:random" in capsys.readouterr().out and not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["tables"], "an experiment must be one of"),
        (["maps", "--scale", "huge"], "a scale must be one of tiny, small, base; got 'huge'"),
        (["maps", "--arm", "multi-head:3"], "--arm must name arms of the experiment"),
        (["maps", "--seeds", "0"], "a seed or more"),
        (["maps", "--vocabulary", "300"], "vocabulary must be at least 325"),
        (["maps", "--dtype", "float16"], "the --dtype of training must be one of float32, bfloat16"),
        (["maps", "--dry-run", "--dtype", "float16"], "the --dtype of training must be one of"),
        (["maps", "--fsdp", "--transfer", "next-sentence"], "fine-tuned whole"),
        (["maps", "--whole-words"], "whole words are masked by"),
        (["maps", "--dry-run", "--tflops", "0"], "--tflops must be more than 0"),
        (["maps", "--learning-rate", "nan"], "learning_rate must be a positive number"),
    ],
)
def test_mistakes_are_one_line(options, said, tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, "experiment", *options, "--out", tmp_path / "out") == 2
    printed = capsys.readouterr().err
    assert said in printed and printed.count("\n") == 1 and not (tmp_path / "out").exists()


def test_the_arms_of_a_table_by_another_objective(tmp_path, monkeypatch, capsys):
    out = tmp_path / "plan.json"
    options = ["--dry-run", "--objective", "causal-lm", "--json", out]
    assert run(monkeypatch, "experiment", "maps", *options) == 0
    plan = json.loads(out.read_text())
    assert plan["objective"] == "causal-lm" and plan["settings"]["length"] == 256  # its own sizes
    assert run(monkeypatch, "experiment", "where", *options) == 2
    assert "leave a layer to convert" in capsys.readouterr().err
