"""One text's attention between its words, softmax and mixed side by side: a page, an SVG, a PNG."""

from dataclasses import dataclass, field, replace
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ..errors import UserError
from ..results.page import in_frame
from .modes import eval_mode
from .record import Maps, longest, reads, recording, text_part
from .view_page import links_of, page
from .words import Alignment, Sentence, Skipped, align, align_pair, merge, words_of


@dataclass
class Panel:
    """One part's maps: queries and memories are words; softmax and mixed [layers, heads, queries, memories], with
    zeros for the heads that a layer has not.

    special: how much of each head's softmax attention goes to special tokens, [layers, heads]. counts: each
    layer's softmax heads and heads after mixing. numbers: of the layers in the model's part, default from 0 on.
    tags: of queries and of memories, a letter each: s a special token, a of the text, b of its pair; default all a.
    """

    part: str
    queries: list[str]
    memories: list[str]
    softmax: np.ndarray
    mixed: np.ndarray
    special: np.ndarray
    counts: list[tuple[int, int]]
    numbers: list[int] = field(default_factory=list)
    tags: tuple[str, str] = ("", "")

    def __post_init__(self) -> None:
        self.numbers = self.numbers or list(range(len(self.counts)))
        if not any(self.tags):
            self.tags = "a" * len(self.queries), "a" * len(self.memories)

    def changes(self) -> np.ndarray:
        """[layers, heads]: what talking changed of a word's attention; 0 where mixing makes another number of heads,
        so that none is the same before and after."""
        found: np.ndarray = np.abs(self.mixed - self.softmax).sum(-1).mean(-1)
        found[[before != after for before, after in self.counts]] = 0
        return found


@dataclass
class View:
    """What `view` saw; page() and draw() show it. In a notebook it shows itself.

    other: another model's view of the same text, shown next to it (see `against`).
    """

    panels: list[Panel]
    title: str
    talking: bool  # whether heads are mixed after the softmax
    name: str = ""
    other: "View | None" = None

    def against(self, other: "View", name: str = "", *, this: str = "") -> "View":
        """Compare with another model's view: heads of the same name are shown side by side.

        Args:
            name, this: what the page calls the other model and this one; default their classes.

        Raises:
            UserError: views of other words.
        """
        mine, theirs = ({p.part: (p.queries, p.memories) for p in x.panels} for x in (self, other))
        if mine != theirs:
            raise UserError(
                "two models side by side must see the same words in the same parts",
                " and ".join(f"{', '.join(x)} of {len(next(iter(x.values()))[0])}" for x in (mine, theirs)),
                "give both the same text, and words instead of pieces where tokenizers differ",
            )
        return replace(
            self, name=this or self.name, other=replace(other, name=name or other.name, other=None)
        )

    def _repr_html_(self) -> str:
        """The page, in a notebook: in a frame of its own, so that several do not meet."""
        return in_frame(page(self), self.title)

    def to_dict(self) -> dict[str, Any]:
        """{"title", "talking", "panels": [{"part", "queries", "memories", "softmax", "mixed"}]}, maps as nested lists
        [layers][heads][queries][memories] of four digits; mixed only where heads are mixed after the softmax."""
        panels = []
        for panel in self.panels:
            maps = {"softmax": panel.softmax} | ({"mixed": panel.mixed} if self.talking else {})
            panels.append(
                {"part": panel.part, "queries": panel.queries, "memories": panel.memories}
                | {name: np.round(x.astype(float), 4).tolist() for name, x in maps.items()}
            )
        return {"title": self.title, "talking": self.talking, "panels": panels}

    def most_changed(self) -> str:
        """The head that talking changed most (by the size of the difference); "part.layer:head"."""
        best = (-1.0, "")
        for panel in self.panels:
            change = panel.changes() / len(panel.memories)
            layer, head = np.unravel_index(int(change.argmax()), change.shape)
            best = max(best, (float(change[layer, head]), f"{panel.part}.{panel.numbers[layer]}:{head}"))
        return best[1]

    def find(self, name: str) -> tuple[Panel, int, int]:
        """(panel, layer, head) of "part.layer:head".

        Raises:
            UserError: no such head.
        """
        label, _, head = name.partition(":")
        part, _, layer = label.partition(".")
        for panel in self.panels:
            numbered = layer.isdecimal() and head.isdecimal() and int(layer) in panel.numbers
            if panel.part == part and numbered:
                place = panel.numbers.index(int(layer))
                if int(head) < max(panel.counts[place]):
                    return panel, place, int(head)
        known = ", ".join(
            f"{p.part}.{p.numbers[0]}:0 to {p.part}.{p.numbers[-1]}:{max(p.counts[-1]) - 1}"
            for p in self.panels
        )
        raise UserError(f"a head must be one of {known}", name, "name one")


