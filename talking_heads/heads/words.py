"""Words and the pieces a tokenizer makes of them."""

import unicodedata
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor

Sentence = str | Sequence[str]  # a text, or its words


class Skipped(Exception):
    """A sentence that cannot be done; str() says why."""


class Alignment(NamedTuple):
    """A sentence as the model takes it: token ids, and for each token its word, None for a special token."""

    ids: list[int]
    owners: list[int | None]
    words: int


def split_words(text: str) -> list[str]:
    """Words at spaces, with punctuation at their ends and each letter of Chinese and Japanese by itself."""
    found: list[str] = []
    for chunk in text.split():
        start, end = 0, len(chunk)
        while start < end and unicodedata.category(chunk[start])[0] == "P":
            start += 1
        while end > start and unicodedata.category(chunk[end - 1])[0] == "P":
            end -= 1
        found += list(chunk[:start])
        word = ""
        for letter in chunk[start:end]:
            if unicodedata.name(letter, "").startswith(("CJK UNIFIED", "HIRAGANA", "KATAKANA")):
                found += [word, letter] if word else [letter]
                word = ""
            else:
                word += letter
        found += [word] if word else []
        found += list(chunk[end:])
    return found


def words_of(sentence: Sentence) -> list[str]:
    """The words of a text (see `split_words`), or of a list of words these themselves."""
    return split_words(sentence) if isinstance(sentence, str) else list(sentence)


def align(
    tokenizer: Any,
    words: Sequence[str],
    special_tokens: bool = True,
    limit: int | None = None,
    *,
    target: bool = False,
) -> Alignment:
    """The words joined by spaces, tokenized; each token belongs to the word that its first letter is in.

    For tokenizers that do not say where a token stands (no fast version) see `_by_words`.

    Args:
        target: tokenize as a target text, which may be of another language or have other special tokens.

    Raises:
        Skipped: a word that no token belongs to, no words, more tokens than `limit`.
    """
    if not words:
        raise Skipped("no words")
    try:
        " ".join(words).encode()
    except UnicodeEncodeError:  # bytes of a command line that are no UTF-8
        raise Skipped("letters that are no Unicode text") from None
    ids, owners = (_by_offsets if getattr(tokenizer, "is_fast", False) else _by_words)(
        tokenizer, words, special_tokens, "text_target" if target else "text"
    )
    if limit is not None and len(ids) > limit:
        raise Skipped(f"longer than the model's {limit} tokens")
    if set(range(len(words))) - set(owners):
        raise Skipped("a word without a token of its own")
    return Alignment(ids, owners, len(words))


def align_pair(
    tokenizer: Any, words: Sequence[str], pair: Sequence[str], limit: int | None = None
) -> tuple[Alignment, list[int] | None]:
    """(two texts as one input, its token types if the model has such); the pair's words are counted after the text's.

    Raises:
        Skipped: as `align`; a tokenizer that puts nothing between two texts or changes their tokens.
    """
    parts = [align(tokenizer, x, special_tokens=False) for x in (words, pair)]
    found = tokenizer(" ".join(words), " ".join(pair), truncation=False, padding=False, verbose=False)
    ids = list(found["input_ids"])
    if limit is not None and len(ids) > limit:
        raise Skipped(f"longer than the model's {limit} tokens")
    owners: list[int | None] = [None] * len(ids)
    place = offset = 0
    for part in parts:
        place = next((i for i in range(place, len(ids)) if ids[i : i + len(part.ids)] == part.ids), len(ids))
        if place == len(ids):
            raise Skipped("a tokenizer that makes other tokens of a text next to another one")
        owners[place : place + len(part.ids)] = [None if x is None else x + offset for x in part.owners]
        place, offset = place + len(part.ids), offset + part.words
    return Alignment(ids, owners, offset), found.get("token_type_ids")


def alignment_of(tokenizer: Any) -> str:
    """How `align` works with this tokenizer, for the options printed."""
    return "offsets" if getattr(tokenizer, "is_fast", False) else "word by word"


def _by_offsets(
    tokenizer: Any, words: Sequence[str], special: bool, kind: str
) -> tuple[list[int], list[int | None]]:
    text = " ".join(words)
    found = tokenizer(
        **{kind: text},
        add_special_tokens=special,
        return_offsets_mapping=True,
        truncation=False,
        padding=False,
        verbose=False,
    )
    owner_of: list[int | None] = []
    for number, word in enumerate(words):
        owner_of += [number] * len(word) + [None]  # the space after it
    owners = [
        next(
            (owner_of[i] for i in range(start, end) if owner_of[i] is not None and not text[i].isspace()),
            None,
        )
        for start, end in found["offset_mapping"]
    ]
    return list(found["input_ids"]), owners


def _by_words(
    tokenizer: Any, words: Sequence[str], special: bool, kind: str
) -> tuple[list[int], list[int | None]]:
    """For tokenizers without offsets: the tokens of each word with the space before it, as the text has it (bytes and
    letters are tokens of their own, so is the space); without it where only that gives the text's tokens."""

    def encode(text: str) -> list[int]:
        if kind == "text":
            return list(tokenizer.encode(text, add_special_tokens=False))
        return list(tokenizer(**{kind: text}, add_special_tokens=False)["input_ids"])

    bare = [encode(word) for word in words]
    spaced = [bare[0], *(encode(f" {word}") for word in words[1:])]
    text = encode(" ".join(words))
    pieces = spaced if list(chain.from_iterable(spaced)) == text else bare
    ids: list[int] = []
    owners: list[int | None] = []
    for number, (found, word) in enumerate(zip(pieces, bare, strict=True)):
        extra = len(found) - len(word)
        space = extra if extra > 0 and found[extra:] == word else 0
        ids += found
        owners += [None] * space + [number] * (len(found) - space)
    if not special:
        return ids, owners
    full = _with_special(tokenizer, ids, kind)
    before = next(i for i in range(len(full)) if full[i : i + len(ids)] == ids)
    return list(full), [None] * before + owners + [None] * (len(full) - before - len(ids))


def _with_special(tokenizer: Any, ids: list[int], kind: str) -> list[int]:
    """Token ids between the special tokens of a text or a target text."""
    switch = getattr(tokenizer, "_switch_to_target_mode", None) if kind == "text_target" else None
    if switch is None:
        return list(tokenizer.build_inputs_with_special_tokens(ids))
    switch()
    try:
        return list(tokenizer.build_inputs_with_special_tokens(ids))
    finally:
        tokenizer._switch_to_input_mode()


def merge(batch: Sequence[Alignment], length: int, device: Any = None) -> tuple[Tensor, Tensor]:
    """(to_words, from_words), each [batch, words, tokens]: 1 for a word's tokens; 1 / their number."""
    words = max(x.words for x in batch)
    to_words = torch.zeros(len(batch), words, length)
    for place, sentence in enumerate(batch):
        for token, word in enumerate(sentence.owners):
            if word is not None:
                to_words[place, word, token] = 1
    from_words = to_words / to_words.sum(-1, keepdim=True).clamp(min=1)
    return to_words.to(device), from_words.to(device)
