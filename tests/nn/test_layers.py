"""The layers: head counts, decoding, start, and what torch asks of a module."""

import copy

import pytest
import torch
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from talking_heads import GeneralBilinearAttention, HeadMixing, TalkingHeadsAttention
from talking_heads.errors import UserError

ALL = ("query_logits", "memory_logits", "query_weights", "memory_weights")
LAYERS = {
    "both maps": lambda **o: TalkingHeadsAttention(12, 3, **o),
    "logits map only": lambda **o: TalkingHeadsAttention(12, 3, weights_mix=False, **o),
    "weights map only": lambda **o: TalkingHeadsAttention(12, 3, logits_mix=False, **o),
    "head counts": lambda **o: TalkingHeadsAttention(12, 7, num_key_heads=3, num_value_heads=2, **o),
    "dynamic": lambda **o: TalkingHeadsAttention(12, 3, dynamic=ALL, mix_init="random", **o),
    "bilinear": lambda **o: GeneralBilinearAttention(12, 3, **o),
}


def layer(name, **options):
    torch.manual_seed(0)
    return LAYERS[name](dtype=torch.float64, **options)


def equation(module, x, memory, allowed):
    """The layer written out with einsums."""
    split = lambda y, heads: y.unflatten(-1, (heads, -1)).transpose(1, 2)  # noqa: E731
    query = split(module.query_proj(x), module.num_key_heads)
    key = split(module.key_proj(memory), module.num_key_heads)
    value = split(module.value_proj(memory), module.num_value_heads)
    mixed = torch.einsum("bink,bimk->binm", query, key) * query.shape[-1] ** -0.5
    for kind in ("logits", "weights"):
        maps = torch.zeros(*mixed.shape[:1], *mixed.shape[2:], mixed.shape[1], 1, dtype=mixed.dtype)
        static = getattr(module, f"{kind}_mix")
        maps = maps + (torch.eye(mixed.shape[1], dtype=mixed.dtype) if static is None else static)
        if f"query_{kind}" in module.dynamic:
            maps = maps + torch.einsum("bnd,dih->bnih", x, getattr(module, f"query_{kind}_mix"))[:, :, None]
        if f"memory_{kind}" in module.dynamic:
            maps = (
                maps + torch.einsum("bmd,dih->bmih", memory, getattr(module, f"memory_{kind}_mix"))[:, None]
            )
        mixed = torch.einsum("binm,bnmih->bhnm", mixed, maps)
        if kind == "logits":
            mixed = mixed.masked_fill(~allowed, -torch.inf).softmax(-1)
    return module.output_proj((mixed @ value).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "bilinear"])
@pytest.mark.parametrize("cross", [False, True])
def test_layer_is_the_equation(name, cross):
    module = layer(name)
    with torch.no_grad():
        for mix in (module.logits_mix, module.weights_mix):
            if mix is not None:
                mix.add_(torch.randn_like(mix))
    x, memory = torch.randn(2, 5, 12, dtype=torch.float64), torch.randn(2, 7, 12, dtype=torch.float64)
    memory = memory if cross else x
    allowed = torch.ones(5, memory.shape[1], dtype=torch.bool)
    allowed[:, 2] = False
    got = module(x, memory if cross else None, attn_mask=allowed)
    torch.testing.assert_close(got, equation(module, x, memory, allowed))


@pytest.mark.parametrize("cross", [False, True])
def test_bilinear_is_the_equation(cross):
    """y = sum over heads of softmax((x P) M^T / sqrt(width of M)) M O."""
    torch.manual_seed(0)
    width = 10 if cross else 12
    module = GeneralBilinearAttention(12, 3, memory_dim=width, output_dim=7, dtype=torch.float64)
    x, memory = torch.randn(2, 5, 12).double(), torch.randn(2, 4, width).double()
    memory = memory if cross else x
    allowed = torch.rand(5, memory.shape[1]) < 0.7
    allowed[:, 0] = True
    want = 0
    for query, output in zip(
        module.query_proj.weight.split(width), module.output_proj.weight.split(width, 1), strict=True
    ):
        logits = (x @ query.T @ memory.mT / width**0.5).masked_fill(~allowed, -torch.inf)
        want = want + logits.softmax(-1) @ memory @ output.T
    got = module(x, memory if cross else None, attn_mask=allowed)
    torch.testing.assert_close(got, want)


