"""The command line's application: one module for each command (or family of commands), each with `add(app)`."""

import importlib
from typing import Annotated

import typer

from ..errors import UserError
from ..reading import text

VERBS = ("compare", "recall", "bench", "convert", "grammar", "importance", "maps", "dynamics", "translate")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Attention whose heads exchange information: compare, convert, measure, look inside.",
)


@app.callback()
def options(
    max_text_gib: Annotated[
        float, typer.Option(help="The most text that a file may hold, once inflated.")
    ] = 1.0,
) -> None:
    """Attention whose heads exchange information: compare, convert, measure, look inside."""
    if not 0 < max_text_gib < float("inf"):
        raise UserError("--max-text-gib must be more than 0", max_text_gib, "pass a number of GiB")
    text.limit = int(max_text_gib * 2**30)


for verb in VERBS:
    importlib.import_module(f".{verb}", __package__).add(app)
