"""`talking-heads demo`: the first minute."""

from pathlib import Path
from typing import Annotated

import typer

from .options import FirstSeed, Json


def add(app: typer.Typer) -> None:
    app.command()(demo)


def demo(
    out: Annotated[
        Path, typer.Option(help="Folder for results. Rerun the same command to resume; more seeds are added.")
    ] = Path("runs/demo"),
    seeds: Annotated[
        int, typer.Option(min=1, help="Number of seeds of the recall task, from --seed on.")
    ] = 1,
    seed: FirstSeed = 0,
    json: Json = None,
) -> None:
    """See in about two minutes what talking heads do.

    Trains one attention layer on associative recall, multi-head and talking, times the operator next to PyTorch's
    attention and the next best form, and converts a pretrained model. Writes results.json and index.html, one page.

    Example: talking-heads demo --out runs/demo
    """
    from ..demo import demo as run
    from ..results.output import Output
    from .curves import Curves

    output = Output(json)
    with Curves() as curves:
        results = run(out, range(seed, seed + seeds), curves)
    found, convert = results["operator"], results["convert"]
    best = found["next_best"]
    output.say(
        f"operator, {found['shape']}: {found['ours_ms'] / found['sdpa_ms']:.2f} x SDPA, forward and backward "
        f"({found['ours_ms']:.1f} and {found['sdpa_ms']:.1f} ms)"
    )
    output.say(f"next best, {best['form']}: {best['ms']:.1f} ms")
    output.say(
        f"convert, {convert['model']}: {convert['layers']} layers, outputs equal to {convert['max_error']:.0e}"
    )
    output.say(f"{results['seconds']:.0f} s; page: {out / 'index.html'}")
    output.write_json(results)
