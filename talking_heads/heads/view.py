"""The attention of a text's words, or a picture's patches, to each other: softmax and mixed weights."""

from inspect import signature
from typing import Any

import torch

from ..errors import UserError
from .modes import eval_mode
from .picture import look
from .record import longest, reads, recording, text_part
from .view_data import Side, View, panel_of
from .words import Alignment, Sentence, Skipped, align, align_pair, words_of


@torch.no_grad()
def view(
    model: Any,
    tokenizer: Any,
    text: Sentence | None = None,
    target: Sentence | None = None,
    *,
    pair: Sentence | None = None,
    pieces: bool = False,
    picture: Any = None,
) -> View:
    """The attention of a text's words to each other, or of a picture's patches.

    Of a model of several inputs the part that reads text, of an encoder-decoder its encoder, and with a target text the
    decoder and cross-attention, too. The target is tokenized as a target (with the code of its language, say) and
    shifted as in training: a target word's row is that of the word as the decoder's input.

    Of a picture the positions are its patches, named by row and column ("r0 c0" is the top left one), and the model's
    other tokens. The part that reads a picture alone is looked at: of CLIP its vision model.

    Args:
        tokenizer: of a picture the image processor, or a processor that has one.
        text, target: texts, or lists of words. pair: a second text of the same input (as in MNLI).
        pieces: the tokens, special ones too, instead of words.
        picture: instead of a text a picture's file, what the image processor takes, or a tensor [channels, height,
            width] as the model takes it.

    Raises:
        UserError: a text that the model cannot take, a target for a model without decoder; a picture for a model whose
            positions are not patches of it (Swin).
    """
    if (text is None) == (picture is None) or (picture is not None and (target or pair or pieces)):
        raise UserError(
            "a view needs a text, with what goes with it, or a picture alone",
            "neither" if text is None and picture is None else "both",
            "give one of them",
        )
    if text is None:
        return look(model, tokenizer, picture)
    source, types = _source(model, tokenizer, text, pair)
    device = next(model.parameters()).device
    decodes = bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))
    if target is not None and not decodes:
        raise UserError(
            "a target text goes with an encoder-decoder", type(model).__name__, "leave --target out"
        )
    call: dict[str, Any] = {
        "input_ids": torch.tensor([source.ids], device=device),
        "attention_mask": torch.ones(1, len(source.ids), dtype=torch.long, device=device),
    }
    network, output = (text_part(model) if target is None else model), source
    if types is not None and "token_type_ids" in signature(network.forward).parameters:
        call["token_type_ids"] = torch.tensor([types], device=device)
    if target is not None:
        output = _shifted(model, _aligned(model, tokenizer, target, is_target=True))
        call["decoder_input_ids"] = torch.tensor([output.ids], device=device)
    with eval_mode(model), recording(model) as tape:
        reads(network, call)
    words = words_of(text)
    sides = {"source": Side.of(source, words, words_of(pair or []), tokenizer, pieces)}
    sides["target"] = (
        Side.of(output, words_of(target), [], tokenizer, pieces) if target is not None else sides["source"]
    )
    title = " / ".join(x if isinstance(x, str) else " ".join(x) for x in (text, pair) if x is not None)
    maps = tape.take()
    panels = [
        panel_of(
            part,
            [x for x in maps if x.part == part],
            sides["source" if part == "encoder" else "target"],
            sides["target" if part == "decoder" else "source"],
        )
        for part in dict.fromkeys(x.part for x in maps)
    ]
    talking = any(x.mixed is not x.softmax for x in maps)
    return View(panels, title if len(title) < 80 else title[:77] + "...", talking, type(model).__name__)


def _source(
    model: Any, tokenizer: Any, text: Sentence, pair: Sentence | None
) -> tuple[Alignment, list[int] | None]:
    if pair is None:
        return _aligned(model, tokenizer, text), None
    try:
        return align_pair(tokenizer, words_of(text), words_of(pair), longest(model, tokenizer))
    except Skipped as why:
        raise UserError(
            "two texts must fit the model together", f"some that do not ({why})", "give other texts"
        ) from None


def _aligned(model: Any, tokenizer: Any, text: Sentence, is_target: bool = False) -> Alignment:
    try:
        return align(tokenizer, words_of(text), True, longest(model, tokenizer), target=is_target)
    except Skipped as why:
        raise UserError(
            "a text must fit the model", f"one that does not ({why})", "give another text"
        ) from None


def _shifted(model: Any, target: Alignment) -> Alignment:
    """As the decoder takes it in training, by the model's own shift where it has one.

    Most put a start token first and leave the last out; mBART moves the last (its language's code) to the front.
    """
    ids = _own_shift(model, target.ids)
    if ids is None:
        texts = model.config, getattr(model.config, "text_config", None)  # of Florence-2 its language model's
        starts = [getattr(config, "decoder_start_token_id", None) for config in texts]
        start = next((x for x in starts if x is not None), None)
        if start is None:
            raise UserError(
                "a target text needs a model that shifts it, or whose config has decoder_start_token_id",
                f"{type(model).__name__} without either",
                "set model.config.decoder_start_token_id",
            )
        ids = [start, *target.ids[:-1]]
    if ids[1:] != target.ids[:-1]:
        raise UserError(
            "a target text must be shifted by one token",
            f"another order by {type(model).__name__}",
            "leave the target out",
        )
    return Alignment(ids, [None, *target.owners[:-1]], target.words)


def _own_shift(model: Any, ids: list[int]) -> list[int] | None:
    shift = getattr(model, "prepare_decoder_input_ids_from_labels", None)
    if shift is None:
        return None
    labels = torch.tensor([ids], device=next(model.parameters()).device)
    try:
        return list(map(int, shift(labels=labels)[0]))
    except Exception:  # without a start token in the config, say
        return None