def test_multi_head_attention_is_a_bilinear_one_of_low_rank():
    """The paper's reason for the name: query and key projections make one form, values and output another."""
    torch.manual_seed(0)
    heads = TalkingHeadsAttention(12, 3, logits_mix=False, weights_mix=False, bias=False, dtype=torch.float64)
    module = GeneralBilinearAttention(12, 3, dtype=torch.float64)
    split = lambda x: x.weight.unflatten(0, (3, 4))  # noqa: E731
    with torch.no_grad():
        form = torch.einsum("hkm,hkd->hmd", split(heads.key_proj), split(heads.query_proj))
        module.query_proj.weight.copy_(form.flatten(0, 1) * (12 / 4) ** 0.5)  # another scale
        form = torch.einsum(
            "ohv,hvm->ohm", heads.output_proj.weight.unflatten(1, (3, 4)), split(heads.value_proj)
        )
        module.output_proj.weight.copy_(form.flatten(1))
    x = torch.randn(2, 6, 12, dtype=torch.float64)
    torch.testing.assert_close(module(x, is_causal=True), heads(x, is_causal=True))


@pytest.mark.parametrize("name", LAYERS)
def test_state_dict_deepcopy_checkpointing(name):
    module, x = layer(name, dropout=0.2), torch.randn(2, 6, 12, dtype=torch.float64, requires_grad=True)
    other = LAYERS[name](dtype=torch.float64, dropout=0.2)
    other.load_state_dict(module.state_dict())
    for twin in (other, copy.deepcopy(module)):
        torch.manual_seed(1)
        want = module(x)
        torch.manual_seed(1)
        assert torch.equal(twin(x), want)
    gradients = []
    for call in (module, lambda x: checkpoint(module, x, use_reentrant=False)):
        torch.manual_seed(2)
        gradients.append(torch.autograd.grad(call(x).square().sum(), [x, *module.parameters()]))
    for a, b in zip(*gradients, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", LAYERS)
def test_autocast(name):
    module = layer(name).float()
    x = torch.randn(2, 6, 12)
    with torch.autocast("cpu", torch.bfloat16):
        output = module(x)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), module(x), rtol=0.05, atol=0.05)
    output.float().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in module.parameters())


def test_identity_start_is_multi_head_attention():
    torch.manual_seed(0)
    talking = TalkingHeadsAttention(12, 3, dynamic=ALL)
    silent = TalkingHeadsAttention(12, 3, logits_mix=False, weights_mix=False)
    silent.load_state_dict({n: x for n, x in talking.state_dict().items() if "_mix" not in n})
    x = torch.randn(2, 6, 12)
    torch.testing.assert_close(talking(x), silent(x))
    more = TalkingHeadsAttention(12, 5, num_key_heads=3, num_value_heads=3)  # more softmax heads: still equal
    more.load_state_dict(silent.state_dict(), strict=False)
    torch.testing.assert_close(more(x), silent(x))


def test_random_start_has_the_papers_spread():
    torch.manual_seed(0)
    mixing = HeadMixing(
        400, num_key_heads=100, dynamic=ALL, model_dim=50, mix_init="random", num_value_heads=100
    )
    for name, reduced, factor in (
        ("logits_mix", 100, 1),
        ("weights_mix", 400, 1),
        ("memory_weights_mix", 50 * 400, 0.1),
    ):
        mix = getattr(mixing, name)
        assert mix.std().item() == pytest.approx(factor * reduced**-0.5, rel=0.02)
        assert mix.abs().max() < 2.5 * factor * reduced**-0.5


@pytest.mark.parametrize("name", ["head counts", "bilinear"])
def test_flop_counter_sees_projections_and_attention(name):
    module, x = layer(name), torch.randn(2, 5, 12, dtype=torch.float64)
    with FlopCounterMode(display=False) as counter:
        module(x)
    products, pairs = sum(2 * 10 * p.weight.numel() for p in module.children()), 2 * 2 * 5 * 5
    attention = {"head counts": 3 * 4 + 2 * 6 + 3 * 7 + 7 * 2, "bilinear": 3 * 12 + 3 * 12}[name]
    assert counter.get_total_flops() == products + pairs * attention


@pytest.mark.parametrize("name", ["head counts", "dynamic"])
def test_a_layer_compiles_whole_dropout_and_all(name):
    module, x = layer(name, dropout=0.3), torch.randn(2, 6, 12, dtype=torch.float64, requires_grad=True)
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    results = []
    for call in (module, compiled):
        torch.manual_seed(1)
        output = call(x, is_causal=True)
        results.append([output, *torch.autograd.grad(output.square().sum(), [x, *module.parameters()])])
    for got, want in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(got, want)


def test_repr_names_the_head_counts():
    text = repr(layer("head counts"))
    assert "key_heads=3, heads=7, value_heads=2, maps=[logits_mix, weights_mix]" in text
    assert "heads=3" in repr(layer("bilinear"))


