"""`talking-heads doctor`: what to paste into a bug report."""

import typer

from .options import Json


def add(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(json: Json = None) -> None:
    """What is installed, which backend runs typical calls, and why the faster ones do not.

    Versions, the compiled kernel and its instruction set, GPUs, missing extras: paste the output into a bug report.

    Example: talking-heads doctor --json doctor.json
    """
    from ..doctor import examine, lines
    from ..results.output import Output

    output = Output(json)
    found = examine()
    for line in lines(found):
        output.say(line)
    output.write_json(found)
