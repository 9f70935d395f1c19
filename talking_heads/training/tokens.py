"""Text to numbers: a byte-level BPE tokenizer trained on the corpus, and blocks of equal length."""

import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SENTINELS = 64
SPECIAL = ["<pad>", "</s>", "<unk>", "<s>", "<mask>", *(f"<extra_id_{i}>" for i in range(SENTINELS))]
LEAST_VOCABULARY = len(SPECIAL) + 256  # every byte, so that no text is unknown
PER_TOKEN = ("bytes", "marks")  # streams of a number a token of the vocabulary
STARTS_WORD, ENDS_SENTENCE = 1, 2  # bits of a token's marks


def train_tokenizer(texts: Iterable[str], vocabulary: int, special: Sequence[str] = SPECIAL) -> Any:
    """A transformers tokenizer with the special tokens in fixed places from 0 on; the least vocabulary is bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    named = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "cls_token": "<s>"}
    named |= {"sep_token": "</s>", "mask_token": "<mask>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        additional_special_tokens=list(special[5:]),
        **{name: token for name, token in named.items() if token in special},
    )


def token_stream(tokenizer: Any, texts: Iterable[str]) -> Iterator[NDArray[np.int32]]:
    """The tokens of one text after the other, each ended by `</s>`.

    A special token spelt in a text is text like any other.
    """
    given = {"return_attention_mask": False, "split_special_tokens": True}
    for text in texts:
        yield np.array(tokenizer(text, **given)["input_ids"], np.int32)


def blocks(tokenizer: Any, texts: Iterable[str], length: int) -> Tensor:
    """int32 [blocks, length]: the stream of tokens cut into blocks, the last part dropped."""
    stream = np.concatenate([np.zeros(0, np.int32), *token_stream(tokenizer, texts)])
    count = len(stream) // length
    return torch.from_numpy(stream[: count * length].reshape(count, length))


def token_bytes(tokenizer: Any) -> Tensor:
    """int32 [vocabulary]: how many bytes of text each token is; special tokens are none."""
    special = set(tokenizer.all_special_ids)
    names = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))  # of byte-level BPE: a character a byte
    return torch.tensor([0 if i in special else len(name) for i, name in enumerate(names)]).int()


def token_marks(tokenizer: Any) -> Tensor:
    """int32 [vocabulary]: STARTS_WORD of tokens that begin with white space, or are no text; ENDS_SENTENCE of those
    that end with . ! or ?, and of line ends and the end of a text."""
    special = set(tokenizer.all_special_ids)
    texts = tokenizer.convert_ids_to_tokens(
        range(len(tokenizer))
    )  # byte-level BPE writes a space as Ġ, a line end as Ċ
    starts = [i in special or text.startswith(("Ġ", "Ċ", "ĉ")) for i, text in enumerate(texts)]
    ends = [i in special or text.endswith((".", "!", "?", "Ċ")) for i, text in enumerate(texts)]
    return torch.tensor(
        [STARTS_WORD * a + ENDS_SENTENCE * b for a, b in zip(starts, ends, strict=True)]
    ).int()


def save_blocks(path: Path, length: int, streams: Mapping[str, Iterable[NDArray[np.int32]]]) -> None:
    """Writes {name: int32 [blocks, length]} as a safetensors file, each stream as it comes: it need not fit memory.

    Streams under the names of PER_TOKEN are kept as one row, uncut: they have a number a token of the vocabulary.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}")
    raw = path.with_name(f".{path.name}.tokens")
    header: dict[str, Any] = {}
    try:
        with open(raw, "wb+") as tokens:
            for name, stream in streams.items():
                start = tokens.tell()
                for part in stream:
                    tokens.write(part.astype(np.int32).tobytes())
                count = (tokens.tell() - start) // 4
                shape = [count] if name in PER_TOKEN else [count // length, length]
                end = start + 4 * math.prod(shape)
                tokens.seek(end)
                tokens.truncate()
                header[name] = {"dtype": "I32", "shape": shape, "data_offsets": [start, end]}
            tokens.seek(0)
            said = json.dumps(header).encode()
            said += b" " * (-len(said) % 8)
            with open(aside, "wb") as file:
                file.write(len(said).to_bytes(8, "little") + said)
                shutil.copyfileobj(tokens, file, 2**20)
                file.flush()
                os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        for path in (raw, aside):
            path.unlink(missing_ok=True)


def load_blocks(path: Path) -> dict[str, Tensor]:
    """The tensors by name; the system reads what is looked at."""
    from safetensors.torch import load_file

    return load_file(path)
