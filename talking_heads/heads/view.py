"""One text's attention between its words, softmax and mixed side by side: a page, an SVG, a PNG."""

import base64
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ..errors import UserError
from ..results.page import in_frame
from ..results.page import page as shell
from .record import longest, reads, recording, text_part
from .view_page import BODY, SCRIPT, STYLE
from .words import Alignment, Sentence, Skipped, align, merge, words_of

_BUDGET = 1_300_000  # characters of links in a page, which is to stay under 2 MB
_MOST_LINKS = 8  # of one word


@dataclass
class Panel:
    """One part's maps: queries and memories are words; softmax and mixed [layers, heads, queries, memories], with
    zeros for the heads that a layer has not.

    special: how much of each head's softmax attention goes to special tokens, [layers, heads]. counts: each
    layer's softmax heads and heads after mixing. numbers: of the layers in the model's part, default from 0 on.
    """

    part: str
    queries: list[str]
    memories: list[str]
    softmax: np.ndarray
    mixed: np.ndarray
    special: np.ndarray
    counts: list[tuple[int, int]]
    numbers: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.numbers = self.numbers or list(range(len(self.counts)))

    def changes(self) -> np.ndarray:
        """[layers, heads]: what talking changed of a word's attention; 0 where mixing makes another number of heads,
        so that none is the same before and after."""
        found: np.ndarray = np.abs(self.mixed - self.softmax).sum(-1).mean(-1)
        found[[before != after for before, after in self.counts]] = 0
        return found


@dataclass
class View:
    """What `view` saw; page() and draw() show it."""

    panels: list[Panel]
    title: str
    talking: bool  # whether heads are mixed after the softmax

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
def view(model: Any, tokenizer: Any, text: Sentence, target: Sentence | None = None) -> View:
    """The attention of a text's words to each other.

    Of a model of several inputs the part that reads text, of an encoder-decoder its encoder, and with a target text the decoder and cross-attention, too. The target is
    tokenized as a target (with the code of its language, say) and shifted as in training: a target word's row is that
    of the word as the decoder's input.

    Args:
        text, target: texts, or lists of words.

    Raises:
        UserError: a text that the model cannot take, a target for a model without decoder.
    """
    source = _aligned(model, tokenizer, text)
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
    if target is not None:
        output = _shifted(model, _aligned(model, tokenizer, target, is_target=True))
        call["decoder_input_ids"] = torch.tensor([output.ids], device=device)
    was_training = model.training
    model.eval()
    try:
        with recording(model) as tape:
            reads(network, call)
    finally:
        model.train(was_training)
    words = {"source": words_of(text), "target": words_of(target or text)}
    title = text if isinstance(text, str) else " ".join(text)
    panels = []
    maps = tape.take()
    for part in dict.fromkeys(x.part for x in maps):
        rows = source if part == "encoder" or target is None else output
        columns = output if part == "decoder" and target is not None else source
        layers_of = [x for x in maps if x.part == part]
        counts = [(x.softmax.shape[1], x.mixed.shape[1]) for x in layers_of]
        most = max(map(max, counts))
        softmax, special = _between(_level([x.softmax for x in layers_of], most), rows, columns)
        mixed, _ = _between(_level([x.mixed for x in layers_of], most), rows, columns)
        numbers = [x.number for x in layers_of]
        names = [words["source" if x is source else "target"] for x in (rows, columns)]
        panels.append(Panel(part, names[0], names[1], softmax, mixed, special, counts, numbers))
    talking = any(x.mixed is not x.softmax for x in maps)
    return View(panels, title if len(title) < 80 else title[:77] + "...", talking)


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


def _between(maps: Tensor, rows: Alignment, columns: Alignment) -> tuple[np.ndarray, np.ndarray]:
    """([layers, heads, words, words], what goes to special tokens [layers, heads]) of maps between tokens."""
    maps = maps.float()
    _, from_words = merge([rows], maps.shape[-2], maps.device)
    to_words, _ = merge([columns], maps.shape[-1], maps.device)
    found = torch.einsum("wn,lhnm,vm->lhwv", from_words[0], maps, to_words[0])
    everything = torch.einsum("wn,lhnm->lhw", from_words[0], maps)
    return found.cpu().numpy(), (everything - found.sum(-1)).mean(-1).cpu().numpy()


def links_of(maps: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The strongest `count` links of each word: (memory uint16, weight int8, scale float32).

    maps [layers, heads, queries, memories] -> memory and weight [layers, heads, queries, count]; a weight is
    its number / 127 * scale [layers, heads].
    """
    size = np.abs(maps)
    order = np.argpartition(-size, count - 1, -1)[..., :count]
    first = np.argsort(-np.take_along_axis(size, order, -1), -1, kind="stable")
    order = np.take_along_axis(order, first, -1)
    values = np.take_along_axis(maps, order, -1)
    scale = size.max((2, 3))
    scale = np.where(scale > 0, scale, 1)
    return (
        order.astype("<u2"),
        np.rint(values / scale[..., None, None] * 127).astype(np.int8),
        scale.astype("<f4"),
    )


def page(found: View, head: str | None = None) -> str:
    """A self-contained page: no network, no library; keys and mouse. Under 2 MB at 512 words x 144 heads: the more
    words and heads, the fewer links of a word are kept, one at least.

    head: shown first; default the one that talking changed most.
    """
    first = head or found.most_changed()
    found.find(first)
    rows = sum(p.softmax.shape[0] * p.softmax.shape[1] * p.softmax.shape[2] for p in found.panels)
    kinds = 2 if found.talking else 1
    count = int(min(_MOST_LINKS, max(1, _BUDGET // (4 * kinds * max(rows, 1)))))
    panels = []
    for panel in found.panels:
        maps = {"softmax": panel.softmax} | ({"mixed": panel.mixed} if found.talking else {})
        links = min(count, len(panel.memories))
        panels.append(
            {
                "part": panel.part,
                "queries": panel.queries,
                "memories": panel.memories,
                "layers": panel.softmax.shape[0],
                "numbers": panel.numbers,
                "heads": panel.softmax.shape[1],
                "counts": [max(pair) for pair in panel.counts],
                "mixes": [f"{before} heads to {after}" * (before != after) for before, after in panel.counts],
                "links": links,
                "special": np.round(panel.special, 3).tolist(),
                "change": np.round(panel.changes(), 4).tolist(),
                "peak": np.round(panel.softmax.max(-1).mean(-1), 4).tolist(),
                "maps": {name: _packed(*links_of(x, links)) for name, x in maps.items()},
            }
        )
    data = json.dumps({"first": first, "talking": found.talking, "panels": panels}, ensure_ascii=False)
    return shell(found.title, [BODY], style=STYLE, script=SCRIPT, data=data)


def _packed(memory: np.ndarray, weight: np.ndarray, scale: np.ndarray) -> dict[str, str]:
    parts = {"memory": memory, "weight": weight, "scale": scale}
    return {name: base64.b64encode(x.tobytes()).decode() for name, x in parts.items()}


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
