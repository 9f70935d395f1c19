"""The survey of generation: every family that generates, in every mode of `modes`.

    python -m talking_heads.hf.survey.generation docs/results/generation.json >> docs/architectures.md

At identity maps a mode must give what it gives on the plain model, at random maps what the converted model gives for the
same tokens in one forward without a cache; the same with dynamic maps.
"""

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.utils import logging

from ...anatomy.inputs import inputs
from ...errors import UserError
from ...nn.mixing import CHILD, DYNAMIC
from ...results.files import write_json
from ...results.provenance import provenance
from ..convert import convert
from . import exceptions
from .check import stir
from .folders import folders, models
from .modes import MODES
from .run import build
from .table import MOST_USED

EQUAL, START, ABSENT, REFUSED, WRONG = "equal", "equal at the start", "absent", "refused", "wrong"
TOLERANCE = 1e-4  # of the largest element: models compute parts of themselves in float32
LARGEST = 20_000_000  # parameters of a toy model; more are left out
DRAWS = 3  # of random numbers, tried where one fails: rounding may change which positions an indexer chooses
_KINDS = ("decoder", "cross")  # what generates; encoders of pictures and sounds stay out of the dynamic maps
_SIGNS = {EQUAL: "=", START: "(=)", ABSENT: "–", REFUSED: "refused", WRONG: "WRONG"}


def examine(folder: str) -> list[dict[str, Any]]:
    """A family's rows: {"folder", "model", "static": {mode: verdict}, "dynamic": {mode: verdict}}, of the most of a
    model that generates from ids alone, and of its causal language model; none where no model does."""
    rows: list[dict[str, Any]] = []
    for kind in models(folder):
        if not kind.can_generate() or (rows and not kind.__name__.endswith("ForCausalLM")):
            continue
        for variant in exceptions.variants(kind.__name__):
            try:
                plain = made(kind, variant)
                if sum(x.numel() for x in plain.parameters()) > LARGEST:
                    continue
                given = prompts(plain, variant)
                MODES["dynamic"](plain, given)
            except Exception:  # whatever a toy model raises: it takes inputs of another kind
                continue
            rows.append({"folder": folder, "model": kind.__name__} | judge(kind, variant, plain, given))
            break
        if rows and rows[-1]["model"].endswith("ForCausalLM"):
            break
    return rows


def made(kind: Any, variant: dict[str, Any]) -> Any:
    """The toy model, which never ends a text by itself; of encoders that can be decoders, the decoder."""
    if {field.name for field in dataclasses.fields(kind.config_class)} >= {
        "is_decoder",
        "add_cross_attention",
    }:
        variant = variant | {"config": {"is_decoder": True} | variant.get("config", {})}
    model = build(kind, variant)
    for part in (model.generation_config, model.config, model.config.get_text_config(decoder=True)):
        part.eos_token_id = part.forced_eos_token_id = part.forced_bos_token_id = None
        part.pad_token_id = 0
    if model.config.is_encoder_decoder and model.generation_config.decoder_start_token_id is None:
        model.generation_config.decoder_start_token_id = model.config.decoder_start_token_id = 1
    return model


def prompts(model: Any, variant: dict[str, Any]) -> dict[str, Any]:
    """What generate and forward take: ids, and what the model cannot do without."""
    left_out = ("attention_mask", "decoder_input_ids", "use_cache")
    return {name: x for name, x in inputs(model, variant).items() if name not in left_out}


