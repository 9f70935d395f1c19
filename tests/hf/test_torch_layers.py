"""torch.nn.MultiheadAttention and the transformer layers made of it."""

import copy

import pytest
import torch
from torch import nn

from talking_heads.hf import convert, mixings, revert
from tests.hf.test_named import stir

WIDTH, HEADS = 24, 4
LAYERS = {
    "plain": {},
    "batch_first": {"batch_first": True},
    "no bias": {"bias": False},
    "bias_kv": {"add_bias_kv": True},
    "zero_attn": {"add_zero_attn": True, "batch_first": True},
    "other widths": {"kdim": 10, "vdim": 14, "batch_first": True},
}


def attention(**options):
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(WIDTH, HEADS, dtype=torch.float64, **options).eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.3)
    return layer


def inputs(layer, batch=2, n=5, m=7):
    shapes = ((n, layer.embed_dim), (m, layer.kdim), (m, layer.vdim))
    made = [torch.randn(batch, *shape, dtype=torch.float64) for shape in shapes]
    return made if layer.batch_first else [x.transpose(0, 1) for x in made]


MASKS = {
    "no mask": {},
    "padding": {"key_padding_mask": torch.arange(7) >= torch.tensor([[7], [4]])},
    "bool": {"attn_mask": torch.rand(5, 7, generator=torch.Generator().manual_seed(0)) < 0.4},
    "float a head": {
        "attn_mask": torch.randn(2 * HEADS, 5, 7, generator=torch.Generator().manual_seed(0)).double()
    },
    "both": {
        "key_padding_mask": torch.arange(7) >= torch.tensor([[7], [4]]),
        "attn_mask": torch.randn(5, 7, generator=torch.Generator().manual_seed(0)).double(),
    },
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("name", LAYERS)
def test_identity_maps_change_nothing(name, mask):
    plain, talking = attention(**LAYERS[name]), attention(**LAYERS[name])
    assert convert(talking).converted == [""]
    given = inputs(plain)
    for options in ({}, {"average_attn_weights": False}, {"need_weights": False}):
        want, got = plain(*given, **MASKS[mask], **options), talking(*given, **MASKS[mask], **options)
        torch.testing.assert_close(got[0], want[0])
        assert (got[1] is None) == (want[1] is None)
        if want[1] is not None:
            torch.testing.assert_close(got[1], want[1])
    want[0].square().sum().backward()
    got[0].square().sum().backward()
    old = dict(talking.named_parameters())
    for key, x in plain.named_parameters():
        torch.testing.assert_close(old[key].grad, x.grad, rtol=1e-8, atol=1e-9)
    assert all(p.grad.any() for p in talking.head_mixing.parameters())


def test_random_maps_give_the_equation():
    talking = attention(batch_first=True)
    convert(talking)
    stir(talking)
    query, key, value = inputs(talking)
    weights = talking.in_proj_weight.chunk(3), talking.in_proj_bias.chunk(3)
    q, k, v = (
        (x @ w.T + b).unflatten(-1, (HEADS, -1)).transpose(1, 2)
        for x, w, b in zip((query, key, value), *weights, strict=True)
    )
    maps = talking.head_mixing
    scores = torch.einsum("bink,bimk->binm", q, k) * (WIDTH // HEADS) ** -0.5
    softmax = torch.einsum("binm,ih->bhnm", scores, maps.logits_mix).softmax(-1)
    mixed = torch.einsum("bhnm,hj->bjnm", softmax, maps.weights_mix)
    want = talking.out_proj(torch.einsum("bjnm,bjmv->bnjv", mixed, v).flatten(2))
    got, shown = talking(query, key, value, average_attn_weights=False)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(shown, softmax)


def test_one_sequence_without_a_batch():
    plain, talking = attention(), attention()
    convert(talking)
    x = torch.randn(6, WIDTH, dtype=torch.float64)
    for got, want in zip(talking(x, x, x), plain(x, x, x), strict=True):
        torch.testing.assert_close(got, want)


def encoder():
    torch.manual_seed(1)
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 32, batch_first=True, dtype=torch.float64)
    return nn.TransformerEncoder(layer, 2).eval()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("grad", [False, True])
def test_an_encoder_does_not_pass_the_maps_by(grad, training):
    """In evaluation without gradients torch has a fused path that knows of no maps."""
    plain, talking = encoder(), encoder()
    for model in (plain, talking):
        model.train(training)
        for part in model.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.0
            elif isinstance(part, nn.MultiheadAttention):
                part.dropout = 0.0
    assert convert(talking).converted == ["layers.0.self_attn", "layers.1.self_attn"]
    x = torch.randn(2, 6, WIDTH, dtype=torch.float64)
    padding = torch.arange(6) >= torch.tensor([[6], [4]])
    with torch.set_grad_enabled(grad):
        want, got = (model(x, src_key_padding_mask=padding) for model in (plain, talking))
        torch.testing.assert_close(got[~padding], want[~padding])
        assert (stir(talking)(x, src_key_padding_mask=padding) - got)[~padding].abs().max() > 1e-3


def test_some_layers_and_the_decoder():
    torch.manual_seed(2)
    model = nn.Transformer(WIDTH, HEADS, 2, 2, 32, batch_first=True, dtype=torch.float64).eval()
    plain = copy.deepcopy(model)
    done = convert(model, kinds=["cross"], layers=[1])
    assert done.converted == ["decoder.layers.1.multihead_attn"]
    x, y = torch.randn(2, 5, WIDTH).double(), torch.randn(2, 4, WIDTH).double()
    causal = nn.Transformer.generate_square_subsequent_mask(4, dtype=torch.float64)
    torch.testing.assert_close(model(x, y, tgt_mask=causal), plain(x, y, tgt_mask=causal))


def test_revert_and_copies():
    plain, talking = encoder(), encoder()
    convert(talking)
    twin = copy.deepcopy(stir(talking))
    x = torch.randn(2, 6, WIDTH, dtype=torch.float64)
    torch.testing.assert_close(twin(x), talking(x))
    assert len(mixings(twin)) == 2
    revert(talking)
    assert not mixings(talking) and type(talking.layers[0].self_attn) is nn.MultiheadAttention
    torch.testing.assert_close(talking(x), plain(x))
    with pytest.raises(ValueError, match="must be converted"):
        revert(talking)


def test_what_needs_a_transformers_model():
    with pytest.raises(ValueError, match="dynamic and bilinear are for transformers models"):
        convert(attention(), dynamic=["query_logits"])
    with pytest.raises(ValueError, match="is a hint about attn_mask"):
        layer = attention()
        convert(layer)
        layer(*inputs(layer), is_causal=True)


def test_a_subclass_keeps_its_own_forward():
    class Mine(nn.MultiheadAttention):
        def forward(self, *given, **named):
            output, weights = super().forward(*given, **named)
            return 2 * output, weights

    model = nn.ModuleDict({"mine": Mine(WIDTH, HEADS), "plain": nn.MultiheadAttention(WIDTH, HEADS)})
    done = convert(model)
    assert done.converted == ["plain"] and "Mine may attend in its own way" in done.left["mine"]
    assert type(model["mine"]) is Mine
    with pytest.raises(ValueError, match="Mine may attend in its own way"):
        convert(model["mine"])


def test_a_decoder_alone_has_decoder_attention():
    layer = nn.TransformerDecoderLayer(WIDTH, HEADS, 32)
    model = nn.TransformerDecoder(layer, 2)
    done = convert(model, kinds=["decoder"])
    assert done.converted == ["layers.0.self_attn", "layers.1.self_attn"]
