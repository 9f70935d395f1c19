"""What transformers passes to its attention functions: honoured, or refused by name."""

import inspect
import textwrap

import pytest
import torch
import transformers
from torch import nn

from talking_heads import talking_heads_attention
from talking_heads.anatomy.inputs import inputs
from talking_heads.hf import convert, mixings, revert
from talking_heads.hf.attention import attend, attend_as_eager
from talking_heads.hf.mixing import LayerMixing
from talking_heads.hf.survey.run import build
from tests.hf.models import batch, model
from tests.hf.test_named import equation, stir

HEADS, SIZE = 4, 6


class Layer(nn.Module):
    """What an attention function sees of a layer."""

    def __init__(self, is_causal=False):
        super().__init__()
        self.is_causal = is_causal
        self.head_mixing = LayerMixing(HEADS, mix_init="random", dtype=torch.float64)


def heads(n=5, m=7, kv=HEADS, batch=2):
    torch.manual_seed(0)
    shapes = ((batch, HEADS, n, SIZE), (batch, kv, m, SIZE), (batch, kv, m, SIZE))
    return [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


KEYWORDS = {
    "nothing": {},
    "scaling": {"scaling": 1.0},
    "bool mask": {"attention_mask": torch.rand(2, 1, 5, 7) < 0.7},
    "float mask a head": {"attention_mask": torch.randn(2, HEADS, 5, 7).double()},
    "position_bias": {"position_bias": torch.randn(1, HEADS, 5, 7).double()},
    "position_bias and mask": {
        "position_bias": torch.randn(1, HEADS, 5, 7).double(),
        "attention_mask": torch.rand(2, 1, 5, 7) < 0.7,
    },
    "is_causal": {"is_causal": True},
    "is_causal and position_bias": {"is_causal": True, "position_bias": torch.randn(1, HEADS, 5, 7).double()},
    "s_aux": {"s_aux": torch.randn(HEADS).double()},
    "s_aux, bias and mask": {
        "s_aux": torch.randn(HEADS).double(),
        "position_bias": torch.randn(1, HEADS, 5, 7).double(),
        "attention_mask": torch.rand(2, 1, 5, 7) < 0.7,
    },
    "s_aux and is_causal": {"s_aux": torch.randn(HEADS).double(), "is_causal": True},
    "harmless": {
        "sliding_window": 3,
        "position_ids": torch.arange(5),
        "use_cache": True,
        "deterministic": False,
    },
}


@pytest.mark.parametrize("kv", [HEADS, 2, 1])
@pytest.mark.parametrize("name", KEYWORDS)
def test_keywords_do_what_the_equation_says(name, kv):
    layer, options = Layer(), {"attention_mask": None} | KEYWORDS[name]
    inputs = heads(kv=kv)
    got, weights = attend(layer, *inputs, **options)
    want, _ = equation(layer, *inputs, **options)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)
    assert weights is None and got.is_contiguous()
    for a, b in zip(
        torch.autograd.grad(got.square().sum(), inputs),
        torch.autograd.grad(want.square().sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_sinks_a_query_are_a_column_of_logits():
    layer, inputs, sinks = Layer(), heads(), torch.randn(2, HEADS, 5, 1).double()
    got, weights = attend(layer, *inputs, None, sinks=sinks, output_attentions=True)
    same = sinks[:1, :, :1].expand(2, -1, 5, -1)
    want, _ = attend(layer, *inputs, None, s_aux=sinks[0, :, 0, 0])
    torch.testing.assert_close(attend(layer, *inputs, None, sinks=same)[0], want)
    assert weights.shape == (2, HEADS, 5, 7) and (weights.sum(-1) < 1).all()
    assert not torch.allclose(got, want)


def test_packed_sequences_attend_to_themselves_alone():
    layer, (q, k, v) = Layer(), heads(n=9, m=9, batch=1)
    borders = torch.tensor([0, 4, 9])
    options = {"cu_seq_lens_q": borders, "cu_seq_lens_k": borders, "max_length_q": 5, "max_length_k": 5}
    for causal in (False, True):
        got, _ = attend(layer, q, k, v, None, is_causal=causal, **options)
        for part in (slice(0, 4), slice(4, 9)):
            alone, _ = attend(layer, *(x[:, :, part] for x in (q, k, v)), None, is_causal=causal)
            torch.testing.assert_close(got[:, part], alone)
    with pytest.raises(ValueError, match="packed sequences need cu_seq_lens_k"):
        attend(layer, q, k, v, None, cu_seq_lens_q=borders)
    with pytest.raises(ValueError, match="packed sequences must be one row"):
        attend(layer, *heads(), None, cu_seq_lens_q=borders, cu_seq_lens_k=borders)


def test_indices_choose_what_is_attended_to():
    layer, inputs = Layer(), heads()
    indices = torch.rand(2, 5, 7).topk(3).indices
    allowed = torch.zeros(2, 5, 7, dtype=torch.bool).scatter(-1, indices, True)[:, None]
    got, weights = attend(layer, *inputs, None, indices=indices, output_attentions=True)
    torch.testing.assert_close(got, equation(layer, *inputs, allowed)[0])
    assert ((weights != 0) == allowed).all()


@pytest.mark.parametrize("keyword", ["softcap", "block_indices", "cache", "some_new_keyword"])
def test_what_is_not_known_is_refused_by_name(keyword):
    with pytest.raises(ValueError, match=f"must not depend on {keyword}; got {keyword}= from Layer"):
        attend(Layer(), *heads(), None, **{keyword: 1})
    attend(Layer(), *heads(), None, **{keyword: None})


def test_no_mask_is_no_mask_where_models_are_written_for_eager_attention():
    layer, inputs = Layer(is_causal=True), heads(n=7)
    causal, plain = attend(layer, *inputs, None)[0], attend_as_eager(layer, *inputs, None)[0]
    torch.testing.assert_close(causal, equation(layer, *inputs, None, is_causal=True)[0])
    torch.testing.assert_close(plain, equation(layer, *inputs, None, is_causal=False)[0])


def test_another_attention_function_is_an_error():
    """transformers itself advises "eager" where the config asks for weights."""
    made = model("llama")
    convert(made)
    given = batch("llama", made)
    want = stir(made)(**given).logits
    made.set_attn_implementation("eager")
    with pytest.raises(ValueError, match='must attend by "talking_heads"; got attn_implementation="eager"'):
        made(**given)
    made.set_attn_implementation("talking_heads")
    assert torch.equal(made(**given).logits, want)
    assert revert(made).config._attn_implementation == "sdpa"
    made.set_attn_implementation("eager")
    made(**given)


def test_the_other_of_the_two_functions_is_an_error():
    """It would be given no causal mask in a model that is written for eager attention."""
    made = build(transformers.NllbMoeForConditionalGeneration, {})
    convert(made)
    assert made.config._attn_implementation == "talking_heads_as_eager"
    made.set_attn_implementation("talking_heads")
    with pytest.raises(ValueError, match=r'must attend by "talking_heads_as_eager"; got .*="talking_heads"'):
        made(**inputs(made, {}))


def test_dropout_acts_on_the_mixed_weights():
    layer, (q, k, v) = Layer(), heads()
    torch.manual_seed(3)
    got, _ = attend(layer, q, k, v, None, dropout=0.5)
    torch.manual_seed(3)
    maps = layer.head_mixing.logits_mix, layer.head_mixing.weights_mix
    want = talking_heads_attention(q, k, v, *maps, dropout_p=0.5)
    torch.testing.assert_close(got, want.transpose(1, 2))


@pytest.mark.parametrize("name", ["bert", "t5", "llama", "bart", "distilbert", "vit", "gpt-oss"])
def test_output_attentions_returns_the_softmax_weights(name):
    talking = model(name)
    convert(talking)
    stir(talking)
    given = {"pixel_values": torch.randn(1, 3, 32, 32).double()} if name == "vit" else {"input_ids": IDS[:1]}
    if name in ("t5", "bart"):
        given["decoder_input_ids"] = IDS[:1, :4]
    with torch.no_grad():
        quiet, told = talking(**given), talking(**given, output_attentions=True)
    torch.testing.assert_close(told.logits, quiet.logits, rtol=1e-9, atol=1e-9)
    found = [told.attentions] if "attentions" in told else [told.encoder_attentions, told.cross_attentions]
    for layers in found:
        assert len(layers) == 2 and all(weights.shape[:2] == (1, 4) for weights in layers)
        for weights in layers:
            total = weights.sum(-1)
            if name == "gpt-oss":  # sinks take a part
                assert (total < 1).all() and (total > 0).all()
            else:
                torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-6, atol=1e-6)


IDS = torch.tensor([[11, 12, 13, 14, 15, 16], [21, 22, 23, 24, 0, 0]])
MASK = (IDS != 0).long()


@pytest.mark.parametrize("name", ["bert", "modernbert", "t5", "llama", "gemma3", "gpt2", "bart"])
def test_a_padded_batch_equals_its_sentences_one_by_one(name):
    talking = stir_converted(name)
    with torch.no_grad():
        padded = call(talking, name, IDS, MASK)
        for row, length in ((0, 6), (1, 4)):
            alone = call(talking, name, IDS[row : row + 1, :length], None)
            torch.testing.assert_close(padded[row, : alone.shape[1]], alone[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["bert", "llama", "gpt2"])
def test_four_dimensional_masks_are_honoured(name):
    talking = stir_converted(name)
    seen = MASK[:, None, None, :].bool() & torch.ones(6, 6).bool()
    if name != "bert":
        seen = seen.tril()
    with torch.no_grad():
        want, got = call(talking, name, IDS, MASK), call(talking, name, IDS, seen)
    torch.testing.assert_close(got[MASK.bool()], want[MASK.bool()], rtol=1e-6, atol=1e-6)


def test_packed_sequences_by_their_positions():
    """transformers finds sequences packed in one row by positions that begin again."""
    talking = stir_converted("llama")
    row = torch.cat([IDS[0], IDS[1, :4]])[None]
    positions = torch.cat([torch.arange(6), torch.arange(4)])[None]
    with torch.no_grad():
        packed = talking(input_ids=row, position_ids=positions, use_cache=False).logits
        for part, ids in ((slice(0, 6), IDS[:1]), (slice(6, 10), IDS[1:, :4])):
            torch.testing.assert_close(packed[:, part], talking(input_ids=ids).logits, rtol=1e-6, atol=1e-6)


def stir_converted(name):
    talking = model(name)
    convert(talking)
    return stir(talking)


def call(talking, name, ids, mask):
    more = {"decoder_input_ids": torch.full((len(ids), 3), 9)} if name in ("t5", "bart") else {}
    return talking(input_ids=ids, attention_mask=mask, **more).logits


def test_transformers_is_told_of_both_functions():
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

    for name in ("talking_heads", "talking_heads_as_eager"):
        assert name in transformers.AttentionInterface().valid_keys()
        assert name in ALL_MASK_ATTENTION_FUNCTIONS.valid_keys()
    assert len(mixings(stir_converted("bert"))) == 2


def test_keywords_are_known_by_what_takes_them():
    """Not by a list: a later release may pass others."""
    from transformers.models.gemma2.modeling_gemma2 import Gemma2Attention
    from transformers.models.llama.modeling_llama import LlamaAttention

    from talking_heads.hf.keywords import changes_nothing

    for name in (
        "position_ids",
        "num_items_in_batch",
        "seq_idx",
        "logits_to_keep",
        "inputs_embeds",
        "labels",
    ):
        assert changes_nothing(name, LlamaAttention), name  # models take them, attention functions do not
    for name in ("softcap", "kernel_options", "some_new_keyword"):
        assert not changes_nothing(name, LlamaAttention) and not changes_nothing(name, Gemma2Attention), name


def _passing(keyword, change=("", "")):
    """Llama's attention that passes one more keyword."""
    import linecache

    from transformers.models.llama import modeling_llama as library

    text = textwrap.dedent(inspect.getsource(library.LlamaAttention)).replace(
        "scaling=self.scaling,", f"scaling=self.scaling, {keyword}=self.head_dim,"
    )
    text = text.replace(*change) if change[0] else text
    name = f"<{keyword} {change}>"
    linecache.cache[name] = (len(text), None, text.splitlines(True), name)
    space = dict(vars(library))
    exec(compile(text, name, "exec"), space)
    return space["LlamaAttention"]


@pytest.mark.parametrize("keyword", ["softcap", "kernel_options", "some_new_keyword", "logits_to_keep"])
def test_a_layer_that_passes_an_unknown_keyword_is_refused_by_name(keyword):
    made = model("llama")
    for layer in made.model.layers:
        layer.self_attn.__class__ = _passing(keyword)
    if keyword == "logits_to_keep":  # of the model; no attention function takes it
        assert len(convert(made).converted) == 2
        return
    with pytest.raises(ValueError, match=f"depend on {keyword}"):
        convert(made)


def test_a_layer_that_names_its_function_through_a_module_converts():
    """As a user's own class does: `library.eager_attention_forward`."""
    from types import SimpleNamespace

    from transformers.models.llama import modeling_llama as library

    from talking_heads.anatomy.source import attention_functions

    made = model("llama")
    other = _passing("position_ids", ("eager_attention_forward", "library.eager_attention_forward"))
    inspect.unwrap(other.forward).__globals__["library"] = SimpleNamespace(
        eager_attention_forward=library.eager_attention_forward
    )
    assert attention_functions(other) == (library.eager_attention_forward,)
    for layer in made.model.layers:
        layer.self_attn.__class__ = other
    assert len(convert(made).converted) == 2
