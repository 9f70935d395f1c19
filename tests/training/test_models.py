"""What arms share: their start, their data, the weights that go on to the transfer task."""

import dataclasses

import pytest
import torch

from talking_heads import param_groups
from talking_heads.errors import UserError
from talking_heads.results.schema import NUMBER, Each, fault
from talking_heads.training import timing
from talking_heads.training.blocks import Examples
from talking_heads.training.judge import collate
from talking_heads.training.models import build, load_body, parameters, static_maps
from talking_heads.training.objectives import find, names
from talking_heads.training.objectives.span_corruption import corrupt

from .small import SMALL

OBJECTIVES = names()
KINDS = {
    "multi-head:2": set(),
    "talking-heads:2": {"logits_mix", "weights_mix"},
    "multi-head:2:fused": set(),
    "logits-map:2": {"logits_mix"},
    "weights-map:2": {"weights_mix"},
}


def settings(objective):
    return dataclasses.replace(SMALL, objective=objective)


def blocks(count=8):
    return torch.randint(69, 512, (count, SMALL.length), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("arm", KINDS)
def test_arms_differ_in_their_maps_alone(arm, objective):
    first, model = (build(settings(objective), name, 3) for name in ("multi-head:2", arm))
    parameters = dict(model.named_parameters())
    maps = {name for name in parameters if name.endswith("_mix")}
    assert {name.rpartition(".")[2] for name in maps} == KINDS[arm]
    assert parameters.keys() - maps == dict(first.named_parameters()).keys()
    for name, parameter in first.named_parameters():
        assert torch.equal(parameter, parameters[name]), name
    for name in maps:
        assert torch.equal(parameters[name], torch.eye(2))
    examples = Examples(blocks(), 8, 0, find(objective).example, judged=True)
    assert find(objective).evaluate(model, examples) == pytest.approx(
        find(objective).evaluate(first, examples), rel=1e-5
    )


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_seeds_and_random_maps_start_elsewhere(objective):
    one, other = (build(settings(objective), "talking-heads:2", seed).state_dict() for seed in (0, 1))
    assert any(not torch.equal(one[name], other[name]) for name in one)
    again = build(settings(objective), "talking-heads:2", 0).state_dict()
    assert all(torch.equal(one[name], again[name]) for name in one)
    random = build(settings(objective), "talking-heads:2:random", 0)
    maps = [x for name, x in random.named_parameters() if name.endswith("_mix")]
    assert maps and all(not torch.equal(x, torch.eye(2)) for x in maps)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_more_heads_of_the_same_width_cost_the_maps_only(objective):
    count = lambda arm: sum(x.numel() for x in build(settings(objective), arm, 0).parameters())  # noqa: E731
    few, many = count("multi-head:2"), count("multi-head:4")
    assert many - few in (0, 2 * 32 * 2)  # T5's position biases have a number a head
    layers = 3 if objective == "span-corruption" else 1
    assert count("talking-heads:4") - many == layers * 2 * 4 * 4
    assert count("multi-head:2:width=32") > 1.5 * few


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("arm", ["multi-head:2", "talking-heads:2"])
def test_the_classifier_goes_on_from_the_pretrained_body(arm, objective):
    pretrained = build(settings(objective), arm, 0)
    with torch.no_grad():
        for parameter in pretrained.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    classifier = build(settings(objective), arm, 0, head="classify", num_labels=3)
    start = {name: x.clone() for name, x in classifier.state_dict().items()}
    load_body(classifier, pretrained)
    given = pretrained.base_model.state_dict()
    for name, x in classifier.base_model.state_dict().items():
        if not name.startswith("pooler."):
            assert torch.equal(x, given[name]), name
    own = [name for name in start if name.startswith(("classification_head.", "classifier.", "score."))]
    assert own and all(torch.equal(classifier.state_dict()[name], start[name]) for name in own)
    assert classifier(input_ids=torch.tensor([[70, 71, 1]])).logits.shape == (1, 3)


def test_a_body_that_does_not_fit_is_refused():
    classifier = build(settings("masked-lm"), "talking-heads:2", 0, head="classify", num_labels=2)
    with pytest.raises(RuntimeError, match=r"lacks .*_mix"):
        load_body(classifier, build(settings("masked-lm"), "multi-head:2", 0))


def test_weight_decay_leaves_the_maps_alone_in_training():
    model = build(SMALL, "talking-heads:2", 0)
    names = {id(x): name for name, x in model.named_parameters()}
    decayed = {
        names[id(x)] for group in param_groups(model, 0.5) if group["weight_decay"] for x in group["params"]
    }
    maps = {name for name in names.values() if name.endswith("_mix")}
    assert maps and not maps & decayed and "shared.weight" in decayed


def test_held_out_loss_is_the_mean_over_tokens_not_over_batches():
    model = build(SMALL, "multi-head:2", 0).train()
    examples = Examples(blocks(40), 40, 0, corrupt, judged=True)  # two batches, of 32 and 8
    total, count = 0.0, 0
    for i in range(40):
        batch = collate([examples[i]])
        loss = model.eval()(**batch).loss.item()
        kept = int((batch["labels"] != -100).sum())
        total, count = total + loss * kept, count + kept
    model.train()
    assert find("span-corruption").evaluate(model, examples) == pytest.approx(total / count, rel=1e-5)
    assert model.training


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_step_of_each_arm_is_timed_alternately(objective, monkeypatch):
    order = []

    def watched(given, arm, seed):
        model = build(given, arm, seed)
        model.register_forward_pre_hook(lambda *_: order.append(arm))
        return model

    given = dataclasses.replace(settings(objective), batch=2)
    monkeypatch.setattr(timing, "build", watched)
    found = timing.step_seconds(given, 0, {"train": blocks()})
    assert found.keys() == set(given.arms) and all(0 < seconds < 10 for seconds in found.values())
    assert order == list(given.arms) * (timing.ROUNDS + 2)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_an_arm_without_attention_has_as_many_parameters_and_sees_one_token(objective):
    given = settings(objective)
    whole, none = parameters(given, "multi-head:1:plain"), parameters(given, "none")
    assert none == pytest.approx(whole, abs=4 * 3 * given.width)  # within a unit of each feed-forward
    model = build(given, "none", 0).eval()
    ids = torch.arange(100, 110)[None]
    other = ids.clone()
    other[0, 4] = 200
    extra = {"decoder_input_ids": ids} if objective == "span-corruption" else {}
    logits = lambda ids: find(objective).logits(model(input_ids=ids, **extra))  # noqa: E731
    same = (logits(ids) == logits(other)).all(-1)[0]
    assert [i for i in range(10) if not same[i]] == ([] if extra else [4])  # not even cross-attention


@pytest.mark.parametrize(
    ("objective", "arm", "shapes"),
    [
        ("causal-lm", "talking-heads:2:heads=4:key_heads=4", {(4, 4), (4, 2)}),
        ("masked-lm", "talking-heads:2:value_heads=4", {(2, 2), (2, 4)}),
        ("span-corruption", "talking-heads:2:maps=none:dynamic=query_logits", {(16, 2, 2)}),
        ("span-corruption", "weights-map:2:kinds=cross", {(2, 2)}),
        ("span-corruption", "talking-heads:2:heads=4", {(2, 4), (4, 2)}),
        ("span-corruption", "multi-head:2:bilinear", set()),
    ],
)
def test_options_reach_the_model(objective, arm, shapes):
    model = build(settings(objective), arm, 0)
    maps = {name: tuple(x.shape) for name, x in model.named_parameters() if "head_mixing" in name}
    assert set(maps.values()) == shapes
    if "cross" in arm:
        assert all("EncDecAttention" in name for name in maps)
    if "bilinear" in arm:
        assert model.encoder.block[0].layer[0].SelfAttention.q.weight.shape == (2 * 16, 16)
    assert parameters(settings(objective), arm) == sum(x.numel() for x in model.parameters())


def test_only_static_maps_are_kept_with_a_result():
    model = build(settings("causal-lm"), "talking-heads:2:dynamic=query_logits", 0)
    names = {name.rpartition(".")[2] for name, _ in model.named_parameters() if "head_mixing" in name}
    assert names == {"logits_mix", "weights_mix", "query_logits_mix"}
    maps = static_maps(model)
    assert maps and fault(maps, Each([[NUMBER]])) is None  # the form of a run's result
    assert {name.rpartition(".")[2] for name in maps} == {"logits_mix", "weights_mix"}


def test_options_that_the_architecture_does_not_take_are_a_users_mistake():
    for arm in ("talking-heads:2:bilinear", "talking-heads:2:kinds=cross", "talking-heads:2:layers=7"):
        with pytest.raises(UserError, match="; got "):
            parameters(settings("causal-lm"), arm)


@pytest.mark.parametrize(
    ("arm", "free"), [("talking-heads:4:within=2", 8), ("logits-map:4:within=1:random", 4)]
)
def test_heads_talk_within_their_group_alone(arm, free):
    model = build(SMALL, arm, 0)
    optimizer = torch.optim.AdamW(param_groups(model, 0.1), lr=0.1)
    batch = collate([Examples(blocks(), 4, 0, corrupt)[i] for i in range(4)])
    for _ in range(2):
        model(**batch).loss.backward()
        optimizer.step()
    for name, mix in model.named_parameters():
        if name.endswith("_mix"):
            assert (mix != 0).sum() == free and not torch.equal(mix.diag(), torch.ones(4))


def test_frozen_maps_keep_their_start():
    maps = [
        x for name, x in build(SMALL, "talking-heads:2:random:frozen", 0).named_parameters() if "_mix" in name
    ]
    assert maps and not any(x.requires_grad for x in maps)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_model_that_answers_questions_goes_on_from_the_pretrained_body(objective):
    pretrained = build(settings(objective), "talking-heads:2", 1)
    model = build(settings(objective), "talking-heads:2", 0, head="answer")
    load_body(model, pretrained)
    given = pretrained.base_model.state_dict()
    shared = [name for name in model.base_model.state_dict() if name in given]
    assert len(shared) > 8
    assert all(torch.equal(model.base_model.state_dict()[name], given[name]) for name in shared)
    ids = torch.tensor([[70, 71, 1]])
    assert model(input_ids=ids).start_logits.shape == ids.shape
