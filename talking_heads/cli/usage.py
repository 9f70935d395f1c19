"""What a user mistyped, in one line: the parser's exceptions as UserErrors."""

import re
import sys
from typing import Any

from ..errors import UserError, did_you_mean


def told(problem: Any) -> UserError:
    """A parser's exception (click's or typer's own copy of it) as a UserError.

    Such exceptions are known by their attributes, as typer's versions differ in where the classes are.
    """
    context = getattr(problem, "ctx", None)
    path = context.command_path if context is not None else "talking-heads"
    see = f"see `{path} --help`"
    message = " ".join(problem.format_message().split())
    if hasattr(problem, "possibilities") and hasattr(problem, "option_name"):
        todo = did_you_mean(problem.option_name, _options(context), see)
        return UserError(f"options must be those of `{path}`", problem.option_name, todo)
    if message.startswith("No such command") and context is not None:
        came = re.findall(r"'([^']*)'", message)[0]
        names = list(context.command.commands)
        todo = did_you_mean(came, names, see)
        return UserError(f"a command must be one of {', '.join(names)}", came, todo)
    parameter = getattr(problem, "param", None)
    if parameter is None:
        came = message.rstrip(".").removeprefix("Got ")
        return UserError(f"the command line must be as `{path} --help` says", came, see)
    name = parameter.opts[0] if parameter.param_type_name == "option" else _shown(parameter)
    if type(problem).__name__ == "MissingParameter":
        return UserError(f"`{path}` needs {name}", "none", see)
    return UserError(
        f"{name} must be {_kind(parameter)}", _given(parameter) or problem.message.rstrip("."), see
    )


def _given(parameter: Any) -> str | None:
    """The last value of an option on the command line; not every version of the parser says which it refuses."""
    words = [
        part for word in sys.argv[1:] for part in (word.split("=", 1) if word.startswith("--") else [word])
    ]
    places = [place for place, word in enumerate(words[:-1]) if word in parameter.opts]
    return repr(words[places[-1] + 1]) if places else None


def _options(context: Any) -> list[str]:
    """Every option of a command, -h and --help too."""
    parameters = context.command.params if context is not None else []
    found = [x for p in parameters if p.param_type_name == "option" for x in (*p.opts, *p.secondary_opts)]
    return [*found, "--help"]


def _shown(parameter: Any) -> str:
    return str(getattr(parameter, "metavar", None) or parameter.name.upper())


def _kind(parameter: Any) -> str:
    """What values of a parameter are, in words."""
    name = parameter.bare_type() if hasattr(parameter, "bare_type") else parameter.type.name
    name = re.sub(r"^list\[(.*)\]$", r"\1", str(name)).partition(" ")[0]
    kind = {"int": "a whole number", "integer": "a whole number", "float": "a number"}.get(name, "valid")
    bounds = parameter if hasattr(parameter, "min") else parameter.type
    limits = [
        f"{word} {value}"
        for word, value in (
            ("at least", getattr(bounds, "min", None)),
            ("at most", getattr(bounds, "max", None)),
        )
        if value is not None
    ]
    return " ".join([kind, *limits[:1], *(f"and {x}" for x in limits[1:])])
