"""The survey of instruments: on toy models of every architecture, what each instrument for heads does.

    python -m talking_heads.heads.survey docs/results/instruments.json > docs/instruments.md

Each cell is a trial whose result is checked, not only a call: see `CHECKS`.
"""

import copy
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..anatomy import trial
from ..anatomy.inputs import inputs
from ..errors import UserError
from ..hf.source import quiet
from ..hf.survey import exceptions
from ..hf.survey.folders import folders, models
from ..hf.survey.run import build
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
from .record import recording, text_part
from .restart import floats
from .treebank import Sentence
from .view import view
from .view_page import page

WORKS, REFUSED, WRONG, FAULT, NONE = "works", "refused", "wrong", "fault", "none"
CHECKS = {
    "record": "maps of the layers that ran: no weight below 0, no row above 1, outputs as before",
    "view": "a page of a text, or of a picture where no part reads text",
    "dependencies": "scores of a small treebank in every head",
    "gates": "gates of 1 change nothing; 0 for a layer's heads changes outputs",
    "mask": "a masked head changes outputs; after the block they are what they were",
    "losses": "each example's loss is the model's own of it alone; their mean (CTC's: their sum) is its loss of the batch",
    "importance": "finite, and above 0 for some head",
    "prune": "half of the heads; saved, loaded, and what the model gives with the others masked",
}
_MOST = 6  # classes of a folder that are tried for a text, for a loss
_CLOSE = 1e-4  # float32 over a toy model
_WORDS = ("the", "old", "dog", "saw", "a", "small", "red", "ball", "she", "sang", "he", "slept")


class _Wrong(Exception):
    """An instrument's result is not what it must be."""


def examine(folder: str) -> dict[str, Any]:
    """One architecture's row: {instrument: verdict, or "verdict: why"}, and the classes they were tried on."""
    subject = _Subject(folder)
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
    except _None as why:
        return f"{NONE}: {why}"
    except UserError as refusal:
        return f"{REFUSED}: {refusal}"
    except _Wrong as problem:
        return f"{WRONG}: {problem}"
    except Exception as problem:  # what an instrument lets through is a fault of ours
        return f"{FAULT}: " + " ".join(f"{type(problem).__name__}: {problem}".split())[:200]
    return WORKS


class _None(Exception):
    """Nothing of that kind in the architecture."""


class _Subject:
    """The toy models of a folder: the whole one, the one that reads text, those that give a loss."""

    def __init__(self, folder: str) -> None:
        self.folder, self.fault = folder, ""

    def _built(self) -> Iterator[tuple[Any, dict[str, Any]]]:
        """(model in float32, its inputs) of the classes that run."""
        for kind in models(self.folder):
            for variant in exceptions.variants(kind.__name__):
                try:
                    model = build(kind, variant).float()
                    given = {name: _single(x) for name, x in inputs(model, variant).items()}
                    if trial.run(model, given).isnan().any():
                        raise ValueError("outputs that are not numbers")
                except Exception as problem:  # whatever a model class raises of a toy config
                    said = " ".join(f"{type(problem).__name__}: {problem}".split())[:150]
                    self.fault = self.fault or f"{kind.__name__}: {said}"
                    continue
                yield model, given
                break

    @cached_property
    def whole(self) -> Any:
        return next(self._built(), None)

    @cached_property
    def text(self) -> Any:
        """The first model of which a part reads text."""
        refusal: UserError | None = None
        for tried, (model, _) in enumerate(self._built()):
            try:
                text_part(model)
                return model
            except UserError as problem:
                refusal = refusal or problem
            if tried + 1 == _MOST:
                break
        assert refusal is not None
        raise refusal

    @property
    def reads_text(self) -> bool:
        try:
            return self.text is not None
        except UserError:
            return False

    @cached_property
    def with_loss(self) -> list[tuple[Any, dict[str, Tensor]]]:
        """(model, batch with labels) of the classes that give a loss for labels that are tensors."""
        found = []
        for model, given in self._built():
            batch = _with_labels(model, given)
            if batch is not None:
                found.append((model, batch))
            if len(found) == _MOST:
                break
        if not found:
            raise _None("no class gives a loss for labels in a tensor")
        return found


def _single(x: Any) -> Any:
    """Floats in single precision; no padding, whose rows are not defined."""
    if not isinstance(x, Tensor):
        return x
    if x.is_floating_point():
        return x.float()
    return torch.ones_like(x) if x.dim() == 2 and x.max() == 1 and x.min() == 0 else x


