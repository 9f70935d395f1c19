"""What happens along a run: progress, a stop asked for, held-out losses, snapshots, what is logged."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from ..results import stopping
from ..results.files import set_aside, write_json, write_text
from ..results.folders import new_folder
from . import together
from .checkpoints import read_curve
from .settings import Settings
from .stream import FILE as STREAM
from .stream import StreamExamples

Progress = Callable[[int, int, str], None]  # steps done, of, what is to be said


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


class Curve(TrainerCallback):
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


class Snapshots(TrainerCallback):
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


class Position(TrainerCallback):
    """Keeps in each checkpoint where the streamed text goes on."""

    def __init__(self, examples: StreamExamples, batch: int) -> None:
        self.examples, self.batch = examples, batch

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if together.leads():
            place = Path(args.output_dir) / f"checkpoint-{state.global_step}" / STREAM
            write_json(place, self.examples.position(state.global_step * self.batch))


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
