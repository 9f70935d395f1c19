"""The survey of gates: on every architecture, whether a gate acts between the heads and the output projection.

    python -m talking_heads.hf.survey.gates docs/results/gates.json > docs/gates.md

In each attention class of a toy model, a gate of 0 on a head is compared with zeros in that head's columns of the
output projection, and with zeros where that head is made.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...anatomy.inputs import inputs
from ...anatomy.layers import Layer, find
from ...anatomy.projections import Projections, projections
from ...anatomy.reach import gate_output
from ...anatomy.registry import wrap
from ...errors import UserError
from ...results.files import write_json
from ...results.provenance import provenance
from . import exceptions
from .check import run
from .folders import attentions, folders, models
from .run import build

PROVEN, REFUSED, WRONG, NOT_RUN = "proven", "refused", "wrong", "not run"
_SAME = 1e-9


def examine(folder: str) -> dict[str, Any]:
    """One architecture's row: {attention class: verdict or reason} of the classes that ran, and why the others did not."""
    found: dict[str, str] = {}
    tried: dict[str, str] = {}
    for kind in models(folder):
        for variant in exceptions.variants(kind.__name__):
            if all(found.get(name) == PROVEN for name in attentions(folder)):
                break
            try:
                model = build(kind, variant)
                given = inputs(model, variant)
                plain = run(model, given, gradients=False)
            except Exception as problem:  # whatever a model class raises of a toy config
                tried.setdefault(
                    kind.__name__, " ".join(f"{type(problem).__name__}: {problem}".split())[:150]
                )
                continue
            for layer in find(model)[0]:
                name = type(layer.module).__name__
                if found.get(name, REFUSED) == REFUSED and (verdict := _judge(model, layer, given, plain)):
                    found[name] = verdict
    why = next(iter(f"{kind}: {problem}" for kind, problem in tried.items()), "no toy model runs it")
    missing = dict.fromkeys(sorted(attentions(folder) - set(found)), why)
    return {"folder": folder, "classes": dict(sorted(found.items())), "not run": missing}


def _judge(model: Any, layer: Layer, given: dict[str, Any], plain: dict[str, Tensor]) -> str | None:
    """The verdict on a layer; None: it did not run, or adds nothing."""
    known = projections(model, layer.name, layer.output_heads)
    gate = torch.ones(layer.output_heads, dtype=torch.float64)
    others = list(
        _others(model, layer, known)
    )  # views of the parameters, before a gate stands in front of one
    try:
        remove = gate_output(layer, known, lambda: gate)
    except UserError as refusal:
        return f"{REFUSED}: {str(refusal).partition('; got ')[2]}"
    try:
        if _differ(run(model, given, gradients=False), plain) > _SAME:
            return f"{WRONG}: a gate of 1 changes outputs"
        for heads, what, same in others:
            gate[:] = 1
            gate[heads] = 0
            gated = run(model, given, gradients=False)
            gate[:] = 1
            with same:
                wanted = run(model, given, gradients=False)
            if _differ(gated, plain) < _SAME:
                return None
            if _differ(gated, wanted) > _SAME:
                return f"{WRONG}: {what} differ"
    except UserError as refusal:
        return f"{REFUSED}: {str(refusal).partition('; got ')[2]}"
    finally:
        remove()
    return PROVEN


