"""Translating with a trained model: beam search with a length penalty, by transformers' generate."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..heads.modes import eval_mode
from .pieces import encode, padded

Progress = Callable[[int, int, str], None]
_TOKENS = 3000  # source tokens in a batch, padding and beams counted
_ROOM = 10  # pieces that a translation may have above twice its source


@torch.no_grad()
def translate(
    model: Any,
    tokenizer: Any,
    lines: Sequence[str],
    *,
    beam: int = 5,
    length_penalty: float = 1.0,
    progress: Progress | None = None,
) -> list[str]:
    """A translation of each line; of an empty line an empty one. A line too long for the model is cut at its limit.

    Args:
        beam: 1 takes the likeliest piece at each step. length_penalty: the exponent of the length by which the
            log-probability of a finished translation is divided.
    """
    room = most_pieces(model)
    ids = [row if len(row) <= room else [*row[: room - 1], row[-1]] for row in encode(tokenizer, lines)]
    todo = sorted((i for i, line in enumerate(lines) if line.strip()), key=lambda i: -len(ids[i]))
    found, done = [""] * len(lines), 0
    with eval_mode(model):
        while done < len(todo):
            count = max(1, _TOKENS // (len(ids[todo[done]]) * beam))
            chosen = todo[done : done + count]
            texts = _batch(model, tokenizer, [ids[i] for i in chosen], beam, length_penalty)
            for i, text in zip(chosen, texts, strict=True):
                found[i] = text
            done += len(chosen)
            if progress is not None:
                progress(done, len(todo), "")
    return found


def most_pieces(model: Any) -> int:
    """Pieces of the longest source that the model can read."""
    most: int = model.config.max_position_embeddings
    return most


def count_cut(model: Any, tokenizer: Any, lines: Sequence[str]) -> int:
    """How many lines `translate` cuts at the model's limit."""
    return sum(len(row) > most_pieces(model) for row in encode(tokenizer, lines))


def _batch(model: Any, tokenizer: Any, rows: list[list[int]], beam: int, length_penalty: float) -> list[str]:
    ids = padded(rows, model.config.pad_token_id).to(model.device)
    room = min(most_pieces(model) - 1, 2 * ids.shape[1] + _ROOM)
    options = {"length_penalty": length_penalty, "early_stopping": True} if beam > 1 else {}
    found = model.generate(
        input_ids=ids,
        attention_mask=(ids != model.config.pad_token_id).long(),
        num_beams=beam,
        do_sample=False,
        max_new_tokens=room,
        **options,
    )
    texts = tokenizer.batch_decode(found, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return [" ".join(text.split()) for text in texts]