def _with_labels(model: Any, given: dict[str, Any]) -> dict[str, Tensor] | None:
    asked = signature(model.forward).parameters
    tensors = {name: x for name, x in given.items() if isinstance(x, Tensor)}
    ids = tensors.get("decoder_input_ids", tensors.get("input_ids"))
    classes = torch.tensor([0, 1])
    kinds: list[dict[str, Tensor]] = []
    if "start_positions" in asked:
        kinds.append({"start_positions": torch.tensor([1, 2]), "end_positions": torch.tensor([3, 3])})
    if "labels" in asked:
        if "Classification" in type(model).__name__ or ids is None:
            kinds += [{"labels": classes}]
        if ids is not None:
            kinds += [{"labels": ids}, {"labels": ids % 2}]
        kinds += [{"labels": classes}, {"labels": torch.tensor([[5, 6, 7], [8, 9, 5]])}]
    if "next_sentence_label" in asked:
        kinds = [kind | {"next_sentence_label": classes} for kind in kinds]
    before = getattr(model.config, "problem_type", None)
    for kind in kinds:
        model.config.problem_type = before  # a classifier sets it by the first labels it sees
        try:
            torch.manual_seed(0)
            loss = own_loss(model, tensors | kind)
            if loss.dim() == 0 and loss.isfinite() and loss.requires_grad:
                return tensors | kind
        except Exception:  # labels of another kind
            continue
    return None


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
        raise _None("no layer that gives weights ran")
    for x in maps:
        _check(not (x.softmax < -_CLOSE).any(), f"{x.label}: weights below 0")
        _check(not (x.softmax.float().sum(-1) > 1 + _CLOSE).any(), f"{x.label}: rows above 1")
    _check(_differ(before, during) < 1e-2, f"outputs change by {_differ(before, during):.1e}")


def _view(subject: _Subject) -> None:
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


def counts(rows: list[dict[str, Any]], instrument: str) -> Counter[str]:
    """{verdict: architectures}"""
    return Counter(row[instrument].partition(":")[0] for row in rows if instrument in row)


def markdown(result: dict[str, Any]) -> str:
    """The page of the survey's result."""
    return "\n".join(_lines(result)) + "\n"


def _lines(result: dict[str, Any]) -> Iterator[str]:
    rows, about = result["rows"], result["provenance"]
    built = [row for row in rows if "class" in row]
    yield "# Instruments, by architecture"
    yield ""
    yield "Generated by `python -m talking_heads.heads.survey docs/results/instruments.json > docs/instruments.md`."
    yield ""
    yield "Toy models of the folders of `docs/architectures.md`, random parameters, float32. *Refused*: the instrument says in"
    yield "one line why not. *None*: there is nothing of that kind, such as a loss. *Wrong*: a check failed. *Fault*: an"
    yield f"error that is not a refusal. Of {len(rows)} folders {len(built)} have a toy model that runs."
    yield ""
    yield ", ".join(f"{name} {version}" for name, version in about["versions"].items()) + (
        f"; commit {about['commit']} (of the last rows; a survey that is continued may have older ones); {about['machine']['processor']}."
    )
    yield ""
    verdicts = (WORKS, REFUSED, NONE, WRONG, FAULT)
    yield "| instrument | " + " | ".join(verdicts) + " | what is checked |"
    yield "|---|" + "---:|" * len(verdicts) + "---|"
    for name, what in CHECKS.items():
        found = counts(built, name)
        yield f"| {name} | " + " | ".join(str(found[x]) for x in verdicts) + f" | {what} |"
    yield ""
    yield "| folder | class | " + " | ".join(CHECKS) + " |"
    yield "|---|---|" + "---|" * len(CHECKS)
    reasons: dict[str, int] = {}
    for row in built:
        cells = []
        for name in CHECKS:
            verdict, _, why = row[name].partition(": ")
            why = _reason(why)
            number = reasons.setdefault(f"{verdict}: {why}", len(reasons) + 1) if why else 0
            cells.append(f"{verdict} {number}" if number else verdict)
        yield f"| {row['folder']} | {row['class']} | " + " | ".join(cells) + " |"
    yield ""
    yield "## Why"
    yield ""
    for why, number in reasons.items():
        yield f"{number}. {why}"
    yield ""
    yield "Not built: " + ", ".join(row["folder"] for row in rows if "class" not in row) + "."


def _reason(why: str) -> str:
    """A refusal without what to do, which is the same for all of them, and safe in a table."""
    return why.rpartition("; ")[0].replace("|", "\\|") if "; got " in why else why.replace("|", "\\|")


if __name__ == "__main__":
    print(markdown(resume(Path(sys.argv[1]), lambda folder: print(folder, file=sys.stderr))), end="")
