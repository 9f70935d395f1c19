"""`talking-heads recall`: where do small heads need to talk?"""

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import Device, FirstSeed, Json


def add(app: typer.Typer) -> None:
    app.command()(recall)


def recall(
    out: Annotated[
        Path,
        typer.Option(help="Folder for results. Rerun the same command to resume; more points are added."),
    ] = Path("runs/recall"),
    pairs: Annotated[
        list[int] | None, typer.Option(help="Pairs in a memory (repeatable); default 8, 16, 32.")
    ] = None,
    heads: Annotated[list[int] | None, typer.Option(help="Heads (repeatable); default 4, 8, 16, 32.")] = None,
    width: Annotated[int, typer.Option(help="Width of the model: heads x their size.")] = 32,
    layers: Annotated[int, typer.Option(help="Attention layers.")] = 1,
    keys: Annotated[int, typer.Option(help="Number of different keys, and of different values.")] = 64,
    steps: Annotated[int, typer.Option(help="Training steps.")] = 1000,
    batch: Annotated[int, typer.Option(help="Memories in each step.")] = 128,
    rate: Annotated[float, typer.Option(help="Learning rate.")] = 3e-3,
    seeds: Annotated[int, typer.Option(help="Number of seeds, from --seed on.")] = 3,
    seed: FirstSeed = 0,
    device: Device = "auto",
    json: Json = None,
) -> None:
    """Draw the phase diagram of associative recall, with and without talking heads.

    Each memory holds pairs of a key and a value; a query names a key. Trains a model for each number of pairs, of heads
    and seed; prints accuracies, writes results.json, recall.png and report.html.

    Example: talking-heads recall --pairs 16 --heads 32 --heads 8 --seeds 1 --out runs/recall
    """
    from ..results.extras import require
    from ..results.output import Output
    from ..training.devices import choose
    from ..training.recall import Task, diagram, lines
    from .progress import Screen

    output = Output(json)
    choose(device)
    require("matplotlib")
    task = Task(keys=keys, values=keys, width=width, layers=layers, steps=steps, batch=batch, rate=rate)
    with Screen(output) as screen:
        numbers: Any = range(seed, seed + seeds)
        results = diagram(task, pairs or [8, 16, 32], heads or [4, 8, 16, 32], numbers, out, screen)
    output.say("\n".join(lines(results)))
    output.say(f"report: {out / 'report.html'}")
    output.write_json(results)
