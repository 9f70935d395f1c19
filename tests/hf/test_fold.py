"""Maps folded back into plain projections where mathematics allows, and the reason where it does not."""

import copy

import pytest
import torch
import transformers

from talking_heads.hf import convert, fold, mixings
from talking_heads.hf.survey.check import run
from talking_heads.hf.survey.run import build
from tests.hf.models import batch, model
from tests.hf.test_named import assert_equal, stir


def multi_query(name="LlamaForCausalLM", keys=1, **config):
    return build(getattr(transformers, name), {"config": {"num_key_value_heads": keys, **config}})


def folded(talking):
    """The folded twin of a converted model, both compared on outputs; it holds nothing of this package."""
    plain = fold(copy.deepcopy(talking))
    assert not mixings(plain) and not any("mix" in name for name in plain.state_dict())
    assert type(plain.config).__module__.startswith("transformers.")
    assert plain.config._attn_implementation == "sdpa"
    given = batch("llama", plain)
    assert_equal(run(plain, given, gradients=False), run(talking, given, gradients=False))
    return plain


def test_all_heads_of_one_key_and_value_fold(tmp_path):
    talking = multi_query()
    convert(talking)
    plain = folded(stir(talking))
    plain.save_pretrained(tmp_path)
    loaded = transformers.LlamaForCausalLM.from_pretrained(tmp_path).eval()
    given = batch("llama", plain)
    assert_equal(run(loaded, given, gradients=False), run(talking, given, gradients=False))


def test_heads_of_a_group_fold_and_others_do_not():
    talking = multi_query(keys=2)
    convert(talking)
    inside = torch.block_diag(torch.ones(2, 2), torch.ones(2, 2)).double()
    stir(talking)
    with torch.no_grad():
        for mixing in mixings(talking).values():
            for mix in mixing.parameters():
                mix.mul_(inside)
    folded(talking)
    with torch.no_grad():
        next(iter(mixings(talking).values())).weights_mix[1, 2] = 0.5
    with pytest.raises(
        ValueError, match="heads 1 and 2 have values of their own, and weights_mix mixes them"
    ):
        fold(talking)


@pytest.mark.parametrize("name", ["bert", "gpt2", "t5", "bart", "llama"])
def test_diagonal_maps_fold_everywhere(name):
    talking = model(name)
    convert(talking)
    with torch.no_grad():
        for mixing in mixings(talking).values():
            for mix in mixing.parameters():
                mix.copy_(torch.diag(torch.rand(4).double() + 0.5))
    given = batch(name, talking)
    want = run(talking, given, gradients=False)
    assert_equal(run(fold(talking), given, gradients=False), want)
    assert not mixings(talking)


def test_heads_of_equal_values_fold():
    """Two heads with one value projection, mixed after the softmax."""
    talking = model("bert")
    for layer in talking.bert.encoder.layer:
        for part in layer.attention.self.value.parameters():
            part.data[16:32] = part.data[:16]
    convert(talking, logits_mix=False)
    with torch.no_grad():
        for mixing in mixings(talking).values():
            mixing.weights_mix[:2, :2] = torch.randn(2, 2).double()
    given = batch("bert", talking)
    want = run(talking, given, gradients=False)
    assert_equal(run(fold(talking), given, gradients=False), want)


def _converted(made, **options):
    convert(made, **options)
    return stir(made)


REFUSALS = {
    "keys of their own": (lambda: _converted(model("bert")), "have keys of their own, and logits_mix mixes"),
    "values of their own": (
        lambda: _converted(model("gpt2"), logits_mix=False),
        "have values of their own, and weights_mix mixes",
    ),
    "dynamic": (lambda: _converted(multi_query(), dynamic=["query_logits"]), "change with the position"),
    "head counts": (lambda: _converted(multi_query(), num_heads=5), "other head counts than its projections"),
    "a norm of queries": (
        lambda: _converted(multi_query("Qwen3ForCausalLM")),
        "must be linear and alike for all heads",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_does_not_fold_says_why_and_stays_as_it_was(name):
    made, message = REFUSALS[name]
    talking = made()
    before = {key: x.clone() for key, x in talking.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        fold(talking)
    after = talking.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[key], x) for key, x in before.items())
    assert mixings(talking) and talking.config.talking_heads


def test_a_plain_model_has_nothing_to_fold():
    with pytest.raises(ValueError, match="must be converted"):
        fold(model("bert"))


def test_half_precision_hides_no_norm():
    talking = multi_query("Qwen3ForCausalLM")
    convert(talking)
    with torch.no_grad():
        for mixing in mixings(talking).values():
            for mix in mixing.parameters():
                mix.add_(0.05 * torch.randn_like(mix))
    with pytest.raises(ValueError, match="must be linear and alike for all heads"):
        fold(talking.bfloat16())
    plain = multi_query()
    convert(plain)
    assert fold(stir(plain).bfloat16()).dtype == torch.bfloat16


def test_outputs_that_are_not_finite_prove_nothing():
    talking = multi_query("Qwen3ForCausalLM")
    convert(talking)
    stir(talking).lm_head.weight.data[0] = torch.nan
    with pytest.raises(ValueError, match="must be linear and alike for all heads"):
        fold(talking)
    talking.lm_head.weight.data[:] = torch.nan
    with pytest.raises(ValueError, match="that differ by nan"):
        fold(talking.train())
    assert talking.training


def test_a_torch_model_is_refused():
    layer = torch.nn.TransformerEncoderLayer(8, 2, 8)
    convert(layer)
    with pytest.raises(ValueError, match="must be a converted transformers model"):
        fold(layer)


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37}


def test_layers_that_only_pictures_reach_are_tried_as_well():
    vision = SMALL | {"image_size": [32, 32], "patch_size": [8, 8], "use_qk_norm": True}
    text = SMALL | {"vocab_size": 99, "model_type": "qwen2", "num_key_value_heads": 2}
    config = transformers.InternVLConfig(
        vision_config=vision, text_config=text, image_token_id=98, image_seq_length=4
    )
    made = transformers.InternVLForConditionalGeneration(config).eval()
    convert(made)
    with torch.no_grad():
        for name, maps in mixings(made).items():
            if "vision" in name:
                maps.logits_mix.copy_(torch.diag(torch.tensor([0.2, 4.0, 0.5, 3.0])))
    with pytest.raises(ValueError, match="norm or gate of heads"):
        fold(made)


def test_a_refusal_is_a_line_however_deep_the_model():
    made = transformers.LlamaModel(
        transformers.LlamaConfig(**SMALL | {"num_hidden_layers": 12, "vocab_size": 9})
    )
    convert(made, init="random")
    with pytest.raises(
        ValueError, match=r"layers\.0\.self_attn: heads 0 and 1 .*\(and 11 more layers\)"
    ) as refusal:
        fold(made)
    assert len(str(refusal.value)) < 300


def test_identity_maps_fold_in_layers_whose_projections_are_not_known():
    made = transformers.DiffLlamaModel(transformers.DiffLlamaConfig(vocab_size=9, **SMALL)).eval()
    ids = torch.arange(6)[None]
    before = made(ids)[0]
    convert(made)
    torch.testing.assert_close(fold(made)(ids)[0], before)
    assert not mixings(made)
