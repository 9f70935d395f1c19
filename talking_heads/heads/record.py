"""Recording attention maps: of a forward pass, by a tape, or between the words of sentences."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor, nn

from ..anatomy.layers import Layer, layers
from ..anatomy.reach import capture, recompile
from ..errors import UserError, one_of
from .modes import eval_mode
from .words import Alignment, Sentence, Skipped, align, merge, words_of

Progress = Callable[[int, int, str], None]  # done, of, what is to be said
_BUDGET = 2**25  # bytes of word maps that one batch may hold
Weights = Literal["softmax", "mixed"]
WEIGHTS = get_args(Weights)


class Maps(NamedTuple):
    """What one layer attended to: softmax weights [batch, heads, query_len, memory_len], and the weights after
    weights_mix with value heads (the softmax weights themselves where heads are not mixed after the softmax).

    number: of the layer in its part, as in its name. Where a layer ran several times (ALBERT): of the run.
    """

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
        """Returns the maps so far, and clears the tape."""
        taken, self.maps = self.maps, []
        for part in {x.part for x in taken}:
            places = [i for i, x in enumerate(taken) if x.part == part]
            if len({taken[i].number for i in places}) < len(places):
                for run, i in enumerate(places):
                    taken[i] = taken[i]._replace(number=run)
        return taken


@contextmanager
def recording(
    model: nn.Module, *, reduce: Callable[[Tensor], Tensor] = lambda x: x, parts: Sequence[str] | None = None
) -> Iterator[Tape]:
    """A tape of every attention map of the forward passes inside the block.

    transformers models are switched to eager attention for the block (converted ones to the reference
    path) and back after it; outputs differ by rounding only.

    Args:
        reduce: applied to each map at once, so that only what is needed is kept.
        parts: of encoder, decoder, cross; default all.

    Raises:
        UserError: a layer that gives no weights.
    """
    tape = Tape()

    def sink(layer: Layer, weights: Tensor, mixed: Tensor | None) -> None:
        softmax = reduce(weights.detach())
        after = softmax if mixed is None else reduce(mixed.detach())
        tape.maps.append(Maps(layer.part, layer.number, softmax, after))

    chosen = [layer for layer in layers(model) if parts is None or layer.part in parts]
    with ExitStack() as stack:
        stack.enter_context(_showing(model))
        stack.callback(recompile)
        for layer in chosen:
            stack.callback(capture(layer, sink))
        recompile()
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
    sentences: Sequence[Sentence] | str,
    *,
    weights: Weights = "softmax",
    special_tokens: bool = True,
    skipped: dict[int, str] | None = None,
    progress: Progress | None = None,
) -> Iterator[WordMaps]:
    """Each sentence's attention between its words, in every head; of an encoder-decoder, its encoder.

    Sentences are batched by length and come out in that order. Attention to a word is the sum over its
    pieces, attention from a word their mean; special tokens' rows and columns are dropped. The model runs
    in eval mode; its mode and attention implementation are restored after.

    Args:
        sentences: texts, which are divided into words as `view` does, or lists of words; one text alone, too.
        weights: "softmax" (distributions before mixing) or "mixed" (after weights_mix; may be negative).
        special_tokens: whether the model sees them.
        skipped: takes {index: why} of the sentences that cannot be done (too long for the model, a word
            without pieces).

    Raises:
        UserError: a model without attention weights, an unknown kind of weights.
    """
    if weights not in WEIGHTS:
        raise one_of("weights", weights, WEIGHTS)
    skipped = {} if skipped is None else skipped
    todo: list[tuple[int, Alignment]] = []
    limit = longest(model, tokenizer)
    for index, sentence in enumerate([sentences] if isinstance(sentences, str) else sentences):
        try:
            todo.append((index, align(tokenizer, words_of(sentence), special_tokens, limit)))
        except Skipped as why:
            skipped[index] = str(why)
    todo.sort(key=lambda x: len(x[1].ids))
    network, maps_of_two = _first_run(model)
    heads = sum(x.softmax.shape[1] for x in maps_of_two)
    done = 0
    with eval_mode(model):
        for batch in _batches(todo, heads):
            aligned = [x for _, x in batch]
            for place, maps in enumerate(_word_maps(model, network, aligned, tokenizer, weights)):
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


def _word_maps(
    model: Any, network: Any, batch: list[Alignment], tokenizer: Any, weights: str
) -> Iterator[np.ndarray]:
    device = next(model.parameters()).device
    length = max(len(x.ids) for x in batch)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    ids = torch.tensor([x.ids + [pad] * (length - len(x.ids)) for x in batch], device=device)
    mask = torch.tensor([[1] * len(x.ids) + [0] * (length - len(x.ids)) for x in batch], device=device)
    to_words, from_words = merge(batch, length, device)

    def between_words(maps: Tensor) -> Tensor:
        if maps.shape[2:] != (length, length):
            raise UserError(
                f"maps between words need maps of the text's tokens, here {length} by {length}",
                f"{maps.shape[2]} by {maps.shape[3]} in {type(model).__name__}",
                "look at its maps themselves: heads.recording",
            )
        maps = maps.float()
        return torch.einsum("bwn,bhnm,bvm->bhwv", from_words, maps, to_words)

    with recording(model, reduce=between_words) as tape:
        reads(network, {"input_ids": ids, "attention_mask": mask})
    maps = torch.cat([getattr(x, weights) for x in tape.take()], 1).cpu().numpy()
    for place, sentence in enumerate(batch):
        yield maps[place, :, : sentence.words, : sentence.words]


def encoder_of(model: Any) -> Any:
    """The encoder of an encoder-decoder; any other model as it is."""
    config = getattr(model, "config", None)
    if getattr(config, "is_encoder_decoder", False):
        return model.get_encoder()
    return model


def reads(model: Any, call: dict[str, Tensor]) -> None:
    """Runs a model on text.

    Raises:
        UserError: a model that does not read text alone (it wants a picture or sound with it).
    """
    try:
        model(**call)
    except UserError:
        raise
    except Exception as problem:  # whatever a model raises of inputs of another kind
        raise UserError(
            "a model must read text without pictures or sound",
            f"{type(model).__name__}: {type(problem).__name__}: {str(problem)[:200]}",
            "use its text model",
        ) from None


def text_part(model: Any) -> Any:
    """What of a model reads text alone: an encoder-decoder's encoder, else the model as it is, else the first model
    inside it that does, as the text model of CLIP. Not the decoder of an encoder that hears or sees (Whisper), which
    would attend to nothing of what it does.

    Raises:
        UserError: nothing in it reads text alone, or what does has no attention layers.
    """
    return _first_run(model)[0]


@torch.no_grad()
def _first_run(model: Any) -> tuple[Any, list[Maps]]:
    """(`text_part`, the maps of a text of two tokens)."""
    ids = torch.ones(1, 2, dtype=torch.long, device=next(model.parameters()).device)
    first = encoder_of(model)
    readers = dict.fromkeys([first, *(part for part in model.modules() if _takes_tokens(part))])
    if first is not model:  # of an encoder-decoder
        inside = set(model.get_decoder().modules())
        readers = {part: None for part in readers if part is first or part not in inside}
    refusal = UserError(
        "a text needs a model with attention layers that read it",
        f"{type(model).__name__}, which takes {getattr(model, 'main_input_name', 'no input_ids')}",
        "record its own inputs: with heads.recording(model) as tape: model(...)",
    )
    with eval_mode(model), recording(model) as tape:
        for part in readers:
            try:
                reads(part, {"input_ids": ids, "attention_mask": ids})
            except UserError as problem:
                refusal = problem if part is first and _takes_tokens(first) else refusal
            if maps := tape.take():
                return part, maps
    raise refusal


def _takes_tokens(part: nn.Module) -> bool:
    return "input_ids" in inspect.signature(part.forward).parameters


def map_names(model: Any, weights: str = "softmax") -> list[str]:
    """The names of what `record` gives, row by row: the heads of the layers that text runs, in their order.

    Raises:
        UserError: a model of which no part reads text alone.
    """
    maps = _first_run(model)[1]
    return [f"{x.label}:{head}" for x in maps for head in range(getattr(x, weights).shape[1])]


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
