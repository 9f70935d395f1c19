"""Arms and settings: what they mean, what they refuse."""

import pytest

from talking_heads.errors import UserError
from talking_heads.training.arms import KINDS, Arm, parse_arm
from talking_heads.training.settings import PRESETS, Settings, preset
from talking_heads.training.tokens import LEAST_VOCABULARY


@pytest.mark.parametrize(
    ("text", "arm", "maps"),
    [
        ("multi-head:8", Arm("multi-head", 8), (False, False)),
        ("talking-heads:16", Arm("talking-heads", 16), (True, True)),
        ("logits-map:4:random", Arm("logits-map", 4, "random"), (True, False)),
        ("multi-head:4:ff=96:fused", Arm("multi-head", 4, feed_forward=96, fused=True), (False, False)),
        ("weights-map:4:identity:width=96", Arm("weights-map", 4, width=96), (False, True)),
    ],
)
def test_arms(text, arm, maps):
    found = parse_arm(text)
    assert found == arm and tuple(found.maps.values()) == maps
    assert parse_arm(found.name) == found


@pytest.mark.parametrize(
    "text", ["", "multi-head", "multihead:8", "talking-heads:0", "talking-heads:x", "talking-heads:-2"]
)
@pytest.mark.parametrize("tail", ["", ":half", ":width=", ":width=wide"])
def test_arms_that_are_none(text, tail):
    for wrong in {text + tail, "multi-head:8" + tail} - {"multi-head:8"}:
        with pytest.raises(UserError) as refusal:
            parse_arm(wrong)
        message = str(refusal.value)
        assert repr(wrong) in message and all(kind in message for kind in KINDS) and "\n" not in message


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"objective": "translation"}, "one of causal-lm, masked-lm, sentence-order, span-corruption"),
        ({"arms": ("multi-head:7",)}, "multiple of its heads"),
        ({"arms": ("multi-head:8:width=100",)}, "multiple of its heads"),
        ({"arms": ("multi-head:8", "multi-head:8:identity")}, "arms must differ"),
        ({"arms": ("talking-heads:8", "talking-heads:8")}, "arms must differ"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"batch": -1}, "batch must be at least 1"),
        ({"layers": 0}, "layers must be at least 1"),
        ({"seeds": ()}, "a seed or more"),
        ({"seeds": (-1,)}, "from 0 to 2^32 - 1"),
        ({"seeds": (2**40,)}, "from 0 to 2^32 - 1"),
        ({"learning_rate": -1.0}, "learning_rate must be a positive number"),
        ({"learning_rate": float("nan")}, "learning_rate must be a positive number"),
        ({"length": 1}, "length must be at least 2"),
        ({"vocabulary": LEAST_VOCABULARY - 1}, f"vocabulary must be at least {LEAST_VOCABULARY}"),
        ({"transfer_examples": 0}, "transfer_examples must be at least 1"),
        ({"arms": ("multi-head:²",)}, "an arm must be"),
        ({"arms": ("multi-head:8:ff=0",)}, "an arm must be"),
        ({"arms": ("talking-heads:8:fused",)}, "fused: multi-head only"),
    ],
)
def test_settings_that_are_refused(changes, said):
    with pytest.raises(UserError) as refusal:
        Settings(**changes)
    assert said in str(refusal.value) and "; got " in str(refusal.value) and "\n" not in str(refusal.value)


def test_presets_are_settings():
    for name in PRESETS:
        assert {parse_arm(arm).kind for arm in preset(name).arms} >= {"multi-head", "talking-heads"}
    assert len(preset("demo").seeds) in (2, 3) and len(preset("demo").arms) == 2
    base = preset("base")  # the paper's T5-base
    assert (base.width, base.layers, base.feed_forward, base.length, base.batch) == (768, 12, 3072, 512, 128)
    with pytest.raises(UserError, match="a preset must be one of demo, small, base; got 'tiny'"):
        preset("tiny")


def test_what_is_given_changes_a_preset_and_what_is_not_does_not():
    assert preset("small", steps=7, width=None) == preset("small", steps=7)
    assert preset("small", steps=7).width == PRESETS["small"]["width"]


@pytest.mark.parametrize(("steps", "evaluations", "every"), [(500, 8, 62), (4, 8, 1), (1, 1, 1)])
def test_evaluations(steps, evaluations, every):
    assert Settings(steps=steps, evaluations=evaluations).evaluate_every == every


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("talking-heads:16:heads=32", None, {"num_heads": 32}),
        (
            "talking-heads:4:value_heads=8:key_heads=8",
            "talking-heads:4:key_heads=8:value_heads=8",
            {"num_key_heads": 8, "num_value_heads": 8},
        ),
        ("talking-heads:8:maps=logits:init=random", "logits-map:8:random", {"init": "random"}),
        ("talking-heads:8:maps=both", "talking-heads:8", {}),
        (
            "talking-heads:8:dynamic=query_weights+query_logits:maps=none",
            "talking-heads:8:maps=none:dynamic=query_logits,query_weights",
            {"dynamic": ("query_logits", "query_weights")},
        ),
        (
            "weights-map:8:layers=2,0,encoder.*:kinds=cross",
            "weights-map:8:layers=0,2,encoder.*:kinds=cross",
            {"layers": (0, 2, "encoder.*"), "kinds": ("cross",)},
        ),
        ("multi-head:8:bilinear", None, {"bilinear": True}),
        ("talking-heads:8:rate=3e-3:within=4", "talking-heads:8:within=4:rate=0.003", {}),
        ("talking-heads:8:frozen:random", "talking-heads:8:random:frozen", {"init": "random"}),
        ("none:width=64", None, {}),
    ],
)
def test_an_arm_has_every_option_of_convert_and_one_spelling(text, name, options):
    arm = parse_arm(text)
    assert arm.name == (name or text) and parse_arm(arm.name) == arm
    plain = {**arm.maps, "init": "identity"}
    assert arm.options == plain | options
    assert not set(arm.folder) - set("abcdefghijklmnopqrstuvwxyz0123456789-.,_")


def test_folders_of_different_arms_differ():
    arms = ["talking-heads:8:layers=encoder.*", "talking-heads:8:layers=encoder.?", "talking-heads:8"]
    assert len({parse_arm(arm).folder for arm in arms}) == 3


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("multi-head:8:heads=4", "heads without maps"),
        ("multi-head:8:random", "random without maps"),
        ("multi-head:8:layers=0", "layers without maps"),
        ("talking-heads:8:maps=none", "without dynamic maps"),
        ("talking-heads:8:heads=4:heads=8", "heads twice"),
        ("talking-heads:8:random:init=identity", "init twice"),
        ("talking-heads:8:shout", "an OPTION is one of heads=N"),
        ("talking-heads:8:rate=-1", "an OPTION is one of"),
        ("talking-heads:8:within=2:dynamic=query_logits", "within with dynamic"),
        ("none:8", "an OPTION is one of"),
        ("none:bilinear", "bilinear without maps"),
        ("multi-head:8:plain:fused", "plain with another path"),
        ("logits-map:8:maps=weights", "an OPTION is one of"),
    ],
)
def test_options_that_would_change_nothing_are_refused(text, why):
    with pytest.raises(UserError) as refusal:
        parse_arm(text)
    assert why in str(refusal.value) and repr(text) in str(refusal.value)
