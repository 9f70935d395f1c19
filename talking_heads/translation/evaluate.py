"""A trained model on a test set."""

import warnings
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..results.provenance import provenance
from ..results.schema import read_json
from ..training.devices import device
from .model import load_average
from .parallel import read_lines, refuse_swapped
from .score import scores
from .search import Progress, count_cut, translate
from .train import RESULT, kept_weights


def open_translator(folder: Path, checkpoint: str = "model") -> tuple[Any, Any]:
    """(model, tokenizer) of a training run's folder, or of a folder that holds an encoder-decoder.

    Args:
        checkpoint: "model", or the update of weights that the run has kept.

    Raises:
        UserError: no model there, an unknown checkpoint.
    """
    from ..heads.models import open_model

    if not folder.is_dir():
        raise UserError("a model must be a folder that `translate train` wrote", folder, "check its name")
    inner = folder / "model"
    if (folder / "run.json").exists() and not inner.exists():
        raise UserError(
            "a run must be finished", f"one without a model in {folder}", "rerun its `translate train`"
        )
    model, tokenizer = open_model(inner if inner.exists() else folder, device=device())
    if not getattr(model.config, "is_encoder_decoder", False) or not model.can_generate():
        raise UserError(
            "a translation model must be an encoder-decoder", type(model).__name__, "name another folder"
        )
    if checkpoint != "model":
        kept = {path.parent.name: path for path in kept_weights(folder)}
        if checkpoint not in kept:
            raise UserError(
                f"a checkpoint must be one of {', '.join(['model', *kept])}",
                repr(checkpoint),
                "name one of them",
            )
        load_average(model, [kept[checkpoint]])
    return model, tokenizer


def evaluate(
    folder: Path,
    source: Path,
    reference: Path | None,
    *,
    checkpoint: str = "model",
    beam: int = 5,
    length_penalty: float = 1.0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Scores (without `reference` none), signatures and translations of every line of `source`.

    Pairs with an empty side are left out of the scores, with a warning that counts them.

    Raises:
        UserError: files that do not fit each other or the model, see `parallel`.
    """
    lines = read_lines(source)
    references = None if reference is None else read_lines(reference)
    if references is not None and reference is not None:
        _check(source, lines, reference, references)
    model, tokenizer = open_translator(folder, checkpoint)
    run = folder / "run.json"
    if run.exists():
        words = read_json(run, {"words": {"source": [str], "target": [str]}})["words"]
        refuse_swapped(lines, references, words, str(source))
    found, cut = translate_lines(
        model, tokenizer, lines, str(source), beam=beam, length_penalty=length_penalty, progress=progress
    )
    result: dict[str, Any] = {"model": str(folder), "run": about(folder), "checkpoint": checkpoint}
    result |= {"source": str(source), "cut": cut}
    result |= {"beam": beam, "length_penalty": length_penalty}
    if references is not None:
        pairs = [(a, b) for a, b, line in zip(found, references, lines, strict=True) if line and b]
        empty = len(lines) - len(pairs)
        if empty:
            warnings.warn(
                f"{source}: {empty} of {len(lines)} pairs have an empty side and were dropped", stacklevel=2
            )
        result |= {"reference": str(reference), "dropped": {"empty": empty}}
        result |= scores([a for a, _ in pairs], [b for _, b in pairs])
    return result | {"translations": found} | provenance(device())


def translate_lines(
    model: Any, tokenizer: Any, lines: list[str], name: str, **options: Any
) -> tuple[list[str], int]:
    """(a translation of each line, how many lines were too long for the model); the latter with a warning."""
    cut = count_cut(model, tokenizer, lines)
    if cut:
        warnings.warn(f"{name}: {cut} lines are too long for the model and were cut", stacklevel=2)
    return translate(model, tokenizer, lines, **options), cut


def _check(source: Path, lines: list[str], reference: Path, references: list[str]) -> None:
    if len(lines) != len(references):
        raise UserError(
            "source and reference must have the same number of lines",
            f"{len(lines)} in {source} and {len(references)} in {reference}",
            "give files whose lines are translations of each other",
        )
    if lines == references:
        raise UserError(
            "source and reference must differ", f"the same {len(lines)} lines in {source} and {reference}",
            "name the other language's file",
        )  # fmt: skip
    if not any(a and b for a, b in zip(lines, references, strict=True)):
        raise UserError(
            "a test set must have pairs of sentences", f"none in {source}, {reference}", "give other files"
        )


def about(folder: Path) -> dict[str, Any]:
    """What distinguishes a run: arm, head mask, seed, target tokens; empty for a model of other origin."""
    path = folder / "result.json"
    if not path.exists():
        return {}
    held = read_json(path, RESULT)
    settings = held["settings"]
    return {name: settings.get(name) for name in ("arm", "head_mask", "seed")} | {
        "updates": held["updates"],
        "target_tokens": held.get("target_tokens"),
    }
