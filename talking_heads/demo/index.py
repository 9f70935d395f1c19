"""The demo's page: what talking heads are in a picture, then the three results. Self-contained."""

from pathlib import Path
from typing import Any

from ..results import page
from ..training.recall import Task
from . import drawing, pictures
from .parts import SENTENCE
from .pictures import NAMES

Results = dict[str, Any]

_STYLE = (
    drawing.STYLE
    + """
.pair{display:flex;flex-wrap:wrap;gap:1rem 2rem;margin:1.2rem 0}.pair svg{flex:1 1 19rem;min-width:0;max-width:30rem}
.pair figure{flex:1 1 16rem;margin:0;max-width:26rem}
.big{font-size:1.15rem}
"""
)


def index(out: Path, results: Results, parts: Results, task: Task, seconds: float) -> str:
    """The page as HTML; its pictures are also written to `out`.

    parts: {"recall": points, "operator": ..., "convert": ...} as they are kept.
    """
    blocks = [
        '<p class="big">Attention heads work alone: each takes its own softmax. Talking heads exchange information twice, '
        "by two small learned matrices: <code>logits_mix</code> before the softmax and <code>weights_mix</code> after "
        "it.</p>",
        f'<div class="pair">{drawing.drawn(False)}{drawing.drawn(True)}</div>',
        page.paragraph(
            "Each square is one head's attention from 4 positions (rows) to 4 positions (columns). Solid lines add, dashed "
            "lines subtract. With both matrices the identity, the right side is the left side: that is where training "
            "starts."
        ),
        *_recall(out, results["recall"], parts["recall"], task),
        *_operator(out, results["operator"], parts["operator"]),
        *_convert(out, results["convert"], parts["convert"]),
        page.heading("Go on"),
        page.preformatted(
            "talking-heads convert MODEL NEW_FOLDER    your own model\n"
            "talking-heads bench                       other shapes, every form\n"
            f'talking-heads view {parts["convert"]["model"]} "Your text."\n'
            "talking-heads compare --help              does talking help on your text?"
        ),
        page.paragraph(f"All of this took {seconds:.0f} s on {_machine(parts['operator'])}."),
    ]
    return page.page("What talking heads do", blocks, style=_STYLE)


def _recall(out: Path, rows: list[Results], points: list[Results], task: Task) -> list[str]:
    drawn = pictures.curves(out, points, task.width, task.values)
    talking = [point for point in points if point["maps"]]
    shown = talking[min(1, len(talking) - 1)]
    seeds = len(rows[0]["accuracy"])
    lines = "each line is one seed" if seeds > 1 else "one seed"
    by_size: dict[int, dict[str, str]] = {}
    for row in rows:
        said = ", ".join(f"{x:.3f}" for x in row["accuracy"])
        by_size.setdefault(row["heads"], {})[row["arm"]] = said
    cells = [
        [f"{heads} heads of size {task.width // heads}", *(arms[kind] for kind in NAMES)]
        for heads, arms in by_size.items()
    ]
    pairs = points[0]["pairs"]
    return [
        page.heading("1. Small heads need to talk"),
        page.paragraph(
            f"The task: a memory holds {pairs} pairs of a key and a value; a query names one key and the model gives its "
            f"value. One attention layer of width {task.width}, {task.keys} keys, {task.steps:,} training steps. A head of size "
            "1 can order keys along one line only; heads that talk add up their scores before the softmax and compare as "
            "one large head would."
        ),
        _row(drawn, [f"accuracy while training: {path.stem[7:].replace('-', ' ')}" for path in drawn]),
        page.paragraph(f"Accuracy on new memories while training ({lines}); dotted: guessing."),
        page.table(["heads", *NAMES.values()], cells, "Accuracy after training, by seed (1 is all right)"),
        _row(pictures.maps(out, shown), [f"the learned {name}" for name in shown["maps"]]),
        page.paragraph(
            f"The maps that {shown['heads']} talking heads learned (seed {shown['seed']}); they started as the identity."
        ),
        page.paragraph(
            "This is a made-up task. Whether language models gain is another question: see docs/evidence in the repository."
        ),
    ]


def _row(paths: list[Path], texts: list[str]) -> str:
    """Pictures side by side where there is room."""
    figures = [page.picture(path, text) for path, text in zip(paths, texts, strict=True)]
    return f'<div class="pair">{"".join(figures)}</div>'


def _operator(out: Path, found: Results, part: Results) -> list[str]:
    pictures.times(out / "operator.png", part)
    ratio, best = found["ours_ms"] / found["sdpa_ms"], found["next_best"]
    heads, size, positions, batch = found["shape"].split("x")
    missing = "".join(f" Left out: {name} ({why})." for name, why in part.get("left_out", {}).items())
    return [
        page.heading("2. What talking costs on this machine"),
        page.paragraph(
            f"{heads} heads of size {size}, {positions} positions, batch {batch}, forward and backward: {ratio:.2f} times the "
            f"time of PyTorch's scaled_dot_product_attention, whose heads do not talk. The next best way to compute "
            f"talking heads, {best['form']}, takes {best['ms'] / found['ours_ms']:.1f} times as long as this package's "
            f'operator (backend "{part["backend"]}").'
        ),
        page.picture(
            out / "operator.png",
            "Medians of rounds in turns in one process; whiskers: the fastest and the slowest round",
        ),
        page.paragraph(f"Measured with whatever else ran on the machine at that time.{missing}"),
    ]


def _convert(out: Path, found: Results, part: Results) -> list[str]:
    pictures.sentence(out / "sentence.png", part)
    command = f'talking-heads view {found["model"]} "{SENTENCE}"'
    return [
        page.heading("3. A pretrained model, converted in place"),
        page.paragraph(
            f"{found['model']} (a BERT of {found['layers']} layers): all {found['layers']} attention layers got their maps, and "
            f"its outputs moved by at most {found['max_error']:.0e} of the largest: float rounding. "
            "The maps start as the identity and learn when you fine-tune."
        ),
        page.picture(
            out / "sentence.png",
            f"One head's attention between the words of a sentence; {command} shows every head",
        ),
    ]


def _machine(part: Results) -> str:
    machine = part["machine"]
    threads = machine["threads"]
    return f"{machine.get('gpu', machine['processor'])}, {threads} thread{'s' * (threads != 1)}"
