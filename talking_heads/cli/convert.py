"""`talking-heads convert`: give a pretrained model talking heads, or survey the architectures."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import UserError
from ..results.output import Output


def add(app: typer.Typer) -> None:
    app.command()(convert)


def convert(
    model: Annotated[
        str | None,
        typer.Argument(help="A folder with a transformers model, a packaged model, or a name on the hub."),
    ] = None,
    out: Annotated[Path | None, typer.Argument(help="Folder to write (new or empty).")] = None,
    logits_mix: Annotated[bool, typer.Option(help="Learn the map before the softmax.")] = True,
    weights_mix: Annotated[bool, typer.Option(help="Learn the map after the softmax.")] = True,
    init: Annotated[str, typer.Option(help="identity (outputs unchanged) or random.")] = "identity",
    layers: Annotated[
        list[str] | None,
        typer.Option(help="Number of a layer or pattern of its name (repeatable); default all."),
    ] = None,
    kinds: Annotated[
        list[str] | None, typer.Option(help="encoder, decoder or cross (repeatable); default all.")
    ] = None,
    dynamic: Annotated[
        list[str] | None,
        typer.Option(help="query_logits, memory_logits, query_weights or memory_weights (repeatable)."),
    ] = None,
    num_heads: Annotated[int | None, typer.Option(help="Softmax heads; default: the layer's.")] = None,
    num_key_heads: Annotated[int | None, typer.Option(help="Key heads, a multiple of the layer's.")] = None,
    num_value_heads: Annotated[
        int | None, typer.Option(help="Value heads, a multiple of the layer's.")
    ] = None,
    bilinear: Annotated[bool, typer.Option("--bilinear", help="T5: general bilinear attention.")] = False,
    architecture: Annotated[
        str | None, typer.Option(help="transformers' class to read the weights with; default the config's.")
    ] = None,
    unsafe_pickle: Annotated[
        bool,
        typer.Option(
            "--unsafe-pickle", help="Read weights from a pickle (tensors only), from a maker you trust."
        ),
    ] = False,
    survey: Annotated[
        bool, typer.Option("--survey", help="Try every architecture instead and print the table.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of random maps.")] = 0,
    json: Annotated[
        Path | None, typer.Option(help="Also write the result to this file; a survey resumes from it.")
    ] = None,
) -> None:
    """Add maps across heads to a pretrained model's attention layers and list what changed.

    With identity maps the outputs do not change: outputs on random inputs are compared before anything is written.
    Load the result with talking_heads.hf.load, or with an Auto class after importing talking_heads.hf.

    Example: talking-heads convert my/bert my/talking-bert

    Example: talking-heads convert my/t5 my/talking-t5 --kinds decoder --layers 0 --layers 1

    Example: talking-heads convert --survey --json survey.json > architectures.md
    """
    output = Output(json)
    if survey:
        if model is not None or out is not None:
            raise UserError("--survey takes no model", f"{model} {out or ''}", "leave it out")
        _survey(output)
        return
    if model is None or out is None:
        raise UserError("convert needs MODEL and OUT", model, "name a model and a new folder, or --survey")
    from rich.console import Console

    from ..hf.folder import convert_folder
    from ..hf.source import quiet

    with Console(stderr=True).status("reading, converting, writing"), quiet():
        done, error = convert_folder(
            model,
            out,
            architecture=architecture,
            unsafe_pickle=unsafe_pickle,
            seed=seed,
            logits_mix=logits_mix,
            weights_mix=weights_mix,
            init=init,
            layers=[int(x) if x.isdigit() else x for x in layers] if layers else None,
            kinds=kinds or None,
            dynamic=dynamic or (),
            num_heads=num_heads,
            num_key_heads=num_key_heads,
            num_value_heads=num_value_heads,
            bilinear=bilinear,
        )
    output.say(done)
    if error is not None:
        output.say(f"outputs on random inputs differ from before by {error:.1g} of the largest")
    elif init == "identity":
        output.say("outputs were not compared: this model's inputs are of no kind that is known here")
    output.say(f"written: {out}")
    output.write_json(
        {"converted": done.converted, "left": done.left, "files": done.files, "difference": error}
    )


def _survey(output: Output) -> None:
    from rich.console import Console
    from rich.progress import Progress

    from ..hf.survey.folders import folders
    from ..hf.survey.run import WRONG, resume
    from ..hf.survey.table import markdown

    with Progress(console=Console(stderr=True)) as bars:
        task = bars.add_task("architectures", total=len(folders()))
        path = output.path if output.is_file else None
        result = resume(path, lambda folder: bars.update(task, advance=1, description=folder))
    output.say(markdown(result).rstrip("\n"))
    if path is None:
        output.write_json(result)
    if any(row["verdict"] == WRONG for row in result["rows"]):
        raise typer.Exit(1)
