"""One training run in a folder: from its last checkpoint, bit by bit as an uninterrupted one; then the average.

OUT/run.json        settings and text, by which the same command knows its folder
    tokenizer/      the joint BPE
    curve.json      {update: BLEU of the validation text, likeliest piece by piece}
    checkpoint-N/   the Trainer's, for resuming; steps/N weights to average
    model/          the model that is used: the average, or the last weights where they validate better
    result.json, bleu.png, report.html
"""

import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from ..errors import UserError
from ..results import folders, stopping
from ..results.extras import require
from ..results.files import write_json
from ..results.folders import new_folder
from ..results.provenance import provenance
from ..results.schema import NUMBER, Each, read_json
from ..training.callbacks import Stop
from ..training.checkpoints import drop_checkpoints, keep_model, last_checkpoint, read_curve
from ..training.devices import autocast, device, refuse_torchrun
from ..training.run import make_trainer
from .masking import head_mask
from .model import batch_loss, build, load_average
from .parallel import Parallel, refuse_swapped
from .pieces import Batches, encode, joint_bpe, keep_short
from .score import bleu, scores
from .search import translate
from .settings import Settings

KIND = "translation"
RESULT = {
    "settings": {"arm": str, "seed": int},
    "updates": int,
    "curve": Each(NUMBER, digits=True),
    "validation": Each(object),
}
Progress = Callable[[str, int, int, str], None]  # run, updates done, of, what is to be said


def train(settings: Settings, text: Parallel, dev: Parallel, out: Path, progress: Progress) -> dict[str, Any]:
    """Trains to the end, from the folder's last checkpoint where there is one; a finished folder is left as it is.

    Returns:
        What result.json holds.

    Raises:
        UserError: a folder with another run, a text that cannot be used.
    """
    from .report import write_run

    refuse_torchrun()
    require("matplotlib", "sacrebleu")
    refuse_swapped(dev.source, dev.target, text.words, dev.name)
    folders.claim(out, KIND)
    with folders.lock(out):
        is_new = not (out / "run.json").exists()
        settings = claim(out, settings, text, dev)
        path = out / "result.json"
        try:
            if not _is_finished(path, settings):
                write_json(path, _Run(settings, text, dev, out, progress).to_the_end())
        except UserError:  # refused, so nothing was begun: the folder is free for other settings
            if is_new:
                (out / "run.json").unlink()
                shutil.rmtree(out / "tokenizer", ignore_errors=True)
                folders.release(out)
            raise
        result = read_json(path, RESULT)
        write_run(out, result)
    return result


def _is_finished(path: Path, settings: Settings) -> bool:
    """Whether there is a model of as many updates, or of fewer after which a run ends early."""
    if not (path.exists() and path.with_name("model").exists()):
        return False
    held = read_json(path, RESULT)
    curve = {int(step): x for step, x in held["curve"].items()}
    return held["updates"] >= settings.updates or is_over(curve, settings.patience)


def claim(out: Path, settings: Settings, text: Parallel, dev: Parallel) -> Settings:
    """Marks the folder as this run's; refuses one that holds another.

    Returns the settings, with the folder's own where their defaults depend on how many updates are asked for.
    """
    path = out / "run.json"
    held = read_json(path, {"warmup": int, "every": int}) if path.exists() else {}
    own: dict[str, Any] = {
        name: held.get(name) for name in ("warmup", "every") if getattr(settings, name) is None
    }
    settings = replace(settings, **own)
    now = json.loads(json.dumps(settings.identity | {"text": text.digest, "validation": dev.digest}))
    differs = [name for name, x in now.items() if held and held.get(name) != x]
    if differs:
        raise UserError(
            "a results folder must hold the same training run or none",
            f"one that differs in {', '.join(differs)} in {out}",
            "name another folder with --out, or repeat its settings",
        )
    write_json(path, now | {"words": text.words})
    return settings


