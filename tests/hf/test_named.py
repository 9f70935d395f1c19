"""Architectures by name: unchanged at an identity start, mixed exactly where the equation says."""

import pytest
import torch
from transformers import AttentionInterface

from talking_heads.hf import convert, mixings
from talking_heads.hf.attention import AS_EAGER, NAME, register
from talking_heads.hf.survey.check import permuted, run
from tests.hf.models import NAMED, batch, model

LAYERS = {"albert": 1, "t5": 6, "bart": 6, "marian": 6, "whisper": 6, "clip": 4}  # others: 2


def stir(talking):
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for mixing in mixings(talking).values():
            for parameter in mixing.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=draw, dtype=torch.float64) * 0.5)
    return talking


def assert_equal(got, want):
    largest = max((x.abs().max() for name, x in want.items() if name.startswith("gradient")), default=0)
    for name, x in want.items():
        scale = max(x.abs().max(), 1e-6 * largest if name.startswith("gradient") else 0)
        assert (got[name] - x).abs().max() <= 1e-9 * scale, name


@pytest.mark.parametrize("name", NAMED)
def test_identity_maps_change_nothing_and_learn(name):
    plain, talking = model(name), model(name)
    done = convert(talking)
    assert len(done.converted) == LAYERS.get(name, 2) and not done.left
    given = batch(name, plain)
    want, got = run(plain, given), run(talking, given)
    assert "loss" in want
    assert_equal(got, want)
    maps = [p for mixing in mixings(talking).values() for p in mixing.parameters()]
    before = [p.detach().clone() for p in maps]
    torch.optim.SGD(talking.parameters(), lr=0.1).step()
    assert not any(torch.equal(a, b) for a, b in zip(maps, before, strict=True))


@pytest.mark.parametrize("name", NAMED)
def test_permuted_heads_change_nothing(name):
    plain, talking = model(name), model(name)
    convert(talking)
    given = batch(name, plain)
    want = run(plain, given, gradients=False)
    with permuted(talking):
        assert_equal(run(talking, given, gradients=False), want)


@pytest.mark.parametrize("name", NAMED)
def test_random_maps_give_the_equation(name):
    talking = model(name)
    convert(talking)
    given = batch(name, talking)
    plain = run(talking, given, gradients=False)
    got = run(stir(talking), given)
    assert max((got[key] - x).abs().max() for key, x in plain.items()) > 1e-3
    AttentionInterface.register(NAME, equation)
    AttentionInterface.register(AS_EAGER, lambda *a, is_causal=None, **k: equation(*a, is_causal=False, **k))
    try:
        assert_equal(got, run(talking, given))
    finally:
        register()


def equation(
    module,
    query,
    key,
    value,
    attention_mask,
    dropout=0.0,
    scaling=None,
    is_causal=None,
    position_bias=None,
    s_aux=None,
    **_,
):
    """The paper's equation as a person would write it, in transformers' shapes."""
    maps = module.head_mixing
    key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value))
    scores = torch.einsum("bink,bimk->binm", query, key) * (scaling or query.shape[-1] ** -0.5)
    logits = torch.einsum("binm,ih->bhnm", scores, maps.logits_mix)
    if position_bias is not None:
        logits = logits + position_bias
    causal = module.is_causal if is_causal is None else is_causal
    if attention_mask is None and causal:
        logits = logits.masked_fill(torch.ones(logits.shape[-2:]).triu(1).bool(), -torch.inf)
    elif attention_mask is not None and attention_mask.dtype == torch.bool:
        logits = logits.masked_fill(~attention_mask, -torch.inf)
    elif attention_mask is not None:
        logits = logits + attention_mask
    if s_aux is not None:
        sinks = s_aux.view(1, -1, 1, 1).expand(*logits.shape[:-1], 1)
        weights = torch.cat([logits, sinks], -1).softmax(-1)[..., :-1]
    else:
        weights = logits.softmax(-1).nan_to_num(0)
    mixed = torch.einsum("bhnm,hj->bjnm", weights, maps.weights_mix)
    return torch.einsum("bjnm,bjmv->bnjv", mixed, value).contiguous(), None


def test_soft_caps_are_refused_by_name():
    import transformers

    from talking_heads.hf.survey.run import build

    with pytest.raises(ValueError, match="Gemma2Attention makes attention depend on softcap"):
        convert(build(transformers.Gemma2ForCausalLM, {}))
