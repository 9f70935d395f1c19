"""One pre-training run and its transfer: transformers' Trainer, resumed from its own checkpoints."""

import json
import shutil
import warnings
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError, safe_open
from torch.utils.data import Dataset
from transformers import TrainerCallback

from ..errors import UserError
from ..optim import param_groups
from ..results import stopping
from ..results.files import set_aside, write_json, write_text
from ..results.folders import new_folder
from ..results.schema import read_json
from . import together
from .arms import parse_arm
from .devices import device, is_mixed
from .gather import CURVE
from .hardware import PLAIN, Hardware
from .models import build, load_body, load_pretrained
from .objectives import find
from .settings import Settings
from .stream import FILE as STREAM
from .stream import POSITION, StreamExamples
from .tasks import Task

Progress = Callable[[int, int, str], None]  # steps done, of, what is to be said
# Examples come in order from a position of their own; each process reads all of them and takes its share.
_STREAMING: dict[str, Any] = {
    "ignore_data_skip": True,
    "accelerator_config": {"dispatch_batches": False, "split_batches": False},
}
LINES = 10  # of metrics.jsonl from one evaluation to the next


def pretrain(
    folder: Path,
    settings: Settings,
    arm: str,
    seed: int,
    data: dict[str, Any],
    progress: Progress,
    snapshots: bool = False,
    hardware: Hardware = PLAIN,
) -> Any:
    """Trains the arm to the end (from the folder's last whole checkpoint, where there is one).

    Writes curve.json, {step: held-out loss in nats a token}, as it goes; with `snapshots` also keeps the model
    of each of these steps, and of the start, in the folder steps/STEP. Returns the model.
    """
    model, objective = build(settings, arm, seed), find(settings.objective)
    judged = objective.judged(data, settings, "held_out")
    evaluate = partial(objective.evaluate, examples=judged)
    curve = _Curve(folder / "curve.json", settings, evaluate, progress)
    stop = Stop()
    train: Any = objective.train(data, settings, seed, settings.steps * settings.batch)
    resume = together.first(lambda: _resume_from(folder, settings))
    streams = isinstance(train, StreamExamples)
    if streams and resume:
        path = Path(resume) / STREAM
        step = int(Path(resume).name.partition("-")[2])
        train.seek(step * settings.batch, read_json(path, POSITION) if path.exists() else None)
    trainer = make_trainer(
        model,
        train,
        folder,
        settings.batch,
        parse_arm(arm).rate or settings.learning_rate,
        settings.weight_decay,
        seed,
        collate=objective.collate,
        loss=objective.loss,
        max_steps=settings.steps,
        lr_scheduler_type=objective.schedule,
        save_steps=settings.evaluate_every,
        save_strategy="steps",
        logging_steps=max(1, settings.evaluate_every // LINES),
        hardware=hardware,
        **(_STREAMING if streams else {}),
        callbacks=[
            curve,
            stop,
            *([_Position(train, settings.batch)] if streams else []),
            *([_Snapshots(folder / "steps", settings)] if snapshots else []),
        ],
    )
    curve.log = trainer.log
    with stopping.at_checkpoints():
        trainer.train(resume_from_checkpoint=resume)
    if stop.stopped:
        raise stopping.Stopped  # also where another process got the signal
    stopping.stop()
    return _whole(trainer, model, folder, lambda: build(settings, arm, seed)) if hardware.fsdp else model


def _whole(trainer: Any, model: Any, folder: Path, make: Callable[[], Any]) -> Any:
    """A trained model whose parameters were divided among processes, whole on each."""
    from safetensors.torch import load_file

    place = folder / "whole"
    trainer.save_model(str(place))
    together.wait()
    whole = make()
    whole.load_state_dict(load_file(place / "model.safetensors"), strict=False)
    whole.tie_weights()
    together.wait()
    if together.leads():
        shutil.rmtree(place)
    return whole.to(next(model.parameters()).device)


def keep_model(folder: Path, model: Any, tokenizer: Any) -> None:
    """Writes the trained model (safetensors) and its tokenizer aside and renames."""
    aside = folder.with_name(f".{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    model.save_pretrained(aside)
    tokenizer.save_pretrained(aside)
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)


def drop_checkpoints(folder: Path) -> None:
    if not together.leads():
        return
    for checkpoint in _checkpoints(folder):
        shutil.rmtree(checkpoint)


def transfer(
    folder: Path,
    settings: Settings,
    arm: str,
    seed: int,
    task: Task,
    tokenizer: Any,
    progress: Progress,
) -> float:
    """Fine-tunes on the task from the model kept in the folder; returns its score."""
    objective = find(settings.objective)
    model = build(settings, arm, seed, task.head, **task.changes)
    load_body(model, load_pretrained(folder / "model", settings))
    train: Any = task.examples(objective, tokenizer, settings)
    batch = min(settings.batch, len(train))
    steps = settings.transfer_epochs * (len(train) // batch)

    trainer = make_trainer(
        model,
        train,
        folder / "transfer",
        batch,
        settings.transfer_rate,
        settings.weight_decay,
        seed,
        collate=task.collate,
        loss=lambda model, batch: model(**batch).loss,
        num_train_epochs=settings.transfer_epochs,
        save_strategy="no",
        dataloader_drop_last=True,
        train_sampling_strategy="random",
        callbacks=[Steps(steps, task.name, progress)],
    )
    trainer.train()
    together.wait()
    if together.leads():
        shutil.rmtree(folder / "transfer", ignore_errors=True)
    return task.score(model, objective, tokenizer, settings)


def make_trainer(
    model: Any,
    examples: Dataset,
    folder: Path,
    batch: int,
    rate: float,
    decay: float,
    seed: int,
    *,
    collate: Callable[[list[Any]], Any],
    loss: Callable[[Any, Any], torch.Tensor],
    callbacks: list[Any],
    optimizer: torch.optim.Optimizer | None = None,
    hardware: Hardware = PLAIN,
    **arguments: Any,
) -> Any:
    """transformers' Trainer as runs of this package are trained; `arguments` are TrainingArguments.

    `batch` is a step's, over all processes. With `logging_steps` what it logs goes to metrics.jsonl in the folder and to
    the hardware's trackers.
    """
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()  # of every model saved
    arguments = {
        "train_sampling_strategy": "sequential",  # examples are shuffled by their number
        "lr_scheduler_type": "linear",
        "warmup_steps": 0.1,
        "bf16": is_mixed(),
        **arguments,
    }
    options = transformers.TrainingArguments(
        output_dir=str(folder),
        learning_rate=rate,
        max_grad_norm=1.0,
        seed=seed,
        data_seed=seed,
        use_cpu=device() == "cpu",
        save_total_limit=1,
        logging_strategy="steps" if "logging_steps" in arguments else "no",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=device() == "cuda",
        **hardware.arguments(batch),
        **arguments,
    )
    options._n_gpu = min(options.n_gpu, 1)  # of several it would make one batch each: another training
    optimizer = optimizer or torch.optim.AdamW(param_groups(model, decay), lr=rate)
    trainer = _Trainer(
        loss,
        model=model,
        args=options,
        train_dataset=examples,
        data_collator=collate,
        optimizers=(optimizer, None),
        callbacks=[*callbacks, Metrics(folder / "metrics.jsonl")],
    )
    trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
    return trainer


class _Trainer(transformers.Trainer):
    """transformers' Trainer with a loss of the objective's or the task's."""

    def __init__(self, loss: Callable[[Any, Any], torch.Tensor], **arguments: Any) -> None:
        super().__init__(**arguments)
        self.loss = loss
        self.model_accepts_loss_kwargs = False  # the loss is a mean: one device, one batch a step

    def compute_loss(self, model: Any, inputs: Any, *_: Any, **__: Any) -> torch.Tensor:
        return self.loss(model, inputs)


def last_checkpoint(folder: Path) -> str | None:
    """The newest whole checkpoint; those that a kill cut short, or that are damaged, are set aside."""
    for path in sorted(_checkpoints(folder), key=lambda path: -int(path.name.partition("-")[2])):
        if _is_whole(path):
            return str(path)
        place = set_aside(path)
        warnings.warn(f"{path} is damaged or cut short: set aside as {place.name}", stacklevel=2)
    return None


def _resume_from(folder: Path, settings: Settings) -> str | None:
    """The checkpoint to go on from; where curve.json lacks losses up to it, the run starts again."""
    path = last_checkpoint(folder)
    if path is not None:
        step = int(Path(path).name.partition("-")[2])
        due = range(settings.evaluate_every, step + 1, settings.evaluate_every)
        curve = folder / "curve.json"
        if not set(due) <= read_curve(curve).keys():
            if curve.exists():
                set_aside(curve)
            drop_checkpoints(folder)
            return None
    return path


def _checkpoints(folder: Path) -> list[Path]:
    return [x for x in folder.glob("checkpoint-*") if x.name.partition("-")[2].isdecimal() and x.is_dir()]


def _is_whole(checkpoint: Path) -> bool:
    """Whether the files of a checkpoint can be read: the state, which is written last, tensors and archives."""
    try:
        step = read_json(checkpoint / "trainer_state.json", {"global_step": int})["global_step"]
        for file in checkpoint.glob("*.safetensors"):
            with safe_open(file, "pt") as held:
                held.keys()
        for file in [*checkpoint.glob("*.pt"), *checkpoint.glob("*.pth")]:
            with zipfile.ZipFile(file) as archive:
                if archive.testzip() is not None:
                    return False
    except (OSError, UserError, SafetensorError, zipfile.BadZipFile, zlib.error):
        return False
    return checkpoint.name == f"checkpoint-{step}"


class Metrics(TrainerCallback):
    """Keeps what Trainer logs as JSON lines: losses by step. The state in a checkpoint has all lines before it, so a
    run that was resumed has each step once."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if together.leads() and self.path.exists() and not is_json_lines(self.path):
            place = set_aside(self.path)
            warnings.warn(f"{self.path} is damaged: set aside as {place.name}", stacklevel=2)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        rows = [x for x in state.log_history if "loss" in x or "held_out_loss" in x]
        rows = [{name: x for name, x in row.items() if name != "epoch"} for row in rows]
        lines = [json.dumps(row, sort_keys=True) for row in rows]  # as a checkpoint's state has them
        if lines and together.leads():
            write_text(self.path, "\n".join(lines) + "\n")


def is_json_lines(path: Path) -> bool:
    """Whether each line of a file is a JSON object."""
    try:
        return all(isinstance(json.loads(x), dict) for x in path.read_text("utf-8").splitlines())
    except ValueError:
        return False


class Steps(TrainerCallback):
    """Reports progress."""

    def __init__(self, total: int, name: str, progress: Progress) -> None:
        self.total, self.name, self.progress = total, name, progress

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.progress(state.global_step, self.total, self.name if state.global_step == self.total else "")


class Stop(TrainerCallback):
    """Ends with a checkpoint after the step in which a signal came; all processes of a run after the same step."""

    def __init__(self) -> None:
        self.stopped = False

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if together.any_of(stopping.asked()):
            self.stopped = True
            control.should_save = control.should_training_stop = True


class _Position(TrainerCallback):
    """Keeps in each checkpoint where the streamed text goes on."""

    def __init__(self, examples: StreamExamples, batch: int) -> None:
        self.examples, self.batch = examples, batch

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if together.leads():
            place = Path(args.output_dir) / f"checkpoint-{state.global_step}" / STREAM
            write_json(place, self.examples.position(state.global_step * self.batch))


class _Curve(TrainerCallback):
    """Takes the held-out loss along the run, and reports progress."""

    def __init__(
        self, path: Path, settings: Settings, evaluate: Callable[[Any], float], progress: Progress
    ) -> None:
        self.path, self.settings, self.evaluate, self.progress = path, settings, evaluate, progress
        self.log: Callable[[dict[str, float]], None] = lambda values: None

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        step, said = state.global_step, ""
        if step % self.settings.evaluate_every == 0 or step == self.settings.steps:
            before = {s: loss for s, loss in read_curve(self.path).items() if s < step}
            loss = self.evaluate(model)
            if together.leads():
                write_json(self.path, before | {step: loss})
            due = control.should_log
            self.log({"held_out_loss": loss})
            control.should_log = due  # which a log takes back
            said = f"loss {loss:.3f}"
        self.progress(step, self.settings.steps, said)


class _Snapshots(TrainerCallback):
    """Keeps the model at the start and wherever the held-out loss is taken."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder, self.settings = folder, settings

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if state.global_step == 0:
            self._keep(model, 0)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        step = state.global_step
        if step % self.settings.evaluate_every == 0 or step == self.settings.steps:
            self._keep(model, step)

    def _keep(self, model: Any, step: int) -> None:
        path = self.folder / str(step)
        if (
            together.leads() and not path.exists()
        ):  # a run resumed from an older checkpoint comes here again with the same model
            with new_folder(path) as aside:
                model.save_pretrained(aside)


def read_curve(path: Path) -> dict[int, float]:
    """{step: held-out loss}; empty where none has been written, or the file is damaged."""
    try:
        found = read_json(path, CURVE)
    except (FileNotFoundError, UserError):
        return {}
    return {int(step): loss for step, loss in found.items()}
