"""The survey of instruments: on toy models of every architecture, what each instrument for heads does.

    python -m talking_heads.heads.survey docs/results/instruments.json > docs/instruments.md

Each cell is a trial whose result is checked, not only a call: see `CHECKS`.
"""

import copy
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..anatomy import trial
from ..errors import UserError
from ..hf.source import quiet
from ..hf.survey.folders import folders
from ..hf.survey.table import MOST_USED
from ..results.files import write_json
from ..results.provenance import provenance
from ..results.table import Table
from .dependencies import dependencies
from .gates import gates, mask
from .importance import head_importance
from .layers import layers
from .losses import example_losses, own_loss
from .prune import KEY, load, prune, save
from .record import recording
from .restart import floats
from .survey_page import FAULT, NONE, REFUSED, WORKS, WRONG, markdown
from .survey_subject import Nothing, Subject
from .treebank import Sentence
from .view import view
from .view_page import page

_CLOSE = 1e-4  # float32 over a toy model
_WORDS = ("the", "old", "dog", "saw", "a", "small", "red", "ball", "she", "sang", "he", "slept")


class _Wrong(Exception):
    """An instrument's result is not what it must be."""


def examine(folder: str) -> dict[str, Any]:
    """One architecture's row: {instrument: verdict, or "verdict: why"}, and the classes they were tried on."""
    subject = Subject(folder)
    if subject.whole is None:
        return {"folder": folder, "not built": subject.fault}
    row: dict[str, Any] = {"folder": folder, "class": type(subject.whole[0]).__name__}
    trials: dict[str, Callable[[], Any]] = {
        "record": lambda: _record(*subject.whole),
        "view": lambda: _view(subject),
        "dependencies": lambda: _dependencies(subject.text),
        "gates": lambda: _gates(*subject.whole),
        "mask": lambda: _mask(*subject.whole),
        "losses": lambda: _losses(subject.with_loss),
        "importance": lambda: _importance(*subject.with_loss[0]),
        "prune": lambda: _prune(*subject.whole),
    }
    with quiet():
        for name, attempt in trials.items():
            row[name] = _verdict(attempt)
    return row


def _verdict(attempt: Callable[[], Any]) -> str:
    try:
        attempt()
    except Nothing as why:
        return f"{NONE}: {why}"
    except UserError as refusal:
        return f"{REFUSED}: {refusal}"
    except _Wrong as problem:
        return f"{WRONG}: {problem}"
    except Exception as problem:  # what an instrument lets through is a fault of ours
        return f"{FAULT}: " + " ".join(f"{type(problem).__name__}: {problem}".split())[:200]
    return WORKS


def tokenizer() -> Any:
    """A tokenizer of a few words, within a toy model's vocabulary."""
    from tokenizers import Tokenizer
    from tokenizers import models as kinds
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    known = {"[PAD]": 0, "[UNK]": 1} | {word: number for number, word in enumerate(_WORDS, 5)}
    inner = Tokenizer(kinds.WordLevel(known, unk_token="[UNK]"))
    inner.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]")


def _trees() -> list[Sentence]:
    found = []
    for words, heads in (("the old dog slept", (2, 2, 3, -1)), ("she saw a ball", (1, -1, 3, 1))):
        relations = ["root" if head < 0 else "nsubj" if head > 1 else "det" for head in heads]
        found.append(Sentence(words.split(), np.array(heads), relations, 1))
    return found


@torch.no_grad()
def _run(model: Any, given: dict[str, Any]) -> Tensor:
    """All float outputs, in a row."""
    torch.manual_seed(0)
    return torch.cat([x.flatten().float() for x in floats(model(**given))])


def _differ(before: Tensor, after: Tensor) -> float:
    return trial.error(before.detach(), after.detach())


def _check(good: bool, otherwise: str) -> None:
    if not good:
        raise _Wrong(otherwise)


def _record(model: Any, given: dict[str, Any]) -> None:
    before = _run(model, given)
    with recording(model) as tape:
        during = _run(model, given)
    maps = tape.take()
    if not maps:
        raise Nothing("no layer that gives weights ran")
    for x in maps:
        _check(not (x.softmax < -_CLOSE).any(), f"{x.label}: weights below 0")
        _check(not (x.softmax.float().sum(-1) > 1 + _CLOSE).any(), f"{x.label}: rows above 1")
    _check(_differ(before, during) < 1e-2, f"outputs change by {_differ(before, during):.1e}")