@torch.no_grad()
def view(
    model: Any,
    tokenizer: Any,
    text: Sentence,
    target: Sentence | None = None,
    *,
    pair: Sentence | None = None,
    pieces: bool = False,
) -> View:
    """The attention of a text's words to each other.

    Of a model of several inputs the part that reads text, of an encoder-decoder its encoder, and with a target text the
    decoder and cross-attention, too. The target is tokenized as a target (with the code of its language, say) and
    shifted as in training: a target word's row is that of the word as the decoder's input.

    Args:
        text, target: texts, or lists of words. pair: a second text of the same input (as in MNLI).
        pieces: the tokens, special ones too, instead of words.

    Raises:
        UserError: a text that the model cannot take, a target for a model without decoder.
    """
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
    sides = {"source": _Side.of(source, words, words_of(pair or []), tokenizer, pieces)}
    sides["target"] = (
        _Side.of(output, words_of(target), [], tokenizer, pieces) if target is not None else sides["source"]
    )
    title = " / ".join(x if isinstance(x, str) else " ".join(x) for x in (text, pair) if x is not None)
    maps = tape.take()
    panels = [
        _panel(
            part,
            [x for x in maps if x.part == part],
            sides["source" if part == "encoder" else "target"],
            sides["target" if part == "decoder" else "source"],
        )
        for part in dict.fromkeys(x.part for x in maps)
    ]
    talking = any(x.mixed is not x.softmax for x in maps)
    return View(panels, title if len(title) < 80 else title[:77] + "...", talking, type(model).__name__)


@dataclass
class _Side:
    """What attends or is attended to: its tokens' owners, names and tags (see `Panel`)."""

    aligned: Alignment
    names: list[str]
    tags: str

    @classmethod
    def of(cls, found: Alignment, words: list[str], pair: list[str], tokenizer: Any, pieces: bool) -> "_Side":
        tags = "a" * len(words) + "b" * len(pair)
        if not pieces:
            return cls(found, [*words, *pair], tags)
        single = Alignment(found.ids, list(range(len(found.ids))), len(found.ids))
        names = [_piece(tokenizer, number) for number in found.ids]
        return cls(single, names, "".join("s" if owner is None else tags[owner] for owner in found.owners))


def _piece(tokenizer: Any, number: int) -> str:
    """A token as it reads; as the tokenizer writes it where it is no text by itself (part of a letter, say)."""
    text = str(tokenizer.decode([number])).strip()
    return text if text and "\ufffd" not in text else str(tokenizer.convert_ids_to_tokens(number))


def _panel(part: str, maps: list[Maps], rows: _Side, columns: _Side) -> Panel:
    tokens = len(rows.aligned.ids), len(columns.aligned.ids)
    odd = next((x for x in maps if x.softmax.shape[2:] != tokens), None)
    if odd is not None:
        raise UserError(
            f"a view needs maps of the text's tokens, here {tokens[0]} by {tokens[1]}",
            f"{odd.label}, which attends {odd.softmax.shape[2]} by {odd.softmax.shape[3]}",
            "look at its maps themselves: heads.recording",
        )
    counts = [(x.softmax.shape[1], x.mixed.shape[1]) for x in maps]
    most = max(map(max, counts))
    softmax, special = _between(_level([x.softmax for x in maps], most), rows, columns)
    mixed, _ = _between(_level([x.mixed for x in maps], most), rows, columns)
    numbers, tags = [x.number for x in maps], (rows.tags, columns.tags)
    return Panel(part, rows.names, columns.names, softmax, mixed, special, counts, numbers, tags)


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
        start = getattr(model.config, "decoder_start_token_id", None)
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


