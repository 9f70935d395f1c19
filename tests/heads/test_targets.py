"""A target text is tokenized as a target, and shifted as the model shifts it in training."""

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from talking_heads import heads
from talking_heads.errors import UserError
from talking_heads.heads.words import align

WORDS = list("abcdef")
CODES = [
    "ar_AR",
    "cs_CZ",
    "de_DE",
    "en_XX",
    "es_XX",
    "et_EE",
    "fi_FI",
    "fr_XX",
    "gu_IN",
    "hi_IN",
    "it_IT",
    "ja_XX",
    "kk_KZ",
    "ko_KR",
    "lt_LT",
    "lv_LV",
    "my_MM",
    "ne_NP",
    "nl_XX",
    "ro_RO",
    "ru_RU",
    "si_LK",
    "tr_TR",
    "vi_VN",
    "zh_CN",
]
PIECES = ["<s>", "<pad>", "</s>", "<unk>", *(f"\u2581{word}" for word in WORDS), *CODES, "<mask>"]
SIZES = {"vocab_size": 60, "d_model": 24} | {
    f"{side}_{name}": number
    for side in ("encoder", "decoder")
    for name, number in (("layers", 2), ("attention_heads", 4), ("ffn_dim", 32))
}


def translator(kind):
    """mBART's kin, from English to German."""
    vocabulary = [(piece, -2.0 if piece[0] == "\u2581" else 0.0) for piece in PIECES]
    return getattr(transformers, kind)(vocab=vocabulary, src_lang="en_XX", tgt_lang="de_DE")


def nllb():
    """NLLB's codes are as mBART's in form, of other languages."""
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "\u2581", *WORDS, *(f"\u2581{word}" for word in WORDS)]
    vocabulary, merges = (
        {piece: place for place, piece in enumerate(pieces)},
        [("\u2581", word) for word in WORDS],
    )
    return transformers.NllbTokenizer(
        vocab=vocabulary, merges=merges, src_lang="eng_Latn", tgt_lang="deu_Latn"
    )


def words_reader():
    inner = Tokenizer(
        models.WordLevel(
            {x: i for i, x in enumerate(["<s>", "<pad>", "</s>", "<unk>", *WORDS])}, unk_token="<unk>"
        )
    )
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=40, **names)


def made(kind, config, **more):
    torch.manual_seed(0)
    ends = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    return getattr(transformers, kind)(getattr(transformers, config)(**SIZES | ends | more)).eval()


CASES = {
    "mBART-50": ("MBartForConditionalGeneration", "MBartConfig", lambda: translator("MBart50Tokenizer"), 2),
    "mBART": ("MBartForConditionalGeneration", "MBartConfig", lambda: translator("MBartTokenizer"), None),
    "NLLB": ("M2M100ForConditionalGeneration", "M2M100Config", nllb, 2),
    "BART": ("BartForConditionalGeneration", "BartConfig", words_reader, 2),
}


@pytest.mark.parametrize("name", CASES)
def test_what_the_decoder_sees_is_what_it_sees_in_training(name):
    kind, config, reader, start = CASES[name]
    reader, source, target = reader(), "a b c", "d e f"
    model = made(kind, config, decoder_start_token_id=start, vocab_size=max(60, len(reader)))
    panels = {panel.part: panel for panel in heads.view(model, reader, source, target).panels}
    labels = torch.tensor([reader(text_target=target).input_ids])
    if name == "NLLB":  # M2M100 shifts in its forward pass only
        inputs = [start, *labels[0, :-1].tolist()]
    else:
        inputs = model.prepare_decoder_input_ids_from_labels(labels)[0].tolist()
    ids = reader(source).input_ids
    rows = [inputs.index(x) for x in reader(text_target=target, add_special_tokens=False).input_ids]
    memory = [ids.index(x) for x in reader(source, add_special_tokens=False).input_ids]
    model.set_attn_implementation("eager")
    with torch.no_grad():
        maps = model(input_ids=torch.tensor([ids]), labels=labels, output_attentions=True)
    for part, wanted, columns in (
        ("cross", maps.cross_attentions, memory),
        ("decoder", maps.decoder_attentions, rows),
    ):
        torch.testing.assert_close(
            torch.tensor(panels[part].softmax),
            torch.cat(wanted)[:, :, rows][..., columns],
            rtol=1e-4,
            atol=1e-5,
        )
    if name != "BART":
        assert reader(source).input_ids != reader(text_target=source).input_ids  # the codes differ


def test_florence_starts_with_the_token_of_its_language_model():
    """Its own config has no start token, and it shifts in its forward pass only."""
    torch.manual_seed(0)
    stages = {"depths": [1, 1], "embed_dim": [8, 8], "num_heads": [2, 2], "num_groups": [2, 2]}
    cuts = {
        "patch_size": [7, 3],
        "patch_stride": [4, 2],
        "patch_padding": [3, 1],
        "patch_prenorm": [False, True],
    }
    text = {
        "model_type": "bart",
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 3,
        "decoder_start_token_id": 2,
    }
    config = transformers.Florence2Config(
        text_config=SIZES | text, vision_config=stages | cuts | {"projection_dim": 24}, image_token_id=59
    )
    model, reader = transformers.Florence2ForConditionalGeneration(config).eval(), words_reader()
    assert getattr(config, "decoder_start_token_id", None) is None
    panels = {x.part: x for x in heads.view(model, reader, "a b c", "d e f", pieces=True).panels}
    labels = torch.tensor([reader(text_target="d e f").input_ids])
    assert panels["decoder"].queries == ["</s>", "<s>", "d", "e", "f"]
    model.set_attn_implementation("eager")
    with torch.no_grad():
        maps = model(
            input_ids=torch.tensor([reader("a b c").input_ids]), labels=labels, output_attentions=True
        )
    for part, wanted in (("cross", maps.cross_attentions), ("decoder", maps.decoder_attentions)):
        torch.testing.assert_close(
            torch.tensor(panels[part].softmax), torch.cat(wanted), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("kind", ["MBart50Tokenizer", "MBartTokenizer"])
def test_the_tokenizer_is_left_as_it_was(kind):
    reader = translator(kind)
    before = reader("a b").input_ids
    found = align(reader, ["a", "b"], target=True)
    assert found.ids == reader(text_target="a b").input_ids != before == reader("a b").input_ids


def test_without_a_start_token_it_says_what_to_set():
    model = made("BartForConditionalGeneration", "BartConfig", decoder_start_token_id=2)
    model.config.decoder_start_token_id = None
    with pytest.raises(UserError, match="decoder_start_token_id"):
        heads.view(model, words_reader(), "a b c", "d e")


def test_a_text_or_its_words(tmp_path):
    from .small import model, tokenizer

    bert = model("bert")
    (of_text,) = heads.record(bert, tokenizer(), "The old dog chased.")
    (of_words,) = heads.record(bert, tokenizer(), [["The", "old", "dog", "chased", "."]])
    assert of_text.maps.shape == (8, 5, 5)
    torch.testing.assert_close(torch.tensor(of_text.maps), torch.tensor(of_words.maps))
    both = {
        x.number: x.maps.shape[-1] for x in heads.record(bert, tokenizer(), ["the dog", ["a", "red", "ball"]])
    }
    assert both == {0: 2, 1: 3}
    seen = heads.view(bert, tokenizer(), ["the", "dog."])
    assert seen.panels[0].queries == ["the", "dog."] and seen.title == "the dog."
