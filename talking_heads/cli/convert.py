"""`talking-heads convert`: give a pretrained model talking heads, or survey the architectures."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import UserError
from ..results.output import Output
from .options import PARTS, Device, Dtype, Json, Seed, among

_DYNAMIC = ("query_logits", "memory_logits", "query_weights", "memory_weights")


def add(app: typer.Typer) -> None:
    app.command()(convert)


def convert(
    model: Annotated[
        str | None,
        typer.Argument(help="A model's folder, a packaged model, or a name on the hub."),
    ] = None,
    folder: Annotated[
        Path | None, typer.Argument(help="Folder to write (new or empty), or --out.", metavar="OUT")
    ] = None,
    logits_mix: Annotated[bool, typer.Option(help="Learn the map before the softmax.")] = True,
    weights_mix: Annotated[bool, typer.Option(help="Learn the map after the softmax.")] = True,
    init: Annotated[
        str,
        typer.Option(
            help="identity (outputs unchanged) or random.", autocompletion=among(("identity", "random"))
        ),
    ] = "identity",
    layer: Annotated[
        list[str] | None,
        typer.Option(help="Number, label or pattern of the name of a layer (repeatable); default all."),
    ] = None,
    part: Annotated[
        list[str] | None,
        typer.Option(
            help="encoder, decoder or cross (repeatable); default all.", autocompletion=among(PARTS)
        ),
    ] = None,
    dynamic: Annotated[
        list[str] | None,
        typer.Option(
            help=f"{', '.join(_DYNAMIC)} (repeatable).",
            autocompletion=among(_DYNAMIC),
        ),
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
    merge_adapter: Annotated[
        bool,
        typer.Option(
            "--merge-adapter", help="MODEL is a LoRA adapter: merge it into the base model that it names."
        ),
    ] = False,
    survey: Annotated[
        bool, typer.Option("--survey", help="Try every architecture instead and print the table.")
    ] = False,
    device: Device = "cpu",
    dtype: Dtype = None,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Folder to write (new or empty).", metavar="DIR")] = None,
    json: Json = None,
) -> None:
    """Add maps across heads to a pretrained model's attention layers and list what changed.

    With identity maps the outputs do not change: outputs on random inputs are compared before anything is written.
    With --dtype the new folder has weights of that dtype. A survey resumes from its --json FILE.
    Load the result with talking_heads.hf.load, or with an Auto class after importing talking_heads.hf.

    Example: talking-heads convert my/bert my/talking-bert

    Example: talking-heads convert my/t5 my/talking-t5 --part decoder --layer 0 --layer 1

    Example: talking-heads convert --survey --json survey.json > architectures.md
    """
    output = Output(json)
    if survey:
        if model is not None or folder is not None or out is not None:
            raise UserError("--survey takes no model", f"{model} {folder or out or ''}", "leave it out")
        _survey(output)
        return
    if model is None or (folder is None and out is None):
        raise UserError("convert needs MODEL and OUT", model, "name a model and a new folder, or --survey")
    from ..hf.folder import convert_folder
    from ..hf.source import quiet
    from .progress import waiting
    from .show import new_folder

    out = new_folder(out, folder)
    with waiting("convert") as say, quiet():
        say("reading, converting, writing")
        done, error = convert_folder(
            model,
            out,
            architecture=architecture,
            unsafe_pickle=unsafe_pickle,
            merge_adapter=merge_adapter,
            seed=seed,
            device=device,
            dtype=dtype,
            logits_mix=logits_mix,
            weights_mix=weights_mix,
            init=init,
            layers=[int(x) if x.isdigit() else x for x in layer] if layer else None,
            kinds=part or None,
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
    from ..hf.survey.folders import folders
    from ..hf.survey.run import WRONG, resume
    from ..hf.survey.table import markdown
    from ..results.schema import read_json
    from .progress import bar

    path, names = output.path if output.is_file else None, folders()
    with bar("architectures") as progress:
        result = resume(path, lambda folder: progress(names.index(folder) + 1, len(names), folder))
    # surveys with other releases of transformers, as survey-5.24.0.json next to survey.json
    files = sorted(path.parent.glob(f"{path.stem}-*.json")) if path else []
    others = [read_json(file, {"rows": list}) for file in files]
    output.say(markdown(result, others).rstrip("\n"))
    if path is None:
        output.write_json(result)
    if any(row["verdict"] == WRONG for row in result["rows"]):
        raise typer.Exit(1)
