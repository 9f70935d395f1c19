"""Text to numbers: a byte-level BPE tokenizer trained on the corpus, and blocks of equal length."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..results.files import write_bytes

SENTINELS = 64
SPECIAL = ["<pad>", "</s>", "<unk>", "<s>", "<mask>", *(f"<extra_id_{i}>" for i in range(SENTINELS))]
LEAST_VOCABULARY = len(SPECIAL) + 256  # every byte, so that no text is unknown


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
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    named = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "cls_token": "<s>"}
    named |= {"sep_token": "</s>", "mask_token": "<mask>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        additional_special_tokens=list(special[5:]),
        **{name: token for name, token in named.items() if token in special},
    )


def blocks(tokenizer: Any, texts: Iterable[str], length: int) -> Tensor:
    """int32 [blocks, length]: the texts one after the other, `</s>` between, the last part dropped.

    A special token spelt in a text is text like any other.
    """
    stream: list[int] = []
    given = {"return_attention_mask": False, "split_special_tokens": True}
    for row in tokenizer(list(texts), **given)["input_ids"]:
        stream.extend(row)
    count = len(stream) // length
    return torch.tensor(stream[: count * length], dtype=torch.int32).view(count, length)


def unigram_entropy(train: Tensor, held_out: Tensor, vocabulary: int) -> float:
    """Nats a token of the held-out text under the training text's word counts (add-one): what a model
    that looks at no context can reach."""
    counts = torch.bincount(train.flatten().long(), minlength=vocabulary).double() + 1
    logs = (counts / counts.sum()).log()
    return -logs[held_out.flatten().long()].mean().item()


def save_blocks(path: Path, **parts: Tensor) -> None:
    from safetensors.torch import save

    write_bytes(path, save(parts))


def load_blocks(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)
