"""The experiment that the command line's options select."""

from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import UserError, one_of
from . import mixing, synthetic, transformer
from . import text as real_text
from .mixing import Mixing
from .model import CLASSIFIERS
from .runs import Progress, Results
from .synthetic import FULL, Synthetic
from .text import OnText

Run = Callable[[Path, Progress], Results]  # into this folder


def choose(
    *,
    text: Path | None = None,
    dev: Path | None = None,
    test: Path | None = None,
    models: Path | None = None,
    seed: int = 0,
    seeds: int | None = None,
    full: bool = False,
    **given: Any,
) -> Run:
    """The experiment, ready to run. full: every seed, classifier and start of the synthetic experiments.

    given: fields of its settings; those that are None keep their default.

    Raises:
        UserError: options of another experiment, or values out of range.
    """
    asked = [
        name for name, x in (("--heads", given["heads"]), ("--text", text), ("--transformer", models)) if x
    ]
    if len(asked) > 1:
        raise UserError("one experiment at a time", " and ".join(asked), "keep only one of them")
    if (dev or test) and not text:
        raise UserError("--dev and --test go with --text", "no --text", "name the text to train on")
    if full and asked:
        raise UserError("--full is for the synthetic experiments", f"it with {asked[0]}", "leave it out")
    if models:
        _refuse("--transformer", {**given, "seeds": seeds}, set())
        return lambda out, progress: transformer.run(models, out, progress=progress)
    kind: Any = Mixing if given["heads"] else OnText if text else Synthetic
    _refuse(asked[0] if asked else "the synthetic experiments", given, {field.name for field in fields(kind)})
    _check(given, seeds)
    changes = {name: x for name, x in given.items() if x is not None}
    default: Any = FULL if full else kind()
    count = len(default.seeds) if seeds is None else seeds
    settings: Any = replace(default, **changes, seeds=tuple(range(seed, seed + count)))
    if text:
        return lambda out, progress: real_text.run(settings, text, dev, test, out, progress)
    return partial(mixing.run if kind is Mixing else synthetic.run, settings)


def _refuse(experiment: str, given: dict[str, Any], known: set[str]) -> None:
    names = {"classifiers": "classifier"}
    other = [f"--{names.get(name, name)}" for name, x in given.items() if x is not None and name not in known]
    if other:
        raise UserError(f"options must be those of {experiment}", ", ".join(other), "leave them out")


def _check(given: dict[str, Any], seeds: int | None) -> None:
    for name, least in (("epochs", 1), ("starts", 0), ("heads", 2)):
        if given[name] is not None and given[name] < least:
            raise UserError(f"--{name} must be at least {least}", given[name], "give a larger number")
    if given["rate"] is not None and not given["rate"] > 0:
        raise UserError("--rate must be more than 0", given["rate"], "give for example 0.1")
    if seeds is not None and seeds < 1:
        raise UserError("--seeds must be at least 1", seeds, "give a larger number")
    for name in given["classifiers"] or ():
        if name not in CLASSIFIERS:
            raise one_of("a classifier", name, CLASSIFIERS)
