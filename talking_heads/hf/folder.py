"""A checkpoint's folder converted into another: read whole, compared, written aside, renamed."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..anatomy import trial
from ..devices import device as find_device
from ..devices import dtype as find_dtype
from ..errors import UserError
from ..results.folders import new_folder
from . import adapter
from .card import write_card
from .config import is_talking
from .convert import Conversion, convert
from .copying import copy_others
from .source import config_of, local
from .weights import model_class, read


@dataclass(frozen=True)
class FolderConversion(Conversion):
    """What was done with the model, and {file: why} of the folder's files that stayed behind."""

    files: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *(f"left {name}: {why}" for name, why in self.files.items())])


def convert_folder(
    source: str | Path,
    out: Path,
    *,
    architecture: str | None = None,
    unsafe_pickle: bool = False,
    merge_adapter: bool = False,
    seed: int = 0,
    device: str = "cpu",
    dtype: str | None = None,
    **options: Any,
) -> tuple[FolderConversion, float | None]:
    """Reads the model in a folder (or under a hub name), converts it and writes it to `out`.

    Tokenizer, processor, templates, a sentence encoder's sub-folders and other files come along (see `copying`),
    with a model card that says how to load the result. With identity maps the outputs on random inputs are
    compared before anything is written.

    Args:
        architecture: transformers' class to read it with; default the config's own.
        unsafe_pickle: see `weights.read`. merge_adapter: the folder holds a LoRA adapter, which is merged into the
            base model that it names (needs peft). seed: of random maps. options: of `convert`.
        device: where outputs are compared. dtype: of the new folder's weights; default as they are.

    Returns:
        (what was converted, largest difference of the outputs from before over the largest output; None
        where nothing was compared: random maps, or inputs of another kind).

    Raises:
        UserError: weights that are not whole, an adapter, a model that cannot be converted, a folder that is not
            empty.
    """
    place, kept = find_device(device), find_dtype(dtype)
    given: dict[str, Any] = {} if kept is None else {"dtype": kept}
    folder = local(source, pickles=unsafe_pickle)
    if not merge_adapter:
        adapter.refuse(folder)
    left: list[str] = []
    with new_folder(out) as aside:
        reading = {"architecture": architecture, "unsafe_pickle": unsafe_pickle, **given}
        if merge_adapter:
            model, folder, config = adapter.merged(folder, **reading)
        else:
            config = config_of(folder)
            _check_plain(config, folder)
            kind = model_class(config, folder, reading.pop("architecture"))
            model = read(kind, folder, config=config, heads=left, **reading)
        _check_plain(config, folder)
        model = model.to(place).eval()
        identity = options.get("init", "identity") == "identity"
        before, given = _outputs(model) if identity else (None, {})
        torch.manual_seed(seed)
        done = convert(model, **options)
        error = None if before is None else trial.error(before, trial.run(model, given))
        if error is not None and not error <= trial.tolerance(model.dtype):
            raise UserError(
                "convert: identity maps must keep the outputs",
                f"a difference of {error:.1e}",
                "nothing was written",
            )
        model.save_pretrained(aside)
        files = copy_others(folder, aside)
        files |= {f"tensor {name}": f"of another head, not {type(model).__name__}'s" for name in left}
        write_card(aside, folder, str(source), type(model).__name__, done)
    return FolderConversion(done.converted, done.left, files), error


def _check_plain(config: Any, folder: Path) -> None:
    if is_talking(config):
        raise UserError("a model is converted once", f"a converted one in {folder}", "convert the original")


def _outputs(model: Any) -> tuple[torch.Tensor | None, dict[str, Any]]:
    try:
        given = trial.example(model)
        found = trial.run(model, given)
        return found if found.isfinite().any() else None, given
    except Exception:  # inputs that cannot be guessed
        return None, {}