def _level(maps: list[Tensor], heads: int) -> Tensor:
    """[layers, heads, n, m] of the layers' maps [1, heads or fewer, n, m]."""
    return torch.cat([pad(x, (0, 0, 0, 0, 0, heads - x.shape[1])) for x in maps])


def _between(maps: Tensor, rows: _Side, columns: _Side) -> tuple[np.ndarray, np.ndarray]:
    """([layers, heads, words, words], what goes to special tokens [layers, heads]) of maps between tokens."""
    maps = maps.float()
    _, from_words = merge([rows.aligned], maps.shape[-2], maps.device)
    to_words, _ = merge([columns.aligned], maps.shape[-1], maps.device)
    found = torch.einsum("wn,lhnm,vm->lhwv", from_words[0], maps, to_words[0])
    everything = torch.einsum("wn,lhnm->lhw", from_words[0], maps)
    plain = torch.tensor([tag != "s" for tag in columns.tags], device=maps.device)
    special = (everything - found[..., plain].sum(-1)).mean(-1)
    return found.cpu().numpy(), special.cpu().numpy()


def draw(
    found: View, path: Path | str | None = None, head: str | None = None, links: int = 3, *, axes: Any = None
) -> Any:
    """One head's words and their strongest links, softmax next to mixed.

    Args:
        path: an SVG or PNG to write, by its ending; None for none. head: default the one that talking changed most.
        axes: one, or two where heads are mixed after the softmax; default those of a new figure.

    Returns:
        The axes, [1 or 2].
    """
    from ..results.charts import drawing, plot, save

    name = head or found.most_changed()
    panel, layer, number = found.find(name)
    kinds = [("softmax weights", panel.softmax)] + ([("mixed weights", panel.mixed)] if found.talking else [])
    height = 0.24 * max(len(panel.queries), len(panel.memories)) + 0.9
    if axes is None:
        size = 4.2 * len(kinds), height
        _, axes = plot().subplots(1, len(kinds), figsize=size, squeeze=False, layout="constrained")
    axes = np.atleast_1d(axes).ravel()
    if len(axes) != len(kinds):
        names = " and ".join(kind for kind, _ in kinds)
        raise UserError(f"axes must be one for each of {names}", f"{len(axes)}", "make as many subplots")
    with drawing("".join([*panel.queries, *panel.memories])):
        for ax, (title, maps) in zip(axes, kinds, strict=True):
            _draw(ax, panel, f"{name}  {title}", maps[layer, number], links)
    if path is not None:
        save(axes[0].figure, path, dpi=min(120, int(4000 / height)))  # a long text stays a file one can open
    return axes


def _draw(ax: Any, panel: Panel, title: str, maps: np.ndarray, links: int) -> None:
    memory, weight, _ = links_of(maps[None, None], min(links, len(panel.memories)))
    for query in range(len(panel.queries)):
        for place, w in zip(memory[0, 0, query], weight[0, 0, query] / 127, strict=True):
            if abs(w) > 0.02:
                ax.plot(
                    [0, 1],
                    [query, place],
                    color="#1f6fb4" if w > 0 else "#c62828",
                    alpha=min(1, abs(w)),
                    lw=1 + 2 * abs(w),
                )
    for x, words, side in ((-0.03, panel.queries, "right"), (1.03, panel.memories, "left")):
        for place, word in enumerate(words):
            ax.text(x, place, word, ha=side, va="center", fontsize=9)
    ax.set_title(title, fontsize=10)
    ax.set_xlim(-0.7, 1.7)
    ax.set_ylim(max(len(panel.queries), len(panel.memories)) - 0.5, -0.5)
    ax.axis("off")