def judge(kind: Any, variant: dict[str, Any], plain: Any, given: dict[str, Any]) -> dict[str, Any]:
    """The verdicts of a model class, by kind of maps and mode."""
    want = {mode: _found(MODES[mode], plain, given) for mode in MODES}
    row: dict[str, Any] = {"static": {}, "dynamic": {}}
    dynamic: dict[str, Any] = {"dynamic": DYNAMIC, "kinds": _KINDS}
    for maps, options in (("static", {}), ("dynamic", dynamic)):
        talking = made(kind, variant)
        try:
            convert(talking, **options)
        except UserError as refusal:
            row[maps] = dict.fromkeys(MODES, f"{REFUSED}: {refusal}")
            continue
        start = {mode: _found(run, talking, given) for mode, run in MODES.items()}
        for mode, run in MODES.items():
            if isinstance(want[mode], Exception):
                row[maps][mode] = f"{ABSENT}: {_line(want[mode])}"
                continue
            found = []
            for seed in range(DRAWS):
                stir(talking, seed)
                found.append(_verdict(want[mode], start[mode], _found(run, talking, given)))
                if _kind(found[-1]) == WRONG and not _holds(run, kind, variant, talking, given):
                    found[-1] = START
                if found[-1] == EQUAL:
                    break
            row[maps][mode] = next((x for x in (EQUAL, START) if x in found), found[-1])
    return row


def _holds(run: Any, kind: Any, variant: dict[str, Any], talking: Any, given: dict[str, Any]) -> bool:
    """Whether the plain model with the very same weights is equal to its own full forward in this mode."""
    plain = made(kind, variant)
    plain.load_state_dict({n: x for n, x in talking.state_dict().items() if f".{CHILD}." not in n})
    found = _found(run, plain, given)
    return isinstance(found, Exception) or found[1] is None or _apart(*found) <= TOLERANCE


def _found(run: Any, model: Any, given: dict[str, Any]) -> Any:
    """(what the mode gives, what a forward without a cache gives), or what was raised."""
    try:
        with torch.no_grad():
            return run(model, given)
    except Exception as problem:
        return problem


def _verdict(plain: Any, start: Any, random: Any) -> str:
    for name, found in (("identity", start), ("random maps", random)):
        if isinstance(found, UserError):
            return f"{REFUSED}: {found}"
        if isinstance(found, Exception):
            return f"{WRONG}: {name}: {_line(found)}"
    if (error := _apart(plain[0], start[0])) > TOLERANCE:
        return f"{WRONG}: identity differs by {error:.1e}"
    if plain[1] is None or _apart(*plain) > TOLERANCE:  # what the plain model itself does not hold to
        return START
    if (error := _apart(*random)) > TOLERANCE:
        return f"{WRONG}: random maps differ by {error:.1e}"
    return EQUAL


def _apart(one: list[Tensor], other: list[Tensor]) -> float:
    """Largest difference, relative to the largest element; of tokens 0 or infinite."""
    worst = 0.0
    for x, y in zip(one, other, strict=True):
        if x.shape != y.shape or not torch.equal(x.isfinite(), y.isfinite()):
            return float("inf")
        if not x.is_floating_point():
            worst = max(worst, 0.0 if torch.equal(x, y) else float("inf"))
        elif x.numel():
            x, y = x.double().nan_to_num(0, 0, 0), y.double().nan_to_num(0, 0, 0)
            worst = max(worst, float((x - y).abs().max() / y.abs().max().clamp(min=1e-6)))
    return worst


def _line(problem: Exception) -> str:
    return " ".join(f"{type(problem).__name__}: {problem}".split())[:200]


def resume(path: Path | None, progress: Callable[[str], None] = lambda folder: None) -> dict[str, Any]:
    """{"provenance", "rows": {folder: its rows}, "waiting": folders}; what `path` holds from the same versions is not redone.

    The most used come first.
    """
    about = provenance()
    old = json.loads(path.read_text()) if path is not None and path.exists() else {}
    same = old.get("provenance", {}).get("versions") == about["versions"]
    found: dict[str, list[dict[str, Any]]] = old.get("rows", {}) if same else {}
    for folder in sorted(folders(), key=lambda name: (name not in MOST_USED, name)):
        progress(folder)
        if folder not in found:
            found[folder] = examine(folder)
            if path is not None:
                write_json(path, _result(about, found))
    return _result(about, found)


