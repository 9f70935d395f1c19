"""One pre-training run and its transfer: transformers' Trainer, resumed from its own checkpoints."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.utils.data import Dataset

from ..errors import UserError
from ..optim import param_groups
from ..results import stopping
from ..results.schema import read_json
from . import together
from .arms import parse_arm
from .callbacks import Curve, Metrics, Position, Progress, Snapshots, Steps, Stop
from .checkpoints import resume_from
from .devices import autocast, device, is_mixed
from .hardware import PLAIN, Hardware, divide
from .models import build, load_body, load_pretrained
from .objectives import find
from .settings import Settings
from .stream import FILE as STREAM
from .stream import POSITION, StreamExamples
from .tasks import Task

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
    curve = Curve(folder / "curve.json", settings, evaluate, progress)
    stop = Stop()
    train: Any = objective.train(data, settings, seed, settings.steps * settings.batch)
    resume = together.first(lambda: resume_from(folder, settings))
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
            *([Position(train, settings.batch)] if streams else []),
            *([Snapshots(folder / "steps", settings)] if snapshots else []),
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
    if hardware.fsdp:
        divide(model)
    optimizer = optimizer or torch.optim.AdamW(param_groups(model, decay), lr=rate)
    trainer = _Trainer(
        loss,
        optimizer,
        model=model,
        args=options,
        train_dataset=examples,
        data_collator=collate,
        callbacks=[*callbacks, Metrics(folder / "metrics.jsonl")],
    )
    trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
    if hardware.fsdp and not trainer.is_fsdp_enabled:  # accelerate would copy them, without a word
        raise UserError("parameters are divided (--fsdp) among GPUs", "processes on CPUs", "leave --fsdp out")
    return trainer


class _Trainer(transformers.Trainer):
    """transformers' Trainer with a loss of the objective's or the task's, and an optimizer."""

    def __init__(
        self, loss: Callable[[Any, Any], torch.Tensor], optimizer: torch.optim.Optimizer, **arguments: Any
    ) -> None:
        super().__init__(**arguments)
        self.loss, self._given = loss, optimizer
        self.model_accepts_loss_kwargs = False  # the loss is a mean: one device, one batch a step

    def compute_loss(self, model: Any, inputs: Any, *_: Any, **__: Any) -> torch.Tensor:
        with autocast():  # accelerate's own covers no model that is divided
            return self.loss(model, inputs)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The one given: under FSDP, Trainer takes none as an argument."""
        self.optimizer = self._given
        return self.optimizer
