"""What a view holds: the maps of a model's parts between words, or between the patches of a picture."""

import base64
import io
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ..errors import UserError
from ..results.page import in_frame
from .record import Maps
from .view_page import page
from .words import Alignment, merge


@dataclass
class Picture:
    """What a vision model saw: rows x columns patches, the first of them at position `first` of its sequence.

    pixels: the part of the picture that the patches cover, in small; uint8 [height, width, 3].
    """

    rows: int
    columns: int
    first: int
    pixels: np.ndarray

    @property
    def patches(self) -> slice:
        """The patches' positions, row by row."""
        return slice(self.first, self.first + self.rows * self.columns)

    def uri(self) -> str:
        """The pixels as the address of a JPEG inside a page."""
        from PIL import Image

        file = io.BytesIO()
        Image.fromarray(self.pixels).save(file, "JPEG", quality=85)
        return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


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

    other: another model's view of the same text, shown next to it (see `against`). picture: what the model saw where
    the words are patches of a picture.
    """

    panels: list[Panel]
    title: str
    talking: bool  # whether heads are mixed after the softmax
    name: str = ""
    other: "View | None" = None
    picture: Picture | None = None

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
        [layers][heads][queries][memories] of four digits; mixed only where heads are mixed after the softmax. Of a
        picture "patches", too: {"rows", "columns", "first"}."""
        panels = []
        for panel in self.panels:
            maps = {"softmax": panel.softmax} | ({"mixed": panel.mixed} if self.talking else {})
            panels.append(
                {"part": panel.part, "queries": panel.queries, "memories": panel.memories}
                | {name: np.round(x.astype(float), 4).tolist() for name, x in maps.items()}
            )
        seen = self.picture
        grid = {"rows": seen.rows, "columns": seen.columns, "first": seen.first} if seen else None
        about = {"title": self.title, "talking": self.talking, "panels": panels}
        return about | ({"patches": grid} if grid else {})

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


@dataclass
class Side:
    """What attends or is attended to: its tokens' owners, names and tags (see `Panel`)."""

    aligned: Alignment
    names: list[str]
    tags: str

    @classmethod
    def of(cls, found: Alignment, words: list[str], pair: list[str], tokenizer: Any, pieces: bool) -> "Side":
        tags = "a" * len(words) + "b" * len(pair)
        if not pieces:
            return cls(found, [*words, *pair], tags)
        single = Alignment(found.ids, list(range(len(found.ids))), len(found.ids))
        names = [piece(tokenizer, number) for number in found.ids]
        return cls(single, names, "".join("s" if owner is None else tags[owner] for owner in found.owners))


def piece(tokenizer: Any, number: int) -> str:
    """A token as it reads; as the tokenizer writes it where it is no text by itself (part of a letter, say)."""
    text = str(tokenizer.decode([number])).strip()
    return text if text and "\ufffd" not in text else str(tokenizer.convert_ids_to_tokens(number))


def panel_of(part: str, maps: list[Maps], rows: Side, columns: Side) -> Panel:
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


def _level(maps: list[Tensor], heads: int) -> Tensor:
    """[layers, heads, n, m] of the layers' maps [1, heads or fewer, n, m]."""
    return torch.cat([pad(x, (0, 0, 0, 0, 0, heads - x.shape[1])) for x in maps])


def _between(maps: Tensor, rows: Side, columns: Side) -> tuple[np.ndarray, np.ndarray]:
    """([layers, heads, words, words], what goes to special tokens [layers, heads]) of maps between tokens."""
    maps = maps.float()
    _, from_words = merge([rows.aligned], maps.shape[-2], maps.device)
    to_words, _ = merge([columns.aligned], maps.shape[-1], maps.device)
    found = torch.einsum("wn,lhnm,vm->lhwv", from_words[0], maps, to_words[0])
    everything = torch.einsum("wn,lhnm->lhw", from_words[0], maps)
    plain = torch.tensor([tag != "s" for tag in columns.tags], device=maps.device)
    special = (everything - found[..., plain].sum(-1)).mean(-1)
    return found.cpu().numpy(), special.cpu().numpy()
