"""The page of a view: its links, packed so that it stays small, in the shell of pages."""

import base64
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from ..results.page import page as shell
from .view_patches import PATCHES, PATCHES_STYLE
from .view_script import BODY, SCRIPT, STYLE

if TYPE_CHECKING:
    from .view_data import Panel, View

_BUDGET = 1_300_000  # characters of links in a page, which is to stay under 2 MB
_MOST_LINKS = 8  # of one word; of a patch as many as there is room for
_WHOLE = 5  # positions that are no patches whose attention is kept whole


def page(found: "View", head: str | None = None) -> str:
    """A self-contained page: no network, no library; keys and mouse. Under 2 MB at 512 words x 144 heads: the more
    words and heads, the fewer links of a word are kept, one at least (of a pair's words, one to each text).

    head: shown first; default the one that talking changed most.
    """
    first = head or found.most_changed()
    found.find(first)
    rows = sum(p.softmax.shape[0] * p.softmax.shape[1] * p.softmax.shape[2] for p in found.panels)
    kinds = (2 if found.talking else 1) + (0 if found.other is None else 2 if found.other.talking else 1)
    short = max(len(p.memories) for p in found.panels) <= 256
    size = 8 / 3 if short else 4  # characters of a link: a weight of one byte, a place of one or two
    room = _BUDGET - (sum(kinds * _whole_size(p) for p in found.panels) if found.picture else 0)
    most = max(len(p.memories) for p in found.panels) if found.picture else _MOST_LINKS
    count = int(min(most, max(1, room // (size * kinds * max(rows, 1)))))
    others = {panel.part: panel for panel in found.other.panels} if found.other else {}
    panels = [_panel(panel, found, others.get(panel.part), count) for panel in found.panels]
    names = {
        f"{whose}{kind}": f"{said}{' of ' + view.name if found.other else ''}"
        for whose, view in (("", found), ("other ", found.other))
        if view
        for kind, said in (("softmax", "softmax weights"), ("mixed", "mixed weights (after talking)"))
        if kind == "softmax" or view.talking
    }
    data = {"first": first, "talking": found.talking, "names": names, "panels": panels}
    style, script = STYLE, SCRIPT
    if found.picture is not None:
        seen = found.picture
        style, script = STYLE + PATCHES_STYLE, PATCHES + SCRIPT
        data["picture"] = {"rows": seen.rows, "columns": seen.columns, "first": seen.first, "uri": seen.uri()}
    return shell(found.title, [BODY], style=style, script=script, data=json.dumps(data, ensure_ascii=False))


def _panel(panel: "Panel", found: "View", other: "Panel | None", count: int) -> dict[str, Any]:
    texts = [np.flatnonzero([tag in kind for tag in panel.tags[1]]) for kind in ("as", "b")]
    texts = [x for x in texts if len(x)]
    links = min(max(count, len(texts)), len(panel.memories))
    maps = {"softmax": panel.softmax} | ({"mixed": panel.mixed} if found.talking else {})
    if other is not None and found.other is not None:
        maps["other softmax"] = _like(other.softmax, other, panel)
        if found.other.talking:
            maps["other mixed"] = _like(other.mixed, other, panel)
    packed = {name: _packed(*links_of(x, links, texts)) for name, x in maps.items()}
    if found.picture:
        packed = {name: held | _whole(maps[name], panel) for name, held in packed.items()}
    return {
        "part": panel.part,
        "queries": panel.queries,
        "memories": panel.memories,
        "tags": panel.tags,
        "layers": panel.softmax.shape[0],
        "numbers": panel.numbers,
        "heads": panel.softmax.shape[1],
        "counts": [max(pair) for pair in panel.counts],
        "mixes": [f"{before} heads to {after}" * (before != after) for before, after in panel.counts],
        "links": links,
        "special": np.round(panel.special, 3).tolist(),
        "change": np.round(panel.changes(), 4).tolist(),
        "peak": np.round(panel.softmax.max(-1).mean(-1), 4).tolist(),
        "maps": packed,
    } | ({"tokens": _tokens(panel), "kept": _kept(panel.softmax, links)} if found.picture else {})


def _kept(maps: np.ndarray, links: int) -> float:
    """The share of a row's weights that its strongest links have."""
    return round(float(np.partition(maps, -links, -1)[..., -links:].sum() / maps.sum()), 4)


def _tokens(panel: "Panel") -> list[int]:
    """The first positions of a picture's sequence that are no patches."""
    return [place for place, tag in enumerate(panel.tags[0]) if tag == "s"][:_WHOLE]


def _whole_size(panel: "Panel") -> int:
    """Characters of `_whole`."""
    layers, heads, _, places = panel.softmax.shape
    return 4 * layers * heads * places * (1 + len(_tokens(panel))) // 3


def _whole(maps: np.ndarray, panel: "Panel") -> dict[str, str]:
    """The mean of all patches' attention, and that of each token that is no patch, to every position."""
    patches = np.flatnonzero([tag != "s" for tag in panel.tags[0]])
    rows = np.concatenate([maps[:, :, patches].mean(2, keepdims=True), maps[:, :, _tokens(panel)]], 2)
    scale = np.abs(rows).max(-1)
    scale = np.where(scale > 0, scale, 1)
    weight = np.rint(rows / scale[..., None] * 127).astype(np.int8)
    return {"whole": _text(weight), "peaks": _text(scale.astype("<f4"))}


def _like(maps: np.ndarray, other: "Panel", panel: "Panel") -> np.ndarray:
    """Another model's maps at the places of this one's layers and heads; zeros where it has none."""
    found = np.zeros(panel.softmax.shape, maps.dtype)
    heads = min(maps.shape[1], found.shape[1])
    for place, number in enumerate(panel.numbers):
        if number in other.numbers:
            found[place, :heads] = maps[other.numbers.index(number), :heads]
    return found


def links_of(
    maps: np.ndarray, count: int, texts: list[np.ndarray] | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The strongest `count` links of each word: (memory uint8 or uint16, weight int8, scale float32).

    maps [layers, heads, queries, memories] -> memory and weight [layers, heads, queries, count]; a weight is
    its number / 127 * scale [layers, heads].

    texts: the memories of each of several texts; each has its share of the links.
    """
    size = np.abs(maps)
    texts = texts or [np.arange(maps.shape[-1])]
    shares = [count // len(texts) + (number < count % len(texts)) for number in range(len(texts))]
    found = []
    for places, share in zip(texts, shares, strict=True):
        most = min(share, len(places))
        if most:
            found.append(places[np.argpartition(-size[..., places], most - 1, -1)[..., :most]])
    order = np.concatenate(found, -1)
    first = np.argsort(-np.take_along_axis(size, order, -1), -1, kind="stable")
    order = np.take_along_axis(order, first, -1)
    missing = count - order.shape[-1]  # a short text has fewer words than its share
    values = np.take_along_axis(maps, order, -1)
    scale = size.max((2, 3))
    scale = np.where(scale > 0, scale, 1)
    weight = np.rint(values / scale[..., None, None] * 127).astype(np.int8)
    wide = [(0, 0)] * 3 + [(0, missing)]
    place = np.uint8 if maps.shape[-1] <= 256 else "<u2"
    return np.pad(order, wide).astype(place), np.pad(weight, wide), scale.astype("<f4")


def _packed(memory: np.ndarray, weight: np.ndarray, scale: np.ndarray) -> dict[str, str]:
    return {"memory": _text(memory), "weight": _text(weight), "scale": _text(scale)}


def _text(x: np.ndarray) -> str:
    return base64.b64encode(x.tobytes()).decode()
