"""AttentionCache: decoding step by step, what a cache keeps, and what it refuses."""

import pytest
import torch

from talking_heads import AttentionCache
from talking_heads.errors import UserError

from .test_layers import LAYERS, layer


def drawn(*shape):
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("steps", [(1,) * 6, (3, 1, 2), (2, 4)], ids=str)
def test_decoding_with_a_cache_equals_the_full_forward(name, steps):
    module, x = layer(name), torch.randn(2, 6, 12, dtype=torch.float64)
    padding = torch.ones(2, 1, 1, 6, dtype=torch.bool)
    padding[1, ..., 0] = False
    for mask in (None, padding, torch.zeros(6).double().masked_fill(~padding, -torch.inf)):
        want = module(x, is_causal=True, attn_mask=mask)
        cache, parts, start = AttentionCache(), [], 0
        for step in steps:
            part = None if mask is None else mask[..., : start + step]
            parts.append(module(x[:, start : start + step], is_causal=True, attn_mask=part, cache=cache))
            start += step
        assert cache.length == 6
        torch.testing.assert_close(torch.cat(parts, 1), want)


@pytest.mark.parametrize("name", LAYERS)
def test_cross_attention_with_a_cache(name):
    module = layer(name)
    x, memory = torch.randn(2, 4, 12, dtype=torch.float64), torch.randn(2, 5, 12, dtype=torch.float64)
    cache = AttentionCache()
    parts = [module(x[:, i : i + 1], memory, cache=cache) for i in range(4)]
    assert cache.length == 5
    torch.testing.assert_close(torch.cat(parts, 1), module(x, memory))


@pytest.mark.parametrize("name", LAYERS)
def test_a_refused_call_leaves_the_cache_as_it_was(name):
    module, x, cache = layer(name), torch.randn(2, 6, 12, dtype=torch.float64), AttentionCache()
    module(x[:, :3], is_causal=True, cache=cache)
    for mask in (torch.ones(2, 1, 1, 3, dtype=torch.bool), torch.ones(5, 6, dtype=torch.bool)):
        with pytest.raises(ValueError, match="attn_mask must broadcast"):
            module(x[:, 3:], is_causal=True, attn_mask=mask, cache=cache)
    assert cache.length == 3
    got = module(x[:, 3:], is_causal=True, cache=cache)
    torch.testing.assert_close(got, module(x, is_causal=True)[:, 3:])


@pytest.mark.parametrize("name", LAYERS)
def test_a_cache_keeps_no_tensor_of_the_caller(name):
    module, x, cache = layer(name), drawn(2, 6, 12), AttentionCache()
    want = module(x, is_causal=True)[:, 3:]
    buffer = x[:, :3].clone()
    module(buffer, is_causal=True, cache=cache)
    buffer.copy_(x[:, 3:])
    torch.testing.assert_close(module(buffer, is_causal=True, cache=cache), want)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", LAYERS)
def test_another_memory_replaces_the_one_before(name, mode):
    """Longer, of the same size, or written into the same tensor."""
    with mode():
        module, x, cache, memory = layer(name), drawn(2, 1, 12), AttentionCache(), drawn(2, 7, 12)
        for new in (memory, drawn(2, 9, 12), drawn(2, 9, 12)):
            torch.testing.assert_close(module(x, new, cache=cache), module(x, new))
        new.copy_(drawn(2, 9, 12))
        torch.testing.assert_close(module(x, new, cache=cache), module(x, new))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_same_memory_is_projected_once(mode, monkeypatch):
    with mode():
        module, x, cache, memory = layer("both maps"), drawn(2, 1, 12), AttentionCache(), drawn(2, 7, 12)
        want = module(x, memory, cache=cache)
        monkeypatch.setattr(module.key_proj, "forward", None)
        assert torch.equal(module(x, memory, cache=cache), want)
        assert torch.equal(module(x, memory.clone(), cache=cache), want)
        assert torch.equal(module(x, memory, cache=cache), want)