def _others(model: Any, layer: Layer, known: Projections) -> Iterator[tuple[list[int], str, Any]]:
    """(heads to gate, other things that do the same when they are zero, a context in which they are).

    Where layers share their output projection (DiffusionGemma's encoder and decoder) zeros in it are another thing.
    """
    if known.output is None:
        return
    shares = _owners(model, known.output.head(0)) > 1
    last = layer.output_heads - 1
    for head in {0, last}:
        if not shares:
            yield [head], "columns", _zeros([known.output.head(head)])
        if layer.kind == "registry":
            yield [head], "heads", _silent(layer, head)
    if known.value is not None and layer.kind != "registry":
        shared = known.output.heads // known.value.heads
        weight, bias = known.value.head(last // shared)
        zeros = [weight, *([] if bias is None else [bias])]
        yield list(range(last // shared * shared, last + 1)), "values", _zeros(zeros)


def _owners(model: Any, view: Tensor) -> int:
    """How many modules have the parameter that this is a part of."""
    place = view.untyped_storage().data_ptr()
    return sum(
        any(x.untyped_storage().data_ptr() == place for x in module.parameters(recurse=False))
        for module in model.modules()
    )


@contextmanager
def _silent(layer: Layer, head: int) -> Iterator[None]:
    """Zeros for what the attention function gives of a head."""

    def wrapper(function: Any, module: Any, *args: Any, **options: Any) -> Any:
        output, weights = function(module, *args, **options)[:2]
        output = output.clone()
        output[:, :, head] = 0
        return output, weights

    remove = wrap(layer.module, wrapper)
    try:
        yield
    finally:
        remove()


@contextmanager
def _zeros(views: list[Tensor]) -> Iterator[None]:
    kept = [x.detach().clone() for x in views]
    with torch.no_grad():
        for x in views:
            x.zero_()
    try:
        yield
    finally:
        with torch.no_grad():
            for x, before in zip(views, kept, strict=True):
                x.copy_(before)


def _differ(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Largest difference, relative to the largest element."""
    pairs = [(x.nan_to_num(0, 0, 0), other[name].nan_to_num(0, 0, 0)) for name, x in one.items() if x.numel()]
    return max(((x - y).abs().max() / y.abs().max().clamp(min=1e-30)).item() for x, y in pairs)


def resume(path: Path | None, progress: Callable[[str], None] = lambda folder: None) -> dict[str, Any]:
    """{"provenance", "rows"} of all architectures; what `path` holds from the same versions is not redone."""
    about = provenance()
    old = json.loads(path.read_text()) if path is not None and path.exists() else {}
    same = old.get("provenance", {}).get("versions") == about["versions"]
    rows = {row["folder"]: row for row in old.get("rows", ())} if same else {}
    for folder in folders():
        progress(folder)
        if folder not in rows:
            rows[folder] = examine(folder) | {"commit": about["commit"]}
            if path is not None:
                write_json(path, {"provenance": about, "rows": [rows[x] for x in sorted(rows)]})
    return {"provenance": about, "rows": [rows[x] for x in sorted(rows)]}


def markdown(result: dict[str, Any]) -> str:
    """The page of the survey's result."""
    rows, about = result["rows"], result["provenance"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    counts = Counter(row["commit"] for row in rows)
    commits = ", ".join(f"{commit} {count}" for commit, count in counts.most_common())
    verdicts = [verdict.partition(":")[0] for row in rows for verdict in row["classes"].values()]
    lines = [
        "# Gates on heads, by architecture",
        "",
        "Generated by `python -m talking_heads.hf.survey.gates docs/results/gates.json > docs/gates.md`.",
        "",
        "Toy models of every folder of `docs/architectures.md`, random parameters, float64. In each attention class a",
        "gate of 0 on the first and on the last head is compared with zeros in that head's columns of the output",
        "projection, and with zeros for what the attention function gives of that head or, in a layer with code of its",
        f"own, with zeros in the head's rows of the value projection: every float output to {_SAME:.0e} of its largest.",
        "A gate of 1 must change nothing. Where the head's place is not known `gates` and `mask` raise. Not run: classes of",
        "which no toy model or inputs were found that run; the first reason is given.",
        "",
        f"{versions}; {about['machine']['processor']}; commits, with the number of folders examined at each: {commits}.",
        "",
        "| verdict | attention classes |",
        "|---|---:|",
        *(f"| {verdict} | {verdicts.count(verdict)} |" for verdict in (PROVEN, REFUSED, WRONG)),
        f"| {NOT_RUN} | {sum(len(row['not run']) for row in rows)} |",
        "",
        "| folder | proven | the rest |",
        "|---|---|---|",
    ]
    for row in rows:
        proven = ", ".join(name for name, verdict in row["classes"].items() if verdict == PROVEN)
        rest = [f"{name}: {x.partition('; mask')[0]}" for name, x in row["classes"].items() if x != PROVEN]
        rest += [f"{name}: {NOT_RUN}, {why}" for name, why in row["not run"].items()]
        lines.append(f"| {row['folder']} | {proven} | {'; '.join(rest).replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(markdown(resume(Path(sys.argv[1]), lambda folder: print(folder, file=sys.stderr))), end="")
