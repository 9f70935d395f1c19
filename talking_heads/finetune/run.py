"""Fine-tunes one model on one task, in a folder of its own: transformers' Trainer, resumed from its checkpoints."""

import json
import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..heads.record import longest
from ..results import folders, stopping
from ..results.files import json_text, set_aside, write_json, write_text
from ..results.provenance import command, provenance
from ..results.schema import read_json
from ..training.callbacks import Steps, Stop
from ..training.checkpoints import keep_model, last_checkpoint
from ..training.devices import device
from ..training.hardware import Hardware
from ..training.run import make_trainer
from .data import Splits, read_splits
from .heads import Heads, auto_class, config_changes
from .metrics import floors, scores
from .submission import submission
from .table import RESULT
from .tasks import Task
from .text_to_text import TextToText

_LEAST_LENGTH = 16
_CHECKPOINTS = 10  # along a run
_LIKE = 50  # batches in a row among which lengths are gathered
_IN_LAYER = re.compile(r"\.\d+\.")  # what a new head lacks stands outside the numbered layers


@dataclass(frozen=True)
class Recipe:
    """What decides the figures next to model and data. limit: use only the first examples to learn from."""

    epochs: int = 3
    batch: int = 16
    learning_rate: float = 2e-5
    weight_decay: float = 0.01
    length: int = 128
    seed: int = 0
    limit: int | None = None

    def __post_init__(self) -> None:
        for name, least in (
            ("epochs", 1),
            ("batch", 1),
            ("length", _LEAST_LENGTH),
            ("limit", 1),
            ("seed", 0),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"--{name} must be at least {least}", value, "give more")
        if not 0 < self.learning_rate < math.inf:
            raise UserError("--rate must be a positive number", self.learning_rate, "give one")


def finetune(
    model: str,
    task: Task,
    data: str,
    out: Path,
    recipe: Recipe,
    *,
    predict: bool = False,
    report_to: Sequence[str] = (),
    progress: Callable[[str, int, int, str], None] = lambda run, done, total, said: None,
) -> dict[str, Any]:
    """Trains what the folder lacks; returns what result.json holds: {"task", "model", "scores", "floors", "metric", "data",
    "config", "parameters", "prediction"...}. With `predict` the folder has prediction.txt, too: GLUE's format.

    Raises:
        UserError: the folder is another run's or in use, data that changed since the run began, files of another task.
    """
    Hardware(report_to=tuple(report_to)).check(recipe.batch)
    splits = read_splits(task, data)
    folders.claim(out, "finetune")
    with folders.lock(out, "run", wait=False) as mine:
        if not mine:
            raise UserError(
                "one process may run in a run's folder",
                f"another at work in {out}",
                "wait for it, or name another --out",
            )
        _begin(out, model, task, splits, recipe)
        result = _held(out / "result.json")
        if result is None or (predict and not (out / "prediction.txt").exists()):
            result = _Run(out, model, task, splits, recipe, progress, tuple(report_to)).all()
    return result


def _begin(out: Path, model: str, task: Task, splits: Splits, recipe: Recipe) -> None:
    """run.json, written before the first step; a second start must be of the same run on the same data."""
    path = out / "run.json"
    given = json.loads(
        json_text({"task": task.name, "model": model, "config": asdict(recipe), "data": splits.digests()})
    )
    if path.exists():
        held = read_json(path, {"task": str, "model": str, "config": dict, "data": dict})
        if {x: y.get("sha256") for x, y in held["data"].items()} != {
            x: y["sha256"] for x, y in given["data"].items()
        }:
            raise UserError(
                "the data of a run must stay as it was when the run began",
                f"files with another hash than {path} has",
                "restore them, or name another folder with --out",
            )
        differs = [name for name in ("task", "model", "config") if held[name] != given[name]]
        if differs:
            raise UserError(
                "a results folder must hold the same run or none",
                f"one that differs in {', '.join(differs)} in {out}",
                "name another folder with --out, or repeat its options",
            )
        return
    write_json(path, given | {"command": command()} | provenance(device()))


def _held(path: Path) -> dict[str, Any] | None:
    """The result of an earlier start; a damaged one is set aside."""
    if not path.exists():
        return None
    try:
        found: dict[str, Any] = read_json(path, RESULT)
        return found
    except UserError:
        set_aside(path)
        return None


