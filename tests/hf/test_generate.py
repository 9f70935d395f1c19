"""Generation with caches gives, token for token, what recomputing every position gives."""

import pytest
import torch

from talking_heads.hf import convert
from tests.hf.models import model
from tests.hf.test_named import stir

PROMPT = torch.tensor([[0, 0, 17, 23, 31], [41, 13, 29, 37, 19]])
NEW = 7
DYNAMIC = ("query_logits", "memory_logits", "query_weights", "memory_weights")
NAMES = ("gpt2", "llama", "t5", "bart")
CACHES = {"dynamic": {}, "static": {"cache_implementation": "static"}}
WAYS = {"greedy": {"do_sample": False}, "sampled": {"do_sample": True, "top_k": 0, "temperature": 1.3}}


def talking(name, **options):
    made = model(name)
    convert(made, **options)
    for part in (made.generation_config, made.config):
        part.eos_token_id = part.forced_eos_token_id = None
        part.pad_token_id = 0
    return stir(made)


def generated(made, **options):
    torch.manual_seed(7)
    options = {"max_new_tokens": NEW, "min_new_tokens": NEW} | options
    return made.generate(PROMPT, attention_mask=(PROMPT != 0).long(), **options)


def from_scratch(made, sample):
    """Every step on all positions, without a cache or generate's own loop."""
    torch.manual_seed(7)
    mask = (PROMPT != 0).long()
    crossed = made.config.is_encoder_decoder
    start = made.generation_config.decoder_start_token_id or 0
    ids = torch.full((2, 1), start) if crossed else PROMPT
    for _ in range(NEW):
        if crossed:
            given = {"input_ids": PROMPT, "attention_mask": mask, "decoder_input_ids": ids}
        else:
            seen = torch.cat([mask, torch.ones_like(ids[:, PROMPT.shape[1] :])], 1)
            positions = (seen.cumsum(-1) - 1).clamp(min=0)
            given = {"input_ids": ids, "attention_mask": seen, "position_ids": positions}
        with torch.no_grad():
            logits = made(**given, use_cache=False).logits[:, -1].float()
        if sample:
            token = torch.multinomial((logits / 1.3).softmax(-1), 1)
        else:
            token = logits.argmax(-1, keepdim=True)
        ids = torch.cat([ids, token], 1)
    return ids


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("name", NAMES)
def test_caches_change_no_token(name, cache, way):
    made = talking(name)
    got = generated(made, **CACHES[cache], **WAYS[way])
    assert torch.equal(got, from_scratch(made, way == "sampled"))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("name", NAMES)
def test_dynamic_maps_are_cached_as_well(name, cache, way):
    made = talking(name, dynamic=DYNAMIC)
    got = generated(made, **CACHES[cache], **WAYS[way])
    assert torch.equal(got, from_scratch(made, way == "sampled"))


@pytest.mark.parametrize("dynamic", [(), DYNAMIC], ids=["static maps", "dynamic maps"])
@pytest.mark.parametrize("name", NAMES)
def test_beams_reorder_the_maps_too(name, dynamic):
    made = talking(name, dynamic=dynamic)
    want = generated(made, num_beams=3, do_sample=False, use_cache=False)
    assert torch.equal(generated(made, num_beams=3, do_sample=False), want)


def test_dynamic_maps_beside_sinks():
    plain, made = model("gpt-oss").float(), model("gpt-oss").float()
    convert(made, dynamic=DYNAMIC)
    torch.testing.assert_close(made(PROMPT).logits, plain(PROMPT).logits)
    want = generated(stir(made), do_sample=False, use_cache=False)
    assert torch.equal(generated(made, do_sample=False), want)


@pytest.mark.parametrize("name", NAMES)
def test_logits_step_by_step_are_those_of_the_whole(name):
    """Every step's logits, not only the tokens they lead to."""
    made = talking(name, dynamic=DYNAMIC)
    options = {"output_logits": True, "return_dict_in_generate": True, "do_sample": False}
    cached, whole = generated(made, **options), generated(made, **options, use_cache=False)
    for got, want in zip(cached.logits, whole.logits, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize(
    "name, options", [("llama", {}), ("gpt2", {}), ("t5", {"kinds": ["decoder"]})], ids=lambda x: str(x)
)
def test_dynamic_maps_of_some_layers_are_cached(name, options, cache):
    made = talking(name, dynamic=DYNAMIC, layers=[1], **options)
    want = generated(made, do_sample=False, use_cache=False)
    assert torch.equal(generated(made, **CACHES[cache], do_sample=False), want)
    want = generated(made, num_beams=3, do_sample=False, use_cache=False)
    assert torch.equal(generated(made, num_beams=3, do_sample=False), want)


def test_a_cache_of_the_plain_model_is_refused_where_maps_are_unknown():
    plain, made = model("llama"), talking("llama", dynamic=DYNAMIC)
    past = plain(PROMPT[1:], use_cache=True).past_key_values
    with pytest.raises(ValueError, match="past positions whose maps are unknown"):
        made(PROMPT[1:, :1], past_key_values=past)
