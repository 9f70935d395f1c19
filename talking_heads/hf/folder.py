"""A checkpoint's folder converted into another: read whole, compared, written aside, renamed."""

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from ..errors import UserError
from ..results.folders import new_folder
from . import probe
from .convert import Conversion, convert
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
    folder = _local(source)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as problem:
        raise UserError("a model must be one that transformers knows", problem, "check the folder") from None
    if hasattr(config, "talking_heads"):
        raise UserError("a model is converted once", f"a converted one in {folder}", "convert the original")
    with new_folder(out) as aside:
        model = read(model_class(config, folder, architecture), folder, unsafe_pickle=unsafe_pickle).eval()
        identity = options.get("init", "identity") == "identity"
        before, given = _outputs(model) if identity else (None, {})
        torch.manual_seed(seed)
        try:
            done = convert(model, **options)
        except ValueError as refusal:
            raise UserError.of(refusal) from None
        error = None if before is None else probe.error(before, probe.outputs(model, given))
        if error is not None and not error <= probe.tolerance(model.dtype):
            raise RuntimeError(
                f"convert: identity maps must keep the outputs; got a difference of {error:.1e}; nothing was written"
            )
        model.save_pretrained(aside)
        for file in sorted(folder.iterdir()):
            if file.is_file() and not any(file.match(pattern) for pattern in _WEIGHTS + _OTHERS):
                shutil.copyfile(file, aside / file.name)
    return done, error


def _local(source: str | Path) -> Path:
    """The folder itself, or the hub's files of that name but for code and pickles."""
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(
            snapshot_download(str(source), allow_patterns=["*.safetensors", "*.json", "*.txt", "*.model"])
        )
    except (HFValidationError, HfHubHTTPError, OSError) as problem:
        raise UserError(
            "a model must be a folder or a name on the hub", f"{source}: {problem}", "check its name"
        ) from None


def _outputs(model: Any) -> tuple[torch.Tensor | None, dict[str, Any]]:
    try:
        given = probe.example(model)
        found = probe.outputs(model, given)
        return found if found.isfinite().any() else None, given
    except Exception:  # inputs that nobody can guess
        return None, {}
