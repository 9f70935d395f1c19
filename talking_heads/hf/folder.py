"""A checkpoint's folder converted into another: read whole, compared, written aside, renamed."""

import shutil
from pathlib import Path
from typing import Any

import torch

from ..anatomy import trial
from ..errors import UserError
from ..results.folders import new_folder
from .config import is_talking
from .convert import Conversion, convert
from .source import config_of, local
from .weights import model_class, read

# What is not copied beside the converted model: weights in every form, what save_pretrained writes anew, code.
_WEIGHTS = ("*.safetensors", "*.index.json", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack")
_OTHERS = ("*.onnx", "*.gguf", "*.py", "config.json", "generation_config.json")


def convert_folder(
    source: str | Path,
    out: Path,
    *,
    architecture: str | None = None,
    unsafe_pickle: bool = False,
    seed: int = 0,
    **options: Any,
) -> tuple[Conversion, float | None]:
    """Reads the model in a folder (or under a hub name), converts it and writes it to `out`.

    Tokenizer and other small files are copied. With identity maps the outputs on random inputs are compared
    before anything is written.

    Args:
        architecture: transformers' class to read it with; default the config's own.
        unsafe_pickle: see `weights.read`. seed: of random maps. options: of `convert`.

    Returns:
        (what was converted, largest difference of the outputs from before over the largest output; None
        where nothing was compared: random maps, or inputs of another kind).

    Raises:
        UserError: weights that are not whole, a model that cannot be converted, a folder that is not empty.
    """
    folder = local(source, pickles=unsafe_pickle)
    config = config_of(folder)
    if is_talking(config):
        raise UserError("a model is converted once", f"a converted one in {folder}", "convert the original")
    with new_folder(out) as aside:
        model = read(
            model_class(config, folder, architecture), folder, config=config, unsafe_pickle=unsafe_pickle
        ).eval()
        identity = options.get("init", "identity") == "identity"
        before, given = _outputs(model) if identity else (None, {})
        torch.manual_seed(seed)
        try:
            done = convert(model, **options)
        except ValueError as refusal:
            raise UserError.of(refusal) from None
        error = None if before is None else trial.error(before, trial.run(model, given))
        if error is not None and not error <= trial.tolerance(model.dtype):
            raise RuntimeError(
                f"convert: identity maps must keep the outputs; got a difference of {error:.1e}; nothing was written"
            )
        model.save_pretrained(aside)
        for file in sorted(folder.iterdir()):
            if file.is_file() and not any(file.match(pattern) for pattern in _WEIGHTS + _OTHERS):
                shutil.copyfile(file, aside / file.name)
    return done, error


def _outputs(model: Any) -> tuple[torch.Tensor | None, dict[str, Any]]:
    try:
        given = trial.example(model)
        found = trial.run(model, given)
        return found if found.isfinite().any() else None, given
    except Exception:  # inputs that nobody can guess
        return None, {}