def _result(about: Any, found: dict[str, Any]) -> dict[str, Any]:
    waiting = [name for name in folders() if name not in found]
    return {"provenance": about, "rows": dict(sorted(found.items())), "waiting": waiting}


def markdown(result: dict[str, Any]) -> str:
    """The section of the survey's result."""
    rows, about = [row for x in result["rows"].values() for row in x], result["provenance"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    lines = [
        "",
        "# Generation, by family and mode",
        "",
        "Appended by `python -m talking_heads.hf.survey.generation docs/results/generation.json >> docs/architectures.md`.",
        "",
        "Toy models of the folders above that generate from ids, random parameters, float64. At identity maps each mode must",
        "give what it gives on the plain model: tokens and the logits of each step. At random maps, the logits of each step",
        f"must be those of one forward of all the tokens without a cache, to {TOLERANCE:.0e} of the largest, for one of {DRAWS} draws",
        "(rounding may change which positions an indexer chooses). `dynamic maps`: the same with all four of them, in all modes.",
        "",
        "| sign | meaning |",
        "|---|---|",
        "| = | equal to the plain model at identity, and to its own full forward at random maps |",
        "| (=) | equal to the plain model at identity; the plain model's mode is not equal to its own full forward |",
        "| – | the plain model does not have this mode, or fails in it |",
        "| refused | by `convert` or by the call, in one line |",
        "| WRONG | none of these |",
        "",
        f"{versions}; commit {about['commit']}; {about['machine']['processor']}. `quantized` is the fp8 cache; `offloaded` needs",
        "an accelerator.",
        "",
        _counts(rows),
        *(["", result["note"]] if "note" in result else []),
        *_waiting(result),
        "",
        f"| folder | model | {' | '.join(MODES)} | dynamic maps |",
        f"|---|---|{'---|' * len(MODES)}---|",
    ]
    for row in rows:
        cells = [_sign(row["static"][mode]) for mode in MODES]
        lines.append(
            f"| {row['folder']} | {row['model']} | {' | '.join(cells)} | {_dynamic(row['dynamic'])} |"
        )
    return "\n".join(lines) + "\n"


def _counts(rows: list[dict[str, Any]]) -> str:
    cells = [_kind(x) for row in rows for maps in ("static", "dynamic") for x in row[maps].values()]
    told = ", ".join(f"{_SIGNS[kind]} {cells.count(kind):,}" for kind in _SIGNS)
    return f"{len({row['folder'] for row in rows})} families; cells of static and of dynamic maps together: {told}."


def _waiting(result: dict[str, Any]) -> list[str]:
    """What a survey that was stopped has not come to."""
    left = result["waiting"]
    return ["", f"Stopped before {len(left)} folders: {', '.join(left)}."] if left else []


def _kind(verdict: str) -> str:
    return verdict.partition(":")[0]


def _sign(verdict: str) -> str:
    return _SIGNS[_kind(verdict)]


def _dynamic(verdicts: dict[str, str]) -> str:
    """The modes by verdict; a refusal of all of them once, with its reason."""
    reasons = {x for x in verdicts.values() if _kind(x) == REFUSED}
    if len(reasons) == 1 and all(_kind(x) == REFUSED for x in verdicts.values()):
        return f"refused: {next(iter(reasons)).partition('; got ')[2]}".replace("|", "\\|")
    found = {kind: [m for m, x in verdicts.items() if _kind(x) == kind] for kind in (REFUSED, WRONG)}
    named = [f"{_SIGNS[kind]}: {', '.join(modes)}" for kind, modes in found.items() if modes]
    return "; ".join(named) or "="


if __name__ == "__main__":
    logging.set_verbosity(logging.CRITICAL)
    try:
        made_so_far = resume(Path(sys.argv[1]), lambda folder: print(folder, file=sys.stderr))
    except KeyboardInterrupt:  # the table of what there is; the same command goes on
        made_so_far = json.loads(Path(sys.argv[1]).read_text())
    print(markdown(made_so_far), end="")
