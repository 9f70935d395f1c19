"""Recording attention maps: whole, by a tape, or sentence by sentence between words."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..anatomy.layers import Layer, layers
from ..anatomy.reach import capture
from ..errors import UserError
from .modes import eval_mode
from .words import Alignment, Skipped, align, merge

Progress = Callable[[int, int, str], None]  # done, of, what is to be said
_BUDGET = 2**25  # bytes of word maps that one batch may hold
WEIGHTS = ("softmax", "mixed")


class Maps(NamedTuple):
    """What one layer attended to: softmax weights [batch, heads, query_len, memory_len]; mixed the same with
    value heads (the softmax weights themselves where no heads talk after the softmax)."""

    part: str
    number: int
    softmax: Tensor
    mixed: Tensor

    @property
    def label(self) -> str:
        return f"{self.part}.{self.number}"


class Tape:
    """The maps of the forward passes run so far, in the order of their computation."""

    def __init__(self) -> None:
        self.maps: list[Maps] = []

    def take(self) -> list[Maps]:
        """The maps so far; the tape starts anew."""
        taken, self.maps = self.maps, []
        return taken


@contextmanager
def recording(
    model: nn.Module, *, reduce: Callable[[Tensor], Tensor] = lambda x: x, parts: Sequence[str] | None = None
) -> Iterator[Tape]:
    """A tape of every attention map of the forward passes inside the block.

    transformers models are switched to eager attention for the block (converted ones to the reference
    path) and back after it; outputs differ by rounding only. Layers are numbered in the order they run.

    Args:
        reduce: applied to each map at once, so that only what is needed is kept.
        parts: of encoder, decoder, cross; default all.

    Raises:
        UserError: a layer that gives no weights.
    """
    tape = Tape()

    def sink(layer: Layer, weights: Tensor, mixed: Tensor | None) -> None:
        number = sum(x.part == layer.part for x in tape.maps)
        softmax = reduce(weights.detach())
        tape.maps.append(
            Maps(layer.part, number, softmax, softmax if mixed is None else reduce(mixed.detach()))
        )

    chosen = [layer for layer in layers(model) if parts is None or layer.part in parts]
    with ExitStack() as stack:
        stack.enter_context(_showing(model))
        for layer in chosen:
            stack.callback(capture(layer, sink))
        yield tape


@contextmanager
def _showing(model: nn.Module) -> Iterator[None]:
    """Has the model's attention computed where weights can be had, and restores what was set before."""
    undo: list[Callable[[], None]] = []
    for part in model.modules():
        if isinstance(part, nn.TransformerEncoder) and part.use_nested_tensor:
            part.use_nested_tensor = False
            undo.append(lambda part=part: setattr(part, "use_nested_tensor", True))  # type: ignore[misc]
    undo += _eager(model)
    try:
        yield
    finally:
        for restore in undo:
            restore()


def _eager(model: nn.Module) -> list[Callable[[], None]]:
    """Eager attention in every transformers part that is not converted; returns what restores it."""
    try:
        from transformers import PreTrainedModel
        from transformers.utils import logging
    except ImportError:
        return []
    from ..hf.attention import AS_EAGER, NAME

    parts = [part for part in model.modules() if isinstance(part, PreTrainedModel)]
    configs = {id(part.config): part.config for part in parts}
    for part in parts:  # a part's sub-configs, too
        for key in part.config.sub_configs:
            config = getattr(part.config, key)
            if config is not None:
                configs[id(config)] = config
    before = [(config, config._attn_implementation) for config in configs.values()]
    if not any(name not in (None, "eager", NAME, AS_EAGER) for _, name in before):
        return []
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # it warns of parts that have no choice; capture is stricter
    try:
        for part in parts:
            if part.config._attn_implementation not in (NAME, AS_EAGER):
                part.set_attn_implementation("eager")
        for config, name in before:  # a model sets its parts, too; converted ones yield weights as they are
            if name in (NAME, AS_EAGER):
                config._attn_implementation_internal = name
    finally:
        logging.set_verbosity(level)

    def restore() -> None:
        for config, name in before:
            config._attn_implementation_internal = name

    return [restore]


class WordMaps(NamedTuple):
    """One sentence: its number in the list given, and maps [layers * heads, words, words], float32.

    Entry [h, i, j]: how much word i attends to word j in head number h.
    """

    number: int
    maps: np.ndarray


