"""A run's checkpoints: those that are whole, the one to go on from; the model that is kept at the end."""

import shutil
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ..errors import UserError
from ..results.files import set_aside
from ..results.schema import read_json
from . import together
from .gather import CURVE
from .settings import Settings


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


def last_checkpoint(folder: Path) -> str | None:
    """The newest whole checkpoint; those that a kill cut short, or that are damaged, are set aside."""
    for path in sorted(_checkpoints(folder), key=lambda path: -int(path.name.partition("-")[2])):
        if _is_whole(path):
            return str(path)
        place = set_aside(path)
        warnings.warn(f"{path} is damaged or cut short: set aside as {place.name}", stacklevel=2)
    return None


def resume_from(folder: Path, settings: Settings) -> str | None:
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
        for file in (x for kind in ("pt", "pth", "bin") for x in checkpoint.glob(f"*.{kind}")):
            with zipfile.ZipFile(file) as archive:
                if archive.testzip() is not None:
                    return False
    except (OSError, UserError, SafetensorError, zipfile.BadZipFile, zlib.error):
        return False
    return checkpoint.name == f"checkpoint-{step}"


def read_curve(path: Path) -> dict[int, float]:
    """{step: held-out loss}; empty where none has been written, or the file is damaged."""
    try:
        found = read_json(path, CURVE)
    except (FileNotFoundError, UserError):
        return {}
    return {int(step): loss for step, loss in found.items()}
