"""Tokens: places of the special ones, their bytes, and blocks."""

import numpy as np
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
    token_bytes,
    train_tokenizer,
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


def test_the_bytes_of_a_token(tokenizer):
    text = "naïve 数 and addresses"
    ids = tokenizer(text)["input_ids"]
    sizes = token_bytes(tokenizer)
    assert sizes[ids].sum() == len(text.encode()) and sizes[: len(SPECIAL)].sum() == 0


def test_blocks_are_kept_as_they_come(tmp_path):
    def stream():
        yield np.arange(5, dtype=np.int32)
        yield np.arange(5, 14, dtype=np.int32)

    path = tmp_path / "new" / "b.safetensors"
    bytes_of = np.ones(7, np.int32)
    save_blocks(path, 4, {"train": stream(), "empty": [], "bytes": [bytes_of]})
    found = load_blocks(path)
    assert torch.equal(found["train"], torch.arange(12, dtype=torch.int32).view(3, 4))
    assert found["empty"].shape == (0, 4) and torch.equal(found["bytes"], torch.ones(7).int())
    assert [x.name for x in path.parent.iterdir()] == ["b.safetensors"]


def test_a_stream_that_breaks_leaves_no_file(tmp_path):
    def stream():
        yield np.arange(5, dtype=np.int32)
        raise OSError

    with pytest.raises(OSError):
        save_blocks(tmp_path / "b.safetensors", 4, {"train": stream()})
    assert not list(tmp_path.iterdir())
