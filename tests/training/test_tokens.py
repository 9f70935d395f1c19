"""Tokens: places of the special ones, blocks, and what a model that ignores context can reach."""

import math

import pytest
import torch

from talking_heads.training import judge
from talking_heads.training.tokens import (
    LEAST_VOCABULARY,
    SENTINELS,
    SPECIAL,
    blocks,
    load_blocks,
    save_blocks,
    train_tokenizer,
    unigram_entropy,
)

from .small import addresses


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([addresses(True)], 512)


def test_special_tokens_are_where_the_objectives_look(tokenizer):
    assert len(tokenizer) == 512
    assert tokenizer.convert_tokens_to_ids(SPECIAL) == list(range(5 + SENTINELS))
    places = {"pad": judge.PAD, "eos": judge.END, "cls": judge.CLASS, "mask": judge.MASK}
    assert {name: getattr(tokenizer, f"{name}_token_id") for name in places} == places
    assert tokenizer.convert_tokens_to_ids("<extra_id_0>") == judge.FIRST_SENTINEL


def test_special_tokens_spelt_in_a_text_are_text(tokenizer):
    text = "an </s> end, a <pad>, <extra_id_3> and <mask>"
    (ids,) = blocks(tokenizer, [text] * 9, 9 * (1 + len(tokenizer.tokenize(text, split_special_tokens=True))))
    one = ids[: len(ids) // 9].tolist()
    assert ids.tolist() == one * 9 and one[-1] == judge.END
    assert min(one[:-1]) >= len(SPECIAL) and tokenizer.decode(one[:-1]) == text


def test_any_text_comes_back_whole(tokenizer):
    text = "Fellow-Citizens: naïve 数 \t 3.5 %"
    ids = tokenizer(text)["input_ids"]
    assert ids[-1] == judge.END and tokenizer.decode(ids[:-1]) == text
    assert min(ids[:-1]) >= len(SPECIAL)  # bytes are all in the vocabulary: nothing is unknown


def test_the_same_text_gives_the_same_tokenizer(tokenizer):
    again = train_tokenizer([addresses(True)], 512)
    assert again.get_vocab() == tokenizer.get_vocab()


def test_the_smallest_vocabulary_is_bytes():
    assert len(SPECIAL) + 256 == LEAST_VOCABULARY
    assert len(train_tokenizer(["some words"], LEAST_VOCABULARY)) == LEAST_VOCABULARY


def test_blocks_are_the_texts_one_after_the_other(tokenizer):
    texts = ["We meet again.", "The state of the union is strong."]
    stream = [id for text in texts for id in tokenizer(text)["input_ids"]]
    found = blocks(tokenizer, texts, 5)
    assert found.dtype == torch.int32 and found.shape == (len(stream) // 5, 5)
    assert found.flatten().tolist() == stream[: found.numel()]
    assert stream.count(judge.END) == 2
    assert blocks(tokenizer, ["Short."], 50).shape == (0, 50)


def test_unigram_entropy_by_hand():
    train = torch.tensor([[0, 0, 0, 1]])  # counts 3, 1, 0; with one more each 4, 2, 1 of 7
    held_out = torch.tensor([[0, 1], [2, 2]])
    by_hand = -(math.log(4 / 7) + math.log(2 / 7) + 2 * math.log(1 / 7)) / 4
    assert unigram_entropy(train, held_out, 3) == pytest.approx(by_hand, abs=1e-12)


def test_unigram_entropy_of_a_flat_text_is_that_of_a_flat_guess():
    flat = torch.arange(64).repeat(100).view(100, 64)
    assert unigram_entropy(flat, flat, 64) == pytest.approx(math.log(64), abs=1e-9)


def test_blocks_are_kept_as_they_are(tmp_path):
    given = {"train": torch.arange(12, dtype=torch.int32).view(3, 4), "held_out": torch.ones(1, 4).int()}
    save_blocks(tmp_path / "b.safetensors", **given)
    found = load_blocks(tmp_path / "b.safetensors")
    assert found.keys() == given.keys() and all(torch.equal(found[name], given[name]) for name in given)
