"""One arm and seed of a comparison, in a folder of its own."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..results.files import write_json
from ..results.progress import Progress
from ..results.provenance import command, provenance
from ..results.schema import read_json
from . import together
from .arms import parse_arm
from .devices import device
from .gather import RESULT, Results
from .hardware import PLAIN, Hardware
from .models import maps_reset, static_maps
from .objectives import find
from .settings import Settings
from .tasks import Task


@dataclass(frozen=True)
class Run:
    """result.json is written after pre-training, and again after each task.

    Args:
        choice: what `choices.decide` found for the arm.
    """

    folder: Path
    settings: Settings
    arm: str
    seed: int
    choice: Results
    tokenizer: Any
    progress: Progress
    hardware: Hardware = PLAIN

    def report(self, done: int, total: int, said: str) -> None:
        self.progress(f"{parse_arm(self.arm).name}, seed {self.seed}", done, total, said)

    def pretrain(self, data: Results, about: Results, snapshots: bool) -> None:
        """Trains, judges and keeps the model, if that is not done."""
        from .checkpoints import drop_checkpoints, keep_model, read_curve
        from .run import pretrain

        path = self.folder / "result.json"
        has_all = lambda: path.exists() and (self.folder / "model").exists()  # noqa: E731
        if not together.first(has_all):  # results may be kept without models
            given = replace(self.settings, steps=self.choice["steps"])
            self._begin(given, about)
            model = pretrain(
                self.folder,
                given,
                self.choice["runs_as"],
                self.seed,
                data,
                self.report,
                snapshots,
                self.hardware,
            )
            if together.leads():
                reader = find(self.settings.objective).reader(self.tokenizer)
                keep_model(self.folder / "model", model, reader)
            curve = together.first(lambda: read_curve(self.folder / "curve.json"))
            settings = {key: x for key, x in asdict(self.settings).items() if key not in ("arms", "seeds")}
            result = {
                "arm": parse_arm(self.arm).name,
                "seed": self.seed,
                "parameters": sum(x.numel() for x in model.parameters()),
                **self.choice,
                "loss": curve[given.steps],
                "curve": curve,
                "parts": self.judge(model, data),
                "transfer": {},
                "maps": static_maps(model),
                "settings": settings,
                "about": about,
            }
            if together.leads():
                write_json(path, result | provenance(device()))
            together.wait()
        drop_checkpoints(self.folder)  # also what a kill has left

    def _begin(self, settings: Settings, about: Results) -> None:
        """run.json: what the run is, before its first step."""
        config = {key: x for key, x in asdict(settings).items() if key not in ("arms", "seeds")}
        data = {name: about.get(name) for name in ("corpus", "corpus_digest")}
        run = {"arm": parse_arm(self.arm).name, "seed": self.seed, "config": config, "data": data}
        if not together.leads():
            return
        write_json(self.folder / "run.json", run | {"command": command()} | provenance(device()))

    def judge(self, model: Any, data: Results) -> dict[str, float]:
        """{part: loss} on what is looked at once; for square static maps also "maps reset": the validation text with
        every map set to the identity."""
        objective = find(self.settings.objective)
        judged = {part: objective.judged(data, self.settings, part) for part in objective.parts(data)}
        found = {part: objective.evaluate(model, examples) for part, examples in judged.items()}
        with maps_reset(model) as is_reset:
            if is_reset:
                examples = objective.judged(data, self.settings, "held_out")
                found["maps reset"] = objective.evaluate(model, examples)
        return found

    def transfer(self, tasks: Sequence[Task]) -> None:
        """Fine-tunes on the tasks that have no score yet."""
        from .run import transfer

        result = read_json(self.folder / "result.json", RESULT)
        for task in tasks:
            if task.name not in result["transfer"]:
                arm = self.choice["runs_as"]
                score = transfer(
                    self.folder, self.settings, arm, self.seed, task, self.tokenizer, self.report
                )
                result["transfer"][task.name] = score
                if together.leads():
                    write_json(self.folder / "result.json", result)