class _Run:
    def __init__(
        self, settings: Settings, text: Parallel, dev: Parallel, out: Path, progress: Progress
    ) -> None:
        self.settings, self.text, self.dev, self.out = settings, text, dev, out
        self.say = lambda done, total, said: progress(
            f"{settings.arm}, seed {settings.seed}", done, total, said
        )
        self.tokenizer = self._tokenizer()
        ids = encode(self.tokenizer, text.source), encode(self.tokenizer, text.target)
        source, target, self.long = keep_short(*ids, settings.longest, text.name)
        if self.long:
            said = (
                f"{self.long} of {len(text)} pairs are longer than {settings.longest} pieces and were dropped"
            )
            warnings.warn(f"{text.name}: {said}", stacklevel=2)
        self.batches = Batches(source, target, settings.tokens, settings.seed, settings.updates)

    def _tokenizer(self) -> Any:
        from transformers import PreTrainedTokenizerFast

        folder = self.out / "tokenizer"
        if not folder.exists():
            made = joint_bpe([*self.text.source, *self.text.target], self.settings.vocabulary)
            with new_folder(folder) as aside:
                made.save_pretrained(aside)
        return PreTrainedTokenizerFast.from_pretrained(folder)

    def to_the_end(self) -> dict[str, Any]:
        settings = self.settings
        model = build(settings, len(self.tokenizer))
        curve = Curve(self.out, settings, self.judge, self.say)
        masking = head_mask(settings.head_mask, settings.seed)

        def loss(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
            with autocast():
                if masking is not None:
                    masking.measure(
                        lambda: batch_loss(model, batch, settings.smoothing, False), len(batch["labels"])
                    )
                return batch_loss(model, batch, settings.smoothing)

        start = self._resume_from()
        trainer = make_trainer(
            model,
            self.batches,
            self.out,
            1,
            settings.peak_rate,
            0.0,
            settings.seed,
            collate=lambda rows: rows[0],
            loss=loss,
            optimizer=torch.optim.Adam(
                [x for x in model.parameters() if x.requires_grad],
                lr=settings.peak_rate,
                betas=(0.9, 0.98),
                eps=1e-9,
            ),
            max_steps=self._end(start),
            bf16=False,  # the loss above has its own; validation is in float32
            lr_scheduler_type="inverse_sqrt",
            warmup_steps=settings.warmup_updates,
            save_strategy="steps",
            save_steps=settings.keep_every,
            callbacks=[curve, Stop(), *([] if masking is None else [masking])],
        )
        with stopping.at_checkpoints():
            trainer.train(resume_from_checkpoint=start)
        stopping.stop()
        return self._finish(model, trainer.state.global_step)

    def _resume_from(self) -> str | None:
        """The checkpoint to go on from; where losses or weights up to it are missing, the run starts again."""
        path = last_checkpoint(self.out)
        if path is not None:
            step = int(Path(path).name.partition("-")[2])
            kept = range(self.settings.keep_every, step + 1, self.settings.keep_every)
            due = {x for x in kept if x % self.settings.validate_every == 0}
            there = [x for x in list(kept)[-self.settings.average :] if _weights(self.out, x).exists()]
            if not due <= read_curve(self.out / "curve.json").keys() or len(there) < min(
                len(kept), self.settings.average
            ):
                drop_checkpoints(self.out)
                return None
        return path

    def _end(self, checkpoint: str | None) -> int:
        """The last update: of a run that was killed after it had ended early, the checkpoint's."""
        step = 0 if checkpoint is None else int(Path(checkpoint).name.partition("-")[2])
        curve = {s: x for s, x in read_curve(self.out / "curve.json").items() if s <= step}
        return step if curve and is_over(curve, self.settings.patience) else self.settings.updates

    def judge(self, model: Any) -> float:
        return bleu(translate(model, self.tokenizer, self.dev.source, beam=1), self.dev.target)

    def _finish(self, model: Any, updates: int) -> dict[str, Any]:
        """Averages, keeps the better of the average and the last weights, and says how it came about."""
        settings = self.settings
        last = {name: x.detach().clone() for name, x in model.named_parameters()}
        files = kept_weights(self.out)[-settings.average :]
        before = self.judge(model)
        load_average(model, files)
        after = self.judge(model)
        if before > after:
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    parameter.copy_(last[name])
        found = scores(translate(model, self.tokenizer, self.dev.source), self.dev.target)
        keep_model(self.out / "model", model, self.tokenizer)
        return {
            "settings": asdict(settings),
            "updates": updates,
            "target_tokens": self.batches.target_tokens(updates),
            "vocabulary": len(self.tokenizer),
            "parameters": sum(x.numel() for x in model.parameters() if x.requires_grad),
            "pairs": len(self.batches.source),
            "dropped": self.text.dropped | {"too long": self.long},
            "curve": read_curve(self.out / "curve.json"),
            "averaged": len(files),
            "greedy": {"last": before, "average": after},
            "kept": "last" if before > after else "average",
            "validation": found,
            "text": self.text.digest,
            "words": self.text.words,
            **provenance(device()),
        }


def _weights(out: Path, step: int) -> Path:
    return out / "steps" / str(step) / "weights.safetensors"


def kept_weights(out: Path) -> list[Path]:
    """The files of weights to average, oldest first."""
    steps = sorted(int(x.name) for x in (out / "steps").glob("*") if x.name.isdecimal())
    return [_weights(out, step) for step in steps]


class Curve(TrainerCallback):
    """Keeps weights along the run, takes the validation BLEU, ends a run that no longer improves."""

    def __init__(
        self,
        out: Path,
        settings: Settings,
        judge: Callable[[Any], float],
        say: Callable[[int, int, str], None],
    ) -> None:
        self.out, self.settings, self.judge, self.say = out, settings, judge, say
        self.path = out / "curve.json"

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        step, said = state.global_step, ""
        if step % self.settings.keep_every == 0 or step == self.settings.updates:
            self._keep(model, step)
        if step % self.settings.validate_every == 0 or step == self.settings.updates:
            before = {s: x for s, x in read_curve(self.path).items() if s < step}
            curve = before | {step: self.judge(model)}
            write_json(self.path, curve)
            said = f"BLEU {curve[step]:.1f}"
            if is_over(curve, self.settings.patience):
                control.should_save = control.should_training_stop = True
        self.say(step, self.settings.updates, said)

    def _keep(self, model: Any, step: int) -> None:
        from safetensors.torch import save_file

        path = _weights(self.out, step)
        if not path.exists():  # a run resumed from an older checkpoint comes here again with the same weights
            with new_folder(path.parent) as aside:
                save_file(
                    {name: x.detach().contiguous() for name, x in model.named_parameters()}, aside / path.name
                )
        for old in kept_weights(self.out)[
            : -self.settings.average - 1
        ]:  # the newest may be newer than any checkpoint
            shutil.rmtree(old.parent)


def is_over(curve: dict[int, float], patience: int) -> bool:
    """Whether the best BLEU is `patience` validations ago, or cannot be better."""
    values = [x for _, x in sorted(curve.items())]
    best = values.index(max(values))
    return bool(patience) and (max(values) >= 100 - 1e-9 or len(values) - 1 - best >= patience)