@torch.no_grad()
def record(
    model: Any,
    tokenizer: Any,
    sentences: Sequence[Sequence[str]],
    *,
    weights: str = "softmax",
    special_tokens: bool = True,
    skipped: dict[int, str] | None = None,
    progress: Progress | None = None,
) -> Iterator[WordMaps]:
    """Each sentence's attention between its words, in every head; of an encoder-decoder, its encoder.

    Sentences are batched by length and come out in that order. Attention to a word is the sum over its
    pieces, attention from a word their mean; special tokens' rows and columns are dropped. The model runs
    in eval mode; its mode and attention implementation are restored after.

    Args:
        sentences: lists of words.
        weights: "softmax" (distributions before mixing) or "mixed" (after weights_mix; may be negative).
        special_tokens: whether the model sees them.
        skipped: takes {index: why} of the sentences that cannot be done (too long for the model, a word
            without pieces).

    Raises:
        UserError: a model without attention weights, an unknown kind of weights.
    """
    if weights not in WEIGHTS:
        raise UserError(f"weights must be one of {', '.join(WEIGHTS)}", weights, "name one")
    skipped = {} if skipped is None else skipped
    model = encoder_of(model)
    todo: list[tuple[int, Alignment]] = []
    limit = longest(model, tokenizer)
    for index, words in enumerate(sentences):
        try:
            todo.append((index, align(tokenizer, words, special_tokens, limit)))
        except Skipped as why:
            skipped[index] = str(why)
    todo.sort(key=lambda x: len(x[1].ids))
    heads = sum(layer.value_heads for layer in layers(model))
    done = 0
    with eval_mode(model):
        for batch in _batches(todo, heads):
            for place, maps in enumerate(_word_maps(model, [x for _, x in batch], tokenizer, weights)):
                yield WordMaps(batch[place][0], maps)
            done += len(batch)
            if progress is not None:
                progress(done, len(todo), "")


def _batches(todo: list[tuple[int, Alignment]], heads: int) -> Iterator[list[tuple[int, Alignment]]]:
    batch: list[tuple[int, Alignment]] = []
    for item in todo:
        size = 4 * heads * len(item[1].ids) ** 2
        if batch and (len(batch) + 1) * size > _BUDGET:
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def _word_maps(model: Any, batch: list[Alignment], tokenizer: Any, weights: str) -> Iterator[np.ndarray]:
    device = next(model.parameters()).device
    length = max(len(x.ids) for x in batch)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    ids = torch.tensor([x.ids + [pad] * (length - len(x.ids)) for x in batch], device=device)
    mask = torch.tensor([[1] * len(x.ids) + [0] * (length - len(x.ids)) for x in batch], device=device)
    to_words, from_words = merge(batch, length, device)

    def between_words(maps: Tensor) -> Tensor:
        maps = maps.float()
        return torch.einsum("bwn,bhnm,bvm->bhwv", from_words, maps, to_words)

    with recording(model, reduce=between_words) as tape:
        model(input_ids=ids, attention_mask=mask)
    maps = torch.cat([getattr(x, weights) for x in tape.take()], 1).cpu().numpy()
    for place, sentence in enumerate(batch):
        yield maps[place, :, : sentence.words, : sentence.words]


def encoder_of(model: Any) -> Any:
    """The encoder of an encoder-decoder; any other model as it is."""
    config = getattr(model, "config", None)
    if getattr(config, "is_encoder_decoder", False):
        return model.get_encoder()
    return model


def map_names(model: Any, weights: str = "softmax") -> list[str]:
    """The names of what `record` gives, row by row: heads as they run (a shared layer once for each run)."""
    model = encoder_of(model)
    found = layers(model)
    runs = getattr(getattr(model, "config", None), "num_hidden_layers", len(found))
    if len(found) == 1 and isinstance(runs, int) and runs > 1:  # ALBERT: one module, all layers
        found = found * runs
    counts: dict[str, int] = {}
    names = []
    for layer in found:
        number = counts.get(layer.part, 0)
        counts[layer.part] = number + 1
        heads = layer.heads if weights == "softmax" else layer.value_heads
        names += [f"{layer.part}.{number}:{head}" for head in range(heads)]
    return names


def longest(model: Any, tokenizer: Any) -> int | None:
    """The most tokens the model takes; None where nothing says so."""
    config = getattr(model, "config", None)
    limits = [getattr(tokenizer, "model_max_length", None), getattr(config, "max_position_embeddings", None)]
    known = [x for x in limits if isinstance(x, int) and 0 < x < 10**6]
    offset = _position_offset(model)
    if isinstance(limits[1], int) and offset:
        known.append(limits[1] - offset)
    return min(known) if known else None


def _position_offset(model: nn.Module) -> int:
    """Positions that RoBERTa and its kin count past the padding number."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            return int(module.padding_idx) + 1  # type: ignore[arg-type]
    return 0
