"""`talking-heads finetune`: any transformers model on GLUE, COPA or SQuAD."""

from pathlib import Path
from typing import Annotated

import typer

from .options import Json, Limit, Seed


def add(app: typer.Typer) -> None:
    app.command()(finetune)


def finetune(
    model: Annotated[
        str, typer.Argument(help="Model to fine-tune, converted or not: its folder or its name on the hub.")
    ],
    task: Annotated[
        str,
        typer.Argument(
            help="sst2, cola, mrpc, stsb, rte, wnli, qnli, qqp, mnli, mnlimm (mismatched), copa, squad (1.1) or squad2 (2.0)."
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(
            help="Folder of the task's files, or a data set on the hub; default the task's own on the hub."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the run; default runs/finetune/TASK. The same command continues there."
        ),
    ] = None,
    predict: Annotated[
        Path | None,
        typer.Option(
            help="Write predictions of the test split (the judged examples, where there is none) there, as GLUE takes them."
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the examples.")] = 3,
    batch: Annotated[int, typer.Option(help="Examples in each step.")] = 16,
    rate: Annotated[
        float | None, typer.Option(help="Peak rate; default 2e-5, for text to text 3e-4.")
    ] = None,
    length: Annotated[
        int | None, typer.Option(help="Tokens of an example at most; default 128, for questions 384.")
    ] = None,
    limit: Limit = None,
    seed: Seed = 0,
    report_to: Annotated[
        list[str] | None,
        typer.Option(help="Tracker: tensorboard, wandb or another that Trainer knows (repeatable)."),
    ] = None,
    json: Json = None,
) -> None:
    """Fine-tune a model on a task and score it next to what trivial methods reach.

    An encoder-decoder learns the task as text to text (T5's prompts), any other model by a head of its own.

    Example: talking-heads finetune google-bert/bert-base-uncased sst2 --data glue_data --predict SST-2.tsv

    Example: talking-heads finetune runs/heads/runs/talking-heads-8/seed-0/model rte --data glue_data --rate 5e-4
    """
    from ..finetune.run import Recipe
    from ..finetune.run import finetune as run
    from ..finetune.table import lines, table
    from ..finetune.tasks import QuestionTask, find
    from ..hf.source import config_of, local
    from ..results.output import Output
    from .progress import Screen

    output, predictions = Output(json), Output(predict, "--predict")
    found = find(task)
    translates = bool(config_of(local(model)).is_encoder_decoder)
    recipe = Recipe(
        epochs=epochs,
        batch=batch,
        learning_rate=(3e-4 if translates else 2e-5) if rate is None else rate,
        length=length if length is not None else (384 if isinstance(found, QuestionTask) else 128),
        seed=seed,
        limit=limit,
    )
    where = out or Path("runs") / "finetune" / found.name
    source = data or ":".join(x for x in found.hub if x)
    with Screen(output) as screen:
        result = run(
            model,
            found,
            source,
            where,
            recipe,
            predict=predict is not None,
            report_to=report_to or (),
            progress=screen,
        )
    output.show(table([result]))
    output.say("\n".join(lines(result)))
    if predict:
        predictions.write((where / "prediction.txt").read_text("utf-8"))
    output.write_json(result)
