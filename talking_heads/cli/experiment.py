"""`talking-heads experiment`: one of the paper's tables, at any scale."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from .options import Dtype, FirstSeed, Json, Stream, Vocabulary


def add(app: typer.Typer) -> None:
    app.command()(experiment)


def experiment(
    name: Annotated[
        str,
        typer.Argument(help="heads, counts, maps, where, dynamic, bilinear, bert, albert or causal."),
    ],
    scale: Annotated[
        str, typer.Option(help="tiny (two cores, hours), small (one GPU) or base (the paper's; a cluster).")
    ] = "tiny",
    seeds: Annotated[int, typer.Option(help="Number of seeds, from --seed on.")] = 3,
    seed: FirstSeed = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the runs; default runs/NAME-SCALE. The same command continues there."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print arms, parameters, multiplications and minutes; train nothing."),
    ] = False,
    json: Json = None,
    jobs: Annotated[
        int, typer.Option(min=1, help="Arms to train side by side, each in a process of its own.")
    ] = 1,
    text: Annotated[
        list[Path] | None, typer.Option(help="Text files to learn from (UTF-8, gzip allowed), repeatable.")
    ] = None,
    hub: Annotated[
        str | None,
        typer.Option(help="A data set by name[:config] or local folder, for example allenai/c4:en."),
    ] = None,
    stream: Stream = False,
    transfer: Annotated[
        list[str] | None,
        typer.Option(help="Task to learn after pre-training, as for compare (repeatable); none by default."),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(help="Then fine-tune each model on this task, as `finetune` does (repeatable)."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Folder of the tasks' files, or a data set on the hub, as for finetune."),
    ] = None,
    arm: Annotated[
        list[str] | None, typer.Option(help="Train only these arms of the experiment (repeatable).")
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            help="Train the arms by another objective than the table's: span-corruption, masked-lm, "
            "sentence-order or causal-lm."
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Pre-training steps, in place of the scale's.")] = None,
    batch: Annotated[int | None, typer.Option(help="Examples in each step.")] = None,
    width: Annotated[int | None, typer.Option(help="Width of the model.")] = None,
    layers: Annotated[int | None, typer.Option(help="Layers (of encoder and of decoder).")] = None,
    length: Annotated[int | None, typer.Option(help="Tokens in each block.")] = None,
    vocabulary: Vocabulary = None,
    rate: Annotated[float | None, typer.Option(help="Peak rate, the same for every arm.")] = None,
    whole_words: Annotated[
        bool, typer.Option("--whole-words", help="Mask whole words (bert and albert).")
    ] = False,
    accumulation: Annotated[
        int, typer.Option(min=1, help="Parts in which a step's batch is read, one after another.")
    ] = 1,
    fsdp: Annotated[
        bool,
        typer.Option(
            "--fsdp", help="Under torchrun: divide parameters and optimizer (FSDP2) in place of DDP."
        ),
    ] = False,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Recompute layers in the backward pass: less memory.")
    ] = False,
    dtype: Dtype = None,
    compiled: Annotated[bool, typer.Option("--compile", help="Train by torch.compile.")] = False,
    report_to: Annotated[
        list[str] | None,
        typer.Option(help="Tracker: tensorboard, wandb or another that Trainer knows (repeatable)."),
    ] = None,
    gpus: Annotated[
        int | None,
        typer.Option(min=1, help="With --dry-run: number of GPUs to estimate for; default 8 for base."),
    ] = None,
    tflops: Annotated[
        float, typer.Option(help="With --dry-run: assumed speed of a GPU in training, TFLOP/s.")
    ] = 150.0,
) -> None:
    """Repeat one of the paper's tables: train its arms, seed by seed, next to their floors.

    Writes what `talking-heads compare` writes; a killed run goes on where it stopped, with the same figures.

    Example: talking-heads experiment heads --scale base --dry-run

    Example: talking-heads experiment causal --scale tiny --seeds 3 --jobs 2 --out runs/causal

    Example: talking-heads experiment heads --scale small --task sst2 --task rte --data glue_data

    Example: torchrun --nproc-per-node 8 -m talking_heads experiment heads --scale base --hub allenai/c4:en --stream
    """
    from ..errors import UserError
    from ..experiments import plan as planning
    from ..experiments.scales import settings_of
    from ..experiments.start import Start
    from ..experiments.tables import find
    from ..results.output import Output
    from ..training import devices, together
    from ..training.hardware import Hardware
    from .progress import Screen

    output = Output(json)
    found = find(name)
    chosen = _chosen(found.arms_at(scale) if scale in ("tiny", "small", "base") else (), arm or [])
    settings = settings_of(
        replace(found, objective=objective or found.objective),
        scale,
        range(seed, seed + seeds),
        arms=chosen or None,
        steps=steps,
        batch=batch,
        width=width,
        layers=layers,
        length=length,
        vocabulary=vocabulary,
        learning_rate=rate,
        whole_words=whole_words or None,
        dtype=dtype,
    )
    if dry_run:
        if not 0 < tflops < float("inf"):
            raise UserError("--tflops must be more than 0", tflops, "give for example 150")
        devices.choose(dtype=dtype)
        on_gpus = gpus or (planning.GPUS if scale == "base" else None)
        machine = planning.gpus(on_gpus, tflops * 1e12) if on_gpus else planning.this_machine()
        plan = planning.plan(found, settings, scale, machine)
        output.show(planning.table(plan))
        output.say("\n".join(planning.lines(plan)))
        output.write_json(plan)
        return
    start = Start(
        name,
        scale,
        settings,
        out or Path("runs") / f"{name}-{scale}",
        tuple(text or ()),
        hub,
        tuple(transfer or ("none",)),
        Hardware(accumulation, fsdp, checkpointing, compiled, tuple(report_to or ())),
        stream,
        tuple(task or ()),
        data,
    )
    if not together.leads():
        start.run(jobs)
        return
    with Screen(output) as screen:
        results = start.run(jobs, progress=screen, show=screen.show)
    output.say(f"report: {start.out / 'report.html'}")
    output.write_json(results)


def _chosen(arms: tuple[str, ...], asked: list[str]) -> tuple[str, ...]:
    """The arms asked for, which must be the experiment's."""
    from ..errors import UserError
    from ..training.arms import parse_arm

    known = {parse_arm(x).name: x for x in arms}
    names = [parse_arm(x).name for x in asked]
    strange = [x for x in names if x not in known]
    if known and strange:
        raise UserError(
            f"--arm must name arms of the experiment ({', '.join(known)})", strange[0], "name one of them"
        )
    return tuple(names)
