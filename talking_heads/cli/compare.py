"""`talking-heads compare`: does talking help on my text, and what does it cost?"""

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import Device, Dtype, FirstSeed, Json, Stream, Vocabulary

PILOT_SEED = 1000  # far from those that a comparison uses


def add(app: typer.Typer) -> None:
    app.command()(compare)
    app.command()(report)


def compare(
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for results. The same command continues where it stopped; more arms or seeds are added."
        ),
    ] = Path("runs/compare"),
    preset: Annotated[
        str, typer.Option(help="demo (two cores, minutes), small (one GPU) or base (T5-base).")
    ] = "demo",
    arm: Annotated[
        list[str] | None,
        typer.Option(
            help="KIND:HEADS[:OPTION]..., repeatable. KIND: multi-head, talking-heads, logits-map, weights-map, or none "
            "(no attention, alone). Options of conversion: heads=, key_heads=, value_heads=, maps=, random, dynamic=, "
            "bilinear, layers=, kinds=; others: width=, ff=, rate=, within=N (heads talk in groups of N), frozen, "
            "fused or plain (multi-head by this package's operator or by transformers')."
        ),
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Number of seeds, from --seed on.")] = None,
    seed: FirstSeed = 0,
    objective: Annotated[
        str | None,
        typer.Option(
            help="span-corruption (T5), masked-lm (BERT), sentence-order (ALBERT) or causal-lm (Llama)."
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps.")] = None,
    batch: Annotated[int | None, typer.Option(help="Blocks in each step.")] = None,
    width: Annotated[int | None, typer.Option(help="Width of the model.")] = None,
    layers: Annotated[int | None, typer.Option(help="Layers (of encoder and of decoder).")] = None,
    length: Annotated[int | None, typer.Option(help="Tokens in each block.")] = None,
    vocabulary: Vocabulary = None,
    rate: Annotated[
        list[float] | None,
        typer.Option(
            help="Learning rate. Several (repeatable): each arm tries them on pilot seeds and takes the best on "
            "validation text."
        ),
    ] = None,
    pilot_seeds: Annotated[int, typer.Option(min=1, help="Seeds to try rates on, from 1000 on.")] = 2,
    text: Annotated[
        list[Path] | None, typer.Option(help="Your own text files (UTF-8, gzip allowed), repeatable.")
    ] = None,
    hub: Annotated[
        str | None,
        typer.Option(help="A data set by name[:config] or local folder, of which the first 50 MB are read."),
    ] = None,
    stream: Stream = False,
    other: Annotated[
        list[Path] | None,
        typer.Option(
            help="A text of another kind on which each run is evaluated once, at its end (repeatable)."
        ),
    ] = None,
    transfer: Annotated[
        list[str] | None,
        typer.Option(
            help="Task to learn after pre-training (repeatable): party, era, file, half, none, or TRAIN[,TEST], labelled "
            "files: tables, JSON lines, or lines 'label text'. At least 10 texts to learn from and 4 to judge."
        ),
    ] = None,
    transfer_examples: Annotated[
        int | None, typer.Option(help="Maximum number of texts to learn a transfer task from.")
    ] = None,
    whole_words: Annotated[
        bool, typer.Option("--whole-words", help="Mask whole words (masked-lm and sentence-order).")
    ] = False,
    equal_time: Annotated[
        bool,
        typer.Option(
            "--equal-time",
            help="Give each arm the number of steps that fit the time of the first arm's --steps, with its own full schedule.",
        ),
    ] = False,
    snapshots: Annotated[
        bool,
        typer.Option("--snapshots", help="Save each model at several steps, for `dynamics --transformer`."),
    ] = False,
    device: Device = "auto",
    dtype: Dtype = None,
    json: Json = None,
) -> None:
    """Pre-train and fine-tune arms on the same text, seed by seed, and report what differs.

    All arms see the same examples in the same order; arms of equal shape start from the same weights. Prints a table
    after each run; writes results.json, figures and a self-contained report.html. Next to every loss stand its floors:
    what n-grams reach on the same tokens. Trains in mixed precision (bfloat16) by default on a GPU that has it, else
    in float32.

    Example: talking-heads compare --preset demo --out runs/compare

    Example: talking-heads compare --text my.txt --arm multi-head:8 --arm talking-heads:16 --seeds 3

    Example: talking-heads compare --objective causal-lm --arm multi-head:8 --arm talking-heads:16:heads=32 --arm none \\
    --equal-time --rate 1.5e-3 --rate 3e-3 --transfer none --out runs/lm
    """
    from ..results.output import Output
    from ..training.compare import compare as run
    from ..training.corpus import choose_corpus
    from ..training.devices import choose, refuse_torchrun
    from ..training.pilot import choose_rates
    from ..training.settings import preset as settings_of
    from ..training.tasks import choose_tasks
    from .progress import Screen

    refuse_torchrun()
    choose(device, dtype)
    output = Output(json)
    settings = settings_of(
        preset,
        arms=tuple(arm) if arm else None,
        seeds=tuple(range(seed, seed + (3 if seeds is None else seeds))),
        objective=objective,
        steps=steps,
        batch=batch,
        width=width,
        layers=layers,
        length=length,
        vocabulary=vocabulary,
        learning_rate=rate[0] if rate and len(rate) == 1 else None,
        transfer_examples=transfer_examples,
        whole_words=whole_words or None,
        equal_time=equal_time or None,
        dtype=dtype,
    )
    corpus = choose_corpus(text or [], hub, other or [], stream)
    tasks = choose_tasks(corpus, transfer or [], settings.transfer_examples)
    with Screen(output) as screen:
        news: Any = {"progress": screen, "show": screen.show}
        if rate and len(rate) > 1:
            pilots = range(PILOT_SEED, PILOT_SEED + pilot_seeds)
            settings = choose_rates(settings, corpus, out, rate, pilots, **news)
        results = run(settings, corpus, tasks, out, snapshots=snapshots, **news)
    output.say(f"report: {out / 'report.html'}")
    output.write_json(results)


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Folders written by compare or experiment, finished or not, or folders of single runs; or those of finetune."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for results and report; default: the first folder.")
    ] = None,
    json: Json = None,
) -> None:
    """Rebuild the table, figures and report.html from folders of runs, without training.

    Example: talking-heads report runs/compare

    Runs by other versions of packages, or on other data, are named and not averaged with the rest.

    Example: talking-heads report runs/monday runs/tuesday --out runs/both
    """
    from ..results.files import write_json
    from ..results.folders import kind_of
    from ..results.output import Output
    from ..training.cells import table_lines
    from ..training.report import rebuild

    output, out = Output(json), out or runs[0]
    if all(kind_of(folder) == "finetune" for folder in runs):
        _report_tasks(output, runs)
        return
    results: Any = rebuild(runs, out)
    output.say("\n".join(table_lines(results)))
    if results.get("experiment"):
        from ..experiments.report import direction_lines, lines, summarise

        summary = summarise(results, runs)
        write_json(out / "experiment.json", summary)
        output.say("\n".join([*lines(summary), *direction_lines([summary])]))
    output.say(f"report: {out / 'report.html'}")
    output.write_json(results)


def _report_tasks(output: Any, runs: list[Path]) -> None:
    """The table of fine-tuned models, from their folders alone."""
    from ..finetune.table import gather, table

    found = table(gather(runs))
    output.show(found)
    output.write_json(found.to_dict())
