"""The survey: every architecture built at toy size, converted, compared."""

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from ...anatomy.inputs import inputs
from ...errors import UserError
from ...results.files import write_json
from ...results.provenance import provenance
from . import exceptions
from .check import check, run, stir
from .folders import attentions, folders, models
from .toy import toy

EQUAL, PARTLY, REFUSED, NOT_BUILT, WRONG = "equal", "partly equal", "refused", "not built", "wrong"


def examine(folder: str) -> dict[str, Any]:
    """One architecture's row: verdict, why, and what became of each attention class.

    The folder's model classes are built one after another until each of its attention classes has run.
    """
    waiting = attentions(folder)
    row: dict[str, Any] = {
        "folder": folder,
        "equal": {},
        "refused": {},
        "wrong": {},
        "not built": {},
        "error": 0.0,
    }
    for kind in models(folder):
        for variant in exceptions.variants(kind.__name__):
            if not waiting - set(row["equal"]):
                break
            _try(row, kind, variant)
    tried = "; ".join(f"{kind}: {problem}" for kind, problem in list(row.pop("tried", {}).items())[:2])
    for name in sorted(waiting - set(row["equal"]) - set(row["refused"])):
        row["not built"][name] = tried or "no model class with it ran"
    return row | {"verdict": _verdict(row)}


def _try(row: dict[str, Any], kind: Any, variant: dict[str, Any]) -> None:
    name = kind.__name__
    try:
        model = build(kind, variant)
        given = inputs(model, variant)
        run(model, given)
    except Exception as problem:  # whatever a model class raises of a toy config says: not built
        row.setdefault("tried", {})[name] = " ".join(f"{type(problem).__name__}: {problem}".split())[:150]
        return
    parts = {n: type(m).__name__ for n, m in model.named_modules()}
    try:
        outcome = check(lambda: build(kind, variant), given)
    except UserError as refusal:
        row.setdefault("tried", {})[name] = str(refusal)[:300]
        for part in set(parts.values()) & attentions(row["folder"]):
            row["refused"][part] = str(refusal)[:300]
        return
    row["error"] = max(row["error"], outcome.error)
    if outcome.wrong:
        row["wrong"][name] = outcome.wrong[:3]
    else:
        row["equal"] |= {parts[n]: name for n in outcome.ran if parts[n] not in row["equal"]}


def build(kind: Any, variant: dict[str, Any]) -> Any:
    """A toy model of the class, float64, in evaluation mode."""
    level = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        torch.manual_seed(0)
        config = kind.config_class if inspect.isclass(kind.config_class) else kind.config_class.__args__[0]
        model = kind(toy(config, variant.get("config"))).double().eval()
        model.set_experts_implementation("eager")
        stir(model)
    finally:
        logging.set_verbosity(level)
    return model


def _verdict(row: dict[str, Any]) -> str:
    if row["wrong"]:
        return WRONG
    if row["equal"]:
        return EQUAL if not row["refused"] and not row["not built"] else PARTLY
    return REFUSED if row["refused"] else NOT_BUILT


def resume(path: Path | None, progress: Callable[[str], None] = lambda folder: None) -> dict[str, Any]:
    """{"provenance", "rows"} of all architectures; what `path` holds from the same versions is not redone.

    path: JSON written after each row. progress: called with each folder's name.
    """
    about = provenance()
    old = json.loads(path.read_text()) if path is not None and path.exists() else {}
    rows = {row["folder"]: row for row in old.get("rows", ())} if old.get("provenance") == about else {}
    result: dict[str, Any] = {"provenance": about, "rows": list(rows.values())}
    for folder in folders():
        if folder not in rows:
            result["rows"].append(examine(folder))
            if path is not None:
                write_json(path, result)
        progress(folder)
    result["rows"].sort(key=lambda row: row["folder"])
    return result
