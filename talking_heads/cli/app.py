"""The command line's application: one module for each command (or family of commands), each with `add(app)`."""

import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from .. import __version__
from ..errors import UserError
from . import volume

VERBS = (
    "demo",
    "compare",
    "experiment",
    "finetune",
    "recall",
    "bench",
    "convert",
    "grammar",
    "importance",
    "maps",
    "dynamics",
    "translate",
    "doctor",
)

_COLUMNS = {"--text": "--text-column", "--pair": "--pair-column", "--label": "--label-column"}
# Earlier spellings of options, still taken; --help shows the present ones only.
FORMER = {
    "compare": {"--learning-rate": "--rate"},
    "experiment": {"--learning-rate": "--rate"},
    "finetune": {"--learning-rate": "--rate"},
    "convert": {"--layers": "--layer", "--kinds": "--part"},
    "importance": _COLUMNS,
    "ablate": _COLUMNS,
    "prune": _COLUMNS,
}

EXIT_CODES = """Exit codes: 0 done; 1 a check found something wrong, the output was closed early, or the program has
a fault; 2 what was asked cannot be done (one line says why); 130 interrupted; 143 terminated."""

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Attention whose heads exchange information: compare, convert, measure, look inside.",
    epilog=EXIT_CODES,
)

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show results and errors only, no progress.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log details to standard error.")]


def _version(asked: bool) -> None:
    if asked:
        print(f"talking-heads {__version__}")
        raise typer.Exit


@app.callback()
def options(
    max_text_gib: Annotated[
        float, typer.Option(help="The most text that a file may hold, once inflated.")
    ] = 1.0,
    quiet: Quiet = False,
    verbose: Verbose = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Attention whose heads exchange information: compare, convert, measure, look inside."""
    from ..reading import text

    volume.louder_or_quieter(quiet, verbose)
    if not 0 < max_text_gib < float("inf"):
        raise UserError("--max-text-gib must be more than 0", max_text_gib, "pass a number of GiB")
    text.limit = int(max_text_gib * 2**30)


class Command(TyperCommand):
    """A command that takes the earlier spellings of its options, too."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        former = FORMER.get(self.name or "", {})
        end = args.index("--") if "--" in args else len(args)
        for place, word in enumerate(args[:end]):
            name, equals, value = word.partition("=")
            if name in former:
                args[place] = former[name] + equals + value
        return super().parse_args(ctx, args)


def _with_volume(function: Callable[..., Any]) -> Callable[..., Any]:
    """The command with -q and -v, which it may have before or after its name."""
    signature = inspect.signature(function, eval_str=True)
    more = {"quiet": Quiet, "verbose": Verbose}

    @functools.wraps(function)
    def run(*, quiet: bool, verbose: bool, **given: Any) -> Any:
        volume.louder_or_quieter(quiet, verbose)
        return function(**given)

    parameters = [
        *signature.parameters.values(),
        *(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
            for name, kind in more.items()
        ),
    ]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {x.name: x.annotation for x in parameters}
    return run


for verb in VERBS:
    importlib.import_module(f".{verb}", __package__).add(app)
for command in [
    *app.registered_commands,
    *(
        x
        for group in app.registered_groups
        if group.typer_instance
        for x in group.typer_instance.registered_commands
    ),
]:
    assert command.callback is not None
    command.cls, command.callback = Command, _with_volume(command.callback)
