"""`talking-heads dynamics`: how attention learns."""

from pathlib import Path
from typing import Annotated

import typer

from .options import FirstSeed, Json


def add(app: typer.Typer) -> None:
    app.command()(dynamics)


def dynamics(
    out: Annotated[Path, typer.Option(help="Folder for results; rerun the same command to resume.")] = Path(
        "runs/dynamics"
    ),
    classifier: Annotated[
        list[str] | None,
        typer.Option(
            help="fixed, trainable or two-layer (repeatable). Default: the first two; with --heads fixed."
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Number of seeds, from --seed on. Default: 1; with --heads 5.")
    ] = None,
    seed: FirstSeed = 0,
    epochs: Annotated[
        int | None,
        typer.Option(help="Epochs of full-batch descent. Default: 5000; with --heads 2000; on text 10000."),
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Learning rate. Default: 0.1.")] = None,
    starts: Annotated[
        int | None, typer.Option(help="Number of other starts to run each classifier from. Default: 0.")
    ] = None,
    heads: Annotated[
        int | None, typer.Option(help="Number of heads: train with and without maps across them.")
    ] = None,
    text: Annotated[
        Path | None, typer.Option(help="Real text to train on: a labelled file, as `importance` reads it.")
    ] = None,
    dev: Annotated[
        Path | None, typer.Option(help="Lines to validate on. Default: a tenth of --text.")
    ] = None,
    test: Annotated[Path | None, typer.Option(help="Lines to test on. Default: a tenth of --text.")] = None,
    trace: Annotated[
        list[str] | None, typer.Option(help="A word of the text to follow (repeatable).")
    ] = None,
    transformer: Annotated[
        Path | None, typer.Option(help="Measure the models in a folder written by `compare --snapshots`.")
    ] = None,
    full: Annotated[
        bool,
        typer.Option(
            "--full", help="All of the paper: three classifiers, 5 seeds, 20 other starts (an hour)."
        ),
    ] = False,
    redraw: Annotated[
        bool,
        typer.Option("--redraw", help="Rebuild tables, figures and report.html from --out without training."),
    ] = False,
    json: Json = None,
) -> None:
    """How attention learns: score and embedding norm along training, against theory.

    Trains the models of "On the Dynamics of Training Attention Models" (Lu, Mao, Nayak, 2021) on its synthetic
    topics (a few minutes; --full for every seed and start), with several heads (--heads), on real text (--text), or
    measures a transformer (--transformer). Prints the tables; writes results.json, figures and a self-contained
    report.html.

    Example: talking-heads dynamics --out runs/dynamics

    Example: talking-heads dynamics --full --out runs/paper

    Example: talking-heads dynamics --heads 4 --out runs/heads

    Example: talking-heads dynamics --text sst2.train --dev sst2.dev --test sst2.test --trace powerful --out runs/sst2

    Example: talking-heads dynamics --transformer runs/compare --out runs/transformer
    """
    from ..dynamics import report, runs
    from ..dynamics.choose import choose
    from ..results.extras import require
    from ..results.output import Output
    from ..results.table import Table
    from .progress import Screen

    output = Output(json)
    require("matplotlib", "scipy")
    if redraw:
        results = runs.load(out)
    else:
        run = choose(
            text=text,
            dev=dev,
            test=test,
            models=transformer,
            seed=seed,
            seeds=seeds,
            full=full,
            classifiers=tuple(classifier) if classifier else None,
            epochs=epochs,
            rate=rate,
            starts=starts,
            heads=heads,
            trace=tuple(trace) if trace else None,
        )
        with Screen(output) as screen:
            results = run(out, screen)
    report.write_report(out, results)
    for caption, columns, rows in report.tables(results):
        output.say(f"{caption}:\n")
        output.show(Table.of(columns, rows))
        output.say()
    output.say(f"report: {out / 'report.html'}")
    output.write_json(results)