def test_returned_weights():
    output, weights, mixed = layer("head counts")(torch.randn(2, 5, 12).double(), return_weights=True)
    assert (output.shape, weights.shape, mixed.shape) == ((2, 5, 12), (2, 7, 5, 5), (2, 2, 5, 5))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TalkingHeadsAttention(10, 3), "model_dim must be a multiple of the heads; got 10 for 3"),
        (lambda: TalkingHeadsAttention(12, 0), "num_heads must be a whole number of at least 1"),
        (lambda: TalkingHeadsAttention(12, 12 / 4), "num_heads must be a whole number"),
        (lambda: TalkingHeadsAttention(12, 3, head_dim=0), "head_dim must be a whole number of at least 1"),
        (lambda: TalkingHeadsAttention(12, 3, value_head_dim=-4), "value_head_dim must be a whole number"),
        (lambda: GeneralBilinearAttention(12, 0), "num_heads must be a whole number"),
        (lambda: GeneralBilinearAttention(12, 3, memory_dim=0), "memory_dim must be a whole number"),
        (lambda: TalkingHeadsAttention(12, 3, dynamic=True), "dynamic must be a collection of query_logits"),
        (lambda: TalkingHeadsAttention(12, 3, backend="flash"), "backend must be one of auto"),
        (
            lambda: TalkingHeadsAttention(12, 3, num_key_heads=2, logits_mix=False),
            "without logits_mix the heads",
        ),
        (lambda: TalkingHeadsAttention(12, 3, dynamic=("weights",)), "dynamic must be a collection of"),
        (lambda: TalkingHeadsAttention(12, 3, mix_init="zeros"), "mix_init must be"),
        (lambda: TalkingHeadsAttention(12, 3, dropout=1.5), "dropout must be between 0 and 1"),
        (lambda: TalkingHeadsAttention(12, 3)(None), "x must be a tensor; got NoneType"),
        (lambda: TalkingHeadsAttention(12, 3)(torch.ones(2, 5, 12).long()), "x must have a float dtype"),
        (
            lambda: TalkingHeadsAttention(12, 3)(torch.ones(2, 5, 12).double()),
            "x must have the layer's dtype",
        ),
        (
            lambda: TalkingHeadsAttention(12, 3)(torch.ones(2, 5, 12, device="meta")),
            "x must be on the layer's",
        ),
        (
            lambda: TalkingHeadsAttention(12, 3)(torch.ones(2, 5, 12), torch.ones(3, 5, 12)),
            "memory must have x's batch",
        ),
        (
            lambda: GeneralBilinearAttention(12, 3, memory_dim=4)(torch.ones(2, 5, 12)),
            "x, which is its own memory here,",
        ),
        (
            lambda: TalkingHeadsAttention(12, 3)(
                torch.nested.nested_tensor([torch.ones(3, 12), torch.ones(5, 12)], layout=torch.jagged)
            ),
            "pad it (torch.nested.to_padded_tensor)",
        ),
        (lambda: HeadMixing(3, dynamic=ALL), "got no model_dim"),
        (
            lambda: TalkingHeadsAttention(12, 3)(torch.ones(2, 5, 11)),
            "x must be [batch, positions, 12]; got shape",
        ),
        (lambda: TalkingHeadsAttention(12, 3)(torch.ones(2, 5, 12), torch.ones(5, 12)), "memory must be"),
    ],
)
def test_mistakes(make, message):
    with pytest.raises(UserError) as caught:
        make()
    text = str(caught.value)
    assert message in text and text.count("; ") >= 2 and "\n" not in text


@pytest.mark.parametrize("name", LAYERS)
def test_reset_parameters_fills_what_the_meta_device_left_empty(name):
    """As FSDP does: memory first, then reset_parameters of each module that has parameters of its own."""
    built, module = layer(name), LAYERS[name](dtype=torch.float64, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(777.0)
    torch.manual_seed(0)
    for part in module.modules():
        if list(part.parameters(recurse=False)) or part is module:
            part.reset_parameters()
    for (path, got), want in zip(module.named_parameters(), built.parameters(), strict=True):
        assert (got != 777).all() and got.std().item() == pytest.approx(want.std().item(), rel=0.5), path
        if path.endswith("s_mix") and name != "dynamic":
            assert torch.equal(got, want)


def test_backend_of_a_layer():
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    for name in ("both maps", "bilinear"):
        want = layer(name)(x)
        torch.testing.assert_close(layer(name, backend="reference")(x), want)
        with pytest.raises(UserError, match='backend="triton" cannot do this call'):
            layer(name, backend="triton")(x)
