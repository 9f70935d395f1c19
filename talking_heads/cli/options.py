"""Options that several commands have: one spelling, one type and one help text each.

tests/cli/test_options.py lists the options of all commands and holds them together.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

import typer

from ..devices import DTYPES

PARTS = ("encoder", "decoder", "cross")


def among(names: Iterable[str]) -> Callable[[str], list[str]]:
    """Shell completion from a list of names."""
    return lambda incomplete: [name for name in names if name.startswith(incomplete)]


Json = Annotated[
    Path | None, typer.Option(help="File for the results as JSON; `-` is standard output.", metavar="FILE")
]
Out = Annotated[
    Path | None, typer.Option(help="Folder for report.html, results.json and pictures.", metavar="DIR")
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything that is drawn.")]
FirstSeed = Annotated[int, typer.Option(min=0, help="The first seed.")]
Draws = Annotated[int, typer.Option(min=1, help="Bootstrap resamples of sentences.")]
Stream = Annotated[
    bool,
    typer.Option(
        "--stream", help="Learn from the rest of the data set as it comes, not only from its first 50 MB."
    ),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Use only the first N examples, sentences or trees.")]
Vocabulary = Annotated[
    int | None,
    typer.Option(
        help="Size of the vocabulary trained on the text; the smallest is bytes, the default of causal-lm."
    ),
]
Device = Annotated[
    str,
    typer.Option(
        help="cpu, cuda, cuda:N, or auto: the first GPU that torch sees, else the CPU.",
        autocompletion=among(("cpu", "cuda", "auto")),
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        help=f"{', '.join(DTYPES)}. Default: as the weights are saved.", autocompletion=among(DTYPES)
    ),
]
Model = Annotated[str, typer.Argument(help="A model's folder, a packaged model, or a name on the hub.")]
Against = Annotated[list[str] | None, typer.Option(help="Compare with another model (repeatable).")]
BaselinesOnly = Annotated[
    bool, typer.Option("--baselines-only", help="Score only the baselines, without a model.")
]
RandomModel = Annotated[bool, typer.Option(help="Also score a randomly initialised copy.")]