@torch.no_grad()
@pytest.mark.parametrize("name", LAYERS)
def test_beams_are_reordered_and_repeated(name):
    module, x, index = layer(name), drawn(2, 5, 12), torch.tensor([1, 1, 0])
    want = module(x[index], is_causal=True)[:, 3:]
    cache = AttentionCache()
    module(x[:, :3], is_causal=True, cache=cache)
    cache.reorder(index)
    torch.testing.assert_close(module(x[index, 3:], is_causal=True, cache=cache), want)
    memory, cross = drawn(2, 4, 12), AttentionCache()
    module(x, memory, cache=cross)
    cross.reorder(index)
    for new in (memory[index], memory[index.flip(0)]):
        torch.testing.assert_close(module(x[index], new, cache=cross), module(x[index], new))


@torch.no_grad()
@pytest.mark.parametrize("name", LAYERS)
def test_crop_to_reset(name):
    module, x, cache = layer(name), drawn(2, 6, 12), AttentionCache()
    want = module(x, is_causal=True)
    module(x, is_causal=True, cache=cache)
    cache.crop(4)
    cache.crop(-1)
    assert cache.length == 3
    torch.testing.assert_close(module(x[:, 3:], is_causal=True, cache=cache), want[:, 3:])
    assert cache.to(torch.float32).tensors["value"].dtype == torch.float32
    with pytest.raises(UserError, match=r"its cache's dtype torch\.float32; got torch\.float64; cache\.to"):
        module(x[:, :1], is_causal=True, cache=cache)
    cache.to(torch.float64).reset()
    assert cache.length == 0
    torch.testing.assert_close(module(x, x, cache=cache), module(x, x))


MISUSES = {
    "another batch": (lambda m, c: m(drawn(3, 1, 12), cache=c), "cache's batch 2; got 3; cache.reorder"),
    "a memory": (
        lambda m, c: m(drawn(2, 1, 12), drawn(2, 3, 12), cache=c),
        "filled without memory, in a call with",
    ),
    "another layer": (
        lambda m, c: layer("both maps")(drawn(2, 1, 12), cache=c),
        "one that another layer filled",
    ),
    "a dict": (lambda m, c: m(drawn(2, 1, 12), cache={}), "cache must be an AttentionCache; got dict"),
    "a mask of integers": (
        lambda m, c: m(drawn(2, 2, 12), cache=c, is_causal=True, attn_mask=torch.ones(2, 1, 1, 5).long()),
        "attn_mask must be bool",
    ),
    "too long": (lambda m, c: c.crop(4), "at most the 3 positions held; got 4"),
    "beams by a mask": (
        lambda m, c: c.reorder(torch.tensor([True, False])),
        "index must be [new batch] integers",
    ),
}


@pytest.mark.parametrize("misuse", MISUSES)
def test_a_misuse_is_refused_and_leaves_the_cache_as_it_was(misuse):
    module, cache = layer("both maps"), AttentionCache()
    module(drawn(2, 3, 12), is_causal=True, cache=cache)
    call, message = MISUSES[misuse]
    with pytest.raises(UserError) as caught:
        call(module, cache)
    assert message in str(caught.value) and cache.length == 3


def test_a_memory_cannot_be_cropped_nor_forgotten():
    module, cache, x = layer("both maps"), AttentionCache(), drawn(2, 3, 12)
    module(x, x, cache=cache)
    with pytest.raises(UserError, match="only a self-attention cache"):
        cache.crop(1)
    with pytest.raises(UserError, match="filled with memory, in a call without"):
        module(x, cache=cache)


@torch.no_grad()
def test_masks_of_torch_with_a_cache():
    from torch.nn.attention.bias import causal_lower_right

    module, cache, x = layer("both maps"), AttentionCache(), drawn(2, 6, 12)
    want = module(x, is_causal=True)[:, 3:]
    module(x[:, :3], is_causal=True, cache=cache)
    got = module(x[:, 3:], is_causal=True, attn_mask=causal_lower_right(3, 6), cache=cache)
    torch.testing.assert_close(got, want)
