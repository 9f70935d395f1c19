"""What talking heads are, in a picture: four heads that do not talk, and the same four talking.

The squares are what the operator computes: scores, weights and mixed weights of four positions. README's picture is
`standalone`, written by `python -c "from talking_heads.demo.drawing import write; write('docs/images/talking-heads.svg')"`.
"""

from pathlib import Path

import torch
from torch import Tensor

from ..functional import talking_heads_attention
from ..results.files import write_text

HEADS = 4
ALT = (
    "Two diagrams of four attention heads. Multi-head attention: each head's scores go through its own softmax to its "
    "own values. Talking heads: before the softmax logits_mix connects every head with every head, and after it "
    "weights_mix does again."
)
STYLE = """
.th{color:#1c2733;--line:#8a97a6;--plus:#1f6fb4;--minus:#c2442d;--cell:#1f6fb4}
.th text{font:12px system-ui,sans-serif;fill:currentColor}.th .name{font-size:15px;font-weight:600}
.th .map{font-weight:600;fill:var(--plus)}.th .cell{fill:var(--cell)}
.th .frame{fill:none;stroke:var(--line)}.th line{stroke:var(--line)}
.th .plus{stroke:var(--plus)}.th .minus{stroke:var(--minus);stroke-dasharray:4 3}
@media (prefers-color-scheme:dark){.th{color:#e6edf3;--line:#7d8894;--plus:#6db3f2;--minus:#ff9a85;--cell:#6db3f2}}
"""
_WIDTH, _HEIGHT = 380, 330
_ROWS = 66, 168, 270  # upper edges of the rows of squares
_SIDE = 44
_SCORES = torch.tensor(  # [heads, queries, memories]: itself, the one before, the first, the last
    [
        [[3, 0, 0, 0], [0, 3, 0, 0], [0, 0, 3, 0], [0, 0, 0, 3]],
        [[2, 0, 0, 0], [3, 0, 0, 0], [0, 3, 0, 0], [0, 0, 3, 0]],
        [[2, 0, 1, 0], [2, 0, 0, 1], [2, 1, 0, 0], [2, 0, 1, 0]],
        [[0, 1, 0, 2], [0, 0, 1, 2], [1, 0, 0, 2], [0, 1, 0, 2]],
    ],
    dtype=torch.float64,
)
_LOGITS_MIX = torch.tensor(
    [[0.9, 0.4, 0.2, -0.4], [0.5, 0.8, -0.3, 0.2], [-0.3, 0.3, 0.9, 0.5], [0.2, -0.4, 0.4, 0.8]],
    dtype=torch.float64,
)
_WEIGHTS_MIX = torch.tensor(
    [[0.8, -0.3, 0.3, 0.2], [0.2, 0.9, 0.3, -0.3], [0.4, 0.2, 0.7, 0.3], [-0.3, 0.3, 0.2, 0.8]],
    dtype=torch.float64,
)


def drawn(talks: bool) -> str:
    """One diagram as an <svg> whose colours come from STYLE."""
    name = "talking heads" if talks else "multi-head attention"
    title = (
        f"<title>{name}: {'heads exchange scores and weights' if talks else 'each head by itself'}</title>"
    )
    return (
        f'<svg class="th" role="img" viewBox="0 0 {_WIDTH} {_HEIGHT}" xmlns="http://www.w3.org/2000/svg">{title}'
        f"{_panel(talks)}</svg>"
    )


def standalone() -> str:
    """Both diagrams side by side, as a file of its own."""
    width = 2 * _WIDTH + 20
    return (
        f'<svg class="th" role="img" viewBox="0 0 {width} {_HEIGHT}" width="{width}" height="{_HEIGHT}" '
        f'xmlns="http://www.w3.org/2000/svg"><title>{ALT}</title><style>{STYLE}</style>\n'
        f'{_panel(False)}\n<g transform="translate({_WIDTH + 20} 0)">{_panel(True)}</g></svg>\n'
    )


def write(path: Path | str) -> None:
    write_text(path, standalone())


def _panel(talks: bool) -> str:
    maps = (_LOGITS_MIX, _WEIGHTS_MIX) if talks else (torch.eye(HEADS, dtype=torch.float64),) * 2
    identity = torch.eye(4, dtype=torch.float64).expand(HEADS, 4, 4)
    _, weights, mixed = talking_heads_attention(
        _SCORES, identity, identity, *maps, scale=1.0, return_weights=True, backend="reference"
    )
    found = [
        _text(0, 20, "Talking heads" if talks else "Multi-head attention", "name"),
        _text(0, 40, "heads exchange information, twice" if talks else "each head by itself"),
    ]
    for top, label, squares in zip(
        _ROWS, ("scores", "softmax", "times values"), (_SCORES / 3, weights, mixed), strict=True
    ):
        found.append(_text(0, top + 26, label))
        found += [_square(_left(head), top, squares[head]) for head in range(HEADS)]
    for top, name, mix in zip(_ROWS, ("logits_mix", "weights_mix"), maps, strict=False):
        found += [_text(0, top + _SIDE + 33, name, "map")] if talks else []
        found += _links(top + _SIDE, mix, talks)
    return "".join(found)


def _left(head: int) -> int:
    return 98 + 76 * head


def _links(top: int, mix: Tensor, talks: bool) -> list[str]:
    """Lines from each head to each head, as strong as the map's entry."""
    found = []
    for i in range(HEADS):
        for h in range(HEADS):
            value = float(mix[i, h])
            if value:
                kind = f' class="{"plus" if value > 0 else "minus"}"' if talks else ""
                ends = f'x1="{_left(i) + 22}" y1="{top + 3}" x2="{_left(h) + 22}" y2="{top + 55}"'
                found.append(f'<line{kind} {ends} stroke-width="{3 * abs(value):.1f}"/>')
    return found


def _square(left: int, top: int, values: Tensor) -> str:
    """4 x 4 cells, queries downwards: the stronger, the fuller."""
    cells = [
        f'<rect class="cell" x="{left + 11 * m}" y="{top + 11 * n}" width="11" height="11" '
        f'opacity="{min(1.0, float(values[n, m])):.2f}"/>'
        for n in range(4)
        for m in range(4)
        if values[n, m] >= 0.005
    ]
    frame = f'<rect class="frame" x="{left}" y="{top}" width="{_SIDE}" height="{_SIDE}"/>'
    return "".join(cells) + frame


def _text(x: int, y: int, text: str, kind: str = "") -> str:
    name = f' class="{kind}"' if kind else ""
    return f'<text{name} x="{x}" y="{y}">{text}</text>'