@dataclass(frozen=True)
class _Run:
    out: Path
    model: str
    task: Task
    splits: Splits
    recipe: Recipe
    progress: Callable[[str, int, int, str], None]
    report_to: tuple[str, ...]

    def all(self) -> dict[str, Any]:
        model, tokenizer, form = self._open()
        rows = self.splits.train[: self.recipe.limit]
        if (self.out / "model").exists():
            model = _read(type(model), self.out / "model")
        else:
            self._train(model, form, rows)
            keep_model(self.out / "model", model, tokenizer)
        found = form.predict(model, self.splits.judged)
        result = {
            "task": self.task.name,
            "model": self.model,
            "form": "text to text" if isinstance(form, TextToText) else "task head",
            "metric": self.task.metrics[0],
            "scores": scores(self.task, found, self.splits.judged),
            "floors": floors(self.task, rows, self.splits.judged),
            "parameters": sum(x.numel() for x in model.parameters()),
            "data": self.splits.digests(),
            "config": asdict(self.recipe),
            "command": command(),
        }
        write_json(self.out / "result.json", result | provenance(device()))
        self._predict(form, model, found)
        return read_json(self.out / "result.json", RESULT)  # type: ignore[no-any-return]

    def _predict(self, form: Any, model: Any, judged: Any) -> None:
        """prediction.txt: of the test split, or of the judged examples where there is none."""
        rows = self.splits.test
        found = form.predict(model, rows) if rows else judged
        write_text(self.out / "prediction.txt", submission(self.task, found))

    def _open(self) -> tuple[Any, Any, Any]:
        """(model, tokenizer, its form of the task)."""
        import transformers

        from ..hf.source import config_of, local, quiet, told
        from ..hf.weights import check_files

        folder = local(self.model)
        with quiet():
            check_files(folder)
            config = config_of(folder)
            translates = bool(config.is_encoder_decoder)
            name = "AutoModelForSeq2SeqLM" if translates else auto_class(self.task)
            changes = {} if translates else config_changes(self.task)
            transformers.set_seed(self.recipe.seed)
            with told(folder):
                tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            if tokenizer.pad_token is None:
                tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
            try:
                model, found = getattr(transformers, name).from_pretrained(
                    folder, trust_remote_code=False, use_safetensors=True, output_loading_info=True, **changes
                )
            except ValueError as problem:
                if "Unrecognized configuration class" not in str(problem):
                    raise
                raise UserError(
                    f"a model must have a form for {self.task.name} ({name} of transformers)",
                    f"{config.model_type} in {self.model}",
                    "name another model",
                ) from None
        lacking = sorted(x for x in found["missing_keys"] if _IN_LAYER.search(x))
        if lacking:
            raise UserError(
                "a model's folder must hold the weights of all layers",
                f"none of {lacking[0]} and {len(lacking) - 1} more in {self.model}",
                "name another model; one trained without attention cannot be fine-tuned so",
            )
        if model.config.pad_token_id is None:
            model.config.pad_token_id = tokenizer.pad_token_id
        form = TextToText if translates else Heads
        return model, tokenizer, form(self.task, tokenizer, self._length(model, tokenizer))

    def _length(self, model: Any, tokenizer: Any) -> int:
        """Tokens of an example: as asked for, at most what the model has positions for."""
        most = longest(model, tokenizer)
        return self.recipe.length if most is None else min(self.recipe.length, most)

    def _train(self, model: Any, form: Any, rows: list[Any]) -> None:
        recipe = self.recipe
        examples = form.examples(rows, learn=True)
        batch = min(recipe.batch, len(examples))
        steps = recipe.epochs * (len(examples) // batch)
        every = max(1, steps // _CHECKPOINTS)

        def report(done: int, total: int, said: str) -> None:
            self.progress(f"{self.task.name}, seed {recipe.seed}", done, total, said)

        trainer = make_trainer(
            model,
            in_order(examples, batch, recipe.epochs, recipe.seed),
            self.out,
            batch,
            recipe.learning_rate,
            recipe.weight_decay,
            recipe.seed,
            collate=form.collate,
            loss=form.loss,
            max_steps=steps,
            save_strategy="steps",
            save_steps=every,
            logging_steps=every,
            dataloader_drop_last=True,
            hardware=Hardware(report_to=self.report_to),
            callbacks=[Steps(steps, self.task.name, report), Stop()],
        )
        with stopping.at_checkpoints():
            trainer.train(resume_from_checkpoint=last_checkpoint(self.out))
        stopping.stop()


def in_order(examples: Sequence[dict[str, Any]], batch: int, epochs: int, seed: int) -> Any:
    """The examples of all steps, one batch after the other; a function of the seed alone, so that a run can go on.

    Each pass is shuffled; of every 50 batches in a row those of like lengths share a batch, so that less is padding.
    What does not fill a pass's last batch is left out of it.
    """
    draw = random.Random(seed)
    found: list[dict[str, Any]] = []
    for _ in range(epochs):
        order = list(range(len(examples)))
        draw.shuffle(order)
        for start in range(0, len(order), _LIKE * batch):
            part = order[start : start + _LIKE * batch]
            order[start : start + _LIKE * batch] = sorted(
                part, key=lambda i: len(examples[i].get("input_ids", ()))
            )
        cuts = [order[start : start + batch] for start in range(0, len(order) - batch + 1, batch)]
        draw.shuffle(cuts)
        found += [examples[i] for cut in cuts for i in cut]
    return found


def _read(kind: Any, folder: Path) -> Any:
    """The model that an earlier start has kept."""
    from ..training.devices import device

    return kind.from_pretrained(folder, trust_remote_code=False, use_safetensors=True).to(device())
