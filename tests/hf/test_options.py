"""Which layers talk and how: layers, kinds, maps, head counts, dynamic maps, bilinear T5."""

import copy

import pytest
import torch

from talking_heads.errors import UserError
from talking_heads.hf import convert, load, mixings, revert
from talking_heads.hf.attention import attend
from talking_heads.hf.survey.check import run
from tests.hf.models import batch, model
from tests.hf.test_named import assert_equal, stir

DYNAMIC = ("query_logits", "memory_logits", "query_weights", "memory_weights")


@pytest.mark.parametrize(
    ("name", "options", "talking"),
    [
        ("bert", {"layers": [1]}, ["bert.encoder.layer.1.attention.self"]),
        ("bert", {"layers": ["*.layer.0.*"]}, ["bert.encoder.layer.0.attention.self"]),
        ("t5", {"layers": [1], "kinds": ["decoder"]}, ["decoder.block.1.layer.0.SelfAttention"]),
        ("t5", {"layers": [0], "kinds": ["cross"]}, ["decoder.block.0.layer.1.EncDecAttention"]),
        ("bart", {"layers": [0], "kinds": ["cross"]}, ["model.decoder.layers.0.encoder_attn"]),
        ("bart", {"layers": [0], "kinds": ["encoder"]}, ["model.encoder.layers.0.self_attn"]),
        ("whisper", {"layers": [1], "kinds": ["decoder"]}, ["model.decoder.layers.1.self_attn"]),
        ("llama", {"kinds": ["decoder"], "layers": [0]}, ["model.layers.0.self_attn"]),
        ("vit", {"kinds": ["encoder"], "layers": [0]}, ["vit.layers.0.attention"]),
        ("gpt2", {"kinds": ["decoder"], "layers": [1]}, ["transformer.h.1.attn"]),
    ],
)
def test_some_layers_talk_and_the_others_stay(name, options, talking):
    plain, converted = model(name), model(name)
    done = convert(converted, **options)
    assert done.converted == talking == list(mixings(converted))
    assert all(why.endswith(("not among layers", "not among kinds")) for why in done.left.values())
    given = batch(name, plain)
    assert_equal(run(converted, given), run(plain, given))
    stir(converted)
    moved = run(converted, given, gradients=False)
    assert max((moved[k] - x).abs().max() for k, x in run(plain, given, gradients=False).items()) > 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"layers": [7]},
            r"numbers of layers \(\[0, 1\]\), labels \(encoder.0 to encoder.1\) or patterns of names; got 7",
        ),
        ({"layers": ["x.*"]}, "got 'x.*'"),
        ({"layers": "bert.*"}, "must be collections"),
        ({"kinds": ["decodr"]}, "kinds must be some of"),
        ({"kinds": ["cross"]}, r"got none; the model has \['encoder'\]"),
        ({"num_key_heads": 6}, "multiple of the layer's 4 heads"),
        ({"num_value_heads": 12}, "must cut heads of size 16 into equal parts; got 12"),
        ({"num_heads": 2}, "needs at least the layer's 4 softmax heads"),
        ({"dynamic": "query_logits"}, "dynamic must be a collection"),
        ({"bilinear": True}, "made of T5's projections"),
        ({"init": "zeros"}, 'must be "identity" or "random"'),
    ],
)
def test_mistakes_leave_the_model_as_it_was(options, message):
    plain = model("bert")
    before = {name: x.clone() for name, x in plain.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        convert(plain, **options)
    assert plain.config._attn_implementation == "sdpa" and type(plain.config).__name__ == "BertConfig"
    assert plain.state_dict().keys() == before.keys()
    convert(plain)


@pytest.mark.parametrize("name", ["bert", "t5", "gpt2"])
def test_without_maps_attention_stays_multi_head_in_this_packages_operator(name, tmp_path, monkeypatch):
    from talking_heads import kernels
    from talking_heads.heads.mixing import maps_of

    plain, converted = model(name), model(name)
    convert(converted, logits_mix=False, weights_mix=False)
    assert converted.state_dict().keys() == plain.state_dict().keys()
    given, calls = batch(name, plain), []
    with monkeypatch.context() as patch:
        for backend in kernels.ALL.values():
            attend = backend.attention
            patch.setattr(backend, "attention", lambda x, attend=attend: calls.append(1) or attend(x))
        assert_equal(run(converted, given), run(plain, given))
    assert len(calls) >= len(mixings(converted))
    converted.save_pretrained(tmp_path / "saved")
    assert_equal(run(load(tmp_path / "saved"), given), run(plain, given))
    with pytest.raises(UserError, match="heads talk"):
        maps_of(converted)
    assert_equal(run(revert(converted), given), run(plain, given))


HEADS = [
    {"num_heads": 7},
    {"num_key_heads": 8},
    {"num_value_heads": 8},
    {"num_heads": 9, "num_key_heads": 8, "num_value_heads": 16},
]


@pytest.mark.parametrize("name", ["bert", "llama"])
@pytest.mark.parametrize("options", HEADS, ids=str)
def test_other_head_counts_start_unchanged(name, options, tmp_path):
    plain, talking = model(name), model(name)
    convert(talking, **options)
    mixing = next(iter(mixings(talking).values()))
    sizes = [options.get(k, 4) for k in ("num_key_heads", "num_heads", "num_value_heads")]
    assert mixing.logits_mix.shape == tuple(sizes[:2]) and mixing.weights_mix.shape == tuple(sizes[1:])
    given = batch(name, plain)
    assert_equal(run(talking, given), run(plain, given))
    assert all(p.grad is not None and p.grad.any() for p in mixing.parameters())
    stir(talking).save_pretrained(tmp_path)
    assert_equal(run(load(tmp_path).eval(), given), run(talking, given))


def test_cut_heads_are_parts_of_the_layers_own():
    """A head cut in two scores with each half: the equation on queries and keys reshaped by hand."""
    talking = model("bert")
    convert(talking, num_key_heads=8, num_value_heads=8)
    stir(talking)
    layer = talking.bert.encoder.layer[0].attention.self
    q, k, v = (torch.randn(2, 4, 5, 16, dtype=torch.float64) for _ in range(3))
    maps = layer.head_mixing
    halves = [torch.stack(x.chunk(2, -1), 2).flatten(1, 2) for x in (q, k, v)]
    scores = torch.einsum("bink,bimk->binm", *halves[:2]) / 16**0.5
    weights = torch.einsum("binm,ih->bhnm", scores, maps.logits_mix).softmax(-1)
    want = torch.einsum("bhnm,hj,bjmv->bjnv", weights, maps.weights_mix, halves[2])
    want = torch.cat([want[:, 0::2], want[:, 1::2]], -1)
    torch.testing.assert_close(maps(q, k, v), want)


def test_sinks_fix_the_softmax_heads():
    with pytest.raises(ValueError, match=r"softmax heads must stay 4 where (s_aux|sinks) has one a head"):
        convert(model("gpt-oss"), num_heads=8)
    convert(model("t5"), num_key_heads=8)


@pytest.mark.parametrize("options", [{}, {"layers": [1]}, {"kinds": ["cross"]}], ids=str)
def test_further_softmax_heads_have_position_biases_of_their_own(options, tmp_path):
    plain, talking = model("t5"), model("t5")
    convert(talking, num_heads=6, **options)
    given = batch("t5", plain)
    got, want = run(talking, given), run(plain, given)
    tables = [name for name in want if "relative_attention_bias" in name]
    assert len(tables) == 2
    for name in tables:
        grown = options.get("kinds") is None
        assert got[name].shape == (32, 6 if grown else 4)
        got[name] = got[name][:, :4]
    assert_equal(got, want)
    stir(talking)
    after = run(talking, given)
    if not options:  # a layer that learns moves the further heads' biases, too
        assert all(after[name][:, 4:].any() for name in tables)
    talking.save_pretrained(tmp_path)
    assert_equal(run(load(tmp_path).eval(), given), after)
    assert revert(talking).state_dict().keys() == plain.state_dict().keys()
    for name, x in plain.state_dict().items():
        assert talking.state_dict()[name].shape == x.shape, name


def test_each_softmax_head_adds_its_own_bias():
    """By hand: scores are mixed first, then the bias of each of six softmax heads is added."""
    talking = model("t5")
    convert(talking, num_heads=6)
    stir(talking)
    layer = talking.encoder.block[0].layer[0].SelfAttention
    q, k, v = (torch.randn(2, 4, 5, 16, dtype=torch.float64) for _ in range(3))
    bias = layer.compute_bias(5, 5)
    assert bias.shape == (1, 6, 5, 5)
    maps = layer.head_mixing
    scores = torch.einsum("bink,bimk,ih->bhnm", q, k, maps.logits_mix)
    want = torch.einsum("bhnm,hj,bjmv->bnjv", (scores + bias).softmax(-1), maps.weights_mix, v)
    got, _ = attend(layer, q, k, v, None, scaling=1.0, position_bias=bias)
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("name", ["bert", "llama", "t5", "gpt2", "bart"])
@pytest.mark.parametrize("dynamic", [DYNAMIC, ("memory_logits",), ("query_weights",)], ids=str)
def test_dynamic_maps_start_unchanged_and_learn(name, dynamic, tmp_path):
    plain, talking = model(name), model(name)
    convert(talking, dynamic=dynamic)
    given = batch(name, plain)
    assert_equal(run(talking, given), run(plain, given))
    for mixing in mixings(talking).values():
        assert all(getattr(mixing, f"{kind}_mix").grad.any() for kind in dynamic)
    stir(talking).save_pretrained(tmp_path)
    assert_equal(run(load(tmp_path).eval(), given), run(talking, given))
    twin = copy.deepcopy(talking)
    with torch.no_grad():
        for mixing in mixings(twin).values():
            for parameter in mixing.parameters():
                parameter.zero_()
    assert_equal(run(talking, given), run(load(tmp_path).eval(), given))


def test_dynamic_maps_are_made_from_the_layers_input():
    talking = model("bert")
    convert(talking, dynamic=DYNAMIC, layers=[0])
    stir(talking)
    layer = talking.bert.encoder.layer[0].attention.self
    x = torch.randn(2, 6, 64, dtype=torch.float64)
    maps = layer.head_mixing
    heads = [f(x).unflatten(-1, (4, 16)).transpose(1, 2) for f in (layer.query, layer.key, layer.value)]
    scores = torch.einsum("bink,bimk->binm", *heads[:2]) / 4

    def mixed(scores, kind):
        static, query, memory = (getattr(maps, f"{place}{kind}_mix") for place in ("", "query_", "memory_"))
        of_query, of_memory = (torch.einsum("bnd,dih->bnih", x, m) for m in (query, memory))
        total = static + of_query[:, :, None] + of_memory[:, None]  # [b, n, m, i, h]
        return torch.einsum("binm,bnmih->bhnm", scores, total)

    want = torch.einsum("bjnm,bjmv->bnjv", mixed(mixed(scores, "logits").softmax(-1), "weights"), heads[2])
    torch.testing.assert_close(layer(x)[0], want.flatten(2))


@pytest.mark.parametrize("name", ["SegformerForImageClassification", "Glm4vVisionModel"])
def test_dynamic_maps_are_made_of_what_the_projections_read(name):
    """Memory that is not the layer's input: a reduced picture, or pictures in one row, one after another."""
    import transformers

    from talking_heads.anatomy.inputs import inputs
    from talking_heads.hf.survey.run import build

    kind = getattr(transformers, name)
    plain, made = build(kind, {}), build(kind, {})
    given = inputs(plain, {})
    convert(made, dynamic=DYNAMIC)
    assert_equal(run(made, given, gradients=False), run(plain, given, gradients=False))
    run(made, given)
    learns = [x.memory_logits_mix.grad is not None for x in mixings(made).values()]
    assert any(learns)


@pytest.mark.filterwarnings("ignore")
def test_dynamic_maps_read_projections_that_were_quantized():
    """torch puts the hooks of a layer into the one that takes its place, without what says that they take keywords."""
    from talking_heads.hf import dynamic

    made = model("llama").float()
    convert(made, dynamic=DYNAMIC)
    made = torch.ao.quantization.quantize_dynamic(stir(made.double()).float(), {torch.nn.Linear})
    given = {"input_ids": batch("llama", made)["input_ids"]}
    with torch.no_grad():
        got = made(**given).logits
        for name in mixings(made):
            layer = made.get_submodule(name)
            dynamic.unhook(layer)
            dynamic.hook(layer, ("q_proj", "k_proj"))
        assert torch.equal(got, made(**given).logits)


def test_dynamic_maps_need_keys_of_the_layers_own():
    from transformers import Gemma3nForCausalLM

    from talking_heads.hf.survey.run import build

    sharing = {"config": {"num_kv_shared_layers": 2, "num_hidden_layers": 4}}
    made = build(Gemma3nForCausalLM, sharing)
    with pytest.raises(UserError, match=r"own keys are made of; got Gemma3nTextAttention at .*layers.2"):
        convert(made, dynamic=DYNAMIC)
    convert(made, dynamic=("query_logits", "query_weights"))


@pytest.mark.parametrize(
    "options", [{}, {"logits_mix": False, "weights_mix": False}, {"kinds": ["cross"]}], ids=str
)
def test_bilinear_t5_starts_unchanged(options, tmp_path):
    plain, talking = model("t5"), model("t5")
    convert(talking, bilinear=True, **options)
    given = batch("t5", plain)
    want, got = run(plain, given), run(talking, given)
    shared = {name: x for name, x in want.items() if ".q." not in name and ".k." not in name}
    shared = {name: x for name, x in shared.items() if ".v." not in name and ".o." not in name}
    assert_equal(got, shared)
    layer = talking.decoder.block[0].layer[1].EncDecAttention
    assert layer.q.weight.shape == (4 * 64, 64) and layer.o.weight.shape == (64, 4 * 64)
    assert layer.q.weight.grad.any() and not list(layer.k.parameters())
    rank = torch.linalg.matrix_rank(layer.q.weight.unflatten(0, (4, 64))[0])
    assert rank == 16  # a head's thin form, until it learns
    talking.save_pretrained(tmp_path)
    assert_equal(run(load(tmp_path).eval(), given), got)
    with pytest.raises(ValueError, match="bilinear ones, whose products cannot be taken apart"):
        revert(talking)


@pytest.mark.parametrize("name", ["bert", "t5", "llama", "gpt-oss", "vit"])
@pytest.mark.parametrize("dynamic", [(), ("query_logits",)], ids=str)
def test_revert_gives_the_model_back(name, dynamic):
    plain, talking = model(name), model(name)
    convert(talking, dynamic=dynamic)
    stir(talking)
    given = batch(name, plain)
    assert revert(talking) is talking and talking.state_dict().keys() == plain.state_dict().keys()
    got, want = run(talking, given), run(plain, given)
    assert all(torch.equal(got[key], x) for key, x in want.items())
    assert talking.config.to_dict() == plain.config.to_dict() and type(talking.config) is type(plain.config)
    with pytest.raises(ValueError, match="must be converted; got a plain"):
        revert(talking)
    convert(talking)