def _view(subject: Subject) -> None:
    model, given = subject.whole
    text = "the old dog saw a ball"
    if "pixel_values" in given and not subject.reads_text:
        found = view(model, None, picture=given["pixel_values"][0])
        patches = sum(name.startswith("r") for name in found.panels[0].queries)
        _check(found.picture is not None and patches == found.picture.rows * found.picture.columns, "patches")
    else:
        found = view(subject.text, tokenizer(), text)
        _check(found.panels[0].queries == text.split(), "other words")
    _check(bool(np.isfinite(found.panels[0].softmax).all()), "maps that are not finite")
    _check(len(page(found)) > 5000, "an empty page")


def _dependencies(model: Any) -> None:
    table = dependencies(model, tokenizer(), _trees(), draws=10)
    _check(len({row["head"] for row in table.rows}) > 1, "fewer than two heads")
    _check(all(0 <= row["score"] <= 1 for row in table.rows), "scores outside 0 to 1")


def _gates(model: Any, given: dict[str, Any]) -> None:
    before = _run(model, given)
    with gates(model) as found:
        _check(
            torch.equal(before.nan_to_num(), _run(model, given).nan_to_num()),
            "gates of 1 change outputs",
        )
        changed = 0
        for layer in found.layers:
            found.reset()
            found[f"{layer.label}:*"] = 0.0
            changed += _differ(before, _run(model, given)) > 0
        _check(changed > 0, "gates of 0 change nothing")


def _mask(model: Any, given: dict[str, Any]) -> None:
    before = _run(model, given)
    changed = 0
    for layer in layers(model):
        with mask(model, [f"{layer.label}:0"]):
            changed += _differ(before, _run(model, given)) > 0
    _check(changed > 0, "masked heads change nothing")
    _check(
        torch.equal(before.nan_to_num(), _run(model, given).nan_to_num()),
        "outputs differ after the block",
    )


def _losses(found: list[tuple[Any, dict[str, Tensor]]]) -> None:
    for model, batch in found:
        name = type(model).__name__
        with torch.no_grad():
            torch.manual_seed(0)
            whole, each = own_loss(model, batch), example_losses(model, batch)
            alone = torch.stack(
                [own_loss(model, {n: x[i : i + 1] for n, x in batch.items()}) for i in range(len(each))]
            )
        _check(
            torch.allclose(each, alone, rtol=_CLOSE, atol=_CLOSE),
            f"{name}: {each.tolist()}, alone {alone.tolist()}",
        )
        total = (
            each.sum() if name.endswith("CTC") and model.config.ctc_loss_reduction == "sum" else each.mean()
        )
        _check(
            torch.allclose(total, whole, rtol=_CLOSE, atol=_CLOSE),
            f"{name}: {total:.4f} of the examples, the model's {whole:.4f}",
        )


def _importance(model: Any, batch: dict[str, Tensor]) -> None:
    values = [row["importance"] for row in head_importance(model, [batch]).rows]
    _check(bool(np.isfinite(values).all()) and max(values) > 0, "no importance above 0")


def _prune(model: Any, given: dict[str, Any]) -> None:
    names = [(x.label, head) for x in layers(model) for head in range(x.heads)]
    worth = np.random.default_rng(0).permutation(len(names)).tolist()
    rows = [{"head": f"{label}:{head}", "importance": worth[i]} for i, (label, head) in enumerate(names)]
    pruned = copy.deepcopy(model)
    kept = prune(pruned, Table(rows, ("head",), "importance", {}), 0.5)
    gone = [f"{x.label}:{head}" for x in layers(model) for head in range(x.heads) if head not in kept[x.name]]
    with mask(model, gone):
        wanted = _run(model, given)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "pruned"
        save(pruned, tokenizer(), folder)
        again = load(folder) if hasattr(pruned.config, KEY) else type(model).from_pretrained(folder)
        error = _differ(wanted, _run(again.float().eval(), given))
    _check(error < 1e-3, f"what is loaded differs from the masked model by {error:.1e}")


def resume(path: Path | None, progress: Callable[[str], None] = lambda folder: None) -> dict[str, Any]:
    """{"provenance", "rows"} of all architectures; what `path` holds from the same versions is not redone."""
    about = provenance()
    old = json.loads(path.read_text()) if path is not None and path.exists() else {}
    same = old.get("provenance", {}).get("versions") == about["versions"]
    rows = {row["folder"]: row for row in old.get("rows", ())} if same else {}
    for folder in sorted(folders(), key=lambda name: (name not in MOST_USED, name)):
        progress(folder)
        if folder not in rows:
            rows[folder] = examine(folder)
            if path is not None:
                write_json(path, {"provenance": about, "rows": [rows[x] for x in sorted(rows)]})
    return {"provenance": about, "rows": [rows[x] for x in sorted(rows)]}


if __name__ == "__main__":
    print(markdown(resume(Path(sys.argv[1]), lambda folder: print(folder, file=sys.stderr))), end="")
